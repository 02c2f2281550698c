"""Patches in a basis: cut as one would by hand, and put back where they were."""

import torch

from ebbtide.networks.patches import analysed, cut, synthesised


def test_patches_are_cut_as_by_hand():
    x = torch.arange(2 * 2 * 4 * 6.0).reshape(2, 2, 4, 6)
    rows = cut(x, 2)
    assert rows.shape == (2, 6, 8)
    assert torch.equal(rows[1, 4], x[1, :, 2:4, 2:4].flatten())  # the second row of patches, its second one


def test_a_full_basis_goes_there_and_back_and_a_scale_divides_z():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 6, generator=draw, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=torch.float64))[0]
    mean, scale = torch.randn(8, generator=draw, dtype=torch.float64), torch.full((8,), 2.0, dtype=torch.float64)
    z = analysed(x, 2, basis, mean, scale)
    assert z.shape == (3, 8, 2, 3)
    torch.testing.assert_close(synthesised(z, 2, basis, mean, scale), x)
    by_hand = basis[5] @ (x[2, :, 2:4, 4:6].flatten() - mean) / 2
    torch.testing.assert_close(z[2, 5, 1, 2], by_hand)
