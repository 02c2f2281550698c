"""What is copied as code or as a command runs, and makes the samples that are on the screen."""

import shlex

import numpy as np
import pytest
import torch

from ebbtide import InputError
from ebbtide.cli import main
from ebbtide.lab.learning import Learner
from ebbtide.lab.policies import fan_at
from ebbtide.lab.quoting import as_code, as_command
from ebbtide.lab.sampling import LabRun, View, walk_of
from ebbtide.recipes import RECIPES

VIEWS = {
    "moons": View(n=9, seed=4, sampler="dpmpp_2m", grid="log_snr", steps=5),
    "noisy": View(n=9, sampler="ddim", eta=0.25, steps=4),
    "spirals": View(n=9, seed=1, label="second", guidance=1.5, steps=3),
    "digits": View(n=3, steps=2),
}


def ran(code):
    """The samples of some code."""
    names = {}
    exec(code, names)
    return names["x"]


@pytest.mark.parametrize("name", VIEWS)
def test_code_and_command_make_what_is_shown(lab, name, tmp_path):
    run, view = lab.run(name), VIEWS[name]
    shown = walk_of(run.trained, view).frames[-1]
    torch.testing.assert_close(ran(as_code(run, view)), shown)
    words = shlex.split(as_command(run, view))
    assert words[:2] == ["ebbtide", "sample"]
    out = tmp_path / ("x.npz" if name == "digits" else "x.npy")
    assert main([*words[1:], "--out", str(out), "--no-picture"]) == 0
    if name != "digits":
        np.testing.assert_allclose(np.load(out), shown, atol=1e-6)


def test_a_policy_s_code_has_its_moment(lab):
    run, view = lab.run("policy"), View(n=3, seed=2, steps=2)
    _, arrays = fan_at(run.trained, view, 7)
    np.testing.assert_allclose(ran(as_code(run, view, 7)), dict(arrays)["chunks"], rtol=1e-4)


def test_a_run_that_is_not_kept_is_trained_by_the_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learner = Learner(
        "learner-1", "flow", RECIPES["flow"]().having({"data": "two_spirals", "steps": 3, "conditional": True}), None
    )
    try:
        run, view = LabRun("learner-1", "flow", learner=learner), View(n=5, steps=2, label="first")
        assert as_command(run, view) == (
            "ebbtide train flow --data two_spirals --steps 3 --conditional --out runs/lab-flow-two_spirals\n"
            "ebbtide sample runs/lab-flow-two_spirals --n 5 --steps 2 --label first\n"
        )
        x = ran(as_code(run, view))
        for line in as_command(run, view).replace("--steps 3", "--steps 3 --quiet --overwrite").splitlines():
            assert main([*shlex.split(line)[1:], *["--no-picture"] * ("sample" in line)]) == 0
        np.testing.assert_allclose(np.load("runs/lab-flow-two_spirals/samples.npy"), x, atol=1e-6)
        learner.kept = tmp_path / "kept run"
        assert "from_pretrained" in as_code(run, view)
        assert as_command(run, view).startswith(f"ebbtide sample '{tmp_path}/kept run' --n 5")
    finally:
        learner.close()


def test_painted_points_have_no_text_before_they_are_kept():
    learner = Learner("learner-1", "flow", RECIPES["flow"](steps=3, codec="standardise"), torch.randn(50, 2))
    try:
        with pytest.raises(InputError, match="Keep the run in a folder first"):
            as_code(LabRun("learner-1", "flow", learner=learner), View())
    finally:
        learner.close()
