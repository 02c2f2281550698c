"""One training loop for every domain, as a generator: it takes a step, yields a record, and never touches a disk."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.denoiser import Denoiser, DenoiserLike
from ..core.randomness import keyed
from ..data.prepared import Data
from ..errors import DivergedError, InputError
from ..losses import LOSSES, loss_row
from ..recipes import Recipe
from ..specs import bind, options, pick, with_option
from .devices import all_there, local
from .ema import ema_decay
from .engines import Engine, pick_engine
from .examples import Examples
from .flat import FlatParameters
from .objective import Objective, draws
from .replicated import Replicated
from .schedule import learning_rate
from .teacher import Trajectories

if TYPE_CHECKING:  # half a second that only training needs
    from accelerate import Accelerator

__all__ = ["PATIENCE", "Record", "Trainer"]

PATIENCE = 100  # skipped steps in a row after which a run is given up
UNREAD = 50  # steps on a GPU whose losses may wait there, so that it never waits for this process


@dataclass(frozen=True)
class Record:
    """One optimiser step. `skipped`: its loss or gradient was not finite, and the weights did not move."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    skipped: bool = False


class Trainer:
    """A denoiser in training: parameters, their average, the optimiser and the step count.

    `steps()` is the loop; `state`, `load_state` are all that resuming needs, as every random number is keyed by
    (seed, step). Multi-process runs and bf16 autocast come from the accelerator; every process takes and draws its own
    share of the batch, so the result doesn't depend on how many there are (except for the order of sums).

    accumulate: parts in which a share goes through the network, for less memory at a time; their gradients are added
    up, so the result doesn't depend on it either (except for dropout's draws).
    engine: a row of ENGINES; "fsdp" shares the weights out among the processes.
    every: steps after which their losses are read from the device.
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
        engine: str = "replicated",
    ) -> None:
        self.every = UNREAD if accelerator.device.type == "cuda" else 1
        self.recipe, self.accelerator, self.accumulate, self.step = recipe, accelerator, accumulate, 0
        self.classes = classes
        self._fine: Tensor | bool = True  # that the losses and gradients which nobody has read yet are finite
        self.denoiser = denoiser.to(accelerator.device)
        self.data = data.to(accelerator.device)
        self._row = loss_row(recipe.loss)
        if self._row.codec and not all(hasattr(denoiser.network, part) for part in ("decode", *self._row.frozen)):
            raise InputError(
                f"loss {recipe.loss!r} needs a network that encodes and decodes, as network='autoencoder'."
            )
        for part in self._row.frozen:
            denoiser.network.get_submodule(part).requires_grad_(False)
        self._ahead = bool(getattr(self.data, "ahead", False))
        self.engine = pick_engine(engine, self._row, recipe.loss, accelerator)(self.denoiser, recipe, accelerator)
        self._engines: list[Engine] = [self.engine]  # and the judges', where a loss has any
        # For autocast alone. Another .to() would copy the parameters out of their vector (cpu:0 is not cpu), and DDP's
        # buckets would take the gradients' place; one vector needs one reduction, in steps().
        teacher = data.denoiser if isinstance(data, Trajectories) else None
        if self._row.spans and not self.denoiser.spans:
            network = with_option(recipe.network, "spans", "true")
            raise InputError(f"loss {recipe.loss!r} needs a network that spans two times, as in network={network!r}.")
        if self._row.teacher and teacher is None:
            raise InputError(f"loss {recipe.loss!r} learns from a teacher; name a run as teacher.")
        if teacher is not None and not (self._row.spans or self._row.teacher):
            raise InputError(f"loss {recipe.loss!r} learns from data, so it can't have a teacher.")
        self._average = self._averaging(recipe) if "average" in self._row.helps else None
        self._judges = self._judging(recipe, teacher or denoiser) if self._row.judges else None
        helps = {"average": self._average and self._average[0], "teacher": teacher, "judges": self._judges}
        loss = Objective(self.denoiser, recipe, helps)
        self._loss = accelerator.prepare_model(loss, False, evaluation_mode=True)
        self._drops = any(draws(part) for part in self.denoiser.modules())
        self._examples = Examples(self.denoiser, self.data, recipe, accelerator, classes)
        share = self._examples.share
        if not 1 <= accumulate <= share:
            raise InputError(f"accumulate must be at least 1 and at most {share}, a process's batch; got {accumulate}.")
        self.batch(0)  # what the law or the coupling can't do is said here, before a run has begun

    def steps(self, on_nonfinite: str = "stop", due: Callable[[int], bool] = lambda step: False) -> Iterator[Record]:
        """Train from the current step to the recipe's last, yielding a record for each step.

        due: steps after which the caller needs the trainer as it is then. Between these records may come late.
        """
        pick(("stop", "skip"), on_nonfinite, "on_nonfinite")
        recipe, skipped = self.recipe, 0
        fall = recipe.lr_steps or recipe.steps
        warmup = round(recipe.warmup * fall)
        every = 1 if on_nonfinite == "skip" or self._judges is not None else self.every
        unread: list[tuple[float, Tensor]] = []
        self.denoiser.train()
        for batch in self._batches():
            loss, norms = self._backward(batch)
            lr = learning_rate(self.step, fall, recipe.lr, warmup)
            if every > 1:
                unread.append((lr, torch.stack([loss, *norms])))
                self._update_unread(*unread[-1])
                if len(unread) == every or due(self.step) or self.step == recipe.steps:
                    yield from self._read(unread)
                    unread.clear()
                continue
            value, lengths = loss.item(), [norm.item() for norm in norms]
            norm = math.hypot(*lengths)
            if math.isfinite(value) and math.isfinite(norm):
                self._update(lr, *lengths)
                skipped = 0
            else:
                skipped += 1
                if on_nonfinite == "stop" or skipped >= PATIENCE:
                    raise _diverged(self.step, value, norm)
            self.step += 1
            yield Record(self.step, value, norm, lr, skipped=skipped > 0)

    def _backward(self, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The loss of a step's batch, and the norms of the gradients that it leaves in the engines."""
        for engine in self._engines:
            engine.clear()
        if self._average is not None and isinstance(self.engine, Replicated):
            self._average[1].vector.copy_(self.engine.ema)
        if self._judges is not None:
            self._judges.step = self.step
        loss = torch.zeros((), device=self.accelerator.device)
        with self._keyed(), self.engine.exchanging():
            for part in self._parts(batch):
                own = self._loss(**part).sum() / len(batch["t"])
                self.accelerator.backward(own)
                loss += own.detach()
        if self.accelerator.num_processes > 1:
            with all_there(self.accelerator.num_processes):
                loss = self.accelerator.reduce(loss, "mean")
                for engine in self._engines:
                    engine.reduce()
        return loss, [engine.norm() for engine in self._engines]

    def _parts(self, batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """A share of a batch as it goes through the network: whole, or part by part."""
        if self.accumulate == 1:
            yield batch
            return
        for part in zip(*(whole.tensor_split(self.accumulate) for whole in batch.values()), strict=True):
            yield dict(zip(batch, part, strict=True))

    def _update_unread(self, lr: float, found: Tensor) -> None:
        """An update by a gradient that nobody has looked at: none, if it or its loss or one before wasn't finite."""
        self._fine = found.isfinite().all() & self._fine
        self.engine.update(lr, found[1], self._fine)
        self._average_too(self._fine)
        self.step += 1

    def _read(self, unread: Sequence[tuple[float, Tensor]]) -> Iterator[Record]:
        """The records of the last steps, in one transfer; DivergedError at the first that wasn't finite."""
        values = torch.stack([found for _, found in unread]).tolist()
        begun = self.step - len(values)
        good = next((k for k, pair in enumerate(values) if not all(map(math.isfinite, pair))), len(values))
        if good < len(values):
            self.engine.forget(len(values) - good)
            self.step, self._fine = begun + good, True
        for k, ((lr, _), (value, norm)) in enumerate(zip(unread[:good], values)):
            yield Record(begun + k + 1, value, norm, lr)
        if good < len(values):
            raise _diverged(self.step, *values[good])

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """The batches of the steps to come; where data have to be fetched, each while the one before it is learned."""
        while not self._ahead and self.step < self.recipe.steps:
            yield self.batch(self.step)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.batch, self.step) if self.step < self.recipe.steps else None
            while waiting is not None and self.step < self.recipe.steps:
                batch, waiting = waiting.result(), pool.submit(self.batch, self.step + 1)
                yield batch

    def _update(self, lr: float, *norms: float) -> None:
        for engine, norm in zip(self._engines, norms, strict=True):
            if norm or engine is self.engine:  # judges stand still until they are asked
                engine.update(lr, norm)
        self._average_too()

    def _average_too(self, fine: Tensor | bool = True) -> None:
        self.engine.average((1 - ema_decay(self.step, self.recipe.ema)) * fine)

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's share of the step's batch, as the loss takes it: x0, noise, t, and what else is needed."""
        return self._examples.batch(self.data, step)

    def measuring(self, data: Data, count: int) -> list[dict[str, Tensor]]:
        """At least `count` examples of other data, in batches that are the same at every call; with plain targets."""
        data, batches = data.to(self.accelerator.device), -(-count // self.recipe.batch)
        return [self._examples.measuring(data, k) for k in range(batches)]

    @torch.no_grad()
    def measured(self, batches: Sequence[dict[str, Tensor]]) -> float:
        """The mean loss of the averaged weights on these batches."""
        self.denoiser.eval()
        try:
            with self.engine.averaging():
                return torch.cat([self._loss(**batch) for batch in batches]).double().mean().item()
        finally:
            self.denoiser.train()

    def _averaging(self, recipe: Recipe) -> tuple[Denoiser, FlatParameters]:
        """A copy of the denoiser for the average of the weights, and its parameters."""
        average = deepcopy(self.denoiser).requires_grad_(True)
        flat = FlatParameters(average)
        return average.eval(), flat

    def _judging(self, recipe: Recipe, of: DenoiserLike) -> Any:
        """The networks that the loss trains beside the denoiser, with the options of its spec."""
        own = bind(LOSSES, recipe.loss, "loss")
        every = {name: option.default for name, option in options(own.func).items()} | own.keywords
        assert self._row.judges is not None
        with keyed(self.accelerator.device, recipe.seed, "judges"):
            judges = self._row.judges(of, recipe.steps, **every).to(self.accelerator.device)
        self._engines.append(Replicated(judges, recipe, self.accelerator, averages=False))
        return judges

    def _keyed(self) -> AbstractContextManager[None]:
        """Dropout and shifts draw from torch's own generator: give it the step's key, and the caller its state back."""
        if not self._drops:
            return nullcontext()
        device = self.accelerator.device
        return keyed(device, self.recipe.seed, "dropout", self.step, self.accelerator.process_index)

    def averaged(self) -> dict[str, Tensor]:
        """The denoiser's state with the EMA in place of the parameters: what sampling uses."""
        return self.engine.averaged()

    def state(self) -> dict[str, Tensor]:
        """The state for resuming besides the average: parameters and AdamW's two moments by name, judges' too."""
        tensors: dict[str, Tensor] = {"step": torch.tensor(self.step)}
        for of, engine in zip(("", "judges."), self._engines):
            tensors |= {f"{of}{name}": part for name, part in engine.state().items()}
            tensors[f"{of}updates"] = torch.tensor(engine.updates)
        return tensors

    def load_state(self, average: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
        """Continue where `averaged` and `state` were taken; InputError names a tensor that isn't as it was.

        average, tensors: what these returned.
        """
        for name, own in self.state().items():
            part = tensors.get(name)
            if (
                part is None
                or (part.shape, part.dtype) != (own.shape, own.dtype)
                or not bool(local(part).isfinite().all())
            ):
                raise InputError(f"its tensor {name} is missing, of another shape or kind, or not finite.")
        if not 0 <= int(tensors["step"]) <= self.recipe.steps:
            raise InputError(f"its step must be in 0..{self.recipe.steps}; got {int(tensors['step'])}.")
        self.engine.load_averaged(average)
        for of, engine in zip(("", "judges."), self._engines):
            held = {name: tensors[f"{of}{name}"] for name in engine.state()}
            engine.load(held, int(tensors[f"{of}updates"]))
        self.step = int(tensors["step"])


def _diverged(step: int, loss: float, norm: float) -> DivergedError:
    return DivergedError(
        f"At step {step + 1} the loss was {loss:g} and the gradient's norm {norm:g}; the weights are the last good "
        "ones. Try a lower learning rate, and look for extreme values in the data."
    )
