"""A policy in the control loop: it predicts a chunk of actions, executes a few of them, and predicts the next chunk.

One `Policy` drives any number of robots or simulators in lockstep, with one network call for all that need a chunk.
Every random number belongs to (seed, episode, chunk), so an episode doesn't depend on which others run beside it.
"""

import operator
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float32

from ..core.randomness import Draws, key
from ..data.episodes import Robot
from ..errors import DivergedError, InputError
from ..inverse.chunking import Previous, soft_mask
from ..specs import require
from .chunks import ChunkSampler
from .observing import Seen, Step, batched, checked_step, finite_step, shapes_of_step

__all__ = ["Policy"]


class Policy:
    """Receding horizon: of every chunk of `horizon` actions, execute n_action_steps, then predict the next.

        policy.reset()                                  before every episode
        action = policy.select_action(observation)      once for every step of the robot

    An observation is that of one step, in the robot's units. Its parts, if the network uses them: state (s,), images
    (k, h, w, 3), image_mask (k,), optional, False for a missing camera, and prompt, a text. Several robots at once take
    `reset(episodes)`, then `observe(observation, slot)` of each and `actions(slots)`.

    Every episode has its own noise: `reset()` numbers the episodes 0, 1, 2, …, and `reset([k])` repeats the k-th with
    the same noise. It is a function of the policy's seed, the episode's number and the chunk's alone.

    A chunk starts with index 0, the step of the latest observation, as in π0. (Diffusion Policy's start with the
    oldest of o observations, so that o - 1 is now: shift such data.) Before an episode has n_obs_steps observations
    the first is repeated.

    seed: of the noise. n_action_steps: the sampler's own unless given.
    delay: d > 0 computes chunks in a separate thread. A chunk requested at step k starts to be executed at step
        k + d, from its index d on, and until then the old one continues. The change is always at k + d, so the actions
        don't depend on the computer's speed. If the chunk isn't ready by then, the policy waits for it and counts that
        in `late`. It always waits for the first chunk of an episode.
    real_time: request chunks that continue the old one (see chunking.py), with d as its delay.
    ensemble: m ≥ 0 requests a chunk at every step and executes Σ w_i a_i / Σ w_i over all chunks that cover this step,
        w_i = exp(-m i), i = 0 the oldest (ACT: Zhao et al. 2023, arXiv:2304.13705, Algorithm 2, whose m is 0.01).
    rows: rows of every network call, padded or split as needed; by default, as many as are requested. Matrix products
        of different sizes round differently in the last bit, which a contact then amplifies; with a fixed number of
        rows an episode is bit-identical beside any others.

    Raises InputError for steps that don't fit the horizon, a delay above n_action_steps, ensemble with any of them, and
    anything but numbers.
    """

    def __init__(
        self,
        source: ChunkSampler,
        *,
        seed: int = 0,
        n_action_steps: int | None = None,
        delay: int = 0,
        real_time: bool = False,
        ensemble: float | None = None,
        rows: int | None = None,
    ) -> None:
        if not isinstance(source, ChunkSampler):
            raise InputError(f"source must be a ChunkSampler, such as DenoiserChunks; got {type(source).__name__}.")
        self.source, self.seed, self.delay, self.real_time = source, seed, delay, real_time
        self.n_obs_steps, self.horizon, self.action_dim = source.n_obs_steps, source.shape[0], source.shape[1]
        self.n_action_steps = source.n_action_steps if n_action_steps is None else n_action_steps
        self.ensemble, self.rows, self.late = ensemble, rows, 0
        self._shapes = shapes_of_step(source.observation, self.n_obs_steps)
        self._slots: list[_Slot] = []
        self._number = 0  # of the next episode
        self._thread: ThreadPoolExecutor | None = None
        require("seed", seed, whole=True)
        require("n_action_steps", self.n_action_steps, 1, whole=True)
        require("delay", delay, 0, self.n_action_steps, whole=True)
        require("n_action_steps + delay", self.n_action_steps + delay, 1, self.horizon, whole=True)
        if rows is not None:
            require("rows", rows, 1, whole=True)
        if ensemble is not None:
            require("ensemble", ensemble, 0)
            if self.n_action_steps != 1 or delay:
                raise InputError(
                    "Temporal ensembling needs n_action_steps=1 and delay=0; "
                    f"got n_action_steps={self.n_action_steps} and delay={delay}."
                )
        if ensemble is not None and real_time:
            raise InputError("Temporal ensembling and real_time exclude each other: choose one.")

    # -- one robot -------------------------------------------------------------------------------------------------

    def reset(self, episodes: Iterable[SupportsIndex] | None = None) -> None:
        """Begin the next episode, with fresh noise; or those given, one in each slot, with the noise of their numbers.

        The next episode's number is one above the highest begun so far, the first's is 0; see `episodes`.
        """
        numbers = [self._number] if episodes is None else _list("episodes", episodes)
        self._number = max([self._number, *(number + 1 for number in numbers)])
        self._slots = [_Slot(number, deque(maxlen=self.n_obs_steps)) for number in numbers]

    @property
    def episodes(self) -> tuple[int, ...]:
        """The number of the episode in each slot; `reset` accepts them to repeat the episodes."""
        return tuple(slot.episode for slot in self._slots)

    def select_action(self, observation: Seen) -> Float32[np.ndarray, " a"]:
        """The action for this step. Raises InputError for a bad observation, DivergedError for a bad action."""
        self.observe(observation)
        action: np.ndarray = self.actions([0])[0]
        if not np.isfinite(action).all():
            raise DivergedError(f"The policy's action is not finite: {action.tolist()}.")
        return action

    def predict_action_chunk(self, observation: Seen, n: int = 1) -> Float32[np.ndarray, "n h a"]:
        """n chunks for this step, independent of each other; nothing is executed or remembered.

        The first is the chunk that `select_action` would predict here, without real_time. So the same step of an
        episode has the same chunks, however often you call this.
        """
        n = _whole("n", n)
        require("n", n, 1, whole=True)
        slot = self._slots[0] if self._slots else _Slot(self._number, deque(maxlen=self.n_obs_steps))
        history = self._up_to(slot, observation)
        ids = [_chunk_id(slot.episode, slot.count, *([j] if j else [])) for j in range(n)]
        return self._call([history] * n, ids, None)

    def predict_action_chunks(self, observations: Sequence[Seen]) -> Float32[np.ndarray, "b h a"]:
        """A chunk for this step in each slot, or, before `reset`, of the next episodes; nothing is remembered."""
        slots = self._slots or [_Slot(self._number + i, deque()) for i in range(len(observations))]
        if len(observations) != len(slots):
            raise InputError(f"There must be an observation for each of {len(slots)} slots; got {len(observations)}.")
        histories = [self._up_to(slot, seen) for slot, seen in zip(slots, observations, strict=True)]
        return self._call(histories, [_chunk_id(slot.episode, slot.count) for slot in slots], None)

    # -- several ---------------------------------------------------------------------------------------------------

    def observe(self, observation: Seen, slot: SupportsIndex = 0) -> None:
        """Store one robot's observation of this step; InputError if a part is missing, misshapen or not finite."""
        seen = finite_step(observation, self._shapes)
        if not self._slots:
            self.reset()
        self._slot(slot).history.append(seen)

    def actions(self, slots: Iterable[SupportsIndex]) -> Float32[np.ndarray, "b a"]:
        """The next action in each of these slots, after `observe` of each. Check for NaN: it isn't checked here."""
        chosen = [self._slot(i) for i in _list("slots", slots)]
        self._change_over(chosen)
        due = [slot for slot in chosen if slot.due(self.n_action_steps)]
        first = [slot for slot in due if slot.chunk is None or self.delay == 0]
        self._ask(first, wait=True)
        self._ask([slot for slot in due if slot not in first], wait=False)
        self._change_over(first)
        return np.array([self._next(slot) for slot in chosen], np.float32).reshape(-1, self.action_dim)

    def chunk(self, slot: SupportsIndex = 0) -> tuple[int, Float32[np.ndarray, "h a"] | None]:
        """The chunk being executed, and the step of its index 0."""
        return self._slot(slot).start, self._slot(slot).chunk

    def chunk_ms(self, slot: SupportsIndex = 0) -> list[float]:
        """Milliseconds of each of the latest network calls, for any slots."""
        return list(self._slot(slot).chunk_ms)

    def fits(self, observation: Seen) -> None:
        """InputError unless the observation has all parts, in the shapes that the policy was trained on."""
        checked_step(observation, self._shapes)

    def drives(self, robot: Robot, name: str) -> None:
        """InputError if states, actions or steps a second aren't those the policy was trained on. name: the robot's."""
        getattr(self.source, "robot", Robot()).check(robot, name)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _up_to(self, slot: "_Slot", observation: Seen) -> "list[Step]":
        """The slot's latest observations, with this step's as the last."""
        return [*slot.history, finite_step(observation, self._shapes)][-self.n_obs_steps :]

    def _slot(self, number: SupportsIndex) -> "_Slot":
        """The slot of that number."""
        if not 0 <= (place := _whole("slot", number)) < len(self._slots):
            raise InputError(f"slot must be one of the {len(self._slots)} that reset began, from 0 on; got {place}.")
        return self._slots[place]

    def _ask(self, slots: "list[_Slot]", wait: bool) -> None:
        """Request the next chunk of these slots, in one call: here, or in the thread."""
        if not slots:
            return
        histories = [list(slot.history) for slot in slots]
        ids = [_chunk_id(slot.episode, slot.count) for slot in slots]
        work = partial(self._timed, histories, ids, self._previous(slots) if self.real_time else None)
        if wait:
            future: Future[tuple[np.ndarray, float]] = Future()
            future.set_result(work())
        else:
            self._thread = self._thread or ThreadPoolExecutor(1, "chunks")
            future = self._thread.submit(work)
        for row, slot in enumerate(slots):
            slot.asked, slot.count, slot.pending = slot.step, slot.count + 1, (future, row)

    def _change_over(self, slots: "list[_Slot]") -> None:
        """Change to the chunk requested last, in the slots where it is due."""
        for slot in slots:
            if slot.pending is None or (slot.chunk is not None and slot.step < slot.asked + self.delay):
                continue
            future, row = slot.pending
            self.late += not future.done()
            chunks, ms = future.result()
            slot.chunk, slot.start, slot.pending = chunks[row], slot.asked, None
            slot.chunk_ms.append(ms)
            if self.ensemble is not None:
                slot.recent.append((slot.start, slot.chunk))

    def _previous(self, slots: "Sequence[_Slot]") -> Previous | None:
        """The rest of each slot's chunk, or None where all are at their first."""
        if all(slot.chunk is None for slot in slots):
            return None
        actions = torch.zeros(len(slots), self.horizon, self.action_dim)
        weights = torch.zeros(len(slots), self.horizon)
        for row, slot in enumerate(slots):
            if slot.chunk is not None:
                executed = slot.step - slot.start
                left = slot.chunk[executed:]
                actions[row, : len(left)] = torch.from_numpy(left)
                actions[row, len(left) :] = actions[row, len(left) - 1]
                weights[row] = soft_mask(self.horizon, self.delay, executed)
        return Previous(actions, weights)

    def _next(self, slot: "_Slot") -> np.ndarray:
        """The slot's next action."""
        if slot.chunk is None:
            raise InputError("The policy has nothing to act on: call observe before actions.")
        step, slot.step = slot.step, slot.step + 1
        if self.ensemble is None:
            return slot.chunk[step - slot.start]
        while step - slot.recent[0][0] >= self.horizon:
            slot.recent.popleft()
        said = np.stack([chunk[step - start] for start, chunk in slot.recent])
        weights = np.exp(-self.ensemble * np.arange(len(said)))
        mean: np.ndarray = (weights[:, None] * said).sum(0) / weights.sum()
        return mean.astype(np.float32)

    def _timed(
        self, histories: "list[list[Step]]", ids: list[int], previous: Previous | None
    ) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        chunks = self._call(histories, ids, previous)
        return chunks, 1000 * (time.perf_counter() - start)

    def _call(
        self, histories: "list[list[Step]]", ids: list[int], previous: Previous | None
    ) -> Float32[np.ndarray, "b h a"]:
        """Chunks for these histories, `rows` at a time where that is set."""
        observation, draw_ids = batched(histories, self._shapes, self.n_obs_steps), torch.tensor(ids)
        rows, parts = self.rows or len(ids), []
        for first in range(0, len(ids), rows):
            place = torch.arange(first, first + rows).clamp(max=len(ids) - 1)  # padded with copies of the last
            own = {name: part[place] for name, part in observation.items()}
            left = None if previous is None else Previous(previous.actions[place], previous.weights[place])
            chunks = self.source.sample_chunks(own, draws=Draws(self.seed, draw_ids[place]), previous=left)
            if chunks.shape != (len(place), self.horizon, self.action_dim):
                raise InputError(
                    f"A chunk of this policy has shape {(self.horizon, self.action_dim)}, and there should be "
                    f"{len(place)}; its sampler made {tuple(chunks.shape)}."
                )
            parts.append(chunks[: len(ids) - first])
        made: np.ndarray = torch.cat(parts).detach().cpu().float().numpy()
        return made

    def __getstate__(self) -> dict[str, Any]:
        """The policy without threads and episodes, for another process."""
        return self.__dict__ | {"_thread": None, "_slots": [], "_number": 0, "late": 0}


@dataclass(eq=False)
class _Slot:
    """One robot's episode: its observations and the chunk it executes."""

    episode: int
    history: deque[Step]
    step: int = 0  # of the next action
    count: int = 0  # chunks asked for
    asked: int = 0  # the step at which the last was
    start: int = 0  # the step of the current chunk's index 0
    chunk: np.ndarray | None = None
    pending: tuple[Future[tuple[np.ndarray, float]], int] | None = None
    recent: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    chunk_ms: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))

    def due(self, n_action_steps: int) -> bool:
        return (
            bool(self.history)
            and self.pending is None
            and (self.count == 0 or self.step >= self.asked + n_action_steps)
        )


def _whole(what: str, value: Any) -> int:
    """The value, if it is a whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} must be a whole number; got {str(value)[:60]!r}.") from None


def _list(what: str, values: Any) -> list[int]:
    """The values, if they are a list of whole numbers, or the like."""
    if not isinstance(values, Iterable):
        raise InputError(f"{what} must be a list of whole numbers; got {values!r}.")
    return [_whole(f"Each of {what}", value) for value in values]


def _chunk_id(*address: int) -> int:
    """A sample's id from (episode, chunk[, copy]): 63 bits, so it fits an int64."""
    return key("chunk", *address) >> 1
