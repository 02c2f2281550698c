"""A recipe: everything that makes one method, as plain data. It imports no torch, so that `--help` is quick."""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from .. import formats
from ..errors import InputError
from ..specs import pick, words

R = TypeVar("R", bound="Recipe")
P = TypeVar("P", bound="RobotRecipe")


@dataclass(frozen=True)
class Recipe:
    """What to train and how to sample it; values such as `ddpm:betas=linear,steps=1000` are rows of tables."""

    kind: ClassVar[str] = ""
    """The kind of its data: a row of ebbtide.kinds.KINDS."""
    sources: ClassVar[tuple[str, ...]] = ("data",)
    """The fields that name data: a built-in set, or a file, a folder or a set of the hub."""

    data: str = ""
    """The data."""
    label: str = ""
    """Where the labels are."""
    conditional: bool = False
    """Train on the labels too; samples can then be asked for by label."""
    label_dropout: float = 0.1
    """Share of labels hidden in training, for classifier-free guidance."""

    path: str = "linear"
    """linear, cosine, ddpm, vp, ve or bridge."""
    target: str = "velocity"
    """noise, x0, velocity, v, score or edm."""
    times: str = "uniform"
    """Law of training times: uniform, logit_normal, beta or log_normal."""
    stratified: bool = True
    """Spread the training times of a batch evenly (low discrepancy)."""
    weight: str = "unit"
    """Loss weight: unit, min_snr or edm."""
    coupling: str = "independent"
    """Which noise meets which point: independent, ot or class_ot."""
    stable_targets: bool = False
    """Average targets over examples that could have made x_t; exact, less noisy, for points."""
    network: str = "mlp"
    """The network and its size, as in mlp:width=64,depth=6."""

    steps: int = 2800
    """Optimiser steps."""
    batch: int = 512
    """Examples a step, over all processes."""
    lr: float = 2e-2
    """Peak learning rate; it warms up, then falls to zero along a cosine."""
    warmup: float = 0.05
    """Share of the steps that warm the learning rate up."""
    weight_decay: float = 0.0
    """AdamW's decay of weight matrices."""
    beta1: float = 0.9
    """AdamW's β₁; the share of the gradient's running mean that a step keeps."""
    beta2: float = 0.95
    """AdamW's β₂; the same of its running square."""
    eps: float = 1e-8
    """AdamW's ε; added to the root of the running square, by which the mean is divided."""
    clip: float = 1.0
    """Largest gradient norm; larger ones are scaled down."""
    ema: float = 0.999
    """Decay of the averaged weights that sampling uses, after its warm-up."""
    seed: int = 0
    """Seed of everything random."""

    sampler: str = "heun"
    """Default sampler; a row of `ebbtide list samplers`, such as heun, ddim:eta=0.5 or dpmpp_2m."""
    grid: str = "quadratic"
    """Default grid of sampling times; a row of `ebbtide list grids`, such as uniform, log_snr, karras or trailing."""
    sample_steps: int = 50
    """Default number of sampling steps."""
    bound: float = 0.0
    """Keep estimates of x₀ within ± this while sampling; in the network's units, 0 lets them be."""

    @property
    def independent(self) -> bool:
        """Whether the t = 1 end is noise that knows nothing of the data, so that the network also knows the score."""
        return self.coupling == "independent"

    @property
    def learns_labels(self) -> bool:
        """Whether training shows labels, so that samples can be asked for by label."""
        return self.conditional and self.steps * self.batch * (1 - self.label_dropout) >= 1

    @property
    def learns_null(self) -> bool:
        """Whether samples can be drawn without a label: there are none, or training hides some (at least one)."""
        return not self.conditional or self.steps * self.batch * self.label_dropout >= 1

    @staticmethod
    def built_in(data: str) -> bool:
        """Whether this names data that is opened nowhere: it comes with the package, or is drawn."""
        return False

    @staticmethod
    def on_hub(data: str) -> bool:
        """Whether this may name a set of the hub."""
        return False

    def outside(self) -> dict[str, str]:
        """What it names outside of the run and the package, by field or option of its network."""
        data = {field: getattr(self, field) for field in self.sources}
        network, options = words(self.network)
        options = {"weights": _BUILT_ON.get(network, "")} | options
        weights = {option: options[option] for option in _WEIGHTS if options.get(option)}
        return {field: name for field, name in data.items() if name and not self.built_in(name)} | weights

    def naming(self, names: Mapping[str, str]) -> "Recipe":
        """The same with other names for some of what `outside` holds; any others are left aside."""
        names = {field: name for field, name in names.items() if field in self.outside()}
        changed: dict[str, Any] = {field: name for field, name in names.items() if field in self.sources}
        if built := {option: name for option, name in names.items() if option in _WEIGHTS}:
            network, options = words(self.network)
            changed["network"] = f"{network}:{','.join(f'{key}={value}' for key, value in (options | built).items())}"
        return dataclasses.replace(self, **changed)

    def shared(self) -> "Recipe":
        """The recipe as it leaves this machine: of files and folders the last part of the name, not where they lie."""
        bare = {field: self.bare(name, field) for field, name in self.outside().items()}
        return self.naming({field: name for field, name in bare.items() if name != self.outside()[field]})

    def bare(self, name: str, field: str = "data") -> str:
        """What a field names without the way to it: of a path the last part, of a set of the hub all."""
        if len(files := name.split("+")) > 1 and all(file.endswith(".npz") for file in files):
            return "+".join(self.bare(file, field) for file in files)
        hub, local = ("hf:", name[3:]) if name.startswith("hf:") else ("", name)
        hosted = (field in _WEIGHTS or self.on_hub(name)) and re.fullmatch(_HUB, local, re.ASCII)
        if hosted and not os.path.exists(local):
            return name
        last = hub + ([part for part in re.split(r"[/\\]", local) if part] or [local])[-1]
        return f"./{last}" if field in self.sources and self.built_in(last) else last

    def __post_init__(self) -> None:
        for name, given in vars(self).items():
            if isinstance(given, os.PathLike):  # a file's name is what is stored
                object.__setattr__(self, name, os.fspath(given))
        for field, (low, high, accepted) in _RANGES.items():
            value = getattr(self, field, low)
            if not low <= value <= high:
                raise InputError(f"{field} must be {accepted}; got {value!r}.")

    def having(self: R, fields: Mapping[str, Any]) -> R:
        """The same with other values in these fields."""
        return dataclasses.replace(self, **fields)

    def to_config(self) -> dict[str, Any]:
        """This recipe as JSON-ready data."""
        return {"domain": self.kind} | dataclasses.asdict(self)

    @staticmethod
    def from_config(config: Any) -> "Recipe":
        """The recipe that `to_config` wrote; anything else is refused by name."""
        if not isinstance(config, dict):
            raise InputError(f"A recipe must be a JSON object; got {type(config).__name__}.")
        row = RECIPE_TYPES[pick(RECIPE_TYPES, str(config.get("domain", "")), "The recipe's domain")]
        fields = {field.name: field.type for field in dataclasses.fields(row)}
        given: dict[str, Any] = {}
        for name, value in config.items():
            if name == "domain":
                continue
            if name not in fields:
                raise InputError(f"A recipe for {row.kind} has no field {name!r}.")
            kind: Any = fields[name]
            if get_origin(kind) is Literal:
                given[name] = pick(get_args(kind), str(value), f"The recipe's {name}")
                continue
            accepted = (int, float) if kind is float else kind
            if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
                raise InputError(f"The recipe's {name} must be {kind.__name__}; got {value!r}.")
            try:
                given[name] = float(value) if kind is float else value
            except OverflowError:
                raise InputError(f"The recipe's {name} is beyond all floats.") from None
        if row is PointRecipe and is_file(str(given.get("data", row.data))):
            given = {"held_out": 0.0} | given  # older versions trained on every row of a file
        return row(**given)


@dataclass(frozen=True)
class PointRecipe(Recipe):
    """A recipe for points, the rows of a table."""

    kind: ClassVar[str] = "points"
    sources: ClassVar[tuple[str, ...]] = ("data", "source")

    data: str = "three_gaussians"
    """A point set or a file; see `ebbtide list`, or .csv, .tsv, .npy, .npz."""
    label: str = ""
    """Column of the file that holds the labels; its name, or number from 1."""
    points: int = 50_000
    """How many points to draw from a named point set; once, as training data."""
    source: str = "noise"
    """The t = 1 end: noise, or a second point set; that needs the velocity target."""
    held_out: float = 0.1
    """Share of a file's rows never trained on, to measure with; of fewer than 100 rows none is held out."""
    standardise: bool = True
    """Shift and scale each column to mean 0 and standard deviation 1; stored, and undone on sampling."""
    stable_targets: bool = True
    """Average targets over points that could have made x_t; exact, less noisy."""

    @property
    def independent(self) -> bool:
        return super().independent and self.source == "noise"

    @staticmethod
    def built_in(data: str) -> bool:
        return not is_file(data)


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    """A recipe for pictures, which the network sees in [-1, 1]."""

    kind: ClassVar[str] = "images"

    data: str = "digits"
    """digits, a folder of pictures, a .npz, idx files, or hf:NAME; a .npz holds uint8 images and labels."""
    label: str = ""
    """Where the labels are; folder (a class for each sub-folder), an array of the .npz, a column of hf:NAME."""
    size: int = 0
    """Side to which pictures are resized and centre-cropped; 0 keeps theirs, which must then be alike."""
    channels: int = 0
    """1 for grey, 3 for colour, 4 to keep transparency; 0 for grey or colour, as found."""
    value_range: str = ""
    """LOW:HIGH of more than 8 bits, which become 0 and 255; the set's lowest and highest unless given."""
    flip: bool = False
    """Mirror half of the pictures in training, left to right."""
    held_out: float = 0.1
    """Share of the pictures never trained on, to measure with; a set with test parts of its own keeps those."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """Skip files that can't be read, or fail; at most 5 % may be skipped."""

    @staticmethod
    def built_in(data: str) -> bool:
        return data == "digits"

    @staticmethod
    def on_hub(data: str) -> bool:
        return data.startswith("hf:")


OBJECTIVES: dict[str, dict[str, Any]] = {
    "flow_matching": {"path": "linear", "target": "velocity", "times": "beta", "sampler": "euler", "grid": "uniform",
                      "sample_steps": 10, "bound": 0.0},
    "diffusion": {"path": "ddpm:betas=squared_cosine", "target": "noise", "times": "uniform", "sampler": "ddim",
                  "grid": "trailing", "sample_steps": 20, "bound": 1.0},
}  # fmt: skip


@dataclass(frozen=True)
class RobotRecipe(Recipe):
    """A recipe for a policy: chunks of a robot's actions, given what it sees."""

    kind: ClassVar[str] = "robots"

    data: str = "lerobot/pusht"
    """Recorded episodes: a .npz (see `ebbtide demos`; a.npz+b.npz for arrays of the same steps), a folder in LeRobot's
    format, or user/name of one on the hub."""
    simulator: str = ""
    """Where the policy is tried out: a row of `ebbtide list simulators`."""
    objective: Literal["flow_matching", "diffusion"] = "flow_matching"
    """Flow matching or diffusion; decides path, target, times, sampler, grid, sample_steps and bound unless given."""
    path: str = ""
    target: str = ""
    times: str = ""
    sampler: str = ""
    grid: str = ""
    sample_steps: int = 10

    horizon: int = 16
    """Actions in a chunk; the first is for now."""
    n_obs_steps: int = 1
    """Steps that the policy sees: this one and those just before it."""
    n_action_steps: int = 8
    """Actions of a chunk that are carried out before the next chunk."""
    state: str = "all"
    """Columns of the state that the policy sees, by name and comma; all, or none."""
    angles: str = ""
    """Columns that are angles in radians; the policy sees their sine and cosine."""
    action: str = "all"
    """Columns of the action that it predicts, by name and comma; all."""
    cameras: str = ""
    """Cameras whose pictures it sees, by comma."""
    size: int = 0
    """Side to which pictures are resized; 0 keeps theirs."""
    value_range: str = ""
    """CAMERA=LOW:HIGH of more than 8 bits, which become 0 and 255; by comma, the lowest and highest unless given."""
    prompt: int = 0
    """Bytes of the task's instruction that it is told; 0 for none."""
    normalise: Literal["mean_std", "quantiles", "min_max"] = "mean_std"
    """How states and actions are scaled; as π0 does, as π0.5 does, or the range to [-1, 1]."""
    least: float = 0.01
    """Least spread of a column that is scaled to 1; what hardly moves would be all noise."""
    masked: bool = True
    """Leave actions beyond an episode's end out of the loss; else its last action is learned there."""
    held_out: float = 0.05
    """Share of the episodes never trained on, to measure with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in OBJECTIVES[pick(OBJECTIVES, self.objective, "objective")].items():
            if getattr(self, name) == "":
                object.__setattr__(self, name, value)
        if self.bound and self.normalise == "mean_std":
            raise InputError(
                f"bound {self.bound:g} would cut off actions beyond as many standard deviations: normalise by min_max "
                "or quantiles, or let bound be 0."
            )
        if not self.n_action_steps <= self.horizon:
            raise InputError(f"n_action_steps must be at most the horizon, {self.horizon}; got {self.n_action_steps}.")

    @staticmethod
    def on_hub(data: str) -> bool:
        return not data.endswith(".npz")

    def having(self: P, fields: Mapping[str, Any]) -> P:
        """The same with other values in these fields; an objective also decides what they leave open."""
        recipe = self.with_objective(fields["objective"]) if "objective" in fields else self
        return dataclasses.replace(recipe, **fields)

    def with_objective(self: P, objective: str) -> P:
        """With all that an objective decides. (`replace` alone would leave what the old one has decided.)"""
        decided: dict[str, Any] = OBJECTIVES[pick(OBJECTIVES, objective, "objective")] | {"objective": objective}
        if self.normalise == "mean_std":
            decided["bound"] = 0.0
        return dataclasses.replace(self, **decided)


_HUB = r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?"  # user/name of a set, or user/name:config
_WEIGHTS = ("weights", "tokenizer")  # options of a network that name folders or repositories,
_BUILT_ON = dict.fromkeys(("pi0", "pi05"), "google/paligemma-3b-pt-224")  # and the weights of these, unless given
RECIPE_TYPES: dict[str, type[Recipe]] = {row.kind: row for row in (PointRecipe, ImageRecipe, RobotRecipe)}


def recipe_type(data: str) -> type[Recipe]:
    """Which kind of recipe learns this data; what a file holds decides, not what it is called."""
    path = Path(data)
    if data.startswith("hf:") or data == "digits" or (data != "" and path.is_dir()) or formats.is_idx(path):
        return ImageRecipe
    held = formats.arrays(path)
    likely = [held["x"]] if "x" in held else held.values()
    return ImageRecipe if "images" in held or any(array.pictures for array in likely) else PointRecipe


def is_file(data: str) -> bool:
    """Whether points are read from a file, not drawn from a named set."""
    return os.sep in data or "/" in data or Path(data).suffix != ""


_RANGES: dict[str, tuple[float, float, str]] = {
    "points": (2, 1e9, "at least 2 and at most 1e9"),
    "label_dropout": (0, 1, "at least 0 and at most 1"),
    "steps": (1, 1e12, "at least 1 and at most 1e12"),
    "batch": (1, 1e9, "at least 1 and at most 1e9"),
    "lr": (0, 1e3, "at least 0 and at most 1000"),
    "warmup": (0, 1, "at least 0 and at most 1"),
    "weight_decay": (0, 1e3, "at least 0 and at most 1000"),
    "beta1": (0, 1 - 1e-9, "at least 0 and below 1"),
    "beta2": (0, 1 - 1e-9, "at least 0 and below 1"),
    "eps": (1e-30, 1, "at least 1e-30 and at most 1"),
    "clip": (1e-12, 1e12, "above 0 and at most 1e12"),
    "ema": (0, 1 - 1e-9, "at least 0 and below 1"),
    "seed": (0, 2**63 - 1, "at least 0 and below 2^63"),
    "bound": (0, 1e6, "at least 0 and at most 1e6"),
    "size": (0, 4096, "at least 0 and at most 4096"),
    "channels": (0, 4, "0, 1, 3 or 4"),
    "held_out": (0, 0.9, "at least 0 and at most 0.9"),
    "horizon": (1, 4096, "at least 1 and at most 4096"),
    "n_obs_steps": (1, 256, "at least 1 and at most 256"),
    "n_action_steps": (1, 4096, "at least 1 and at most 4096"),
    "least": (0, 1e6, "at least 0 and at most 1e6"),
    "prompt": (0, 4096, "at least 0 and at most 4096"),
    "sample_steps": (1, 1e6, "at least 1 and at most 1e6"),
}
