"""One training loop for every domain, as a generator: it takes a step, yields a record, and never touches a disk."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..core.couplings import COUPLINGS
from ..core.denoiser import Denoiser
from ..core.randomness import generator, keyed
from ..core.times import SPANS, TIMES, stratified_draws, uniform_draws
from ..data.prepared import Data
from ..errors import DivergedError, InputError
from ..losses import LOSSES, loss_row
from ..losses.denoise import WEIGHTS
from ..losses.flow_map import Leap, mean_slope
from ..losses.stable import posterior_mean
from ..recipes import Recipe
from ..specs import bind, pick, require
from .ema import ema_decay
from .flat import AdamW, FlatParameters
from .schedule import learning_rate
from .teacher import Trajectories

if TYPE_CHECKING:  # half a second that only training needs
    from accelerate import Accelerator

__all__ = ["PATIENCE", "Record", "Trainer", "batch_indices"]

PATIENCE = 100  # skipped steps in a row after which a run is given up


@dataclass(frozen=True)
class Record:
    """One optimiser step. `skipped`: its loss or gradient was not finite, and the weights did not move."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    skipped: bool = False


def batch_indices(seed: int, step: int, batch: int, n: int) -> Int[Tensor, " batch"]:
    """Places step·batch … in the endless row of shuffled epochs; a function of (seed, step), so nothing to save."""
    first, end = step * batch, (step + 1) * batch
    orders = [
        _order(seed, epoch, n)[max(0, first - epoch * n) : end - epoch * n]
        for epoch in range(first // n, (end - 1) // n + 1)
    ]
    return torch.cat(orders)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed, "order", epoch))


class Trainer:
    """A denoiser in training: parameters, their average, the optimiser and the step count.

    `steps()` is the loop; `state`, `load_state` are all that resuming needs, as every random number is keyed by
    (seed, step). Multi-process runs and bf16 autocast come from the accelerator; every process draws the same global
    batch and takes its share, so the result doesn't depend on how many there are (except for the order of sums).

    accumulate: parts in which a share goes through the network, for less memory at a time; their gradients are added
    up, so the result doesn't depend on it either (except for dropout's draws).
    classes: of the data's labels; the same number is the null label, which takes the place of hidden ones.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        data: Data,
        recipe: Recipe,
        accelerator: "Accelerator",
        accumulate: int = 1,
        classes: int = 0,
    ) -> None:
        self.recipe, self.accelerator, self.accumulate, self.step = recipe, accelerator, accumulate, 0
        self.classes = classes
        self.denoiser = denoiser.to(accelerator.device)
        self.data = data.to(accelerator.device)
        self.flat = FlatParameters(self.denoiser)
        self.ema = self.flat.vector.clone()
        self.optimizer = AdamW(self.flat, recipe.weight_decay, (recipe.beta1, recipe.beta2), recipe.eps)
        # For autocast alone. Another .to() would copy the parameters out of their vector (cpu:0 is not cpu), and DDP's
        # buckets would take the gradients' place; one vector needs one reduction, in steps().
        teacher = data.denoiser if isinstance(data, Trajectories) else None
        self._row = loss_row(recipe.loss)
        self._span = bind(SPANS, recipe.spans, "spans") if self._row.spans else None
        if self._row.spans and not self.denoiser.spans:
            network = f"{recipe.network}{',' if ':' in recipe.network else ':'}spans=true"
            raise InputError(f"loss {recipe.loss!r} needs a network that spans two times, as in network={network!r}.")
        if self._row.codec and not hasattr(denoiser.network, "decode"):
            raise InputError(
                f"loss {recipe.loss!r} needs a network that encodes and decodes, as network='autoencoder'."
            )
        if self._row.teacher and teacher is None:
            raise InputError(f"loss {recipe.loss!r} learns from a teacher; name a run as teacher.")
        if teacher is not None and not self._row.spans:
            raise InputError(f"loss {recipe.loss!r} learns from data, so it can't have a teacher.")
        self._average = self._averaging(recipe) if "average" in self._row.helps else None
        helps = {"average": self._average and self._average[0], "teacher": teacher}
        loss = _Loss(self.denoiser, recipe, helps)
        self._loss = accelerator.prepare_model(loss, False, evaluation_mode=True)
        self._drops = any(_draws(part) for part in self.denoiser.modules())
        self._law = bind(TIMES, recipe.times, "times")
        self._couple = bind(COUPLINGS, recipe.coupling, "coupling")
        # A third noise is needed where both ends of a path are given (see Path.between).
        self._coupled = recipe.coupling != "independent" or data.x1 is not None
        if self._coupled and self._row.spans and teacher is None:
            raise InputError(f"loss {recipe.loss!r} needs independent pairs of data and noise.")
        if self._coupled and not denoiser.predicts_velocity:
            raise InputError(
                f"Coupled ends need the velocity target, the only one they leave meaningful; got {recipe.target!r}."
            )
        if recipe.batch % accelerator.num_processes:
            raise InputError(
                f"batch must be a multiple of the {accelerator.num_processes} processes, so that each has an equal "
                f"share; got {recipe.batch}."
            )
        share = recipe.batch // accelerator.num_processes
        if not 1 <= accumulate <= share:
            raise InputError(f"accumulate must be at least 1 and at most {share}, a process's batch; got {accumulate}.")
        self.batch(0)  # what the law or the coupling can't do is said here, before a run has begun

    def steps(self, on_nonfinite: str = "stop") -> Iterator[Record]:
        """Train from the current step to the recipe's last, yielding after each step."""
        pick(("stop", "skip"), on_nonfinite, "on_nonfinite")
        recipe, skipped = self.recipe, 0
        warmup = round(recipe.warmup * recipe.steps)
        self.denoiser.train()
        while self.step < recipe.steps:
            self.flat.gradient.zero_()
            if self._average is not None:
                self._average[1].vector.copy_(self.ema)
            batch, loss = self.batch(self.step), torch.zeros((), device=self.accelerator.device)
            with self._keyed():
                for part in zip(*(whole.tensor_split(self.accumulate) for whole in batch.values()), strict=True):
                    own = self._loss(**dict(zip(batch, part, strict=True))).sum() / len(batch["t"])
                    self.accelerator.backward(own)
                    loss += own.detach()
            if self.accelerator.num_processes > 1:
                loss = self.accelerator.reduce(loss, "mean")
                self.flat.gradient.copy_(self.accelerator.reduce(self.flat.gradient, "mean"))
            value, norm = loss.item(), self.flat.gradient.norm().item()
            lr = learning_rate(self.step, recipe.steps, recipe.lr, warmup)
            if math.isfinite(value) and math.isfinite(norm):
                self._update(lr, norm)
                skipped = 0
            else:
                skipped += 1
                if on_nonfinite == "stop" or skipped >= PATIENCE:
                    raise DivergedError(
                        f"At step {self.step + 1} the loss was {value:g} and the gradient's norm {norm:g}; the weights "
                        "are the last good ones. Try a lower learning rate, and look for extreme values in the data."
                    )
            self.step += 1
            yield Record(self.step, value, norm, lr, skipped=skipped > 0)

    def _update(self, lr: float, norm: float) -> None:
        if norm > self.recipe.clip:
            self.flat.gradient.mul_(self.recipe.clip / norm)
        self.optimizer.step(lr)
        self.ema.lerp_(self.flat.vector, 1 - ema_decay(self.step, self.recipe.ema))

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's share of the step's batch, as the loss takes it: x0, noise, t, and what else is needed."""
        recipe, data, device = self.recipe, self.data, self.accelerator.device
        draw = generator(recipe.seed, "step", step, device=device)
        indices = batch_indices(recipe.seed, step, recipe.batch, len(data)).to(device)
        batch = data.take(indices, draw)
        if "x_t" in batch:  # a teacher's trajectories
            return self._share(batch)
        x0, label = batch["x0"], batch.pop("label", None)
        u = (stratified_draws if recipe.stratified else uniform_draws)(recipe.batch, draw)
        # A law may round to the very ends, where some targets and a bridge's velocity are infinite.
        if (recipe.stable_targets or self._coupled) and batch.keys() - {"x0"}:
            what = "stable_targets" if recipe.stable_targets else f"coupling {recipe.coupling!r}"
            raise InputError(f"{what} can't be: what the network is told differs from example to example.")
        if self._span is not None:
            u, end = self._span(u, torch.rand(recipe.batch, generator=draw, device=device))
            batch["to"] = self._law(end, self.denoiser.path).clamp(2**-24, 1 - 2**-24)
        batch["t"] = self._law(u, self.denoiser.path).clamp(2**-24, 1 - 2**-24)
        if data.x1 is None:
            batch["noise"] = torch.randn(x0.shape, generator=draw, device=device)
        else:
            batch["noise"] = data.x1[torch.randint(len(data.x1), (recipe.batch,), generator=draw, device=device)]
        allowed = None
        if self._coupled:
            batch["noise"] = self._couple(x0, batch["noise"], label)
            batch["z"] = torch.randn(x0.shape, generator=draw, device=device)
        if label is not None:
            require("classes", self.classes, 1, whole=True)
            hidden = torch.rand(recipe.batch, generator=draw, device=device) < recipe.label_dropout
            batch["label"] = label.masked_fill(hidden, self.classes)
        if recipe.stable_targets and not self._coupled:
            if label is not None:
                allowed = hidden[:, None] | (label[:, None] == label)  # a hidden label may have been any
            batch["x0"], batch["noise"] = posterior_mean(self.denoiser.path, x0, batch["noise"], batch["t"], allowed)
        return self._share(batch)

    def _share(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's examples of a global batch."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        return batch if processes == 1 else {name: part[rank::processes] for name, part in batch.items()}

    def _averaging(self, recipe: Recipe) -> tuple[Denoiser, FlatParameters]:
        """A copy of the denoiser for the average of the weights, and its parameters."""
        average = deepcopy(self.denoiser).requires_grad_(True)
        flat = FlatParameters(average)
        return average.eval(), flat

    def _keyed(self) -> AbstractContextManager[None]:
        """Dropout and shifts draw from torch's own generator: give it the step's key, and the caller its state back."""
        if not self._drops:
            return nullcontext()
        device = self.accelerator.device
        return keyed(device, self.recipe.seed, "dropout", self.step, self.accelerator.process_index)

    def averaged(self) -> dict[str, Tensor]:
        """The denoiser's state with the EMA in place of the parameters: what sampling uses."""
        return {**self.denoiser.state_dict(), **self.flat.state(self.ema)}

    def state(self) -> dict[str, Tensor]:
        """The state for resuming besides the average: parameters and AdamW's two moments, by name."""
        tensors = {f"weights.{name}": part for name, part in self.flat.split(self.flat.vector).items()}
        for moment, vector in self._moments.items():
            tensors |= {f"{moment}.{name}": part for name, part in self.flat.split(vector).items()}
        return tensors | {"updates": torch.tensor(self.optimizer.updates), "step": torch.tensor(self.step)}

    def load_state(self, average: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
        """Continue where `averaged` and `state` were taken; InputError names a tensor that isn't as it was."""
        for name, own in self.state().items():
            part = tensors.get(name)
            if part is None or (part.shape, part.dtype) != (own.shape, own.dtype) or not bool(part.isfinite().all()):
                raise InputError(f"its tensor {name} is missing, of another shape or kind, or not finite.")
        if not 0 <= int(tensors["step"]) <= self.recipe.steps:
            raise InputError(f"its step must be in 0..{self.recipe.steps}; got {int(tensors['step'])}.")
        self.denoiser.load_state_dict(average)
        self.ema.copy_(self.flat.vector)
        for kind, vector in {"weights": self.flat.vector, **self._moments}.items():
            for name, part in self.flat.split(vector).items():
                part.copy_(tensors[f"{kind}.{name}"])
        self.optimizer.updates, self.step = int(tensors["updates"]), int(tensors["step"])

    @property
    def _moments(self) -> dict[str, Tensor]:
        return {"exp_avg": self.optimizer.mean, "exp_avg_sq": self.optimizer.square}


class _Loss(torch.nn.Module):
    """The recipe's loss as a forward pass, which is what the accelerator wraps for autocast."""

    def __init__(self, denoiser: Denoiser, recipe: Recipe, helps: dict[str, Any]) -> None:
        super().__init__()
        self.denoiser, self.weight = denoiser, bind(WEIGHTS, recipe.weight, "weight")
        self.row, self.function = loss_row(recipe.loss), bind(LOSSES, recipe.loss, "loss")
        self.helps = {name: helps[name] for name in self.row.helps}
        self.teacher = helps["teacher"]

    def forward(self, **batch: Tensor) -> Tensor:
        if not self.row.spans:
            loss: Tensor = self.function(self.denoiser, **batch, weight=self.weight)
        else:
            loss = self.function(self.denoiser, self.leap(**batch), **self.helps)
        return loss

    def leap(
        self, *, t: Tensor, to: Tensor, x_t: Tensor | None = None, x_to: Tensor | None = None, **rest: Any
    ) -> Leap:
        """Examples for a flow map: of a teacher's trajectories, or of pairs of data and noise."""
        path, known = self.denoiser.path, None
        if x_t is None:
            x0, noise = rest.pop("x0"), rest.pop("noise")
            now, then = path.at(t, x0), path.at(to, x0)
            x_t, x_to, known = now.alpha * x0 + now.sigma * noise, then.alpha * x0 + then.sigma * noise, noise - x0
        else:
            now, then = path.at(t, x_t), path.at(to, x_t)
            known = self.taught(x_t, t, to, rest)
        return Leap(x_t, now, then, known, x_to, rest)

    @torch.no_grad()
    def taught(self, x_t: Tensor, t: Tensor, to: Tensor, cond: dict[str, Any]) -> Tensor:
        """The teacher's slope: at all points if the loss needs it, else where s = t, and 0 elsewhere."""
        asked = torch.ones_like(t, dtype=torch.bool) if self.row.slope else t == to
        rows, known = asked.nonzero()[:, 0], torch.zeros_like(x_t)
        if len(rows):
            own = {name: part[rows] for name, part in cond.items()}
            x = x_t[rows]
            known[rows] = mean_slope(self.teacher, x, self.denoiser.path.at(t[rows], x), None, own)
        return known


def _draws(part: torch.nn.Module) -> bool:
    """True if a part of a network draws random numbers in training: dropout, or a part that declares it."""
    return (isinstance(part, _DropoutNd) and part.p > 0) or bool(getattr(part, "draws", False))
