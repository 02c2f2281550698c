"""A trained denoiser, ready to sample: with its recipe, data codec, labels and solvers."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .. import cache
from ..codecs import Cells, Chain, Codec, with_decoder
from ..core.denoiser import Denoiser, DenoiserLike
from ..core.guidance import Bounded, ClassifierFree, Known
from ..core.randomness import Draws
from ..data import Observation
from ..data.forms import Form
from ..errors import InputError
from ..exact.tuned import TUNED, Tuned, read_tuned, write_tuned
from ..memory import room
from ..networks.observation import conditions
from ..recipes import Recipe
from ..samplers import Stepper, trajectory
from ..specs import accept, expect, require, shaped
from . import checkpoint, storage
from .asked import Asked, ends_of, numbers
from .card import FIGURE, CardParts, model_card
from .choosing import Choosing
from .coded import Coded
from .conditioned import Conditioned
from .devices import place_of
from .labels import Labelled
from .settings import MADE
from .starting import Starting

__all__ = ["CHUNK", "NUMBERS", "SEEN", "Label", "Trained"]

CHUNK = 2048  # samples drawn together at most,
NUMBERS = 2**16  # and numbers in them, except for large samples,
SEEN = 2**22  # and numbers that a policy sees for them
Label = str | int | Sequence[str | int] | np.ndarray | Tensor | None


@dataclass(frozen=True, eq=False, repr=False)
class Trained(Labelled, Coded, Choosing, Conditioned, Starting):
    """The contents of a run folder, an exported folder or a hub repository, ready to sample in the data's own units."""

    denoiser: Denoiser
    """Network, path and target, with the averaged weights."""
    recipe: Recipe
    """The recipe that it was trained by."""
    shape: tuple[int, ...]
    """Of a sample in the data's units; see `latent_shape`."""
    codec: Codec | None = None
    """Undone on sampling; None if the network sees the data itself."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a table; () where it has none."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by number."""
    step: int = 0
    """The number of training steps done."""
    tuned: tuple[Tuned, ...] = ()
    """Fitted solvers by number of evaluations: fitted after training or by `ebbtide tune`, the latest last."""
    observation: Observation | None = None
    """The observation of a policy's network."""
    frequencies: tuple[float, ...] = ()
    """Frequency of each class in the data, if labels are learned; missing in runs of older versions."""
    form: Form | None = None
    """Of a table: its columns, and how its file is written; missing in runs of older versions."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Names given by the user, which may be opened, by field of the recipe: for a run just trained, all its names."""
    starts: Callable[[Any, int, int, int], Tensor | None] | None = None
    """(recipe, n, seed, first) → x₁ of a second sample set in data units, None for noise; handed in by `kinds`."""
    recordings: "Callable[[Trained, int, int, int], Mapping[str, Tensor]] | None" = None
    """(trained, n, seed, first) → observations that a policy was never trained on; handed in by `kinds`."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """Its origin: command, versions, device, precision, the data's fingerprint; missing in older runs."""
    about: str = ""
    """One line on the data, for the model card; handed in by `kinds`."""
    card_parts: Callable[[], CardParts] = CardParts
    """Reads the measurements and the figure in the run's folder, for the model card; handed in by `kinds`."""

    def __repr__(self) -> str:
        return f"Trained({', '.join(f'{name}={value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        rows = self._summary().items()
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
        return f"<table><caption>ebbtide.Trained</caption>{cells}</table>"

    def _summary(self) -> dict[str, str]:
        """Its properties, in a few words each."""
        recipe, parameters = self.recipe, sum(part.numel() for part in self.denoiser.parameters())
        summary = {
            "data": "in memory" if recipe.in_memory else recipe.shared().data,
            "shape": " × ".join(map(str, self.shape)),
            "path": recipe.path,
            "target": recipe.target,
            "network": f"{recipe.network.partition(':')[0]} ({parameters:,} parameters)",
            "step": f"{self.step:,}",
        }
        return summary | ({"classes": str(len(self.classes))} if recipe.conditional else {})

    def sample(
        self, n: int | None = None, *, seed: int = 0, first: int = 0, label: Label = None, bar: Any = None,
        **options: Any,
    ) -> Float[Tensor, " n *d"]:  # fmt: skip
        """n samples in data units; options as in `trajectory`. Sample i depends on (seed, i) alone, and on its start.

        That is why they can be drawn in chunks, whose activations stay in the processor's cache.
        bar: a progress bar, moved on by one for each sample and step.
        """
        takes = inspect.signature(self.trajectory).parameters
        accept("sample", options, (*takes, "bar"))
        if bar is not None and not callable(getattr(bar, "update", None)):
            expect("bar", bar, tqdm)
        asked = self._asked(n, seed=seed, first=first, label=label, **options)
        chunk = self.chunk
        parts: list[Tensor] = []
        for start in range(0, len(asked.draws.ids), chunk):
            piece = asked.piece(start, chunk)
            walk = self._walk(piece)
            _, x = next(walk)
            for _, x in walk:  # noqa: B007 - the last one is the sample
                if bar is not None:
                    bar.update(len(piece.draws.ids))
            parts.append(self.finished(x, asked=piece, most=max(16, NUMBERS // math.prod(self.shape))))
        return torch.cat(parts)

    @property
    def chunk(self) -> int:
        """The number of samples that are drawn together."""
        chunk = min(CHUNK, max(16, NUMBERS // math.prod(self.latent_shape)))
        if self.observation is None:
            return chunk  # and else images are what fills the memory
        return min(chunk, max(1, SEEN // sum(math.prod(shape) for shape in self.observation.shapes.values())))

    def trajectory(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        guidance: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        sampler: str | Stepper | None = None,
        grid: str | Sequence[float] | None = None,
        steps: int | str | None = None,
        bound: float | None = None,
        seen: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " n"] | None = None,
        given: Mapping[str, Any] | Tensor | np.ndarray | None = None,
        fill: bool = False,
        start: Any = None,
        at: float = 1.0,
        gradient: bool = False,
    ) -> Iterator[tuple[float, Float[Tensor, " n *d"]]]:
        """(t, x_t) from noise to samples, x_t in data units; sampler, grid and steps are the recipe's unless given.

        first: number of the first sample, to draw a set in pieces.
        label: one class for all samples, or one each; none draws from all classes together. A class is its name, also
        as an integer where names are whole numbers; or its index: in a tensor always, else where no name is a number.
        steps: a number, or "auto:10" for the run's own solver of 10 evaluations, fitted now if it has none ("auto": the
        one found last, else of 20 evaluations). Without these three, see `choice`.
        guidance, interval: classifier-free weight (1 is off) and the times in which it acts.
        bound: keep estimates of x₀ within ± this, in the network's units, or of latents in those of their pixels; 0
        lets them be.
        seen: a policy's observations, one row for each sample, in the robot's units; recorded ones unless given.
        ids: each sample's number, instead of first, first + 1, …
        given: of a run trained with any_columns, columns by name: a value for all samples or one for each, NaN or None
        where it is drawn; or rows of numbers. The others are drawn given these, which come back as they are. Of a run
        for super-resolution, images of fewer pixels, by default held-out ones; of one with attributes, these by name.
        fill: draw no missing cell, in such a run.
        start: own starting points, one for all n samples, or a row for each, so that n may be left out: numbers in data
        units, or columns by name. Of a run between two sets, points of its second. Of a run from noise, data that is
        noised to the time `at`, from which the rest of the grid is walked (SDEdit, Meng et al. 2022, arXiv:2108.01073).
        gradient: whether samples keep their gradient with respect to weights and start; see `Recomputed`.
        """
        asked = self._asked(
            n, seed=seed, first=first, label=label, sampler=sampler, grid=grid, steps=steps, seen=seen, ids=ids,
            given=given, fill=fill, start=start, at=at, gradient=gradient, guidance=guidance, interval=interval,
            bound=bound,
        )  # fmt: skip
        for t, x in self._walk(asked):
            yield t, self.to_data(x) if t else self.finished(x, asked)

    def latents(self, n: int | None = None, **options: Any) -> Iterator[tuple[float, Float[Tensor, " n *d"]]]:
        """`trajectory`, with the same options, in the network's units: z_t, of which x_t is decoded."""
        return self._walk(self._asked(n, **options))

    def _asked(
        self,
        n: int | None,
        *,
        seed: int = 0,
        first: int = 0,
        label: Label = None,
        sampler: str | Stepper | None = None,
        grid: str | Sequence[float] | None = None,
        steps: int | str | None = None,
        seen: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " n"] | None = None,
        given: Mapping[str, Any] | Tensor | np.ndarray | None = None,
        fill: bool = False,
        start: Any = None,
        at: float = 1.0,
        gradient: bool = False,
        **how: Any,
    ) -> Asked:
        """The arguments of `trajectory`, checked, with a label for each sample; how: guidance, interval, bound."""
        own, n = self.own_start(start, at, n)
        require("first", first, 0, whole=True)
        require("first", first, high=2**62, whole=True)
        expect("gradient", gradient, bool)
        expect("fill", fill, bool)
        first = int(first)
        if n > CHUNK:
            room(8 * n * math.prod(self.shape), f"n {n}")
        require("guidance", how.get("guidance", 1.0))
        if how.get("bound") is not None:
            require("bound", how["bound"], 0)
        if "interval" in how:
            how["interval"] = ends_of(how["interval"])  # a list is the same as a tuple, also in `choice`
        condition = self.asked_condition(given, n, seed, first)
        known, label = self.asked_columns(None if self.condition_shape else given, label, n)
        if fill:
            self.refuse_given()
        if how.get("guidance", 1.0) != 1.0 and label is None and condition is None:
            raise InputError("Guidance needs a label to be guided towards.")
        if seen is not None:
            if self.observation is None:
                raise InputError("This run was trained without observations, so it can't be given any.")
            expect("seen", seen, Mapping)
            for name, part in seen.items():
                expect(f"seen[{name!r}]", part, Tensor)
                shaped(f"seen[{name!r}]", part, n, ...)
        choice = self.choice(sampler, grid, steps, at=at, **how)
        device = place_of(self.denoiser)
        draws = Draws.first(n, seed, first, device)
        if ids is not None:
            draws = replace(draws, ids=numbers(ids, n).to(device))
        labels = self.labels(label, n, draws)
        cond: dict[str, Tensor] = {} if labels is None else {"label": labels.to(device)}
        if condition is not None:
            cond["given"] = condition.to(device)
        if self.recipe.learns_columns and (codes := self.codes(known, fill, draws)) is not None:
            cond["given"] = codes
        return Asked(self.steered(**how), choice, draws, first, cond, seen, known, fill, own, at, gradient)

    def _walk(self, asked: Asked) -> Iterator[tuple[float, Tensor]]:
        """(t, x_t) from noise to samples, x_t in the network's units."""
        draws, first, at = asked.draws, asked.first, asked.at
        n, start = len(draws.ids), self.begun(asked.start, at, draws)
        start = self.start(n, draws.seed, first, draws) if start is None else start
        options = asked.choice._asdict() | asked.cond | self.context(n, draws.seed, first, asked.seen)
        return trajectory(
            asked.denoiser, self.latent_shape, draws=draws, start=start, at=at, gradient=asked.gradient, **options
        )

    def context(self, n: int, seed: int, first: int, seen: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """The network's context of a policy's observations: the same at every step, so computed once.

        seen: an observation of n steps by name, (n, o, …) in the robot's units; None for recorded ones.
        """
        if self.observation is None:
            return {}
        if seen is None:
            if self.recordings is None:
                raise InputError("A policy samples actions for what is seen: give it seen, a tensor per observation.")
            seen = self.recordings(self, n, seed, first)
        return conditions(self.denoiser.network, self.observation.see(seen))

    def steered(
        self, *, guidance: float = 1.0, interval: tuple[float, float] = (0.0, 1.0), bound: float | None = None
    ) -> DenoiserLike:
        """The denoiser that these options of `trajectory` walk on.

        bound: the largest |x̂₀|, in the codec's first units; None for the recipe's, 0 for none.
        """
        self.sampling()
        interval = ends_of(interval)
        denoiser: DenoiserLike = self.denoiser.eval()
        if guidance != 1.0:
            denoiser = ClassifierFree(denoiser, guidance, len(self.classes), interval)
        bound = self.recipe.bound if bound is None else bound
        if bound:
            denoiser = Bounded(denoiser, bound, codec=self.bounding(bound))
        elif isinstance(self.codec, Cells):  # out there a slope that is too steep throws a sample away
            denoiser = Bounded(denoiser, self.codec.ends())
        return Known(denoiser) if self.recipe.learns_columns else denoiser

    def bounding(self, bound: float) -> Codec | None:
        """The codecs between a bound, which is for what the first one makes of data, and the network; None for none."""
        codec = self.codec if self.codec is not None and self.codec.weights() else None
        if codec is not None and not codec.linear:
            raise InputError(f"bound {bound:g} is for data, and this run's codec isn't linear, so it must be 0.")
        return Chain(codec.codecs[1:]) if isinstance(codec, Chain) else codec

    def fingerprint(self) -> str:
        """A hash of the weights and of what is made of the network's answers."""
        weights = self.denoiser.state_dict()
        about = self.recipe.path, self.recipe.target, self.recipe.network, sorted(weights)
        return cache.fingerprint(*about, tensors=(weights[name] for name in sorted(weights)))

    def with_tuned(self, data: bytes, where: str) -> "Trained":
        """The run with the solvers of a tuned.json; leaves out those found for other weights, with a warning.

        data: the file's bytes. where: its name in errors and in the warning.
        """
        found = read_tuned(data, where)
        own = self.fingerprint() if any(one.weights for one in found) else ""
        if foreign := [one for one in found if one.weights not in ("", own)]:
            counts = ", ".join(str(one.evaluations) for one in foreign)
            warnings.warn(
                f"{where}: its solvers for {counts} evaluations are of other weights, so they are not used.",
                stacklevel=2,
            )
        return replace(self, tuned=tuple(one for one in found if one.weights in ("", own)))

    def with_decoder(self, run: str | Path) -> "Trained":
        """The same run in an autoencoder's latent, with the decoder of another of the same encoder, its folder or
        export; see the loss `sharpen`."""
        return replace(self, codec=with_decoder(self.codec, str(run), opened=storage.opened))

    def reading(self, what: str = "data") -> Recipe:
        """The recipe by which its data, or its source, is read: a built-in set, or what the user named.

        Of a run on data in memory the user may also name the label, a column of the file that holds that data.
        InputError for a loaded run's file, folder or hub set that nobody named: a stranger may have written the recipe.
        """
        outside = self.recipe.outside()
        if what in outside and what not in self.named:
            raise InputError(storage.unnamed(what, outside[what]))
        unread = {"source": "noise"} if "source" in outside.keys() - self.named.keys() else {}
        recipe = self.recipe.naming({**self.named, **unread})
        if what == "data" and recipe.in_memory:
            raise InputError(storage.unnamed(what, recipe.data))
        return replace(recipe, label=self.named["label"]) if "label" in self.named else recipe

    # -- storage ---------------------------------------------------------------------------------------------------

    def files(self, weights: dict[str, Tensor] | None = None) -> dict[str, checkpoint.Content]:
        """Contents of files by name: the config, the weights of network and codec; weights: others than its own."""
        weights = self.denoiser.state_dict() if weights is None else weights
        codec = {} if self.codec is None else self.codec.weights()
        files: dict[str, checkpoint.Content] = {"config.json": storage.config_json(self), checkpoint.WEIGHTS: weights}
        return files | ({storage.CODEC: codec} if codec else {})

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], name: str, named: Mapping[str, str] = MappingProxyType({})
    ) -> "Trained":
        """Read what `files` wrote; `name` stands in errors, `named` may be opened (see `from_pretrained`)."""
        trained = cls(**storage.fields(files, name, named))
        return trained.with_tuned(files[TUNED], f"{name}/{TUNED}") if TUNED in files else trained

    def export(self, where: str, license: str = "") -> dict[str, checkpoint.Content]:
        """The files of a folder that leaves this machine, for readers who find it at `where`.

        Beside `files`: the model card, and the run's solvers. Of the user's own files and folders they hold the last
        part of the name, not where they lie.
        """
        made = {name: part for name, part in self.made.items() if MADE[name]}
        parts = self.card_parts()
        shared = replace(self, recipe=self.recipe.shared(), made=made, card_parts=lambda: parts)
        card = {checkpoint.README: model_card(shared, where, license).encode()}
        figure: dict[str, checkpoint.Content] = {FIGURE: parts.figure} if parts.figure else {}
        return shared.files() | card | figure | ({TUNED: write_tuned(self.tuned)} if self.tuned else {})

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False, license: str = "") -> Path:
        """Write config, weights, model card and manifest: what `from_pretrained` reads and the hub shows.

        overwrite: replace what an earlier call wrote; a folder with anything else in it is never replaced.
        license: of the weights, as the hub writes it (apache-2.0); the card has none unless given.
        """
        target = storage.folder_name("folder", folder).resolve()
        if target.exists():
            if not overwrite:
                raise InputError(f"{folder} exists; give overwrite=True (--overwrite) to replace it.")
            if not target.is_dir():
                raise InputError(f"{folder} is not a folder, so it is not replaced.")
            if any(path.name not in storage.EXPORTED for path in target.iterdir()):
                raise InputError(f"{folder} holds more than an exported model, so it is not replaced.")
        checkpoint.write_folder(target, self.export(target.name, license))
        return Path(folder)
