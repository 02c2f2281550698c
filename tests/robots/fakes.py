"""A point that must reach a goal, in worlds that break in various ways, and policies in closed form for it."""

import numpy as np
import torch
from torch import nn


class Point:
    """A point in the plane, moved by its action; done within 0.05 of the goal. State: point and goal."""

    name, task, fps, max_steps = "point", "reach the goal", 10.0, 30
    state_names, action_names = ("x", "y", "goal x", "goal y"), ("dx", "dy")
    low, high = np.full(2, -0.2, np.float32), np.full(2, 0.2, np.float32)

    def __init__(self, breaks=None, seeds=(), at=3, noise=0.0):
        self.breaks, self.seeds, self.at, self.noise = breaks, seeds, at, noise
        self.closed = False

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        self.state = self.rng.uniform(-1, 1, 4).astype(np.float32)
        self.seed, self.steps, self.success, self.score = seed, 0, False, 0.0
        return self._seen()

    def step(self, action):
        self.steps += 1
        if self._broken("step"):
            raise RuntimeError("the world\nended")
        self.state[:2] += np.clip(action, self.low, self.high) + self.noise * self.rng.normal(size=2)
        distance = float(np.linalg.norm(self.state[:2] - self.state[2:]))
        self.success = distance < 0.05
        self.score = max(self.score, 1 - min(1.0, distance))
        if self._broken("score"):
            self.score = float("nan")
        return self._seen(), 0.0, self.success

    def render(self):
        return np.full((2, 3, 3), self.steps, np.uint8)

    def close(self):
        self.closed = True

    def _seen(self):
        state = self.state.copy()
        if self._broken("observation"):
            state[1] = np.nan
        return {"state": state}

    def _broken(self, how):
        return self.breaks == how and self.seed in self.seeds and self.steps >= self.at


class Lacking(Point):
    """One that lacks a part."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "__dict__").get("part"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class Towards:
    """Chunks of 4 steps towards the goal from the latest of 2 states, a little noisy; keeps what it was asked."""

    shape, n_obs_steps, n_action_steps = (4, 2), 2, 2

    def __init__(self, noise=0.01, bad=()):
        self.noise, self.bad, self.asked, self.observation = noise, bad, [], {"state": (2, 4)}

    def sample_chunks(self, observation, *, draws, previous=None):
        state = observation["state"]
        self.asked.append((observation, draws, previous))
        way = (state[:, -1, 2:] - state[:, -1, :2]).clamp(-0.2, 0.2)
        chunks = way[:, None] * torch.tensor([1.0, 0.9, 0.8, 0.7])[:, None] + 0 * state[:, :1, :2]
        chunks = chunks + self.noise * draws(0, torch.empty(len(state), 4, 2))
        bad = torch.tensor([bool(self.bad) and float(row[-1, 2]) in self.bad for row in state])
        return torch.where(bad[:, None, None], torch.nan, chunks)


class Counting:
    """The n-th chunk it makes is 100 n, 100 n + 1, …: an action tells which chunk and index it is from."""

    n_obs_steps = 1

    def __init__(self, horizon=4, n_action_steps=2):
        self.shape, self.n_action_steps, self.previous, self.rows = (horizon, 1), n_action_steps, [], []

    @property
    def observation(self):
        return {"state": (1, 1)}

    def sample_chunks(self, observation, *, draws, previous=None):
        b = len(draws.ids)
        chunk = 100.0 * len(self.rows) + torch.arange(self.shape[0])
        self.previous.append(previous)
        self.rows.append(b)
        return chunk[:, None].expand(b, -1, 1).clone()


class Small(nn.Module):
    """A network whose matrix products round as the number of rows has it."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList(
            torch.randn(shape, generator=generator) / 8 for shape in ((16, 64), (64, 64), (64, 64), (64, 8))
        )

    def forward(self, x, t, *, state):
        h = torch.cat([x.flatten(1), state.flatten(1)], 1)
        for weight in self.weights:
            h = torch.tanh(h @ weight)
        return h.reshape(x.shape)


def state(x):
    """What `Towards` sees."""
    return {"state": np.array([x, 0, 1, 1], np.float32)}
