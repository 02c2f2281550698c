"""All statistical tests of this file together raise a false alarm with probability below 1e-6."""

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2

from cells import each
from ebbtide.data import DATASETS, gaussian_modes, load
from ebbtide.errors import InputError
from problems import FALSE_POSITIVE

N = 100_000
DENSE = [name for name, data in DATASETS.items() if data.log_density]
SMOOTH = [name for name in DENSE if name != "checkerboard"]
LABELLED = [name for name, data in DATASETS.items() if data.classes]
ORIGIN = (0.0, 0.0)

# Mean and E|x|², worked by hand from each set's description.
MOMENTS = {
    "three_gaussians": ((0, 2 / 3), (8 + 8 + 4) / 3 + 2 * 0.3**2),
    "eight_gaussians": (ORIGIN, 2**2 + 2 * 0.2**2),
    # E(2cos θ - 1)² + E(2sin θ - ½)² = (2 + 1) + (2 - 4/π + ¼) over half a circle
    "two_moons": (ORIGIN, 5.25 - 4 / math.pi + 2 * 0.1**2),
    "two_spirals": (ORIGIN, 1 / 3 + 2 * 0.06**2),
    "checkerboard": (ORIGIN, 2 * 8**2 / 12),
    "pinwheel": (ORIGIN, 2**2 + 0.6**2 + 0.2**2),  # twisting keeps the radius
    "rings": (ORIGIN, (1 + 4 + 9) / 3 + 2 * 0.1**2),
    # r = θ/15, θ ~ U(a, b): E r cos θ = [θ sin θ + cos θ] / 15(b - a), E r sin θ = [sin θ - θ cos θ] / 15(b - a)
    "swiss_roll": (
        (6 * math.pi / (45 * math.pi), 2 / (45 * math.pi)),
        math.pi**2 * (1.5**2 + 1.5 * 4.5 + 4.5**2) / 3 / 15**2 + 2 * 0.03**2,
    ),
    "point_mass": ((4.0,), 16.0),
}


def grid(low: float, high: float, n: int) -> torch.Tensor:
    """The midpoints of n × n squares."""
    step = (high - low) / n
    axis = low + step * (torch.arange(n, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("name", DENSE)
def test_density_integrates_to_one(name):
    high, n = 8.0, 640  # the checkerboard's edges are edges of the grid's cells
    density = DATASETS[name].log_density(grid(-high, high, n)).exp()
    assert float(density.sum() * (2 * high / n) ** 2) == pytest.approx(1, abs=1e-6)


def chi_square(name: str, x: torch.Tensor) -> float:
    """p-value of x's counts in 24 × 24 cells, each cell's probability integrated on 15 × 15 midpoints."""
    data, cells, fine = DATASETS[name], 24, 15
    low, high = data.limits
    density = data.log_density(grid(low, high, cells * fine)).exp().reshape(cells, fine, cells, fine)
    p = density.sum((1, 3)).flatten() * ((high - low) / (cells * fine)) ** 2
    index = ((x.double() - low) / (high - low) * cells).floor().long()
    inside = ((index >= 0) & (index < cells)).all(1)
    counts = torch.bincount((index[:, 0] * cells + index[:, 1])[inside], minlength=cells**2).double()
    rare = p * len(x) < 20  # with everything outside, one more cell
    p = torch.cat([p[~rare], 1 - p[~rare].sum(0, keepdim=True)])
    counts = torch.cat([counts[~rare], len(x) - counts[~rare].sum(0, keepdim=True)])
    keep = p * len(x) > 1
    statistic = ((counts - p * len(x)) ** 2 / (p * len(x)))[keep].sum()
    return float(chi2.sf(float(statistic), int(keep.sum()) - 1))


@pytest.mark.parametrize("name", DENSE)
def test_samples_follow_the_density(name):
    # False positives: 5 sets at FALSE_POSITIVE. Power: one set 3 % too large is always noticed.
    x = load(name, N, seed=1).x
    assert chi_square(name, x) > FALSE_POSITIVE
    assert chi_square(name, 1.03 * x) < FALSE_POSITIVE


@pytest.mark.parametrize("name", SMOOTH)
def test_score_of_the_samples(name):
    """Stein: E ∇log p = 0 and E x·∇log p = -d, for any smooth density and its own samples."""
    x = load(name, N, seed=2).x.double().requires_grad_()
    (score,) = torch.autograd.grad(DATASETS[name].log_density(x).sum(), x)
    for value in (score[:, 0], score[:, 1], (x * score).sum(1).detach() + 2):
        # False positives: 12 tests at 6 σ, two-sided 2e-9 each.
        assert abs(float(value.mean())) < 6 * float(value.std()) / math.sqrt(N)


@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("three_gaussians", (2, 2), -0.5285437),  # -log 3 - log(2π 0.3²)
        ("three_gaussians", (0, -1.7), -1.0285437),  # one σ away: -1/2
        ("eight_gaussians", (0, 2), -0.6984427),  # -log 8 - log(2π 0.2²)
        ("checkerboard", (-3, -3), -3.4657359),  # -log 32
        ("checkerboard", (-1, -3), -math.inf),
        ("checkerboard", (3, 3), -3.4657359),
        ("checkerboard", (5, -3), -math.inf),
        ("rings", (0, 0), -48.331319),  # -1/(2·0.1²) - log(3·2π 0.1²)
        ("pinwheel", (2 * math.cos(math.e / 4), 2 * math.sin(math.e / 4)), -1.3270515),  # -log 5 - log(2π·0.12)
    ],
)
def test_log_density_by_hand(name, x, value):
    log_density = DATASETS[name].log_density
    assert float(log_density(torch.tensor(x, dtype=torch.float64))) == pytest.approx(value, abs=1e-6)


@each("name", DENSE)
@each("shape", [(), (0,), (7,), (3, 4)])
def test_log_density_takes_any_batch_and_dtype(name, shape):
    x = torch.randn(*shape, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_density = DATASETS[name].log_density
    assert log_density(x).shape == shape
    assert log_density(x).dtype == torch.float64
    torch.testing.assert_close(log_density(x.float()).double(), log_density(x), rtol=1e-3, atol=1e-3)


def test_a_point_never_falls_off_the_checkerboard():
    assert bool(DATASETS["checkerboard"].log_density(load("checkerboard", 10 * N, seed=3).x).isfinite().all())


@pytest.mark.parametrize("name", DATASETS)
def test_moments(name):
    x = load(name, N, seed=4).x.double()
    mean, square = MOMENTS[name]
    for value, expected in zip([*x.T, x.square().sum(1)], [*mean, square]):
        # False positives: 24 tests at 6 σ, two-sided 2e-9 each.
        assert abs(float(value.mean()) - expected) <= 6 * float(value.std()) / math.sqrt(N)


@pytest.mark.parametrize("name", DATASETS)
def test_a_set_keeps_its_promises(name):
    data, points = DATASETS[name], load(name, N, seed=5)
    assert points.x.shape == (N, data.dim)
    assert points.x.dtype == torch.float32
    assert len(points.columns) == data.dim
    assert points.classes == data.classes
    low, high = data.limits
    assert float(((points.x > low) & (points.x < high)).all(1).double().mean()) > 0.998
    assert data.about
    assert "\n" not in data.about
    if data.modes:
        assert data.modes.means.shape == (len(data.classes), data.dim)
    assert (points.labels is None) == (not data.classes)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_equally_likely(name):
    labels, k = load(name, N, seed=6).labels, len(DATASETS[name].classes)
    assert labels.dtype == torch.int64
    counts = torch.bincount(labels)
    assert len(counts) == k
    # False positives: 23 counts at 6 σ, two-sided 2e-9 each.
    assert float((counts - N / k).abs().max()) < 6 * math.sqrt(N / k * (1 - 1 / k))


@pytest.mark.parametrize(
    ("name", "share"),
    # 0.96 is how often a point is nearest to its own spiral: near the middle the two overlap.
    [("three_gaussians", 1), ("eight_gaussians", 1), ("two_moons", 1), ("rings", 1), ("two_spirals", 0.96)],
)
def test_labels_name_the_nearest_part(name, share):
    data, points = DATASETS[name], load(name, 5000, seed=7)
    if data.modes:
        parts = data.modes.means.float()[:, None]
    else:
        u, k = torch.linspace(0, 1, 400), len(data.classes)
        parts = data.curve(u.expand(k, -1), torch.arange(k)[:, None].expand(-1, 400))
    distance = torch.stack([torch.cdist(points.x, part).amin(1) for part in parts], 1)
    # False positives: 6 σ of a share of 0.96 in 5000 is 0.0166, 2e-9.
    assert float((distance.argmin(1) == points.labels).double().mean()) == pytest.approx(share, abs=0.0166)


def test_the_blades_of_the_pinwheel_are_one_blade_turned():
    points = load("pinwheel", N, seed=8)
    mean = torch.stack([points.x[points.labels == k].mean(0) for k in range(5)])
    direction = torch.atan2(mean[:, 1], mean[:, 0])
    turned = (direction - direction[0]) % (2 * math.pi) * 5 / (2 * math.pi)
    # A mean's direction is good to 0.006 in these units; 0.04 is 6 σ.
    torch.testing.assert_close(turned, torch.arange(5.0), atol=0.04, rtol=0)


@pytest.mark.parametrize("name", DATASETS)
def test_only_the_seed_matters(name):
    first = load(name, 100, seed=9)
    torch.manual_seed(1234)
    torch.set_default_dtype(torch.float64)
    try:
        again = load(name, 100, seed=9)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.x.dtype == torch.float32
    assert torch.equal(first.x, again.x)
    assert first.labels is None or torch.equal(first.labels, again.labels)
    assert name == "point_mass" or not torch.equal(first.x, load(name, 100, seed=10).x)


def test_mixture_in_any_dimension():
    data = gaussian_modes([(0.0, 0.0, 0.0), (9.0, 0.0, 0.0)], std=1.0, about="two far balls", limits=(-4.0, 13.0))
    x, labels = data.sample(50, torch.Generator().manual_seed(0))
    assert x.shape == (50, 3)
    assert data.dim == 3
    assert bool(((x[:, 0] > 4.5) == (labels == 1)).all())
    # ½ (2π)^-3/2
    assert float(data.log_density(torch.zeros(3))) == pytest.approx(-math.log(2) - 1.5 * math.log(2 * math.pi))


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("two_moon", 10, 0), ["two_moons", "did you mean", "checkerboard", ".npy"]),
        (("", 10, 0), ["''", "three_gaussians"]),
        (("nothing/here", 10, 0), ["nothing/here"]),
        (("nothing.csv", 10, 0), ["nothing.csv", "exist"]),
        (("two_moons", 0, 0), ["n", "at least 1", "0"]),
        (("two_moons", 10, -1), ["seed", "-1"]),
        (("two_moons", 10, 2**63), ["seed"]),
        (("two_moons", 10.0, 0), ["n", "a whole number", "10.0"]),
        (("two_moons", 10, "0"), ["seed", "a whole number", "'0'"]),
        ((Path("two_moons"), 10, 0), ["data", "a text", "Path"]),
        (("two_moons", 10, 0, 1), ["label", "a text or None", "1"]),
        (("two_moons", 10, 0, "label"), ["label", "two_moons"]),
    ],
)
def test_load_refuses(arguments, words):
    with pytest.raises(InputError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_load_reads_every_row_of_a_file(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n5,6,x\n")
    points = load(str(tmp_path / "mine.csv"), 1, seed=0, label="kind")
    assert points.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert points.labels.tolist() == [0, 1, 0]
    assert points.columns == ("a", "b")
    assert points.classes == ("x", "y")
