"""A teacher's trajectories as data, and the student that starts from its weights."""

import random
import time
from dataclasses import replace

import pytest
import torch

from ebbtide.core.randomness import generator
from ebbtide.core.times import SPANS
from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.losses.flow_map import mean_slope
from ebbtide.samplers import walk
from ebbtide.training import solver, teacher as module
from ebbtide.training.teacher import student_of, student_recipe, trajectories_of, well_conditioned
from interrupting import wait_until
from training.runs import assert_same, command, newest, run, run_until, tensors, tiny

N, STEPS = 40, 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("teachers")
    for name in ("flow", "ddpm", "conditional", "two sets"):
        run(tiny(name), place / name, checkpoints=1, keep=1)
    return place


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


def taught(folders, name, **changes):
    """A teacher, a small student's recipe, and the trajectories."""
    teacher = from_pretrained(folders / name)
    few = {"trajectories": N, "trajectory_steps": STEPS} | changes
    recipe = student_recipe(teacher, str(folders / name), **few)
    return teacher, recipe, trajectories_of(teacher, recipe)


@pytest.mark.parametrize("name", ["flow", "ddpm", "conditional", "two sets"])
def test_trajectories_are_the_teachers_own(folders, name):
    """Heun's method in the flow clock from each start, with the label that is kept beside it."""
    teacher, _, data = taught(folders, name)
    assert data.x.shape == (STEPS + 1, N, *teacher.shape)
    cond = {} if data.labels is None else {"label": data.labels}
    assert (data.labels is None) == (name != "conditional")
    sampler = "heun" if name == "two sets" else "heun:clock=flow"
    with torch.no_grad():
        steps = list(walk(sampler, teacher.steered(), data.x[0], data.times, cond=cond))
    torch.testing.assert_close(data.x[1:], torch.stack(steps), rtol=1e-5, atol=1e-5)


def test_starts_are_noise_a_tenth_of_it_wider_and_others_are_held_out(folders):
    _, _, data = taught(folders, "flow", trajectories=20_000)
    wide = data.x[0, : round(module.WIDE * 20_000)]
    rest = data.x[0, round(module.WIDE * 20_000) :]
    assert float(wide.std()) == pytest.approx(module.WIDER, rel=0.06)
    assert float(rest.std()) == pytest.approx(1, rel=0.03)
    assert float(data.held_out.x[0].std()) == pytest.approx(1, rel=0.1)
    assert len(data.held_out) == module.HELD_OUT
    assert not torch.isin(data.held_out.x[0, :, 0], data.x[0, :, 0]).any()


def test_no_start_is_wider_for_a_loss_that_learns_a_distribution(folders):
    _, _, data = taught(folders, "flow", trajectories=4000, loss="reflow")
    assert float(data.x[0, : round(module.WIDE * 4000)].std()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("end", [float("inf"), float("nan"), 1e6])
def test_a_wider_start_that_leads_nowhere_is_drawn_as_it_was(folders, monkeypatch, tmp_path, end):
    """A network may fly off where it was never trained: one sample of 16,384 of a teacher became 1e34, then NaN."""

    def flying(sampler, denoiser, x, times, cond):
        rare = (x.abs().amax(1) > 4.5)[:, None]
        yield from (torch.where(rare, end, each) for each in walk(sampler, denoiser, x, times, cond=cond))

    plain = taught(folders, "flow", trajectories=4000)[2].x
    rare = plain[0].abs().amax(1) > 4.5
    assert 0 < rare.sum() < 20
    assert not rare[round(module.WIDE * 4000) :].any()
    monkeypatch.setattr(module, "walk", flying)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "another"))
    x = taught(folders, "flow", trajectories=4000)[2].x
    assert x.isfinite().all()
    torch.testing.assert_close(x[0, rare], plain[0, rare] / module.WIDER)
    torch.testing.assert_close(x[:, ~rare], plain[:, ~rare], rtol=1e-5, atol=1e-5)
    assert x.abs().max() < 10


def test_a_teacher_that_does_not_lead_to_numbers_is_refused(folders, monkeypatch):
    monkeypatch.setattr(module, "walk", lambda *_, **__: iter([torch.full((N, 2), float("nan"))] * STEPS))
    with pytest.raises(InputError, match=r"flow can't be a teacher: 40 of 40 of its samples are not finite\."):
        taught(folders, "flow")


def test_the_second_time_they_come_from_the_cache(folders, monkeypatch):
    """Unless the teacher, its guidance, the seed, the grid or a number is another: each is a part of their key."""
    _, recipe, data = taught(folders, "conditional")
    monkeypatch.setattr(module, "walk", lambda *a, **k: pytest.fail("drawn again"))
    teacher, _, again = taught(folders, "conditional")
    assert torch.equal(again.x, data.x)
    assert torch.equal(again.slopes, data.slopes)
    assert torch.equal(again.labels, data.labels)
    assert again.cpu_seconds == data.cpu_seconds > 0  # what it took, not what it takes to read them
    for changes in ({"seed": 5}, {"trajectory_steps": STEPS + 1}, {"teacher_guidance": 2.0}, {"trajectories": N + 8}):
        with pytest.raises(pytest.fail.Exception, match="drawn again"):
            trajectories_of(teacher, replace(recipe, **changes))
    clipped = replace(teacher, recipe=replace(teacher.recipe, bound=0.5))
    other = from_pretrained(folders / "flow")
    moved = from_pretrained(folders / "conditional")
    next(moved.denoiser.parameters()).data[0, 0] += 1e-3
    for another in (clipped, other, moved):
        with pytest.raises(pytest.fail.Exception, match="drawn again"):
            trajectories_of(another, recipe)
    monkeypatch.setattr(module, "GRID", "flow_power:exponent=1.9")
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        trajectories_of(teacher, recipe)


def test_more_than_a_limit_is_streamed_from_the_disk(folders, monkeypatch, tmp_path, capsys):
    """Drawn piece by piece and mapped, a student learns the same of them, to the bit; their size is said before."""
    _, recipe, data = taught(folders, "conditional", steps=6, batch=16)
    whole = train_recipe(recipe, tmp_path / "whole", snapshots=0, progress=False)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "other cache"))
    monkeypatch.setattr(module, "PIECE", 16)
    monkeypatch.setattr(module.cache, "MAPPED", 500)
    teacher = from_pretrained(folders / "conditional")
    mapped = trajectories_of(teacher, recipe, progress=True)
    err = capsys.readouterr().err
    for what in ("held out", "learned"):
        assert f"The teacher's trajectories, {what}: {N} of {STEPS} steps, 0.0 MiB\n" in err
    torch.testing.assert_close(mapped.x, data.x, rtol=1e-5, atol=1e-6)
    stored = list((tmp_path / "other cache").glob("trajectories-*.float32"))
    assert sorted(file.stat().st_size for file in stored) == sorted(
        [4 * 2 * (STEPS + 1) * n for n in (N, len(data.held_out))] + [4 * 2 * STEPS * (N // module.STILL)]
    )
    assert mapped.to(torch.device("meta")).x.device.type == "cpu"  # it stays where it is
    student = train_recipe(recipe, tmp_path / "student", snapshots=0, progress=False)
    for one, two in zip(whole.denoiser.parameters(), student.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


class Killed(BaseException):
    """What nothing catches: the process is gone."""


def test_a_student_killed_at_any_moment_is_the_same_in_the_end(folders, monkeypatch, tmp_path):
    """While trajectories are drawn, while it is trained, while its grids are fitted: resumed, it is as never killed."""
    monkeypatch.setattr(module, "PIECE", 16)
    _, recipe, _ = taught(folders, "conditional", steps=8, batch=16)
    how = {"snapshots": 0, "checkpoints": 2, "progress": False}
    train_recipe(recipe, tmp_path / "whole", **how)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "other cache"))
    walked, pieces = module.walk, []

    def dying(*given, **more):
        pieces.append(len(given[2]))
        if len(pieces) in (2, 4):
            raise Killed
        return walked(*given, **more)

    monkeypatch.setattr(module, "walk", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            train_recipe(recipe, tmp_path / "killed", **how)
    assert not (tmp_path / "killed").exists()
    run_until(6, recipe, tmp_path / "killed", monkeypatch, **how)
    # 40 held out and 40 learned, in pieces of 16: those that were whole were not drawn again.
    assert pieces == [16, 16, 16, 8, 8, 16, 16, 8]
    fitting = solver.fit_jumps
    monkeypatch.setattr(solver, "fit_jumps", lambda *a, **k: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train_recipe(recipe, tmp_path / "killed", resume=True, **how)
    monkeypatch.setattr(solver, "fit_jumps", fitting)
    train_recipe(recipe, tmp_path / "killed", resume=True, **how)
    assert len(pieces) == 8
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "killed"))
    assert (tmp_path / "whole" / "tuned.json").read_bytes() == (tmp_path / "killed" / "tuned.json").read_bytes()


@pytest.mark.slow
def test_kill_9_in_a_real_distillation(folders, tmp_path):
    """Three times while trajectories are drawn and three times in training; in the end it is as one never killed."""
    words = ["distill", folders / "conditional", "--steps", 600, "--batch", 64, "--trajectories", 65_536, "--n", 0]
    words += ["--trajectory-steps", 64, "--quiet", "--snapshots", 0, "--checkpoints", 60, "--out"]
    env, out = {"EBBTIDE_CACHE": str(tmp_path / "one")}, tmp_path / "killed"
    process = command(*words, tmp_path / "whole", env=env)
    assert process.wait() == 0, process.stderr.read()
    env, chance = {"EBBTIDE_CACHE": str(tmp_path / "other")}, random.Random(20)

    def drawn():
        """Bytes of notes on finished pieces, which grow with each."""
        return sum(file.stat().st_size for file in (tmp_path / "other").glob("trajectories-*.json"))

    for kill in range(6):
        begun = (out / "checkpoints" / "last").exists()
        reached = (lambda: newest(out).name if (out / "checkpoints" / "last").exists() else "") if kill > 2 else drawn
        before = reached()
        process = command(*words, out, *(["--resume"] if begun else []), env=env)
        wait_until(lambda: reached() != before or process.poll() is not None, 600)  # noqa: B023
        time.sleep(chance.uniform(0, 0.3))
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.wait()
        assert (out / "checkpoints" / "last").exists() == (kill > 2), kill
    assert command(*words, out, "--resume", env=env).wait() == 0
    assert_same(tensors(tmp_path / "whole"), tensors(out))


def test_guidance_gives_every_trajectory_a_label(folders):
    _, _, plain = taught(folders, "conditional", trajectories=400)
    teacher, _, guided = taught(folders, "conditional", trajectories=400, teacher_guidance=3.0)
    assert bool((plain.labels == len(teacher.classes)).any())
    assert int(guided.labels.max()) < len(teacher.classes)
    assert not torch.equal(plain.x[-1], guided.x[-1])


def test_two_points_of_one_trajectory_at_the_times_that_are_said(folders):
    _, _, data = taught(folders, "conditional")
    for law in SPANS.values():
        batch = replace(data, law=law).take(torch.arange(N), generator(3))
        for i in range(N):
            # Where it stays, it is of the trajectory before it along which slopes are kept.
            own = i if batch["to"][i] < batch["t"][i] else i - i % module.STILL
            for x, t in (("x_t", "t"), ("x_to", "to")):
                place = int((data.times == batch[t][i]).nonzero())
                assert torch.equal(batch[x][i], data.x[place, own])
            assert batch["label"][i] == data.labels[own]
        assert bool((batch["to"] <= batch["t"]).all())


@pytest.mark.parametrize("name", ["ddpm", "conditional", "two sets"])
def test_what_stays_learns_the_teachers_slope(folders, name):
    """Of the teacher itself, with the label that is told."""
    teacher, _, data = taught(folders, name)
    batch = data.take(torch.arange(N), generator(3))
    still = batch["to"] == batch["t"]
    cond = {key: part[still] for key, part in batch.items() if key == "label"}
    x = batch["x_t"][still]
    with torch.no_grad():
        expected = mean_slope(teacher.steered(), x, teacher.denoiser.path.at(batch["t"][still], x), None, cond)
    torch.testing.assert_close(batch["slope"][still], expected, rtol=1e-4, atol=1e-4)
    assert len(x) >= 3


def test_a_tenth_of_a_batch_stays_where_it_is(folders):
    """And learns the teacher's velocity; without it a student is no denoiser any more."""
    _, _, data = taught(folders, "flow")
    batch = data.take(torch.arange(N), generator(3))
    assert int((batch["to"] == batch["t"]).sum()) in (N // 10 - 1, N // 10, N // 10 + 1)


def test_spans_grow_to_their_full_length():
    u, w = torch.rand(2, 200, generator=generator(1))
    (start, end), (_, early), (_, still) = (
        SPANS["stretches"](u, w, done, alone=0.25, wide=0.75) for done in (1.0, 0.35, 0.2)
    )
    torch.testing.assert_close(start - early, (start - end) / 5)
    assert torch.equal(still, u)


def test_stretches_ask_for_what_samplers_ask():
    """Shares of a batch of 1000: 1 → 0, 1 → s, t → 0 and s = t, with the rest in between."""
    u = (torch.arange(1000) + 0.5) / 1000
    t, s = SPANS["stretches"](u, torch.linspace(0.01, 0.99, 1000), whole=0.2, first=0.3, last=0.3, same=0.1)
    counts = [int(part.sum()) for part in ((t == 1) & (s == 0), (t == 1) & (s > 0), (t < 1) & (s == 0), t == s)]
    assert counts == [200, 300, 300, 100]
    assert bool((t >= s).all())
    with pytest.raises(InputError, match="whole"):
        SPANS["stretches"](u, u, whole=1.5)
    with pytest.raises(InputError, match="sum of its shares"):
        SPANS["stretches"](u, u, whole=0.9)


@pytest.mark.parametrize("name", ["flow", "conditional", "two sets"])
def test_a_student_starts_as_its_teacher(folders, name):
    teacher, recipe, data = taught(folders, name)
    student = student_of(recipe, teacher)
    x, t = data.x[2], data.times[2:3]
    cond = {} if data.labels is None else {"label": data.labels}
    with torch.no_grad():
        expected, found = teacher.denoiser(x, t, **cond), student.denoiser(x, t, to=0.1, **cond)
    torch.testing.assert_close(found.x0, expected.x0, rtol=0, atol=0)
    assert (student.step, student.tuned, student.recipe) == (0, (), recipe)


def test_a_student_of_a_table_starts_from_its_teachers_gaussians_and_trains_whole(tmp_path):
    """Also where training stopped at step 0, and with it the learning rate."""
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n" + "".join(f"{k},{k * k % 17}\n" for k in range(40)))
    folder = tmp_path / "run"
    run(tiny(data=str(table), steps=1, lr=0.0, lr_steps=80, validation=0.0, held_out=0.0, gaussians=1), folder)
    teacher = from_pretrained(folder)
    recipe = student_recipe(teacher, str(folder))
    assert (recipe.steps, recipe.lr_steps) == (100, 0)
    assert recipe.lr == pytest.approx(0.014)
    own, theirs = student_of(recipe, teacher).denoiser.base.state_dict(), teacher.denoiser.base.state_dict()
    assert float(theirs["means"].abs().max()) > 0
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_another_network_starts_from_the_recipes_seed(folders):
    teacher, recipe, _ = taught(folders, "flow", network="mlp:width=12,depth=1,spans=true")
    one, two = (student_of(recipe, teacher).denoiser.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["network.from_x.weight"].shape[0] == 12


def test_a_noise_says_too_little_of_x0_to_jump_by(folders):
    """d = α is 1/160 at the end of DDPM's table; its student predicts v, whose determinant is 1."""
    assert well_conditioned(from_pretrained(folders / "flow"))
    assert not well_conditioned(from_pretrained(folders / "ddpm"))
    assert student_recipe(from_pretrained(folders / "ddpm"), "x").target == "v"
    assert student_recipe(from_pretrained(folders / "flow"), "x").target == "velocity"


def test_a_student_resumes_as_it_was(folders, tmp_path):
    """Stopped half way and continued, to the bit; it names its teacher, and its grids are fitted."""
    _, recipe, _ = taught(folders, "conditional", steps=8, batch=16)
    whole = train_recipe(recipe, tmp_path / "whole", snapshots=0, checkpoints=2, progress=False)
    assert {one.evaluations: one.sampler for one in whole.tuned} == {1: "jump", 2: "jump", 4: "jump"}
    half = tmp_path / "half"
    half.mkdir()
    (half / "checkpoints").mkdir()
    (tmp_path / "whole" / "checkpoints" / "step-00000004").rename(half / "checkpoints" / "step-00000004")
    train_recipe(recipe, half, snapshots=0, checkpoints=2, progress=False, resume=True)
    one, two = tensors(tmp_path / "whole"), tensors(half)
    assert all(torch.equal(one[name], two[name]) for name in one)
    again = from_pretrained(half)
    assert torch.equal(again.sample(5, steps=2), whole.sample(5, steps=2))


def test_losses_and_teachers_that_do_not_go_together(folders, tmp_path):
    base = tiny("flow")
    for changes, said in (
        ({"loss": "mean_flow"}, "needs a network that spans two times, as in network='mlp:"),
        ({"loss": "trajectory", "network": "mlp:width=8,depth=1,spans=true"}, "learns from a teacher"),
        ({"teacher": str(folders / "flow")}, "learns from data, so it can't have a teacher"),
        ({"loss": "magic"}, "loss must be one of"),
    ):
        with pytest.raises(InputError, match=said):
            train_recipe(replace(base, **changes), tmp_path / "run", progress=False)
        assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("loss", ["shortcut", "mean_flow", "lagrangian", "consistency"])
def test_every_loss_trains_from_data_and_from_a_teacher(folders, tmp_path, loss):
    network = "mlp:width=8,depth=1,spans=true"
    alone = train_recipe(
        replace(tiny("flow"), loss=loss, network=network), tmp_path / "alone", snapshots=0, progress=False
    )
    assert bool(alone.sample(4, sampler="jump", steps=2, grid="uniform").isfinite().all())
    _, recipe, _ = taught(folders, "conditional", loss=loss, steps=4, batch=16)
    told = train_recipe(recipe, tmp_path / "told", snapshots=0, progress=False)
    assert bool(told.sample(4, steps=1).isfinite().all())
