"""Grids of jumps: of maps that err only where they lead to some times."""

import pytest
import torch

from ebbtide.core.paths import Linear
from ebbtide.core.targets import Estimate
from ebbtide.exact import jumps
from ebbtide.exact.jumps import chamfer, fit_jumps
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


def test_the_same_set_in_another_order_is_near_and_a_point_between_modes_is_not():
    y = torch.tensor([[0.0, 0], [0, 1], [9, 0], [9, 1]])
    assert chamfer(y[[2, 3, 0, 1]], y) == 0
    assert chamfer(torch.tensor([[0.0, 0], [0, 1], [9, 0], [5, 1]]), y) == pytest.approx((4 + 1) / 8)
    assert chamfer(y[[0, 1, 0, 1]], y) == pytest.approx((9 + 9) / 8)  # a mode that is missing


def test_ends_are_near_to_those_of_their_own_label():
    y, label = torch.tensor([[0.0], [1.0], [8.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    assert chamfer(y[[1, 0, 3, 2]], y, label) == 0
    assert chamfer(y[[2, 1, 0, 3]], y, label) == pytest.approx((7 + 1 + 8 + 1) / 8)


def test_ends_may_be_another_start_s_unless_each_has_conditions_of_its_own(monkeypatch):
    """A sample in another mode is no error of the set; but what follows on one observation is none of another's."""
    (start, end), path = ends(Linear()), Linear()
    mixed = end[torch.cat([torch.arange(300).flip(0), torch.arange(300, 400)])]
    cond = {"label": torch.zeros(400, dtype=torch.int64)}
    found = fit_jumps(ErringAt(path, 0.25), start, mixed, (2,), cond=cond)
    assert path.along([float(found[0].grid.split(",")[1])])[0].tau == pytest.approx(0.25, abs=0.01)
    assert found == fit_jumps(ErringAt(path, 0.25), start, end, (2,), cond=cond)
    monkeypatch.setattr(jumps, "chamfer", None)
    seen = cond | {"state": torch.zeros(400, 2)}
    assert fit_jumps(ErringAt(path, 0.25), start, end, (2,), cond=seen)[0].grid == found[0].grid
