"""The command distill: a student beside its run, its table, and what it says to do next."""

import re

import pytest

from ebbtide.errors import InputError
from ebbtide.kinds.runs import from_pretrained
from ebbtide.robots.simulators import SIMULATORS

FEW = ["--trajectories", "80", "--trajectory-steps", "4", "--steps", "4", "--batch", "16", "--n", "200", "--quiet"]


def test_a_student_beside_its_run(ebbtide, runs, tmp_path, monkeypatch):
    """By default in RUN-student; sample, evaluate, plot, cite and export take it as any run."""
    out = tmp_path / "fast"
    monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
    monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 20))
    code, said, err = ebbtide("distill", runs / "flow", "--out", out, "--evaluations", "1,2", *FEW)
    assert code == 0, err
    names = [line.split("  ")[0] for line in said.splitlines()]
    assert names == [
        "", "teacher", "teacher, tuned", "student", "teacher", "teacher, tuned", "student", "teacher, its own steps",
        "real data", said.splitlines()[-1],
    ]  # fmt: skip
    assert re.fullmatch(r"The student's training took [0-9.]+ × the CPU time of its teacher's\.", names[-1])
    assert "trajectories included" in err
    assert f"ebbtide sample {out} --steps 1" in err
    assert [one.evaluations for one in from_pretrained(out).tuned] == [1, 2]
    for words in (
        ["sample", out, "--steps", "1", "--n", "5", "--out", tmp_path / "x.csv"],
        ["evaluate", out, "--n", "300", "--steps", "2"],
        ["export", out, "--out", tmp_path / "shared"],
        ["certify", "jump", "--path", "linear"],
        ["tune", out, "--evaluations", "2", "--n", "16", "--depth", "times", "--reference", "20"],
        ["sample", out, "--steps", "auto:2", "--n", "5", "--out", tmp_path / "y.csv"],
    ):
        code, _, err = ebbtide(*words)
        assert code == 0, err


def test_a_student_that_can_not_be_measured_is_there_all_the_same(ebbtide, runs, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise InputError("A report takes at least 12 held-out images; got 6.")

    monkeypatch.setattr("ebbtide.kinds.distil.outcomes", refused)
    code, said, err = ebbtide("distill", runs / "flow", "--out", tmp_path / "fast", *FEW)
    assert (code, said) == (0, "")
    assert "There is no table of it: A report takes at least 12 held-out images; got 6.\n" in err
    assert f"ebbtide sample {tmp_path / 'fast'} --steps 1" in err
    assert from_pretrained(tmp_path / "fast").sample(3, steps=1).shape == (3, 2)


def test_it_continues_and_does_not_overwrite_unasked(ebbtide, runs, tmp_path):
    out = tmp_path / "fast"
    for more, expected in ((["--n", "0"], 0), ([], 2), (["--resume"], 0), (["--overwrite"], 0)):
        code, _, err = ebbtide("distill", runs / "conditional", "--out", out, *FEW, *more)
        assert code == expected, err
    code, _, err = ebbtide("resume", out, "--quiet")
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "denoise"], "method must be one of trajectory"),
        (["--evaluations", "few"], "evaluations must be numbers"),
        (["--guidance", "2"], "label"),
        (["--network", "mlp:width=8"], "needs a network that spans two times"),
        (["--n", "-1"], "--n must be at least 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(ebbtide, runs, tmp_path, words, said):
    code, _, err = ebbtide("distill", runs / "flow", "--out", tmp_path / "fast", *FEW, *words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "fast").exists()


def test_a_policys_student_is_filmed_and_evaluated_in_one_step(ebbtide, policy_in, tmp_path, monkeypatch):
    """`--steps 1` of a student is its own grid of one evaluation, as without; two are another chunk."""
    pytest.importorskip("gym_pusht")
    monkeypatch.setattr(SIMULATORS["pusht"], "max_steps", 16)
    policy, out = policy_in(tmp_path), tmp_path / "fast"
    few = ["--trajectories", "64", "--trajectory-steps", "4", "--steps", "4", "--batch", "8", "--quiet"]
    code, said, err = ebbtide("distill", policy, "--out", out, *few)
    assert (code, said) == (0, ""), err
    for words in (
        ["rollout", out, "--steps", "1", "--every", "8", "--video", tmp_path / "one.gif"],
        ["rollout", out, "--sampler", "jump", "--steps", "2", "--every", "8", "--video", tmp_path / "two.gif"],
        ["rollout", out, "--every", "8"],
        ["evaluate", out, "--n", "4", "--episodes", "1", "--workers", "1", "--steps", "1"],
    ):
        code, _, err = ebbtide(*words)
        assert code == 0, (words, err)
    assert (tmp_path / "one.gif").read_bytes() == (out / "rollout.gif").read_bytes()  # one step is its default
    assert (tmp_path / "one.gif").read_bytes() != (tmp_path / "two.gif").read_bytes()
    code, _, err = ebbtide("tune", out)
    assert (code, err) == (2, f"ebbtide: A sampler is tuned for runs without observations; {out} is a policy.\n")
