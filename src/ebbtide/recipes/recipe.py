"""A recipe: everything that makes one method, as plain data. It imports no torch, so that `--help` is quick."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from .. import formats
from ..errors import InputError
from ..specs import accept, pick, words
from .checks import OBJECTIVES, checked_fields, is_file

__all__ = [
    "HELD_OUT", "IN_MEMORY", "OBJECTIVES", "RECIPE_TYPES", "ImageRecipe", "PointRecipe", "Recipe", "RobotRecipe",
    "is_file", "recipe_type",
]  # fmt: skip

HELD_OUT = 0.2  # of a file's rows, where none are asked for and training has its steps
IN_MEMORY = "memory.npy"  # stands for data that no file holds
R = TypeVar("R", bound="Recipe")
P = TypeVar("P", bound="RobotRecipe")


@dataclass(frozen=True)
class Recipe:
    """A method: what to train, and how to sample; values such as `ddpm:betas=linear,steps=1000` are rows of tables."""

    kind: ClassVar[str] = ""
    """The kind of its data: a row of ebbtide.kinds.KINDS."""
    sources: ClassVar[tuple[str, ...]] = ("data",)
    """The fields that name data; built-in sets, files, folders or sets of the hub."""
    rows: ClassVar[tuple[str, ...]] = ("path", "target", "times", "weight", "coupling", "loss", "spans", "network")
    """The fields that name rows of tables, or functions of the user's own."""

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

    @staticmethod
    def from_config(config: Any) -> "Recipe":
        """The recipe that `to_config` wrote; anything else is refused by name."""
        if not isinstance(config, dict):
            raise InputError(f"A recipe must be a JSON object; got {type(config).__name__}.")
        row = RECIPE_TYPES[pick(RECIPE_TYPES, str(config.get("domain", "")), "The recipe's domain")]
        given = {name: value for name, value in config.items() if name != "domain"}
        fields = {field.name for field in dataclasses.fields(row)}
        if foreign := [name for name in given if name not in fields]:
            raise InputError(f"A recipe for {row.kind} has no field {foreign[0]!r}.")
        if row is PointRecipe:  # older versions trained on every row of a file, for all steps, from a network alone
            given = {"held_out": 0.0, "validation": 0.0, "gaussians": 0} | given
        return row(**checked_fields(row, given))


@dataclass(frozen=True)
class PointRecipe(Recipe):
    """A recipe for points, the rows of a table."""

    kind: ClassVar[str] = "points"
    sources: ClassVar[tuple[str, ...]] = ("data", "source")

    data: str = "three_gaussians"
    """A point set or a file; see `ebbtide list`, or .csv, .tsv, .txt, .xlsx, .parquet, .npy, .npz."""
    label: str = ""
    """Column of the file that holds the labels; its name, or number from 1."""
    points: int = 50_000
    """Number of points to draw from a named point set; once, as training data."""
    source: str = "noise"
    """The t = 1 end: noise, or a second point set; the latter needs the velocity target."""
    held_out: float = 0.0
    """Share of a file's rows never learned, for evaluation; 0.2 unless given, if steps are given."""
    validation: float = 0.2
    """Share of a file's rows by whose loss training stops; learned in the end, 0 trains for all steps."""
    gaussians: int = -1
    """Gaussians that the network starts from; in ranks a copula, 0 for none, -1 chosen for files of under 1000 rows."""
    columns: str = ""
    """Columns of the file to learn; names separated by commas, by default all."""
    drop: str = ""
    """Columns of the file to leave out; names separated by commas."""
    missing: str = ""
    """Further marks of missing cells; separated by commas, besides NA, nan, ? and the like."""
    categorical: str = ""
    """Columns of levels that look like numbers; names separated by commas."""
    ordered: str = ""
    """Columns of levels in order; as in cut=Fair<Good<Ideal, separated by commas."""
    codec: str = ""
    """Form in which the network sees columns; a row of `ebbtide list codecs`, by default standardise for named sets,
    ranks for files, mixed with texts or gaps."""
    any_columns: bool = False
    """Learn to draw columns given any others; known to the network in half of each batch."""
    standardise: bool = True
    """Let a codec see columns, not the network their own numbers; stored, and undone on sampling."""
    stable_targets: bool = True
    """Average targets over points that could have produced x_t; exact, less noisy."""

    @property
    def independent(self) -> bool:
        return super().independent and self.source == "noise"

    @property
    def learns_columns(self) -> bool:
        return self.any_columns and not self.teacher

    @staticmethod
    def built_in(data: str) -> bool:
        return not is_file(data)

    def having(self, fields: Mapping[str, Any]) -> "PointRecipe":
        """The same with other values in these fields; for given steps it trains, and holds rows out for evaluation."""
        self._has(fields)
        given = ({"validation": 0.0} if "steps" in fields else {}) | dict(fields)
        if self.validation and not given.get("validation", self.validation):
            given = {"held_out": HELD_OUT} | given
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class ImageRecipe(Recipe):
    """A recipe for images, which are scaled to [-1, 1] for the network."""

    kind: ClassVar[str] = "images"

    data: str = "digits"
    """digits, a folder of images, a .npz, idx files, or hf:NAME; a .npz holds uint8 images and labels."""
    label: str = ""
    """Source of the labels; folder (a class for each sub-folder), an array of the .npz, a column of hf:NAME."""
    size: int = 0
    """Side to which images are resized and centre-cropped; 0 keeps their size, which must then be equal."""
    channels: int = 0
    """1 for grey, 3 for colour, 4 for transparency; 0 for grey or colour, as found."""
    value_range: str = ""
    """LOW:HIGH of images of more than 8 bits; mapped to 0 and 255, by default the set's extremes."""
    codec: str = "pixels"
    """Form in which the network sees images; rows of `ebbtide list codecs` joined by +."""
    flip: bool = False
    """Mirror half of the training images, left to right."""
    factor: int = 0
    """Draw images given ones of this many times fewer pixels a side; 0 for none."""
    attributes: str = ""
    """Numbers that images are drawn given; an array of the .npz, a .csv file with a row for each image, or columns
    of an hf: set separated by commas."""
    attribute_ranges: str = ""
    """NAME=LOW:HIGH of each attribute, separated by commas; stored with the run, by default the set's extremes."""
    held_out: float = 0.1
    """Share of the images held out for evaluation; a set with its own test split keeps that."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """Skip files that can't be read, or fail; at most 5 % may be skipped."""

    def condition(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.factor:
            return (shape[0], *(side // self.factor for side in shape[1:]))
        return (len(self.attribute_ranges.split(",")),) if self.attributes and self.attribute_ranges else ()

    def outside(self) -> dict[str, str]:
        return super().outside() | ({"codec": found[2]} if (found := re.search(_MADE_OF, self.codec)) else {})

    def naming(self, names: Mapping[str, str]) -> "Recipe":
        named = super().naming(names)
        if "codec" not in names or "codec" not in self.outside():
            return named
        return dataclasses.replace(named, codec=re.sub(_MADE_OF, lambda found: found[1] + names["codec"], self.codec))  # type: ignore[call-arg]

    @staticmethod
    def built_in(data: str) -> bool:
        return data == "digits"

    @staticmethod
    def on_hub(data: str) -> bool:
        return data.startswith("hf:")


@dataclass(frozen=True)
class RobotRecipe(Recipe):
    """A recipe for a policy: chunks of a robot's actions, given its observations."""

    kind: ClassVar[str] = "robots"

    data: str = "lerobot/pusht"
    """Recorded episodes: a .npz, a LeRobot folder, or user/name on the hub; `ebbtide demos` writes a .npz, and
    a.npz+b.npz joins arrays of the same steps."""
    simulator: str = ""
    """Simulator for the policy: a row of `ebbtide list simulators`."""
    objective: Literal["flow_matching", "diffusion"] = "flow_matching"
    """Flow matching or diffusion; sets path, target, times, sampler, grid, sample_steps and bound unless given."""
    path: str = ""
    target: str = ""
    times: str = ""
    sampler: str = ""
    grid: str = ""
    sample_steps: int = 10

    horizon: int = 16
    """Actions in a chunk; the first is for the current step."""
    n_obs_steps: int = 1
    """Observations that the policy receives; the current one and those before it."""
    n_action_steps: int = 8
    """Actions to execute of each chunk before the next one."""
    state: str = "all"
    """Columns of the state that the policy receives; names separated by commas, all, or none."""
    angles: str = ""
    """Columns that are angles in radians; the policy receives their sine and cosine."""
    action: str = "all"
    """Columns of the action that the policy predicts; names separated by commas, or all."""
    cameras: str = ""
    """Cameras whose images the policy receives, separated by commas."""
    size: int = 0
    """Side to which images are resized; 0 keeps their size."""
    value_range: str = ""
    """CAMERA=LOW:HIGH of images of more than 8 bits; mapped to 0 and 255, separated by commas, by default
    each camera's extremes."""
    prompt: int = 0
    """Bytes of the task's instruction given to the policy; 0 for none."""
    normalise: Literal["mean_std", "quantiles", "min_max"] = "mean_std"
    """Scaling of states and actions; as in π0, as in π0.5, or the range to [-1, 1]."""
    least: float = 0.01
    """Smallest spread that is scaled to 1; a column that hardly moves would be all noise."""
    masked: bool = True
    """Leave actions beyond an episode's end out of the loss; otherwise its last action is learned there."""
    held_out: float = 0.05
    """Share of the episodes held out for evaluation."""

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
        self._has(fields)
        recipe = self.with_objective(fields["objective"]) if "objective" in fields else self
        return dataclasses.replace(recipe, **fields)

    def with_objective(self: P, objective: str) -> P:
        """The recipe with all settings of another objective. (`replace` alone would keep those of the old one.)"""
        decided: dict[str, Any] = OBJECTIVES[pick(OBJECTIVES, objective, "objective")] | {"objective": objective}
        if self.normalise == "mean_std":
            decided["bound"] = 0.0
        return dataclasses.replace(self, **decided)


# user/name of a set, its revision, its configuration, its columns
_HUB = r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?(:[\w.-]+)?(:[\w.,=-]+)?"
_MADE_OF = r"((?:autoencoder|diffusers):(?:[^+]*,)?(?:run|folder)=)([^,]*?)(?=,|$|\+[a-z_]+(?:[:+]|$))"  # of a codec
_RUNS = ("teacher", "init")  # fields that name runs
_WEIGHTS = ("weights", "tokenizer")  # options of a network that name folders or repositories,
_BUILT_ON = dict.fromkeys(("pi0", "pi05"), "google/paligemma-3b-pt-224")  # and the weights of these, unless given
RECIPE_TYPES: dict[str, type[Recipe]] = {row.kind: row for row in (PointRecipe, ImageRecipe, RobotRecipe)}


def recipe_type(data: str) -> type[Recipe]:
    """The kind of recipe for this data; a file's contents decide, not its name."""
    path = Path(data)
    if data.startswith(("hf:", "wds:")) or data == "digits" or (data != "" and path.is_dir()) or formats.is_idx(path):
        return ImageRecipe
    held = formats.arrays(path)
    likely = [held["x"]] if "x" in held else held.values()
    return ImageRecipe if "images" in held or any(array.images for array in likely) else PointRecipe
