"""ebbflow rollout RUN: a policy in its simulator, as a film."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import InputError
from .arguments import MOST, Flag, hint, parse, threads, within

if TYPE_CHECKING:
    import numpy as np

    from ..robots.rollout import Episode


@dataclass(frozen=True)
class Rollout:
    """Drive a simulator with a policy and film it, with the chunk that it follows drawn in where it can be."""

    run: tyro.conf.Positional[str]
    """Folder of the run, or user/name on the hub."""
    video: Annotated[str, tyro.conf.arg(aliases=["-o"]), hint("RUN/rollout.gif")] = ""
    """The film: .mp4 or .gif."""
    episodes: int = 1
    """How many episodes to film, one after the other."""
    seed: int = 0
    """Seed of the first episode's simulator and of the policy's noise; the next has the next."""
    simulator: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbflow list simulators`."""
    sampler: Annotated[str, hint("the recipe's")] = ""
    """A row of `ebbflow list samplers`."""
    steps: Annotated[int, hint("the recipe's")] = 0
    """Number of sampling steps."""
    action_steps: Annotated[int, hint("the recipe's")] = 0
    """Actions of a chunk that are carried out before the next."""
    delay: int = 0
    """Steps that pass while a chunk is computed: the next is asked for that much sooner."""
    real_time: Flag = False
    """Let every chunk continue the one being carried out (real-time chunking)."""
    ensemble: Annotated[float, hint("off")] = -1.0
    """Ask for a chunk at every step and average all that speak of now, by exp(-this × age) (ACT's is 0.01)."""
    every: int = 1
    """Film every such step."""
    overwrite: Flag = False
    """Replace the film if it exists."""

    def __post_init__(self) -> None:
        within(self, episodes=(1, MOST), seed=(0, MOST), steps=(0, 10**6), action_steps=(0, MOST), delay=(0, MOST))
        within(self, every=(1, MOST))


def run(argv: Sequence[str]) -> None:
    """Parse, drive, film."""
    args = parse(Rollout, argv, "rollout")
    home = Path(args.run)
    path = Path(args.video) if args.video else (home if home.is_dir() else Path()) / "rollout.gif"
    if args.video and path.exists() and not args.overwrite:
        raise InputError(f"{path} exists; pass --overwrite to replace it.")
    from ..domains import robots
    from ..plots.video import write_video
    from ..robots.rollout import rollout
    from ..trained import Trained

    trained = Trained.from_pretrained(args.run)
    place = robots.Place.of(robots.recipe_of(trained), args.simulator)
    policy = robots.policy(
        trained, seed=args.seed, sampler=args.sampler, steps=args.steps, n_action_steps=args.action_steps or None,
        delay=args.delay, real_time=args.real_time, ensemble=None if args.ensemble < 0 else args.ensemble,
    )  # fmt: skip
    threads(0, trained.denoiser)
    seeds = range(args.seed, args.seed + args.episodes)
    fps, flat = place().fps, robots.flat(robots.recipe_of(trained))

    def film() -> "Iterator[np.ndarray]":
        """Episode by episode, each played when its frames are asked for: not before the film can be written."""
        for seed in seeds:
            [one] = rollout(place, policy, [seed], lockstep=1, rows=1, record=[seed], frames=True)
            ending = one.error or ("success" if one.success else "no success")
            print(f"seed {one.seed}: score {one.score:.3f} after {one.length} steps, {ending}", file=sys.stderr)
            yield from _frames(one, args.every, flat)

    print(f"film: {write_video(path, film(), fps=fps / args.every)}", file=sys.stderr)


def _frames(one: "Episode", every: int, flat: bool) -> "Iterator[np.ndarray]":
    """An episode's frames with step and score; where actions are places in the picture, with the chunk."""
    from ..plots.video import overlay

    recording = one.recording
    if recording is None or recording.frames is None:
        return
    itself: Any = lambda places: places
    for step in range(0, len(recording.frames), every):
        chunk = next((chunk for start, chunk in reversed(recording.chunks) if start <= step), None) if flat else None
        text = "success" if one.success and step >= one.length - every else ""
        yield overlay(recording.frames[step], chunk, itself, step=step, text=text)
