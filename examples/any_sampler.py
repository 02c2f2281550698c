"""One exact denoiser through every sampler: what differs is the sampler alone, for there is no network to blame."""

import torch

from ebbflow import Draws, sample
from ebbflow.data import DATASETS
from ebbflow.metrics import within_mode_sliced_w2
from ebbflow.oracle import mixture
from ebbflow.paths import PATHS
from ebbflow.samplers import SAMPLERS

modes = DATASETS["three_gaussians"].modes
print(f"{'20 steps':10}" + "".join(f"{name:>9}" for name in SAMPLERS))
for name in ("linear", "cosine", "ddpm"):
    denoiser = mixture(PATHS[name](), modes.means, torch.tensor([modes.std] * 3))
    scores = []
    for sampler in SAMPLERS:
        x = sample(denoiser, (2,), sampler=sampler, grid="quadratic", steps=20, draws=Draws.first(4000, seed=0))
        scores.append(within_mode_sliced_w2(x, modes.means, modes.std))
    print(f"{name:10}" + "".join(f"{score:9.3f}" for score in scores))
