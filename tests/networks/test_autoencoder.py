"""The autoencoder of images: it begins at the patches' own error, learns the rest, and takes any whole patches."""

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.networks.autoencoder import Autoencoder
from ebbtide.networks.patches import analysed, synthesised

SMALL = {"size": 4, "keep": 3, "widths": "16-32"}


def images(n=6, channels=2, rows=8, columns=12, seed=0):
    return torch.randn(n, channels, rows, columns, generator=torch.Generator().manual_seed(seed))


def begun(**options):
    """An autoencoder with some orthonormal rows as basis, and no two scales alike."""
    made = Autoencoder(2, 8, 12, **SMALL | options)
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0][: made.latent[0]]
    made.begin(basis, torch.linspace(-1, 1, 32), torch.linspace(0.5, 2, made.latent[0]))
    return made


def stirred(network):
    """The network after some training, as it were: no layer of it is zero."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for part in network.parameters():
            part += 0.1 * torch.randn(part.shape, generator=draw)
    return network


def test_at_first_it_is_the_linear_codec_to_the_bit():
    network, x = begun(), images()
    linear = 4, network.basis, network.mean, network.scale
    z = analysed(x, *linear)
    assert torch.equal(network.encode(x), z)
    assert torch.equal(network.decode(z), synthesised(z, *linear))
    assert torch.equal(network(x, torch.zeros(1)), synthesised(z, *linear))


def test_every_parameter_learns_within_two_steps():
    """The last layers are zero, so that the others have no gradient before those have moved."""
    network, x = begun(), images()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (network(x, torch.zeros(1)) - x).square().mean().backward()
        optimiser.step()
    still = [name for name, part in network.named_parameters() if not part.grad.any()]
    assert not still


def test_shapes_and_other_sizes_of_whole_patches():
    network = stirred(begun())
    assert network.latent == (3, 2, 3)
    assert network.encode(images()).shape == (6, 3, 2, 3)
    wide = images(rows=16, columns=4)
    assert network.encode(wide).shape == (6, 3, 4, 1)
    assert network.decode(network.encode(wide)).shape == wide.shape


@pytest.mark.parametrize("widths", ["16-16", "32-16", "16", "16-32", "16-32-48"])
def test_as_many_maps_as_widths(widths):
    network, x = stirred(begun(widths=widths)), images()
    assert network(x, torch.zeros(1)).shape == x.shape


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 6}, "rows and columns must be multiples of size"),
        ({"widths": "8-8-8-8"}, "size one of 8 for the 4 maps"),
        ({"keep": 33}, "keep must be"),
        ({"keep": 0}, "keep must be"),
        ({"widths": "wide"}, "widths must be numbers"),
    ],
)
def test_sizes_that_cannot_be(options, named):
    with pytest.raises(InputError, match=named):
        Autoencoder(2, 8, 12, **SMALL | options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"x must be of shape \(b, 2, 8, 12\)"):
        begun()(images(rows=12, columns=8), torch.zeros(1))
