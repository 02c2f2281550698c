"""`compare` with methods of every origin: recipes, runs, and a student, which jumps."""

import json

from cli.conftest import TINY

FEW = ["--n", "100", "--workers", "1", "--quiet"]


def test_a_student_is_compared_with_its_teacher_and_recipes(ebbtide, runs, tmp_path):
    few = ["--trajectories", "60", "--trajectory-steps", "4", "--steps", "4", "--n", "0", "--quiet"]
    assert ebbtide("distill", runs / "flow", "--out", "fast", "--evaluations", "1,2", *few)[0] == 0
    methods = f"{runs / 'flow'},fast,edm"
    code, out, err = ebbtide("compare", *TINY[:6], *FEW, "--methods", methods, "--out", "out")
    assert (code, err) == (0, "")
    assert out.startswith("flow, fast and EDM on three gaussians; trained in flow ")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    rows = {row["label"]: row["evaluations"] for row in numbers["samplings"] if row["method"] == "fast"}
    assert rows == {"Jump, 1 step": 1, "Jump, 2 steps": 2}
    assert [count for count, _ in numbers["quality"]["fast · Jump"]] == [1, 2]
    assert {row["method"] for row in numbers["training"]} == {"flow", "fast", "EDM"}
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "sampling.gif", "trajectories.png", "quality.png", "edm"} <= files


def test_images_have_short_names_for_their_recipes(ebbtide, tmp_path):
    """And a run on points is no method for them."""
    code, _, err = ebbtide("compare", "--data", "digits", "--methods", "edm,bridge", "--out", "out")
    assert code == 2
    assert "A method that isn't a run's folder must be one of ddpm, flow, edm, " in err
    assert "; got 'bridge'" in err
    assert not (tmp_path / "out").exists()


def test_a_run_on_other_data_is_refused_before_anything_is_trained(ebbtide, runs, tmp_path):
    for methods, says in (
        (f"ddpm,{runs / 'plants'}", "was trained on plants.csv, not on three_gaussians."),
        (f"ddpm,{runs / 'conditional'}", "was trained on two_spirals, not on three_gaussians."),
        (f"ddpm,{runs / 'edm-images'}", "is a run on images, and three_gaussians holds points."),
    ):
        code, out, err = ebbtide("compare", *TINY[:6], *FEW, "--methods", methods, "--out", "out")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err
        assert not (tmp_path / "out").exists()
