"""A student of any kind of run: trained, sampled in one step, its table."""

from dataclasses import replace

import pytest
import torch

import ebbtide
from ebbtide.errors import InputError
from ebbtide.kinds.distil import as_text, cost, distill, outcomes
from ebbtide.kinds.runs import from_pretrained, train_recipe
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


@pytest.mark.parametrize("name", ["flow", "ddpm", "conditional", "two sets", "images"])
def test_a_student_is_a_run_like_any_other(folders, tmp_path, name):
    """It samples in its own steps and by every other sampler, and goes through an export."""
    student = distill(folders / name, tmp_path / "fast", fields=FEW, evaluations="1,3", **QUIET)
    assert [one.evaluations for one in student.tuned] == [1, 3]
    teacher = from_pretrained(folders / name)
    again = from_pretrained(student.save_pretrained(tmp_path / "export"))
    for options in ({}, {"steps": 1}, {"steps": 3}, {"steps": "auto:3"}, {"sampler": "euler", "steps": 2}):
        x = student.sample(5, seed=2, **options)
        assert x.shape == (5, *teacher.shape)
        torch.testing.assert_close(again.sample(5, seed=2, **options), x, rtol=1e-5, atol=1e-4)
    assert student.choice(steps=3).grid == student.tuned[1].grid
    assert student.choice().steps == 1
    assert again.recipe.teacher == name  # an export holds no place on this machine


def test_the_table_counts_evaluations_and_begins_all_at_the_same_noise(folders, tmp_path):
    student = distill(folders / "flow", tmp_path / "fast", fields=FEW, **QUIET)
    rows = list(outcomes(student, from_pretrained(folders / "flow"), 200))
    assert [(row.name, row.evaluations) for row in rows if row.name == "student"] == [
        ("student", 1), ("student", 2), ("student", 4),
    ]  # fmt: skip
    assert [row.evaluations for row in rows if row.name == "teacher, tuned"] == [1, 2, 4]
    text = as_text(rows)
    assert text.splitlines()[-1].startswith("real data")
    assert len({len(line.split("  ")) > 2 for line in text.splitlines()}) == 1
    assert cost(tmp_path / "fast", folders / "flow") > 0


def test_guidance_is_built_in(folders, tmp_path):
    student = distill(folders / "conditional", tmp_path / "fast", guidance=2.0, fields=FEW, **QUIET)
    assert student.recipe.teacher_guidance == 2
    names = [row.name for row in outcomes(student, from_pretrained(folders / "conditional"), 100)]
    assert names == ["student"] * 3 + ["teacher, its own steps"]


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


@pytest.mark.parametrize("method", ["matching:critic=0.1,updates=2", "reflow"])
@pytest.mark.parametrize("name", ["flow", "conditional", "images"])
def test_a_student_by_density_or_by_pairs(folders, tmp_path, method, name):
    """Of any kind of run; a reflowed one keeps its teacher's network, and has solvers in place of grids."""
    student = distill(folders / name, tmp_path / "fast", method=method, fields=FEW, evaluations="1,3", **QUIET)
    teacher = from_pretrained(folders / name)
    assert student.sample(3, label=0 if name == "conditional" else None).shape == (3, *teacher.shape)
    assert [one.evaluations for one in student.tuned] == [1, 3]
    assert student.denoiser.spans == (method != "reflow")
    assert (student.recipe.network == teacher.recipe.network) == (method == "reflow")
    rows = [row for row in outcomes(student, teacher, 100) if row.name == "student"]
    assert [row.evaluations for row in rows] == [1, 3]
