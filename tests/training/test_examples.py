"""What a batch is made of: which examples, and the noise, times and labels that go with them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from ebbtide.core import randomness
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.data.prepared import TensorData
from ebbtide.errors import InputError
from ebbtide.losses.stable import TOGETHER
from ebbtide.networks import MLP
from ebbtide.training import examples
from ebbtide.training.devices import accelerate
from ebbtide.training.examples import batch_indices
from ebbtide.training.trainer import Trainer
from training.runs import VARIANTS, ranked, tiny, trainer

# --- which examples -----------------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), batch=st.integers(1, 90), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_batches_are_shuffled_epochs_laid_end_to_end(n, batch, seed):
    steps = 3 * n // batch + 2
    row = torch.cat([batch_indices(seed, step, batch, n) for step in range(steps)])
    assert len(row) == steps * batch
    for epoch in row[: len(row) // n * n].reshape(-1, n):
        assert torch.equal(epoch.sort().values, torch.arange(n))


def test_batches_depend_on_seed_and_step_alone():
    straight = [batch_indices(5, step, 7, 20) for step in range(30)]
    examples._order.cache_clear()
    for step in (29, 3, 17, 3):  # any order, after any history, with a cold cache
        assert torch.equal(batch_indices(5, step, 7, 20), straight[step])
    assert not torch.equal(batch_indices(6, 0, 20, 20), batch_indices(5, 0, 20, 20))
    assert not torch.equal(batch_indices(5, 1, 20, 20), batch_indices(5, 0, 20, 20))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_does_not_depend_on_what_was_drawn_before(name):
    one, other = trainer(tiny(name)), trainer(tiny(name))
    for _ in other.steps():
        torch.rand(3)
    examples._order.cache_clear()
    for step in (7, 0, 7):
        first, second = one.batch(step), other.batch(step)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(one.batch(0)["t"], one.batch(1)["t"])
    assert not torch.equal(one.batch(0)["noise"], one.batch(1)["noise"])


def test_times_are_spread_over_a_batch_only_if_asked():
    spread = trainer(tiny(batch=64)).batch(0)["t"]
    assert torch.equal((spread * 64).floor().sort().values, torch.arange(64.0))
    free = trainer(tiny(batch=64, stratified=False)).batch(0)["t"]
    assert not torch.equal((free * 64).floor().sort().values, torch.arange(64.0))


# --- what goes with them ------------------------------------------------------------------------------------------


def test_labels_are_hidden_at_the_rate_asked():
    """20 × 2000 labels, a quarter hidden: the share is within 6 σ = 0.013, false-positive rate 2e-9."""
    recipe = tiny("conditional", label_dropout=0.25, points=4000, batch=2000, stable_targets=False)
    run = trainer(recipe)
    hidden, classes = [], 3
    for step in range(20):
        batch = run.batch(step)
        true = run.data.labels[batch_indices(recipe.seed, step, recipe.batch, 4000)]
        hidden.append(batch["label"] == classes)
        assert torch.equal(batch["label"][~hidden[-1]], true[~hidden[-1]])
    share = torch.cat(hidden).double().mean()
    assert abs(float(share) - 0.25) < 6 * math.sqrt(0.25 * 0.75 / 40_000)
    assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 0), (1.0, 1)])
def test_none_or_all_labels_hidden(dropout, share):
    assert bool(((trainer(tiny("conditional", label_dropout=dropout)).batch(0)["label"] == 3) == share).all())


def test_ot_pairs_each_point_with_the_nearest_noise():
    plain, coupled = (trainer(tiny(coupling=kind, stable_targets=False)).batch(0) for kind in ("independent", "ot"))
    assert torch.equal(plain["x0"], coupled["x0"])
    assert torch.equal(plain["noise"].sort(0).values, coupled["noise"].sort(0).values)  # all of it, none twice
    cost = [(batch["x0"] - batch["noise"]).square().sum() for batch in (plain, coupled)]
    assert cost[1] < 0.8 * cost[0]
    assert "z" not in plain
    assert coupled["z"].shape == coupled["x0"].shape


def test_the_second_sample_set_is_the_other_end():
    run = trainer(tiny("two sets"))
    batch = run.batch(0)
    rows = {tuple(row) for row in run.data.x1.tolist()}
    assert all(tuple(row) in rows for row in batch["noise"].tolist())
    assert batch["z"].std() > 0.5
    assert not torch.equal(run.batch(0)["z"], run.batch(1)["z"])


def test_the_bridge_between_two_sets_learns_from_its_own_noise():
    """z moves the loss; without it the ends alone would be learned."""
    run = trainer(tiny("two sets"))
    batch = run.batch(0)
    nn.init.normal_(run.denoiser.network.out.weight)
    with_z = run.denoiser.loss(**batch)
    assert not torch.allclose(with_z, run.denoiser.loss(**{**batch, "z": -batch["z"]}))


def test_stable_targets_leave_x_t_alone():
    raw, averaged = (trainer(tiny("ddpm", stable_targets=flag)).batch(2) for flag in (False, True))
    c = trainer(tiny("ddpm")).denoiser.path.at(raw["t"], raw["x0"])
    x_t = [c.alpha * batch["x0"] + c.sigma * batch["noise"] for batch in (raw, averaged)]
    torch.testing.assert_close(*x_t, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(raw["noise"], averaged["noise"])


# --- of several processes -----------------------------------------------------------------------------------------


class Asked(TensorData):
    """Data that keeps which examples were asked for."""

    def take(self, indices, draw):
        vars(self).setdefault("asked", []).append(indices)
        return super().take(indices, draw)


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "changes", [{}, {"stratified": False}, {"batch": 296}, {"together": 3}, {"stable_targets": True}]
)
def test_a_rank_takes_and_draws_its_own_share_alone(processes, changes, monkeypatch):
    """Bit for bit what one process draws, and no example, nor block of noise, that another rank needs."""
    monkeypatch.setattr(randomness, "BLOCK", 5 * changes.get("together", 10**6))  # numbers; an example has 5
    recipe = tiny(**{"batch": 512, "stable_targets": False, **{k: v for k, v in changes.items() if k != "together"}})
    data = TensorData(torch.randn(700, 5), torch.arange(700) % 3)
    network = lambda: Denoiser(MLP(5, width=8, depth=1, classes=3), Linear())
    share = recipe.batch // processes
    whole = Trainer(network(), data, recipe, accelerate(), classes=3).batch(4)
    drawn, randn = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **how: drawn.append(shape[0]) or randn(*shape, **how))
    for rank in range(processes):
        accelerator = ranked(rank, None, processes)
        run = Trainer(network(), Asked(**vars(data)), recipe, accelerator, classes=3)
        drawn.clear()
        for key, part in run.batch(4).items():
            assert torch.equal(part, whole[key][rank * share : (rank + 1) * share]), key
        blocks = TOGETHER if recipe.stable_targets else 1
        assert len(run.data.asked[-1]) <= -(-share // blocks) * blocks + (blocks - 1) * (share % blocks > 0)
        if "together" in changes:
            assert sum(drawn) <= share + 2 * 2


def test_unequal_shares_of_a_batch_are_refused(monkeypatch):
    start = trainer(tiny())
    accelerator = accelerate()
    monkeypatch.setattr(type(accelerator), "num_processes", 3)
    with pytest.raises(InputError, match="batch must be a multiple of the 3 processes"):
        Trainer(start.denoiser, start.data, replace(start.recipe, batch=16), accelerator)


# --- pairs and spans ----------------------------------------------------------------------------------------------


def test_pairs_are_a_teachers_alone():
    with pytest.raises(InputError, match="coupling 'given' is that of a teacher's pairs"):
        trainer(tiny(coupling="given", stable_targets=False))


def test_a_law_of_spans_is_told_how_much_of_the_training_is_over():
    """s = t until a quarter; then spans grow to their full length, which they have from the half on."""
    spans = "stretches:alone=0.25,wide=0.5,same=0.0"
    network = "mlp:width=8,depth=2,spans=true"
    run = trainer(tiny(loss="shortcut", network=network, spans=spans, batch=64, points=100))
    plain = trainer(tiny(loss="shortcut", network=network, spans="stretches:same=0.0", batch=64, points=100))
    for step in range(12):
        one, other = run.batch(step), plain.batch(step)
        reach = min(max((step / 12 - 0.25) / 0.25, 0), 1)
        if step < 3:
            assert torch.equal(one["t"], one["to"])
            assert torch.equal((one["t"] * 64).floor().sort().values, torch.arange(64.0))
        else:
            torch.testing.assert_close(one["t"] - one["to"], reach * (other["t"] - other["to"]), rtol=1e-4, atol=1e-6)


def test_a_coupling_that_draws_has_the_steps_own_numbers():
    """The same at every call, whatever torch's own generator does in between."""
    made = trainer(tiny("ot", coupling="sinkhorn:epsilon=0.5"))
    first = made.batch(0)
    torch.rand(5)
    again, other = made.batch(0), made.batch(1)
    assert torch.equal(first["noise"], again["noise"])
    assert not torch.equal(first["noise"], other["noise"])
    hard = trainer(tiny("ot")).batch(0)
    assert torch.equal(first["x0"], hard["x0"])
    assert not torch.equal(first["noise"], hard["noise"])
