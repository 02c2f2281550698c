"""One exact denoiser through every sampler: what differs is the sampler alone, for there is no network to blame."""

import torch

from ebbtide import Draws, sample
from ebbtide.core.paths import PATHS
from ebbtide.data import DATASETS
from ebbtide.exact.oracle import mixture
from ebbtide.exact.tune import steps_within
from ebbtide.metrics import within_mode_sliced_w2
from ebbtide.samplers import SAMPLERS, facts

modes = DATASETS["three_gaussians"].modes
names = ("linear", "cosine", "ddpm")
denoisers = [mixture(PATHS[name](), modes.means, torch.tensor([modes.std] * 3)) for name in names]
print(f"{'20 evaluations':20}" + "".join(f"{name:>9}" for name in names))
for name, sampler in SAMPLERS.items():
    if facts(name).spans:
        continue  # a jump needs a denoiser that spans two times
    scores = []
    for denoiser in denoisers:
        steps = steps_within(sampler, denoiser.path, 20) or 20  # dopri5 takes the steps it needs
        x = sample(denoiser, (2,), sampler=name, grid="quadratic", steps=steps, draws=Draws.first(4000, seed=0))
        scores.append(within_mode_sliced_w2(x, modes.means, modes.std))
    print(f"{name:20}" + "".join(f"{score:9.3f}" for score in scores))
