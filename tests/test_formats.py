"""Formats of files: what they hold decides, whatever they are called, and damage is no error here."""

import gzip

import numpy as np

from ebbtide.formats import arrays, is_idx


def test_idx(tmp_path):
    idx = b"\0\0\x08\x03" + bytes(20)
    for name, data, expected in (
        ("plain", idx, True),
        ("zipped.csv", gzip.compress(idx), True),
        ("train-images-idx3-ubyte", b"1,2,3\n", False),
        ("floats", b"\0\0\x0d" + idx[3:], False),
        ("text.gz", gzip.compress(b"hello"), False),
        ("cut.gz", gzip.compress(idx)[:5], False),
        ("no.gz", b"\x1f\x8bhello", False),
        ("empty", b"", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_idx(tmp_path / name) is expected, name
    assert not is_idx(tmp_path)
    assert not is_idx(tmp_path / "nowhere")


def test_arrays(tmp_path):
    held = {
        "grey": np.zeros((2, 3, 4), np.uint8),
        "colour": np.zeros((2, 3, 4, 3), np.uint8),
        "table": np.zeros((2, 3), np.uint8),
        "real": np.zeros((2, 3, 4)),
        "pickled": np.array([None, print], object),
    }
    with open(tmp_path / "a.txt", "wb") as file:
        np.savez_compressed(file, **held)
    found = arrays(tmp_path / "a.txt")
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        name: (array.shape, array.dtype) for name, array in held.items()
    }
    assert [name for name, array in found.items() if array.images] == ["grey", "colour"]


def test_arrays_of_anything_else(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(100))
    sound = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(sound), 200).tolist():
        for damaged in (sound[:at], sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :]):
            (tmp_path / "a.npz").write_bytes(damaged)
            assert len(arrays(tmp_path / "a.npz")) <= 1
    assert arrays(tmp_path) == arrays(tmp_path / "nowhere") == {}
