"""The DiT: its parts by hand, its start, what it depends on, and the paper's own network on the same weights."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.networks import NETWORKS
from ebbtide.networks.dit import DiT, DiTBlock, patch_turns, patchify, unpatchify
from ebbtide.networks.parts import SelfAttention, sincos, turn
from ebbtide.specs import bind

SMALL = {"width": 16, "depth": 2, "head": 8}


def network(shape=(1, 4, 6), classes=0, **options):
    """One with weights everywhere: what writes to the output starts at 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dit = DiT(*shape, classes, **SMALL | options)
        for parameter in dit.parameters():
            nn.init.normal_(parameter, std=0.3)
    return dit.eval()


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the rows of the table ----------------------------------------------------------------------------------------

PRESETS = [name for name in NETWORKS if name.startswith("dit")]


def test_the_presets():
    assert PRESETS == ["dit", "dit-tiny", "dit-small", "dit-b2"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 48)])
def test_presets_take_images(name, shape):
    with torch.device("meta"):
        dit = NETWORKS[name](*shape, 10)
        y = dit(torch.zeros(2, *shape), torch.zeros(1), label=torch.zeros(2, dtype=torch.int64))
    assert y.shape == (2, *shape)


def millions(spec):
    """Parameters for ImageNet's latents, (4, 32, 32) in 1000 classes, in millions."""
    with torch.device("meta"):
        return sum(p.numel() for p in bind(NETWORKS, spec, "network")(4, 32, 32, 1000).parameters()) / 1e6


@pytest.mark.parametrize(
    ("spec", "paper"),
    [
        ("dit-small", 33),
        ("dit-b2", 130),
        ("dit:width=1024,depth=24", 458),
        ("dit:width=1152,depth=28,head=72", 675),
        ("dit-b2:patch=8", 131),
    ],
)
def test_sizes_are_the_paper_s(spec, paper):
    """Peebles & Xie, Table 4: S/2, B/2, L/2, XL/2, B/8."""
    assert round(millions(spec)) == paper


def test_the_count_of_b2_to_the_last_parameter():
    """By hand, with w = 768: 12 blocks of 18 w² + 15 w; patches 16 w + w; time 256 w + w² + 2 w; 1001 labels;
    the last adaLN 2 w² + 2 w and layer 16 w + 16 (the paper's, with a variance, 32 w + 32)."""
    assert round(millions("dit-b2") * 1e6) == 130_303_504


def test_tiny_is_tiny():
    with torch.device("meta"):
        assert sum(p.numel() for p in NETWORKS["dit-tiny"](1, 8, 8, 10).parameters()) < 1_000_000


def test_options_of_the_command():
    dit = bind(NETWORKS, "dit:width=16,depth=1,head=8,patch=1,mlp_ratio=2,positions=rotary", "network")(1, 3, 5, 0)
    assert dit(torch.zeros(2, 1, 3, 5), torch.zeros(2)).shape == (2, 1, 3, 5)
    assert dit.blocks[0].mlp[0].weight.shape == (32, 16)
    assert dit.positions is None


# --- parts, by hand -----------------------------------------------------------------------------------------------


def test_the_order_of_patches_and_pixels():
    """Two channels of 4 × 4 pixels, 10 row + column, the second 100 more."""
    pixels = 10 * torch.arange(4.0)[:, None] + torch.arange(4.0)
    patches = patchify(torch.stack([pixels, pixels + 100])[None], 2)
    assert patches[0].tolist() == [
        [0, 1, 10, 11, 100, 101, 110, 111],
        [2, 3, 12, 13, 102, 103, 112, 113],
        [20, 21, 30, 31, 120, 121, 130, 131],
        [22, 23, 32, 33, 122, 123, 132, 133],
    ]


@given(b=st.integers(1, 3), c=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4), p=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_unpatchify_undoes_patchify(b, c, rows, columns, p):
    x = torch.randn(b, c, rows * p, columns * p)
    patches = patchify(x, p)
    assert patches.shape == (b, rows * columns, c * p * p)
    assert torch.equal(unpatchify(patches, p, rows * p), x)


def test_sincos_by_hand():
    """Width 8 has frequencies 1 and 10000^(-1/2) = 0.01; row 2, column 1 of 3 × 4 patches is the tenth."""
    column = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    row = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    torch.testing.assert_close(sincos(3, 4, 8)[9], torch.tensor(column + row))


def test_sincos_tells_all_patches_apart():
    places = sincos(16, 24, 16)
    assert float((torch.cdist(places, places) + 9 * torch.eye(16 * 24)).min()) > 0.1


def test_turning_by_hand():
    """A head of 4 has the frequency 1 alone: channels 0 and 2 turn with the column, 1 and 3 with the row."""
    q = torch.tensor([1.0, 1, 0, 0]).expand(1, 1, 6, 4)
    c1, s1, c2, s2 = math.cos(1), math.sin(1), math.cos(2), math.sin(2)
    turned = turn(q, patch_turns(2, 3, 4))[0, 0]
    torch.testing.assert_close(turned[0], torch.tensor([1.0, 1, 0, 0]))
    torch.testing.assert_close(turned[2], torch.tensor([c2, 1, s2, 0]))
    torch.testing.assert_close(turned[5], torch.tensor([c2, c1, s2, s1]))


def test_rotary_frequencies():
    """A head of 8 has frequencies 1 and 100^(-1/2) = 0.1, first for the column, then for the row."""
    cos, sin = patch_turns(3, 4, 8)
    angles = torch.tensor([3.0, 0.3, 2, 0.2])
    torch.testing.assert_close(cos[11], angles.cos().repeat(2))
    torch.testing.assert_close(sin[11], torch.cat([-angles.sin(), angles.sin()]))


def test_rotary_scores_depend_on_the_displacement_alone():
    """One query and one key at all places of 5 × 6: equal displacements score alike, others differ."""
    by = patch_turns(5, 6, 8)
    q, k = (turn(randn(8, seed=seed).expand(1, 1, 30, 8), by)[0, 0] for seed in (1, 2))
    scores = (q @ k.mT).reshape(5, 6, 5, 6)
    seen = {}
    for r, c, r2, c2 in torch.cartesian_prod(*map(torch.arange, scores.shape)).tolist():
        seen.setdefault((r2 - r, c2 - c), []).append(float(scores[r, c, r2, c2]))
    assert all(max(alike) - min(alike) < 1e-4 for alike in seen.values())
    means = sorted(sum(alike) / len(alike) for alike in seen.values())
    assert len(means) == 9 * 11
    assert min(b - a for a, b in pairwise(means)) > 1e-5


def test_attention_by_hand():
    """q = 0 weighs all patches alike, so each gets the mean of the values; one head of two channels."""
    attention = SelfAttention(2, 2)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.cat([torch.zeros(2, 2), torch.randn(2, 2), torch.eye(2)]))
        attention.out.weight.copy_(torch.eye(2))
    h = torch.tensor([[[1.0, 2], [3, 4], [8, 0]]])
    torch.testing.assert_close(attention(h), torch.tensor([[[4.0, 2], [4, 2], [4, 2]]]))


# --- at the start -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_a_fresh_network_says_zero(positions):
    dit = DiT(2, 4, 6, 3, **SMALL, positions=positions)
    y = dit(100 * torch.randn(2, 2, 4, 6), torch.rand(2), label=torch.tensor([0, 2]))
    assert torch.equal(y, torch.zeros(2, 2, 4, 6))


def test_no_modulation_at_the_start():
    """Every adaLN starts as a plain normalisation: give the last layer weights, and time still has no say."""
    dit = DiT(2, 4, 6, **SMALL)
    nn.init.normal_(dit.out.weight)
    x = torch.randn(2, 2, 4, 6)
    assert dit(x, torch.tensor([0.1])).std() > 0.1
    assert torch.equal(dit(x, torch.tensor([0.1])), dit(x, torch.tensor([0.9])))


def test_a_fresh_block_is_the_identity():
    h = torch.randn(2, 6, 16)
    assert torch.equal(DiTBlock(16, 8, 64, 0.0)(h, torch.randn(2, 16)), h)


@pytest.mark.parametrize(("gate", "branch"), [(2, "attention"), (5, "mlp")])
def test_each_gate_opens_its_branch(gate, branch):
    """With γ = 3 and no shift or scale a block adds three times its branch of the normalised tokens."""
    block, h = DiTBlock(16, 8, 64, 0.0), torch.randn(2, 6, 16)
    with torch.no_grad():
        block.modulation[1].bias.unflatten(0, (6, 16))[gate] = 3
    normal = (h - h.mean(-1, keepdim=True)) / h.std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(block(h, torch.randn(2, 16)), h + 3 * getattr(block, branch)(normal))


def test_weights_start_as_in_the_paper_s_code():
    """Xavier's uniform: within √(6 / (inputs + outputs)), and near it; no bias."""
    block = DiT(1, 4, 4, **SMALL).blocks[0]
    for layer in (block.attention.qkv, block.attention.out, block.mlp[0], block.mlp[2]):
        largest = layer.weight.abs().max().item() / math.sqrt(6 / sum(layer.weight.shape))
        assert 0.9 < largest <= 1
        assert not layer.bias.any()


# --- what it depends on -------------------------------------------------------------------------------------------


@given(
    b=st.integers(1, 3), c=st.integers(1, 4), rows=st.integers(1, 3), columns=st.integers(1, 3),
    patch=st.integers(1, 3), one=st.booleans(), positions=st.sampled_from(["sincos", "rotary"]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_the_output_is_shaped_like_the_input(b, c, rows, columns, patch, one, positions):
    shape = (c, rows * patch, columns * patch)
    dit = network(shape, patch=patch, positions=positions)
    x, t = torch.randn(b, *shape), torch.rand(1 if one else b)
    y = dit(x, t)
    assert y.shape == x.shape
    torch.testing.assert_close(y, dit(x, t.expand(b)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_it_depends_on_all_it_is_told_example_by_example(classes, positions):
    dit, x, t = network(classes=classes, positions=positions), randn(4, 1, 4, 6), torch.linspace(0.1, 0.9, 4)
    cond = {"label": torch.tensor([0, 1, 2, 1])} if classes else {}
    y = dit(x, t, **cond)
    changed = torch.tensor([True, False, False, False])
    pixel = torch.zeros(4, 1, 4, 6)
    pixel[0, 0, 3, 5] = 1
    moves = [dit(x + pixel, t, **cond), dit(x, torch.where(changed, t / 2, t), **cond)]
    if classes:
        moves.append(dit(x, t, label=torch.tensor([3, 1, 2, 1])))
    for moved in moves:
        assert bool((patchify(moved[:1] - y[:1], 2).abs().amax(-1) > 1e-3).all()), "every patch hears of every other"
        torch.testing.assert_close(moved[1:], y[1:])


def test_an_example_does_not_depend_on_its_batch():
    dit, x, t = network(classes=3), randn(5, 1, 4, 6), torch.linspace(0, 1, 5)
    label = torch.tensor([0, 1, 2, 3, 0])
    alone = [dit(x[i : i + 1], t[i : i + 1], label=label[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), dit(x, t, label=label), rtol=1e-4, atol=1e-4)


def test_no_label_is_the_null_label():
    dit, x, t = network(classes=3), randn(2, 1, 4, 6), torch.rand(2)
    null, first = (dit(x, t, label=torch.full((2,), k)) for k in (3, 0))
    torch.testing.assert_close(dit(x, t), null)
    torch.testing.assert_close(dit(x, t[:1], label=None), dit(x, t[:1].expand(2), label=torch.tensor([3, 3])))
    assert not torch.allclose(first, null)


def permuted(dit, x):
    """The network's output for x with its patches in another order, put back in order."""
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    moved = unpatchify(patchify(x, 2)[:, order], 2, 4)
    return unpatchify(patchify(dit(moved, torch.tensor([0.3])), 2)[:, order.argsort()], 2, 4)


def test_only_positions_tell_patches_apart():
    x = randn(2, 1, 4, 6)
    for positions in ("sincos", "rotary"):
        dit = network(positions=positions)
        y = dit(x, torch.tensor([0.3]))
        assert (permuted(dit, x) - y).abs().max() > 0.05 * y.std()
    dit.rotary = None
    torch.testing.assert_close(permuted(dit, x), dit(x, torch.tensor([0.3])), rtol=1e-4, atol=1e-4)


def test_a_rotary_network_does_not_know_where_its_image_lies():
    """On 2 × 3 patches in the middle of a larger grid it says the same; with sincos it doesn't."""
    x, t = randn(2, 1, 4, 6), torch.rand(2)
    for positions, far in (("rotary", patch_turns(7, 9, 8)), ("sincos", sincos(7, 9, 16)[None])):
        dit = network(positions=positions)
        y = dit(x, t)
        middle = far.unflatten(1, (7, 9))[:, 4:6, 5:8].flatten(1, 2)
        setattr(dit, positions.replace("sincos", "positions"), middle.squeeze(0))
        assert torch.allclose(dit(x, t), y, rtol=1e-3, atol=1e-4) == (positions == "rotary")


# --- learning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_every_parameter_learns(positions):
    dit = network((2, 4, 6), classes=2, positions=positions)
    dit(randn(3, 2, 4, 6), torch.rand(3), label=torch.tensor([0, 1, 2])).square().sum().backward()
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_it_learns_one_image():
    """The velocity (x_t - x₀)/t is learnt to a fifth of the loss of saying 0, in 60 steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser(DiT(1, 4, 4, width=32, depth=2, head=16), Linear())
        optimizer = torch.optim.Adam(denoiser.parameters(), lr=5e-3)
        x0 = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).expand(32, -1, -1, -1)
        losses = []
        for _ in range(60):
            loss = denoiser.loss(x0, torch.randn(32, 1, 4, 4), torch.rand(32)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] / 5


def test_checkpointing_computes_twice_and_changes_nothing():
    """Also with dropout: the blocks draw the same mask the second time."""
    found = {}
    for checkpointing in (False, True):
        dit = network(dropout=0.5, checkpointing=checkpointing).train()
        calls = []
        dit.blocks[0].attention.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            y = dit(randn(2, 1, 4, 6), torch.tensor([0.2, 0.7]))
            y.square().sum().backward()
        found[checkpointing] = [y, *(p.grad for p in dit.parameters())]
        assert len(calls) == 1 + checkpointing
        with torch.no_grad():
            dit(randn(2, 1, 4, 6), torch.tensor([0.2]))
        assert len(calls) == 2 + checkpointing
    torch.testing.assert_close(found[True], found[False])


def test_dropout_is_for_training():
    dit, x, t = network(dropout=0.5), randn(2, 1, 4, 6), torch.tensor([0.2])
    assert torch.equal(dit(x, t), network()(x, t))
    dit.train()
    assert not torch.allclose(dit(x, t), dit(x, t))


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_it_runs_in_bf16(positions):
    dit, x, t = network(classes=2, positions=positions), randn(3, 1, 4, 6), torch.rand(3)
    label = torch.tensor([0, 1, 2])
    exact = dit(x, t, label=label)
    sums = []
    for block in dit.blocks:
        block.register_forward_hook(lambda _, __, h: sums.append(h.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        y = dit(x, t, label=label)
    assert sums == [torch.float32] * 2
    y.float().square().sum().backward()
    assert (y - exact).norm() < 0.05 * exact.norm()
    assert all(bool(p.grad.isfinite().all()) for p in dit.parameters())


COMPILE = """
import torch
from ebbtide.networks.dit import DiT
torch.set_num_threads(1)
for positions, checkpointing in (("sincos", False), ("rotary", True)):
    dit = DiT(1, 4, 6, 2, width=16, depth=2, head=8, positions=positions, checkpointing=checkpointing)
    for p in dit.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, t, label = torch.randn(3, 1, 4, 6), torch.rand(3), torch.tensor([0, 1, 2])
    compiled = torch.compile(dit, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, label=label), dit(x, t, label=label))
    torch.testing.assert_close(compiled(x, t[:1]), dit(x, t[:1]))
    compiled(x, t, label=label).square().sum().backward()
    assert all(p.grad is not None for p in dit.parameters())
    print(positions)
"""


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    """In a process of its own: the tests' checks of types and shapes, which no user has, can't be traced."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["sincos", "rotary"]


# --- the paper's own ----------------------------------------------------------------------------------------------


class Steps(nn.Module):
    """The paper's features of the time, as diffusers makes them of an integer step."""

    def forward(self, t):
        from diffusers.models.embeddings import Timesteps

        return Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=1)(t).to(t)


def test_it_is_the_paper_s_network():
    """diffusers' port of the paper's code, given our weights, says the same; also that it has our positions."""
    from diffusers import DiTTransformer2DModel

    theirs = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=3, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=5, norm_eps=1e-6,
    ).double().eval()  # fmt: skip
    ours = network((3, 8, 8), classes=5).double()
    ours.from_time[0] = Steps()
    torch.testing.assert_close(theirs.pos_embed.pos_embed[0].double(), ours.positions, rtol=0, atol=1e-6)
    ours.positions = theirs.pos_embed.pos_embed[0]

    def pair(name, layer):
        return {f"{name}.{kind}": tensor for kind, tensor in layer.state_dict().items()}

    weights = {
        "pos_embed.proj.weight": ours.from_patch.weight.reshape(16, 3, 2, 2),
        "pos_embed.proj.bias": ours.from_patch.bias,
        **pair("proj_out_1", ours.modulation[1]),
        # A patch of the paper's output holds its pixels, each with its channels.
        "proj_out_2.weight": ours.out.weight.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1),
        "proj_out_2.bias": ours.out.bias.unflatten(0, (3, 4)).mT.flatten(),
    }
    for i, block in enumerate(ours.blocks):
        at = f"transformer_blocks.{i}."
        weights |= pair(f"{at}norm1.emb.timestep_embedder.linear_1", ours.from_time[1])
        weights |= pair(f"{at}norm1.emb.timestep_embedder.linear_2", ours.from_time[3])
        weights |= pair(f"{at}norm1.emb.class_embedder.embedding_table", ours.from_label)
        weights |= pair(f"{at}norm1.linear", block.modulation[1])
        for name, weight, bias in zip("qkv", block.attention.qkv.weight.chunk(3), block.attention.qkv.bias.chunk(3)):
            weights |= {f"{at}attn1.to_{name}.weight": weight, f"{at}attn1.to_{name}.bias": bias}
        weights |= pair(f"{at}attn1.to_out.0", block.attention.out)
        weights |= pair(f"{at}ff.net.0.proj", block.mlp[0])
        weights |= pair(f"{at}ff.net.2", block.mlp[2])
    theirs.load_state_dict(weights)
    x, t, label = randn(3, 3, 8, 8).double(), torch.tensor([0.0, 10, 900]).double(), torch.tensor([0, 4, 5])
    with torch.no_grad():
        expected = theirs(x, t, class_labels=label).sample
        torch.testing.assert_close(ours(x, t, label=label), expected, rtol=1e-9, atol=1e-9)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, ("width", "1", "65536", "0")),
        ({"depth": 0}, ("depth", "1", "1024", "0")),
        ({"head": 0}, ("head", "1", "0")),
        ({"patch": 0}, ("patch", "1", "0")),
        ({"mlp_ratio": 0.5}, ("mlp_ratio", "1", "64", "0.5")),
        ({"mlp_ratio": math.nan}, ("mlp_ratio", "nan")),
        ({"dropout": 1.0}, ("dropout", "0.99", "1.0")),
        ({"patch": 4}, ("patch", "4 rows", "6 columns", "4")),
        ({"patch": 3}, ("patch", "4 rows", "6 columns", "3")),
        ({"head": 12}, ("head", "width", "16", "12")),
        ({"width": 18, "head": 9}, ("width", "4", "sincos", "18")),
        ({"width": 18, "head": 6, "positions": "rotary"}, ("head", "4", "rotary", "6")),
        ({"positions": "rotatory"}, ("positions", "sincos, rotary", "'rotatory'", "did you mean 'rotary'")),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(InputError) as caught:
        DiT(1, 4, 6, **SMALL | options)
    message = str(caught.value)
    assert message.startswith("dit: ")
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_odd_images_need_an_odd_patch():
    for shape in ((1, 7, 6), (1, 6, 7), (1, 7, 7)):
        with pytest.raises(InputError, match=f"patch must divide the image's {shape[1]} rows and {shape[2]} columns"):
            DiT(*shape, **SMALL)
    assert network((1, 9, 3), patch=3)(torch.zeros(1, 1, 9, 3), torch.zeros(1)).shape == (1, 1, 9, 3)


def test_images_of_another_shape_are_refused():
    dit = network((2, 4, 6))
    for shape in ((1, 2, 6, 4), (1, 2, 4, 4), (1, 1, 4, 6)):
        with pytest.raises(InputError, match=r"\(b, 2, 4, 6\)"):
            dit(torch.zeros(shape), torch.zeros(1))
    for shape, t in (((2, 2, 4, 6), (3,)), ((2, 2, 4, 6), (2, 1)), ((2, 4, 6), (2,))):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            dit(torch.zeros(shape), torch.zeros(t))


def test_it_says_which_label_is_no_class():
    """The one after the last class, which training puts in the place of hidden labels."""
    assert NETWORKS["dit-tiny"](1, 8, 8, 10).from_label.null == 10
