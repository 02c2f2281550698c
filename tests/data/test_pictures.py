"""One picture: every mode and format gives the right pixels, and every bad file a reason."""

import io
import logging
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, PngImagePlugin

from ebbflow import memory
from ebbflow.data import pictures
from ebbflow.data.pictures import MOST_PIXELS, BadPicture, quiet, read, shape

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
    """A PNG put together by hand; colour 0 is grey, 2 RGB, 4 grey and alpha."""
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
    "ico": (encode(np.full((16, 16, 3), 7, np.uint8), "ico"), np.full((16, 16, 3), 7)),
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


@pytest.mark.parametrize(("data", "pixels"), GOOD.values(), ids=GOOD)
def test_every_mode_and_format(tmp_path, data, pixels):
    expected = np.asarray(pixels)
    expected = expected[:, :, None] if expected.ndim == 2 else expected
    (tmp_path / "picture.txt").write_bytes(data)  # the name says nothing
    for source in (data, tmp_path / "picture.txt"):
        with quiet():
            found = read(source)
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
if "AVIF" in pictures._formats():
    LOSSY["avif"] = encode(SMOOTH, "avif", quality=95)


@pytest.mark.parametrize("data", LOSSY.values(), ids=LOSSY)
def test_lossy_formats(data):
    found = read(data, channels=3)
    assert found.shape == (40, 48, 3)
    assert np.abs(found.astype(int) - SMOOTH[:, :, None]).max() <= 6


NOT_ONE = "is not a picture of a known format, or its beginning is damaged"
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
    "tiff, too dark": (encode(np.full((2, 2), -1, np.int32), "tiff"), r"has grey levels from -1 to -1; 16 bits"),
    "tiff, too light": (encode(np.array([[0, 65536]], np.int32), "tiff"), r"has grey levels from 0 to 65536; 16 bits"),
    "tiff, nan": (encode(np.array([[0.5, np.nan]], np.float32), "tiff"), r"has grey levels from nan to nan; real"),
    "tiff, below 0": (encode(np.array([[0.5, -0.5]], np.float32), "tiff"), r"has grey levels from -0.5 to 0.5; real"),
    "tiff, above 255": (encode(np.array([[0, 256]], np.float32), "tiff"), r"has grey levels from 0 to 256; real"),
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
        with quiet(), pytest.raises(BadPicture, match=f"^({reason})") as error:
            read(source)
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
    with pytest.raises(BadPicture, match=f"has .* pixels, more than {MOST_PIXELS:,}$"):
        read(BAD[name][0])


def test_postscript_starts_no_program(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(BadPicture):
        read(BAD["postscript, which is a program"][0])


@given(
    at=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
    kind=st.sampled_from(["png", "jpeg", "gif", "webp", "tiff", "bmp"]),
)
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_never_does_more_than_spoil_the_picture(at, mask, kind):
    """Whatever is damaged, a picture or a reason comes back; of a PNG, never a wrong picture."""
    data = bytearray(encode(NOISE, kind))
    data[int(at * len(data))] ^= mask
    with quiet():
        try:
            found = read(bytes(data))
        except BadPicture:
            return
    if kind == "png":
        assert np.array_equal(found[:, :, 0], NOISE)


@given(cut=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff"]))
@settings(max_examples=100, deadline=None)
def test_a_picture_cut_short_is_bad(cut, kind):
    """But for a PNG that lacks nothing except its last mark, of 12 bytes."""
    data = encode(NOISE, kind)
    with quiet(), pytest.raises(BadPicture):
        read(data[: int(cut * (len(data) - 12))])


def test_lab():
    """White, black and sRGB's red, whose L, a, b are 54.3 (of 100), 80.8 and 69.9 under D50."""
    picture = Image.frombytes("LAB", (3, 1), bytes([255, 0, 0, 0, 0, 0, 139, 81, 70]))
    found = read(encode(picture, "tiff")).astype(int)
    assert np.abs(found - [[[255, 255, 255], [0, 0, 0], [255, 0, 0]]]).max() <= 8


def test_the_system_may_refuse(tmp_path, monkeypatch):
    """That may pass, so it is told apart."""
    (tmp_path / "a.png").write_bytes(encode(RGB))
    with pytest.raises(BadPicture, match=r"^can't be read: No such file or directory$") as error:
        read(tmp_path / "b.png")
    assert error.value.passing
    with pytest.raises(BadPicture, match=r"^can't be read: Is a directory$"):
        read(tmp_path)
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):  # root may read anything

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadPicture, match=r"^can't be read: Permission denied$"):
        read(tmp_path / "a.png")


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
    """JPEGs may be decoded at a half or less of their size; what comes out is hardly another picture."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
    photo = small.resize((800, 600), Image.Resampling.BICUBIC)
    difference = read(encode(photo, "jpeg", quality=95), size=32).astype(int) - shape(photo, size=32)
    assert np.abs(difference).max() <= 8
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_comes_before_cropping(orientation):
    """The left half is cut from a picture twice as wide, whichever way it is stored."""
    wide = np.full((16, 48), 200, np.uint8)
    wide[:, :16], wide[:8] = 0, wide[:8] // 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read(encode(wide, exif=exif))[:, :, 0]
    square = read(encode(wide, exif=exif), size=16)[:, :, 0]
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


def test_every_format_but_programs():
    assert {"PNG", "JPEG", "TIFF", "QOI"} <= set(pictures._formats())
    assert not {"EPS", "WMF"} & set(pictures._formats())
    assert len(set(pictures._formats())) == len(pictures._formats())


def test_large_pictures_need_room_and_are_decoded_one_at_a_time(monkeypatch):
    """16 bytes for each of 17 million pixels; the reason may pass, so that it is not kept."""
    data = encode(Image.new("1", (4200, 4100)))
    assert read(data).shape == (4100, 4200, 1)
    assert not pictures._ALONE.locked()
    monkeypatch.setattr(memory, "available", lambda: 2e8)
    with pytest.raises(
        BadPicture, match=r"can't be decoded: it would take about 0\.257 GiB of memory; .* used$"
    ) as bad:
        read(data)
    assert bad.value.passing
    assert not pictures._ALONE.locked()
    assert read(encode(Image.new("1", (4000, 4000)))).shape == (4000, 4000, 1)
