"""Places, rotation, shared heads and norms, each against numbers worked out by hand."""

import math

import pytest
import torch

from ebbtide.networks.parts import AdaRMSNorm, RMSNorm, angles, attend, rotary, token_places, turn


def test_only_what_is_there_has_a_place():
    present = torch.tensor([[True, True, False, True], [False, True, True, True]])
    assert token_places(present)[present].tolist() == [0, 1, 2, 0, 1, 2]


def test_a_turn_by_hand():
    q = torch.tensor([1.0, 0.0, 0.0, 2.0]).reshape(1, 1, 1, 4)
    turned = turn(q, rotary(angles(torch.tensor([[3]]), 2))).flatten()
    # channels 0 and 2 turn by 3, channels 1 and 3 by 3 / 100
    wanted = [math.cos(3), -2 * math.sin(0.03), math.sin(3), 2 * math.cos(0.03)]
    assert turned.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_product_knows_the_distance_alone():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=g)
    at = lambda x, place: turn(x, rotary(angles(torch.tensor([[place]]), 4))).flatten()
    assert float(at(q, 5) @ at(k, 2)) == pytest.approx(float(at(q, 13) @ at(k, 10)), abs=1e-5)
    assert abs(float(at(q, 5) @ at(k, 2)) - float(at(q, 5) @ at(k, 3))) > 0.01


def test_two_heads_ask_one():
    q = torch.tensor([[[[0.0]], [[math.log(3.0)]]]])  # (1, 2 heads, 1, 1)
    k, v = torch.tensor([[[[0.0], [1.0]]]]), torch.tensor([[[[10.0], [20.0]]]])
    assert attend(q, k, v).flatten().tolist() == pytest.approx([15, 17.5])  # weights 1 : 1 and 1 : 3
    mask = torch.tensor([False, True]).reshape(1, 1, 1, 2)
    assert attend(q, k, v, mask).flatten().tolist() == [20, 20]


def test_the_norm_by_hand():
    norm = RMSNorm(2)
    h = torch.tensor([[[3.0, 4.0]]])  # rms = √12.5
    assert norm(h)[0].flatten().tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5], abs=1e-5)
    torch.nn.init.constant_(norm.weight, 1.0)
    assert norm(h)[0].flatten().tolist() == pytest.approx([6 / 12.5**0.5, 8 / 12.5**0.5], abs=1e-5)
    assert norm(h)[1] is None


def test_the_adaptive_norm_scales_shifts_and_gates():
    norm = AdaRMSNorm(2)
    h, c = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1.0, 0.0]])
    plain, gate = norm(h, c)
    assert plain.flatten().tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5], abs=1e-5)
    assert gate.abs().max() == 0
    norm.dense.weight.data[:, 0] = torch.tensor([1.0, 1.0, 5.0, 6.0, 7.0, 8.0])  # scale, shift, gate
    moved, gate = norm(h, c)
    assert moved.flatten().tolist() == pytest.approx([6 / 12.5**0.5 + 5, 8 / 12.5**0.5 + 6], abs=1e-5)
    assert gate.flatten().tolist() == [7, 8]


def test_a_mean_of_squares_is_taken_in_float32():
    norm = RMSNorm(4096).to(torch.bfloat16)
    h = torch.full((1, 1, 4096), 3.0, dtype=torch.bfloat16)
    assert norm(h)[0].dtype == torch.bfloat16
    assert norm(h)[0].float().sub(1).abs().max() < 1e-2
