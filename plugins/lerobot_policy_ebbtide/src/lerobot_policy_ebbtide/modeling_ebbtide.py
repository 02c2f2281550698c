"""An ebbtide run as a policy of LeRobot: its calls, its batches, ebbtide's control loop inside."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors.torch import save
from torch import Tensor

import ebbtide
from ebbtide.codecs import Codec, Quantiles, Standardise
from ebbtide.core.randomness import Draws
from ebbtide.core.times import TIMES, uniform_draws
from ebbtide.data import Observation
from ebbtide.data.episodes import columns, numbered, prompt_bytes, resized
from ebbtide.errors import InputError
from ebbtide.kinds.robots.data import policy_recipe
from ebbtide.losses.denoise import WEIGHTS
from ebbtide.recipes import RECIPES, RobotRecipe, recipe_from_config
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.specs import bind, pick
from ebbtide.training.build import build_denoiser
from ebbtide.training.trained import Trained

from .configuration_ebbtide import EbbtideConfig

__all__ = ["EbbtidePolicy"]


class EbbtidePolicy(PreTrainedPolicy):
    """A policy that ebbtide trained, or that LeRobot's trainer is to train; observations and actions in robot's units.

        policy = EbbtidePolicy.from_run("runs/transfer")       a run of ebbtide's, or user/name of one on the hub
        policy = EbbtidePolicy.from_pretrained("folder")       what save_pretrained wrote

    Several robots or simulators in lockstep are the rows of a batch. The noise of a chunk depends on the seed, the
    robot's episode and the chunk's number alone, as everywhere in ebbtide: `reset` begins the next episodes.

    dataset_stats: LeRobot's statistics of a data set, by which a new policy's states and actions are scaled.
    """

    config_class = EbbtideConfig
    name = "ebbtide"

    def __init__(
        self,
        config: EbbtideConfig,
        *,
        dataset_stats: Mapping[str, Mapping[str, Any]] | None = None,
        trained: Trained | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config)
        if trained is None:
            trained = _untrained(config.run) if config.run else _new(config, dataset_stats)
        if not config.run:
            config.run = _held(trained)["config.json"]
            config.follow(config.run)
        self.recipe, self.denoiser = policy_recipe(trained), trained.denoiser
        self.act_by(trained)

    @classmethod
    def from_run(cls, run: str | Trained, **settings: Any) -> "EbbtidePolicy":
        """The policy of an ebbtide run: its folder, an exported one, user/name on the hub, or itself once it is open.

        settings: fields of EbbtideConfig, such as n_action_steps or device.
        """
        if isinstance(run, Trained):
            trained = replace(run, denoiser=deepcopy(run.denoiser))  # which may be trained on
        else:
            trained = ebbtide.from_pretrained(run)
        own: dict[str, Any] = {"n_action_steps": policy_recipe(trained).n_action_steps, "device": "cpu"} | settings
        held = _held(trained)
        config = EbbtideConfig(run=held["config.json"], solvers=held.get("tuned.json", []), **own)
        return cls(config, trained=trained).to(config.device).eval()

    @classmethod
    def _load_as_safetensor(cls, model: "EbbtidePolicy", model_file: str, map_location: str, strict: bool) -> Any:
        """LeRobot's own, but that no weight may be missing; and the run's solvers, which belong to its weights."""
        super()._load_as_safetensor(model, model_file, map_location, True)
        if model.config.solvers:
            model.act_by(model.trained.with_tuned(json.dumps(model.config.solvers).encode(), "the policy's solvers"))
        return model

    def get_optim_params(self) -> Any:
        return self.denoiser.parameters()

    # -- acting ----------------------------------------------------------------------------------------------------

    def act_by(self, trained: Trained) -> None:
        """Make the control loop of a run, by the configuration's settings."""
        self.trained, config = trained, self.config
        self.loop = ebbtide.policy(
            trained, seed=config.seed, sampler=config.sampler, grid=config.grid, steps=config.steps or None,
            n_action_steps=config.n_action_steps, delay=config.delay, real_time=config.real_time,
            ensemble=config.ensemble if config.ensemble >= 0 else None,
        )  # fmt: skip
        assert isinstance(self.loop.source, DenoiserChunks)
        self.loop.source = self.chunks = _Chunks(self.loop.source)
        self.episode = 0

    def reset(self) -> None:
        """Begin the next episodes: to be called whenever the environments are reset."""
        self.episode += len(self.loop.episodes)
        self.loop.reset([])

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:
        """The action of this step for each row of the batch: (b, actions).

        Every n_action_steps it predicts a chunk and keeps its next actions; the observations of the latest n_obs_steps
        calls are remembered, the first one repeated. noise: (b, horizon, actions), used if a chunk is due.
        """
        steps = self._steps(batch)
        if not self.loop.episodes:
            self.loop.reset(range(self.episode, self.episode + len(steps)))
        if len(steps) != len(self.loop.episodes):
            raise InputError(f"{len(self.loop.episodes)} robots act since reset; got observations of {len(steps)}.")
        for slot, seen in enumerate(steps):
            self.loop.observe(seen, slot)
        with self.chunks.given(noise):
            return self._here(self.loop.actions(range(len(steps))))

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], noise: Tensor | None = None) -> Tensor:
        """A chunk for each row, (b, horizon, actions), whose first action is for this step; nothing is remembered.

        The batch holds what is seen now, which `select_action`'s observations precede, or n_obs_steps of them, as a
        data set's batch does.
        """
        with self.chunks.given(noise):
            if not self._past(batch):
                return self._here(self.loop.predict_action_chunks(self._steps(batch)))
            seen = self._seen(batch)
            draws = Draws.first(len(next(iter(seen.values()))), self.config.seed)
            return self._here(self.loop.source.sample_chunks(seen, draws=draws))

    # -- learning --------------------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float] | None]:
        """The run's own loss on a batch of a data set, at times and with noise drawn from torch's generator."""
        trained, recipe = self.trained, self.recipe
        if recipe.loss.partition(":")[0] != "denoise":
            raise InputError(
                f"A student (loss {recipe.loss!r}) learns from its teacher: train it with `ebbtide distill`."
            )
        assert trained.observation is not None
        device = next(self.denoiser.parameters()).device
        seen = {name: part.to(device) for name, part in trained.observation.see(self._seen(batch)).items()}
        x0 = batch[ACTION].to(device)
        x0 = x0 if trained.codec is None else trained.codec.encode(x0)
        draw = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        times = bind(TIMES, recipe.times, "times")(uniform_draws(len(x0), draw), self.denoiser.path)
        if recipe.masked and "action_is_pad" in batch:
            seen["mask"] = ~batch["action_is_pad"].to(device)[..., None]
        loss = self.denoiser.loss(
            x0,
            torch.randn(x0.shape, generator=draw).to(x0),
            times.clamp(2**-24, 1 - 2**-24).to(device),
            weight=bind(WEIGHTS, recipe.weight, "weight"),
            **seen,
        )
        return loss.mean(), None

    # -- batches ---------------------------------------------------------------------------------------------------

    def _here(self, actions: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(actions).to(next(self.denoiser.parameters()).device)

    def _past(self, batch: Mapping[str, Any]) -> bool:
        """True if the batch holds several steps of each part, and not what is seen now alone."""
        if OBS_STATE in batch:
            return batch[OBS_STATE].ndim == 3
        return any(batch[key].ndim == 5 for key in self.config.cameras if key in batch)

    def _seen(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What a batch shows, in the robot's units, as ebbtide's network takes it; without a past it is repeated."""
        past, o = self._past(batch), self.config.n_obs_steps
        assert self.trained.observation is not None
        wanted = self.trained.observation.shapes
        seen: dict[str, Tensor] = {}
        if "state" in wanted:
            state = self._part(batch, OBS_STATE)
            state = state if past else state[:, None].expand(-1, o, -1)
            if self.config.state_names:
                state, _ = columns(state, self.config.state_names, self.recipe.state, self.recipe.angles)
            seen["state"] = state.float()
        if "images" in wanted:
            frames = torch.stack([self._part(batch, key) for key in self.config.cameras], -4)  # (b, [o,] k, c, h, w)
            frames = _bytes(frames if past else frames[:, None].expand(-1, o, *frames.shape[1:]))
            shape = frames.shape[:3]
            frames = resized(frames.flatten(0, 2), self.recipe.size)
            seen["images"] = frames.unflatten(0, shape).flatten(1, 2)
        if "prompt" in wanted:
            tasks = batch.get("task", "")
            rows = len(next(iter(seen.values()))) if seen else 1
            seen["prompt"] = prompt_bytes([tasks] * rows if isinstance(tasks, str) else tasks, self.recipe.prompt)
        return seen

    def _part(self, batch: Mapping[str, Any], key: str) -> Tensor:
        if key not in batch:
            raise InputError(f"The policy needs {key} in a batch; got {', '.join(map(str, batch))}.")
        return batch[key].detach().cpu()

    def _steps(self, batch: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
        """What each robot sees now, as ebbtide's control loop takes it."""
        if self._past(batch):
            raise InputError("select_action remembers what it has seen: give it one step at a time.")
        seen, o = self._seen(batch), self.config.n_obs_steps
        now = {name: part if name == "prompt" else part[:, -(part.shape[1] // o) :] for name, part in seen.items()}
        if "state" in now:
            now["state"] = now["state"][:, 0]
        return [dict(zip(now, map(np.asarray, row), strict=True)) for row in zip(*now.values(), strict=True)]


class _Given:
    """The noise that a caller gave to its chunks, for as long as the call lasts."""

    def __init__(self, chunks: "_Chunks", noise: Tensor | None) -> None:
        self.chunks, self.noise = chunks, noise

    def __enter__(self) -> None:
        self.chunks.noise = self.noise

    def __exit__(self, *_: object) -> None:
        self.chunks.noise = None


@dataclass(eq=False)
class _Chunks:
    """Chunks of a run, that begin with given noise where there is any."""

    source: DenoiserChunks
    noise: Tensor | None = None

    def given(self, noise: Tensor | None) -> _Given:
        return _Given(self, noise)

    def sample_chunks(self, observation: dict[str, Tensor], **how: Any) -> Tensor:
        return self.source.sample_chunks(observation, noise=self.noise, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


def _bytes(frames: Tensor) -> Tensor:
    """LeRobot's images, (…, 3, h, w) of 0 to 1, as ebbtide's, (…, h, w, 3) of 0 to 255."""
    whole = frames if frames.dtype == torch.uint8 else (255 * frames).round().clamp(0, 255).to(torch.uint8)
    return whole.movedim(-3, -1)


def _held(trained: Trained) -> dict[str, Any]:
    """What the JSON files of an exported run hold, by their names."""
    files = trained.export("").items()
    return {name: json.loads(part) for name, part in files if name.endswith(".json") and isinstance(part, bytes)}


def _untrained(run: dict[str, Any]) -> Trained:
    """The run that a config.json describes, with initial weights, which are to be loaded."""
    seen = None if run["observation"] is None else Observation.from_config(run["observation"])
    denoiser = build_denoiser(recipe_from_config(run["recipe"]), tuple(run["shape"]), 0, seen)
    weights = {name: part.contiguous() for name, part in denoiser.state_dict().items()}
    files = {"config.json": json.dumps(run).encode(), "model.safetensors": save(weights)}
    return Trained.from_files(files, "the policy's run")


def _new(config: EbbtideConfig, stats: Mapping[str, Mapping[str, Any]] | None) -> Trained:
    """An untrained policy of the configuration's recipe, for a data set with these statistics."""
    if not stats or ACTION not in stats:
        raise InputError("A new policy's actions are scaled by a data set's statistics: give dataset_stats.")
    recipe = RECIPES[pick(RECIPES, config.recipe, "recipe")]()
    if not isinstance(recipe, RobotRecipe):
        raise InputError(f"recipe must be one for robots, such as flow-policy; got {config.recipe!r}.")
    config.cameras = config.cameras or list(config.image_features)
    asked = {name: getattr(config, name) for name in ("network", "objective", "normalise") if getattr(config, name)}
    sizes = {name: getattr(config, name) for name in ("horizon", "n_obs_steps", "n_action_steps")}
    recipe = recipe.having(
        asked | sizes | {"data": "", "cameras": ",".join(config.cameras), "simulator": "", "state": "all", "angles": ""}
    )
    shapes: dict[str, tuple[int, ...]] = {}
    state: Codec = Standardise()
    if config.robot_state_feature is not None:
        state = _codec(recipe, stats[OBS_STATE])
        shapes["state"] = (config.n_obs_steps, *config.robot_state_feature.shape)
    if config.cameras:
        channels, height, width = config.image_features[config.cameras[0]].shape
        size = recipe.size or height, recipe.size or width
        shapes["images"] = (config.n_obs_steps * len(config.cameras), *size, channels)
    if recipe.prompt:
        shapes["prompt"] = (recipe.prompt,)
    width = config.action_feature.shape[0]
    seen = Observation(shapes, state, numbered("state", shapes["state"][1]) if "state" in shapes else ())
    shape = (recipe.horizon, width)
    return Trained(
        build_denoiser(recipe, shape, 0, seen), recipe, shape, _codec(recipe, stats[ACTION]),
        columns=numbered("action", width), observation=seen,
    )  # fmt: skip


def _codec(recipe: RobotRecipe, stats: Mapping[str, Any]) -> Codec:
    """The recipe's scaling of columns, from LeRobot's statistics of them."""
    known = {name: torch.as_tensor(np.asarray(part)).double().flatten() for name, part in stats.items()}
    low, high = known["min"], known["max"]
    if recipe.normalise == "mean_std":
        moving = known["std"].clamp(min=recipe.least).where(low < high, 0.0)
        return Standardise(tuple(known["mean"].tolist()), tuple(moving.tolist()))
    if recipe.normalise == "quantiles":
        low, high = known["q01"], known["q99"]
    return Quantiles.between(low.numpy(), high.numpy(), (known["min"] == known["max"]).numpy(), recipe.least)
