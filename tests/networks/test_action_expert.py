"""π0's head: who sees whom and from where, what is computed once, and what must not matter."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

import problems
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.networks.action_expert import ActionExpert, Expert, digitise, token_turns
from ebbtide.networks.clock import periodic
from ebbtide.networks.parts import token_places
from ebbtide.specs import options

SIZES = {"depth": 2, "heads": 4, "kv_heads": 2, "head": 6}
SMALL = {"width": 8, "hidden": 12} | SIZES
H, A = 3, 2
ALL = {"state": (2, 3), "images": (2, 16, 32, 3), "prompt": (5,)}


fill = partial(problems.fill, std=0.4)


def network(observation=ALL, **changed):
    return fill(ActionExpert(H, A, observation=observation, **SMALL | changed))


def randn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def observe(shapes=ALL, b=3):
    g = torch.Generator().manual_seed(5)
    made = {"state": torch.randn(b, *shapes["state"], generator=g)} if "state" in shapes else {}
    if "images" in shapes:
        made["images"] = torch.randint(0, 256, (b, *shapes["images"]), dtype=torch.uint8, generator=g)
        made["image_mask"] = torch.ones(b, shapes["images"][0], dtype=torch.bool)
    if "prompt" in shapes:
        made["prompt"] = torch.randint(1, 257, (b, *shapes["prompt"]), generator=g)
    return made


# --- its parts, by hand -----------------------------------------------------------------------------------------------


def test_the_time():
    """Periods 0.004, 0.04, 0.4 and 4."""
    found = periodic(torch.tensor([0.0, 0.001, 1.0]), 8)
    assert found.dtype == torch.float64
    assert found[0].tolist() == [0] * 4 + [1] * 4
    expected = [1, math.sin(math.pi / 20), math.sin(math.pi / 200), math.sin(math.pi / 2000)]
    assert found[1, :4].tolist() == pytest.approx(expected, abs=1e-6)
    assert found[2].tolist() == pytest.approx([0, 0, 0, 1, 1, 1, -1, 0], abs=1e-9)


def test_the_bins_of_a_state():
    state = torch.tensor([-9, -1, -0.9999, -0.99, 0, 0.9999, 1, 9])
    assert digitise(state).tolist() == [0, 0, 0, 1, 128, 255, 255, 255]


def test_the_state_in_the_prefix():
    """pi05: two states that lie in the same bins are the same."""
    net, seen, x, t = network(variant="pi05"), observe(), randn(3, H, A), torch.rand(3)
    seen["state"] = torch.full((3, 2, 3), 0.502)
    y = net(x, t, **seen)
    assert torch.equal(net(x, t, **seen | {"state": seen["state"] - 0.001}), y)
    assert not torch.allclose(net(x, t, **seen | {"state": seen["state"] - 0.005}), y)


# --- who sees whom ----------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """A prefix of given tokens, some of which aren't there."""

    def __init__(self, h, present):
        super().__init__()
        self.sizes, self.expert = SIZES, Expert(width=h.shape[2], hidden=12, remembers=True, **SIZES)
        self.h, self.present = h, present

    def forward(self):
        by = token_turns(token_places(self.present), SIZES["head"])
        return self.expert.remember(self.h, by, self.present[:, None, None]), self.present


PRESENT = torch.tensor([[True, False, True]])
SEES = """
1 0 1 0 0 0
. . . . . .
1 0 1 0 0 0
1 0 1 1 0 0
1 0 1 1 1 1
1 0 1 1 1 1
"""  # who (row) sees whom (column): three of the prefix, the second absent; the state; two actions
PLACES = [0, 0, 1, 2, 3, 4]


def given(h, **changed):
    net = ActionExpert(2, A, observation={"state": (1, 3)}, prefix=Given(h, PRESENT), **SMALL | changed)
    return fill(net).double()


def sees():
    """The rows that count: an absent token's are read by none."""
    rows = [[mark == "1" for mark in row.split()] for row in SEES.split("\n")[1:-1]]
    return torch.tensor(rows), [0, 2, 3, 4, 5]


def test_the_matrix_is_the_cumulative_rule():
    """A token sees those that are there and whose block isn't later, blocks being counted by where one begins."""
    begins = torch.tensor([0, 0, 0, 1, 1, 0])
    there = torch.cat([PRESENT[0], torch.ones(3, dtype=torch.bool)])
    block = begins.cumsum(0)
    found, rows = sees()
    assert torch.equal(found[rows], ((block[None] <= block[:, None]) & there)[rows])
    assert token_places(there[None])[0].tolist() == PLACES


@torch.no_grad()
def test_who_sees_whom():
    """By what changes: of the prefix and the state the last layer's keys, of the actions the output."""

    def run(nudged=None):
        h, state, x = randn(1, 3, 8).double(), randn(1, 1, 3, seed=2).double(), randn(1, 2, A, seed=3).double()
        if nudged is not None:
            token = (*h[0], state[0, 0], *x[0])[nudged]
            token += 0.1
        net = given(h)
        context = net.context(state=state)
        assert torch.equal(context["by"], token_turns(torch.tensor([PLACES[4:]]), SIZES["head"]))
        y = net(x, torch.tensor([0.3]).double(), context=context)
        return [*context["memory"][-1][0][0].transpose(0, 1), *y[0]]

    usual = run()
    found = torch.tensor([[not torch.equal(a, b) for a, b in zip(usual, run(j))] for j in range(6)]).T
    expected, rows = sees()
    assert torch.equal(found[rows], expected[rows])


def joint(net, h, state, x, t):
    """All tokens at once, through both experts, by the matrix above: what `context` and `forward` do in turns."""
    seen, _ = sees()
    seen[1, 1] = True
    angle = torch.tensor(PLACES)[:, None] * 10_000.0 ** (-torch.arange(3) / 3)

    def turned(part):
        one, two = part.unflatten(-1, (2, 3)).unbind(-2)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

    def normed(norm, part):
        return part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + norm.weight)

    action = net.time(torch.cat([net.from_action(x), periodic(t, 8).expand(2, -1)], -1))
    tokens = [h, torch.cat([net.from_state(state), action])]
    experts = net.prefix.expert, net.expert
    for layers in zip(*(expert.layers for expert in experts)):
        blind = layers[0].counts[0] == 0
        qkv = []
        for layer, part in zip(layers, tokens):
            made = layer.qkv(normed(layer.norm1, part)).unflatten(-1, (-1, 6))
            qkv.append(torch.cat([made.new_zeros(len(part), 4, 6), made], 1) if blind and len(qkv) == 0 else made)
        q, k, v = torch.cat(qkv).split([4, 2, 2], 1)
        k, v = turned(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        weight = torch.einsum("ihd,jhd->hij", turned(q), k) / 6**0.5
        seen_by = torch.einsum("hij,jhd->ihd", weight.masked_fill(~seen, -torch.inf).softmax(-1), v).flatten(1)
        for i, (layer, part) in enumerate(zip(layers, seen_by.split([3, 3]))):
            if not (blind and i == 0):
                tokens[i] = tokens[i] + layer.out(part)
                gate, up = layer.gate_up(normed(layer.norm2, tokens[i])).chunk(2, -1)
                tokens[i] = tokens[i] + layer.down(nn.functional.gelu(gate, approximate="tanh") * up)
    return net.out(normed(net.expert.norm, tokens[1]))[1:]


@torch.no_grad()
def test_in_turns_as_all_at_once():
    h, state, x = randn(1, 3, 8).double(), randn(1, 1, 3, seed=2).double(), randn(1, 2, A, seed=3).double()
    net, t = given(h), torch.tensor([0.7]).double()
    y = net(x, t, context=net.context(state=state))[0]
    assert y.std() > 0.1
    torch.testing.assert_close(y, joint(net, h[0], state[0], x[0], t), rtol=0, atol=1e-6)


@torch.no_grad()
def test_an_absent_token_is_as_none():
    """Also for the places of the others."""
    h, state, x = randn(1, 3, 8).double(), randn(1, 1, 3, seed=2).double(), randn(1, 2, A, seed=3).double()
    net, t = given(h), torch.tensor([0.7]).double()
    y = net(x, t, state=state)
    net.prefix.h, net.prefix.present = h[:, [0, 2]], torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(net(x, t, state=state), y, rtol=0, atol=1e-12)
    net.prefix.h, net.prefix.present = h, torch.zeros(1, 3, dtype=torch.bool)  # nothing at all is there
    net.prefix.h.requires_grad_()
    with torch.enable_grad():
        alone = net(x, t, state=state)
        alone.sum().backward()
    assert bool(alone.isfinite().all())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())
    net.prefix.h = torch.full_like(h, 3.0)
    assert torch.equal(net(x, t, state=state), alone)


# --- once per chunk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
@pytest.mark.parametrize("names", [("state",), ("images",), ("state", "prompt"), tuple(ALL)])
@torch.no_grad()
def test_the_context_replaces_the_observation(variant, names):
    shapes = {name: ALL[name] for name in names}
    net, seen = network(shapes, variant=variant), observe(shapes)
    if "prompt" in seen:
        seen["prompt"][1, 2:] = 0
    context, x = net.context(**seen), randn(3, H, A)
    for t in (torch.tensor([0.2]), torch.tensor([0.1, 0.5, 1.0])):
        assert torch.equal(net(x, t, context=context), net(x, t, **seen))
    once = net.context(**{name: value[:1] for name, value in seen.items()})  # one observation for all three
    expected = net(x, t, **{name: value[:1].expand_as(value) for name, value in seen.items()})
    torch.testing.assert_close(net(x, t, context=once), expected, rtol=0, atol=1e-5)
    counts = {"state": 6 if variant == "pi05" else 1, "images": 4, "prompt": 5}
    n = sum(counts[name] for name in names)
    assert [tuple(part.shape) for part in context["memory"][1]] == [(3, 2, n, 6)] * 2


@torch.no_grad()
def test_steps_run_the_actions_alone():
    net, seen = network(), observe()
    context, lengths = net.context(**seen), []
    for layer in (*net.expert.layers, *net.prefix.expert.layers):
        layer.qkv.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    for t in (1.0, 0.5):
        net(randn(3, H, A), torch.tensor([t]), context=context)
    assert lengths == [H] * 4


# --- what matters, and what doesn't -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
@torch.no_grad()
def test_what_it_depends_on(variant):
    net, seen, x, t = network(variant=variant), observe(), randn(3, H, A), torch.tensor([0.2, 0.5, 0.9])
    seen["state"] *= 0.3
    y = net(x, t, **seen)
    assert not torch.allclose(net(x, t + 0.01, **seen), y, atol=1e-4)
    for name, other in {
        "state": -seen["state"],
        "images": 255 - seen["images"],
        "prompt": seen["prompt"] % 256 + 1,
    }.items():
        assert not torch.allclose(net(x, t, **seen | {name: other}), y, atol=1e-4), name
    moved = seen["state"].flip(1)  # the older state and the newer
    assert not torch.allclose(net(x, t, **seen | {"state": moved}), y, atol=1e-4)


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
@torch.no_grad()
def test_the_order_of_the_actions_matters(variant):
    """Their places alone tell them apart."""
    net, x, t = network(variant=variant), randn(3, H, A), torch.tensor([0.3])
    context, order = net.context(**observe()), [2, 0, 1]
    y = net(x, t, context=context)
    assert (net(x[:, order], t, context=context) - y[:, order]).abs().max() > 0.01 * y.std()
    context["by"] = context["by"][..., :1, :].expand_as(context["by"])
    y = net(x, t, context=context)
    torch.testing.assert_close(net(x[:, order], t, context=context), y[:, order], rtol=0, atol=1e-4)


@torch.no_grad()
def test_missing_cameras_and_padding_tell_nothing():
    net, seen, x, t = network(), observe(), randn(3, H, A), torch.tensor([0.3])
    whole = net(x, t, **seen)
    seen["image_mask"] = torch.tensor([[1, 0], [0, 1], [0, 0]]).bool()
    seen["prompt"] = torch.tensor([[5, 6, 7, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    y = net(x, t, **seen)
    assert bool(y.isfinite().all())
    assert not torch.allclose(y[0], whole[0], atol=1e-4)
    other = seen["images"].clone()
    other[~seen["image_mask"]] = 77
    assert torch.equal(net(x, t, **seen | {"images": other}), y)
    net.prefix.encoder.place[3:] = 9.0
    assert torch.equal(net(x, t, **seen), y)
    net.prefix.encoder.place[2] = 9.0
    assert not torch.equal(net(x, t, **seen)[0], y[0])


@torch.no_grad()
def test_padding_to_a_width():
    """As with actions and state that have zeros added by hand; the output is cut."""
    shapes = {"state": (2, 3)}
    wide = fill(ActionExpert(H, 7, observation={"state": (1, 7)}, **SMALL))
    net = fill(ActionExpert(H, A, observation=shapes, pad_to=7, **SMALL))
    assert [p.shape for p in net.parameters()] == [p.shape for p in wide.parameters()]
    x, state, t = randn(3, H, A), randn(3, 2, 3), torch.tensor([0.4])
    y = wide(nn.functional.pad(x, (0, 5)), t, state=nn.functional.pad(state.flatten(1), (0, 1))[:, None])
    torch.testing.assert_close(net(x, t, state=state), y[..., :A])


def test_it_starts_at_zero():
    for variant in ("pi0", "pi05"):
        net = ActionExpert(H, A, observation=ALL, variant=variant, **SMALL)
        assert not net(randn(3, H, A), torch.rand(3), **observe()).any()


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
def test_every_parameter_learns(variant):
    net = network(variant=variant).train()
    net(randn(3, H, A), torch.rand(3), **observe()).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
def test_it_learns_a_chunk(variant):
    """From its own start: one for each of four states, among much noise, to a tenth of the loss of saying 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ActionExpert(8, 2, observation={"state": (1, 2)}, width=32, depth=2, heads=2, head=16, variant=variant)
        denoiser = Denoiser(net, Linear(), "x0")
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        losses = []
        for _ in range(80):
            state = torch.randint(2, (32, 1, 2)) - 0.5
            x0 = (torch.linspace(0, 3, 8)[:, None] + 3 * state).sin()
            loss = denoiser.loss(x0, torch.randn_like(x0), 0.5 + torch.rand(32) / 2, state=state).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < losses[0] / 10


@pytest.mark.parametrize("variant", ["pi0", "pi05"])
def test_it_runs_in_bf16(variant):
    """Under autocast, and with its own weights in bf16, where time and places keep their precision."""
    net, x, t, seen = network(variant=variant), randn(3, H, A), torch.tensor([0.2, 0.501, 1.0]), observe()
    exact = net(x, t, **seen)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x, t, **seen)
    y.float().square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())
    assert (y - exact).norm() < 0.1 * exact.norm()
    y = net.bfloat16()(x, t, **seen)
    assert y.dtype == torch.float32
    assert (y - exact).norm() < 0.1 * exact.norm()


COMPILE = """
import torch
from ebbtide.networks.action_expert import ActionExpert
torch.set_num_threads(1)
for variant in ("pi0", "pi05"):
    net = ActionExpert(3, 2, observation={"state": (1, 3)}, width=8, depth=1, heads=2, head=4, variant=variant)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, t, state = torch.randn(3, 3, 2), torch.rand(3), torch.randn(3, 1, 3).clamp(-1, 1)
    compiled, context = torch.compile(net, fullgraph=True, backend="eager"), net.context(state=state)
    torch.testing.assert_close(compiled(x, t, context=context), net(x, t, context=context))
    if variant == "pi0":
        torch.testing.assert_close(compiled(x, t, state=state), net(x, t, state=state))
    print(variant)
"""


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    """In a process of its own: the tests' checks of types and shapes, which no user has, can't be traced."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["pi0", "pi05"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"width": 2}, ("width", "4", "65536", "2")),
        ({"width": 9}, ("width", "even", "9")),
        ({"head": 3}, ("head", "even", "3")),
        ({"depth": 0}, ("depth", "1", "0")),
        ({"kv_heads": 8}, ("kv_heads", "4", "8")),
        ({"kv_heads": 3}, ("kv_heads", "divide", "4", "3")),
        ({"pad_to": 1}, ("pad_to", "action_dim", "2", "1")),
        ({"pad_to": 5}, ("pad_to", "state", "6", "5")),
        ({"variant": "pi06"}, ("variant", "pi0, pi05", "'pi06'")),
        ({"prefix": Given(torch.zeros(1, 1, 8), PRESENT), "depth": 3}, ("prefix", "'depth': 2", "'depth': 3")),
    ],
)
def test_what_is_refused(changed, words):
    with pytest.raises(InputError) as caught:
        ActionExpert(H, A, observation=ALL, **SMALL | changed)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_observations_that_are_refused():
    net, seen, x, t = network(), observe(), randn(3, H, A), torch.tensor([0.3])
    for name, other, words in (
        ("state", torch.full((3, 2, 3), math.nan), "finite"),
        (
            "state",
            torch.zeros(3, 3, 2),
            r"state must be float32 of shape \(b, 2, 3\); got float32 of shape \(3, 3, 2\)",
        ),
        ("images", seen["images"][:, :1], "images must be"),
        ("images", seen["images"].float(), "uint8"),
        ("prompt", seen["prompt"][:2], "as many"),
        ("goal", torch.zeros(3, 1), "goal"),
    ):
        with pytest.raises(InputError, match=words):
            net(x, t, **seen | {name: other})
    del seen["prompt"]
    with pytest.raises(InputError, match="prompt is missing"):
        net.context(**seen)
    for shape in ((3, A, H), (3, H + 1, A), (3, H, A + 1)):
        with pytest.raises(InputError, match=r"x must be of shape \(b, 3, 2\)"):
            net(torch.zeros(shape), t, **observe())
    with pytest.raises(InputError, match="observe something"):
        ActionExpert(H, A, observation={})


def test_what_a_spec_can_set():
    assert list(options(ActionExpert)) == [
        "width", "hidden", "depth", "heads", "kv_heads", "head", "prefix_width", "prefix_hidden", "pad_to", "variant",
        "checkpointing", "spans",
    ]  # fmt: skip
