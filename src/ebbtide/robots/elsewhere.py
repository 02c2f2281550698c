"""A simulator in another process, so that many take a step at once beside one network."""

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import EbbtideError
from ..signals import STOPPING
from ..training.processes import held_back, pickled_error
from . import Sensed

__all__ = ["Elsewhere"]

_FACTS = ("name", "task", "fps", "max_steps", "state_names", "action_names", "low", "high", "in_image")


class Elsewhere:
    """A simulator that another process makes and runs; it behaves as the simulator itself.

    `send(action)` begins a step, which `step(action)` then waits for: send to all of them first, and they step at once.
    make: of the simulator, picklable. What it raises is raised here; if its process dies, EbbtideError.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.success, self.score, self.sent = False, 0.0, False
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(pickle.dumps(make), other), daemon=True)
        with held_back():
            self.process.start()
        other.close()
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(name) from None

    def reset(self, seed: int) -> Sensed:
        """Begin an episode."""
        self.success, self.score, self.sent = False, 0.0, False
        sensed: Sensed = self._ask("reset", seed)
        return sensed

    def send(self, action: Float[np.ndarray, " a"]) -> None:
        """Begin a step."""
        self._tell("step", action)
        self.sent = True

    def step(self, action: Float[np.ndarray, " a"]) -> tuple[Sensed, float, bool]:
        """The next observation, the reward, and whether the episode is over: of the step that was begun, or of one."""
        if not self.sent:
            self.send(action)
        self.sent = False
        found, self.success, self.score = self._answer()
        sensed, reward, done = found
        return sensed, reward, done

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        """An image for people."""
        image: np.ndarray = self._ask("render")
        return image

    def close(self) -> None:
        """End the simulator and its process."""
        self._tell("")
        self.pipe.close()  # which ends a process that never heard of it
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _ask(self, name: str, *given: Any) -> Any:
        self._tell(name, *given)
        return self._answer()

    def _tell(self, name: str, *given: Any) -> None:
        with suppress(OSError):  # of a process that died, which the answer says
            self.pipe.send((name, given))

    def _answer(self) -> Any:
        try:
            answer, error = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            self.process.join(1)
            raise EbbtideError(f"A simulator's process died, with exit code {self.process.exitcode}.") from None
        if error is not None:
            raise error
        return answer


def _serve(make: bytes, pipe: Connection) -> None:
    """The process: makes the simulator, sends its facts, then answers each call with (answer, error)."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    simulator: Any = None
    with suppress(EOFError, OSError):
        try:
            simulator = pickle.loads(make)()
            facts = {name: getattr(simulator, name) for name in _FACTS if hasattr(simulator, name)}
            pipe.send_bytes(pickle.dumps((facts, None)))
        except (Exception, SystemExit) as error:
            pipe.send_bytes(pickled_error(error))
            return
        while True:
            name, given = pipe.recv()
            if not name:
                break
            try:
                found = getattr(simulator, name)(*given)
                answer = (found, bool(simulator.success), simulator.score) if name == "step" else found
                pipe.send_bytes(pickle.dumps((answer, None)))
            except (Exception, SystemExit) as error:
                pipe.send_bytes(pickled_error(error))
    with suppress(Exception):
        simulator.close()
