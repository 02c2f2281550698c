"""What a kind of data has of its own: how it is read, written, drawn and measured. One module each, all alike.

    points   the rows of a table
    images   pictures
    robots   chunks of a robot's actions

A module has

    fits, prepare              what training needs: a first check, then the data
    start                      where sampling starts, if not from noise
    all_classes                the labels of samples of every class
    recorded                   what a policy saw (robots alone)
    SNAPSHOT, snapshot_files   the samples drawn while training goes on, and the files that keep them
    finish                     what is drawn when training has ended
    describe                   one line on the data
    N, FILE, EXTENSIONS        how many samples to draw, where to, in which formats
    EACH, MORE                 how many bytes each may take, and how many times that to measure it
    write, draw_samples        samples as a file, and as a picture
    evaluate, draw_evaluation  metrics of samples, and what is drawn beside them
    real                       real examples
    draw_run                   `ebbtide plot`
    PLAN, study, shown, kept, pictures   `ebbtide compare` and its report
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..arrays import npy
from ..data import Observation, Transform
from ..errors import InputError
from ..specs import pick
from ..training.trainer import Data

DOMAINS = ("points", "images", "robots")


class Prepared(NamedTuple):
    """A recipe's data for training, and what a trained network has to know of it."""

    data: Data
    shape: tuple[int, ...]
    transform: Transform | None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    observation: Observation | None = None
    frequencies: tuple[float, ...] = ()
    """How often each class occurs, where labels are learned; 0 for one without a training example."""
    settled: Mapping[str, Any] = MappingProxyType({})
    """What the data has settled of the recipe, to be stored with it."""


def domain(of: Any) -> Any:
    """The module of a recipe's domain, or of a comparison's."""
    return importlib.import_module(f".{pick(DOMAINS, of.domain, 'domain')}.kind", __name__)


def evolution(folder: Path, shape: tuple[int, ...] | None = None) -> list[tuple[int, np.ndarray]]:
    """(step, samples of that shape) as they were drawn while training went on; files of other names are not ours."""
    files = sorted((folder / "evolution").glob("step-*.npy"))
    steps = [re.fullmatch("step-([0-9]{1,12})", file.stem) for file in files]
    return [(int(step[1]), _read(file, shape)) for file, step in zip(files, steps, strict=True) if step]


def _read(file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    try:
        array = npy(file).read(0)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror or error}.") from error
    samples = array.ndim > 1 and array.dtype.kind in "fu" and len(array)
    if not samples or shape not in (None, array.shape[1:]):
        raise InputError(f"{file} must hold samples{'' if shape is None else f' of shape {shape}'}, and doesn't.")
    return array


def frequencies(labels: Int[Tensor, " n"], classes: int) -> tuple[float, ...]:
    """The share of each of so many classes among the labels."""
    return tuple((torch.bincount(labels, minlength=classes).double() / len(labels)).tolist())


def class_names(classes: Sequence[str], labels: Any) -> tuple[str, ...]:
    """The classes' names, which are their numbers where the data has no others."""
    return tuple(classes) or (() if labels is None else tuple(str(i) for i in range(int(labels.max()) + 1)))
