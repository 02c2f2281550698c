"""A network, a training loop and a sampler of your own, on ebbtide's core: nothing needs to be registered."""

import torch

from ebbtide import Denoiser, Linear
from ebbtide.data import load
from ebbtide.samplers import walk


class Network(torch.nn.Module):
    """Anything called as network(x, t) and shaped like x will do."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t.expand(len(x))[:, None]], 1))


def midpoint(walk):
    """x_s = x_t + (s - t) u(x_t + (s - t) u(x_t) / 2) half-way: order 2."""
    x = walk.x
    for now, then in walk.steps:
        h = then.t - now.t
        half = x + h / 2 * walk.slope(x, now)
        x = x + h * walk.slope(half, now.t + h / 2)
        yield x


torch.manual_seed(0)
data = load("two_moons", 10_000, seed=0).x / 2
denoiser = Denoiser(Network(), Linear(), "velocity")
optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
for _ in range(500):
    x0 = data[torch.randint(len(data), (512,))]
    loss = denoiser.loss(x0, torch.randn_like(x0), torch.rand(512)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    *_, x = walk(midpoint, denoiser, torch.randn(1000, 2), torch.linspace(1, 0, 21, dtype=torch.float64))
print(f"loss {loss.item():.2f}; samples have standard deviation {x.std(0).tolist()}, data {data.std(0).tolist()}")
