"""A recording like Push-T's, for tests: an agent that walks to the middle, past a block that lies still."""

import numpy as np

NAMES = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")


def record(path, episodes=6, steps=14, seed=0, pictures=False, **changes):
    """Write it; the action is where the agent is a step later, a tenth of the way on."""
    rng = np.random.default_rng(seed)
    state, action = [], []
    for _ in range(episodes):
        agent, block = rng.uniform(50, 450, 2), rng.uniform([100, 100, 0], [400, 400, 6])
        for _ in range(steps):
            target = agent + 0.1 * (256 - agent)
            state.append([*agent, *block])
            action.append(target)
            agent = target
    arrays = {
        "state": np.array(state, np.float32),
        "action": np.array(action, np.float32),
        "episode_ends": steps * np.arange(1, episodes + 1),
        "fps": np.array(10.0),
        "tasks": np.array(["Go to the middle."] * episodes),
        "state_names": np.array(NAMES),
        "action_names": np.array(["target_x", "target_y"]),
    }
    if pictures:
        shade = (np.array(state)[:, :1, None, None] / 2).astype(np.uint8)
        arrays["top"] = np.broadcast_to(shade, (len(state), 16, 16, 3)).copy()
    np.savez(path, **(arrays | changes))
    return str(path)
