"""Headers tell what an array is before it is read; what they can't mean is refused, and nothing is unpickled."""

import io
import struct
import zipfile

import numpy as np
import pytest

from ebbtide import arrays, memory
from ebbtide.arrays import npy, npz
from ebbtide.errors import InputError

TABLE = np.arange(12.0).reshape(6, 2)


def packed(array, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_header_tells_what_the_array_is(tmp_path, version, order):
    array = np.asarray(TABLE, order=order)
    (tmp_path / "a.npy").write_bytes(packed(array, version=version))
    held = npy(tmp_path / "a.npy")
    assert (held.shape, held.ndim, len(held), held.dtype) == ((6, 2), 2, 6, np.float64)
    assert held.read(0).tolist() == TABLE.tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_array_by_array(tmp_path, save):
    save(tmp_path / "a.npz", x=TABLE, names=np.array(["a", "bc"]), number=np.array(3))
    held = npz(tmp_path / "a.npz")
    assert {name: array.shape for name, array in held.items()} == {"x": (6, 2), "names": (2,), "number": ()}
    assert held["x"].where == f"{tmp_path / 'a.npz'}, array 'x'"
    assert [held[name].read(0).tolist() for name in held] == [TABLE.tolist(), ["a", "bc"], 3]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_read_in_parts(tmp_path, monkeypatch, save, order):
    monkeypatch.setattr(arrays, "_TOGETHER", 20)
    save(tmp_path / "a.npz", x=np.asarray(TABLE, order=order))
    held = npz(tmp_path / "a.npz")["x"]
    for pieces in ([range(6)], [range(1, 3), range(3, 4), range(5, 6)], []):
        assert [part.tolist() for part in held.parts(pieces)] == [TABLE[piece].tolist() for piece in map(list, pieces)]


@pytest.mark.parametrize("pieces", [[range(6)], [range(5, 6)], [range(3), range(3, 6)]])
def test_damage_is_found_in_parts_too(tmp_path, pieces):
    """Also where it lies before what is read, of which zip's sum is checked."""
    np.savez(tmp_path / "a.npz", x=TABLE)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(struct.pack("<d", 2.0), struct.pack("<d", 2.5)))
    with pytest.raises(InputError, match=r"a\.npz is damaged or cut short \(BadZipFile\)"):
        list(npz(tmp_path / "a.npz")["x"].parts(pieces))


def test_only_what_is_read_is_unpacked(tmp_path):
    """An array that is damaged, or of objects, is in nobody's way until it is wanted."""
    np.savez(tmp_path / "a.npz", x=TABLE, bad=np.arange(5000.0), held=np.array([{}], object))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(struct.pack("<d", 4321.0), struct.pack("<d", 4322.0)))
    held = npz(tmp_path / "a.npz")
    assert held["x"].read(0).tolist() == TABLE.tolist()
    with pytest.raises(InputError, match=r"a\.npz is damaged or cut short \(BadZipFile\)"):
        held["bad"].read(0)
    with pytest.raises(InputError, match=r"array 'held' can't be used: got pickled objects, which are never loaded"):
        held["held"].read(0)


def test_room_is_asked_for_by_the_header(tmp_path, monkeypatch):
    """96 bytes of numbers, and 4 more for each of 12, are 144: 80 % of 180."""
    np.save(tmp_path / "a.npy", TABLE)
    monkeypatch.setattr(memory, "TRIFLE", 0)
    monkeypatch.setattr(memory, "available", lambda: 180.0)
    assert npy(tmp_path / "a.npy").read(4).shape == (6, 2)
    monkeypatch.setattr(memory, "available", lambda: 179.0)
    with pytest.raises(InputError, match=r"a\.npy would take about 1\.34e-07 GiB of memory"):
        npy(tmp_path / "a.npy").read(4)


def headed(text: str, length: int | None = None, version: int = 1) -> bytes:
    count = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + count.to_bytes(2 if version == 1 else 4, "little") + text.encode()


HEADERS = {
    "more than there is": headed("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999,)}"),
    "below 0": headed("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}"),
    "no shape": headed("{'descr': '<f8', 'fortran_order': False}"),
    "code": headed("__import__('os').mkdir('made')"),
    "deep": headed("(" * 5000),
    "longer than the file": headed("{", 60_000),
    "a long header": headed("{" + " " * 20_000, version=2),
    "a header without end": headed("{", 2**32 - 1, version=2),
    "another version": headed("{}", version=9),
    "nothing after the magic": b"\x93NUMPY",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_header_that_can_not_be_true_is_damage(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    for read, name in ((npy, "a.npy"), (npz, "a.npz")):
        with pytest.raises(InputError, match=rf"{name} is damaged or cut short"):
            read(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_bounds_are_refused(tmp_path, method):
    """Python unpacks 4096 bytes of these at once, and bzip2's may be gigabytes."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x.npy", packed(TABLE))
    with pytest.raises(InputError, match=r"a\.npz is packed by another method than numpy's"):
        npz(tmp_path / "a.npz")
