"""A run is measured on every class; a policy is tried out and held beside its recording, as far as there are such."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebbtide import memory
from ebbtide.cli import main
from ebbtide.cli.policy import Driving
from ebbtide.data import save_points
from ebbtide.kinds import KINDS
from ebbtide.kinds.robots import data as robots_data, driving as robots_driving
from ebbtide.recipes import RECIPES
from ebbtide.robots.policy import Policy
from ebbtide.robots.simulators import SIMULATORS
from ebbtide.training.trained import Trained
from recording import NAMES

TRIED = ["success rate", "mean score", "episode length", "milliseconds a chunk"]
BESIDE = ["mean absolute error", "best of 8"]
QUICK = ("--n", "8", "--workers", "1", "--json")


class Middle:
    """Push-T's spaces, and an episode of three steps."""

    name, task, fps, max_steps, success = "pusht", "Go to the middle.", 10.0, 3, False
    state_names, action_names = NAMES, ("target_x", "target_y")
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)

    def __init__(self, *, pixels=False):
        self.pixels, self.score = pixels, 0.0

    def reset(self, seed):
        self.score = seed % 1000 / 1000
        return {"state": np.full(5, 100, np.float32)} | (
            {"images": np.full((1, 16, 16, 3), 200, np.uint8)} if self.pixels else {}
        )

    def step(self, action):
        return self.reset(round(1000 * self.score)), 0.0, False

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


@pytest.fixture
def quick(monkeypatch):
    """In the place of both simulators; chunks are timed but once."""
    for name in ("pusht", "other"):
        monkeypatch.setitem(SIMULATORS, name, Middle)
    monkeypatch.setattr("ebbtide.robots.rollout.latency", lambda policy, seen, repeats=1: [1.0])
    monkeypatch.setattr(robots_driving, "latency", lambda policy, seen, repeats=1: [1.0])


@pytest.fixture(scope="module")
def seeing(policy_in, tmp_path_factory):
    """A policy with a camera."""
    return policy_in(tmp_path_factory.mktemp("seeing"), pictures=True, size=16)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A run that is no policy."""
    folder = tmp_path_factory.mktemp("points") / "flow"
    assert (
        main(["train", "flow", "--steps", "1", "--points", "50", "--batch", "8", "--quiet", "--out", str(folder)]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Conditional runs on a table and on images whose classes are as 3 to 1."""
    place = tmp_path_factory.mktemp("uneven")
    rng, labels = np.random.default_rng(0), np.array(["common", "common", "common", "rare"] * 30)
    save_points(place / "points.csv", torch.from_numpy(rng.normal(size=(120, 2))), labels=labels.tolist())
    np.savez(place / "images.npz", images=rng.integers(0, 256, (120, 8, 8, 1), np.uint8), labels=labels)
    small = ["--conditional", "--steps", "2", "--batch", "16", "--snapshots", "0", "--quiet"]
    for base, file, own in (
        ("flow", "points.csv", ["--label", "label"]),
        ("flow-images", "images.npz", ["--network", "unet-tiny:width=8"]),
    ):
        out = place / file.partition(".")[0]
        assert main(["train", base, "--data", str(place / file), *own, *small, "--out", str(out)]) == 0
    return place


@pytest.fixture
def orphan(policy_in, tmp_path):
    """The policy after its recording has gone."""
    folder = tmp_path / "alone"
    folder.mkdir()
    run = policy_in(folder)
    (folder / "episodes.npz").unlink()
    robots_data._parts.cache_clear()
    return run


@pytest.fixture
def placeless(policy_in, tmp_path):
    """A policy whose recipe names no simulator."""
    folder = tmp_path / "placeless"
    folder.mkdir()
    return policy_in(folder, simulator="")


def names(out):
    return [row["name"] for row in json.loads(out)]


def lines(run, name="episodes.jsonl"):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.parametrize("kind", ["points", "images"])
def test_every_class_is_measured_as_often_as_the_data_has_it(uneven, ebbtide, monkeypatch, kind):
    """What the network is asked for, and what the metrics are told it was; with --label that class alone."""
    labels, sample = [], Trained.sample

    def sampled(self, n, *, label, **options):
        labels.append(label)
        return sample(self, n, label=label, **options)

    def evaluated(recipe, x, asked, **options):
        labels.append(asked)
        return []

    monkeypatch.setattr(Trained, "sample", sampled)

    def judge(recipe, n, asked, *_):
        labels.append(asked)
        judging = SimpleNamespace(look=lambda *_: None, seen=lambda *_: None)
        judging.judged = lambda every: ([], None)
        return judging

    with_judge = {"judge": judge} if kind == "images" else {"evaluate": evaluated}
    monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], judged=None, **with_judge))
    for words, counts in (([], [30, 10]), (["--label", "all"], [30, 10]), (["--label", "rare"], [0, 40])):
        labels.clear()
        code, _, err = ebbtide("evaluate", uneven / kind, "--n", 40, "--steps", 1, *words, "--json")
        assert code == 0, err
        assert [torch.bincount(one, minlength=2).tolist() for one in labels] == [counts] * 2


def test_a_policy_is_evaluated_in_its_simulator(policy, ebbtide, monkeypatch):
    pytest.importorskip("gym_pusht")
    monkeypatch.setattr("ebbtide.robots.pusht.PushT.max_steps", 40)
    code, out, err = ebbtide("evaluate", policy, "--episodes", 2, *QUICK)
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == [*TRIED, *BESIDE]
    assert rows["best of 8"]["value"] < rows["mean absolute error"]["value"]
    assert rows["success rate"]["value"] == 0
    assert rows["episode length"]["value"] == 40
    assert 0 <= rows["mean score"]["low"] <= rows["mean score"]["value"] < 0.9
    assert rows["success rate"]["floor"] is None
    assert json.loads((policy / "evaluation.json").read_text()) == json.loads(out)
    assert [one["seed"] for one in lines(policy)] == [1_000_000, 1_000_001]
    assert np.mean([one["score"] for one in lines(policy)]) == pytest.approx(rows["mean score"]["value"])
    assert (policy / "trajectories.png").stat().st_size > 5000


def test_every_step_is_drawn_for_eight_times(policy, ebbtide, monkeypatch):
    """From noise of its own each time: the best of eight chunks is better than their mean."""
    drawn, sample = [], Trained.sample
    monkeypatch.setattr(Trained, "sample", lambda *own, **how: drawn.append(sample(*own, **how)) or drawn[-1])
    code, out, err = ebbtide("evaluate", policy, "--episodes", 0, *QUICK)
    assert code == 0, err
    assert len({str(chunk) for x in drawn[:8] for chunk in x.tolist()}) == 8 * 8
    rows = {row["name"]: row["value"] for row in json.loads(out)}
    assert rows["best of 8"] < 0.95 * rows["mean absolute error"]


def test_a_small_machine_has_room_for_a_policys_draws(policy, ebbtide, quick, monkeypatch):
    """The default number of steps, eight chunks for each: their images are looked at once."""
    monkeypatch.setattr(memory, "available", lambda: 2.0 * 2**30)
    code, _, err = ebbtide("evaluate", policy, "--episodes", 0, "--steps", 1)
    assert code == 0, err


def test_the_files_say_how_they_were_made(policy, ebbtide, quick, monkeypatch):
    made = []
    monkeypatch.setattr(
        robots_driving, "Policy", lambda chunks, **how: made.append((chunks, how)) or robots_policy(chunks, **how)
    )
    options = "--episodes 2 --seed 3 --sampler heun --steps 4 --bound 1.5 --delay 2 --n-action-steps 5 --real-time"
    code, out, err = ebbtide("evaluate", policy, "--simulator", "other", *options.split(), *QUICK)
    assert code == 0, err
    how = {
        "checkpoint": 4, "seed": 3, "sampler": "heun", "grid": "uniform", "steps": 4, "bound": 1.5,
        "n_action_steps": 5, "delay": 2, "real_time": True, "ensemble": None, "simulator": "other", "blind": False,
        "episodes": 2,
    }  # fmt: skip
    assert [one["how"] for one in lines(policy)] == [how] * 2
    assert [row["how"] for row in json.loads(out)] == [how | {"n": 8}] * 6
    assert [one["seed"] for one in lines(policy)] == [4_000_000, 4_000_001]
    chunks, driven = made[-1]
    assert (chunks.sampler, chunks.steps, chunks.grid, chunks.bound) == ("heun", 4, "uniform", 1.5)
    assert driven == {"seed": 3, "n_action_steps": 5, "delay": 2, "real_time": True, "ensemble": None}


robots_policy = Policy


def test_ensembling_needs_no_more_than_its_number():
    recipe = RECIPES["flow-policy-pusht"]()
    assert Driving().how(recipe)["n_action_steps"] == recipe.n_action_steps == 8
    assert Driving(ensemble=0.0).how(recipe) | {"delay": 0} == {
        "n_action_steps": 1, "delay": 0, "real_time": False, "ensemble": 0.0,
    }  # fmt: skip


def test_a_blind_policy_is_written_beside_the_one_that_sees(seeing, ebbtide, quick, monkeypatch):
    shown = []
    sample, observe = Trained.sample, Policy.observe

    def sampled(self, n, *, seen=None, **options):
        shown.append(None if seen is None else int(seen["images"].max()))
        return sample(self, n, seen=seen, **options)

    def observed(self, observation, slot=0):
        shown.append(int(observation["images"].max()))
        return observe(self, observation, slot)

    monkeypatch.setattr(Trained, "sample", sampled)
    monkeypatch.setattr(Policy, "observe", observed)
    assert ebbtide("evaluate", seeing, "--episodes", 1, *QUICK)[0] == 0
    assert all(0 < shade < 256 for shade in shown[:8])  # the recording's, for each draw
    assert shown.count(200) == 3  # in the simulator
    before = {name: (seeing / name).read_text() for name in ("evaluation.json", "episodes.jsonl")}
    (seeing / "trajectories.png").unlink()
    shown.clear()
    code, out, err = ebbtide("evaluate", seeing, "--episodes", 1, "--blind", *QUICK)
    assert code == 0, err
    assert shown == [0] * 11  # beside the recording and in the simulator
    assert all((seeing / name).read_text() == text for name, text in before.items())
    assert not (seeing / "trajectories.png").exists()
    assert json.loads((seeing / "evaluation-blind.json").read_text()) == json.loads(out)
    assert [one["how"]["blind"] for one in (*json.loads(out), *lines(seeing, "episodes-blind.jsonl"))] == [True] * 7


def test_a_policy_acts_by_a_solver_of_its_own(placeless, ebbtide, quick):
    """Fitted on first use to what was recorded; the same one in every part of the evaluation."""
    code, out, err = ebbtide("evaluate", placeless, "--steps", "auto:4", *QUICK)
    assert code == 0, err
    hows = [one["how"] for one in json.loads(out)]
    assert {how["steps"] for how in hows} == {4}
    (sampler,) = {how["sampler"] for how in hows}
    assert sampler.startswith("bespoke:weights=")


def test_without_a_simulator_only_actions_are_compared(placeless, ebbtide, quick):
    code, out, err = ebbtide("evaluate", placeless, *QUICK)
    assert (code, names(out)) == (0, BESIDE)
    assert "ebbtide: The recipe names no simulator (--simulator does): only actions are compared.\n" in err
    assert not (placeless / "episodes.jsonl").exists()
    code, out, err = ebbtide("evaluate", placeless, "--simulator", "other", "--episodes", 1, *QUICK)
    assert (code, names(out)) == (0, [*TRIED, *BESIDE])
    assert "names no simulator" not in err


def test_without_its_recording_a_policy_is_only_tried_out(orphan, ebbtide, quick):
    code, out, err = ebbtide("evaluate", orphan, "--episodes", 2, *QUICK)
    assert code == 0, err
    assert (code, names(out)) == (0, TRIED)
    name = orphan.parent / "episodes.npz"
    assert err == (
        f"ebbtide: This run was trained on {name}, which is opened only if you name it too: --data {name}, or where it "
        "lies now (data=… in from_pretrained). So the policy is only tried out.\n"
    )
    code, out, err = ebbtide("evaluate", orphan, "--episodes", 0, *QUICK)  # then nothing is left to do
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_nothing_is_written_into_an_exported_folder(policy, ebbtide, quick, tmp_path):
    assert ebbtide("export", policy, "--out", "model")[0] == 0
    before = sorted((tmp_path / "model").iterdir())
    assert ebbtide("evaluate", "model", "--episodes", 1, *QUICK)[0] == 0
    assert sorted((tmp_path / "model").iterdir()) == before
    assert ebbtide("export", policy, "--out", "model", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--simulator moon", "simulator must be one of pusht, aloha-transfer, aloha-insertion; got 'moon'."),
        ("--blind", "--blind is for policies that see images; {run} has no cameras."),
        ("--precision bf16", "--precision bf16 is not for policies, and {run} is one."),
        ("--guidance 2", "--guidance is not for policies, and {run} is one."),
        ("--interval 0 0.5", "--interval is not for policies, and {run} is one."),
        ("--label 1", "--label is not for policies, and {run} is one."),
        ("--ensemble -0.5", "--ensemble must be at least 0 and finite; got -0.5."),
        ("--ensemble nan", "--ensemble must be at least 0 and finite; got nan."),
        ("--delay -1", "--delay must be at least 0; got -1."),
        ("--n-action-steps 40", "n_action_steps + delay must be at least 1 and at most 16; got 40"),
        ("--ensemble 0.01 --n-action-steps 4", "n_action_steps=1"),
    ],
)
def test_what_cannot_be_is_one_sentence(policy, ebbtide, monkeypatch, words, error):
    monkeypatch.setattr(Trained, "sample", lambda *_, **__: pytest.fail("sampled"))
    code, out, err = ebbtide("evaluate", policy, *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert error.format(run=policy) in err


@pytest.mark.parametrize(
    "words", ["--blind", "--simulator pusht", "--n-action-steps 4", "--delay 1", "--real-time", "--ensemble 0.1",
              "--episodes 3", "--workers 2"],
)  # fmt: skip
def test_what_is_for_policies_is_refused_of_other_runs(ebbtide, flow, words):
    error = f"ebbtide: {words.split()[0]} is for policies; {flow} has points.\n"
    assert ebbtide("evaluate", flow, *words.split()) == (2, "", error)


def test_a_table_is_judged_copies_first(uneven, ebbtide, monkeypatch):
    """Words, then the distances; every row in the JSON once; --predict; the page in the run's folder."""
    monkeypatch.setattr("ebbtide.metrics.tables.judge.trees_at_hand", lambda: False)
    run = uneven / "points"
    code, out, err = ebbtide("evaluate", run, "--n", 60, "--steps", 1, "--predict", "x1")
    assert code == 0, err
    heads = [
        "Copies of training rows",
        "C2ST",
        "Columns",
        "Correlations",
        "TSTR: trees that learn x1",
        "Nats",
        "Distances",
    ]
    places = [out.index(head) for head in heads]
    assert places == sorted(places)
    assert "of samples are copies of training rows; of held-out rows 0 %" in out
    assert "C2ST is skipped: it needs scikit-learn (pip install 'ebbtide[metrics]')" in out
    assert "energy distance" in out[places[-1] :]
    records = json.loads((run / "evaluation.json").read_text())
    found = [row["name"] for row in records]
    assert len(found) == len(set(found))
    assert found[:3] == ["exact copies", "nearest training row", "copies"]
    assert {"worst column", "mean |ρ − ρ′|", "energy distance"} <= set(found)
    for name in ("columns.png", "correlations.png", "pairs.png", "evaluation.html"):
        assert f"figure: {run / name}" in err
    code, _, err = ebbtide("evaluate", run, "--n", 60, "--steps", 1, "--predict", "size")
    assert code == 2
    assert "The column must be one of x1, x2, label; got 'size'" in err


def test_only_tables_have_a_column_to_predict(uneven, flow, ebbtide):
    for run, words in ((uneven / "images", "--predict is for tables"), (flow, "this run learned a named set")):
        code, _, err = ebbtide("evaluate", run, "--n", 8, "--steps", 1, "--predict", "x")
        assert code == 2
        assert words in err
