"""Held-out rows: their number, their classes, and none of a class's last; a set's own parts by their names."""

import re
import warnings

import pytest
import torch

from cells import each
from ebbtide.data.split import held_out, named_parts, part_of
from ebbtide.errors import InputError

PARTS_OF = {
    "train": ("train", ""), "TRAIN": ("train", ""), "Training": ("training", ""), "train2017": ("train", "2017"),
    "val": ("val", ""), "validation": ("validation", ""), "dev": ("dev", ""), "t10k": ("t10k", ""),
    "test_images": ("test", "images"), "imagesTest": ("test", "images"), "X_train": ("train", "x"),
    "emnist-letters-test": ("test", "emnist letters"),
    "contest": ("", "contest"), "latest": ("", "latest"), "trains": ("", "trains"), "devil": ("", "devil"),
    "größe_test": ("test", "größe"), "train_test": ("", "train test"), "": ("", ""), ".": ("", ""),
}  # fmt: skip

TOLD = {  # names → those to train on, and those held out
    "test train val": ("train", "test val"),
    "testing Training": ("Training", "testing"),
    "dev train train2": ("train train2", "dev"),
    "train2014 val2014 test2015": ("train2014", "val2014 test2015"),
    "seg_pred seg_test seg_train": ("seg_train", "seg_test"),
    "train test extra unlabeled": ("train", "test"),
    "train test train_old test_old": ("train", "test"),
    "images test_images": ("images", "test_images"),
    ". test": (".", "test"),
    "train": ("train", ""),
    "test": ("test", ""),
    "train validation": ("train", "validation"),
    "trainA trainB testA testB": None,
    "bus car train": None,
    "contest latest": None,
    "steam_train": None,
    "steam_train crash_test": None,
    "cat dog test": None,
    "1 2 test": None,
    "": None,
}


@each("name", PARTS_OF)
def test_a_part_is_a_word_of_its_name(name):
    assert part_of(name) == PARTS_OF[name]


@each("names", TOLD)
def test_parts_are_told_from_classes(names):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = named_parts(dict.fromkeys(names.split(), 1000), "pets")
    assert found == (TOLD[names] and tuple(text.split() for text in TOLD[names]))
    assert len(said) == bool(found and found[1])  # nothing is said where nothing is held out


def test_what_is_done_with_parts_is_said_in_a_line():
    line = r"pets: 60,000 images to train on ('train'), 10,005 held out ('test', 'val'), 2 left out ('ex\ntra')."
    with pytest.warns(UserWarning, match=f"^{re.escape(line)}$"):
        named_parts({"train": 60_000, "test": 10_000, "val": 5, "ex\ntra": 2}, "pets")
    with pytest.raises(InputError, match=r"^pets has no part to train on; it has 'test', 'val'\.$"):
        named_parts({"test": 1, "val": 1}, "pets")


def test_no_class_is_swallowed():
    for counts in ([1] * 20, [1, 1, 98], [2] * 10, [50, 50], [3, 0, 1]):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        for share in (0.1, 0.5, 0.9):
            for seed in range(5):
                held = held_out(len(labels), share, labels, seed, keep_classes=True)
                left = torch.bincount(labels[~held], minlength=len(counts))
                assert ((left > 0) == (torch.tensor(counts) > 0)).all(), (counts, share, seed)
                free = held_out(len(labels), share, labels, seed)
                assert int(free.sum()) == min(max(1, round(share * len(labels))), len(labels) - 1)
                assert not bool((held & ~free).any())


def test_shares_out_of_range():
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="share must be at least 0 and below 1"):
            held_out(5, share)
    assert not held_out(5, 0.0).any()
    assert not held_out(1, 0.5).any()
