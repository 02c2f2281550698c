"""idx files put together byte by byte, whole and damaged, and the real thing where it is installed."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ebbtide.data import idx
from ebbtide.data.images import load_images, split_images
from ebbtide.errors import InputError

FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist

# Two images of 2 × 3: magic 0, 0, 8 (uint8), 3 dimensions, then 2, 2, 3 and the bytes row by row.
IMAGES = b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03" + bytes([0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255])
LABELS = b"\0\0\x08\x01\0\0\0\x02\x07\x03"
PIXELS = [[[[0, 1, 2], [3, 4, 5]]], [[[250, 251, 252], [253, 254, 255]]]]


def many(n: int, value: int = 0) -> tuple[bytes, bytes]:
    images = b"\0\0\x08\x03" + struct.pack(">3I", n, 2, 3) + bytes([value]) * (6 * n)
    return images, b"\0\0\x08\x01" + struct.pack(">I", n) + bytes(k % 2 for k in range(n))


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("style", ["{}-idx{}-ubyte", "{}.idx{}-ubyte", "my-{}-idx{}-ubyte"])
def test_a_file_with_its_labels_beside_it(tmp_path, style, end):
    pack = gzip.compress if end else bytes
    images, labels = (tmp_path / (style.format(name, k) + end) for name, k in (("images", 3), ("labels", 1)))
    images.write_bytes(pack(IMAGES))
    assert load_images(str(images)).labels is None
    labels.write_bytes(pack(LABELS))
    for data in (images, tmp_path):
        found = load_images(str(data))
        assert found.x.tolist() == PIXELS
        assert found.labels.tolist() == [1, 0]
        assert found.classes == ("3", "7")
        assert found.test == 0


def test_a_file_of_any_name(tmp_path):
    (tmp_path / "mine").write_bytes(IMAGES)
    (tmp_path / "mine.zip").write_bytes(gzip.compress(IMAGES))
    for name in ("mine", "mine.zip"):
        assert load_images(str(tmp_path / name)).x.tolist() == PIXELS


def test_a_folder_with_a_test_part(tmp_path):
    for part, n, value in (("train", 5, 10), ("t10k", 3, 20)):
        for data, name in zip(many(n, value), ("images-idx3", "labels-idx1")):
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(data))
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.warns(UserWarning, match=r"5 images to train on \('train'\), 3 held out \('t10k'\)\.$"):
        found = load_images(str(tmp_path))
    assert found.x[:, 0, 0, 0].tolist() == [10] * 5 + [20] * 3
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert found.test == 3
    train, test = split_images(found, 0.0)
    assert (len(train.x), len(test.x)) == (5, 3)
    assert (test.x == 20).all()
    assert load_images(str(tmp_path), size=4).test == 3
    assert len(load_images(str(tmp_path / "t10k-images-idx3-ubyte.gz")).x) == 3

    (tmp_path / "train-images-idx3-ubyte").write_bytes(many(5, 30)[0])  # unzipped beside zipped: the same set
    assert load_images(str(tmp_path)).x[:, 0, 0, 0].tolist() == [30] * 5 + [20] * 3

    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert load_images(str(tmp_path)).labels.tolist() == [0, 1, 0, 1, 0, -1, -1, -1]
    assert split_images(load_images(str(tmp_path)), 0.0)[1].labels is None


def test_several_sets_in_a_folder(tmp_path):
    for first, second in (("a-train", "b-train"), ("a-train", "b-test"), ("contest", "latest")):
        folder = tmp_path / first / second
        folder.mkdir(parents=True)
        for name in (first, second):
            (folder / f"{name}-images-idx3-ubyte").write_bytes(IMAGES)
        with pytest.raises(InputError, match=f"'{first}', '{second}'; name one of its files"):
            load_images(str(folder))


def test_letters_in_a_name_are_no_part(tmp_path):
    """Of "contest" and "contest-test" the latter is held out."""
    for name, value in (("contest", 10), ("contest-test", 20)):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(many(3, value)[0])
    train, test = split_images(load_images(str(tmp_path)), 0.0)
    assert (int(train.x.max()), int(test.x.min())) == (10, 20)


def test_parts_of_different_sizes(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(IMAGES)
    (tmp_path / "test-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 1, 1, 1) + b"x")
    with pytest.raises(InputError, match="images of one size"):
        load_images(str(tmp_path))


DAMAGED = {
    "empty": (b"", "is empty"),
    "one byte": (b"\0", "not an idx file"),
    "text": (b"hello, world", "not an idx file"),
    "int32": (b"\0\0\x0c" + IMAGES[3:], "must hold uint8.*got 12"),
    "half a head": (IMAGES[:10], "its head takes 16 bytes and it has 10"),
    "head alone": (IMAGES[:16], r"\[2, 2, 3\] takes 28 bytes and it has 16"),
    "cut short": (IMAGES[:-1], r"\[2, 2, 3\] takes 28 bytes and it has 27"),
    "too long": (IMAGES + b"x", r"takes 28 bytes and it has more"),
    "a number too large": (IMAGES[:4] + b"\xff" * 12 + IMAGES[16:], "takes 79228162458924105385300197391 bytes"),
    "labels": (LABELS, r"must hold images \(n, h, w\)"),
    "none": (b"\0\0\x08\x03" + struct.pack(">3I", 0, 2, 3), r"must hold images \(n, h, w\); it holds \(0, 2, 3\)"),
    "half a gzip": (gzip.compress(IMAGES)[:30], "damaged or cut short"),
    "gzip cut": (gzip.compress(IMAGES)[:-3], "damaged or cut short"),
    "gzip flipped": (gzip.compress(IMAGES)[:-6] + b"\0\0" + gzip.compress(IMAGES)[-4:], "damaged or cut short"),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path, data, reason):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=reason) as error:
            load_images(str(place))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@given(at=st.integers(0, 27), value=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_changed_head_is_never_read_as_something_else(tmp_path_factory, at, value):
    path = tmp_path_factory.mktemp("idx") / "images-idx3-ubyte"
    data = IMAGES[:at] + bytes([value]) + IMAGES[at + 1 :]
    path.write_bytes(data)
    if data == IMAGES or at >= 16:
        assert load_images(str(path)).x.flatten().tolist() == list(data[16:])
    else:
        with pytest.raises(InputError):
            load_images(str(path))


def test_labels_that_do_not_fit(tmp_path):
    (tmp_path / "images-idx3-ubyte").write_bytes(IMAGES)
    (tmp_path / "labels-idx1-ubyte").write_bytes(many(3)[1])
    with pytest.raises(InputError, match=r"labels-idx1-ubyte must hold 2 labels; it holds \(3,\)"):
        load_images(str(tmp_path))
    with pytest.raises(InputError, match="Got 'digit'"):
        load_images(str(tmp_path / "images-idx3-ubyte"), label="digit")


def test_what_is_no_idx_file(tmp_path):
    assert not idx.find(tmp_path)
    for name, data in {"a": b"", "b": b"\0\0\x09\x03", "c": gzip.compress(b"hello"), "d": b"\x1f\x8bhello"}.items():
        (tmp_path / name).write_bytes(data)
        assert not idx.matches(tmp_path / name)


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"{FASHION} is not installed")
def test_fashion_mnist():
    """70,000 images; mean and deviation of the training part are the published 0.2860 and 0.3530."""
    found = load_images(str(FASHION))
    assert found.x.shape == (70_000, 1, 28, 28)
    train, test = split_images(found, 0.0)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    assert train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    pixels = train.x.numpy() / np.float32(255)
    assert abs(pixels.mean() - 0.2860) < 1e-4
    assert abs(pixels.std() - 0.3530) < 1e-4
