"""The mixture that the tests of a report, its intervals and its real points share."""

import torch

MEANS = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [0.0, -2.0]])
STD = 0.3


def three_gaussians(n, seed, std=STD):
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (n,), generator=generator)
    return MEANS[which] + std * torch.randn(n, 2, generator=generator)
