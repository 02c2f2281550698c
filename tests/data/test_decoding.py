"""One image: every mode and format gives the right pixels, and every bad file a reason."""

import io
import logging
import os
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import EpsImagePlugin, Image, PngImagePlugin

from ebbtide import memory
from ebbtide.data import decoding
from ebbtide.data.decoding import MOST_PIXELS, BadImage, quiet, read_image, shape
from ebbtide.data.levels import Levels

# 3 rows × 4 columns, no two alike in any channel, no symmetry.
GREY = np.array([[0, 17, 34, 51], [68, 85, 102, 119], [136, 187, 204, 255]], np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY.T.reshape(3, 4)], 2)
SMOOTH = np.add.outer(np.arange(0, 120, 3), np.arange(0, 96, 2)).astype(np.uint8)  # 40 × 48, what JPEG keeps

NOISE = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)


def encode(picture, kind="png", **options) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w: int, h: int, bits: int, colour: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG put together by hand; colour 0 is grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def palette() -> Image.Image:
    picture = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    return picture


def sixteen(mode: str) -> Image.Image:
    """17 · 257 k is exactly 17 k of 255; one less or one more rounds to the same."""
    values = GREY.astype(np.uint16) * 257 + np.where(GREY == 255, 0, 1)
    values = values.astype({"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode])
    return Image.frombytes(mode, (4, 3), values.tobytes())


def turned(orientation: int, kind="png", **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(RGB, kind, exif=exif, **options)


def with_text(*, size: int) -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "x" * size, zip=True)
    return encode(RGB, pnginfo=about)


def frames(kind: str, **options) -> bytes:
    return encode(GREY, kind, save_all=True, append_images=[Image.fromarray(255 - GREY)], **options)


GOOD = {
    "png, RGB": (encode(RGB), RGB),
    "png, grey": (encode(GREY), GREY),
    "png, 1 bit": (encode(Image.fromarray(GREY > 100)), 255 * (GREY > 100)),
    "png, 2 bits": (png(4, 1, 2, 0, b"\0\x1b"), [[0, 85, 170, 255]]),
    "png, palette": (encode(palette()), [[[10, 20, 30], [200, 100, 50], [0, 255, 0], [200, 100, 50]]]),
    "png, palette with a hole": (
        encode(palette(), transparency=1),
        [[[10, 20, 30], [255, 255, 255], [0, 255, 0], [255, 255, 255]]],
    ),
    # 0.2 · 100 + 0.8 · 255 = 224; 0.6 · 0 + 0.4 · 255 = 102
    "png, RGBA": (
        encode(np.array([[[100, 0, 255, 51], [1, 2, 3, 255], [9, 9, 9, 0], [0, 100, 255, 153]]], np.uint8)),
        [[[224, 204, 255], [1, 2, 3], [255, 255, 255], [102, 162, 255]]],
    ),
    "png, grey and alpha": (
        encode(
            Image.merge(
                "LA", [Image.frombytes("L", (3, 1), b"\x64\x07\x00"), Image.frombytes("L", (3, 1), b"\x33\xff\x99")]
            )
        ),
        [[224, 7, 102]],
    ),
    "png, one RGB is clear": (
        encode(RGB, transparency=tuple(RGB[0, 1].tolist())),
        np.where((RGB[0, 1] == RGB).all(2, keepdims=True), 255, RGB),
    ),
    "png, one grey is clear": (encode(GREY, transparency=85), np.where(GREY == 85, 255, GREY)),
    "png, 1 bit, black is clear": (encode(Image.fromarray(GREY > 100), transparency=0), np.full((3, 4), 255)),
    "png, 16 bits": (encode(sixteen("I;16")), GREY),
    "png, 16 bits, rounded": (png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 128, 129, 65406, 65407)), [[0, 1, 254, 255]]),
    "png, 16 bits in RGB": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *(257 * k for k in (1, 2, 3, 40, 50, 60)))),
        [[[1, 2, 3], [40, 50, 60]]],
    ),
    "png, profile ignored": (encode(RGB, icc_profile=b"not a profile"), RGB),
    "png, damaged exif": (encode(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), RGB),
    "png, garbage behind": (encode(RGB) + b"garbage" * 99, RGB),
    "png, some text": (with_text(size=1000), RGB),
    "apng": (frames("png", default_image=False), GREY),
    "gif": (encode(GREY, "gif"), GREY),
    "gif, animated": (frames("gif"), GREY),
    "webp": (encode(RGB, "webp", lossless=True), RGB),
    "webp, animated": (frames("webp", lossless=True), np.repeat(GREY[:, :, None], 3, 2)),
    "tiff": (encode(RGB, "tiff"), RGB),
    "tiff, two pages": (frames("tiff"), GREY),
    "tiff, compressed": (encode(RGB, "tiff", compression="tiff_lzw"), RGB),
    "tiff, 16 bits": (encode(sixteen("I;16"), "tiff"), GREY),
    "tiff, 16 bits, big-endian": (encode(sixteen("I;16B"), "tiff"), GREY),
    "tiff, 32 bits": (encode(sixteen("I"), "tiff"), GREY),
    "tiff, real, to 1": (encode((GREY / 255).astype(np.float32), "tiff"), GREY),
    "tiff, real, to 255": (encode(GREY.astype(np.float32) - 0.25 * (GREY > 0), "tiff"), GREY),
    "tiff, CMYK": (
        encode(Image.frombytes("CMYK", (3, 1), bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 51, 255, 0])), "tiff"),
        [[[255, 255, 255], [0, 255, 255], [255, 204, 0]]],
    ),
    "bmp": (encode(RGB, "bmp"), RGB),
    "dib": (encode(RGB, "dib"), RGB),
    "ppm": (b"P3 2 1 255 1 2 3 4 5 6\n", [[[1, 2, 3], [4, 5, 6]]]),
    "pgm, 16 bits": (b"P5 2 1 65535\n\0\xff\xff\xff", [[1, 255]]),
    "pbm": (b"P1 2 1 1 0\n", [[0, 255]]),
    "tga": (encode(RGB, "tga"), RGB),
    "pcx": (encode(RGB, "pcx"), RGB),
    "sgi": (encode(RGB, "sgi"), RGB),
    "dds": (encode(RGB, "dds"), RGB),
    "xbm": (encode(Image.fromarray(GREY > 100), "xbm"), 255 * (GREY > 100)),
    "jpeg2000": (encode(RGB, "jpeg2000", irreversible=False), RGB),
    **{
        f"png, orientation {k}": (turned(k), upright)
        for k, upright in {
            1: RGB,
            2: RGB[:, ::-1],
            3: RGB[::-1, ::-1],
            4: RGB[::-1],
            5: RGB.transpose(1, 0, 2),
            6: RGB[::-1].transpose(1, 0, 2),  # the first row is the right side
            7: RGB[::-1, ::-1].transpose(1, 0, 2),
            8: RGB[:, ::-1].transpose(1, 0, 2),  # the first row is the left side
            9: RGB,
        }.items()
    },
    "tiff, orientation 6": (turned(6, "tiff"), RGB[::-1].transpose(1, 0, 2)),
    "webp, orientation 6": (turned(6, "webp", lossless=True), RGB[::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_mode_and_format(tmp_path, name):
    data, pixels = GOOD[name]
    levels = Levels(0, 65535) if re.search("16 bits|32 bits", name) else None
    expected = np.asarray(pixels)
    expected = expected[:, :, None] if expected.ndim == 2 else expected
    (tmp_path / "picture.txt").write_bytes(data)  # the name says nothing
    for source in (data, tmp_path / "picture.txt"):
        with quiet():
            found = read_image(source, levels=levels).pixels
        assert found.dtype == np.uint8
        assert found.tolist() == expected.tolist()


LOSSY = {
    "jpeg": encode(SMOOTH, "jpeg"),
    "jpeg, RGB": encode(np.stack([SMOOTH] * 3, 2), "jpeg"),
    "jpeg, CMYK": encode(Image.fromarray(SMOOTH).convert("CMYK"), "jpeg"),
    "jpeg, progressive": encode(SMOOTH, "jpeg", progressive=True),
    "jpeg, garbage behind": encode(SMOOTH, "jpeg") + b"garbage",
    "mpo": encode(SMOOTH, "mpo", save_all=True, append_images=[Image.fromarray(255 - SMOOTH)]),
    "webp": encode(SMOOTH, "webp", quality=95),
}
if "AVIF" in decoding._formats():
    LOSSY["avif"] = encode(SMOOTH, "avif", quality=95)


@pytest.mark.parametrize("data", LOSSY.values(), ids=LOSSY)
def test_lossy_formats(data):
    found = read_image(data, channels=3).pixels
    assert found.shape == (40, 48, 3)
    assert np.abs(found.astype(int) - SMOOTH[:, :, None]).max() <= 6


NOT_ONE = "is not an image of a known format, or its beginning is damaged"
CUT = r"can't be decoded: .*(?i:truncated|broken|decod|incomplete|unpack|buffer|cannot|invalid|error|-2)"
BAD = {
    "empty": (b"", "is empty"),
    "one byte": (b"x", NOT_ONE),
    "text": (b"just some words\n" * 50, NOT_ONE),
    "a web page": (b"<!DOCTYPE html><html><body>404 not found</body></html>", NOT_ONE),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>', NOT_ONE),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", NOT_ONE),
    "zip": (b"PK\3\4" + bytes(100), NOT_ONE),
    "zeros": (bytes(10_000), NOT_ONE),
    "noise": (np.random.default_rng(0).bytes(10_000), NOT_ONE),
    "postscript, which is a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", NOT_ONE),
    "png, its signature alone": (encode(RGB)[:8], NOT_ONE),
    "png, half a head": (encode(RGB)[:20], f"{NOT_ONE}|{CUT}"),
    "png, damaged head": (encode(RGB)[:17] + b"\xff" + encode(RGB)[18:], NOT_ONE),
    "png, half": (encode(SMOOTH)[: len(encode(SMOOTH)) // 2], CUT),
    "png, flipped byte": (encode(NOISE)[:200] + b"\x55\xaa\x55" + encode(NOISE)[203:], CUT),
    "png, no data": (png(4, 3, 8, 0, b""), CUT),
    "png, a bomb of text": (with_text(size=2**24), r"can't be decoded: .*(?i:too large)"),
    "jpeg, half": (encode(SMOOTH, "jpeg")[: len(encode(SMOOTH, "jpeg")) // 2 + 200], CUT),
    "jpeg, without its end": (encode(SMOOTH, "jpeg")[:-2], CUT),
    "jpeg, head alone": (encode(SMOOTH, "jpeg")[:100], f"{NOT_ONE}|{CUT}"),
    "gif, half": (encode(SMOOTH, "gif")[: len(encode(SMOOTH, "gif")) // 2 + 300], CUT),
    "webp, half": (encode(RGB, "webp")[:-20], f"{NOT_ONE}|{CUT}"),
    "bmp, half": (encode(RGB, "bmp")[:-20], CUT),
    "tiff, half": (encode(RGB, "tiff")[:-20], CUT),
    "tiff, compressed, damaged": (
        encode(SMOOTH, "tiff", compression="tiff_adobe_deflate").replace(b"\x78", b"\xff", 1),
        CUT,
    ),
    "tga, half": (encode(RGB, "tga")[:30], CUT),
    "jpeg2000, half": (encode(RGB, "jpeg2000")[:-30], f"{NOT_ONE}|{CUT}"),
    "tiff, nan": (encode(np.array([[0.5, np.nan]], np.float32), "tiff"), "holds 1 of 2 values that are not finite"),
    "tiff, inf": (encode(np.array([[np.inf] * 3], np.float32), "tiff"), "holds 3 of 3 values that are not finite"),
    "png, gigantic": (png(40_000, 40_000, 8, 0, b""), r".*pixels$"),
    "bmp, gigantic": (
        encode(RGB, "bmp")[:18] + struct.pack("<ii", 30_000, 30_000) + encode(RGB, "bmp")[26:],
        r".*pixels$",
    ),
    "gif, gigantic": (b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + encode(GREY, "gif")[10:], r".*pixels$"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_every_bad_file_has_a_reason(tmp_path, capfd, data, reason):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    for source in (path, data):
        with quiet(), pytest.raises(BadImage, match=f"^({reason})") as error:
            read_image(source)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200
        assert str(tmp_path) not in str(error.value)
        assert not error.value.passing
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == "" or said.err.startswith("ZIPDecode")  # libtiff's own, which can't be stopped


@pytest.mark.parametrize("name", ["png, gigantic", "bmp, gigantic", "gif, gigantic"])
def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch, name):
    """Also where another library has switched pillow's own limit off."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=f"has .* pixels, more than {MOST_PIXELS:,}$"):
        read_image(BAD[name][0])


def test_postscript_starts_no_program(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(BadImage):
        read_image(BAD["postscript, which is a program"][0])


@given(
    at=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
    kind=st.sampled_from(["png", "jpeg", "gif", "webp", "tiff", "bmp"]),
)
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_never_does_more_than_spoil_the_picture(at, mask, kind):
    """Whatever is damaged, an image or a reason comes back; of a PNG, never a wrong image."""
    data = bytearray(encode(NOISE, kind))
    data[int(at * len(data))] ^= mask
    with quiet():
        try:
            found = read_image(bytes(data)).pixels
        except BadImage:
            return
    if kind == "png":
        assert np.array_equal(found[:, :, 0], NOISE)


@given(cut=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff"]))
@settings(max_examples=100, deadline=None)
def test_a_picture_cut_short_is_bad(cut, kind):
    """But for a PNG that lacks nothing except its last mark, of 12 bytes."""
    data = encode(NOISE, kind)
    with quiet(), pytest.raises(BadImage):
        read_image(data[: int(cut * (len(data) - 12))])


def test_lab():
    """White, black and sRGB's red, whose L, a, b are 54.3 (of 100), 80.8 and 69.9 under D50."""
    picture = Image.frombytes("LAB", (3, 1), bytes([255, 0, 0, 0, 0, 0, 139, 81, 70]))
    found = read_image(encode(picture, "tiff")).pixels.astype(int)
    assert np.abs(found - [[[255, 255, 255], [0, 0, 0], [255, 0, 0]]]).max() <= 8


def test_the_system_may_refuse(tmp_path, monkeypatch):
    """That may pass, so it is told apart."""
    (tmp_path / "a.png").write_bytes(encode(RGB))
    with pytest.raises(BadImage, match=r"^can't be read: No such file or directory$") as error:
        read_image(tmp_path / "b.png")
    assert error.value.passing
    with pytest.raises(BadImage, match=r"^can't be read: Is a directory$"):
        read_image(tmp_path)
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):  # root may read anything

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadImage, match=r"^can't be read: Permission denied$"):
        read_image(tmp_path / "a.png")


# --- more than 8 bits ---------------------------------------------------------------------------------------


def numbers(kind: str, values) -> bytes:
    """Values (h, w[, c]) of 16 or 32 bits in a file."""
    values = np.asarray(values)
    if kind.startswith("png"):
        h, w = values.shape[:2]
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]
        raw = values.astype(">u2").view(np.uint8).reshape(h, -1)
        before = np.pad(raw, ((0, 0), (2 * values[0, 0].size, 0)))[:, : raw.shape[1]]
        return png(w, h, 16, colour, b"".join(b"\1" + row.tobytes() for row in raw - before))  # filter Sub
    if kind == "pgm":
        return b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()
    types = {"tiff16": "<u2", "tiff32": "<i4", "tifff": "<f4"}
    if values.ndim == 2:
        return encode(values.astype(types[kind]), "tiff")
    return tiff(values)


def tiff(values, order="<") -> bytes:
    """16-bit RGB, by hand: the directory's entries are tag, type (3: short, 4: long), count, value."""
    h, w, c = values.shape
    entries = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
               (277, 3, 1, c), (278, 4, 1, h), (279, 4, 1, 2 * values.size), (339, 3, 1, 1)]  # fmt: skip
    short = lambda value: struct.pack(f"{order}HH", value, 0)
    body = b"".join(
        struct.pack(f"{order}HHI", tag, kind, n)
        + (short(value) if kind == 3 and n == 1 else struct.pack(f"{order}I", value))
        for tag, kind, n, value in entries
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries)) + body + bytes(4)
    return head + struct.pack(f"{order}3H", 16, 16, 16) + values.astype(f"{order}u2").tobytes()


RAMP = np.linspace(300, 2200, 60).round().astype(int).reshape(6, 10)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], 2)
ALPHA = np.where(RAMP > 1000, 65535, 13107)[..., None]  # all, and a fifth


@pytest.mark.parametrize("kind", ["png", "pgm", "tiff16", "tiff32", "tifff"])
def test_values_of_more_than_8_bits_are_spread_over_all_greys(kind):
    """12-bit values keep 60 of 60 shades, where 65535 as white left 8; by their own range, and by a set's."""
    found = read_image(numbers(kind, RAMP))
    assert found.levels == (300, 2200)
    assert not found.transparent
    assert found.pixels[:, :, 0].tolist() == np.rint((RAMP - 300) / 1900 * 255).tolist()
    wide = read_image(numbers(kind, RAMP), levels=Levels(-100, 5000))
    assert wide.levels == (300, 2200)
    assert wide.pixels[:, :, 0].tolist() == np.rint((RAMP + 100) / 5100 * 255).tolist()
    narrow = read_image(numbers(kind, RAMP), levels=Levels(500, 1000)).pixels
    assert (narrow[0, 0, 0], narrow[-1, -1, 0]) == (0, 255)


def ppm(values) -> bytes:
    return b"P6 %d %d 65535\n" % values.shape[1::-1] + values.astype(">u2").tobytes()


COLOURED = {"png": lambda x: numbers("png", x), "II": tiff, "MM": lambda x: tiff(x, ">"), "ppm": ppm}


@pytest.mark.parametrize("make", COLOURED.values(), ids=COLOURED)
def test_colours_of_16_bits_keep_their_lower_byte(make):
    found = read_image(make(COLOURS))
    assert found.levels == (300, 2200)
    assert found.pixels.tolist() == np.rint((COLOURS - 300) / 1900 * 255).tolist()


@pytest.mark.parametrize("colours", [RAMP[..., None], COLOURS], ids=["LA", "RGBA"])
def test_transparency_of_16_bits(colours):
    data = numbers("png", np.concatenate([colours, ALPHA], 2))
    scaled = np.rint((colours - 300) / 1900 * 255)
    found = read_image(data, channels=4)
    assert (found.levels, found.transparent) == ((300, 2200), True)
    assert found.pixels[..., :3].tolist() == np.broadcast_to(scaled, (6, 10, 3)).tolist()
    assert found.pixels[..., 3:].tolist() == (ALPHA // 257).tolist()
    white = read_image(data).pixels
    assert white.shape == colours.shape
    assert np.abs(white - (255 - (255 - scaled) * ALPHA / 65535)).max() <= 1


def test_what_cannot_be_seen_has_no_say_in_the_range():
    """A depth camera's "nothing there", marked as clear."""
    values = np.where(RAMP < 500, 65535, RAMP)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    found = read_image(png(10, 6, 16, 0, rows, chunk(b"tRNS", b"\xff\xff")), channels=4)
    assert (found.levels, found.transparent) == ((RAMP[RAMP >= 500].min(), 2200), True)
    assert (found.pixels[..., 3] == np.where(RAMP < 500, 0, 255)).all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([[-5.0, 0.25, 1e6]]), "tifff"),
        (np.array([[1e-30, 5e-30, 2e-29]]), "tifff"),
        (np.array([[-3e38, 0, 3e38]]), "tifff"),
        (np.array([[-(2**31), 0, 2**31 - 1]]), "tiff32"),
        (np.array([[10**9, 10**9 + 1, 10**9 + 2]]), "tiff32"),
    ],
)
def test_any_range_is_spread(values, kind):
    found = read_image(numbers(kind, values))
    exact = np.asarray(values, np.float32 if kind == "tifff" else np.int64).astype(np.longdouble)
    assert (
        found.pixels[0, :, 0].tolist() == np.rint((exact - exact[0, 0]) / np.ptp(exact) * 255).astype(int)[0].tolist()
    )
    assert np.isfinite(found.levels).all()


def test_a_constant_picture_is_black():
    found = read_image(numbers("png", np.full((2, 3), 777)))
    assert found.levels == Levels.parse("777:777") == Levels.parse(str(found.levels))
    assert not found.pixels.any()


# --- transparency -------------------------------------------------------------------------------------------


def test_transparency_is_kept_in_four_channels():
    rgba = np.array([[[100, 0, 255, 51], [1, 2, 3, 255], [9, 9, 9, 0], [0, 100, 255, 153]]], np.uint8)
    found = read_image(encode(rgba), channels=4)
    assert found.transparent
    assert found.pixels.tolist() == rgba.tolist()
    hole = read_image(encode(palette(), transparency=1), channels=4).pixels
    assert hole[0, :, 3].tolist() == [255, 0, 255, 0]
    assert hole[0, [0, 2], :3].tolist() == [[10, 20, 30], [0, 255, 0]]
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])
    assert read_image(encode(grey), channels=4).pixels.tolist() == np.stack([GREY] * 3 + [255 - GREY], 2).tolist()
    opaque = read_image(encode(RGB), channels=4)
    assert not opaque.transparent
    assert opaque.pixels.tolist() == np.dstack([RGB, np.full((3, 4), 255)]).tolist()


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_only_what_can_be_seen_through_is_transparent(channels):
    for alpha, answer in ((255, False), (254, True)):
        picture = np.dstack([RGB, np.where(GREY == 17, alpha, 255)]).astype(np.uint8)
        assert read_image(encode(picture), channels=channels).transparent is answer


def test_hidden_colours_do_not_bleed_when_resized():
    """Red beside clear green: resized by premultiplied colours, nothing turns green."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[:, :8], picture[:, 8:] = (200, 0, 0, 255), (0, 255, 0, 0)
    found = read_image(encode(picture), size=5, channels=4).pixels
    assert found[..., 1].max() <= 1
    assert (found[:, 2, 3] > 60).all()
    assert (found[:, 2, 3] < 200).all()


# --- shape --------------------------------------------------------------------------------------------------


def test_nothing_asked_nothing_done():
    assert np.array_equal(shape(Image.fromarray(RGB)), RGB)
    assert np.array_equal(shape(Image.fromarray(RGB[:, :3]), size=3), RGB[:, :3])
    assert np.array_equal(shape(Image.fromarray(GREY))[:, :, 0], GREY)


@pytest.mark.parametrize(("h", "w"), [(40, 60), (61, 40), (41, 41), (8, 100), (3, 7)])
@pytest.mark.parametrize("size", [4, 20, 50])
def test_a_ramp_stays_a_ramp(h, w, size):
    """Pixel k of the middle square of side m becomes the ramp's value at (k + 1/2) m/size, but at the edges."""
    ramp = 2.0 * np.arange(w) + 0 * np.arange(h)[:, None]
    m = min(h, w)
    for picture, axis in ((ramp, 1), (ramp.T, 0)):
        found = shape(Image.fromarray(np.rint(picture).astype(np.uint8)), size)
        assert found.shape == (size, size, 1)
        centres = (w - m) / 2 + (np.arange(size) + 0.5) * m / size - 0.5
        middle = slice(size // 4, size - size // 4)
        error = np.moveaxis(found[:, :, 0], axis, 1)[:, middle] - 2 * centres[middle]
        assert np.abs(error).max() <= 1


def test_shrinking_leaves_no_aliasing():
    """Stripes of one pixel become their mean; picking pixels would give 0 or 255."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(shape(Image.fromarray(stripes), size=8).astype(int) - 127.5).max() < 8


def test_a_line_and_a_point():
    assert (shape(Image.fromarray(np.full((1, 500), 9, np.uint8)), size=4) == 9).all()
    assert (shape(Image.fromarray(np.full((1, 1), 9, np.uint8)), size=4) == 9).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels(channels):
    assert shape(Image.fromarray(GREY), channels=channels).tolist() == np.repeat(GREY[:, :, None], channels, 2).tolist()
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    expected = [[[76], [150], [29]]] if channels == 1 else colours.tolist()  # 0.299, 0.587, 0.114 of 255
    assert shape(Image.fromarray(colours), channels=channels).tolist() == expected


def test_a_photo_decoded_small_looks_the_same():
    """JPEGs may be decoded at a half or less of their size; what comes out is hardly another image."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    photo = small.resize((800, 600), Image.Resampling.BICUBIC)
    difference = read_image(encode(photo, "jpeg", quality=95), size=32).pixels.astype(int) - shape(photo, size=32)
    assert np.abs(difference).max() <= 8
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_comes_before_cropping(orientation):
    """The left half is cut from an image twice as wide, whichever way it is stored."""
    wide = np.full((16, 48), 200, np.uint8)
    wide[:, :16], wide[:8] = 0, wide[:8] // 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_image(encode(wide, exif=exif)).pixels[:, :, 0]
    square = read_image(encode(wide, exif=exif), size=16).pixels[:, :, 0]
    assert square.tolist() == (upright[:, 16:32] if upright.shape == (16, 48) else upright[16:32]).tolist()


def test_quiet_says_nothing_and_then_lets_others_speak(capfd):
    level = logging.getLogger("PIL").level
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("not heard", stacklevel=1)
            logging.getLogger("PIL.TiffImagePlugin").error("nor this")
        warnings.warn("heard", stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["heard"]
    assert logging.getLogger("PIL").level == level
    assert capfd.readouterr().err == ""


def test_formats_are_a_closed_list():
    """A new pillow, or another library that registers with it, adds none."""
    assert {"PNG", "JPEG", "TIFF", "QOI"} <= set(decoding._formats()) <= set(decoding._FORMATS)
    assert not {"EPS", "WMF", "IPTC", "ICO", "ICNS", "FITS"} & set(decoding._FORMATS)
    assert len(set(decoding._FORMATS)) == len(decoding._FORMATS)


def test_a_program_within_a_picture_is_not_run(monkeypatch):
    """IPTC wraps a file of any format, which pillow opens with all its readers, Ghostscript's among them."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program is started"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    nine = (9).to_bytes(2, "big")
    entries = {(3, 60): b"\1\0", (3, 65): b"\0", (3, 20): nine, (3, 30): nine, (3, 120): b"\5", (8, 10): program}
    data = b"".join(bytes([0x1C, *key]) + len(value).to_bytes(2, "big") + value for key, value in entries.items())
    with pytest.raises(BadImage, match=NOT_ONE):
        read_image(data)


@pytest.mark.parametrize(
    "wrapped", [b"\0\0\1\0\1\0" + bytes([16, 16, 0, 0, 1, 0, 32, 0]), b"icns"], ids=["ico", "icns"]
)
def test_a_large_picture_within_a_small_one_is_not_decoded(wrapped, monkeypatch):
    """An icon's header holds a size of its own, beside that of the PNG within it."""
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: pytest.fail("it is decoded"))
    inner = encode(Image.new("1", (5000, 5000)))
    size = len(inner)
    head = (
        wrapped + (size + 16).to_bytes(4, "big") + b"ic07" + (size + 8).to_bytes(4, "big")
        if wrapped == b"icns"
        else wrapped + size.to_bytes(4, "little") + (22).to_bytes(4, "little")
    )
    with pytest.raises(BadImage, match=NOT_ONE):
        read_image(head + inner)


def test_large_pictures_need_room_and_are_decoded_one_at_a_time(monkeypatch):
    """16 bytes for each of 17 million pixels; the reason may pass, so that it is not kept."""
    data = encode(Image.new("1", (4200, 4100)))
    assert read_image(data).pixels.shape == (4100, 4200, 1)
    assert not decoding._ALONE.locked()
    monkeypatch.setattr(memory, "available", lambda: 2e8)
    with pytest.raises(BadImage, match=r"can't be decoded: it would take about 0\.257 GiB of memory; .* used$") as bad:
        read_image(data)
    assert bad.value.passing
    assert not decoding._ALONE.locked()
    assert read_image(encode(Image.new("1", (4000, 4000)))).pixels.shape == (4000, 4000, 1)
