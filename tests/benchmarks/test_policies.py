"""The benchmark of policies: what it counts, what it takes for one draw, and what it writes; played by fakes."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from tqdm import tqdm

from benchmarks import policies
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.data import Observation
from ebbtide.errors import InputError
from ebbtide.kinds.robots import driving as robots_driving
from ebbtide.recipes import RECIPES
from ebbtide.robots.rollout import Episode
from ebbtide.training.trained import Trained

QUIET = tqdm(disable=True)


class Still(nn.Module):
    """Says 0, and knows how often it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.asked, self.contexts = 0, 0

    def context(self, **observation):
        self.contexts += 1
        return {}

    def forward(self, x, t, *, label=None, context=None):
        self.asked += 1
        return self.weight * x


def policy(sampler="euler", grid="uniform", shapes=None):
    recipe = replace(RECIPES["flow-policy-pusht"](), sampler=sampler, grid=grid, n_obs_steps=1, bound=0.0)
    observation = Observation({"state": (1, 3)} if shapes is None else shapes)
    return Trained(Denoiser(Still(), Linear(), "velocity"), recipe, (16, 2), observation=observation)


@pytest.fixture
def played(monkeypatch):
    """Runs that the benchmark finds by number; run r succeeds on seed i if bit i of `outcomes[r]` is set. What it was
    asked for is kept."""
    asked, outcomes = [], [0b0111, 0b0110]
    runs = [policy(), policy(), policy("heun")]

    def episodes(run, seeds, *, workers, steps):
        asked.append((runs.index(run), list(seeds), workers, steps))
        bits = outcomes[runs.index(run) % 2]
        wins = [bool(bits >> i & 1) for i in range(len(seeds))]
        return [Episode(seed, win, 0.8 if win else 0.2, 10) for seed, win in zip(seeds, wins)]

    monkeypatch.setattr(policies.robots_driving, "episodes", episodes)
    monkeypatch.setattr(policies, "from_pretrained", lambda folder: runs[int(folder)])
    return asked, runs


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("euler", {1: 1, 2: 2, 5: 5, 10: 10}),
        ("heun", {1: 1, 5: 3, 9: 5}),  # 2 n - 1, for its last step is Euler's
        ("midpoint", {2: 1, 4: 2, 10: 5}),
    ],
)
def test_evaluations_are_counted(sampler, expected):
    run = policy(sampler)
    assert policies.plan(run, [1, 2, 5, 10]) == expected
    before = run.denoiser.network.asked
    for evaluations, steps in expected.items():
        robots_driving.policy(run, steps=steps).predict_action_chunk({"state": [0.0, 0.0, 0.0]})
        assert run.denoiser.network.asked - before == evaluations
        before = run.denoiser.network.asked
    assert not run.denoiser.network._forward_pre_hooks


def test_all_that_a_policy_may_see_is_made_up_for_the_count():
    shapes = {"state": (1, 3), "images": (2, 4, 4, 3), "prompt": (5,)}
    run = policy(shapes=shapes)
    assert policies.evaluations(run, 3) == 3
    assert run.denoiser.network.contexts == 1
    with pytest.raises(InputError, match="No step of midpoint takes so few evaluations as 1"):
        policies.plan(policy("midpoint"), [1])


def test_runs_of_one_name_are_one_draw_a_seed(played):
    """Successes 1, 1, 1, 0 and 0, 1, 1, 0 of four seeds: 1/2, 1, 1, 0, not eight draws. Their variance is 11/48."""
    _, runs = played
    rate, score = policies.measured(runs[:2], 1, 4, 1, QUIET)
    assert rate.value == pytest.approx(5 / 8)
    assert score.value == pytest.approx(0.2 + 0.6 * 5 / 8)
    reach = 3.18245 * (11 / 48 / 4) ** 0.5
    assert (score.low, score.high) == pytest.approx((0.575 - 0.6 * reach, min(1, 0.575 + 0.6 * reach)), abs=1e-5)
    assert (rate.low, rate.high) == pytest.approx((max(0, 0.625 - reach), min(1, 0.625 + reach)), abs=1e-5)
    assert rate.note == score.note == "Over 4 episodes."
    alone, twice = (policies.measured(own, 1, 4, 1, QUIET) for own in ([runs[0]], [runs[0], runs[0]]))
    assert alone == twice  # a copy tells nothing
    assert (alone[0].low, alone[0].high) == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson's, of 3 in 4


def test_what_is_written(played, tmp_path, capsys):
    asked, _ = played
    arguments = ["flow=0", "flow=1", "heun=2", "--evaluations", "1", "2", "5", "--episodes", "4", "--workers", "2"]
    policies.main([*arguments, "--out", str(tmp_path)])
    first = policies.FIRST
    assert all(seeds == list(range(first, first + 4)) and workers == 2 for _, seeds, workers, _ in asked)
    assert [(run, steps) for run, *_, steps in asked] == [
        (0, 1),
        (1, 1),
        (0, 2),
        (1, 2),
        (0, 5),
        (1, 5),
        (2, 1),
        (2, 3),
    ]
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [["flow", "2", n] for n in "125"] + [["heun", "1", n] for n in "15"]
    assert "| heun | 1 | 5 | 0.650 (" in text
    assert "4 episodes of every run" in text
    assert text.strip() in (tmp_path / "RESULTS.md").read_text()
    stored = json.loads((tmp_path / "policies.json").read_text())
    assert {name: list(own) for name, own in stored.items()} == {"flow": ["1", "2", "5"], "heun": ["1", "5"]}
    assert stored["flow"]["2"][1]["value"] == pytest.approx(0.575)
    assert (tmp_path / "policies.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs/flow"], "as NAME=RUN; got 'runs/flow'"),
        (["=0"], "as NAME=RUN; got '=0'"),
        (["flow=0", "--evaluations", "5", "0"], "--evaluations must be at least 1; got 0"),
        (["flow=0", "--episodes", "0"], "--episodes must be at least 1; got 0"),
        (["flow=0", "flow=2"], "runs of 'flow' are sampled in different ways"),
    ],
)
def test_what_is_refused(played, arguments, words):
    with pytest.raises(InputError, match=words):
        policies.main(arguments)
    assert played[0] == []
