"""The U-Net over a chunk: its parts by hand; and what it and the transformer, as heads of a policy, both promise."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import problems
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.networks import NETWORKS
from ebbtide.networks.action_film import ActionFiLMUNet
from ebbtide.networks.action_transformer import ActionTransformer
from ebbtide.networks.action_unet import ActionUNet, StepConv, StepNormSiLU
from ebbtide.samplers import sample
from ebbtide.specs import bind

SHAPES = {"state": (2, 3), "images": (2, 16, 32, 3), "prompt": (4,)}
STATE = {"state": (2, 3)}
IMAGE = {"heads": 4, "channels": 16}
unet = partial(ActionUNet, width=16, multipliers="1-2-3", groups=4, emb=32, layers=1, tokens=16, **IMAGE)
transformer = partial(ActionTransformer, width=16, depth=2, head=8, emb=32, layers=1, **IMAGE)
film = partial(ActionFiLMUNet, widths="16-32-48", kernel=3, groups=4, emb=32, summary=32, depth=1, tokens=16, **IMAGE)
heads = pytest.mark.parametrize(
    "make", [unet, film, transformer, partial(transformer, patch=3)], ids=["unet", "film", "tf", "tf3"]
)


def observe(b, shapes=SHAPES, seed=1):
    return problems.observe(b, shapes, seed)


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(make, horizon=8, actions=2, shapes=SHAPES, **options):
    """One with weights everywhere: what writes to the output starts at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = make(horizon, actions, observation=shapes, **options)
        for parameter in made.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
    return made.eval()


# --- what every head promises -------------------------------------------------------------------------------------


@heads
@pytest.mark.parametrize("horizon", [4, 7, 13, 16])
@pytest.mark.parametrize("shapes", [STATE, SHAPES], ids=["state", "all"])
def test_chunks_of_any_horizon(make, horizon, shapes):
    head = make(horizon, 5, observation=shapes)
    x, seen = randn(3, horizon, 5), observe(3, shapes)
    for t in (torch.rand(3), torch.rand(1)):
        y = head(x, t, **seen)
        assert y.shape == x.shape
        assert not y.any()  # at first


@heads
def test_the_last_action_counts_where_a_horizon_is_filled_up(make):
    head, seen = network(make, horizon=7), observe(1)
    x = randn(1, 7, 2)
    x.requires_grad_()
    slope = torch.autograd.grad(head(x, torch.tensor([0.4]), **seen)[:, -1].square().sum(), x)[0]
    assert bool((slope[0, -1] != 0).all())


@heads
def test_the_order_of_actions_is_known(make):
    head, seen, x = network(make), observe(2), randn(2, 8, 2)
    order = torch.tensor([3, 0, 5, 1, 7, 2, 4, 6])
    y = head(x, torch.tensor([0.3]), **seen)
    moved = head(x[:, order], torch.tensor([0.3]), **seen)[:, order.argsort()]
    assert (moved - y).abs().max() > 0.05 * y.std()


@heads
@pytest.mark.parametrize("shapes", [STATE, {"images": SHAPES["images"]}, {"prompt": (4,)}, SHAPES])
def test_a_context_is_what_it_was_made_from(make, shapes):
    """And holds all of the observation; one of a single observation serves a batch of any size."""
    head, seen, x, t = network(make, shapes=shapes), observe(3, shapes), randn(3, 8, 2), torch.rand(3)
    context = head.context(**seen)
    assert torch.equal(head(x, t, context=context), head(x, t, **seen))
    assert all(len(part) == 3 for part in context.values())
    one = {name: part[1:2] for name, part in context.items()}
    shared = head(x, t, context=one)
    alike = head(x, t, **{name: part[1:2].expand(3, *part.shape[1:]) for name, part in seen.items()})
    torch.testing.assert_close(shared, alike, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(shared[0], head(x, t, **seen)[0])


@heads
def test_everything_seen_and_the_time_count(make):
    head, seen, x, t = network(make), observe(2), randn(2, 8, 2), torch.tensor([0.3])
    y = head(x, t, **seen)
    assert not torch.allclose(head(x, torch.tensor([0.8]), **seen), y)
    for name, other in observe(2, seed=2).items():
        assert not torch.allclose(head(x, t, **seen | {name: other}), y), name


@heads
def test_a_missing_camera_and_padding_do_not_count(make):
    head, seen, x, t = network(make), observe(2), randn(2, 8, 2), torch.tensor([0.3])
    seen["prompt"][:, 2:] = 0
    seen["image_mask"] = torch.tensor([[True, False]] * 2)
    before, other = head(x, t, **seen), seen["images"].clone()
    other[:, 1] = 255 - other[:, 1]
    assert torch.equal(head(x, t, **seen | {"images": other}), before)
    with torch.no_grad():
        head.observation.encoder.byte.weight[0] = 30.0
        head.observation.encoder.place[2:] = 30.0
    torch.testing.assert_close(head(x, t, **seen), before)
    assert not torch.allclose(head(x, t, **seen | {"image_mask": torch.ones(2, 2, dtype=torch.bool)}), before)
    seen["prompt"].zero_()
    assert bool(head(x, t, **seen | {"image_mask": torch.zeros(2, 2, dtype=torch.bool)}).isfinite().all())


@heads
@pytest.mark.parametrize("shapes", [STATE, SHAPES], ids=["state", "all"])
def test_every_parameter_learns(make, shapes):
    head, seen = network(make, shapes=shapes), observe(4, shapes)
    head(randn(4, 8, 2), torch.rand(4), **seen).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (unet, 80),
        pytest.param(film, 400, marks=pytest.mark.slow),
        (transformer, 80),
        (partial(transformer, patch=3), 80),
    ],
    ids=["unet", "film", "tf", "tf3"],
)  # LeRobot's network sees nothing but the time for its first 200 steps
def test_it_learns_which_chunk_belongs_to_which_observation(make, steps):
    """Two states, two chunks; ten Euler steps from noise end at the right one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser(make(8, 2, observation=STATE), Linear())
        optimizer = torch.optim.Adam(denoiser.parameters())
        chunks = torch.stack([torch.linspace(-1, 1, 16).reshape(8, 2), torch.linspace(1, 0, 16).reshape(8, 2)])
        states = torch.stack([torch.ones(2, 3), -torch.ones(2, 3)])
        which = torch.arange(32) % 2
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
            loss = denoiser.loss(chunks[which], torch.randn(32, 8, 2), torch.rand(32), state=states[which]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        denoiser.eval()
        made = sample(denoiser, (8, 2), draws=Draws.first(2, 0), sampler="euler", steps=10, state=states)
    error = float((made - chunks).square().mean().sqrt())
    assert error < 0.26, error  # half of that of the mean of both


@heads
def test_it_runs_in_bf16(make):
    head, seen, x, t = network(make), observe(3), randn(3, 8, 2), torch.rand(3)
    exact = head(x, t, **seen)
    with torch.autocast("cpu", torch.bfloat16):
        y = head(x, t, **seen)
    assert (y.float() - exact).norm() < 0.1 * exact.norm()


@heads
def test_dropout_is_for_training(make):
    head, seen, x = network(make, shapes=STATE, dropout=0.5), observe(2, STATE), randn(2, 8, 2)
    assert torch.equal(head(x, torch.rand(1) * 0, **seen), head(x, torch.zeros(1), **seen))
    head.train()
    assert not torch.allclose(head(x, torch.zeros(1), **seen), head(x, torch.zeros(1), **seen))


@heads
def test_chunks_and_observations_that_are_refused(make):
    head, t = network(make), torch.zeros(1)
    for shape in ((1, 2, 8), (1, 9, 2), (1, 8, 3)):
        with pytest.raises(InputError, match=r"x must be of shape \(b, 8, 2\)"):
            head(torch.zeros(shape), t, **observe(1))
    x, seen = torch.zeros(1, 8, 2), observe(1)
    with pytest.raises(InputError, match="images is missing"):
        head(x, t, state=seen["state"], prompt=seen["prompt"])
    with pytest.raises(InputError, match="'poses'"):
        head.context(poses=torch.zeros(1, 3), **seen)
    with pytest.raises(InputError, match="finite"):
        head(x, t, **seen | {"state": torch.full((1, 2, 3), math.nan)})
    with pytest.raises(InputError, match="something"):
        make(8, 2, observation={})


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("action_unet:width=8,multipliers=1-1,kernel=3,blocks=2,groups=4,emb=16,layers=0", {"width": 8}),
        ("action_unet-film:widths=8-8,kernel=3,groups=4,emb=16,timesteps=50,scales=false", {"timesteps": 50}),
        ("action_transformer:width=16,depth=1,head=8,patch=2,mlp_ratio=2,layers=0", {"patch": 2}),
    ],
)
def test_options_of_the_command(spec, options):
    head = bind(NETWORKS, spec, "network")(6, 2, observation=STATE)
    assert head(torch.zeros(2, 6, 2), torch.zeros(2), **observe(2, STATE)).shape == (2, 6, 2)


# --- the U-Net's parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_convolution_is_torch_s(kernel):
    conv, x = StepConv(3, 4, kernel), randn(2, 7, 3)
    weight = conv.weight.unflatten(1, (kernel, 3)).mT  # (out, into, kernel)
    torch.testing.assert_close(conv(x), F.conv1d(x.mT, weight, conv.bias, padding=kernel // 2).mT)


@pytest.mark.parametrize("channels", [6, 64])
def test_the_norm_is_torch_s(channels):
    norm, x, scale, shift = StepNormSiLU(channels, 4), randn(40, 16, channels), randn(40, channels), randn(1, channels)
    groups = 4 if channels == 64 else 3
    assert norm.num_groups == groups
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    h = F.group_norm(x.mT, groups, norm.weight, norm.bias) * (1 + scale[..., None]) + shift[..., None]
    found = norm(x, scale, shift.expand(40, -1))
    torch.testing.assert_close(found, F.silu(h).mT, rtol=1e-4, atol=1e-5)
    assert found.is_contiguous()  # or else each convolution would have to copy it


def test_the_count_of_parameters():
    """By hand: width 8 and 16, kernel 3, emb 4, one state of 3 numbers, 2 actions, all with biases.

    Observation 3·4+4; time features 4, so 2 · (4·4+4). Convolutions of 3 i o + o, norms 2 o, FiLM 2 o (4+1), shortcuts
    i o + o: down (2→8) 56+16+80+200+16+24, (16→16) 784+32+160+784+32, middle as that, up (16→8) 392+16+80+200+16+136.
    Halving 16·16+16, doubling 16·16+16; at the end 200+16 and 8·2+2.
    """
    head = ActionUNet(8, 2, observation={"state": (1, 3)}, width=8, multipliers="1-2", kernel=3, emb=4, layers=0)
    parts = 16 + 40 + 392 + 1792 + 1792 + 840 + 272 + 272 + 216 + 18
    assert sum(p.numel() for p in head.parameters()) == parts


def test_levels_see_ever_more_steps():
    """With kernel 1 and norms gone, a step reaches those it is halved together with, and no others."""
    for multipliers, reach in (("1", 1), ("1-1", 2), ("1-1-1", 4)):
        head = network(unet, shapes=STATE, multipliers=multipliers, kernel=1)
        for module in head.modules():
            if isinstance(module, StepNormSiLU):
                module.forward = lambda h, *film: h
        x = randn(1, 8, 2)
        x.requires_grad_()
        y = head(x, torch.tensor([0.4]), **observe(1, STATE))
        slope = torch.autograd.grad(y[:, 5].sum(), x)[0].abs().sum(2)[0]
        first = 5 // reach * reach
        assert (slope > 0).nonzero().flatten().tolist() == list(range(first, first + reach))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, ("width", "1", "65536", "0")),
        ({"kernel": 4}, ("kernel", "odd", "4")),
        ({"kernel": 64}, ("kernel", "63", "64")),
        ({"blocks": 0}, ("blocks", "0")),
        ({"dropout": 1.0}, ("dropout", "0.99", "1.0")),
        ({"layers": -1}, ("layers", "-1")),
        ({"multipliers": "1-x"}, ("action_unet: multipliers", "'1-x'")),
    ],
)
def test_options_that_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        ActionUNet(8, 2, observation=STATE, **options)
    message = str(caught.value)
    assert message.endswith(".")
    for word in words:
        assert word in message, message
