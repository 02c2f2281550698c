"""Sets of images: what load accepts and refuses, the built-in digits, .npz files, and splitting."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from ebbtide import data as package
from ebbtide.data.images import Images, labelled, load_images, split_images
from ebbtide.errors import InputError


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


COLOUR = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)  # 2 images, 3 high, 4 wide


# --- digits -------------------------------------------------------------------------------------------------


def test_digits():
    found = load_images("digits")
    assert found.x.shape == (1797, 1, 8, 8)
    assert found.x.dtype == torch.uint8
    assert found.labels.dtype == torch.int64
    assert found.classes == tuple("0123456789")
    assert (found.test, found.bad) == (0, ())
    assert (int(found.x.min()), int(found.x.max())) == (0, 255)
    assert len(found.x.unique()) == 17
    # The first image, a 0, in the file's 0..16: its first two rows are 0 0 5 13 9 1 0 0 and 0 0 13 15 10 15 5 0.
    rows = [[0, 0, 80, 207, 143, 16, 0, 0], [0, 0, 207, 239, 159, 239, 80, 0]]
    assert found.x[0, 0, :2].tolist() == rows
    assert found.labels[:11].tolist() == [*range(10), 0]


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs, mine = datasets.load_digits(), load_images("digits")
    assert mine.labels.tolist() == theirs.target.tolist()
    assert np.abs(mine.x[:, 0].numpy() / 255 - theirs.images / 16).max() <= 0.5 / 255 + 1e-12


def test_digits_name_their_source():
    text = (Path(package.__file__).parent / "digits.txt").read_text(encoding="utf-8")
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert word in text


def test_digits_larger_and_in_colour():
    found = load_images("digits", size=16, channels=3, progress=False)
    assert found.x.shape == (1797, 3, 16, 16)
    assert torch.equal(found.x[:, 0], found.x[:, 2])
    assert torch.equal(found.labels, load_images("digits").labels)
    # Twice as large, an image keeps its mean but for the rounding and what Lanczos' lobes lose at 0 and 255.
    means = found.x[:, 0].float().mean((1, 2)) - load_images("digits").x.float().mean((1, 2, 3))
    assert means.abs().max() < 8


def test_loading_twice_gives_two_copies():
    load_images("digits").x.zero_()
    assert load_images("digits").x.max() == 255


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": -1}, "size must be at least 0 and at most 8192; got -1."),
        ({"size": 9999}, "size must be at least 0 and at most 8192; got 9999."),
        ({"channels": 2}, "channels must be 0 (as found), 1, 3 or 4; got 2."),
        ({"on_bad": "ignore"}, "on_bad must be one of skip, fail; got 'ignore'."),
        ({"workers": -1}, "workers must be at least 0 and at most 256; got -1."),
        ({"label": "y"}, "label names an array or column of your own data, and digits has its labels; got 'y'."),
    ],
)
def test_arguments_out_of_range(options, sentence):
    with pytest.raises(InputError) as error:
        load_images("digits", **options)
    assert str(error.value) == sentence


@pytest.mark.parametrize("name", ["nowhere", "digitz", "nowhere/at/all.npz", "x\0y"])
def test_nothing_is_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^images must be 'digits', .* does not exist\.$"):
        load_images(name)


def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (2, 2)).save("a.png")
    with pytest.raises(InputError, match=r"^images must be 'digits', .*; got ''\.$"):
        load_images("")


def test_another_kind_of_file(tmp_path):
    for name, text in (("mine.csv", "x,y\n1,2\n"), ("mine", ""), ("mine.gz", "\x1f")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"^images must be 'digits', .* is another kind of file\.$"):
            load_images(str(tmp_path / name))
    Image.new("L", (2, 2)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="another kind of file"):
        load_images(str(tmp_path / "one.png"))
    with pytest.raises(InputError, match="is not a file"):
        load_images("/dev/null")


def test_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    npz(tmp_path / "mine.npz", images=COLOUR)
    assert len(load_images("~/mine.npz").x) == 2


def test_a_folder_called_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "digits").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "digits" / "a.png")
    assert load_images("digits").x.shape == (1797, 1, 8, 8)
    assert load_images("./digits").x.shape == (1, 1, 2, 2)


# --- npz ----------------------------------------------------------------------------------------------------


def test_colour(tmp_path):
    found = load_images(npz(tmp_path / "mine.npz", images=COLOUR))
    assert found.x.shape == (2, 3, 3, 4)
    assert found.x.is_contiguous()
    assert found.x[1, 2, 0].tolist() == [38, 41, 44, 47]
    assert found.labels is None
    assert found.classes == ()


@pytest.mark.parametrize("shape", [(6, 3, 4), (6, 3, 4, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_grey(tmp_path, shape, order):
    array = np.asarray(COLOUR.reshape(shape), order=order)
    found = load_images(npz(tmp_path / "mine.npz", images=array))
    assert found.x.shape == (6, 1, 3, 4)
    assert found.x[1, 0].tolist() == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]


@pytest.mark.parametrize("name", ["x", "anything"])
def test_the_only_array_like_pictures(tmp_path, name):
    found = load_images(npz(tmp_path / "mine.npz", before=np.ones((2, 3)), **{name: COLOUR}, after=np.ones((2, 3, 4))))
    assert found.x.shape == (2, 3, 3, 4)


def test_resized(tmp_path):
    """The middle 3 × 3 of 3 × 4 lies half a pixel in: a ramp's values are the means of neighbours."""
    ramp = (
        np.broadcast_to(np.array([0, 60, 120, 180], np.uint8), (5, 3, 4)) + np.arange(5, dtype=np.uint8)[:, None, None]
    )
    found = load_images(npz(tmp_path / "mine.npz", images=ramp), size=3, progress=False)
    assert found.x.shape == (5, 1, 3, 3)
    assert found.x[:, 0, 1, 1].tolist() == [90, 91, 92, 93, 94]
    assert found.x[0, 0].tolist() == found.x[0, 0, :1].tolist() * 3


def test_channels(tmp_path):
    path = npz(tmp_path / "mine.npz", images=np.array([[[[255, 0, 0]]], [[[0, 0, 255]]]], np.uint8), y=["b", "a"])
    assert load_images(path, channels=3).x.flatten().tolist() == [255, 0, 0, 0, 0, 255]
    found = load_images(path, channels=1, progress=False)
    assert found.x.flatten().tolist() == [76, 29]  # 0.299 and 0.114 of 255
    assert found.labels.tolist() == [1, 0]
    path = npz(tmp_path / "grey.npz", images=np.array([[[7]]], np.uint8))
    assert load_images(path, channels=3, progress=False).x.flatten().tolist() == [7, 7, 7]


LABELLED = {
    "integers": ({"labels": [3, 1]}, "", [1, 0], ("1", "3")),
    "a column": ({"labels": np.array([[3], [1]])}, "", [1, 0], ("1", "3")),
    "y": ({"y": [3, 1]}, "", [1, 0], ("1", "3")),
    "text": ({"labels": ["b", "a"]}, "", [1, 0], ("a", "b")),
    "bytes": ({"labels": np.array([b"b", b"a"])}, "", [1, 0], ("a", "b")),
    "whole numbers": ({"labels": [10.0, 9.0]}, "", [1, 0], ("9", "10")),
    "named": ({"labels": [0, 0], "kind": [3, 1]}, "kind", [1, 0], ("1", "3")),
    "with classes": ({"labels": [2, 0], "classes": ["z", "b", "a"]}, "", [2, 0], ("z", "b", "a")),
    "with class names": ({"labels": np.uint8([2, 0]), "class_names": ["z", "b", "a"]}, "", [2, 0], ("z", "b", "a")),
}


@pytest.mark.parametrize(("arrays", "label", "labels", "classes"), LABELLED.values(), ids=LABELLED)
def test_labels(tmp_path, arrays, label, labels, classes):
    found = load_images(npz(tmp_path / "mine.npz", images=COLOUR, **arrays), label=label)
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == labels
    assert found.classes == classes


def test_transparent_arrays(tmp_path):
    """Kept by four channels; on white, and said, by any other number."""
    x = np.concatenate([COLOUR, np.full((2, 3, 4, 1), 255, np.uint8)], 3)
    data = npz(tmp_path / "mine.npz", images=x)
    assert load_images(data).x.tolist() == COLOUR.transpose(0, 3, 1, 2).tolist()
    x[1, 0, 0, 3] = 51
    data = npz(tmp_path / "mine.npz", images=x)
    assert load_images(data, channels=4).x.tolist() == x.transpose(0, 3, 1, 2).tolist()
    with pytest.warns(
        UserWarning,
        match=r"mine\.npz: 1 of 2 images are transparent in places, and lie on white \(--channels 4 keeps that\)\.$",
    ):
        white = load_images(data)
    assert white.x[1, :, 0, 0].tolist() == [round(0.2 * c + 0.8 * 255) for c in COLOUR[1, 0, 0].tolist()]
    assert load_images(npz(tmp_path / "rgb.npz", images=COLOUR), channels=4).x[:, 3].unique().tolist() == [255]


WRONG = {
    "no images": ({"a": np.ones(3)}, {}, r"has no array 'images', nor one like images in uint8; it has 'a'"),
    "real numbers": ({"images": COLOUR / 255}, {}, r"array 'images' must be uint8, 0 to 255; got dtype float64"),
    "channels first": ({"images": COLOUR[:, :, :2].transpose(0, 3, 1, 2)}, {}, r"c = 1, 3 or 4; got \(2, 3, 3, 2\)"),
    "one image": ({"images": COLOUR[0, 0]}, {}, r"c = 1, 3 or 4; got \(4, 3\)"),
    "none": ({"images": COLOUR[:0]}, {}, r"got \(0, 3, 4, 3\)"),
    "no such label": ({"images": COLOUR}, {"label": "kind"}, r"has no array 'kind'; it has 'images'"),
    "too few labels": (
        {"images": COLOUR, "labels": [1]},
        {},
        r"array 'labels' must hold 2 labels; it has shape \(1,\)",
    ),
    "too many labels": ({"images": COLOUR, "y": [0, 1, 2]}, {}, r"must hold 2 labels; it has shape \(3,\)"),
    "a part of another size": (
        {"train_images": COLOUR, "test_images": COLOUR[:, :2]},
        {},
        r"its parts must hold images of one size; got 3 × 4 × 3, 2 × 4 × 3",
    ),
    "parts to measure with alone": ({"val_images": COLOUR, "test_images": COLOUR}, {}, "has no part to train on"),
    "label out of range": (
        {"images": COLOUR, "labels": [0, 2], "classes": ["a", "b"]},
        {},
        r"label 2 of image 2 is not in 0..1",
    ),
    "label below -1": ({"images": COLOUR, "labels": [-2, 0], "classes": ["a", "b"]}, {}, r"label -2 of image 1"),
    "real labels": ({"images": COLOUR, "labels": [0.5, 1]}, {}, r"labels, row 1: 0.5 is not a label"),
    "pickled": (
        {"images": np.array([None, print], object)},
        {},
        "uint8, 0 to 255; got pickled objects, which are never loaded",
    ),
}


@pytest.mark.parametrize(("arrays", "options", "reason"), WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit(tmp_path, arrays, options, reason):
    path = npz(tmp_path / "mine.npz", **arrays)
    with pytest.raises(InputError, match=reason) as error:
        load_images(path, **options)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_npz(tmp_path):
    sound = io.BytesIO()
    np.savez(sound, images=COLOUR)
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("readme.txt", "not an array")
    for data in (b"", b"hello", sound.getvalue()[:-40], sound.getvalue()[:200], foreign.getvalue()):
        (tmp_path / "mine.npz").write_bytes(data)
        with pytest.raises(InputError, match=r"mine\.npz (is (empty|not a|damaged)|has no array)"):
            load_images(str(tmp_path / "mine.npz"))


GREY = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 2, 2), np.uint8)  # five images, each of its number
IN_PARTS = {  # arrays, label → labels, classes, how many are held out
    "MedMNIST": (
        {
            "train_images": GREY[:2], "val_images": GREY[2:3], "test_images": GREY[3:],
            "train_labels": [[7], [3]], "val_labels": [[3]], "test_labels": [[7], [7]],
        },
        "", [1, 0, 0, 1, 1], ("3", "7"), 3,
    ),
    "another order": (
        {"y_test": [3], "x_test": GREY[3:4], "x_train": GREY[:3], "y_train": [1, 2, 3]},
        "", [0, 1, 2, 2], ("1", "2", "3"), 1,
    ),
    "a test part beside": (
        {"images": GREY[:4], "labels": [0, 1, 0, 1], "test_images": GREY[4:]}, "", [0, 1, 0, 1, -1], ("0", "1"), 1,
    ),
    "a class never trained": (
        {"train_images": GREY[:2], "train_labels": [0, 1], "test_images": GREY[2:], "test_labels": [1, 2, -1]},
        "", [0, 1, 1, -1, -1], ("0", "1"), 3,
    ),
    "a label by name": (
        {
            "train_images": GREY[:2], "test_images": GREY[2:4],
            "train_kind": ["b", "a"], "test_kind": ["a", "b"], "train_y": [5, 5],
        },
        "kind", [1, 0, 0, 1], ("a", "b"), 2,
    ),
    "masks beside": (
        {"train_masks": GREY[3:], "train_images": GREY[:2], "test_masks": GREY[4:], "test_images": GREY[2:3]},
        "", None, (), 1,
    ),
}  # fmt: skip


def test_masks_come_first(tmp_path):
    found = load_images(npz(tmp_path / "mine.npz", train_masks=GREY[3:], train_images=GREY[:2], train_labels=[1, 0]))
    assert (found.x[:, 0, 0, 0].tolist(), found.labels.tolist(), found.test) == ([0, 1], [1, 0], 0)


def test_labels_of_one_part_alone(tmp_path):
    for name in ("train", "train_images"):
        assert load_images(npz(tmp_path / "mine.npz", **{name: GREY, "labels": [0, 1, 0, 1, 0]})).labels.tolist() == [
            0,
            1,
            0,
            1,
            0,
        ]


@pytest.mark.parametrize(("arrays", "label", "labels", "classes", "test"), IN_PARTS.values(), ids=IN_PARTS)
def test_arrays_of_parts(tmp_path, arrays, label, labels, classes, test):
    path = npz(tmp_path / "mine.npz", **arrays)
    with pytest.warns(UserWarning, match=f"{test} held out"):
        found = load_images(path, label=label)
    assert found.x[:, 0, 0, 0].tolist() == list(range(len(found.x)))
    assert (found.classes, found.test) == (classes, test)
    assert labels == (None if found.labels is None else found.labels.tolist())
    assert len(split_images(found, 0.0)[1].x) == test


def test_many_labels_a_picture_are_no_class(tmp_path):
    path = npz(tmp_path / "mine.npz", images=COLOUR, labels=np.eye(2))
    with pytest.warns(UserWarning, match=r"array 'labels' is left out: it has 2 labels an image\.$"):
        assert load_images(path).labels is None


# --- labels that are missing ----------------------------------------------------------------------------------


def test_a_part_with_a_missing_label_has_none():
    whole = numbered(6, [0, 1, 0, 1, -1, 1], test=2)
    train, held = split_images(whole, 0.5)
    assert (train.labels.tolist(), held.labels) == ([0, 1, 0, 1], None)
    train, _ = split_images(numbered(6, [0, -1, 0, 1, 1, 1]), 0.0)
    assert train.labels is None


def test_what_has_no_label_is_not_held_out_where_labels_are_learned():
    whole = numbered(8, [0, 1, 0, 1, 0, 1, -1, 1], test=2, bad=("a is empty",))
    with pytest.warns(
        UserWarning, match=r"^pets: 1 of 2 held-out images are left out, with no label that is learned\.$"
    ):
        kept = labelled(whole, "pets")
    assert (numbers(kept), kept.labels.tolist(), kept.test) == ([0, 1, 2, 3, 4, 5, 7], [0, 1, 0, 1, 0, 1, 1], 1)
    assert kept.bad == whole.bad
    whole = numbered(8, [0, 1, 0, 1, 0, 1, -1, -1], test=2)
    with pytest.warns(UserWarning, match=r"2 of 2 held-out .*; what is held out is drawn from the training part\.$"):
        train, held = split_images(labelled(whole, "pets"), 0.5)
    assert sorted(numbers(train) + numbers(held)) == list(range(6))
    assert len(held.x) == 3
    with pytest.raises(InputError, match=r"^pets: image 3 has no label, and a conditional network learns from all\.$"):
        labelled(numbered(5, [0, 1, -1, -1, 1], test=1), "pets")
    for fine in (numbered(3), numbered(3, [0, 1, 0], test=1)):
        assert labelled(fine, "pets") is fine


# --- split --------------------------------------------------------------------------------------------------


def numbered(n, labels=None, **options):
    """Images that say which they are."""
    x = torch.tensor([[k % 256, k // 256] for k in range(n)], dtype=torch.uint8).reshape(n, 2, 1, 1)
    return Images(x, None if labels is None else torch.tensor(labels), **options)


def numbers(images):
    return (images.x[:, 0, 0, 0].long() + 256 * images.x[:, 1, 0, 0].long()).tolist()


@given(
    labels=st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=2, max_size=300)),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_split(labels, share, seed):
    """Both parts in order, nothing lost, so many as asked for, of each class within one of its share."""
    n = 100 if labels is None else len(labels)
    whole = numbered(n, labels, classes=tuple("abcde"), bad=("a.png is empty",))
    train, held = split_images(whole, share, seed)
    assert sorted(numbers(train) + numbers(held)) == list(range(n))
    assert numbers(train) == sorted(numbers(train))
    assert numbers(held) == sorted(numbers(held))
    assert abs(len(held.x) - max(1, share * n)) <= 0.5 + 1e-9 or len(train.x) == 1
    assert len(train.x) >= 1
    assert train.classes == held.classes == whole.classes
    assert (train.bad, held.bad) == (whole.bad, ())
    if labels is None:
        assert train.labels is held.labels is None
        return
    assert train.labels.tolist() == [labels[k] for k in numbers(train)]
    assert held.labels.tolist() == [labels[k] for k in numbers(held)]
    for label in set(labels):
        assert abs(held.labels.tolist().count(label) - len(held.x) / n * labels.count(label)) < 1


def test_split_depends_on_the_seed_alone():
    whole = numbered(200, [k % 3 for k in range(200)])
    first, again, other = (split_images(whole, 0.2, seed)[1] for seed in (0, 0, 1))
    assert numbers(first) == numbers(again) != numbers(other)


def test_split_is_fair():
    """Over 400 seeds each of 12 images is held out about 100 times (σ = 8.7; 6 σ: 2e-9 each), also a lone one."""
    whole = numbered(12, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3])
    count = np.zeros(12)
    for seed in range(400):
        count[numbers(split_images(whole, 0.25, seed)[1])] += 1
    assert np.abs(count - 100).max() < 52


def test_split_of_nothing():
    whole = numbered(5)
    train, held = split_images(whole, 0.0)
    assert numbers(train) == [0, 1, 2, 3, 4]
    assert held.x.shape == (0, 2, 1, 1)
    train, held = split_images(numbered(1, [0]), 0.5)
    assert (numbers(train), numbers(held)) == ([0], [])
    assert held.labels.tolist() == []


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_its_own_test_part_is_held_out(share):
    train, held = split_images(numbered(7, [0, 1, 2, 3, 4, 5, 6], test=2), share)
    assert (numbers(train), numbers(held)) == ([0, 1, 2, 3, 4], [5, 6])
    assert held.labels.tolist() == [5, 6]
    assert train.test == held.test == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_range(share):
    with pytest.raises(InputError, match="share must be at least 0 and below 1"):
        split_images(numbered(5), share)
