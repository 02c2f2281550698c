"""Scripted demonstrations of ALOHA's tasks: waypoints of the two grippers, and the joints that reach them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Float32, Float64

from ..core.randomness import key
from ..errors import EbbtideError
from ..progress import progress_bar
from ..training.processes import in_processes
from .aloha import SUCCESS, Aloha, AlohaInsertion, AlohaTransfer
from .simulators import make

__all__ = [
    "ARMS", "BASE", "PERSISTENCE", "SCRIPTS", "Demonstration", "Pose", "Script", "along", "collect", "demonstrate",
    "end", "insertion", "joints", "pick_up", "start_pose", "transfer",
]  # fmt: skip

LEFT, RIGHT = 1, -1
BASE = (0.469, 0.5)  # the arms stand at x = ∓0.469, y = 0.5, and face each other
SHOULDER, UPPER, FOREARM, HAND = 0.12705, (0.05955, 0.3), 0.3, 0.209744  # metres; HAND ends between the fingertips
DOWN, TURNED = np.pi / 3, np.pi / 2  # pitch of a hand that picks; roll of a hand whose fingers close up and down
OPEN, CLOSED = 1.0, 0.0

Pose = tuple[float, ...]  # x, y, z, pitch (how far the hand points down), roll (about the hand) and grip
Script = Callable[[Aloha], Iterator[Float64[np.ndarray, " 14"]]]
Demonstration = tuple[Float32[np.ndarray, "n s"], Float32[np.ndarray, "n 14"]]  # states, actions


def joints(side: int, pose: Float[np.ndarray, " 6"]) -> Float64[np.ndarray, " 7"]:
    """The joints of an arm, LEFT or RIGHT, that bring the point between its fingertips to a pose; the grip is kept.

    The hand heads straight away from the arm's base. So the waist alone sets the heading, the forearm need not roll,
    and the rest moves in one plane, where upper arm and forearm are two sides of a triangle. Out of reach, the arm
    stretches.
    """
    x, y, z, pitch, roll, grip = pose
    forward, across = side * x + BASE[0], side * (y - BASE[1])
    out, up = np.hypot(forward, across) - HAND * np.cos(pitch), z - SHOULDER + HAND * np.sin(pitch)  # the wrist
    upper, reach = np.hypot(*UPPER), np.hypot(out, up)
    cosine = (upper**2 + reach**2 - FOREARM**2) / (2 * upper * reach)
    raised = np.arctan2(up, out) + np.arccos(np.clip(cosine, -1, 1))  # the upper arm, above the horizontal
    lowered = np.arctan2(upper * np.sin(raised) - up, out - upper * np.cos(raised))  # the forearm, below it
    shoulder = np.pi / 2 - np.arctan2(*UPPER) - raised
    return np.array([np.arctan2(across, forward), shoulder, lowered - shoulder, 0, pitch - lowered, roll, grip])


def along(waypoints: Sequence[tuple[int, Pose]], step: int) -> Float64[np.ndarray, " 6"]:
    """A hand's pose between waypoints (step, pose), each of which it leaves and reaches at rest."""
    steps, poses = np.array([at for at, _ in waypoints]), np.array([pose for _, pose in waypoints])
    k = int(np.clip(np.searchsorted(steps, step, side="right") - 1, 0, len(steps) - 2))
    share = np.clip((step - steps[k]) / (steps[k + 1] - steps[k]), 0, 1)
    return poses[k] + share**2 * (3 - 2 * share) * (poses[k + 1] - poses[k])


def start_pose(side: int) -> Pose:
    """The starting pose of gym-aloha's episodes."""
    return (-0.1779 * side, 0.5, 0.3092, -0.1, 0.0, 0.1)


def pick_up(side: int, x: float, y: float, z: float) -> list[tuple[int, Pose]]:
    """Waypoints from the start to above an object, down, a short rest, and fingers closed.

    x, y, z: the object's place in metres.
    """
    there = (x, y, z, DOWN, 0.0)
    above = (x, y, z + 0.08, DOWN, 0.0)
    return [
        (0, start_pose(side)),
        (60, (*above, OPEN)),
        (100, (*there, OPEN)),
        (110, (*there, OPEN)),
        (130, (*there, CLOSED)),
    ]


def transfer(simulator: Aloha) -> Iterator[Float64[np.ndarray, " 14"]]:
    """The right hand lifts the cube to the middle, the left takes it from the side, the right lets go. Open loop."""
    x, y = simulator.objects[0, :2]
    meet, aside = (0.0, 0.5, 0.28, DOWN, 0.0), (0.12, 0.5, 0.33, DOWN, 0.0)
    ready, take, away = ((x, 0.5, 0.28, 0.0, TURNED) for x in (-0.15, -0.01, -0.06))
    right = [
        *pick_up(RIGHT, x, y, 0.02),
        (200, (*meet, CLOSED)), (260, (*meet, CLOSED)), (275, (*meet, OPEN)), (310, (*aside, OPEN)),
    ]  # fmt: skip
    left = [
        (0, start_pose(LEFT)), (100, (*ready, OPEN)), (190, (*ready, OPEN)), (225, (*take, OPEN)), (235, (*take, OPEN)),
        (255, (*take, CLOSED)), (280, (*take, CLOSED)), (320, (*away, CLOSED)),
    ]  # fmt: skip
    for step in range(1, 331):
        yield np.concatenate([joints(LEFT, along(left, step)), joints(RIGHT, along(right, step))])


def insertion(simulator: Aloha) -> Iterator[Float64[np.ndarray, " 14"]]:
    """Lift peg and socket; align the peg's tip with the socket's mouth, as measured; push them together.

    Each step moves a hand by 5 % of its error, and the hands come together only while tip and mouth are within 3 mm.
    """
    (x, y), (socket_x, socket_y) = simulator.objects[:, :2]
    line = np.array([0.5, 0.22])  # y, z
    ways = {
        side: [
            *pick_up(side, *place),
            (140, (*place, DOWN, 0.0, CLOSED)),
            (200, (-0.13 * side, *line, DOWN, 0.0, CLOSED)),
        ]
        for side, place in {LEFT: (socket_x, socket_y, 0.025), RIGHT: (x, y, 0.02)}.items()
    }
    for step in range(1, 201):
        yield np.concatenate([joints(side, along(way, step)) for side, way in ways.items()])
    hands = {side: along(way, 200) for side, way in ways.items()}
    pushed = 0
    for _ in range(280):
        peg, socket = simulator.objects
        ends = {LEFT: end(socket, 0.06)[1:], RIGHT: end(peg, -0.06)[1:]}
        aligned = np.abs(ends[LEFT] - ends[RIGHT]).max() < 0.003
        pushed += aligned
        for side, hand in hands.items():
            hand[1:3] += 0.05 * (line - ends[side])
            hand[0] += side * 0.0008 * aligned
        yield np.concatenate([joints(side, hand) for side, hand in hands.items()])
        if pushed > 110:
            return


def end(pose: Float64[np.ndarray, " 7"], reach: float) -> Float64[np.ndarray, " 3"]:
    """The point at `reach` along an object's own x axis, for the place and quaternion of its centre.

    pose: place in metres and quaternion. reach: in metres.
    """
    w, x, y, z = pose[3:] / np.linalg.norm(pose[3:])
    return pose[:3] + reach * np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])


PERSISTENCE = 0.9  # of the noise, from step to step
ARMS = np.r_[np.ones(6), 0, np.ones(6), 0]  # all joints but the grippers
SCRIPTS: Mapping[str, Script] = {AlohaTransfer.name: transfer, AlohaInsertion.name: insertion}


def demonstrate(simulator: Aloha, script: Script, seed: int, noise: float = 0.0) -> Demonstration | None:
    """The observation before each action, and the action; None unless the task is fulfilled at the script's end.

    Its end is the last fifth of a second: a single step can miss the contact that the reward requires.
    noise: the std in radians of a perturbation of the executed action. The script's action is recorded, so that the
    data show how to recover (DART: Laskey et al. 2017, arXiv:1703.09327). It lasts for a fifth of a second.
    """
    states, actions, rewards = [], [], []
    observation, rng, astray = simulator.reset(seed), np.random.default_rng(seed), np.zeros(14)
    for action in script(simulator):
        states.append(observation["state"])
        actions.append(np.clip(action.astype(np.float32), simulator.low, simulator.high))  # as it will be read
        astray = PERSISTENCE * astray + math.sqrt(1 - PERSISTENCE**2) * noise * rng.standard_normal(14) * ARMS
        observation, reward, _ = simulator.step(actions[-1] + astray)
        rewards.append(reward)
    return (np.stack(states), np.stack(actions)) if SUCCESS in rewards[-10:] else None


def collect(
    name: str, episodes: int, *, seed: int = 0, workers: int = 1, noise: float = 0.0, progress: bool = True
) -> tuple[dict[str, Any], int]:
    """Demonstrations, as the arrays of a file, and the number of attempts they took; independent of `workers`.

    Attempt k starts from the address (seed, "demonstration", k), so it shares no seed with an evaluation.

    name: the task's simulator. episodes: how many that succeed are kept.
    """
    simulator = cast(Aloha, make(name))
    found: list[Demonstration] = []
    tried = 0
    while (missing := episodes - len(found)) > 0:
        if tried >= 4 * episodes + 20:
            raise EbbtideError(
                f"only {len(found)} of {tried} attempts at {name} succeeded, so its script doesn't work here."
            )
        shares = [range(tried + k, tried + missing, workers) for k in range(min(workers, missing))]
        jobs = [(name, seed, share, noise, progress and k == 0) for k, share in enumerate(shares)]
        parts = [_attempts(*job) for job in jobs] if len(jobs) == 1 else in_processes(_attempts, jobs)
        results = {attempt: result for part in parts for attempt, result in part.items()}
        found += [result for attempt in sorted(results) if (result := results[attempt]) is not None]
        tried += missing
    states, actions = zip(*found, strict=True)
    return {
        "state": np.concatenate(states),
        "action": np.concatenate(actions),
        "episode_ends": np.cumsum([len(state) for state in states]),
        "fps": np.array(simulator.fps),
        "tasks": np.array([simulator.task] * episodes),
        "state_names": np.array(simulator.state_names),
        "action_names": np.array(simulator.action_names),
    }, tried


def _attempts(name: str, seed: int, attempts: range, noise: float, progress: bool) -> dict[int, Demonstration | None]:
    """A worker's share of the attempts; the first worker's progress bar represents all."""
    simulator = cast(Aloha, make(name))
    bar = progress_bar(len(attempts), name, "demo", over=attempts, unit_scale=attempts.step, show=progress, leave=False)
    return {k: demonstrate(simulator, SCRIPTS[name], key(seed, "demonstration", k), noise) for k in bar}
