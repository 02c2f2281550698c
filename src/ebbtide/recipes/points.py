"""Recipes for points: each is a row (path, target, times, coupling, sampler) over the same network and training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Unpack

from .checks import is_file
from .fields import PointFields
from .recipe import Recipe

__all__ = [
    "HELD_OUT", "MEAN_FLOW", "SHORTCUT", "PointRecipe", "bridge", "ddpm", "edm", "flow", "mean_flow_points", "ot_flow",
    "shortcut_points",
]  # fmt: skip

HELD_OUT = 0.2  # of a file's rows, where none are asked for and training has its steps


@dataclass(frozen=True)
class PointRecipe(Recipe):
    """A recipe for points, the rows of a table."""

    kind: ClassVar[str] = "points"
    sources: ClassVar[tuple[str, ...]] = ("data", "source")
    older: ClassVar[Mapping[str, Any]] = {"held_out": 0.0, "validation": 0.0, "gaussians": 0}

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
        return replace(self, **given)


_BASE = PointRecipe()

# Maps of a flow from data alone: the flow by itself first, then spans that grow; beside path, target and network.
_JUMPS: dict[str, Any] = {"sampler": "jump", "grid": "flow_power:exponent=2", "sample_steps": 1}
_ALL_STEPS: dict[str, Any] = {"validation": 0.0, "held_out": HELD_OUT}  # their losses don't show when to stop
SHORTCUT = _JUMPS | {
    "loss": "shortcut:power=1", "spans": "stretches:whole=0.2,first=0.25,last=0.25,same=0.2,alone=0.3,wide=0.55",
}  # fmt: skip
MEAN_FLOW = _JUMPS | {
    "loss": "mean_flow:own=true", "spans": "stretches:whole=0.15,first=0.2,last=0.2,same=0.35,alone=0.3,wide=0.7",
}  # fmt: skip


def ddpm(**fields: Unpack[PointFields]) -> PointRecipe:
    """Denoising diffusion (Ho et al. 2020, arXiv:2006.11239): predict the noise, sample by ancestral steps."""
    return replace(
        _BASE, path="ddpm", target="noise", sampler="ddpm:variance=beta", grid="trailing", sample_steps=1000
    ).having(fields)


def flow(**fields: Unpack[PointFields]) -> PointRecipe:
    """Flow matching (Lipman et al. 2023, arXiv:2210.02747): predict the velocity, follow the ODE.

    The same as rectified flow (Liu et al. 2023, arXiv:2209.03003).
    """
    return replace(_BASE, path="linear", target="velocity", sampler="heun").having(fields)


def edm(**fields: Unpack[PointFields]) -> PointRecipe:
    """EDM (Karras et al. 2022, arXiv:2206.00364): preconditioned denoiser on exploding noise, Heun on their grid.

    Their P_mean = -1.2 is for data of standard deviation ½; for 1 it is -1.2 + log 2.
    """
    return replace(
        _BASE, path="ve", target="edm", times="log_normal:mean=-0.5", sampler="heun", grid="karras", sample_steps=18
    ).having(fields)


def bridge(**fields: Unpack[PointFields]) -> PointRecipe:
    """Stochastic interpolant (Albergo et al. 2023, arXiv:2303.08797): a linear path with noise on the way."""
    return replace(_BASE, path="bridge:spread=0.5", target="velocity", sampler="heun").having(fields)


def ot_flow(**fields: Unpack[PointFields]) -> PointRecipe:
    """OT-CFM (Tong et al. 2024, arXiv:2302.00482): flow matching along minibatch optimal-transport pairs."""
    return replace(_BASE, path="linear", target="velocity", coupling="ot", batch=256, sample_steps=10).having(fields)


def shortcut_points(**fields: Unpack[PointFields]) -> PointRecipe:
    """Shortcut model (Frans et al. 2024, arXiv:2410.12557): a map that samples in one step, from data alone.

    One jump leads where two half jumps do. The flow is learned first, then longer and longer jumps, each from the
    averaged network's shorter ones. Beyond 4 σ of three Gaussians' modes: 1.6 % in 1 step, 0.5 % in 2 (docs/LOG.md).
    """
    return replace(_BASE, network="mlp:spans=true", steps=5400, lr=1e-2, ema=0.997, **SHORTCUT, **_ALL_STEPS).having(
        fields
    )


def mean_flow_points(**fields: Unpack[PointFields]) -> PointRecipe:
    """MeanFlow (Geng et al. 2025, arXiv:2505.13447): mean slopes by their rate along the flow, from data alone.

    On points far behind `shortcut`: beyond 4 σ of three Gaussians' modes are 51 and 26 % in 1 step (docs/LOG.md).
    """
    return replace(_BASE, network="mlp:spans=true", steps=5000, lr=1.5e-3, **MEAN_FLOW, **_ALL_STEPS).having(fields)
