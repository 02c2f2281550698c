"""The loop: what a step does, and what a bad step leaves alone."""

import gc
import math
from dataclasses import replace
from threading import Barrier, Thread, current_thread
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebbtide.core import randomness
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Share, normal, uniform
from ebbtide.data.prepared import TensorData
from ebbtide.errors import DivergedError, InputError
from ebbtide.exact.oracle import mixture
from ebbtide.kinds.runs import begin as prepare, from_pretrained
from ebbtide.training import trainer as module
from ebbtide.training.devices import Deserted, accelerate
from ebbtide.training.examples import batch_indices
from ebbtide.training.teacher import student_of, student_recipe, trajectories_of
from ebbtide.training.trainer import Trainer
from training.runs import VARIANTS, ranked, run as make, tiny, trainer


class Slow(TensorData):
    """Data that has to be fetched."""

    ahead = True
    asked: ClassVar[list[str]] = []

    def take(self, indices, draw):
        self.asked.append(current_thread().name)
        if len(self.asked) == 9:
            raise InputError("a shard is damaged")
        return super().take(indices, draw)


def test_a_batch_is_fetched_while_the_one_before_it_is_learned():
    """One ahead, in a thread; the same weights to the bit, and an error comes when its batch is due."""
    recipe = tiny("conditional")
    plain = trainer(recipe)
    start = trainer(recipe)
    Slow.asked.clear()
    run = Trainer(start.denoiser, Slow(**vars(start.data)), recipe, accelerate(), 1, 3)
    counts, seen = [], run.steps()
    with pytest.raises(InputError, match="a shard is damaged"):
        for _, _ in zip(seen, plain.steps()):
            counts.append(len(Slow.asked))
            assert torch.equal(run.engine.flat.vector, plain.engine.flat.vector)
    assert all(count - step in (1, 2) for step, count in enumerate(counts, 1))  # the first was a trial
    assert run.step == len(counts) == 7
    assert len(set(Slow.asked)) == 2
    list(zip(range(2), run.steps()))  # and it goes on from there
    assert run.step == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coupling": "ot", "target": "noise"}, "velocity"),
        ({"coupling": "class_ot"}, "label"),
        ({"coupling": "sinkhornn"}, "coupling must be one of"),
        ({"times": "beta:a=-1.0"}, "a must be above 0"),
        ({"weight": "heavy"}, "weight must be one of"),
        ({"network": "mlp:width=-3"}, "can't be built"),
        ({"network": "transformer"}, "network must be one of"),
        ({"sampler": "os.system"}, "sampler must be one of"),
        ({"grid": "even"}, "grid must be one of"),
    ],
)
def test_what_can_not_be_trained_is_said_before_the_first_step(changes, words):
    with pytest.raises(InputError, match=words):
        trainer(tiny(**changes))


# --- what a step does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(name):
    """However many parts, of one size or not; dropout alone would draw other numbers. Ends are coupled and labels are
    hidden before the batch is divided. Only sums are rounded otherwise: in float32 by 3e-7 of the gradient's length at
    most (five seeds of each), in float64 by nothing that counts."""
    recipe = tiny(name, **({"network": "unet-tiny:width=16"} if name == "images" else {}))
    for built, near in ((trainer, 1e-6), (in_float64, 1e-12)):
        whole = built(recipe)
        expected, gradient = next(whole.steps()), whole.engine.flat.gradient
        for parts, wanted in {2: [8, 8], 3: [6, 5, 5], 16: [1] * 16}.items():
            run, batches = built(recipe, parts), []
            run._loss.register_forward_pre_hook(lambda *given, to=batches: to.append(given[2]), with_kwargs=True)
            record = next(run.steps())
            assert [len(batch["t"]) for batch in batches] == wanted
            assert record.loss == pytest.approx(expected.loss, rel=1e-6)
            assert (run.engine.flat.gradient - gradient).norm() < near * gradient.norm()
            assert run.engine.optimizer.updates == 1


def in_float64(recipe, parts=1):
    """A trainer whose network, and what it is given, is in double precision; its time features are made so."""
    start, data = prepare(recipe)
    for part in start.denoiser.double().modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(lambda _, given: (given[0].double(),))
    run = Trainer(start.denoiser, data, recipe, accelerate(), parts, len(start.classes))
    single = run.batch
    run.batch = lambda step: {
        key: part.double() if part.is_floating_point() else part for key, part in single(step).items()
    }
    return run


def test_a_batch_in_parts_in_half_precision():
    recipe = tiny("images", network="unet-tiny:width=16")
    one, other = (next(trainer(recipe, parts, "bf16").steps()) for parts in (1, 3))
    assert other.loss == pytest.approx(one.loss, rel=1e-3)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-2)


@pytest.mark.parametrize("parts", [0, 17])
def test_a_batch_has_no_more_parts_than_examples(parts):
    with pytest.raises(InputError, match=f"accumulate must be at least 1 and at most 16, .*; got {parts}"):
        trainer(tiny(), parts)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GRADIENT_ACCUMULATION_STEPS", "4", "must be 1; got '4'. Give accumulate=4 \\(--accumulate 4\\) instead"),
        ("GRADIENT_ACCUMULATION_STEPS", "0", "must be 1; got '0'"),
        ("GRADIENT_ACCUMULATION_STEPS", "x", "must be 1; got 'x'"),
        ("USE_DEEPSPEED", "true", "must be false; got 'true'"),
        ("USE_MEGATRON_LM", "true", "must be false; got 'true'"),
    ],
)
def test_what_accelerate_would_do_otherwise_is_refused(name, value, words, monkeypatch):
    """Its way of accumulating would divide the gradients and accumulate nothing."""
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(InputError, match=f"ACCELERATE_{name} {words}"):
        accelerate()


def test_what_accelerates_launcher_usually_sets_is_accepted(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert accelerate().gradient_accumulation_steps == 1


# --- losses that wait on the device -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flow", "images", "decay"])
def test_losses_that_are_read_late_are_the_same_and_so_is_the_run(name):
    """To the bit, in whatever portions: by number, by what is due, and at the end."""
    recipe = tiny(name, steps=7, **({"network": "unet-tiny:width=16"} if name == "images" else {}))
    at_once, late = trainer(recipe), trainer(recipe)
    late.every = 4
    yielded = [(record, late.step) for record in late.steps(due=[2].__contains__)]
    assert [record for record, _ in yielded] == list(at_once.steps())
    assert [step for _, step in yielded] == [2, 2, 6, 6, 6, 6, 7]
    assert late.engine.updates == 7
    assert torch.equal(late.engine.flat.vector, at_once.engine.flat.vector)
    assert torch.equal(late.engine.ema, at_once.engine.ema)


class Watched(TorchDispatchMode):
    """Counts how often a number is brought from the device, for which a GPU has to be waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **kwargs or {})


def test_no_number_is_brought_from_the_device_inside_a_step():
    """By default two are in each step; read late, none is but for a portion's list at its end."""
    counts = {}
    for every in (1, 3):
        run = trainer(tiny(steps=3, stratified=False))
        run.every = every
        with Watched() as watched:
            update, seen = run._update_unread, []
            run._update_unread = lambda *given, update=update, seen=seen, watched=watched: (
                update(*given), seen.append(watched.count),
            )  # fmt: skip
            list(run.steps())
        counts[every] = seen, watched.count
    assert counts[1][1] >= 6
    assert counts[3] == ([0, 0, 0], 0)


def test_a_bad_loss_that_is_read_late_has_moved_nothing():
    """Steps 5 to 8 are read at once, the sixth is bad: weights, moments, average and counts are of the fifth."""
    late, at_once = counting(steps=12), counting(steps=12)
    at_once.load_state(late.averaged(), late.state())
    late.every = 4
    for run in (late, at_once):
        calls, network = iter(range(99)), run.denoiser.network
        network.register_forward_pre_hook(lambda part, _, calls=calls: setattr(part, "poison", next(calls) == 5))
        records = []
        with pytest.raises(DivergedError, match="At step 6 the loss was nan and the gradient's norm nan; the weights"):
            records.extend(record for record in run.steps() if records.append(record))
        assert [record.step for record in records] == [1, 2, 3, 4, 5]
        assert run.step == run.engine.updates == 5
    for name, part in at_once.state().items():
        assert torch.equal(late.state()[name], part), name
    assert torch.equal(late.engine.ema, at_once.engine.ema)


# --- several processes --------------------------------------------------------------------------------------------


def together():
    """reduce(rank): the reduction of one of two ranks, which waits for the other's tensor."""
    barrier, parts = Barrier(2, timeout=60), {}

    def reduce(rank):
        def mean(tensor, how):
            parts[rank] = tensor
            barrier.wait()
            total = parts[0] + parts[1]
            barrier.wait()
            return total / 2 if how == "mean" else total

        return mean

    return reduce


@pytest.mark.parametrize("name", ["flow", "conditional", "two sets", "ot"])
def test_ranks_in_lockstep_train_as_one(name):
    """In threads, which add up as gloo does: each takes its own share, and losses and gradients are means of both."""
    recipe = tiny(name, clip=1e6)
    reduce = together()
    alone, runs, found = trainer(recipe), [], {}
    for rank in range(2):
        start = trainer(recipe)
        runs.append(Trainer(start.denoiser, start.data, recipe, ranked(rank, reduce(rank)), 2, start.classes))
    shares = [run.batch(0) for run in runs]
    for key, whole in alone.batch(0).items():
        assert torch.equal(torch.cat([share[key] for share in shares]), whole), key
    threads = [Thread(target=lambda k=k: found.update({k: list(runs[k].steps())})) for k in range(2)]
    for thread in threads:
        thread.start()
    records = list(alone.steps())
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    for one, other in zip(records, found[0], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-2)
    for run in runs:
        torch.testing.assert_close(run.engine.flat.vector, alone.engine.flat.vector, rtol=1e-3, atol=1e-4)


def test_a_process_that_is_gone_is_one_sentence():
    """What gloo raises when another process was killed; the weights stay those of the step before."""

    def closed(tensor, how):
        raise RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:29500")

    start = trainer(tiny())
    run = Trainer(start.denoiser, start.data, tiny(), ranked(0, closed))
    before = run.engine.flat.vector.clone()
    with pytest.raises(Deserted, match=r"^One of the 2 processes is gone: was it killed, or memory short\?$"):
        next(run.steps())
    assert torch.equal(run.engine.flat.vector, before)
    assert run.step == 0


def test_noise_of_a_large_batch_is_drawn_anew_for_every_block_step_and_use(monkeypatch):
    """Blocks of 3 examples: 12 of 2 × 36 numbers, none twice, and what follows them is the same for every rank."""
    monkeypatch.setattr(randomness, "BLOCK", 6)
    address = {"n": 36, "rows": slice(0, 36)}
    draws = [Share(seed, "step", 1, **address) for seed in (1, 1, 2)]
    noises = [[normal(draw, 36, 2), normal(draw, 36, 2)] for draw in draws]
    assert all(torch.equal(*pair) for pair in zip(noises[0], noises[1]))
    assert len(torch.cat([part.flatten() for part in (*noises[0], *noises[2])]).unique()) == 4 * 72
    part = Share(1, "step", 1, n=36, rows=slice(10, 17))
    assert torch.equal(normal(part, 7, 2), noises[0][0][10:17])
    assert torch.equal(normal(part, 7, 2), noises[0][1][10:17])
    assert torch.equal(uniform(part, 7), uniform(draws[0], 36)[10:17])


class Dropping(nn.Module):
    """A network that keeps which numbers it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.layer, self.dropped = nn.Dropout(0.5), nn.Linear(2, 2), []

    def forward(self, x, t):
        mask = self.drop(torch.ones_like(x))
        self.dropped.append(mask == 0)
        return self.layer(x * mask)


def test_dropout_draws_anew_for_every_seed_step_rank_and_part():
    """Masks of 16 numbers; the same address draws the same again, whatever was drawn before."""

    def masks(rank, seed=3):
        recipe, accelerator = tiny(batch=32, steps=3, seed=seed), ranked(rank, lambda tensor, how: tensor)
        run = Trainer(Denoiser(Dropping(), Linear()), TensorData(torch.zeros(50, 2)), recipe, accelerator, 2)
        torch.rand(seed + rank)
        for _ in run.steps():
            pass
        return [tuple(mask.flatten().tolist()) for mask in run.denoiser.network.dropped]

    first, second, other = masks(0), masks(1), masks(0, seed=4)
    assert len({*first, *second, *other}) == 3 * 3 * 2
    assert masks(0) == first


# --- a step's parts -----------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A network with a buffer that changes at every call, and counts in an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.poison = False
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x, t):
        self.seen += 1
        return self.layer(x) * (math.nan if self.poison else 1)


def counting(**changes):
    recipe = tiny(**changes)
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    return Trainer(Denoiser(Counting(), Linear()), TensorData(x), recipe, accelerate())


def test_parameters_stay_in_their_vector_on_a_numbered_device(monkeypatch):
    """As each process of several has one: to("cpu:0") copies what is on "cpu", and out of the vector nothing learns."""
    monkeypatch.setattr(type(accelerate()), "device", torch.device("cpu", 0))
    run = trainer(tiny())
    monkeypatch.undo()
    plain = trainer(tiny())
    assert list(run.steps()) == list(plain.steps())
    assert torch.equal(run.engine.flat.split(run.engine.flat.vector)["network.out.bias"], run.denoiser.network.out.bias)
    assert torch.equal(run.engine.flat.vector, plain.engine.flat.vector)


def test_buffers_are_copied_not_averaged():
    run = counting()
    for _ in run.steps():
        pass
    average = run.averaged()
    assert float(average["network.seen"]) == 12
    assert not torch.equal(average["network.layer.weight"], run.denoiser.network.layer.weight)


def test_the_loss_falls_to_the_oracles():
    """Three Gaussians in 600 steps of a tiny network: within 3 % of the least possible loss, from twice that.

    The batches are fixed, so nothing here is left to chance but the machine's rounding.
    """
    recipe = tiny(points=4000, batch=256, steps=600, lr=2e-2, network="mlp:width=32,depth=2")
    run, fresh = trainer(recipe), trainer(replace(recipe, stable_targets=False, seed=9))
    before = run.denoiser.loss(**fresh.batch(0)).mean()
    for _ in run.steps():
        pass
    network = run.denoiser
    network.load_state_dict(run.averaged())
    means = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [0.0, -2.0]])
    std = torch.tensor([(8 / 3 + 0.09) ** 0.5, (32 / 9 + 0.09) ** 0.5])  # of the mixture's columns
    centre = torch.tensor([0.0, 2 / 3])
    trained, least = [], []
    for step in range(30):
        batch = fresh.batch(step)
        trained.append(network.loss(**batch).mean().detach())
        # The data are standardised column by column, which leaves modes that are not round: one oracle can't say
        # both widths, so the exact velocity is worked out in data units, where x_t = α x + σ (std ε).
        least.append(_least(batch, means, std, centre))
    trained, least = float(torch.stack(trained).mean()), float(torch.stack(least).mean())
    assert float(before.detach()) > 1.5 * least
    assert 0.97 * least < trained < 1.03 * least


def _least(batch, means, std, centre):
    """Mean squared error of E[ε - x₀ | x_t], by the posterior over modes with their own widths in each column."""
    t, x0, noise = batch["t"][:, None], batch["x0"], batch["noise"]
    x_t = (1 - t) * x0 + t * noise
    mode, spread = (means - centre) / std, 0.3 / std
    variance = ((1 - t) * spread) ** 2 + t**2  # (b, 2)
    offset = x_t[:, None] - (1 - t)[:, None] * mode  # (b, 3, 2)
    log = -(offset.square() / variance[:, None]).sum(2) / 2
    r = log.softmax(1)[..., None]
    x0_hat = (r * (mode + ((1 - t) * spread**2 / variance)[:, None] * offset)).sum(1)
    noise_hat = (r * (t / variance)[:, None] * offset).sum(1)
    return ((noise_hat - x0_hat) - (noise - x0)).square().mean()


def test_the_least_loss_is_the_oracles():
    """`_least` on round modes is the error of ebbtide's own oracle."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    generator = torch.Generator().manual_seed(0)
    x0 = means[torch.randint(3, (500,), generator=generator)] + 0.3 * torch.randn(500, 2, generator=generator)
    batch = {"x0": x0, "noise": torch.randn(500, 2, generator=generator), "t": torch.rand(500, generator=generator)}
    t = batch["t"][:, None]
    exact = mixture(Linear(), means, 0.3)((1 - t) * x0 + t * batch["noise"], batch["t"])
    error = ((exact.noise - exact.x0) - (batch["noise"] - x0)).square().mean()
    torch.testing.assert_close(_least(batch, means, torch.ones(2), torch.zeros(2)), error, rtol=1e-4, atol=1e-5)


def test_a_rate_of_zero_moves_nothing():
    run = trainer(tiny(lr=0.0))
    before = run.engine.flat.vector.clone()
    assert [record.lr for record in run.steps()] == [0.0] * 12
    assert torch.equal(run.engine.flat.vector, before)


# --- what a bad step leaves alone ---------------------------------------------------------------------------------


def poisoned(value=math.inf, name="flow", **changes):
    """A trainer one of whose 50 rows is not finite, and the first step that draws it."""
    run = trainer(tiny(name, **changes))
    row = int(batch_indices(run.recipe.seed, 2, run.recipe.batch, 50)[0])
    run.data.x[row] = value
    return run


def frozen(run):
    return {
        **{k: v.clone() for k, v in run.state().items()},
        **{f"a.{k}": v.clone() for k, v in run.averaged().items()},
    }


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("name", ["ddpm", "flow", "edm"])
def test_stop_leaves_weights_moments_and_average_as_they_were(name, stable, value):
    changes = {"steps": 40, "stable_targets": stable}
    run, clean = poisoned(value, name, **changes), trainer(tiny(name, **changes))
    with pytest.raises(DivergedError, match=r"At step 3 the loss was .* the weights are the last good ones") as caught:
        list(run.steps())
    assert caught.value.exit_code == 3
    assert run.step == 2
    for _, record in zip(range(2), clean.steps()):
        assert not record.skipped
    found = frozen(run)
    for key, part in frozen(clean).items():
        assert torch.equal(found[key], part), key


def test_skip_passes_over_the_bad_steps_alone():
    run = poisoned(steps=30)
    before, skipped = frozen(run), []
    for record in run.steps("skip"):
        now = frozen(run)
        same = all(torch.equal(before[key], now[key]) for key in now if key != "step")
        assert same == record.skipped
        assert all(bool(part.isfinite().all()) for part in now.values())
        if record.skipped:
            skipped.append(record.step)
            assert not (math.isfinite(record.loss) and math.isfinite(record.grad_norm))
        before = now
    assert run.step == 30
    # The row is drawn once in 50 examples, so about every third batch of 16 has it.
    assert skipped[0] == 3
    assert 8 <= len(skipped) <= 11


def test_a_finite_loss_with_a_bad_gradient_is_caught_too():
    run = trainer(tiny())
    run.denoiser.network.out.weight.register_hook(lambda gradient: gradient * math.nan)
    before = frozen(run)
    with pytest.raises(DivergedError, match=r"the loss was \d.*norm nan"):
        next(run.steps())
    assert all(torch.equal(before[key], part) for key, part in frozen(run).items())


def test_a_gradient_too_large_for_its_norm_is_caught():
    run = trainer(tiny())
    run.denoiser.network.out.weight.register_hook(lambda gradient: gradient + 1e30)
    with pytest.raises(DivergedError):
        next(run.steps())


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 4)
    run = counting(steps=40)
    steps = run.steps("skip")
    next(steps)
    run.denoiser.network.poison = True
    assert [next(steps).skipped for _ in range(3)] == [True] * 3
    run.denoiser.network.poison = False
    assert not next(steps).skipped  # which starts the count anew
    run.denoiser.network.poison = True
    assert [next(steps).skipped for _ in range(3)] == [True] * 3
    with pytest.raises(DivergedError):
        next(steps)
    assert run.engine.flat.vector.isfinite().all()


def test_on_nonfinite_has_two_values():
    with pytest.raises(InputError, match="on_nonfinite must be one of stop, skip; got 'ignore'"):
        next(trainer(tiny()).steps("ignore"))


# --- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_trainer_goes_on_from_a_state_as_if_it_had_never_stopped(name):
    straight, first, second = (trainer(tiny(name, steps=8)) for _ in range(3))
    records = list(straight.steps())
    for _, record in zip(range(5), first.steps()):
        assert record
    second.load_state(first.averaged(), first.state())
    assert second.step == 5
    assert list(second.steps()) == records[5:]
    found = frozen(second)
    for key, part in frozen(straight).items():
        assert torch.equal(found[key], part), key


def test_a_state_is_a_copy_once_loaded():
    first, second = trainer(tiny()), trainer(tiny())
    next(first.steps())
    state, average = first.state(), first.averaged()
    kept = {key: part.clone() for key, part in state.items()}
    second.load_state(average, state)
    for _ in second.steps():
        pass
    assert all(torch.equal(state[key], part) for key, part in kept.items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("exp_avg.network.out.bias"),
        lambda state: state.update({"weights.network.out.bias": torch.zeros(1)}),  # would broadcast in silence
        lambda state: state.update({"exp_avg_sq.network.out.weight": torch.full((2, 8), math.nan)}),
        lambda state: state.update({"weights.network.out.bias": torch.zeros(2, dtype=torch.float64)}),
        lambda state: state.update(step=torch.tensor(-1)),
        lambda state: state.update(step=torch.tensor(13)),
        lambda state: state.update(updates=torch.zeros(3)),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil):
    run = trainer(tiny())
    before, state = frozen(run), run.state()
    spoil(state)
    with pytest.raises(InputError, match=r"^its (tensor [\w.]+ is missing|step must be in 0\.\.12)"):
        run.load_state(run.averaged(), state)
    assert all(torch.equal(before[key], part) for key, part in frozen(run).items())


# --- students that are judged, and pairs --------------------------------------------------------------------------

JUDGED = "matching:critic=0.3,after=0.25,updates=2"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A run without labels and one with, and one between two sample sets."""
    place = tmp_path_factory.mktemp("teachers")
    for name in ("flow", "conditional", "two sets"):
        make(tiny(name), place / name, checkpoints=1, keep=1)
    return place


@pytest.fixture
def student(teachers, monkeypatch, tmp_path):
    """Makes a trainer of a student of one of them."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))

    def made(name="conditional", loss=JUDGED, accumulate=1, accelerator=None, **changes):
        teacher = from_pretrained(teachers / name)
        few = {"trajectories": 40, "trajectory_steps": 4, "batch": 16, "steps": 12, "loss": loss, "clip": 1e6}
        recipe = student_recipe(teacher, str(teachers / name), **few | changes)
        data, own = trajectories_of(teacher, recipe), accelerator or accelerate()
        return Trainer(student_of(recipe, teacher).denoiser, data, recipe, own, accumulate, len(teacher.classes))

    return made


def test_judges_are_trained_beside_the_student_from_when_they_are_asked(student):
    """By AdamW on their own gradient: until a quarter of the steps they stand still."""
    run = student()
    flat, optimizer = run._engines[1].flat, run._engines[1].optimizer
    before = flat.vector.clone()
    for record in run.steps():
        assert torch.equal(flat.vector, before) == (record.step <= 3), record.step
        assert optimizer.updates == max(record.step - 3, 0)
    state = run.state()
    for part in ("judges.weights.fake.network.out.bias", "judges.exp_avg.critic.network.out.bias", "judges.updates"):
        assert part in state
    assert not any("judges" in name for name in run.averaged())


def test_a_judged_student_goes_on_as_if_it_had_never_stopped(student):
    for step in (2, 7):
        straight, first, second = (student() for _ in range(3))
        records = list(straight.steps())
        for _, record in zip(range(step), first.steps()):
            assert record
        second.load_state(first.averaged(), first.state())
        assert list(second.steps()) == records[step:]
        found = frozen(second)
        for key, part in frozen(straight).items():
            assert torch.equal(found[key], part), key


def test_a_judged_students_batch_in_parts(student):
    whole = student(loss="matching:critic=0.3")
    expected = next(whole.steps())
    run = student(loss="matching:critic=0.3", accumulate=3)
    record = next(run.steps())
    assert record.loss == pytest.approx(expected.loss, rel=1e-5)
    for mine, theirs in zip(run._engines, whole._engines, strict=True):
        wanted = theirs.flat.gradient
        assert (mine.flat.gradient - wanted).norm() < 1e-4 * wanted.norm()


def test_a_judged_students_ranks_have_its_gradient(student):
    """Of the first step: AdamW's first update is as long for a gradient that is all rounding."""
    loss, found = "matching:critic=0.3", {}
    reduce = together()
    alone = student(loss=loss)
    both = [student(loss=loss, accelerator=ranked(rank, reduce(rank))) for rank in range(2)]
    threads = [Thread(target=lambda k=k: found.update({k: next(both[k].steps())})) for k in range(2)]
    for thread in threads:
        thread.start()
    expected = next(alone.steps())
    for thread in threads:
        thread.join()
    for k, run in enumerate(both):
        assert found[k].loss == pytest.approx(expected.loss, rel=1e-5)
        for mine, theirs in zip(run._engines, alone._engines, strict=True):
            wanted = theirs.flat.gradient
            assert (mine.flat.gradient - wanted).norm() < 1e-4 * wanted.norm()


def test_a_bad_step_leaves_judges_alone_too(student):
    run = student(loss="matching:critic=0.3")
    run._judges.fake.network.out.weight.register_hook(lambda gradient: gradient * math.nan)
    before = frozen(run)
    with pytest.raises(DivergedError, match="norm nan"):
        next(run.steps())
    assert all(torch.equal(before[key], part) for key, part in frozen(run).items())


@pytest.mark.parametrize("name", ["flow", "two sets"])
def test_a_judged_student_starts_where_sampling_does(student, name):
    """From fresh noise, or at points of the other set; and its critic is shown the ends of trajectories."""
    run = student(name)
    batch = run.batch(4)
    starts, ends = ({tuple(row) for row in run.data.x[k].tolist()} for k in (0, -1))
    assert all(tuple(row) in ends for row in batch["end"].tolist())
    assert all((tuple(row) in starts) == (name == "two sets") for row in batch["start"].tolist())
    assert not torch.equal(batch["noise"], batch["nudge"])
    wider = {tuple(row) for row in run.data.x[-1, :4].tolist()}  # a tenth of 40, where there is noise to be wider than
    assert [tuple(row) in wider and name == "flow" for row in batch["end"].tolist()] == (~batch["lawful"]).tolist()
    assert batch["u"].sort().values.diff().max() < 1.01 / 16


def test_reflow_learns_from_pairs_of_the_teachers(student):
    """Start and end of one trajectory, with its label; none of the starts wider than the noise is."""
    run = student(loss="reflow")
    batch = run.batch(2)
    places = [(run.data.x[-1] == row).all(1).nonzero().item() for row in batch["x0"]]
    assert torch.equal(run.data.x[0, places], batch["noise"])
    assert torch.equal(run.data.labels[places], batch["label"])
    assert not run.denoiser.gaussian_end
    assert float(student(loss="reflow", trajectories=4000).data.x[0, :400].std()) == pytest.approx(1, abs=0.15)
    assert float(student(loss="trajectory", trajectories=4000).data.x[0, :400].std()) == pytest.approx(1.5, abs=0.2)
    for record in run.steps():
        assert math.isfinite(record.loss)


def test_reflow_straightens_the_ways(tmp_path, monkeypatch):
    """Three Gaussians: Euler's four steps end less than half as far from where fifty lead; an example of one seed."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    recipe = tiny(points=4000, batch=256, steps=400, lr=2e-2, network="mlp:width=32,depth=3")
    teacher = make(recipe, tmp_path / "teacher", solvers=False)
    few = {"loss": "reflow", "trajectories": 2000, "trajectory_steps": 12, "steps": 400}
    straight = make(student_recipe(teacher, str(tmp_path / "teacher"), **few), tmp_path / "straight", solvers=False)
    assert straight.recipe.network == recipe.network

    def bend(run):
        ends = [run.sample(500, seed=1, sampler="euler", grid="uniform", steps=steps) for steps in (4, 50)]
        return float((ends[0] - ends[1]).norm(dim=1).mean())

    assert bend(straight) < 0.5 * bend(teacher)


def test_a_parameter_takes_20_bytes():
    """Its weight, gradient, two moments and average in float32, each in one vector; nothing else is as large."""
    gc.collect()
    before = {id(one) for one in gc.get_objects() if isinstance(one, torch.Tensor)}
    made = trainer(tiny("flow", network="mlp:width=64,depth=3"))
    next(made.steps())
    count = sum(part.numel() for part in made.denoiser.parameters())
    alive = [one for one in gc.get_objects() if isinstance(one, torch.Tensor) and id(one) not in before]
    large = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
    assert sorted(size for size in large.values() if size >= count) == [4 * count] * 5
