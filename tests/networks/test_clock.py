"""Features of time, and label vectors."""

import math

import pytest
import torch

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.networks import NETWORKS
from ebbtide.networks.clock import Attributes, Fourier, LabelEmbedding, Perceptron, Span, Timestep, label_embedding


def test_fourier_by_hand():
    """Two frequencies, 1 and 4, at t = 1/8: sin π/4, sin π, cos π/4, cos π."""
    features = Fourier(4, f_min=1.0, f_max=4.0)(torch.tensor([0.125]))
    expected = torch.tensor([[math.sqrt(0.5), 0, math.sqrt(0.5), -1]])
    torch.testing.assert_close(features, expected, rtol=1e-6, atol=1e-6)


def test_frequencies_are_even_in_log_between_the_two_given():
    frequencies = Fourier(10, f_min=0.5, f_max=8.0).frequencies / (2 * math.pi)
    torch.testing.assert_close(frequencies, torch.tensor([0.5, 1, 2, 4, 8]))


def test_fourier_tells_all_times_apart_also_the_ends():
    """No two of 400 times share features, and neighbours aren't further than they should be: |Δφ| ≤ 2π f_max Δt √n."""
    t = torch.linspace(0, 1, 400)
    features = Fourier(32)(t)
    distance = torch.cdist(features, features) + torch.eye(400)
    assert float(distance.min()) > 0.01
    assert float((features[0] - features[-1]).norm()) > 0.5


def test_fourier_has_no_parameters_and_nothing_to_store():
    embedding = Fourier(8)
    assert list(embedding.parameters()) == []
    assert embedding.state_dict() == {}


@pytest.mark.parametrize(
    ("options", "slow", "timestep"),
    [
        ({}, 0.01, 100.0),  # ω = 1 and 10 000^(-1/2); t = 0.101 is the 101st of 1000
        ({"freq_shift": 1}, 1e-4, 100.0),
        ({"first": 0}, 0.01, 101.0),
        ({"timesteps": 1, "first": 0}, 0.01, 0.101),
    ],
)
def test_timesteps_by_hand(options, slow, timestep):
    features = Timestep(4, **options)(torch.tensor([0.101]))
    angles = (timestep, slow * timestep)
    expected = torch.tensor([[*map(math.sin, angles), *map(math.cos, angles)]])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_the_entries_of_a_table_are_whole_timesteps():
    """t = i/1000 in float32 is timestep i - 1 to the last bit but one, so published networks know it."""
    t = torch.tensor([i / 1000 for i in range(1, 1001)])
    angle = torch.arange(1000.0)
    torch.testing.assert_close(Timestep(2)(t), torch.stack([angle.sin(), angle.cos()], 1), rtol=0, atol=4e-5)


def test_timesteps_have_no_parameters_and_nothing_to_store():
    assert list(Timestep(8).parameters()) == []
    assert Timestep(8).state_dict() == {}


def test_labels_have_a_null():
    embedding = LabelEmbedding(3, 5)
    assert embedding.null == 3
    assert embedding.weight.shape == (4, 5)
    found = embedding(torch.tensor([0, 3, 0]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    with pytest.raises(IndexError):
        embedding(torch.tensor([4]))


def test_no_label_is_the_null_label():
    embedding = LabelEmbedding(3, 5)
    assert torch.equal(embedding(None), embedding(torch.tensor([3])))
    assert label_embedding(0, 5) is None
    assert label_embedding(2, 5).weight.shape == (3, 5)


def test_a_perceptron_of_the_time_by_hand():
    """φ = (sin τ, cos τ), τ = 2 t; W₁ and W₂ are 1, so both outputs are silu(sin τ + cos τ) twice."""
    mlp = Perceptron(Timestep(2, timesteps=2, first=0), 2)
    for layer in (mlp[1], mlp[3]):
        torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    z = math.sin(0.6) + math.cos(0.6)
    torch.testing.assert_close(mlp(torch.tensor([0.3])), torch.full((1, 2), 2 * z / (1 + math.exp(-z))))


def test_wrong_types_are_caught():
    for bad in (torch.rand(2, 1), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(Exception, match=r"(?i)type-check"):
            Fourier(4)(bad)
    with pytest.raises(Exception, match=r"(?i)type-check"):
        LabelEmbedding(3, 5)(torch.rand(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_coarse_network_is_told_the_time_to_its_own_rounding(dtype):
    """Its weights are rounded, not the time: in bfloat16 timesteps 996 to 1000 would all be one."""
    t = torch.tensor([0.999, 0.9985, 0.5, 0.123, 0.001])
    for clock in (Fourier(16), Timestep(32)):
        told = clock(t)
        coarse = clock.to(dtype)
        assert coarse(t).dtype == dtype
        torch.testing.assert_close(coarse(t), told.to(dtype), rtol=0, atol=1e-6)
        torch.testing.assert_close(clock.to(torch.float32)(t), told, rtol=0, atol=0)  # nothing is lost on the way


# -- two times ---------------------------------------------------------------------------------------------------------

SEEN = {"state": (2, 3), "images": (1, 16, 16, 3)}
# name, arguments, options, the shape of x, and a batch of conditions of five.
SPANNING = {
    "mlp": ("mlp", (4, 3), {}, (4,)),
    "unet": ("unet-tiny", (1, 8, 8, 3), {}, (1, 8, 8)),
    "unet adds": ("unet-tiny", (1, 8, 8, 3), {"conditioning": "add", "time": "timestep"}, (1, 8, 8)),
    "dit": ("dit-tiny", (1, 8, 8, 3), {}, (1, 8, 8)),
    "dit rotary": ("dit-tiny", (1, 8, 8, 3), {"positions": "rotary"}, (1, 8, 8)),
    "action_unet": ("action_unet", (8, 3), {"observation": SEEN}, (8, 3)),
    "action_transformer": ("action_transformer", (8, 3), {"observation": SEEN}, (8, 3)),
    "action_expert": ("action_expert", (8, 3), {"observation": SEEN}, (8, 3)),
    "action_expert of pi05": ("action_expert", (8, 3), {"observation": SEEN, "variant": "pi05"}, (8, 3)),
}
spanning = each("name", SPANNING)


def pair(name):
    """A network of one time, one of two with the same weights, x, t, and conditions for both."""
    row, arguments, options, shape = SPANNING[name]
    torch.manual_seed(0)
    one, two = (NETWORKS[row](*arguments, **options, **more) for more in ({}, {"spans": True}))
    filled = {key: 0.2 * torch.randn_like(part) for key, part in one.state_dict().items() if part.is_floating_point()}
    missing = [network.load_state_dict(filled, strict=False).missing_keys for network in (one, two)]
    assert missing[0] == []
    assert all("from_span" in key for key in missing[1])
    assert missing[1]
    cond = {"label": torch.randint(3, (5,))}
    if "observation" in options:
        cond = {"state": torch.rand(5, 2, 3), "images": torch.randint(256, (5, 1, 16, 16, 3), dtype=torch.uint8)}
    return one.eval(), two.eval(), torch.randn(5, *shape), torch.rand(5), cond


@spanning
def test_a_student_starts_as_its_teacher_to_the_bit(name):
    """Whatever the time to lead to, as the features of the span have weights of zero."""
    one, two, x, t, cond = pair(name)
    with torch.no_grad():
        teacher = Denoiser(one, Linear())(x, t, **cond)
        student = Denoiser(two, Linear())
        for to in (None, t, 0.3 * t, 0.0):
            for mine, theirs in zip(student(x, t, to=to, **cond), teacher, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@spanning
def test_a_span_of_nothing_is_the_estimate_to_the_bit(name):
    """Also of a trained network, whose estimates toward other times are others."""
    _, two, x, t, cond = pair(name)
    for key, part in two.named_parameters():
        if "from_span" in key:
            torch.nn.init.normal_(part)
    student = Denoiser(two, Linear())
    with torch.no_grad():
        torch.testing.assert_close(student(x, t, to=t, **cond).x0, student(x, t, **cond).x0, rtol=0, atol=0)
        assert float((student(x, t, to=0.3 * t, **cond).x0 - student(x, t, **cond).x0).abs().max()) > 1e-3


@spanning
def test_forward_mode_goes_through_every_network(name):
    """torch.func.jvp along a direction of x, beside a central difference in float64."""
    _, two, x, t, cond = pair(name)
    two, x, t = two.double(), x.double(), t.double()
    cond = {key: part.double() if part.is_floating_point() else part for key, part in cond.items()}
    v = torch.randn_like(x)

    def out(x):
        return two(x, t, span=t / 2, **cond)

    plain, rate = torch.func.jvp(out, (x,), (v,))
    with torch.no_grad():
        torch.testing.assert_close(plain, out(x), rtol=1e-6, atol=1e-6)
        difference = (out(x + 1e-5 * v) - out(x - 1e-5 * v)) / 2e-5
    assert float((rate - difference).norm()) < 1e-3 * float(difference.norm())


def test_networks_state_the_shortest_period_of_their_time():
    """0.25 of f = 4; 2π timesteps of a table of 1000; π0's 4e-3; a network of the user's states none."""
    small = {"width": 8, "depth": 1, "heads": 2, "head": 4}
    expected = {
        0.25: NETWORKS["mlp"](2, width=8, depth=1),
        2 * math.pi / 1000: NETWORKS["unet-tiny"](1, 8, 8, time="timestep"),
        4e-3: NETWORKS["action_expert"](2, 4, observation={"state": (1, 3)}, **small),
        math.inf: torch.nn.Linear(2, 2),
    }
    for period, network in expected.items():
        assert Denoiser(network, Linear()).shortest_period == pytest.approx(period, rel=1e-5)


def test_a_span_by_hand():
    """One frequency f: w₁ sin 2πf s + w₂ (cos 2πf s - 1), 0 at s = 0; W starts at 0."""
    span = Span(1, features=2)
    assert float(span(torch.tensor([0.7])).detach()) == 0
    with torch.no_grad():
        span.weight.copy_(torch.tensor([[2.0, 3.0]]))
    f = float(span.features.frequencies)
    expected = 2 * math.sin(0.25 * f) + 3 * (math.cos(0.25 * f) - 1)
    assert float(span(torch.tensor([0.25])).detach()) == pytest.approx(expected, rel=1e-5)
    assert float(span(torch.tensor([0.0])).detach()) == 0


def test_attributes_tell_a_known_number_from_an_unknown_one():
    """By hand: W₁ picks m v of the first and m of both, so that an unknown 0 and a known one differ."""
    embedding = Attributes(2, 4)
    first, _, second = embedding.layers
    with torch.no_grad():
        for part in (first.bias, second.bias):
            part.zero_()
        first.weight.copy_(torch.eye(4))
        second.weight.copy_(torch.eye(4))
    silu = torch.nn.functional.silu
    v = torch.tensor([[0.5, torch.nan], [torch.nan, 0.0]])
    torch.testing.assert_close(embedding(v), silu(torch.tensor([[0.5, 0, 1, 0], [0, 0, 0, 1.0]])))
    assert torch.equal(embedding(None), embedding(torch.full((1, 2), torch.nan)))
