"""Losses, which training minimises: a row of LOSSES each.

denoise: |ŷ - (a x₀ + b ε)|², the loss of DDPM, flow matching and EDM, and the weights of its times.
stable: the same targets with less noise in them, averaged over the batch.
flow_map: estimates that lead to another time, by the identities that the map of a flow satisfies.
matching: the density of a teacher's samples, by scores of both and a critic.
reflow: the denoising loss on a teacher's own pairs of noise and data.
reconstruct: the error of data that went through a codec's latent.
sharpen: the same for its decoder alone, with a critic.

A loss is handed a denoiser and uses its path and row; it imports nothing of the core.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..specs import bind
from .denoise import denoise, reflow
from .flow_map import consistency, known_ends, lagrangian, mean_flow, shortcut
from .matching import Judges, matching
from .reconstruct import reconstruct
from .sharpen import Critic, sharpen

__all__ = ["LOSSES", "Loss", "loss_row"]


@dataclass(frozen=True)
class Loss:
    """A row of LOSSES: a function of a denoiser and a batch, and what it needs besides.

    spans: examples are a `Leap`, from t to another time, and the network spans two times.
    slope: it needs the slope at the leap's beginning. teacher: it learns from a teacher's trajectories alone.
    codec: the network is a codec of its data, such as an autoencoder; the run reconstructs and has no samples.
    helps: the arguments that it takes besides: `average`, the denoiser with averaged weights; `teacher`, its teacher;
    `judges`, what the function of that name makes of the teacher, or, without one, of the denoiser, the steps and the
    loss's options: a module that is trained beside the denoiser, on the same batches. fair: it needs trajectories whose
    starts follow their law. frozen: the parts of the network that it leaves as they are.
    """

    function: Callable[..., Tensor]
    spans: bool = True
    slope: bool = False
    helps: tuple[str, ...] = ()
    teacher: bool = False
    judges: Callable[..., Any] | None = None
    fair: bool = False
    codec: bool = False
    frozen: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """True if its value on data that isn't learned shows when to stop: nothing else is learned beside it."""
        return not (self.spans or self.teacher or self.codec)

    def __call__(self, *given: Any, **options: Any) -> Tensor:
        return self.function(*given, **options)


LOSSES: dict[str, Loss] = {
    "denoise": Loss(denoise, spans=False),
    "trajectory": Loss(known_ends, teacher=True),
    "shortcut": Loss(shortcut, slope=True, helps=("average",)),
    "mean_flow": Loss(mean_flow, slope=True, helps=("average",)),
    "lagrangian": Loss(lagrangian, slope=True, helps=("teacher",)),
    "consistency": Loss(consistency, helps=("average",)),
    "matching": Loss(matching, helps=("teacher", "judges"), teacher=True, judges=Judges),
    "reflow": Loss(reflow, spans=False, teacher=True, fair=True),
    "reconstruct": Loss(reconstruct, spans=False, codec=True),
    "sharpen": Loss(sharpen, spans=False, codec=True, helps=("judges",), judges=Critic, frozen=("encoder",)),
}


def loss_row(spec: str, what: str = "loss") -> Loss:
    """The row of LOSSES that a spec such as "mean_flow:power=0.5" names; a plain function is a loss of two times."""
    function: Any = bind(LOSSES, spec, what).func
    return function if isinstance(function, Loss) else Loss(function)
