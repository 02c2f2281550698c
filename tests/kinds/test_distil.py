"""A student of any kind of run: trained, sampled in one step, its table; and of exact networks."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import ebbtide
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import VE, VP, Bridge, Cosine, Linear
from ebbtide.core.targets import TARGETS
from ebbtide.errors import InputError
from ebbtide.exact.tune import rms
from ebbtide.kinds import runs
from ebbtide.kinds.distil import as_text, cost, distill, outcomes
from ebbtide.kinds.runs import from_pretrained, train_recipe
from ebbtide.samplers import walk
from ebbtide.training.devices import accelerate
from ebbtide.training.history import read_metrics
from ebbtide.training.teacher import student_recipe, trajectories_of
from ebbtide.training.trained import Trained
from ebbtide.training.trainer import Trainer
from problems import TABLES, GaussianNetwork, exact_flow, noise_like
from recording import record
from training.runs import run, tiny

QUIET = {"progress": False, "snapshots": 0, "checkpoints": 1}
FEW = {"trajectories": 60, "trajectory_steps": 4, "steps": 4, "batch": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("teachers")
    for name in ("flow", "ddpm", "conditional", "two sets", "images"):
        run(tiny(name), place / name, checkpoints=1, keep=1)
    return place


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name", [pytest.param("flow", marks=pytest.mark.slow), "ddpm", "conditional", "two sets", "images"]
)
def test_a_student_is_a_run_like_any_other(folders, tmp_path, name):
    """It samples in its own steps and by every other sampler, and goes through an export."""
    student = distill(folders / name, tmp_path / "fast", fields=FEW, evaluations="1,3", **QUIET)
    assert [one.evaluations for one in student.tuned] == [1, 3]
    teacher = from_pretrained(folders / name)
    again = from_pretrained(student.save_pretrained(tmp_path / "export"))
    for options in ({}, {"steps": 1}, {"steps": 3}, {"steps": "auto:3"}, {"sampler": "euler", "steps": 2}):
        x = student.sample(5, seed=2, **options)
        assert x.shape == (5, *teacher.shape)
        torch.testing.assert_close(again.sample(5, seed=2, **options), x, rtol=0, atol=1e-5 * float(x.abs().max()))
    assert student.choice(steps=3).grid == student.tuned[1].grid
    assert student.choice().steps == 1
    assert again.recipe.teacher == name  # an export holds no place on this machine


def test_the_table_counts_evaluations_and_begins_all_at_the_same_noise(folders, tmp_path):
    student = distill(folders / "flow", tmp_path / "fast", fields=FEW, **QUIET)
    rows = list(outcomes(student, from_pretrained(folders / "flow"), 200))
    found = {name: [row.evaluations for row in rows if row.name == name] for name in {row.name for row in rows}}
    # Heun's last step takes one evaluation, so that one or two steps of it are one or three.
    assert found == {
        "teacher": [1, 1, 3], "teacher, tuned": [1, 2, 4], "student": [1, 2, 4], "teacher, its own steps": [99],
    }  # fmt: skip
    text = as_text(rows, 1.234)
    *lines, floor, spent = text.splitlines()
    assert floor.startswith("real data")
    assert spent == "The student's training took 1.23 × the CPU time of its teacher's."
    assert len({len(line.split("  ")) > 2 for line in (*lines, floor)}) == 1
    assert as_text(rows).splitlines() == [*lines, floor]


def test_the_cost_is_that_of_training_and_trajectories(folders, tmp_path):
    """In CPU seconds, also where they came from the cache; unknown of what stores none."""
    distill(folders / "flow", tmp_path / "fast", fields=FEW | {"trajectories": 4096}, **QUIET)
    distill(folders / "flow", tmp_path / "again", fields=FEW | {"trajectories": 4096}, **QUIET)
    drawn = trajectories_of(*taught_by(folders / "flow", tmp_path / "fast")).cpu_seconds
    spent = read_metrics(folders / "flow")[-1]["cpu_seconds"]
    for name in ("fast", "again"):
        assert cost(tmp_path / name, folders / "flow") > drawn / spent > 0
    from_pretrained(folders / "flow").save_pretrained(tmp_path / "export")
    assert cost(tmp_path / "fast", tmp_path / "export") is None


def taught_by(teacher, student):
    return from_pretrained(teacher), from_pretrained(student).recipe


def test_the_teacher_is_opened_once(folders, tmp_path, monkeypatch):
    """By the command's own hand; a teacher that is given isn't looked for."""
    opened = from_pretrained(folders / "flow")
    monkeypatch.setattr(runs, "_load", lambda *a: pytest.fail("opened again"))
    distill(folders / "flow", tmp_path / "fast", opened=opened, fields=FEW, **QUIET)


def test_guidance_is_built_in(folders, tmp_path):
    student = distill(folders / "conditional", tmp_path / "fast", guidance=2.0, fields=FEW, **QUIET)
    assert student.recipe.teacher_guidance == 2
    rows = [(row.name, row.evaluations) for row in outcomes(student, from_pretrained(folders / "conditional"), 100)]
    # An estimate with guidance takes two evaluations, so that there is none for one.
    assert rows == [
        ("student", 1), ("teacher", 2), ("teacher, tuned", 2), ("student", 2),
        ("teacher", 2), ("teacher, tuned", 4), ("student", 4), ("teacher, its own steps", 198),
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["attributes", pytest.param("smaller images", marks=pytest.mark.slow)])
def test_a_student_is_drawn_given_what_its_teacher_is(how, tmp_path):
    """Its trajectories are its teacher's, given the same; of a run with labels too it is refused by a sentence."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "faces.npz", images=x, labels=np.arange(40) % 2, age=np.linspace(20, 60, 40))
    fields = {"attributes": "age"} if how == "attributes" else {"factor": 2}
    recipe = ebbtide.flow_images(
        data=str(tmp_path / "faces.npz"), network="unet-tiny:width=8", steps=3, batch=8, held_out=0.0, **fields
    )
    teacher = train_recipe(recipe, tmp_path / "run", **QUIET)
    student = distill(tmp_path / "run", tmp_path / "fast", fields=FEW | {"flip": True}, evaluations="1", **QUIET)
    given = {"age": [20.0, 60.0]} if how == "attributes" else torch.rand(2, 1, 4, 4) * 255
    low, high = student.sample(2, given=given, steps=1)
    assert not torch.equal(low, high)
    learned = trajectories_of(teacher, student.recipe, runs.kind_of(recipe).told(student.recipe, None))
    cond = learned.conditions(torch.arange(30), torch.Generator())
    end = next(iter([*walk("heun:clock=flow", teacher.denoiser, learned.x[0][:30], learned.times, cond=cond)][-1:]))
    torch.testing.assert_close(end, learned.x[-1][:30], rtol=0, atol=1e-3)
    both = train_recipe(replace(recipe, conditional=True), tmp_path / "both", **QUIET)
    assert both.recipe.conditional
    with pytest.raises(InputError, match=f"both labels and {how} can't be distilled: the labels"):
        distill(tmp_path / "both", tmp_path / "no", fields=FEW, **QUIET)


def test_a_student_of_a_policy(tmp_path):
    """Its trajectories are drawn for recorded observations; it acts in one step."""
    recipe = replace(
        ebbtide.flow_policy(), data=record(tmp_path / "episodes.npz"), steps=4, batch=8,
        network="action_unet:width=8,emb=16",
    )  # fmt: skip
    train_recipe(recipe, tmp_path / "policy", **QUIET)
    student = distill(tmp_path / "policy", tmp_path / "fast", fields=FEW | {"batch": 8}, **QUIET)
    assert student.sample(3).shape == (3, *student.shape)
    assert student.recipe.sample_steps == 1


class Exact(GaussianNetwork):
    """The exact network of N(0.7, 0.25), with a parameter, which every network of a run has."""

    def __init__(self, path, target):
        super().__init__(path, target)
        self.idle = nn.Parameter(torch.zeros(1, dtype=torch.float64))


class InFlowClock(nn.Module):
    """A network of any path and target whose mean slope is one function of z, τ and the way, in the flow clock."""

    spans = True

    def __init__(self, path, target):
        super().__init__()
        self.path, self.target = path, target
        torch.manual_seed(0)
        self.slope = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    def forward(self, x, t, span=None):
        c = self.path.at(t.double(), x)
        if self.target == "edm":  # it is shown x/√(1 + σ²) and ¼ log σ, those of α = 1
            c = VE(1.0).at((4 * t.double()).exp(), x)
            x = x * (c.sigma**2 + 1).sqrt()
        z, tau = x / c.size, c.tau.reshape(-1, 1).expand(len(x), 1)
        way = torch.zeros_like(tau) if span is None else span.double().reshape(-1, 1).expand(len(x), 1)
        u = self.slope(torch.cat([z, tau, way], 1))
        a, b = TARGETS[self.target](c)
        return a * (z - c.tau * u) + b * (z - c.tau * u + u)


# Paths that end with next to nothing of the data, from where all begin at the same noise in the flow clock.
ENDING = {
    "linear": Linear(), "cosine": Cosine(), "ddpm": TABLES["squared_cosine"], "vp": VP(beta_max=40.0),
    "ve": VE(4000.0), "bridge": Bridge(),
}  # fmt: skip


def exact_teacher(path, target, **fields):
    """A run of the exact network, and the recipe of its student."""
    few = {"trajectories": 64, "trajectory_steps": 16, "steps": 5, "batch": 32, "seed": 2, "lr": 0.01} | fields
    recipe = ebbtide.flow().having({"target": target, "stable_targets": False} | few)
    teacher = Trained(Denoiser(Exact(path, target), path, target), recipe, (2,))
    return teacher, student_recipe(teacher, "oracle", **few)


def test_six_paths_and_six_targets_of_one_oracle_have_the_same_student():
    """Their trajectories, in the flow clock, and a student's losses and weights after five steps, all to 1e-3."""
    found, parametrised = {}, set()
    for (name, path), target in product(ENDING.items(), TARGETS):
        teacher, recipe = exact_teacher(path, target)
        data = trajectories_of(teacher, recipe)
        sizes = torch.tensor([c.size for c in path.along(data.times)])
        network = InFlowClock(path, recipe.target)
        trainer = Trainer(Denoiser(network, path, recipe.target), data, recipe, accelerate())
        losses = [record.loss for record in trainer.steps()]
        weights = torch.cat([part.detach().flatten() for part in network.parameters()])
        found[name, target] = data.x / sizes[:, None, None], torch.tensor(losses), weights
        parametrised.add(recipe.target)
    expected = found["linear", "velocity"]
    for key, parts in found.items():
        for what, one, two in zip(("trajectories", "losses", "weights"), parts, expected, strict=True):
            assert float((one - two).abs().max()) < 1e-3, (key, what)
    assert parametrised >= {"velocity", "v"}  # a noise says too little of x₀ where α is small


def test_one_jump_of_a_trained_student_ends_where_the_flow_does(tmp_path):
    """Of the exact N(0.7, 0.25), from other starts than those learned: RMS at most 0.02."""
    path = Linear()
    teacher, recipe = exact_teacher(
        path, "velocity", trajectories=2048, steps=300, batch=256, network="mlp:width=32,depth=2,spans=true"
    )
    student = train_recipe(recipe, tmp_path / "fast", teacher=teacher, solvers=False, snapshots=0, progress=False)
    x = noise_like(4000, 2, seed=9).float()
    with torch.no_grad():
        *_, end = walk("jump", student.denoiser, x, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert rms(end - exact_flow(path, x.double(), 1.0, 0.0)) < 0.02


def test_what_cannot_be_is_one_sentence(folders, tmp_path):
    for given, said in (
        ({"method": "denoise"}, "method must be one of trajectory"),
        ({"method": "magic"}, "method must be one of"),
        ({"guidance": 2.0}, "[Gg]uidance"),
        ({"evaluations": "one"}, "evaluations must be numbers of 1 to 1000"),
        ({"fields": {"trajectories": 0}}, "trajectories must be"),
    ):
        with pytest.raises(InputError, match=said):
            distill(folders / "flow", tmp_path / "fast", **{"fields": FEW, **QUIET, **given})
    with pytest.raises(InputError, match="neither a run folder nor"):
        distill(tmp_path / "nowhere", tmp_path / "fast")
