"""Held-out rows of a data set, for evaluation: its own parts by their names, otherwise random rows."""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..core.randomness import generator
from ..errors import InputError
from ..specs import listed, require

__all__ = ["LABELS", "beside", "held_out", "named_parts", "part_of"]

LABELS = ("labels", "y")  # as arrays of them are called
_TRAINING = frozenset(("train", "training", "trn", "trainset"))
_HELD_OUT = frozenset(
    ("val", "valid", "validation", "valset", "dev", "eval", "evaluation", "test", "testing", "tst", "testset", "t10k")
)


def held_out(
    n: int, share: float, labels: Int[Tensor, " n"] | None = None, seed: int = 0, *, keep_classes: bool = False
) -> Bool[Tensor, " n"]:
    """round(share n) of n rows, at least one if share > 0, of each class within one of its share, drawn by `seed`.

    keep_classes: leave every class a row to train on, and hold out fewer where that takes it.
    """
    require("share", share, 0, below=1)
    held = torch.zeros(n, dtype=torch.bool)
    if not share or n < 2:
        return held
    count = min(max(1, round(share * n)), n - 1)
    g = generator(seed, "held out")
    order = torch.randperm(n, generator=g)
    if labels is not None:  # class by class, the classes in a random order as well
        rank = torch.randperm(int(labels.max()) + 1, generator=g)
        order = order[rank[labels[order]].argsort(stable=True)]
    steps = torch.arange(n + 1) * count // n
    held[order[steps.diff() > 0]] = True  # evenly along the order
    if labels is not None and keep_classes:
        for k in labels[held].unique():
            own = order[labels[order] == k]
            if bool(held[own].all()):
                held[own[0]] = False
    return held


def part_of(name: str) -> tuple[str, str]:
    """The word in a name that denotes a set's part, "" where none or several do, and its other words.

    "test_images" → ("test", "images"), "X_train" → ("train", "x"), "val2017" → ("val", "2017"); but "contest" has none.
    """
    words = [word.lower() for word in re.findall(r"t10k|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+", name)]
    found = [word for word in words if word in _TRAINING | _HELD_OUT]
    part = found[0] if len(found) == 1 else ""
    return part, " ".join(word for word in words if word != part)


def beside(names: Iterable[str], name: str, label: str, in_parts: bool) -> str:
    """The name of an array's labels, "" for none: `label` or a usual one, of the same part where there are parts."""
    if label in (names := list(names)) and not in_parts:
        return label
    wanted = (part_of(label)[1],) if label else LABELS
    own = (part_of(name)[0],) if in_parts else (part_of(name)[0], "")
    return next((other for want in wanted for part in own for other in names if part_of(other) == (part, want)), "")


def named_parts(sizes: Mapping[str, int], where: str, what: str = "images") -> tuple[list[str], list[str]] | None:
    """The names, given with their sizes, of a set's parts to train on and of those held out; said in a line.

    None where the names are of something else, such as classes, one of which may be called "train": they are parts if
    all are, or if both kinds are among them; then the others are left out. A part's number means nothing ("val2017"),
    and what is called "images" beside "test_images" is to train on.
    """
    found = {name: part_of(name) for name in sizes}
    found |= {name: (part, re.sub(r"\d+", "", rest).strip()) for name, (part, rest) in found.items() if part}
    rests = {rest for part, rest in found.values() if part}
    if not rests or (len(rests) > 1 and "" not in rests):
        return None
    rest = "" if "" in rests else rests.pop()
    chosen = lambda kind: [name for name, (part, other) in found.items() if part in kind and other == rest]
    held = chosen(_HELD_OUT)
    train = chosen(_TRAINING) or (chosen({""}) if held else [])
    left = [name for name in sizes if name not in train + held]
    if left and not (train and held):
        return None
    if len(sizes) == 1:
        return None if rest else ([*sizes], [])
    if not train:
        raise InputError(f"{where} has no part to train on; it has {listed(held)}.")
    kinds = {f"{what} to train on": train, "held out": held, "left out": left}
    said = [
        f"{sum(sizes[name] for name in names):,} {what} ({listed(names)})" for what, names in kinds.items() if names
    ]
    warnings.warn(f"{where}: {', '.join(said)}.", stacklevel=2)
    return train, held
