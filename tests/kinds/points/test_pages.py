"""The figures of one run, from one to three columns, with the data at hand or gone."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ebbtide import DDPM, Denoiser
from ebbtide.data import save_points
from ebbtide.errors import InputError
from ebbtide.kinds.points import pages
from ebbtide.kinds.points.pages import draw_run, draw_samples
from ebbtide.kinds.runs import train_recipe as fit
from ebbtide.plots import points
from ebbtide.plots.study import key_of
from ebbtide.recipes import RECIPES, PointRecipe
from ebbtide.training.history import evolution


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """d → a run on a file of d columns with two classes, its folder and its file."""
    made = {}

    def make(d):
        if d not in made:
            folder = tmp_path_factory.mktemp(f"columns{d}")
            file = folder / "points.csv"
            x = torch.randn(80, d, generator=torch.Generator().manual_seed(0))
            save_points(file, x, labels=["a", "b"] * 40)
            recipe = PointRecipe(
                data=str(file), label="label", conditional=True, steps=3, batch=16, validation=0.0, codec="standardise"
            )
            made[d] = fit(recipe, folder / "run", snapshots=1, progress=False), folder / "run", file
        return made[d]

    return make


def test_velocity_is_the_colour_of_a_flow():
    assert {name: key_of(row()) for name, row in RECIPES.items()} == {
        "ddpm": "diffusion", "flow": "flow", "edm": "diffusion", "bridge": "flow", "ot-flow": "flow",
        "shortcut": "flow", "mean-flow": "flow", "shortcut-images": "flow", "mean-flow-images": "flow",
        "ddpm-images": "diffusion", "flow-images": "flow", "edm-images": "diffusion",
        "ddpm-latents": "diffusion", "flow-latents": "flow", "super-resolution": "flow", "autoencoder": "diffusion",
        "flow-policy": "flow", "pi0": "flow",
        "flow-policy-pusht": "flow", "diffusion-policy-pusht": "diffusion", "pi0-pusht": "flow",
        "flow-policy-aloha-transfer": "flow", "flow-policy-aloha-insertion": "flow", "pi0-aloha-transfer": "flow",
        "pi0-aloha-insertion": "flow",
    }  # fmt: skip


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("labelled", [False, True])
def test_samples_beside_real_points(trained, tmp_path, d, labelled):
    run, _, _ = trained(d)
    labels = torch.arange(40) % 2 if labelled else None
    path = draw_samples(run, run.sample(40, label=labels), labels, tmp_path / "x.png")
    assert path.stat().st_size > 2500


def test_samples_of_a_class_stand_beside_real_points_of_it(trained, tmp_path, monkeypatch):
    """At least 500, or all there are, in a frame that holds those of other classes; the title names the class."""
    run, _, _ = trained(2)
    seen = {}
    monkeypatch.setattr(pages, "_beside", lambda run, panels, frame, real, title: seen.update(locals()))
    monkeypatch.setattr(pages.style, "save", lambda figure, path: path)
    every = pages.real_points(run.reading(), 10**6, 0)
    for asked, named in (([0], True), ([0, 1], False)):
        labels = torch.tensor(asked * 3)
        draw_samples(run, run.sample(len(labels), label=labels), labels, tmp_path / "x.png")
        alike = every.x[torch.isin(every.labels, labels)]
        assert len(seen["real"]) == min(500, len(alike))
        assert np.isin(seen["real"][:, 0], alike[:, 0].numpy()).all()
        assert (f"label {run.classes[0]!r}" in seen["title"]) == named
        np.testing.assert_allclose(seen["frame"], pages.limits(run.recipe, every.x), rtol=0.2, atol=0.5)


def test_samples_without_the_data(trained, tmp_path):
    run, _, file = trained(2)
    content = file.read_text()
    for now in (None, "a,b,c\n" + "1,2,3\n4,5,6\n" * 10):  # gone, and of another width
        file.unlink() if now is None else file.write_text(now)
        try:
            assert draw_samples(run, run.sample(40), None, tmp_path / "x.png").exists()
        finally:
            file.write_text(content)


@pytest.mark.parametrize("d", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_is_drawn_whole(trained, tmp_path, d):
    run, folder, _ = trained(d)
    paths = list(draw_run(run, folder, tmp_path / "plots"))
    names = ["samples", "trajectories", "intermediate", "losses"] + ["vector_field"] * (d == 2)
    names += ["columns", "correlations", "pairs"] * (d > 2)
    assert [path.name for path in paths] == [f"{name}.png" for name in names] + ["sampling.gif", "training.gif"]
    assert all(path.stat().st_size > 2000 for path in paths)


def test_a_run_without_its_history_is_drawn(trained, tmp_path):
    run, folder, _ = trained(1)
    history = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").unlink()
    try:
        names = {path.name for path in draw_run(run, folder, tmp_path / "plots")}
    finally:
        (folder / "metrics.jsonl").write_text(history)
    assert "samples.png" in names
    assert "losses.png" not in names


@pytest.mark.parametrize("array", [np.zeros((5, 3)), np.zeros(5), np.float64(1), np.array([["a"]]), np.zeros((0, 1))])
def test_a_foreign_snapshot_is_one_sentence(trained, array):
    run, folder, _ = trained(1)
    foreign = folder / "evolution" / "step-00000002.npy"
    np.save(foreign, array)
    try:
        with pytest.raises(InputError, match=r"step-00000002\.npy must hold samples of shape \(1,\)"):
            evolution(folder, run.shape)
    finally:
        foreign.unlink()


def test_other_names_are_no_snapshots(trained):
    run, folder, _ = trained(1)
    before = [step for step, _ in evolution(folder, run.shape)]
    others = [folder / "evolution" / f"step-{name}.npy" for name in ("", "x", "²", "-1")]
    for other in others:
        other.write_text("notes")
    try:
        assert [step for step, _ in evolution(folder, run.shape)] == before
    finally:
        for other in others:
            other.unlink()


def test_a_damaged_snapshot_is_one_sentence(trained, tmp_path):
    run, folder, _ = trained(1)
    damaged = folder / "evolution" / "step-00000002.npy"
    damaged.write_bytes(b"\x93NUMPY")
    try:
        with pytest.raises(InputError, match=r"step-00000002\.npy is damaged or cut short"):
            list(draw_run(run, folder, tmp_path / "plots"))
    finally:
        damaged.unlink()
    assert np.load(folder / "evolution" / "step-00000003.npy").shape == (1000, 1)


def test_beside_the_ode_of_a_random_sampler_are_its_own_routes(trained, monkeypatch):
    run, folder, _ = trained(2)
    drawn = []
    monkeypatch.setattr(points, "trajectories", lambda methods, *_, **__: drawn.append(methods) or Figure())
    own = dataclasses.replace(run.recipe, path="ddpm", target="noise", sampler="ddpm", grid="trailing", sample_steps=30)
    denoiser = Denoiser(run.denoiser.network, DDPM(), "noise")
    for made in (run, dataclasses.replace(run, recipe=own, denoiser=denoiser)):
        next(paths := draw_run(made, folder, folder / "plots"))
        next(paths)
    (ode,), (its_ode, random) = drawn
    assert ode.name == "linear"
    assert its_ode.name == "its ODE: heun, 50 steps"
    assert random.name == "ddpm, random: 30 steps"
    assert len(random.walk) == len(random.walk_times) == 31
    assert random.walk.shape[1:] == (3, 2)  # more would be a thicket
