"""The U-Net: its sizes, what it depends on, its parts by hand; memory formats and checkpointing change nothing."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from ebbtide.errors import InputError
from ebbtide.networks import NETWORKS
from ebbtide.networks.fused import norm_silu
from ebbtide.networks.parts import largest_divisor
from ebbtide.networks.unet import Downsample, ImageBlock, PixelAttention, UNet, Upsample
from ebbtide.specs import bind
from problems import fill

SMALL = {"width": 8, "multipliers": "1-2", "attention": "0-1", "blocks": 1, "groups": 4, "dropout": 0.0}
PRESETS = ["unet", "unet-tiny", "unet-small", "unet-flowers", "unet-ddpm-cifar10"]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def unet(*shape, **options):
    return fill(UNet(*(shape or (2, 8, 8)), **{**SMALL, **options}))


def inputs(b, *shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(b, *shape, generator=draw), torch.rand(b, generator=draw)


def close(x, y, atol=2e-5):
    torch.testing.assert_close(x, y, rtol=0, atol=atol * max(1.0, float(y.detach().abs().max())))


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "millions"),
    [
        ("unet", (3, 32, 32), (2.2, 2.6)),
        ("unet-tiny", (1, 8, 8), (0.5, 1.0)),
        ("unet-small", (1, 28, 28), (9.0, 10.0)),
        ("unet-flowers", (3, 160, 160), (30.0, 60.0)),
    ],
)
def test_the_rows_of_the_table(name, shape, millions):
    with torch.device("meta"):
        network = NETWORKS[name](*shape, 10)
        y = network(torch.empty(2, *shape), torch.empty(2), torch.empty(2, dtype=torch.int64))
    assert y.shape == (2, *shape)
    low, high = millions
    assert low < sum(p.numel() for p in network.parameters()) / 1e6 < high


def test_the_published_one_has_the_published_number_of_parameters():
    """35.7 M (Ho et al. 2020, Appendix B); to the last one those of google/ddpm-cifar10-32."""
    with torch.device("meta"):
        network = NETWORKS["unet-ddpm-cifar10"](3, 32, 32, 0)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_learns(name):
    """A narrow one of each row; what starts at 0 is moved, or it would hold back the rest."""
    network = fill(bind(NETWORKS, f"{name}:width=8,groups=2,blocks=1", "network")(2, 8, 8, 3)).train()
    x, t = inputs(5, 2, 8, 8)
    network(x, t, torch.tensor([0, 1, 2, 3, 1])).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert idle == []


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 20), (5, 2, 6), (2, 16, 30)])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_any_even_size(shape, asymmetric):
    """28 → 14 → 7 → 4 → 2, and back to the sizes of the skips."""
    network = unet(*shape, multipliers="1-1-2-1-1", attention="0-0-0-1-0", asymmetric=asymmetric)
    x, t = inputs(2, *shape)
    sizes = []
    for stage in network.down:
        if isinstance(stage, Downsample):
            stage.register_forward_hook(lambda _, __, y: sizes.append(y.shape[2:]))
    y = network(x, t)
    assert y.shape == x.shape
    assert bool(y.isfinite().all())
    assert sizes == [tuple(math.ceil(n / 2**level) for n in shape[1:]) for level in range(1, 5)]


@given(b=st.integers(1, 3), c=st.integers(1, 4), rows=st.integers(1, 6), one=st.booleans(), patch=st.integers(1, 2))
@settings(max_examples=15, deadline=None)
def test_the_output_is_shaped_like_the_input(b, c, rows, one, patch):
    network = unet(c, 4 * rows, 8, patch=patch)
    x, _ = inputs(b, c, 4 * rows, 8)
    t = torch.rand(1 if one else b)
    y = network(x, t)
    assert y.shape == x.shape
    close(y, network(x, t.expand(b)))


@pytest.mark.parametrize("width", [3, 5, 12, 20, 36])
def test_any_width(width):
    network = unet(1, 4, 4, width=width, head=16, groups=32)
    assert network(*inputs(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    for part in network.modules():
        if isinstance(part, nn.GroupNorm):
            assert part.num_groups <= 32
            assert part.num_channels % part.num_groups == 0


def test_the_largest_divisor():
    assert [largest_divisor(n, 32) for n in (1, 32, 48, 96, 37, 128)] == [1, 32, 24, 32, 1, 32]


def test_patches_cost_less_and_see_every_pixel():
    network = unet(1, 8, 8, patch=2, multipliers="1", attention="0")
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    y = network(x, torch.tensor([0.5]))
    assert network.stem.in_channels == 4  # of maps with a quarter of the pixels
    (gradient,) = torch.autograd.grad(y[0, 0, 4, 4], x)
    assert int((gradient != 0).sum()) == 64  # the norms see all pixels


def test_a_pixel_stays_where_it_is_under_patches():
    """With an identity for stem and last layer and nothing between, patches in and out cancel."""
    network = unet(1, 4, 6, patch=2, multipliers="1", attention="0", width=4)
    for part in (network.stem, network.out):
        nn.init.zeros_(part.bias)
        nn.init.dirac_(part.weight)
    seen = []
    network.stem.register_forward_hook(lambda _, __, y: seen.append(y))
    network.norm.register_forward_hook(lambda _, __, y: seen[0])
    x, t = inputs(1, 1, 4, 6)
    assert torch.equal(network(x, t), x)
    assert torch.equal(seen[0][0, :, 0, 0], x[0, 0, :2, :2].flatten())


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "named"),
    [
        ((1, 27, 28), {}, "rows and columns of an image must be even; got 27 × 28"),
        ((1, 28, 27), {}, "got 28 × 27"),
        ((1, 6, 8), {"patch": 4}, "multiples of patch = 4; got 6 × 8"),
        ((1, 8, 8), {"multipliers": "1-2-2"}, "attention must have a flag for each of '1-2-2'; got '0-1'"),
        ((1, 8, 8), {"multipliers": "1-x"}, "multipliers must be numbers"),
        ((1, 8, 8), {"multipliers": "1-0"}, "multipliers must be numbers"),
        ((1, 8, 8), {"multipliers": ""}, "multipliers must be numbers"),
        ((1, 8, 8), {"multipliers": "-".join("1" * 17), "attention": "-".join("0" * 17)}, "at most 16 levels; got 17"),
        ((1, 8, 8), {"attention": "0-2"}, "attention must be numbers of 0 to 1"),
        ((1, 8, 8), {"width": 0}, "width must be at least 1"),
        ((1, 8, 8), {"blocks": 0}, "blocks must be at least 1"),
        ((1, 8, 8), {"head": 0}, "head must be at least 1"),
        ((1, 8, 8), {"groups": 0}, "groups must be at least 1"),
        ((1, 8, 8), {"dropout": 1.0}, "dropout must be at least 0"),
        ((1, 8, 8), {"eps": math.nan}, "eps must be"),
        ((1, 8, 8), {"conditioning": "adds"}, "conditioning must be one of scale_shift, add; got 'adds'"),
        ((1, 8, 8), {"time": "step"}, "time must be one of fourier, timestep"),
        ((1, 8, 8), {"middle": "none"}, "middle must be one of"),
    ],
)
def test_what_it_cannot_be_is_said_in_one_sentence(shape, options, named):
    with pytest.raises(InputError, match=r"^unet: ") as refused:
        UNet(*shape, **{**SMALL, **options})
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_wrong_shapes_are_caught():
    network = unet()
    for x, t in (((4, 2, 8, 8), (3,)), ((4, 2, 8, 8), (4, 1)), ((2, 8, 8), (2,))):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            network(torch.zeros(x), torch.zeros(t))


# --- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_fresh_network_says_zero(name):
    network = bind(NETWORKS, f"{name}:width=8,groups=2,blocks=1", "network")(2, 8, 8, 3)
    x, t = inputs(3, 2, 8, 8)
    assert torch.equal(network(100 * x, t), torch.zeros(3, 2, 8, 8))


def test_fresh_blocks_change_nothing():
    """Residual: the second convolution and attention's output start at 0."""
    attend = PixelAttention(8, head=4, groups=2, eps=1e-5)
    block = ImageBlock(8, 8, attend, emb=6, conditioning="scale_shift", groups=2, eps=1e-5, dropout=0.5)
    x, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    assert torch.equal(block(x, emb), x)
    with torch.no_grad():
        block.conv2.bias.fill_(3.0)
        attend.out.bias.fill_(0.25)
    close(block(x, emb), x + 3.25)


@pytest.mark.parametrize("conditioning", ["scale_shift", "add"])
@pytest.mark.parametrize("time", ["fourier", "timestep"])
def test_it_depends_on_all_it_is_told_example_by_example(conditioning, time):
    network = unet(2, 8, 8, 3, conditioning=conditioning, time=time)
    x, t = inputs(4, 2, 8, 8)
    label = torch.tensor([0, 1, 2, 1])
    y = network(x, t, label)
    changed = torch.tensor([True, False, False, False])
    for moved in (
        network(torch.where(changed[:, None, None, None], x.flip(2), x), t, label),
        network(x, torch.where(changed, t / 2, t), label),
        network(x, t, torch.where(changed, 3, label)),
    ):
        assert not torch.allclose(moved[0], y[0], atol=1e-3)
        close(moved[1:], y[1:])


def test_no_label_is_the_null_label():
    network = unet(2, 8, 8, 3)
    x, t = inputs(4, 2, 8, 8)
    assert torch.equal(network(x, t), network(x, t, torch.full((4,), 3)))
    assert not torch.allclose(network(x, t), network(x, t, torch.full((4,), 2)), atol=1e-3)


def test_an_image_does_not_depend_on_its_batch():
    network = unet(2, 8, 8, 3)
    x, t = inputs(5, 2, 8, 8)
    label = torch.tensor([0, 1, 2, 3, 1])
    alone = [network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(5)]
    close(torch.cat(alone), network(x, t, label))


def test_dropout_acts_in_training_alone():
    network = unet(dropout=0.5)
    x, t = inputs(2, 2, 8, 8)
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


def test_every_skip_reaches_the_way_up():
    """Each stage on the way down is heard past the next one: silencing what lies between leaves its skip."""
    network = unet(1, 8, 8, multipliers="1-2-2", attention="0-0-0", blocks=2)
    x, t = inputs(1, 1, 8, 8)
    heard = []
    for stage in network.up:
        if isinstance(stage, ImageBlock):
            stage.register_forward_pre_hook(lambda _, args: heard.append(args[0].shape[1:]))
    network(x, t)
    # (channels from below + channels of the skip, rows, columns): last in, first out.
    assert heard == [
        (16 + 16, 2, 2), (16 + 16, 2, 2), (16 + 16, 2, 2),
        (16 + 16, 4, 4), (16 + 16, 4, 4), (16 + 8, 4, 4),
        (16 + 8, 8, 8), (8 + 8, 8, 8), (8 + 8, 8, 8),
    ]  # fmt: skip


# --- its parts by hand ----------------------------------------------------------------------------------------------


def test_norm_and_silu_by_hand():
    """Two groups of one channel: (0, 2) and (4, 8) are normed to (-1, 1), then scaled, shifted and bent."""
    x = torch.tensor([[[[0.0, 2.0]], [[4.0, 8.0]]]])
    weight, bias = torch.tensor([2.0, 1.0]), torch.tensor([0.5, 3.0])
    silu = lambda v: v / (1 + math.exp(-v))
    plain = [[silu(-1.5), silu(2.5)], [silu(2.0), silu(4.0)]]
    close(norm_silu(x, weight, bias, 2, 1e-9)[0, :, 0], torch.tensor(plain), 1e-6)
    scale, shift = torch.tensor([[1.0, -0.5]]), torch.tensor([[10.0, -1.0]])
    moved = [[silu(-1.5 * 2 + 10), silu(2.5 * 2 + 10)], [silu(2 * 0.5 - 1), silu(4 * 0.5 - 1)]]
    close(norm_silu(x, weight, bias, 2, 1e-9, scale, shift)[0, :, 0], torch.tensor(moved), 1e-6)


def test_the_norm_is_over_a_group_and_eps_is_in_the_variance():
    """One group of both channels: mean 3, variance 4.5; eps of 4.5 halves the square of what is left."""
    x = torch.tensor([[[[0.0, 2.0]], [[5.0, 5.0]]]])
    y = norm_silu(x, torch.ones(2), torch.zeros(2), 1, 4.5)
    expected = torch.nn.functional.silu(torch.tensor([-1.0, -1 / 3, 2 / 3, 2 / 3]))
    close(y.flatten(), expected, 1e-6)


def test_statistics_are_not_taken_in_bf16():
    """A small ripple on a large mean is lost to sums in bf16, which has 8 bits."""
    x = (torch.arange(4096) % 2).reshape(1, 1, 64, 64).mul(4.0).add(200.0)
    y = norm_silu(x.bfloat16(), torch.ones(1), torch.zeros(1), 1, 1e-6)
    assert y.dtype == torch.bfloat16
    close(y.float(), norm_silu(x, torch.ones(1), torch.zeros(1), 1, 1e-6), 0.01)


def test_a_block_scales_by_one_plus_the_first_half_and_shifts_by_the_second():
    block = fill(ImageBlock(2, 2, emb=1, conditioning="scale_shift", groups=1, eps=1e-5, dropout=0.0))
    for part in (block.conv1, block.conv2):
        nn.init.dirac_(part.weight)
        nn.init.zeros_(part.bias)
    with torch.no_grad():
        block.from_emb.weight.copy_(torch.tensor([[0.5], [-1.0], [0.25], [2.0]]))
        block.from_emb.bias.zero_()
        block.norm2.weight.fill_(1.0)
        block.norm2.bias.zero_()
    x, emb = torch.randn(1, 2, 3, 3), torch.tensor([[2.0]])
    h = nn.functional.group_norm(block.norm1(x), 1)
    expected = torch.stack([2 * h[:, 0] + 0.5, -1 * h[:, 1] + 4], 1)  # 1 + 0.5·2, 0.25·2; 1 - 1·2, 2·2
    close(block(x, emb), x + nn.functional.silu(expected), 1e-5)


def test_a_block_that_adds_does_so_before_the_norm():
    """One group a channel: an addend of the whole map is normed away, as no scale or shift would be."""
    block = fill(ImageBlock(2, 2, emb=3, conditioning="add", groups=2, eps=1e-5, dropout=0.0))
    x = torch.randn(1, 2, 4, 4)
    close(block(x, torch.randn(1, 3)), block(x, 5 * torch.randn(1, 3)))
    block = fill(ImageBlock(2, 2, emb=3, conditioning="add", groups=1, eps=1e-5, dropout=0.0), std=1.0)
    assert not torch.allclose(block(x, torch.randn(1, 3)), block(x, 5 * torch.randn(1, 3)), atol=1e-3)


def test_attention_by_hand():
    """Two pixels, one channel, q = k = v = x and no norm: weights e^{x_i x_j} / Σ."""
    attend = PixelAttention(1, head=64, groups=1, eps=1e-5, norm=False)
    for part, weight in ((attend.qkv, 1.0), (attend.out, 1.0)):
        nn.init.constant_(part.weight, weight)
        nn.init.zeros_(part.bias)
    first, second = 1.0, 2.0
    seen = [(a * math.exp(q * a) + b * math.exp(q * b)) / (math.exp(q * a) + math.exp(q * b))
            for q, a, b in ((first, first, second), (second, first, second))]  # fmt: skip
    y = attend(torch.tensor([[[[first, second]]]]))
    close(y.flatten(), torch.tensor([first + seen[0], second + seen[1]]), 1e-6)


def test_heads():
    """As many channels each as divide the level's: 64 where they can, fewer where they can't."""
    heads = lambda channels, head: PixelAttention(channels, head=head, groups=1, eps=1e-5).heads
    assert [heads(128, 64), heads(32, 64), heads(96, 64), heads(288, 64), heads(128, 256)] == [2, 1, 2, 6, 1]


def test_a_head_has_its_own_weights():
    """What two heads of four channels see is not what one of eight sees."""
    one, two = (fill(PixelAttention(8, head=head, groups=2, eps=1e-5), std=0.5) for head in (8, 4))
    x = torch.randn(1, 8, 2, 3)
    assert not torch.allclose(one(x), two(x), atol=1e-3)
    pixels = nn.functional.group_norm(x, 2, two.norm.weight, two.norm.bias).flatten(2).mT
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(two.qkv.weight)
        reference.in_proj_bias.copy_(two.qkv.bias)
        reference.out_proj.weight.copy_(two.out.weight)
        reference.out_proj.bias.copy_(two.out.bias)
    expected = reference(pixels, pixels, pixels, need_weights=False)[0]
    close(two(x), x + expected.mT.reshape(x.shape))


@pytest.mark.parametrize(
    ("asymmetric", "size", "expected"),
    [(False, 4, [4.0, 6.0]), (True, 4, [6.0, 4.0]), (False, 5, [4.0, 6.0, 4.0]), (True, 5, [6.0, 6.0, 2.0])],
)
def test_where_a_downsample_pads(asymmetric, size, expected):
    """A convolution of ones on a row of ones in two rows of ones: how many of them it sees."""
    down = Downsample(1, asymmetric)
    nn.init.ones_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)
    y = down(torch.ones(1, 1, 2, size), torch.zeros(1, 1))
    assert y.flatten().tolist() == expected


def test_an_upsample_repeats_pixels():
    up = Upsample(1)
    nn.init.dirac_(up.conv.weight)
    nn.init.zeros_(up.conv.bias)
    y = up(torch.tensor([[[[1.0, 2.0]]]]), like=torch.zeros(1, 3, 2, 4))
    assert y[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.mark.parametrize(("middle", "expected"), [("attention", (True, True)), ("unnormed", (True, False)),
                                                  ("plain", (False, False))])  # fmt: skip
def test_the_middle(middle, expected):
    attention = unet(middle=middle).middle[0].attention
    has = isinstance(attention, PixelAttention)
    assert (has, has and isinstance(attention.norm, nn.GroupNorm)) == expected


# --- how it runs ----------------------------------------------------------------------------------------------------


def gradients(network, x, t):
    network.zero_grad()
    network(x, t).square().sum().backward()
    return [p.grad.clone() for p in network.parameters()]


def test_checkpointing_gives_the_same_gradients():
    plain, saving = unet().train(), unet(checkpointing=True).train()
    x, t = inputs(2, 2, 8, 8)
    calls = []
    saving.middle[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for expected, found in zip(gradients(plain, x, t), gradients(saving, x, t), strict=True):
        close(found, expected)
    assert len(calls) == 2  # once more on the way back
    with torch.no_grad():
        saving(x, t)
    assert len(calls) == 3


def test_channels_last_gives_the_same():
    network = unet(2, 12, 20)
    x, t = inputs(2, 2, 12, 20)
    y, before = network(x, t), gradients(network, x, t)
    network.to(memory_format=torch.channels_last)
    formats = []
    for stage in (*network.down, *network.middle, *network.up):
        stage.register_forward_hook(lambda _, __, h: formats.append(h.is_contiguous(memory_format=torch.channels_last)))
    close(network(x, t), y)
    assert all(formats)  # of x as it comes; nothing inside turns it back
    for expected, found in zip(before, gradients(network, x, t), strict=True):
        close(found, expected, 1e-4)


def test_autocast_to_bf16_stays_close():
    network = fill(UNet(2, 8, 8, **SMALL), std=0.1)
    x, t = inputs(4, 2, 8, 8)
    y = network(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(x, t)
    assert found.dtype == torch.bfloat16
    assert float((found - y).norm().detach() / y.norm().detach()) < 0.03


def test_its_weights_are_the_same_on_the_meta_device():
    with torch.device("meta"):
        outline = UNet(2, 8, 8, 3, **SMALL).state_dict()
    assert {name: part.shape for name, part in outline.items()} == {
        name: part.shape for name, part in unet(2, 8, 8, 3).state_dict().items()
    }
