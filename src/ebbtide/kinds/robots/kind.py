"""Robots: chunks of actions, given what is seen; measured against recorded actions and by trying them out."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.randomness import generator
from ...data import IDENTITY, Episodes, Observation, Quantiles, Standardise, Transform, Windows, within_float32
from ...data.episodes import Robot, columns, load, prompt_bytes, resized
from ...data.levels import Levels
from ...errors import InputError
from ...files import state_of, write_file
from ...memory import room
from ...recipes import RobotRecipe
from ...robots.policy import DenoiserChunks, Policy
from ...robots.rollout import Episode, latency, rollout
from ...robots.simulators import SIMULATORS, Simulator, make
from ...specs import parse, pick
from .. import Prepared

if TYPE_CHECKING:
    from ...metrics import Measurement
    from ...training.trained import Trained

UNIT, UNITS = "chunk", "steps"
N, N_EVALUATE = 64, 512  # chunks that `ebbtide sample` draws, steps that `evaluate` looks at, none ever trained on
DRAWS = 8  # chunks for each step that `evaluate` looks at
FILE, EXTENSIONS = "chunks.npz", (".npz",)
EACH, MORE = 100_000, 27  # bytes a chunk may take, with small pictures, and how many times that to measure it
SNAPSHOT: dict[str, Any] = {"n": 32, "steps": 10}
FITS: dict[str, Callable[..., Transform]] = {
    "mean_std": Standardise.fit,
    "quantiles": Quantiles.fit,
    "min_max": partial(Quantiles.fit, low=0.0, high=1.0),
}


def fits(recipe: RobotRecipe) -> None:
    """Refuse what can't be before a recording is read."""
    if not recipe.data:
        raise InputError("data is missing: a .npz of episodes, a folder in LeRobot's format, or its name on the hub.")
    if recipe.conditional or recipe.label:
        raise InputError("A policy has no labels; what it is told are states, pictures and a prompt.")
    if recipe.simulator:
        pick(SIMULATORS, recipe.simulator, "simulator")
    pi05 = recipe.network.startswith("pi05") or parse(recipe.network)[1].get("variant") == "pi05"
    if pi05 and recipe.normalise == "mean_std":
        raise InputError("π0.5 takes a state in [-1, 1]: normalise by quantiles or min_max, not by mean_std.")


def prepare(recipe: RobotRecipe) -> Prepared:
    """Every step of a recipe's episodes, but those held out, as an example in the network's units."""
    train, _ = parts(recipe)
    ranges = {part.partition("=")[0] for part in _names(recipe.value_range)}
    if idle := sorted(ranges - train.levels.keys()):
        raise InputError(
            f"value_range is for pictures of more than 8 bits, and those of camera {idle[0]!r} in {recipe.data} have 8."
        )
    fit = partial(FITS[recipe.normalise], least=recipe.least)
    action = fit(train.action)
    known = train.columns(recipe.state, recipe.angles)
    state = fit(known.state) if known.state_names else IDENTITY
    within_float32(action, f"{recipe.data}, action", train.action_names)
    within_float32(state, f"{recipe.data}, state", known.state_names)
    windows = windowed(recipe, train, action, state)
    told = windows.seen(torch.zeros(1, dtype=torch.int64))
    shapes = {name: tuple(part.shape[1:]) for name, part in told.items()}
    observation = Observation(shapes, state, known.state_names, train.fps)
    shape = (recipe.horizon, train.action.shape[1])
    settled = {"value_range": ",".join(f"{name}={levels}" for name, levels in train.levels.items())}
    return Prepared(
        windows, shape, action, train.action_names, observation=observation, settled=settled if train.levels else {}
    )


def windowed(recipe: RobotRecipe, episodes: Episodes, action: Transform, state: Transform) -> Windows:
    """Episodes as windows, normalised by these."""
    cameras = [episodes.images[name] for name in _names(recipe.cameras)]
    known = episodes.columns(recipe.state, recipe.angles)
    if recipe.prompt and not episodes.tasks:
        raise InputError(f"{recipe.data} names no tasks, which a prompt needs.")
    if not cameras and not recipe.prompt and not known.state_names:
        lacking = "" if episodes.state_names else f" {recipe.data} has no state; name its cameras."
        raise InputError(f"A policy must see something: a state, cameras or a prompt.{lacking}")
    if len({tuple(frames.shape[1:]) for frames in cameras}) > 1:
        raise InputError("The cameras' pictures differ in size: say one with size.")
    return Windows(
        action.apply(episodes.action),
        episodes.ends,
        recipe.horizon,
        recipe.n_obs_steps,
        state.apply(known.state) if known.state_names else None,
        (torch.stack(cameras, 1) if len(cameras) > 1 else cameras[0][:, None]) if cameras else None,
        prompt_bytes(episodes.tasks, recipe.prompt) if recipe.prompt else None,
        recipe.masked,
    )


def parts(recipe: RobotRecipe) -> tuple[Episodes, Episodes]:
    """The episodes to train on, and those held out: at least one, chosen without asking the seed."""
    return _parts(
        recipe.data, _names(recipe.cameras), recipe.size, recipe.value_range, recipe.action, recipe.held_out,
        state_of(recipe.data),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _parts(
    data: str, cameras: tuple[str, ...], size: int, value_range: str, action: str, held_out: float, state: object
) -> tuple[Episodes, Episodes]:
    ranges = dict(part.partition("=")[::2] for part in _names(value_range))
    if unknown := [name for name in ranges if name not in cameras]:
        raise InputError(f"value_range must be CAMERA=LOW:HIGH of the recipe's cameras; got {unknown[0]!r}.")
    episodes = load(data, cameras, size, {name: Levels.parse(text) for name, text in ranges.items()}).actions(action)
    if not episodes.action_names:
        raise InputError(f"A policy needs at least one action; got action={action!r}.")
    if len(episodes) < 2:
        raise InputError(f"{data} must have at least 2 episodes, one of them to hold out; got {len(episodes)}.")
    order = torch.randperm(len(episodes), generator=generator("held out", len(episodes))).tolist()
    held = min(max(1, round(held_out * len(order))), len(order) - 1)
    return episodes.cut(sorted(order[held:])), episodes.cut(sorted(order[:held]))


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def places(recipe: RobotRecipe, n: int, seed: int, first: int = 0) -> Int[Tensor, " n"]:
    """Steps first … of the held-out episodes in random order, over again where there are not so many."""
    _, held = parts(recipe)
    order = torch.randperm(len(held.action), generator=generator("real", seed))
    return order[torch.arange(first, first + n) % len(order)]


def same_recording(trained: "Trained") -> None:
    """InputError where the recording that a policy is held against isn't of the robot that it was trained on."""
    recipe = reading(trained)
    held = parts(recipe)[1].columns(recipe.state, recipe.angles)
    robot_of(trained).check(held.robot, recipe.data)


def recorded(recipe: RobotRecipe, n: int, seed: int, first: int) -> dict[str, Tensor]:
    """What was seen at n steps that were never trained on, in the robot's units."""
    windows = _raw(recipe, parts(recipe)[1])
    each = sum(part.nbytes for part in windows.seen(torch.zeros(1, dtype=torch.int64)).values())
    room(2 * n * each, f"n {n}")
    return windows.seen(places(recipe, n, seed, first))


def held_episode(recipe: RobotRecipe) -> tuple[Episodes, dict[str, Tensor]]:
    """The first episode never trained on, and what was seen at each of its steps, in the robot's units."""
    episode = parts(recipe)[1].cut([0])
    return episode, _raw(recipe, episode).seen(torch.arange(len(episode.action)))


def _raw(recipe: RobotRecipe, episodes: Episodes) -> Windows:
    """Windows in the robot's units."""
    return windowed(recipe, episodes, IDENTITY, IDENTITY)


def start(recipe: RobotRecipe, n: int, seed: int, first: int) -> Tensor | None:
    """Sampling starts from noise."""
    return None


def all_classes(trained: "Trained", n: int) -> None:
    """A policy has no classes."""


def snapshot_files(x: Float[Tensor, " n h a"], path: Path) -> dict[Path, bytes]:
    """Chunks in the robot's units as .npy."""
    file = io.BytesIO()
    np.save(file, x.numpy())
    return {path: file.getvalue()}


def finish(folder: Path) -> Iterator[Path]:
    """What is drawn when training has ended: nothing."""
    yield from ()


def describe(recipe: RobotRecipe) -> str:
    """One line on the data a recipe names."""
    return f"a robot's actions, learned from {recipe.shared().data}"


def real(recipe: RobotRecipe, n: int, seed: int) -> tuple[Tensor, None]:
    """n chunks that were carried out in episodes never trained on."""
    return _raw(recipe, parts(recipe)[1]).take(places(recipe, n, seed))["x0"], None


def evaluate(
    recipe: RobotRecipe,
    samples: Float[Tensor, " n *k h a"],
    labels: None = None,
    seed: int = 0,
    floors: dict[Any, Any] | None = None,
    only: Sequence[str] | None = None,
) -> list["Measurement"]:
    """Mean absolute error against what was done at the same steps; of k chunks for each step, that of the best as well.

    A policy that draws one of several good ways has a larger error than one that draws their mean, which may be none:
    it is a sign of life, not a score. One of its draws should be near what was done.
    """
    from ...metrics import best_of, mean_absolute_error

    _, held = parts(recipe)
    steps = places(recipe, len(samples), seed)
    truth, episode = _raw(recipe, held).take(steps), torch.searchsorted(held.ends, steps, right=True)
    measured = (truth["x0"], truth.get("mask"), episode)
    draws = samples[:, None] if samples.ndim == 3 else samples
    each: Any = [None if part is None else part.repeat_interleave(draws.shape[1], 0) for part in measured]
    rows = [mean_absolute_error(draws.flatten(0, 1), *each)]
    if draws.shape[1] > 1:
        rows.append(best_of(draws, *measured))
    return [row for row in rows if only is None or row.name in only]


def write(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> None:
    """Chunks as an .npz: `chunks` (n, h, a), in the robot's units, and the actions' names."""
    file = io.BytesIO()
    np.savez_compressed(file, chunks=x.numpy(), action_names=np.array(trained.columns))
    write_file(path, file.getvalue())


def draw_samples(trained: "Trained", x: Tensor, labels: Tensor | None, path: Path) -> Path:
    """Many chunks for one step that was never trained on, beside what was done there."""
    from . import pages as robot_run

    return robot_run.draw_fan(trained, path)


def draw_evaluation(trained: "Trained", x: Tensor, folder: Path) -> Iterator[Path]:
    """Predicted chunks over what was done."""
    from . import pages as robot_run

    yield robot_run.draw_trajectories(trained, folder / "trajectories.png")


def draw_run(trained: "Trained", folder: Path, out: Path) -> Iterator[Path]:
    """All that a run folder can show."""
    from . import pages as robot_run

    return robot_run.draw_run(trained, folder, out)


def reading(trained: "Trained") -> RobotRecipe:
    """A policy's recipe, to read its recording by."""
    recipe_of(trained)
    return cast(RobotRecipe, trained.reading())


def recipe_of(trained: "Trained") -> RobotRecipe:
    """A policy's recipe; an InputError for a run of another kind."""
    if not isinstance(trained.recipe, RobotRecipe) or trained.observation is None:
        raise InputError("Only a run that was trained on episodes is a policy.")
    return trained.recipe


def robot_of(trained: "Trained") -> Robot:
    """The robot that a policy was trained on."""
    seen = trained.observation
    return Robot(seen.names, trained.columns, seen.fps) if seen else Robot()


def policy(
    trained: "Trained",
    *,
    seed: int = 0,
    sampler: str = "",
    grid: str = "",
    steps: int | str | None = None,
    bound: float | None = None,
    n_action_steps: int | None = None,
    delay: int = 0,
    real_time: bool = False,
    ensemble: float | None = None,
) -> Policy:
    """A trained policy, ready for the control loop; what is left out is the recipe's. The rest as in `Policy`."""
    recipe, seen = recipe_of(trained), trained.observation
    assert seen is not None
    chosen = trained.choice(sampler or None, grid or None, steps or None, bound=bound, progress=True)
    chunks = DenoiserChunks(
        trained.denoiser,
        trained.shape,
        seen.shapes,
        recipe.n_obs_steps,
        recipe.n_action_steps,
        trained.transform,
        {"state": seen.transform},
        chosen.sampler,
        chosen.steps,
        chosen.grid,
        recipe.bound if bound is None else bound,
        robot_of(trained),
    )
    return Policy(chunks, seed=seed, n_action_steps=n_action_steps, delay=delay, real_time=real_time, ensemble=ensemble)


@dataclass(frozen=True)
class Place:
    """Makes a simulator that shows a policy what its recipe lets it see, and nothing else; blind: black pictures."""

    name: str
    state: str = "all"
    angles: str = ""
    pixels: bool = False
    size: int = 0
    blind: bool = False
    robot: Robot = field(default_factory=Robot)

    @classmethod
    def of(cls, trained: "Trained", simulator: str = "", blind: bool = False) -> "Place":
        """Where a policy is tried out: where its recipe says, unless told."""
        recipe = recipe_of(trained)
        if not (name := simulator or recipe.simulator):
            raise InputError(f"This policy's recipe names no simulator; choose one of {', '.join(SIMULATORS)}.")
        name = pick(SIMULATORS, name, "simulator")
        return cls(name, recipe.state, recipe.angles, bool(recipe.cameras), recipe.size, blind, robot_of(trained))

    def __call__(self) -> "_Shown":
        return _Shown(make(self.name, pixels=self.pixels), self)


class _Shown:
    """A simulator behind a Place."""

    def __init__(self, simulator: Simulator, place: Place) -> None:
        self.simulator, self.place, self.max_steps, self.task = simulator, place, simulator.max_steps, simulator.task
        own = simulator.state_names
        _, self.state_names = columns(torch.zeros(len(own)), own, place.state, place.angles)
        place.robot.check(Robot(self.state_names, simulator.action_names, simulator.fps), simulator.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.simulator, name)

    def reset(self, seed: int) -> dict[str, Any]:
        return self._seen(self.simulator.reset(seed))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool]:
        observation, reward, done = self.simulator.step(action)
        return self._seen(observation), reward, done

    def _seen(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        state = torch.from_numpy(observation["state"])
        told, _ = columns(state, self.simulator.state_names, self.place.state, self.place.angles)
        seen = {"state": told.numpy()}
        if self.place.pixels:
            images = observation["images"] * (not self.place.blind)
            seen["images"] = resized(torch.from_numpy(images), self.place.size).numpy()
        return seen


def flat(simulator: str) -> bool:
    """Whether a simulator's actions are places in its picture, in pixels."""
    return simulator == "pusht"


def episodes(
    trained: "Trained", seeds: Sequence[int], *, simulator: str = "", blind: bool = False, workers: int = 1, **how: Any
) -> list[Episode]:
    """A policy tried out, once for each seed. how: as in `policy`."""
    return rollout(Place.of(trained, simulator, blind), policy(trained, **how), seeds, workers=workers)


def outcome(tried: Sequence[Episode]) -> list["Measurement"]:
    """Success rate, score and length of episodes, and how many ended in an error."""
    from ...metrics.success import mean_length, mean_score, success_rate

    lengths = [one.length for one in tried]
    errors = [one.error for one in tried if one.error]
    said = f"; {len(errors)} ended by an error, such as {errors[0]}" if errors else ""
    rate = success_rate([one.success for one in tried])
    return [replace(rate, note=rate.note + said), mean_score([one.score for one in tried]), mean_length(lengths)]


def chunk_time(trained: "Trained", *, simulator: str = "", repeats: int = 50, **how: Any) -> "Measurement":
    """How long a chunk for one robot takes: the median, from the quickest 5 % to the slowest 5 %."""
    from ...metrics import Measurement

    shown = Place.of(trained, simulator)()
    try:
        took = latency(policy(trained, **how), {"prompt": shown.task} | shown.reset(0), repeats)
    finally:
        shown.close()
    low, median, high = np.quantile(took, [0.05, 0.5, 0.95]).tolist()
    note = f"the median of {repeats} chunks for one robot, with 5 % and 95 %"
    return Measurement("milliseconds a chunk", median, low, high, math.nan, math.nan, math.nan, "lower", note)
