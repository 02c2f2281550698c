"""A trained denoiser with all it takes to use it: recipe, data transform, labels; loaded, sampled, shared."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import __version__
from .data import DATASETS, Standardise, load
from .denoiser import Denoiser, DenoiserLike
from .errors import InputError
from .guidance import ClassifierFree
from .networks import NETWORKS
from .paths import PATHS
from .randomness import Draws
from .recipes import Recipe
from .samplers import trajectory
from .specs import bind, pick
from .training import checkpoint

FORMAT = 1
TIME = "t = 0 is data, t = 1 is noise"


def build_denoiser(recipe: Recipe, shape: Sequence[int], classes: int) -> Denoiser:
    """The untrained denoiser a recipe describes, with initial weights from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = bind(NETWORKS, recipe.network, "network")(*shape, classes if recipe.conditional else 0)
    path = bind(PATHS, recipe.path, "path")()
    return Denoiser(network, path, recipe.target, gaussian_end=recipe.source == "noise")


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run folder, an exported folder or a hub repository holds, ready to sample in the data's own units."""

    denoiser: Denoiser
    recipe: Recipe
    shape: tuple[int, ...]
    transform: Standardise | None = None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    step: int = 0

    def sample(self, n: int, *, seed: int = 0, **options: Any) -> Float[Tensor, " n *d"]:
        """n samples in data units; options as in `trajectory`. Sample i depends on (seed, i) alone."""
        *_, (_, x) = self.trajectory(n, seed=seed, **options)
        return x

    def trajectory(
        self,
        n: int,
        *,
        seed: int = 0,
        first: int = 0,
        label: str | int | Sequence[int] | Tensor | None = None,
        guidance: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        sampler: str | None = None,
        grid: str | None = None,
        steps: int | None = None,
    ) -> Iterator[tuple[float, Float[Tensor, " n *d"]]]:
        """(t, x_t) from noise to samples, x_t in data units; sampler, grid and steps are the recipe's unless given.

        first: number of the first sample, to draw a set in pieces.
        label: one class (name or number) for all samples, or one number each; none draws without labels.
        guidance, interval: classifier-free weight (1 is off) and the times in which it acts.
        """
        device = next(self.denoiser.parameters()).device
        draws = Draws.first(n, seed, first, device)
        labels = self.labels(label, n)
        cond = {} if labels is None else {"label": labels.to(device)}
        denoiser: DenoiserLike = self.denoiser.eval()
        if guidance != 1.0:
            if labels is None:
                raise InputError("Guidance needs a label to be guided towards.")
            denoiser = ClassifierFree(denoiser, guidance, len(self.classes), interval)
        walk = trajectory(
            denoiser,
            self.shape,
            draws=draws,
            steps=self.recipe.sample_steps if steps is None else steps,
            sampler=self.recipe.sampler if sampler is None else sampler,
            grid=self.recipe.grid if grid is None else grid,
            start=self._start(n, seed, first, device),
            **cond,
        )
        for t, x in walk:
            yield t, self.to_data(x)

    def to_data(self, x: Float[Tensor, " n *d"]) -> Float[Tensor, " n *d"]:
        """From the network's units to the data's."""
        return x if self.transform is None else self.transform.undo(x)

    def to_network(self, x: Float[Tensor, " n *d"]) -> Float[Tensor, " n *d"]:
        """From the data's units to the network's."""
        return x if self.transform is None else self.transform.apply(x)

    def labels(self, label: Any, n: int) -> Int[Tensor, " n"] | None:
        """What `trajectory`'s label means for each of n samples; the null label for a conditional run without one."""
        count = len(self.classes)
        if not self.recipe.conditional:
            if label is not None:
                raise InputError("This run was trained without labels, so it can't be asked for one.")
            return None
        if label is None:
            return torch.full((n,), count)
        if isinstance(label, str) and not re.fullmatch(r"\d+", label):
            label = self.classes.index(pick(self.classes, label, "label"))
        labels = torch.as_tensor([int(label)] if isinstance(label, str | int) else label).reshape(-1)
        if len(labels) not in (1, n) or bool(((labels < 0) | (labels >= count)).any()):
            raise InputError(f"label must be one or {n} of the classes 0 to {count - 1}; got {label!r}.")
        return labels.expand(n)

    def _start(self, n: int, seed: int, first: int, device: torch.device) -> Tensor | None:
        """x₁ from the second sample set, where that is the other end; drawn from a fresh stream of the seed."""
        if self.recipe.source == "noise":
            return None
        return self.to_network(load(self.recipe.source, first + n, seed + 1).x[first:]).to(device)

    # -- storage ---------------------------------------------------------------------------------------------------

    def files(self, weights: dict[str, Tensor] | None = None) -> dict[str, bytes]:
        """config.json and model.safetensors, as bytes by name."""
        config = {
            "format": FORMAT,
            "ebbflow": __version__,
            "torch": torch.__version__.split("+")[0],
            "time": TIME,
            "step": self.step,
            "shape": list(self.shape),
            "columns": list(self.columns),
            "classes": list(self.classes),
            "transform": None if self.transform is None else self.transform.to_config(),
            "recipe": self.recipe.to_config(),
        }
        return {
            "config.json": checkpoint.dump_json(config),
            "model.safetensors": checkpoint.pack(self.denoiser.state_dict() if weights is None else weights),
        }

    @classmethod
    def from_files(cls, files: dict[str, bytes], name: str) -> "Trained":
        """The inverse of `files`; `name` is what errors call it."""
        config = checkpoint.parse_json(files["config.json"], f"{name}/config.json")
        if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("time") != TIME:
            raise InputError(f"{name}/config.json is not a configuration of this version of ebbflow.")
        try:
            recipe = Recipe.from_config(config["recipe"])
            classes, shape = tuple(config["classes"]), tuple(config["shape"])
            denoiser = build_denoiser(recipe, shape, len(classes))
            transform = None if config["transform"] is None else Standardise.from_config(config["transform"])
            trained = cls(denoiser, recipe, shape, transform, tuple(config["columns"]), classes, config["step"])
            weights = checkpoint.unpack(files["model.safetensors"], f"{name}/model.safetensors")
            denoiser.load_state_dict(weights)
        except InputError as error:
            raise InputError(f"{name}/config.json: {error}") from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise InputError(f"{name}: config.json and model.safetensors don't fit together: {text}") from error
        for parameter in denoiser.parameters():
            if not bool(parameter.isfinite().all()):
                raise InputError(f"{name}/model.safetensors holds numbers that are not finite.")
        return trained

    @classmethod
    def from_pretrained(cls, where: str | Path) -> "Trained":
        """Load a run (its newest undamaged checkpoint), a checkpoint, an exported folder, or a hub repository."""
        folder = Path(where)
        if (folder / "checkpoints").is_dir():
            found = checkpoint.newest_valid(folder / "checkpoints", lambda text: warnings.warn(text, stacklevel=3))
            if found is None:
                raise InputError(f"{folder} holds no checkpoint yet.")
            return cls.from_files(found[1], str(found[0]))
        if folder.is_dir():
            return cls.from_files(checkpoint.read_folder(folder), str(folder))
        if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(where)):
            raise InputError(f"{where} is neither a run folder nor the name of a hub repository (user/name).")
        from .interop.hub import download

        return cls.from_files(checkpoint.read_folder(download(str(where))), str(where))

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write config, weights, model card and manifest: what `from_pretrained` reads and the hub shows."""
        from .interop.hub import model_card

        target = Path(folder)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; pass overwrite to replace it.")
        checkpoint.write_folder(target, self.files() | {"README.md": model_card(self).encode()})
        return target

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to huggingface.co/<repository>; returns its address."""
        from .interop.hub import upload

        return upload(self, repository, private=private, token=token)


def describe_data(recipe: Recipe) -> str:
    """One line on the data a recipe names."""
    return DATASETS[recipe.data].about if recipe.data in DATASETS else f"the file {Path(recipe.data).name}"


def at_step(trained: Trained, step: int) -> Trained:
    """The same at another training step."""
    return replace(trained, step=step)
