import os
import subprocess
import sys

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.robots.aloha import AlohaInsertion, AlohaTransfer

TASKS = {"transfer": AlohaTransfer, "insertion": AlohaInsertion}

every = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def simulators():
    return {task: row() for task, row in TASKS.items()}


@every
def test_is_gym_aloha_without_its_cameras(simulators, task, monkeypatch):
    from dm_control.mujoco import Physics
    from gym_aloha.env import AlohaEnv

    simulator = simulators[task]
    theirs = AlohaEnv({"transfer": "transfer_cube"}.get(task, task), obs_type="pixels_agent_pos")
    monkeypatch.setattr(Physics, "render", lambda *_, **__: np.zeros((1, 1, 3), np.uint8))
    joints = theirs.reset(seed=11)[0]["agent_pos"]
    state = simulator.reset(11)["state"]
    rng = np.random.default_rng(0)
    for _ in range(40):
        np.testing.assert_array_equal(state[:14], joints.astype(np.float32))
        np.testing.assert_array_equal(state[14:], theirs._env.physics.data.qpos[16:].astype(np.float32))
        action = np.clip(joints + rng.normal(0, 0.2, 14), simulator.low, simulator.high)
        observation, reward, _ = simulator.step(action)
        state, (seen, expected, *_) = observation["state"], theirs.step(action)
        joints = seen["agent_pos"]
        assert reward == expected


@every
def test_state_by_hand(simulators, task):
    """An episode begins with both arms as gym-aloha's START_ARM_POSE, and the objects level, 5 cm high."""
    simulator = simulators[task]
    arm = [0, -0.96, 1.16, 0, -0.3, 0, (0.02239 - 0.01844) / (0.058 - 0.01844)]
    state = simulator.reset(0)["state"]
    np.testing.assert_allclose(state[:14], [*arm, *arm], atol=1e-6)
    objects = state[14:].reshape(-1, 7)
    np.testing.assert_array_equal(objects[:, 2:], [[np.float32(0.05), 1, 0, 0, 0]] * len(objects))
    np.testing.assert_array_equal(objects, simulator.objects.astype(np.float32))
    assert simulator.state_names[6::7][:2] == ("left_arm_gripper", "right_arm_gripper")
    assert simulator.state_names[14:16] == ({"transfer": "cube_x", "insertion": "peg_x"}[task],) * 1 + (
        {"transfer": "cube_y", "insertion": "peg_y"}[task],
    )


def test_limits(simulators):
    """The actuators' own for the joints, closed to open for the grippers; a gripper moves as its action says."""
    simulator = simulators["transfer"]
    np.testing.assert_allclose(simulator.low[[1, 6, 13]], [-1.85005, 0, 0])
    np.testing.assert_allclose(simulator.high[[0, 6, 13]], [3.14158, 1, 1])
    action = simulator.reset(0)["state"][:14].copy()
    action[6], action[13] = 1, 0
    for _ in range(30):
        observation, _, _ = simulator.step(action)
    assert observation["state"][6] > 0.9 > 0.2 > observation["state"][13]


def test_success_is_the_cube_in_the_left_hand_alone(simulators):
    """Laid between the left fingers, as they close, the cube is transferred (4); on the table it is nothing (0)."""
    simulator = simulators["transfer"]
    hold = simulator.reset(0)["state"][:14].copy()
    hold[6] = 1
    for _ in range(20):
        _, reward, done = simulator.step(hold)
    assert (reward, done, simulator.success, simulator.score) == (0, False, False, 0)
    hold[6] = 0
    for _ in range(10):
        simulator.physics.data.qpos[16:19] = -0.317 + 0.14, 0.5, 0.309
        simulator.physics.data.qvel[16:] = 0
        _, reward, done = simulator.step(hold)
    assert (reward, done, simulator.success, simulator.score) == (4, True, True, 1)


def test_physics_that_diverge_end_the_episode(simulators):
    simulator = simulators["transfer"]
    state = simulator.reset(0)["state"]
    simulator.physics.data.qvel[:] = 1e12
    for _ in range(2):
        observation, reward, done = simulator.step(state[:14])
        assert (reward, done, simulator.success) == (0, True, False)
        assert np.isfinite(observation["state"]).all()
    np.testing.assert_array_equal(simulator.reset(0)["state"], state)
    assert not simulator.step(state[:14])[2]


def test_pictures():
    """The camera is at the top: the red cube, to the right of the middle, is seen there, and in `render` too."""
    simulator = AlohaTransfer(pixels=True)
    try:
        images = simulator.reset(0)["images"]
    except InputError as error:
        pytest.skip(str(error))
    assert (images.shape, images.dtype) == ((1, 96, 128, 3), np.uint8)
    for picture in (images[0], simulator.render()):
        red = (picture[..., 0] > 100) & (picture[..., 1:].max(-1) < 60)
        assert 0.0005 < red.mean() < 0.02
        assert 0.5 < np.nonzero(red)[1].mean() / picture.shape[1] < 0.8
    assert picture.shape == (480, 640, 3)
    simulator.close()


def call(code, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_without_a_renderer_there_is_still_a_world():
    done = call(
        "from ebbtide.robots.aloha import AlohaInsertion; s = AlohaInsertion(); "
        "print(s.step(s.low)[0]['state'].shape); s.render()",
        MUJOCO_GL="off",
    )
    assert done.stdout == "(28,)\n"
    assert done.stderr.splitlines()[-1].startswith("ebbtide.errors.InputError: MuJoCo can't render here: No OpenGL")


@pytest.mark.slow
def test_a_wrong_renderer():
    done = call("from ebbtide.robots.aloha import AlohaInsertion; AlohaInsertion()", MUJOCO_GL="nothing")
    assert "InputError: MUJOCO_GL=nothing does not work here: " in done.stderr.splitlines()[-1]
