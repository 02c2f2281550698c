"""The critic of images: a score of each, of its squares alone."""

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.networks.critic import PatchCritic


def critic(**options):
    torch.manual_seed(0)
    return PatchCritic(3, **options)


@pytest.mark.parametrize("sides", [(16, 24), (5, 3), (1, 1)])
def test_an_image_of_any_sides_has_one_score_whatever_stands_beside_it(sides):
    x = torch.randn(4, 3, *sides)
    scores = critic()(x)
    assert scores.shape == (4,)
    torch.testing.assert_close(critic()(x[2:3]), scores[2:3])


def test_a_score_sees_squares_of_15_pixels():
    """The middle score of a 32 × 32 image moves with the pixels of one square, and the mean with all."""
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    made = critic()
    made.maps(x)[0, 0, 2, 2].backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero().T
    assert (int(rows.max() - rows.min()), int(columns.max() - columns.min())) == (14, 14)
    x.grad = None
    made(x).backward()
    assert bool((x.grad != 0).all())


def test_what_cannot_be():
    with pytest.raises(InputError, match="critic: widths"):
        critic(widths="32-0")
    with pytest.raises(InputError, match="critic: channels"):
        PatchCritic(0)
