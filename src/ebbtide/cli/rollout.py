"""ebbtide rollout RUN: a policy in its simulator, as a film."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError
from ..specs import typed
from .arguments import MOST, Computing, Flag, Weights, hint, number_or_auto, opened, parse, tell, within
from .policy import Driving

if TYPE_CHECKING:
    import numpy as np

    from ..robots.rollout import Episode

__all__ = ["Rollout", "run"]


@dataclass(frozen=True)
class Rollout:
    """Run a policy in a simulator and film it; the film shows the current chunk where actions are positions."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    built: tyro.conf.OmitArgPrefixes[Weights] = field(default_factory=Weights)
    driving: tyro.conf.OmitArgPrefixes[Driving] = field(default_factory=Driving)
    video: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("RUN/rollout.gif")] = ""
    """The film: .mp4 or .gif."""
    episodes: int = 1
    """Number of episodes to film, one after the other."""
    seed: int = 0
    """Seed of the first episode's simulator and the policy's noise; later episodes count up."""
    sampler: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbtide list samplers`, or your own as module:function."""
    steps: Annotated[str, hint("the recipe's")] = ""
    """Number of sampling steps; auto:N uses the run's own solver of N evaluations, fitted if necessary."""
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)
    every: int = 1
    """Film every n-th step."""
    overwrite: Flag = False
    """Replace the film if it exists; in a run's folder it always is."""

    def __post_init__(self) -> None:
        within(self, episodes=(1, MOST), seed=(0, MOST), every=(1, MOST))
        number_or_auto(self.steps)


def run(argv: Sequence[str]) -> None:
    """Parse, drive, film."""
    args = parse(Rollout, argv, "rollout")
    home = Path(args.run)
    ours = not args.video and (home / "checkpoints").is_dir()
    path = Path(args.video) if args.video else (home if ours else Path()) / "rollout.gif"
    if path.is_dir():
        raise InputError(f"{path} is a folder; --video must be a file.")
    if path.exists() and not (args.overwrite or ours):
        raise InputError(f"{path} exists; pass --overwrite to replace it.")
    from ..kinds.robots import driving
    from ..kinds.robots.data import policy_recipe
    from ..plots.video import write_video
    from ..robots.rollout import rollout
    from ..samplers import SAMPLERS

    trained = opened(args.run, **vars(args.built))
    place = driving.Place.of(trained, args.driving.place)
    how = args.driving.how(policy_recipe(trained))
    sampler = typed(SAMPLERS, args.sampler)
    policy = driving.policy(trained, seed=args.seed, sampler=sampler, steps=number_or_auto(args.steps), **how)
    args.computing.place(trained)
    seeds = range(args.seed, args.seed + args.episodes)
    with closing(place()) as simulator:
        fps, flat = simulator.fps, getattr(simulator, "in_image", False)

    def film() -> "Iterator[np.ndarray]":
        """Play episode by episode, each when its frames are needed: not before the film can be written."""
        beside = min(args.driving.environments, len(seeds))
        for first in range(0, len(seeds), max(1, beside)):
            part = seeds[first : first + max(1, beside)]
            for one in rollout(place, policy, part, lockstep=1, environments=beside, rows=1, record=part, frames=True):
                ending = one.error or ("success" if one.success else "no success")
                tell(f"seed {one.seed}: score {one.score:.3f} after {one.length} steps, {ending}")
                yield from _frames(one, args.every, policy.delay, flat)

    tell("film:", write_video(path, film(), fps=fps / args.every))


def _frames(one: "Episode", every: int, delay: int, flat: bool) -> "Iterator[np.ndarray]":
    """An episode's frames with its steps; where actions are positions in the image, with the rest of the chunk."""
    from ..plots.video import overlay

    recording = one.recording
    if recording is None or recording.frames is None:
        return
    itself: Any = lambda places: places
    for step in range(0, len(recording.frames), every):
        left = _left(recording.chunks, step, delay) if flat else None
        text = "success" if one.success and step >= one.length - every else ""
        yield overlay(recording.frames[step], left, itself, step=step, text=text)


def _left(chunks: "Sequence[tuple[int, np.ndarray]]", step: int, delay: int) -> "np.ndarray | None":
    """The rest of the chunk being executed at a step; each but the first starts `delay` after its request."""
    for start, chunk in reversed(chunks):
        if start + delay * (start > 0) <= step:
            return chunk[step - start :] if step - start < len(chunk) else None
    return None
