"""Grids of jumps: of maps that err only where they lead to some times."""

import pytest
import torch

from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.exact.jumps import fit_jumps
from problems import PATHS, exact_flow, noise_like, oracle


class ErringAt:
    """The exact map with |τ_s - best| added to every end before the data: none where it leads to `best`."""

    gaussian_end = spans = True

    def __init__(self, path, best):
        self.path, self.exact, self.best = path, oracle(path, 2), best

    def __call__(self, x, t, /, *, to=None, **cond):
        c, end = self.path.at(t, x), self.path.at(to, x)
        pair = self.exact(x, t, to=to)
        if not end.sigma:
            return pair
        u = pair.mix(-1.0, 1.0) + abs(end.tau - self.best) / (c.tau - end.tau)
        x0 = x / c.size - c.tau * u
        return Estimate(x0, x0 + u)


def ends(path, n=400):
    start = path.prior(noise_like(n, 2))
    return start, exact_flow(path, start, 1.0, 0.0)


@pytest.mark.parametrize("path", [Linear(), PATHS["ddpm"]], ids=["linear", "ddpm"])
def test_two_jumps_meet_where_the_map_is_right(path):
    (found,) = fit_jumps(ErringAt(path, 0.25), *ends(path), (2,))
    middle = float(found.grid.split(",")[1])
    assert path.along([middle])[0].tau == pytest.approx(0.25, abs=0.01)
    assert (found.sampler, found.steps, found.evaluations) == ("jump", 2, 2)
    assert found.rms < 0.02 < found.usual


def test_one_jump_has_no_choice_and_an_exact_map_no_error():
    found = fit_jumps(oracle(Linear(), 2), *ends(Linear()), (1, 3))
    assert [one.grid.count(",") for one in found] == [1, 3]
    assert found[0].grid == "1,0"
    assert max(one.rms for one in found) < 1e-4  # times are stored with five digits


def test_conditions_follow_their_starts():
    seen = []

    class Listening(ErringAt):
        def __call__(self, x, t, /, *, to=None, **cond):
            seen.append((len(x), cond["label"].tolist(), cond["context"]))
            return super().__call__(x, t, to=to)

    start, end = ends(Linear(), n=8)
    fit_jumps(Listening(Linear(), 0.5), start, end, (1,), cond={"label": torch.arange(8), "context": "all"})
    assert {(n, tuple(labels)) for n, labels, _ in seen} == {(6, (0, 1, 2, 3, 4, 5)), (2, (6, 7))}
    assert {context for *_, context in seen} == {"all"}
