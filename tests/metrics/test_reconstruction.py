"""Codec PSNR and KID: by hand, with an interval that covers, and KID of the same features as samples'."""

import math

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics.images import measure_images
from ebbtide.metrics.reconstruction import measure_restored, psnr


def images(n, seed=0):
    return torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_psnr_by_hand():
    x = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8)
    y = x.clone()
    y[0, 0, 0, 0] = 110  # one of eight numbers is off by ten
    assert psnr(x, y) == pytest.approx(10 * math.log10(255**2 / 12.5))
    assert psnr(x, x) == math.inf


def test_rows_of_a_codec():
    held, train, draw = images(60), images(90, 1), torch.Generator().manual_seed(2)
    made = (held.float() + 20 * torch.randn(held.shape, generator=draw)).clamp(0, 255).to(torch.uint8)
    noise, distance = measure_restored(made, held, train)
    assert (noise.name, distance.name) == ("codec PSNR", "codec KID-random")
    assert noise.value == psnr(held, made)
    assert noise.low < noise.value < noise.high < noise.low + 1
    expected = next(row for row in measure_images(made, train, held).rows if row.name == "KID-random")
    assert (distance.value, distance.floor) == (expected.value, expected.floor)


def test_the_interval_of_psnr_covers_what_more_images_give():
    """An example: 40 sets of 50 images whose errors differ by a factor of nine; 95 % leaves out 0 to 6 (1 in 400)."""
    draw = torch.Generator().manual_seed(3)
    size = torch.tensor([10.0, 30.0]).repeat(1000)[:, None, None, None]
    held = torch.full((2000, 1, 8, 8), 128, dtype=torch.uint8)
    made = (held.float() + size * torch.randn(held.shape, generator=draw)).clamp(0, 255).to(torch.uint8)
    order, whole, outside = torch.randperm(2000, generator=draw), psnr(held, made), 0
    for part in order.split(50):
        row = measure_restored(made[part], held[part], held[:60])[0]
        outside += not row.low <= whole <= row.high
    assert outside <= 6


def test_images_of_another_number_are_refused():
    with pytest.raises(InputError, match="made must be"):
        measure_restored(images(5), images(6), images(20))
