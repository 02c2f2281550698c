"""One row is one row: of every table, a new row alone meets each command, and each command that could meets it."""

import runpy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path as File

import numpy as np
import pytest
import torch
from torch import nn

from ebbtide.cli import main
from ebbtide.codecs import CODECS, CodecRow
from ebbtide.core.couplings import COUPLINGS
from ebbtide.core.paths import PATHS, Path, Scales
from ebbtide.core.targets import TARGETS, Target
from ebbtide.core.times import GRIDS, SPANS, TIMES
from ebbtide.data import DATASETS
from ebbtide.data.points import gaussian_modes
from ebbtide.losses import LOSSES, Loss
from ebbtide.losses.denoise import WEIGHTS
from ebbtide.losses.flow_map import mean_slope
from ebbtide.metrics import EXTRACTORS, IMAGE_METRICS, METRICS, Extractor, Metric
from ebbtide.metrics.images import ImageMetric
from ebbtide.networks import NETWORKS
from ebbtide.recipes import RECIPES, flow
from ebbtide.robots.simulators import SIMULATORS
from ebbtide.samplers import SAMPLERS, Facts, Sampler
from plots.material import small
from recording import NAMES, record

pytestmark = pytest.mark.unchecked

SHORT = ["--steps", "2", "--batch", "16", "--snapshots", "1", "--checkpoints", "1", "--no-fit", "--quiet"]
TINY = ["--points", "60", "--network", "mlp:width=8,depth=2", *SHORT]


@dataclass(frozen=True)
class Bent(Path):
    """α = 1 - t, σ = t (1 + bend t) / (1 + bend)."""

    bend: float = 1.0

    def scales(self, t):
        one, b = torch.ones_like(t), self.bend
        return Scales(t, 1 - t, t * (1 + b * t) / (1 + b), -one, (1 + 2 * b * t) / (1 + b))


def tilted(c, *, tilt: float = 0.5):
    """y = ε - tilt x₀."""
    return -tilt * torch.ones_like(c.alpha) if isinstance(c.alpha, torch.Tensor) else -tilt, 1.0


def late(c, *, power: float = 1.0):
    """α^power of |x₀ - x̂₀|²."""
    return c.alpha**power


def early(u, path, *, power: float = 2.0):
    """t = u^power."""
    return u**power


def cubic(steps, path, *, power: float = 3.0):
    """t = (1 - i/N)^power."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** power


def turned(x0, x1, labels=None):
    """The noise in reverse order."""
    return x1.flip(0)


def steady(walk, *, share: float = 1.0):
    """Euler's steps."""
    x = walk.x
    for now, then in walk.steps:
        x = x + share * (then.t - now.t) * walk.slope(x, now)
        yield x


class Plain(nn.Module):
    """y = W₂ tanh(W₁ x + w t)."""

    def __init__(self, dim, *, width: int = 8):
        super().__init__()
        self.enter, self.time, self.out = nn.Linear(dim, width), nn.Linear(1, width), nn.Linear(width, dim)

    def forward(self, x, t):
        return self.out((self.enter(x) + self.time(t[:, None])).tanh())


class Moon:
    """A world of three steps."""

    name, task, fps, max_steps, success, score = "moon", "Land softly.", 10.0, 3, False, 0.5
    state_names, action_names = NAMES, ("target_x", "target_y")
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)

    def __init__(self, *, pixels=False):
        self.steps = 0

    def reset(self, seed):
        return {"state": np.full(5, 100, np.float32)}

    def step(self, action):
        return self.reset(0), 0.0, False

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def close(self):
        pass


class Negative:
    """z = -gain x."""

    about, linear = "negatives", True

    def __init__(self, gain):
        self.gain = gain

    def shape(self, data):
        return data

    def encode(self, x):
        return -self.gain * x

    def decode(self, z):
        return -z / self.gain

    def log_volume(self, data):
        return 0.0

    def mirror(self, z):
        return z.flip(-1)

    def to_config(self):
        return {"name": "new"}

    def weights(self):
        return {"gain": torch.tensor(self.gain)}


def negative(batches, *, gain: float = 1.0):
    """z = -gain x."""
    return Negative(gain)


def hop(**fields):
    """Flow matching in two hops (arXiv:2612.01234)."""
    return flow(**{"sample_steps": 2, "grid": "uniform", **fields})


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty folder, and a cache of one's own: `list` keeps what it has made of the tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    small(monkeypatch)


@pytest.fixture
def call(capsys):
    """Call a command, which must succeed: call("list", "paths") → what it printed."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert code == 0, (words, err)
        return out

    return run


def listed(call, kind, text, name="new"):
    """The row is in the command's list, and in the page that the documentation makes of it."""
    assert text in call("list", kind)
    if find_spec("docutils"):
        page = runpy.run_path(str(File(__file__).parent.parent / "docs" / "_ext" / "commands.py"))["said"]
        assert f"  {name} " in page("list", kind)


def lives(call, *trained, recipe="flow", card=""):
    """A run is trained, drawn from, measured, drawn, exported and opened again."""
    call("train", recipe, *TINY, *trained, "--out", "run")
    call("sample", "run", "--n", 8, "--steps", 2)
    call("evaluate", "run", "--n", 60, "--steps", 2)
    call("export", "run", "--out", "shared")
    call("sample", "shared", "--n", 4, "--steps", 2, "--out", "four.npy", "--no-picture")
    assert card in File("shared/README.md").read_text(encoding="utf-8")


def test_a_path(monkeypatch, call):
    monkeypatch.setitem(PATHS, "new", Bent)
    monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
    monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 20))
    listed(call, "paths", "options: new:bend=1.0")
    lives(call, "--path", "new:bend=0.5", card="new:bend=0.5")
    call("show", "path", "--path", "new", "--data", "two_moons")
    assert "euler" in (said := call("certify", "euler", "--path", "new"))
    assert " new " in said
    assert call("likelihood", "run", "--n", 4, "--steps", 4, "--no-picture")


def test_a_target(monkeypatch, call):
    monkeypatch.setitem(TARGETS, "new", Target(tilted))
    listed(call, "targets", "y = ε - tilt x₀.")
    lives(call, "--target", "new", card="new")


def test_a_codec(monkeypatch, call):
    monkeypatch.setitem(CODECS, "new", CodecRow(negative, lambda config, weights: Negative(float(weights["gain"]))))
    listed(call, "codecs", "z = -gain x.")
    tiny = ["--network", "unet-tiny:width=8", *SHORT]
    call("train", "flow-images", "--codec", "pixels+new:gain=2", "--flip", *tiny, "--out", "run")
    call("sample", "run", "--n", 2, "--steps", 2, "--bound", 1)
    call("export", "run", "--out", "shared")
    call("sample", "shared", "--n", 2, "--steps", 2, "--out", "two.npz", "--no-picture")
    assert "then negatives" in File("shared/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "row", "option", "text"),
    [
        (WEIGHTS, late, "weight", "α^power of |x₀ - x̂₀|²."),
        (TIMES, early, "times", "t = u^power."),
        (GRIDS, cubic, "grid", "t = (1 - i/N)^power."),
        (COUPLINGS, turned, "coupling", "The noise in reverse order."),
    ],
    ids=["weight", "times", "grid", "coupling"],
)
def test_what_training_draws_and_how_it_weighs(monkeypatch, call, table, row, option, text):
    monkeypatch.setitem(table, "new", row)
    listed(call, f"{option.removesuffix('s')}s", text)
    lives(call, f"--{option}", "new")
    if option == "grid":
        call("sample", "run", "--n", 4, "--grid", "new:power=2", "--steps", 3, "--out", "four.npy", "--overwrite")


def test_a_loss_and_a_law_of_spans(monkeypatch, call):
    """Of estimates that lead to another time: learned from data, and from a teacher."""

    def steady(denoiser, leap, *, scale: float = 1.0):
        """Mean slopes that are the velocity."""
        slopes = [mean_slope(denoiser, leap.x_t, leap.t, to, leap.cond) for to in (leap.to, None)]
        return scale * (slopes[0] - slopes[1].detach()).square().flatten(1).mean(1)

    def halves(u, w, share: float = 0.5):
        """From anywhere to a share of the way."""
        return u, share * u

    monkeypatch.setitem(LOSSES, "steady", Loss(steady))
    monkeypatch.setitem(SPANS, "halves", halves)
    assert "Mean slopes that are the velocity." in call("list", "losses")
    assert "options: halves:share=0.5" in call("list", "spans")
    own = ["--spans", "halves:share=0.4"]
    network = ["--network", "mlp:width=8,depth=2,spans=true"]
    call("train", "flow", *TINY, *network, "--loss", "steady:scale=2", *own, "--out", "alone")
    call("sample", "alone", "--sampler", "jump", "--steps", "2", "--n", "4")
    few = ["--trajectories", "60", "--trajectory-steps", "4", "--n", "0", "--quiet"]
    call("distill", "alone", "--method", "steady", *own, *few, *SHORT[:4], "--out", "told")
    call("sample", "told", "--n", "4")


def test_a_network(monkeypatch, call):
    monkeypatch.setitem(NETWORKS, "new", Plain)
    listed(call, "networks", "options: new:width=8")
    lives(call, "--network", "new:width=4", card="new:width=4")
    call("likelihood", "run", "--n", 4, "--steps", 4, "--no-picture")


def test_a_sampler(monkeypatch, call):
    monkeypatch.setitem(SAMPLERS, "new", Sampler(steady, Facts(1, smooth=True)))
    monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
    monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 20))
    listed(call, "samplers", "options: new:share=1.0")
    lives(call, "--sampler", "new:share=0.9")
    call("sample", "run", "--n", 4, "--sampler", "new", "--steps", 3, "--out", "own.npy")
    assert "all kept" in call("certify", "new", "--path", "linear")


def test_a_point_set(monkeypatch, call):
    two = gaussian_modes([(1.0, 1.0), (-1.0, 1.0)], std=0.2, about="two round clusters", limits=(-2.0, 2.0))
    monkeypatch.setitem(DATASETS, "new", two)
    listed(call, "data", "two round clusters")
    lives(call, "--data", "new", card="two round clusters")
    call("show", "data", "new", "--n", 100)
    call("likelihood", "run", "--n", 4, "--steps", 4, "--no-picture")
    monkeypatch.setattr("ebbtide.kinds.compare.figures", lambda comparison: iter(()))
    assert "new" in call("compare", "--data", "new", *TINY[:4], *SHORT[:4], "--n", 100, "--workers", 1)


def test_a_metric_of_points(monkeypatch, call):
    row = Metric(
        lambda c: float(c.x.mean()), lambda c: (c.x.double().mean(1).numpy(),), better="equal", in_summary=True
    )
    monkeypatch.setitem(METRICS, "new", row)
    listed(call, "metrics", "new ")
    lives(call)
    assert "\nnew " in call("evaluate", "run", "--n", 60, "--steps", 2)
    monkeypatch.setattr("ebbtide.kinds.compare.figures", lambda comparison: iter(()))
    said = call("compare", *TINY[:4], *SHORT[:4], "--n", 100, "--workers", 1)
    assert "new" in said.split("\n─")[0].split()
    assert '"new"' in File("runs/compare-three_gaussians/metrics.json").read_text(encoding="utf-8")


def test_a_metric_of_images(monkeypatch, call):
    row = ImageMetric(lambda s: float(s.features.mean()), lambda s, value, seed: (value - 1, value + 1), "equal")
    monkeypatch.setitem(IMAGE_METRICS, "new", row)
    monkeypatch.setitem(EXTRACTORS, "pixels", lambda real: Extractor("pixels", lambda x: x.flatten(1).float()))
    monkeypatch.setattr("ebbtide.metrics.image_judge.suited_extractor", lambda real: "pixels")
    listed(call, "metrics", "images: the nearer its floor, the better")
    call("train", "flow-images", "--network", "unet-tiny:width=8", *SHORT, "--out", "run")
    assert "\nnew " in call("evaluate", "run", "--n", 20, "--steps", 1)


def test_a_simulator(monkeypatch, call):
    monkeypatch.setitem(SIMULATORS, "new", Moon)
    monkeypatch.setattr("ebbtide.kinds.robots.driving.latency", lambda policy, seen, repeats=1: [1.0])
    listed(call, "simulators", "Land softly.")
    data, small = record("episodes.npz"), ["--network", "action_unet:width=8,emb=16", "--sample-steps", 2]
    call("train", "flow-policy", "--data", data, "--simulator", "new", *small, *SHORT, "--out", "run")
    assert "success rate" in call("evaluate", "run", "--n", 8, "--episodes", 2, "--workers", 1)
    call("rollout", "run")
    call("plot", "run")
    call("export", "run", "--out", "shared")
    call("rollout", "shared", "--video", "again.gif")
    call("rollout", "shared", "--simulator", "new", "--video", "third.gif")


def test_a_recipe(monkeypatch, call):
    monkeypatch.setitem(RECIPES, "new", hop)
    listed(call, "recipes", "Flow matching in two hops (arXiv:2612.01234).")
    lives(call, recipe="new")
    assert "arXiv:2612.01234" in call("cite", "new")
    assert "Flow matching in two hops" in call("train", "--help")
    call("train", "new", "--help")
