"""Any network, with what is known of its example as more inputs."""

import pytest
import torch

from ebbtide.networks import NETWORKS
from ebbtide.networks.masked import Masked, masked_shape
from ebbtide.networks.mlp import MLP
from problems import noise_like

NAN = float("nan")
GIVEN = torch.tensor([[0.5, NAN, NAN], [NAN, NAN, NAN], [NAN, -1.0, 2.0]])


def network(**options):
    made = Masked(MLP(*masked_shape((3,)), width=16, depth=2, **options))
    torch.nn.init.normal_(made.network.out.weight)
    return made


def test_nothing_given_is_all_nan_and_one_row_is_for_all():
    made, x, t = network(), noise_like(3, 3).float(), torch.tensor([0.2, 0.5, 0.9])
    assert torch.equal(made(x, t), made(x, t, given=torch.full((3, 3), NAN)))
    assert torch.equal(made(x, t, given=GIVEN[:1]), made(x, t, given=GIVEN[:1].expand(3, 3)))


def test_it_sees_what_is_known_and_not_its_noised_self():
    made, x, t = network(), noise_like(3, 3).float(), torch.tensor([0.5])
    y = made(x, t, given=GIVEN)
    assert torch.equal(y, made(x.where(GIVEN.isnan(), 7.0), t, given=GIVEN))
    for row, column in ((0, 1), (2, 0)):
        other = x.clone()
        other[row, column] += 1
        assert bool((made(other, t, given=GIVEN)[row] != y[row]).any())
    assert bool((made(x, t, given=GIVEN + 1)[[0, 2]] != y[[0, 2]]).all())
    assert torch.equal(made(x, t, given=GIVEN + 1)[1], y[1])
    zero = torch.zeros(1, 3)  # known to be 0 isn't unknown and 0
    assert not torch.equal(made(zero, t, given=torch.tensor([[0.0, NAN, NAN]])), made(zero, t))


@pytest.mark.parametrize(("name", "shape"), [("mlp:spans=true", (3,)), ("unet-tiny:width=8", (1, 8, 8))])
def test_any_network_takes_it_with_its_own_conditions(name, shape):
    row, _, _ = name.partition(":")
    options = {"width": 8} | ({"spans": True} if "spans" in name else {})
    made = Masked(NETWORKS[row](*masked_shape(shape), 2, **options))
    assert made.spans == ("spans" in name)
    x, label = noise_like(2, *shape).float(), torch.tensor([0, 1])
    y = made(x, torch.tensor([0.3]), given=torch.full((2, *shape), NAN), label=label)
    assert y.shape == x.shape
    y.square().sum().backward()
