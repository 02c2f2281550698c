"""Distribution matching on Gaussians: its gradient is that of a KL divergence, and each network learns from its own."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cells import each
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Bounded
from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian
from ebbtide.losses.critic import discern
from ebbtide.losses.denoise import denoise
from ebbtide.losses.flow_map import Fresh, Leap, jumped, known_ends
from ebbtide.losses.matching import EDGE, Judges, matching, pull
from ebbtide.networks.mlp import MLP
from problems import MEAN, PATHS, STD, fill, float64, noise_like, oracle

module = sys.modules[matching.__module__]  # `losses.matching` is the function
paths = each("path", PATHS.values(), ids=PATHS.keys())


class Affine(nn.Module):
    """A student whose jump from t = 1 is x₀ = m + c x₁/σ₁, so that its samples are N(m, c²)."""

    gaussian_end = spans = True

    def __init__(self, path, mean, std):
        super().__init__()
        self.path = path
        self.mean, self.std = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (mean, std))

    def forward(self, x, t, /, *, to=None):
        c = self.path.at(t, x)
        x0 = self.mean + self.std * x / self.path.along([1.0])[0].sigma
        return Estimate(x0, (x - c.alpha * x0) / c.sigma)


class Exact(Judges):
    """Judges whose fake is the student's own law, exactly."""

    def __init__(self, student):
        nn.Module.__init__(self)
        mean, std = float(student.mean), float(student.std)
        self.fake = gaussian(student.path, float64(mean), std)
        self.step, self.steps = 0, 1


def fresh_of(path, u, x, noise):
    """Starts, noise and times of these draws, and nothing to a critic."""
    return Fresh(path.prior(x), noise, torch.zeros_like(x), u, torch.zeros_like(x), u > 0)


def quadrature(u, nodes=6):
    """Starts and noises of a two-dimensional Gauss–Hermite rule at each u, and the weight of each."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    x, w = torch.tensor(x), torch.tensor(w / w.sum())
    start, noise, each = torch.meshgrid(x, x, u, indexing="ij")
    weight = (w[:, None] * w)[..., None].expand_as(each) / len(u)
    return start.reshape(-1, 1), noise.reshape(-1, 1), each.flatten(), weight.flatten()


def gradient(path, mean, std, monkeypatch):
    """Of the expected loss by the student's m and c, and that of E_t[σ²/α² KL(N(α m, α² c² + σ²) | teacher's)]."""
    monkeypatch.setattr(module, "FLOOR", 1e3)  # so that the size by which a pull is divided is a constant
    monkeypatch.setattr(module, "denoise", lambda fake, x0, noise, t, **cond: 0)  # the fake is exact as it is
    u = float64(0.1, 0.3, 0.5, 0.7, 0.9)
    start, noise, each, weight = quadrature(u)
    student = Affine(path, mean, std)
    t, to = path.at(torch.ones_like(each), start), path.at(torch.zeros_like(each), start)
    with torch.no_grad():
        x1 = path.prior(start)
        leap = Leap(x1, t, to, None, jumped(student, x1, t, to), {}, fresh_of(path, each, start, noise))
    loss = matching(student, leap, teacher=oracle(path), judges=Exact(student))
    found = torch.autograd.grad((weight * loss).sum(), [student.mean, student.std])
    m, c = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (mean, std))
    tau = (EDGE + (1 - 2 * EDGE) * u) * path.along([1.0])[0].tau
    a = path.scales(path.time_at(tau))
    own, its = (a.alpha * c) ** 2 + a.sigma**2, (a.alpha * STD) ** 2 + a.sigma**2
    kl = ((own + (a.alpha * (m - MEAN)) ** 2) / its - 1 - (own / its).log()) / 2
    expected = torch.autograd.grad(((a.sigma / a.alpha) ** 2 * kl).mean(), [m, c])
    return [1e3 * float(part) for part in found], [float(part) for part in expected]


@paths
def test_the_gradient_is_that_of_the_divergence_at_all_times(path, monkeypatch):
    found, expected = gradient(path, 0.2, 0.8, monkeypatch)
    assert found == pytest.approx(expected, rel=1e-6)
    assert min(map(abs, expected)) > 1e-3


@paths
def test_a_student_with_the_teachers_density_stays(path, monkeypatch):
    """Even one whose samples are others: c = -STD turns the noise round."""
    for std in (STD, -STD):
        found, _ = gradient(path, MEAN, std, monkeypatch)
        assert max(map(abs, found)) < 1e-9


def test_a_pull_by_hand():
    """Fake (1, 3), teacher (2, 1), x (4, 1): differences (-1, 2), divided by the mean of (2, 0)."""
    found = pull(float64(4, 1)[None], float64(1, 3)[None], float64(2, 1)[None])
    torch.testing.assert_close(found, float64(-1, 2)[None])
    x = float64(2, 2)[None]
    torch.testing.assert_close(pull(x, x + 1e-3, x), x * 0 + 1e-3 / module.FLOOR)


def networks(critic):
    """A student, its teacher, their judges, and a batch of 8."""
    path = Linear()
    student, teacher = (Denoiser(fill(MLP(2, width=8, depth=1, spans=True), std).double(), path) for std in (0.2, 0.3))
    for p in teacher.parameters():
        p.requires_grad_(False)
    judges = Judges(Bounded(teacher, 100.0), 10, critic=critic)
    fill(judges, 0.25)  # as if they had learned something
    n = 8
    x, noise, nudge, end, x_to = noise_like(5, n, 2)
    t, to = path.at(torch.linspace(0.5, 1, n).double(), x), path.at(torch.linspace(0, 0.4, n).double(), x)
    u = torch.linspace(0.1, 0.9, n).double()
    return student, teacher, judges, Leap(x, t, to, None, x_to, {}, Fresh(x, noise, nudge, u, end, u > 0.3))


def test_judges_start_as_the_teacher_and_train_all_they_have():
    _, teacher, _, _ = networks(1.0)
    judges = Judges(Bounded(teacher, 100.0), 10, critic=1.0)
    for network in (judges.fake, judges.critic):
        theirs = teacher.state_dict()
        assert all(torch.equal(theirs[name], part) for name, part in network.state_dict().items())
        assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert networks(0.0)[2].critic is None


def by(loss, module_):
    return torch.autograd.grad(loss.sum(), list(module_.parameters()), retain_graph=True, allow_unused=True)


def noised(student, leap):
    """The student's samples, as they are noised, and when."""
    path, fresh = student.path, leap.fresh
    one, zero = path.at(torch.ones(8).double(), fresh.start), path.at(torch.zeros(8).double(), fresh.start)
    x = jumped(student, fresh.start, one, zero)
    t = path.at(EDGE + (1 - 2 * EDGE) * fresh.u, x)
    return x, t, t.alpha * x + t.sigma * fresh.noise


def alike(mine, theirs):
    """The same gradients, and None for the same parameters."""
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_fake_learns_to_denoise_the_students_samples_and_nothing_else():
    student, teacher, judges, leap = networks(0.5)
    loss = matching(student, leap, teacher=teacher, judges=judges, critic=0.5)
    with torch.no_grad():
        x, t, _ = noised(student, leap)
    alike(by(loss, judges.fake), by(denoise(judges.fake, x, leap.fresh.noise, t.t), judges.fake))


def test_the_critic_learns_to_tell_both_apart_and_nothing_else():
    student, teacher, judges, leap = networks(0.5)
    loss = matching(student, leap, teacher=teacher, judges=judges, critic=0.5, smooth=0.3)
    with torch.no_grad():
        _, t, x_t = noised(student, leap)
    real = t.alpha * leap.fresh.end + t.sigma * leap.fresh.noise
    own = discern(partial(judges.score, t=t), real, x_t, 0.3, leap.fresh.nudge) * (leap.fresh.u > 0.3)
    alike(by(loss, judges.critic), by(own, judges.critic))


def test_the_student_learns_from_the_regression_its_pull_and_the_critic():
    """Of what the judges are trained by nothing reaches it."""
    student, teacher, judges, leap = networks(0.5)
    loss = matching(student, leap, teacher=teacher, judges=judges, weight=0.7, critic=0.5)
    x, t, x_t = noised(student, leap)
    with torch.no_grad():
        move = pull(x, judges.fake(x_t, t).x0, teacher(x_t, t).x0)
        real = judges.score(t.alpha * leap.fresh.end + t.sigma * leap.fresh.noise, t)
    known = known_ends(student, leap) + 0.7 * (x * move).mean(1)
    misled = 0.5 * (1 + (real - judges.score(x_t, t)).exp()).log()
    expected = by(known + misled * (leap.fresh.u > 0.3), student)
    for mine, theirs in zip(by(loss, student), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(p.requires_grad for p in judges.parameters())


def test_the_judges_have_more_turns_than_the_student_and_a_beginning():
    student, teacher, judges, leap = networks(0.0)
    every = {"teacher": teacher, "judges": judges, "after": 0.3, "updates": 2}
    alone = by(known_ends(student, leap), student)
    for step, (fake, moved) in {2: (False, False), 3: (True, False), 4: (True, True)}.items():
        judges.step = step
        loss = matching(student, leap, **every)
        assert any(part is not None for part in by(loss, judges.fake)) == fake
        same = all(torch.equal(mine, own) for mine, own in zip(by(loss, student), alone, strict=True))
        assert same != moved


def test_options_that_cannot_be_are_refused():
    student, teacher, judges, leap = networks(0.0)
    for name, value in {"weight": -1.0, "after": 1.5, "updates": 0}.items():
        with pytest.raises(InputError, match=f"matching: {name}"):
            matching(student, leap, teacher=teacher, judges=judges, **{name: value})
    with pytest.raises(InputError, match="matching: critic"):
        Judges(teacher, 1, critic=-1.0)
