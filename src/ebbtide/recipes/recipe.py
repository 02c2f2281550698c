"""A recipe: everything that makes one method, as plain data. It imports no torch, so that `--help` is quick."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ..specs import accept, words
from .checks import checked_fields

__all__ = ["IN_MEMORY", "Recipe"]

IN_MEMORY = "memory.npy"  # stands for data that no file holds
R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """A method: what to train, and how to sample; values such as `ddpm:betas=linear,steps=1000` are rows of tables."""

    kind: ClassVar[str] = ""
    """The kind of its data: a row of ebbtide.kinds.KINDS."""
    sources: ClassVar[tuple[str, ...]] = ("data",)
    """The fields that name data; built-in sets, files, folders or sets of the hub."""
    rows: ClassVar[tuple[str, ...]] = ("path", "target", "times", "weight", "coupling", "loss", "spans", "network")
    """The fields that name rows of tables, or functions of the user's own."""
    older: ClassVar[Mapping[str, Any]] = {}
    """The fields that older versions wrote without, and the values that are as they trained."""

    data: str = ""
    """The data to train on."""
    label: str = ""
    """The column, array or folder that holds the labels."""
    conditional: bool = False
    """Train on the labels too; samples can then be drawn by label."""
    label_dropout: float = 0.1
    """Share of labels hidden in training, for classifier-free guidance."""

    path: str = "linear"
    """A row of `ebbtide list paths`, such as linear or ddpm:betas=scaled_linear."""
    target: str = "velocity"
    """Output of the network; a row of `ebbtide list targets`, such as velocity or noise."""
    times: str = "uniform"
    """Law of training times; a row of `ebbtide list times`, such as uniform or logit_normal."""
    stratified: bool = True
    """Spread the training times of a batch evenly (low discrepancy)."""
    weight: str = "unit"
    """Loss weight; a row of `ebbtide list weights`, such as unit or min_snr:gamma=5."""
    coupling: str = "independent"
    """Pairing of noise and data in a batch; a row of `ebbtide list couplings`, such as independent or ot."""
    stable_targets: bool = False
    """Average targets over examples that could have produced x_t; exact, less noisy, for points."""
    loss: str = "denoise"
    """A row of `ebbtide list losses`, such as denoise or mean_flow."""
    spans: str = "stretches"
    """Law of the times that estimates lead from and to; a row of `ebbtide list spans`."""
    teacher: str = ""
    """Run to distil; its folder, export or hub name. Its trajectories are learned from instead of data."""
    teacher_guidance: float = 1.0
    """Guidance of the teacher, which its student then has built in."""
    trajectories: int = 16384
    """Number of the teacher's trajectories to learn from."""
    trajectory_steps: int = 16
    """Steps of such a trajectory, by Heun's method."""
    network: str = "mlp"
    """A row of `ebbtide list networks`, and its size, as in mlp:width=64,depth=6."""
    init: str = ""
    """Run whose weights training starts from; its folder, export or hub name."""

    steps: int = 2800
    """Optimiser steps."""
    batch: int = 512
    """Examples per step, over all processes."""
    lr: float = 2e-2
    """Peak learning rate; it rises during warm-up, then falls to zero along a cosine."""
    warmup: float = 0.05
    """Share of the steps used to warm up the learning rate."""
    weight_decay: float = 0.0
    """AdamW's weight decay, applied to matrices only."""
    beta1: float = 0.9
    """AdamW's β₁; the share of the gradient's running mean that a step keeps."""
    beta2: float = 0.95
    """AdamW's β₂; the same of its running square."""
    eps: float = 1e-8
    """AdamW's ε; added to the root of the running square, by which the mean is divided."""
    lr_steps: int = 0
    """Steps over which the learning rate falls; 0 for all of them."""
    clip: float = 1.0
    """Largest gradient norm; larger gradients are scaled down."""
    ema: float = 0.999
    """Decay of the averaged weights that sampling uses, after its warm-up."""
    seed: int = 0
    """Seed of all random numbers."""

    sampler: str = "heun"
    """Default sampler; a row of `ebbtide list samplers`, such as heun, ddim:eta=0.5 or dpmpp_2m."""
    grid: str = "quadratic"
    """Default grid of sampling times; a row of `ebbtide list grids`, such as uniform, log_snr, karras or trailing."""
    sample_steps: int = 50
    """Default number of sampling steps."""
    bound: float = 0.0
    """Clip estimates of x₀ to ± this while sampling; in the network's units, 0 turns it off."""

    @property
    def independent(self) -> bool:
        """True if the t = 1 end is noise independent of the data; the network then determines the score, too."""
        return self.coupling == "independent"

    @property
    def learns_labels(self) -> bool:
        """True if training uses labels, so that samples can be drawn by label."""
        return self.conditional and self.steps * self.batch * (1 - self.label_dropout) >= 1

    @property
    def learns_null(self) -> bool:
        """True if samples can be drawn without a label: there are none, or training hides some (at least one)."""
        return not self.conditional or self.steps * self.batch * self.label_dropout >= 1

    @property
    def learns_columns(self) -> bool:
        """True if training gives some columns to the network, so that others can be drawn given these."""
        return False

    def condition(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what examples of a shape are drawn given, besides a label and columns; () for nothing."""
        return ()

    @property
    def in_memory(self) -> bool:
        """True if the data was given in memory, and no file of that name is here."""
        return self.data == IN_MEMORY and not os.path.exists(self.data)

    @property
    def data_named(self) -> str:
        """The data's name in a sentence; X, as in `fit`, for data in memory."""
        return "X" if self.in_memory else self.data

    @staticmethod
    def built_in(data: str) -> bool:
        """True for data that needs no file of the user: it is part of the package, or drawn."""
        return False

    @staticmethod
    def on_hub(data: str) -> bool:
        """True if this may name a set of the hub."""
        return False

    def outside(self) -> dict[str, str]:
        """Names of data and weights outside the run and the package, by field or network option."""
        data = {field: getattr(self, field) for field in self.sources}
        network, options = words(self.network)
        options = {"weights": _BUILT_ON.get(network, "")} | options
        weights = {option: options[option] for option in _WEIGHTS if options.get(option)}
        weights |= {field: name for field in _RUNS if (name := getattr(self, field))}
        return {field: name for field, name in data.items() if name and not self.built_in(name)} | weights

    def naming(self, names: Mapping[str, str]) -> "Recipe":
        """The same recipe with other names for some entries of `outside`; further names are ignored."""
        names = {field: name for field, name in names.items() if field in self.outside()}
        changed: dict[str, Any] = {field: name for field, name in names.items() if field in (*self.sources, *_RUNS)}
        if built := {option: name for option, name in names.items() if option in _WEIGHTS}:
            network, options = words(self.network)
            changed["network"] = f"{network}:{','.join(f'{key}={value}' for key, value in (options | built).items())}"
        return dataclasses.replace(self, **changed)

    def shared(self) -> "Recipe":
        """The recipe for other machines: of files and folders it keeps the last part of the name, not the location."""
        bare = {field: self.bare(name, field) for field, name in self.outside().items()}
        return self.naming({field: name for field, name in bare.items() if name != self.outside()[field]})

    def bare(self, name: str, field: str = "data") -> str:
        """A field's name without its location: the last part of a path, the full name of a set of the hub."""
        if len(files := name.split("+")) > 1 and all(file.endswith(".npz") for file in files):
            return "+".join(self.bare(file, field) for file in files)
        hub, local = next(((kind, name[len(kind) :]) for kind in ("hf:", "wds:") if name.startswith(kind)), ("", name))
        hosted = (field in (*_WEIGHTS, *_RUNS) or self.on_hub(name)) and re.fullmatch(_HUB, local, re.ASCII)
        if hosted and not os.path.exists(local.partition(":")[0]):
            return name
        last = hub + ([part for part in re.split(r"[/\\]", local) if part] or [local])[-1]
        return f"./{last}" if field in self.sources and self.built_in(last) else last

    def __post_init__(self) -> None:
        for name, value in checked_fields(type(self), vars(self)).items():
            object.__setattr__(self, name, value)

    def having(self: R, fields: Mapping[str, Any]) -> R:
        """The same with other values in these fields."""
        self._has(fields)
        return dataclasses.replace(self, **fields)

    def _has(self, fields: Mapping[str, Any]) -> None:
        accept(f"A recipe for {self.kind}", fields, vars(self), "field")

    def to_config(self) -> dict[str, Any]:
        """This recipe as JSON-ready data."""
        return {"domain": self.kind} | dataclasses.asdict(self)


# user/name of a set, its revision, its configuration, its columns
_HUB = r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?(:[\w.-]+)?(:[\w.,=-]+)?"
_RUNS = ("teacher", "init")  # fields that name runs
_WEIGHTS = ("weights", "tokenizer")  # options of a network that name folders or repositories,
_BUILT_ON = dict.fromkeys(("pi0", "pi05"), "google/paligemma-3b-pt-224")  # and the weights of these, unless given
