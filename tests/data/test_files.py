import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from data.sentences import check_sentence, refused
from ebbtide import arrays as arrays_module, memory
from ebbtide.data import read, save_points, save_table, text as text_module
from ebbtide.data.files import EXTENSIONS
from ebbtide.errors import InputError, StorageError


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def foreign_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "not an array")
    return file.getvalue()


TABLE = np.arange(12.0).reshape(6, 2)
KINDS = np.array(list("abcabc"))


def holed(value: float) -> np.ndarray:
    table = TABLE.copy()
    table[4, 1] = value
    return table


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("extension", ["csv", "tsv", "npy", "npz"])
def test_any_number_of_columns(tmp_path, d, extension):
    x = torch.randn(7, d)
    save_points(tmp_path / f"mine.{extension}", x)
    assert torch.equal(read(tmp_path / f"mine.{extension}").x, x)


def test_a_vector_is_one_column(tmp_path):
    np.save(tmp_path / "mine.npy", np.arange(3))
    assert read(tmp_path / "mine.npy").x.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i1", "i8", "u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_real_dtype(tmp_path, dtype, order):
    np.save(tmp_path / "mine.npy", np.asarray(TABLE, dtype=dtype, order=order))
    assert read(tmp_path / "mine.npy").x.tolist() == TABLE.tolist()


def test_a_constant_column_is_allowed(tmp_path):
    for constant in (0.1, 16777217.0):
        np.save(tmp_path / "mine.npy", np.array([[constant, 1], [constant, 2]]))
        assert read(tmp_path / "mine.npy").x[:, 0].tolist() == [np.float32(constant)] * 2


@pytest.mark.parametrize(
    ("held", "label"),
    [
        ({"x": TABLE, "labels": KINDS}, None),
        ({"x": TABLE, "y": KINDS}, None),
        ({"x": TABLE, "other": TABLE + 1, "kind": KINDS}, "kind"),
        ({"kind": KINDS, "points": TABLE, "more": TABLE + 1}, "kind"),
        ({"points": TABLE, "labels": KINDS.astype("S")}, None),
    ],
)
def test_npz(tmp_path, held, label):
    np.savez(tmp_path / "mine.npz", **held)
    points = read(tmp_path / "mine.npz", label)
    assert points.x.tolist() == TABLE.tolist()
    assert points.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert points.classes == ("a", "b", "c")


def test_parts_of_a_table(tmp_path):
    """The held-out ones come last, whatever their order."""
    held = {
        "x_test": TABLE[4:],
        "y_test": KINDS[4:],
        "x_train": TABLE[:4],
        "y_train": KINDS[:4],
        "kind_train": KINDS[2:],
    }
    np.savez(tmp_path / "mine.npz", **held)
    with pytest.warns(UserWarning, match=r"4 rows to train on \('x_train'\), 2 held out \('x_test'\)\.$"):
        points = read(tmp_path / "mine.npz")
    assert (points.x.tolist(), points.test, points.labels.tolist()) == (TABLE.tolist(), 2, [0, 1, 2, 0, 1, 2])
    assert read(tmp_path / "mine.npz", "kind").labels is None  # the test part has none
    with pytest.raises(InputError, match="no array 'sort'"):
        read(tmp_path / "mine.npz", "sort")
    np.savez(tmp_path / "mine.npz", **held | {"x_test": TABLE[4:, :1]})
    with pytest.raises(
        InputError, match=r"'x_test' and 'x_train' must have as many columns|'x_train' and 'x_test' must"
    ):
        read(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", x=TABLE[:4], x_test=TABLE[4:], y=KINDS[:4], y_test=KINDS[4:], train=TABLE)
    with pytest.warns(UserWarning, match=r"4 rows to train on \('x'\), 2 held out \('x_test'\)\.$"):
        points = read(tmp_path / "mine.npz")
    assert (points.x.tolist(), points.test, points.labels.tolist()) == (TABLE.tolist(), 2, [0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "mine.npz", train=TABLE, labels=KINDS)
    assert read(tmp_path / "mine.npz").labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_an_npz_of_pictures_is_no_table(tmp_path):
    """Its labels, a column of numbers, would else be taken for the points."""
    pictures = np.zeros((6, 2, 2), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=pictures, train_labels=np.zeros((6, 1), np.uint8))
    with pytest.raises(InputError, match=r"a\.npz holds images \('train_images'\), which recipes such as flow-images"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", thumbnails=pictures, x=TABLE)
    assert read(tmp_path / "a.npz").x.tolist() == TABLE.tolist()


@pytest.mark.parametrize("name", ["x", "anything", "labels"])
def test_npz_of_one_vector(tmp_path, name):
    np.savez_compressed(tmp_path / "mine.npz", **{name: np.arange(3.0)})
    assert read(tmp_path / "mine.npz").x.tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("labels", [np.array([7, 2, 10]), np.array([7.0, 2, 10])])
def test_npz_integer_labels(tmp_path, labels):
    np.savez(tmp_path / "mine.npz", x=np.zeros((3, 2)), labels=labels)
    points = read(tmp_path / "mine.npz")
    assert points.labels.tolist() == [1, 0, 2]
    assert points.classes == ("2", "7", "10")


def test_npy_label_column(tmp_path):
    np.save(tmp_path / "mine.npy", np.array([[1.0, 5, 2], [3, 4, 4], [5, 5, 6]]))
    points = read(tmp_path / "mine.npy", "2")
    assert points.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert points.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "a.npy", "a.npz", "bytes.npy"])
def test_what_is_weighed_is_what_is_taken(tmp_path, monkeypatch, name):
    """The peak while reading is at most what was asked room for, and at least a third of it."""
    x, kinds = np.arange(150_000.0).reshape(-1, 3) / 7, np.arange(50_000) % 9
    if name == "bytes.npy":
        np.save(tmp_path / name, (x % 5).astype(np.uint8))
    else:
        save_points(tmp_path / name, torch.from_numpy(x), labels=None if name == "a.npy" else torch.from_numpy(kinds))
    needs, real = [], memory.room
    for module in (text_module, arrays_module):
        monkeypatch.setattr(module, "room", lambda need, *rest: needs.append(need) or real(need, *rest))
    tracemalloc.start()
    read(tmp_path / name, "label" if name == "b.csv" else None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(needs) / 3 < peak < sum(needs)


# --- what is refused ----------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:f1e5\nsize 129\n"
BAD_BYTES = {
    "latin-1.csv": ("x,y\n1,2\n3,é\n".encode("latin-1"), None, "row 3|'y'|'é'"),
    "no encoding.csv": (b"x,y\n1,2\n3,\x81\n", None, "row 3|byte 3|UTF-8"),
    "no encoding of a header.csv": (b"\x81,y\n1,2\n3,4\n", None, "row 1|UTF-8"),
    "late.csv": (b"x,y\n" + b"1,2\n" * 9999 + b"3,\x81\n", None, "row 10001|UTF-8"),
    "utf-16.csv": ("x,y\n1,2\n3,4\n".encode("utf-16")[:-1], None, "damaged UTF-16"),
    "zip.csv": (npz(x=TABLE), None, "row 1"),
    "other.doc": (b"1,2\n3,4\n", None, ".doc|.csv"),
    "none": (b"1,2\n3,4\n", None, "''|.csv"),
    "model.pkl": (b"1,2\n3,4\n", None, ".pkl"),
    "whole numbers.npy": (
        npy(np.array([[2**62, 1], [2**62 + 1, 2]])),
        None,
        "column 1: values around 4611686018427387904 differ",
    ),
    "empty.npy": (b"", None, "empty"),
    "text.npy": (b"1,2\n3,4\n", None, "not a .npy"),
    "zip.npy": (npz(x=TABLE), None, "not a .npy"),
    "short.npy": (npy(TABLE)[:-8], None, "damaged"),
    "header.npy": (npy(TABLE)[:40], None, "damaged"),
    "flipped header.npy": (flip(npy(TABLE), 12), None, "damaged"),
    "enormous.npy": (npy(TABLE).replace(b"(6, 2)", b"(9" + b"9" * 14 + b", 2)"), None, "damaged"),
    "pickle.npy": (npy(np.array([[{}, 1]]), allow_pickle=True), None, "pickled"),
    "complex.npy": (npy(TABLE + 1j), None, "complex128"),
    "text array.npy": (npy(TABLE.astype(str)), None, "<U"),
    "bool.npy": (npy(TABLE > 3), None, "bool"),
    "dates.npy": (npy(TABLE.astype("M8[s]")), None, "datetime64"),
    "records.npy": (npy(np.zeros(3, dtype=[("a", "f8"), ("b", "f8")])), None, "dtype"),
    "scalar.npy": (npy(np.array(1.0)), None, "()"),
    "cube.npy": (npy(np.zeros((4, 3, 2))), None, "(4, 3, 2)"),
    "no columns.npy": (npy(np.zeros((4, 0))), None, "(4, 0)"),
    "no rows.npy": (npy(np.zeros((0, 2))), None, "no rows"),
    "too many columns.npy": (npy(np.zeros((2, 65_537), np.uint8)), None, "65,537 columns|65,536"),
    "one row.npy": (npy(np.zeros((1, 2))), None, "one row"),
    "nan.npy": (npy(holed(np.nan)), None, "row 5|column 2|nan"),
    "inf.npy": (npy(holed(-np.inf)), None, "row 5|column 2|-inf"),
    "large.npy": (npy(holed(1e39)), None, "row 5|column 2|1e+39"),
    "label by name.npy": (npy(TABLE), "kind", "'kind'|number"),
    "label 3 of 2.npy": (npy(TABLE), "3", "'3'|(6, 2)"),
    "label of a vector.npy": (npy(TABLE[:, 0]), "1", "'1'|(6,)"),
    "label not whole.npy": (npy(TABLE + 0.5), "2", "column 2|row 1|1.5"),
    "label nan.npy": (npy(holed(np.nan)), "2", "column 2|row 5|nan"),
    "pointer.csv": (LFS, None, "a pointer of Git LFS|git lfs pull"),
    "pointer.npz": (LFS, None, "a pointer of Git LFS|git lfs pull"),
    "empty.npz": (b"", None, "empty"),
    "text.npz": (b"1,2\n3,4\n", None, "not a .npz"),
    "array.npz": (npy(TABLE), None, "not a .npz"),
    "short.npz": (npz(x=TABLE)[:-30], None, "damaged"),
    "flipped.npz": (flip(npz(x=TABLE), 200), None, "damaged"),
    "foreign.npz": (foreign_zip(), None, "no array"),
    "no arrays.npz": (npz(), None, "array"),
    "pickle.npz": (npz(x=np.array([[{}, 1]], dtype=object)), None, "pickled"),
    "two vectors.npz": (npz(a=TABLE[:, 0], b=TABLE[:, 1]), None, "'a', 'b'"),
    "cube.npz": (npz(x=np.zeros((4, 3, 2))), None, "'x'|(4, 3, 2)"),
    "nan.npz": (npz(x=holed(np.nan)), None, "'x'|row 5|column 2|nan"),
    "label.npz": (npz(x=TABLE, kind=KINDS), "label", "'label'|'x', 'kind'"),
    "label too short.npz": (npz(x=TABLE, labels=KINDS[:-1]), None, "'labels'|6 labels|(5,)"),
    "label 2-D.npz": (npz(x=TABLE, labels=TABLE), None, "'labels'|(6, 2)"),
    "coordinates.npz": (npz(x=TABLE[:, 0], y=TABLE[:, 1] + 0.5), None, "'y'|row 1|1.5"),
    "complex label.npz": (npz(x=TABLE, labels=TABLE[:, 0] + 1j), None, "'labels'|complex128"),
}


@pytest.mark.parametrize(("name", "content", "label", "words"), [(k, *v) for k, v in BAD_BYTES.items()], ids=BAD_BYTES)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, recwarn, name, content, label, words):
    refused(tmp_path / name, content, label, words)
    assert not recwarn.list


def test_a_file_that_is_not_there(tmp_path):
    for name in ("nothing.csv", "nothing.npy", "no/folder.npz", "a" * 300 + ".csv"):
        with pytest.raises(InputError, match=r"(?i)exist|long") as caught:
            read(tmp_path / name)
        check_sentence(caught.value, name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("ending", EXTENSIONS)
def test_a_pipe_is_not_waited_for(tmp_path, ending):
    os.mkfifo(tmp_path / f"pipe{ending}")
    with pytest.raises(InputError, match=rf"pipe\{ending} is not a file\.$"):
        read(tmp_path / f"pipe{ending}")


def test_a_folder(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv is a folder"):
        read(tmp_path / "folder.csv")


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name, content in {
        "trap.npy": npy(np.array([Trap()]), allow_pickle=True),
        "trap.npz": npz(x=np.array([Trap()], dtype=object)),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="pickled"):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@given(at=st.integers(0, 400), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_or_read_right(tmp_path, at, bit):
    """A zip carries checksums of its contents, so a flipped bit is noticed or did no harm."""
    content = bytearray(npz(x=TABLE))
    content[at % len(content)] ^= 1 << bit
    (tmp_path / "mine.npz").write_bytes(content)
    try:
        points = read(tmp_path / "mine.npz")
    except InputError as error:
        check_sentence(error, "mine.npz")
    else:
        assert points.x.tolist() == TABLE.tolist()


@given(content=st.one_of(st.binary(max_size=60), st.text("0123.,;\t\n\r\"' -eanx", max_size=60).map(str.encode)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", ["mine.csv", "mine.npy", "mine.npz"])
def test_any_bytes_are_points_or_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    try:
        points = read(tmp_path / name)
    except InputError as error:
        check_sentence(error, name)
    else:
        assert len(points.x) > 1
        assert not bool(points.x.isinf().any())
        assert points.plain or name == "mine.csv"


# --- what is written ----------------------------------------------------------------------------------------

floats = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@given(
    x=arrays(np.float32, st.tuples(st.integers(2, 8), st.integers(1, 4)), elements=floats),
    labels=st.lists(names, min_size=8, max_size=8),
    columns=st.lists(names.map("c".__add__), min_size=4, max_size=4, unique=True),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("extension", ["csv", "tsv", "npz"])
def test_save_and_read_round_trip(tmp_path, extension, x, labels, columns):
    path, (n, d) = tmp_path / f"mine.{extension}", x.shape
    save_points(path, torch.from_numpy(x), columns[:d], labels[:n])
    points = read(path, "labels" if extension == "npz" else "label")
    np.testing.assert_array_equal(points.x.numpy(), x)
    assert [points.classes[k] for k in points.labels] == labels[:n]
    assert points.columns == (() if extension == "npz" else tuple(columns[:d]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_dtype_is_saved(tmp_path, dtype):
    for extension in ("csv", "npy", "npz"):
        save_points(tmp_path / f"mine.{extension}", torch.tensor([[0.5, -3], [2, 4]], dtype=dtype))
        assert read(tmp_path / f"mine.{extension}").x.tolist() == [[0.5, -3], [2, 4]]


def test_saving_replaces_whole_files_and_leaves_nothing_else(tmp_path):
    for name in ("mine.npy", "mine.csv"):
        save_points(tmp_path / name, torch.zeros(100, 2))
        save_points(tmp_path / name, torch.ones(3, 2))
        assert read(tmp_path / name).x.tolist() == [[1, 1]] * 3
    assert sorted(os.listdir(tmp_path)) == ["mine.csv", "mine.npy"]


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_a_full_disk_is_a_full_disk(tmp_path, ending):
    """Whatever writes, python or numpy's C; a limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match=rf"Can't write .*mine\{ending}: File too large; what was saved before"):
            save_points(tmp_path / f"mine{ending}", torch.ones(5000, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    save_points(tmp_path / "mine.npy", torch.ones(3, 2))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"Can't write .*mine\.npy: No space left"):
        save_points(tmp_path / "mine.npy", torch.zeros(3, 2))
    assert os.listdir(tmp_path) == ["mine.npy"]
    assert read(tmp_path / "mine.npy").x.tolist() == [[1, 1]] * 3


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        save_points(tmp_path / "nowhere" / "mine.npy", torch.zeros(3, 2))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        save_points(tmp_path / "file" / "mine.npy", torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("mine.txt", {}, ".txt"),
        ("mine", {}, ".csv"),
        ("mine.npy", {"labels": ["a", "b", "a"]}, "labels"),
        ("mine.csv", {"columns": ["a"]}, "2 columns"),
        ("mine.csv", {"labels": ["a"]}, "each of 3 rows"),
        ("mine.csv", {"labels": [None, "a", 2.5]}, "integers or text"),
    ],
)
def test_save_refuses(tmp_path, name, options, word):
    with pytest.raises(InputError) as caught:
        save_points(tmp_path / name, torch.zeros(3, 2), **options)
    check_sentence(caught.value, word)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("x", ["a", None, [["a", "b"]], np.zeros((2, 2, 2)), np.zeros((2, 2), complex), [[1], [2, 3]]])
def test_save_refuses_what_is_no_table(tmp_path, x):
    with pytest.raises(InputError, match=r"^x "):
        save_points(tmp_path / "mine.csv", x)
    assert not os.listdir(tmp_path)


@pytest.mark.unchecked
def test_a_table_has_a_form(tmp_path):
    with pytest.raises(InputError, match=r"^form must be a Form; got None"):
        save_table(tmp_path / "mine.csv", torch.zeros(3, 2), None)


@pytest.mark.unchecked
@pytest.mark.parametrize("path", [3, None, 2.5, [], b"mine.csv"])
def test_a_path_is_a_path(path):
    for use in (read, lambda path: save_points(path, torch.zeros(3, 2))):
        with pytest.raises(InputError, match=r"^path must be a path"):
            use(path)


@pytest.mark.parametrize("extension", ["csv", "tsv", "npy", "npz"])
def test_arrays_lists_and_frames_are_saved_like_tensors(tmp_path, extension):
    """Numbers as they are, a frame's columns with their names, labels of any kind of sequence."""
    frame = pytest.importorskip("pandas").DataFrame({"a": [1.0, 3.0], "b": [2, 4]})
    path = tmp_path / f"mine.{extension}"
    for x in (frame, frame.to_numpy(), frame.to_numpy().astype(int), [[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0))):
        save_points(path, x)
        points = read(path)
        assert points.x.tolist() == [[1, 2], [3, 4]]
        header = ("a", "b") if x is frame else ("x1", "x2")
        assert points.columns == (header if extension in ("csv", "tsv") else ())
    save_points(path, [1, 2, 3])
    assert read(path).x.tolist() == [[1], [2], [3]]
    if extension != "npy":
        for labels in (
            ["u", "v"],
            np.array(["u", "v"]),
            type(frame.a)(["u", "v"]),
            type(frame.a)(["u", "v"], dtype=object),
        ):
            save_points(path, frame, labels=labels)
            points = read(path, "labels" if extension == "npz" else "label")
            assert [points.classes[k] for k in points.labels] == ["u", "v"]


def test_a_decimal_comma_among_points_is_named(tmp_path):
    (tmp_path / "table.csv").write_text("a;b\n1.5;2.5\n3;-5,2\n")
    with pytest.raises(
        InputError,
        match=r"row 3, column 'b': '-5,2' is not a number, as most of the column's cells are; .*--categorical b\.$",
    ):
        read(tmp_path / "table.csv")
