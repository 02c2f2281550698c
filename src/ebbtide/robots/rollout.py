"""Episodes: a policy in many seeded simulators at once, in lockstep, in one process or several.

The simulators of a block take every step together, so that one network call serves all that need a chunk; those whose
episode is over wait for the block's end. An error in a simulator ends only its own episode, as a failure.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from tqdm import tqdm

from ..data.episodes import Robot
from ..errors import InputError
from ..progress import progress_bar
from ..specs import expect, require
from ..training.processes import in_processes
from .elsewhere import Elsewhere
from .policy import Policy
from .simulators import Simulator, check_simulator

__all__ = ["Episode", "Recording", "latency", "rollout"]


@dataclass(frozen=True, eq=False)
class Recording:
    """Observations and actions of an episode of n actions."""

    observations: dict[str, Shaped[np.ndarray, "n ..."]]
    actions: Float32[np.ndarray, "n a"]
    chunks: list[tuple[int, Float32[np.ndarray, "h a"]]]
    """The executed chunks, each with the step of its index 0."""
    frames: UInt8[np.ndarray, "n_plus_1 height width 3"] | None = None
    """Images of the simulator before every action and after the last, if requested."""


@dataclass(frozen=True)
class Episode:
    """The outcome of one episode. An error counts as a failure with score 0 and holds its message."""

    seed: int
    success: bool
    score: float
    length: int
    error: str = ""
    chunk_ms: tuple[float, ...] = field(default=(), compare=False, repr=False)
    """Duration of each network call, shared by all its simulators; see `latency` for a single one."""
    recording: Recording | None = field(default=None, compare=False, repr=False)


def rollout(
    make_simulator: Callable[[], Simulator],
    policy: Policy,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    lockstep: int = 16,
    environments: int = 0,
    rows: int = 16,
    max_steps: int | None = None,
    record: Collection[int] = (),
    frames: bool = False,
    progress: bool = True,
) -> list[Episode]:
    """One episode for each seed, in their order.

    An episode depends on its own seed and on the policy's alone, to the bit: not on workers, lockstep, environments or
    the other seeds. (Network calls are padded to `rows` for that; other rows round differently.)

    make_simulator, policy: sent to other processes, so they have to be picklable if workers > 1.
    workers: processes, each with its share of the seeds. lockstep: simulators side by side in each of them.
    environments: the number of simulators side by side instead, each in its own process, beside the policy in this
    one: for slow simulators, or a network on a GPU.
    max_steps: limit of an episode, by default the simulator's. record: seeds of the episodes to record; frames: record
    their images, too.

    A simulator that raises, an observation or action that isn't finite, or a score outside [0, 1] ends the episode as a
    failure. Raises InputError where an argument is of the wrong kind, workers, lockstep, rows or max_steps are below 1,
    a seed is below 0, the simulator lacks a part, or its observations, actions, their names or its steps a second
    aren't those of the policy.
    """
    expect("make_simulator", make_simulator, Callable)
    expect("policy", policy, Policy)
    expect("seeds", seeds, Sequence, np.ndarray)
    for seed in seeds:
        require("a seed", seed, 0, whole=True)
    expect("record", record, Collection)
    expect("frames", frames, bool)
    expect("progress", progress, bool)
    steps = 1 if max_steps is None else max_steps
    for name, value in {"workers": workers, "lockstep": lockstep, "rows": rows, "max_steps": steps}.items():
        require(name, value, 1, whole=True)
    require("environments", environments, 0, whole=True)
    make_simulator = partial(_checked, make_simulator)
    if environments:
        if workers > 1:
            raise InputError(f"environments are beside one policy, so workers must be 1 with them; got {workers}.")
        make_simulator, lockstep = partial(Elsewhere, make_simulator), environments
    own = copy(policy)
    own.rows = rows
    job = _Job(make_simulator, own, lockstep, max_steps, frozenset(record), frames)
    with progress_bar(len(seeds), "episodes", "ep", show=progress, leave=False) as bar:
        if workers == 1 or len(seeds) < 2:
            return list(job.run(seeds, bar.update))
        shares = [list(seeds[i::workers]) for i in range(min(workers, len(seeds)))]
        with _ticks(bar) as path:
            parts = in_processes(_work, [(job, share, path) for share in shares])
    found = [iter(part) for part in parts]
    return [next(found[i % len(found)]) for i in range(len(seeds))]


def latency(policy: Policy, observation: Mapping[str, Any], repeats: int = 100) -> list[float]:
    """Milliseconds for a chunk of one robot, `repeats` times, after three to warm up.

    policy: asked for a chunk each time.
    """
    alone, took = copy(policy), []
    alone.rows = None
    for _ in range(3 + repeats):
        start = time.perf_counter()
        alone.predict_action_chunk(observation)
        took.append(1000 * (time.perf_counter() - start))
    return took[3:]


def _checked(make_simulator: Callable[[], Any]) -> Any:
    """A simulator, with all that an episode asks of it before it begins."""
    made = make_simulator()
    check_simulator("The simulator's", made)
    return made


@dataclass(frozen=True)
class _Job:
    """The work of one process: its share of the seeds."""

    make_simulator: Callable[[], Simulator]
    policy: Policy
    lockstep: int
    max_steps: int | None
    record: frozenset[int]
    frames: bool

    def run(self, seeds: Sequence[int], tick: Callable[[], Any]) -> Iterator[Episode]:
        """Run block by block; simulators are reused, except after an error."""
        simulators: list[Simulator | None] = [None] * min(self.lockstep, len(seeds))
        try:
            for first in range(0, len(seeds), self.lockstep):
                block, lanes = seeds[first : first + self.lockstep], []
                for slot, seed in enumerate(block):
                    lane = _Lane(self, simulators[slot] or self.make_simulator(), slot, seed)
                    simulators[slot] = lane.simulator
                    lanes.append(lane)
                self.policy.reset(block)
                self._together(lanes, tick)
                for lane in lanes:
                    if lane.error:
                        _close(lane.simulator)
                        simulators[lane.slot] = None
                    yield lane.episode()
        finally:
            for simulator in simulators:
                if simulator is not None:
                    _close(simulator)

    def _together(self, lanes: "Sequence[_Lane]", tick: Callable[[], Any]) -> None:
        """Run all lanes step by step, until each has ended."""
        running = list(lanes)
        for lane in lanes:
            lane.begin()
        while running:
            for lane in running:
                lane.see()
            seeing = [lane for lane in running if not lane.over]
            if seeing:
                actions = list(zip(seeing, self.policy.actions([lane.slot for lane in seeing]), strict=True))
                for lane, action in actions:
                    lane.send(action)
                for lane, action in actions:
                    lane.act(action)
            for lane in running:
                if lane.over:
                    tick()
            running = [lane for lane in running if not lane.over]


class _Lane:
    """One simulator in its episode."""

    def __init__(self, job: _Job, simulator: Any, slot: int, seed: int) -> None:
        self.job, self.simulator, self.slot, self.seed = job, simulator, slot, seed
        self.limit = job.max_steps or simulator.max_steps
        self.length, self.over, self.error = 0, False, ""
        self.success, self.score = False, 0.0
        self.observation: dict[str, Any] = {}
        self.recorded: _Recorded | None = _Recorded([], [], [], []) if seed in job.record else None

    def begin(self) -> None:
        with self.failing():
            self.observation = dict(self.simulator.reset(self.seed))
        policy, width = self.job.policy, len(self.simulator.low)
        if width != policy.action_dim:
            raise InputError(f"The policy's actions are {policy.action_dim} numbers, the simulator's {width}.")
        simulator = self.simulator
        policy.drives(Robot(simulator.state_names, simulator.action_names, simulator.fps), simulator.name)
        if not self.over:
            policy.fits(self._asked())

    def see(self) -> None:
        if self.over:
            return
        with self.failing():
            self.job.policy.observe(self._asked(), self.slot)
            self._film()

    def send(self, action: np.ndarray) -> None:
        """Begin the step of a simulator elsewhere, which `act` then waits for."""
        if isinstance(self.simulator, Elsewhere) and np.isfinite(action).all():
            with self.failing():
                self.simulator.send(action)

    def act(self, action: np.ndarray) -> None:
        with self.failing():
            if not np.isfinite(action).all():
                raise ValueError(f"the policy's action is not finite: {action.tolist()}")
            if self.recorded is not None:
                self.recorded.add(self.observation, action, self.job.policy.chunk(self.slot))
            observation, _, done = self.simulator.step(action)
            self.observation = dict(observation)
            self.length += 1
            if not 0 <= self.simulator.score <= 1:
                raise ValueError(f"the score is {self.simulator.score}, not in [0, 1]")
            self.success, self.score = bool(self.simulator.success), float(self.simulator.score)
            if done or self.length >= self.limit:
                self._film()
                self.over = True

    def _film(self) -> None:
        """Record what the simulator renders now, where that is asked for."""
        if self.recorded is not None and self.job.frames:
            frame = np.array(self.simulator.render())
            _alike("image", self.recorded.frames, frame)
            self.recorded.frames.append(frame)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Context in which any Exception, or sys.exit, ends the episode; signals that stop a command pass through."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.over, self.error = True, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def episode(self) -> Episode:
        good = not self.error
        return Episode(
            self.seed,
            good and self.success,
            self.score if good else 0.0,
            self.length,
            self.error,
            tuple(self.job.policy.chunk_ms(self.slot)),
            None if self.recorded is None else self.recorded.finished(),
        )

    def _asked(self) -> Mapping[str, Any]:
        """The observation with the task's text, for policies that use a prompt."""
        return {"prompt": self.simulator.task} | self.observation


@dataclass
class _Recorded:
    """A Recording in the making."""

    observations: list[dict[str, Any]]
    actions: list[np.ndarray]
    chunks: list[tuple[int, np.ndarray]]
    frames: list[np.ndarray]

    def add(self, observation: dict[str, Any], action: np.ndarray, chunk: tuple[int, np.ndarray | None]) -> None:
        seen = {name: np.array(part) for name, part in observation.items()}
        if self.observations and seen.keys() != self.observations[0].keys():
            raise ValueError(f"the observation has {', '.join(seen)}, and had {', '.join(self.observations[0])}")
        for name, part in seen.items():
            _alike(name, [one[name] for one in self.observations[:1]], part)
        self.observations.append(seen)
        self.actions.append(action)
        start, actions = chunk
        if actions is not None and (not self.chunks or self.chunks[-1][0] != start):
            self.chunks.append((start, actions))

    def finished(self) -> Recording:
        names = self.observations[0] if self.observations else ()
        observations = {name: np.stack([seen[name] for seen in self.observations]) for name in names}
        actions = np.stack(self.actions) if self.actions else np.zeros((0, 0), np.float32)
        return Recording(observations, actions, self.chunks, np.stack(self.frames) if self.frames else None)


def _alike(what: str, before: Sequence[np.ndarray], now: np.ndarray) -> None:
    """ValueError for a part of another shape than before, since they can't be joined."""
    if before and now.shape != before[0].shape:
        raise ValueError(f"the {what} is of shape {now.shape}, and was of shape {before[0].shape}")


def _close(simulator: Any) -> None:
    with suppress(Exception, SystemExit):
        simulator.close()


def _work(job: _Job, seeds: Sequence[int], path: str) -> list[Episode]:
    """A worker's share. It reports progress by the length of a file, which needs no further process."""
    torch.set_num_threads(1)
    with open(path, "ab", buffering=0) as file:
        return list(job.run(seeds, lambda: file.write(b".")))


@contextmanager
def _ticks(bar: tqdm) -> Iterator[str]:
    """A file whose length drives the progress bar."""
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "episodes")
        open(path, "wb").close()

        def follow() -> None:
            while not over.wait(0.2):
                bar.update(os.path.getsize(path) - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            over.set()
            thread.join()
            bar.update(os.path.getsize(path) - bar.n)
