"""Parameters as one vector: views both ways, and an optimiser that can't tell."""

import math

import pytest
import torch
from torch import nn

from ebbtide.errors import InputError
from ebbtide.recipes import RECIPES, recipe_from_config
from ebbtide.training.flat import AdamW, FlatParameters
from training.runs import tiny, trainer


class Network(nn.Module):
    """A bias before a matrix, a tied matrix, a frozen one, a gain, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.gain = nn.Parameter(torch.rand(3, generator=generator))
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 3)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.first.weight
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("count", torch.ones(2))
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        return self.frozen(self.second((self.first(x) + self.tied(x * self.gain)).tanh()))


X = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


def test_it_holds_the_trainable_ones_matrices_first_and_each_once():
    flat = FlatParameters(Network())
    assert list(flat.shapes) == ["first.weight", "second.weight", "gain", "first.bias", "second.bias"]
    assert len(flat.vector) == 12 + 12 + 3 + 4 + 3
    assert (len(flat.decayed), len(flat.vector)) == (24, 34)


def test_flattening_changes_no_output():
    plain, network = Network(), Network()
    FlatParameters(network)
    assert torch.equal(plain(X), network(X))


def test_a_write_to_either_is_read_from_the_other():
    network = Network()
    flat = FlatParameters(network)
    flat.vector[:12] = torch.arange(12.0)
    assert torch.equal(network.first.weight.flatten(), torch.arange(12.0))
    assert torch.equal(network.tied.weight.flatten(), torch.arange(12.0))
    with torch.no_grad():
        network.second.bias.fill_(7)
        flat.vector[24:27] = 5
    assert torch.equal(flat.vector[-3:], torch.full((3,), 7.0))
    assert torch.equal(network.gain, torch.full((3,), 5.0))
    assert torch.equal(flat.vector[24:27], torch.full((3,), 5.0))
    network.load_state_dict(Network().state_dict())
    assert torch.equal(flat.split(flat.vector)["first.weight"], Network().first.weight)


def test_gradients_add_up_in_the_vector():
    plain, network = Network(), Network()
    flat = FlatParameters(network)
    for _ in range(2):  # twice without zeroing: autograd accumulates in place and never swaps the tensor
        plain(X).square().sum().backward()
        network(X).square().sum().backward()
    for name, part in flat.split(flat.gradient).items():
        torch.testing.assert_close(part, plain.get_parameter(name).grad)
    flat.gradient.zero_()
    assert not network.first.weight.grad.any()
    assert network.frozen.weight.grad is None


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_on_the_vector_is_adamw_on_the_tensors(decay):
    """To float tolerance, with biases and gains spared from decay."""
    plain, network = Network(), Network()
    flat = FlatParameters(network)
    matrices, others = [plain.first.weight, plain.second.weight], [plain.gain, plain.first.bias, plain.second.bias]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    slow = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.95), foreach=False, fused=False)
    fast = AdamW(flat, decay)
    for _ in range(20):
        slow.zero_grad()
        flat.gradient.zero_()
        plain(X).square().mean().backward()
        network(X).square().mean().backward()
        slow.step()
        fast.step(0.05)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_a_recipe_s_defaults_train_what_every_run_was_trained_by():
    """To the last bit, weights and average: β = (0.9, 0.95) and ε = 1e-8 stood in the code before they were fields."""
    recipe = tiny("decay")
    ours, written = trainer(recipe), trainer(recipe)
    written.engine.optimizer = AdamW(written.engine.flat, recipe.weight_decay, (0.9, 0.95), 1e-8)
    assert list(ours.steps()) == list(written.steps())
    assert torch.equal(ours.engine.flat.vector, written.engine.flat.vector)
    assert torch.equal(ours.engine.ema, written.engine.ema)


@pytest.mark.parametrize("changes", [{"beta1": 0.95}, {"beta2": 0.999}, {"eps": 1e-3}])
def test_a_recipe_s_own_are_used(changes):
    """Against torch's AdamW, given the same: three steps of a network whose gradients are far below one."""
    torch.manual_seed(0)
    own = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8} | changes
    run, plain = trainer(tiny(lr=0.05, warmup=0.0, steps=3, **changes)), trainer(tiny(lr=0.05, warmup=0.0, steps=3))
    slow = torch.optim.AdamW([run.engine.flat.vector.clone().requires_grad_()], betas=(own["beta1"], own["beta2"]),
                             eps=own["eps"], weight_decay=0.0)  # fmt: skip
    (vector,) = slow.param_groups[0]["params"]
    for record in run.steps():
        vector.grad = run.engine.flat.gradient.clone()  # as it was clipped
        slow.param_groups[0]["lr"] = record.lr
        slow.step()
        torch.testing.assert_close(run.engine.flat.vector, vector.detach(), rtol=1e-5, atol=1e-6)
    for _ in plain.steps():
        pass
    assert (run.engine.flat.vector - plain.engine.flat.vector).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["flow", "flow-images", "pi0"])
def test_a_config_of_before_they_were_fields_loads(kind):
    recipe = RECIPES[kind]()
    old = {name: value for name, value in recipe.to_config().items() if name not in ("beta1", "beta2", "eps")}
    assert len(old) == len(recipe.to_config()) - 3
    assert recipe_from_config(old) == recipe
    assert (recipe.beta1, recipe.beta2, recipe.eps) == (0.9, 0.95, 1e-8)


@pytest.mark.parametrize(
    ("field", "value"), [("beta1", 1.0), ("beta1", -0.1), ("beta2", 1.5), ("eps", 0.0), ("eps", 2.0), ("eps", math.nan)]
)
def test_what_they_can_t_be_is_refused(field, value):
    with pytest.raises(InputError, match=f"^{field} must be at least"):
        tiny(**{field: value})


def test_decay_alone_moves_matrices_alone():
    network = Network()
    flat = FlatParameters(network)
    before = flat.vector.clone()
    AdamW(flat, 0.5).step(0.1)  # gradients are zero
    torch.testing.assert_close(flat.vector[:24], before[:24] * 0.95)
    assert torch.equal(flat.vector[24:], before[24:])


def test_a_tied_parameter_has_all_its_names_in_a_state():
    """Else loading an average would leave the raw weights behind under the second name."""
    network = Network()
    flat = FlatParameters(network)
    state = flat.state(torch.arange(34.0))
    assert torch.equal(state["tied.weight"], state["first.weight"])
    assert "frozen.weight" not in state
    network.load_state_dict({**network.state_dict(), **state})
    assert torch.equal(flat.vector, torch.arange(34.0))


@pytest.mark.parametrize("bias", [True, False])
def test_one_part_may_be_empty(bias):
    network = nn.Linear(2, 2, bias=bias)
    if bias:
        network.weight.requires_grad_(False)
    flat = FlatParameters(network)
    network(torch.ones(1, 2)).sum().backward()
    AdamW(flat, 0.1).step(0.1)
    assert flat.vector.isfinite().all()
    assert (len(flat.decayed), len(flat.vector)) == ((0, 2) if bias else (4, 4))


def test_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="no trainable parameters"):
        FlatParameters(nn.Linear(2, 2).requires_grad_(False))


def test_a_convolution_keeps_its_order_of_memory():
    """Channels last stays so, for weights and gradients alike, and the vector holds the same numbers."""
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(4, 6, 3)
    last = torch.nn.Conv2d(4, 6, 3)
    last.load_state_dict(plain.state_dict())
    last.to(memory_format=torch.channels_last)
    flats = [FlatParameters(network) for network in (plain, last)]
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert not last.weight.is_contiguous()
    assert last.weight.grad.stride() == last.weight.stride()
    x = torch.randn(2, 4, 5, 5)
    for network in (plain, last):
        network(x).square().sum().backward()
    for flat in flats:
        AdamW(flat).step(0.1)
    assert torch.allclose(plain.weight, last.weight, atol=1e-6)
    assert not torch.equal(flats[0].vector, flats[1].vector)  # another order of the same numbers
    assert torch.allclose(flats[0].vector.sort().values, flats[1].vector.sort().values, atol=1e-6)
    assert torch.equal(flats[1].state(flats[1].vector)["weight"], last.weight)
