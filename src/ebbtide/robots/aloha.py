"""ALOHA: two arms hand over a cube, or insert a peg. Zhao et al. 2023, arXiv:2304.13705; gym-aloha has the tasks.

gym-aloha renders three cameras at every step, which takes a quarter of a second; here a step is the physics alone, and
images are rendered on request.
"""

import os
import subprocess
import sys
from ctypes.util import find_library
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from ..errors import InputError
from . import Sensed, checked, needed

__all__ = ["POSE", "SUCCESS", "Aloha", "AlohaInsertion", "AlohaTransfer"]

POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
SUCCESS = 4  # the reward of a task fulfilled
CAMERA, SIZE = "top", (96, 128)


class Aloha:
    """A task of gym-aloha: an action is 14 absolute joint angles, with the grippers, 6 and 13, from 0, closed, to 1.

    The state holds the measured angles of these 14 joints, then position and quaternion of each object.
    """

    name: str
    task: str
    max_steps: int
    fps = 50.0
    # gym-aloha's own: its task, the world's file, the function that draws where the objects lie, and their names
    kind: str
    file: str
    sample: str
    things: tuple[str, ...]

    def __init__(self, *, pixels: bool = False) -> None:
        self.pixels = pixels
        _choose_renderer()
        constants, tasks = needed("gym_aloha.constants"), needed("gym_aloha.tasks.sim")
        rl, mujoco = needed("dm_control.rl.control"), needed("dm_control.mujoco")
        self._sample, self._place = getattr(needed("gym_aloha.utils"), self.sample), tasks.BOX_POSE
        self._diverged, self._fatal = rl.PhysicsError, needed("mujoco").FatalError
        self.physics = mujoco.Physics.from_xml_path(str(constants.ASSETS_DIR / self.file))
        self._environment = rl.Environment(
            self.physics, _without_cameras(getattr(tasks, self.kind))(), control_timestep=constants.DT
        )
        self.action_names = tuple(constants.ACTIONS)
        self.state_names = (*constants.JOINTS, *(f"{name}_{part}" for name in self.things for part in POSE))
        arms = self.physics.model.actuator_ctrlrange.reshape(2, 8, 2)[:, :6]
        limits = np.concatenate([arms, np.broadcast_to([0.0, 1.0], (2, 1, 2))], 1).reshape(14, 2).astype(np.float32)
        self.low, self.high = limits.T.copy()
        self.reset(0)

    def reset(self, seed: int) -> Sensed:
        """Begin an episode, with the objects where gym-aloha puts them for this seed."""
        self._place[0] = np.concatenate(self._sample(seed % 2**32), axis=None)  # gym-aloha passes it so
        self.steps, self.success, self.score, self.broken = 0, False, 0.0, False
        self._state = self._environment.reset().observation
        return self._observe()

    def step(self, action: Float[np.ndarray, " 14"]) -> tuple[Sensed, float, bool]:
        """Advance by a fiftieth of a second; rewards 1 to 4 are its stages. Diverging physics ends the episode."""
        clipped = np.clip(checked("action", action, 14), self.low, self.high).astype(np.float64)
        reward = 0.0
        self.steps += 1
        if not self.broken:
            try:
                time = self._environment.step(clipped)
                self._state, reward = time.observation, float(time.reward)
            except self._diverged:
                self.broken = True
        self.success, self.score = self.success or reward == SUCCESS, max(self.score, reward / SUCCESS)
        return self._observe(), reward, self.success or self.broken or self.steps >= self.max_steps

    @property
    def objects(self) -> Float64[np.ndarray, "objects 7"]:
        """Position and quaternion of each object."""
        return self.physics.data.qpos[16:].reshape(-1, 7).copy()

    def render(self) -> UInt8[np.ndarray, "480 640 3"]:
        """The image of the top camera."""
        return self._image(480, 640)

    def close(self) -> None:
        """Free the renderer."""
        self.physics.free()

    def _observe(self) -> Sensed:
        seen = {"state": self._state}
        return seen | ({"images": self._image(*SIZE)[None]} if self.pixels else {})

    def _image(self, height: int, width: int) -> np.ndarray:
        try:
            return self.physics.render(height=height, width=width, camera_id=CAMERA)
        except (RuntimeError, self._fatal) as error:
            raise InputError(
                f"MuJoCo can't render here: {str(error).rstrip('.')}. Install libegl1 or libosmesa6."
            ) from error


class AlohaTransfer(Aloha):
    """ALOHA's cube, handed from arm to arm; 400 steps."""

    name, max_steps = "aloha-transfer", 400
    task = "Pick up the cube with the right arm and transfer it to the left arm."
    kind, file, sample = "TransferCubeTask", "bimanual_viperx_transfer_cube.xml", "sample_box_pose"
    things = ("cube",)


class AlohaInsertion(Aloha):
    """ALOHA's peg, put into its socket; 500 steps."""

    name, max_steps = "aloha-insertion", 500
    task = "Insert the peg into the socket."
    kind, file, sample = "InsertionTask", "bimanual_viperx_insertion.xml", "sample_insertion_pose"
    things = ("peg", "socket")


def _without_cameras(kind: Any) -> Any:
    """A task of gym-aloha whose observation is the state, float32, with nothing rendered."""

    class State(kind):
        def get_observation(self, physics: Any) -> np.ndarray:
            return np.concatenate([self.get_qpos(physics), self.get_env_state(physics)]).astype(np.float32)

    return State


_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}  # what renders without a display


@cache
def _choose_renderer() -> None:
    """Import dm_control, which selects a renderer; sets MUJOCO_GL, if unset, for this process and its children."""
    needed("dm_control")
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ and "dm_control._render" not in sys.modules:
        works = (name for name, library in _LIBRARIES.items() if find_library(library) and _renders(name))
        os.environ["MUJOCO_GL"] = next(works, "off")
    try:
        needed("dm_control.mujoco")
    except InputError:
        raise
    except Exception as error:
        found = f"MUJOCO_GL={os.environ.get('MUJOCO_GL')}"
        raise InputError(f"{found} does not work here: {str(error).rstrip('.')}.") from error


def _renders(name: str) -> bool:
    """True if a renderer can be loaded; tried in another process, because a failed attempt can break the next."""
    command, environment = [sys.executable, "-c", "import dm_control._render"], os.environ | {"MUJOCO_GL": name}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0
