"""Scripted demonstrations of ALOHA's tasks: waypoints of the two grippers, and the joints that reach them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64

from .aloha import Aloha

Row = tuple[float, ...]
BASE, REST_Y = 0.469, 0.5  # the arms stand at x = ∓BASE and face each other
SHOULDER, UPPER, FOREARM, HAND = 0.12705, (0.05955, 0.3), 0.3, 0.209744  # lengths of the arm; HAND ends in the grasp
REST = (-0.178, 0.5, 0.309, -0.1, 0.0, 0.1)  # of the left gripper as an episode begins


def joints(side: int, pose: Float64[np.ndarray, "6"]) -> Float64[np.ndarray, "7"]:
    """The joints of the left (side = 1) or right (−1) arm that bring the grasp, between the fingertips, to a pose.

    A pose is x, y, z, pitch (how far the hand points down), roll (about the hand) and grip (passed on). The hand heads
    straight away from the arm's base, so the forearm need not roll, the waist alone sets the heading, and shoulder,
    elbow and wrist move in its plane, where two sides of a triangle (upper arm, forearm) meet its third.
    """
    x, y, z, pitch, roll, grip = pose
    forward, left = side * x + BASE, side * (y - REST_Y)
    out, up = np.hypot(forward, left) - HAND * np.cos(pitch), z - SHOULDER + HAND * np.sin(pitch)  # of the wrist
    upper, reach = np.hypot(*UPPER), np.hypot(out, up)
    cosine = (upper**2 + reach**2 - FOREARM**2) / (2 * upper * reach)
    raised = np.arctan2(up, out) + np.arccos(np.clip(cosine, -1, 1))  # the upper arm's angle above the horizontal
    lowered = np.arctan2(upper * np.sin(raised) - up, out - upper * np.cos(raised))  # the forearm's below it
    shoulder = np.pi / 2 - np.arctan2(*UPPER) - raised
    return np.array([np.arctan2(left, forward), shoulder, lowered - shoulder, 0, pitch - lowered, roll, grip])


def along(waypoints: Sequence[tuple[int, Row]], step: float) -> Float64[np.ndarray, "6"]:
    """The pose on the way between waypoints (step, pose), leaving and reaching each at rest."""
    steps, poses = [at for at, _ in waypoints], np.array([pose for _, pose in waypoints])
    k = int(np.clip(np.searchsorted(steps, step, side="right") - 1, 0, len(steps) - 2))
    share = np.clip((step - steps[k]) / (steps[k + 1] - steps[k]), 0, 1)
    return poses[k] + share**2 * (3 - 2 * share) * (poses[k + 1] - poses[k])
