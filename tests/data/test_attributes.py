"""Numbers beside images: from a .npz or a folder's table, row by row, and refused where they don't fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from ebbtide.data.attributes import ranges_of, scaled
from ebbtide.data.images import load_images, split_images
from ebbtide.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pixels(n):
    return np.arange(n, dtype=np.uint8)[:, None, None] + np.zeros((n, 4, 4), np.uint8)


def test_an_array_of_the_npz_and_its_names():
    ages, both = np.arange(6), np.stack([np.arange(6), -np.arange(6.0)], 1)
    np.savez("a.npz", images=pixels(6), age=ages, both=both, attribute_names=np.array(["age", "mood"]))
    np.savez("b.npz", images=pixels(6), age=ages, both=both)
    found = load_images("a.npz", attributes="both")
    assert found.names == ("age", "mood")
    assert found.numbers.tolist() == both.tolist()
    assert load_images("b.npz", attributes="both").names == ("both1", "both2")
    assert load_images("b.npz", attributes="age", size=2).numbers[:, 0].tolist() == ages.tolist()
    for part in split_images(found, 0.5):  # numbers stay with their images
        assert part.numbers[:, 0].tolist() == part.x[:, 0, 0, 0].tolist()
        assert part.names == ("age", "mood")


def test_a_table_in_the_folder_goes_by_the_files_names(tmp_path):
    (tmp_path / "faces" / "more").mkdir(parents=True)
    for k, name in enumerate(("b.png", "a.png", "more/c.png")):
        Image.fromarray(pixels(3)[k]).save(tmp_path / "faces" / name)
    (tmp_path / "faces" / "info.csv").write_text("file,smile,age\nmore/c.png,1,2\nb.png,0,\nx.png,1,9\na.png,0.5,1\n")
    found = load_images("faces", attributes="info.csv")
    assert found.names == ("smile", "age")
    expected = {0: [0.0, None], 1: [0.5, 1.0], 2: [1.0, 2.0]}
    for image, row in zip(found.x[:, 0, 0, 0].tolist(), found.numbers.tolist()):
        assert [None if value != value else value for value in row] == expected[image]


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        ("a.npz", "weight", "a.npz has no array 'weight'; it has "),
        ("a.npz", "short", "must hold 3 numbers, or rows of numbers; got dtype int64 (2,)."),
        ("a.npz", "text", "must hold 3 numbers, or rows of numbers; got dtype <U1 (3,)."),
        ("a.npz", "endless", "must hold finite numbers, NaN where one is missing; it holds infinity."),
        (
            "digits",
            "age",
            "attributes are an array of a .npz, a .csv in a folder of images, or columns of hf:NAME; digits is none.",
        ),
        ("a.npz", "huge", "a.npz: attribute 'huge' must be at most 1e+18 in size."),
        ("faces", "../a.npz", "attributes of a folder must be a file in it, faces; got '../a.npz'."),
        ("faces", "few.csv", "few.csv: its column 'file' doesn't name the image a.png."),
        ("faces", "bad.csv", "bad.csv, row 2, column 'age': an attribute must be a finite number; got 'old'."),
        ("faces", "bare.csv", "must have a header, a column of file names, and one of numbers or more."),
        ("b.npz", "x", "attributes need different names, with no space around them"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, data, name, says):
    arrays = {"short": np.arange(2), "text": np.array(["a", "b", "c"]), "endless": np.array([1.0, np.inf, 0])}
    arrays["huge"] = np.array([1.0, np.nan, -1e300])
    np.savez("a.npz", images=pixels(3), **arrays)
    np.savez("b.npz", images=pixels(3), x=np.zeros((3, 2)), attribute_names=np.array(["a", "a"]))
    (tmp_path / "faces").mkdir()
    Image.fromarray(pixels(1)[0]).save(tmp_path / "faces" / "a.png")
    texts = {"few": "file,age\nb.png,1\n", "bad": "file,age\na.png,old\n", "bare": "file\na.png\n"}
    for file, text in texts.items():
        (tmp_path / "faces" / f"{file}.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        load_images(data, attributes=name)
    assert says in str(caught.value)


def test_ranges_are_the_sets_own_or_chosen_and_become_minus_one_to_one():
    values = torch.tensor([[0.0, 5.0], [1.0, torch.nan], [0.5, 25.0]])
    found = ranges_of(values, ("smile", "age"), "", "faces")
    assert found == {"smile": (0, 1), "age": (5, 25)}
    z = scaled(values, found)
    assert z[:, 0].tolist() == [-1, 1, 0]
    assert z[[0, 2], 1].tolist() == [-1, 1]
    assert bool(z[1, 1].isnan())
    assert ranges_of(values, ("smile", "age"), "age=0:100,smile=0:1", "faces") == {"smile": (0, 1), "age": (0, 100)}


@pytest.mark.parametrize(
    ("column", "chosen", "says"),
    [
        ([1.0, 1.0], "", "faces: attribute 'age' is 1 for all images, so nothing follows from it."),
        ([torch.nan, torch.nan], "", "faces: attribute 'age' is missing for all images to train on."),
        ([0.0, 2.0], "age=0:1", "faces: attribute 'age' goes from 0 to 2, beyond its range."),
        ([0.0, 2.0], "size=0:1", "attribute_ranges must name 'age'; got 'size'."),
        ([0.0, 2.0], "age=0:3,age=0:2", "attribute_ranges must name 'age' once; got 'age=0:3,age=0:2'."),
        (
            [0.0, 2.0],
            "age=0:1e300",
            "attribute_ranges, an end of 'age', must be at least -1e+18 and at most 1e+18; got 1e+300.",
        ),
    ],
)
@pytest.mark.unchecked
def test_a_range_that_cannot_be_is_one_sentence(column, chosen, says):
    with pytest.raises(InputError) as caught:
        ranges_of(torch.tensor(column)[:, None], ("age",), chosen, "faces")
    assert str(caught.value) == says
