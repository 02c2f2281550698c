"""The loop of all multistep methods, fed with rows whose walk is worked out by hand."""

import pytest
import torch

from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import Estimate
from ebbtide.errors import InputError
from ebbtide.samplers import Walk
from ebbtide.samplers.multistep import Scheme, Update, multistep
from problems import float64

GRID = Linear().along([1.0, 0.6, 0.3, 0.0])


class Script:
    """Says x̂₀ = 1, 10, 100, … and ε̂ = 2, 20, 200, …, and remembers where it was asked."""

    gaussian_end, path = True, Linear()

    def __init__(self):
        self.seen = []

    def __call__(self, x, c, /, **cond):
        self.seen.append((float(x), c.t, cond))
        size = 10.0 ** (len(self.seen) - 1)
        return Estimate(torch.full_like(x, size), torch.full_like(x, 2 * size))


class Ones(Draws):
    """z = step + 1."""

    def __call__(self, step, x):
        return torch.full_like(x, step + 1.0)


def walked(plan, draws=None, **cond):
    script = Script()
    return [float(x) for x in multistep(Walk(script, float64(2)[None], GRID, draws, cond), plan)], script.seen


def test_predictor_rows_by_hand():
    """2 → ½ · 2 + 1 = 2 → ½ · 2 + 2 · 10 + 3 · 1 = 24 → 0 + 100 + 10 - 4 · 1 = 106."""
    plan = Scheme("x0", [Update(0.5, (1.0,)), Update(0.5, (2.0, 3.0)), Update(0.0, (1.0, 1.0, -4.0))])
    found, seen = walked(plan, label=7)
    assert found == [2, 24, 106]
    assert seen == [(2, 1.0, {"label": 7}), (2, 0.6, {"label": 7}), (24, 0.3, {"label": 7})]


def test_the_noise_form_takes_the_noise():
    """The same with ε̂ = 2, 20, 200: 3; ½ · 3 + 40 + 6 = 47.5; 200 + 20 - 8 = 212."""
    plan = Scheme("noise", [Update(0.5, (1.0,)), Update(0.5, (2.0, 3.0)), Update(0.0, (1.0, 1.0, -4.0))])
    assert walked(plan)[0] == [3, 47.5, 212]


def test_a_corrected_step_is_where_the_next_begins():
    """After x = 2, x̂₀ = 10 at its end takes the step again: ½ · 2 + 4 · 10 + 5 · 1 = 46, then ½ · 46 + 20 + 3 = 46;
    the second step has no corrector. One evaluation a step, at the predicted x.
    """
    plan = Scheme(
        "x0",
        [Update(0.5, (1.0,)), Update(0.5, (2.0, 3.0)), Update(0.25, (1.0, 0.0, 0.0))],
        [Update(0.5, (4.0, 5.0)), None],
    )
    found, seen = walked(plan)
    assert found == [2, 46, 0.25 * 46 + 100]
    assert [x for x, _, _ in seen] == [2, 2, 46]


def test_a_second_corrector_starts_from_the_corrected_x():
    """The second step went from 46: taken again, 46 + 100 - 10 = 136, then 0 · 136 + 1 · 100."""
    plan = Scheme(
        "x0",
        [Update(0.5, (1.0,)), Update(0.5, (2.0, 3.0)), Update(1.0, (1.0, 0.0))],
        [Update(0.5, (4.0, 5.0)), Update(1.0, (1.0, -1.0))],
    )
    assert walked(plan)[0] == [2, 46, 136 + 100]


def test_a_step_without_a_row_is_ddims():
    """At t = 1, to 0.6 on the linear path: 0.4 · 1 + 0.6 · 2 = 1.6."""
    plan = Scheme("noise", [None, Update(1.0, (1.0, 0.0)), Update(1.0, (0.0, 1.0))])
    assert walked(plan)[0] == [1.6, 21.6, 41.6]


def test_noise_is_added_where_a_row_has_some():
    rows = [Update(1.0, (0.0,), 0.5), Update(1.0, (0.0,)), Update(1.0, (0.0,), 2.0)]
    assert walked(Scheme("x0", rows), Ones(0, torch.arange(1)))[0] == [2.5, 2.5, 8.5]
    with pytest.raises(InputError, match="needs draws="):
        walked(Scheme("x0", rows))


def test_a_runge_kutta_start_by_hand():
    """Midpoint from 1 to 0.6 in the linear path's own clock: the slope at 0.8 is ε̂ - x̂₀ = 20 - 10, 2 - 0.4 · 10 = -2.

    Then Adams with the history of the grid's own times (100 at 0.6 and 1 at 1), not of the stage between them.
    """
    from ebbtide.samplers.ode import MIDPOINT

    plan = Scheme("x0", [Update(9.0, (9.0,)), Update(1.0, (1.0, 5.0)), Update(0.0, (0.0, 1.0))], first=(MIDPOINT, 1))
    found, seen = walked(plan)
    torch.testing.assert_close(found, [-2.0, -2.0 + 100 + 5, 100.0])
    torch.testing.assert_close([t for _, t, _ in seen], [1.0, 0.8, 0.6, 0.3])
    torch.testing.assert_close(seen[1][0], 2 - 0.2 * 1.0)


def test_the_start_is_not_written_into():
    x = float64(2)[None]
    list(multistep(Walk(Script(), x, GRID), Scheme("x0", [Update(0.5, (1.0,))] * 3)))
    assert float(x) == 2


def test_a_corrector_starts_where_its_step_did():
    """2 → 2 + 3 = 5, taken again from 2, not from 5: 2 + 10 = 12 → 12 + 10 = 22."""
    plan = Scheme(
        "x0", [Update(1.0, (3.0,)), Update(1.0, (1.0, 0.0)), Update(1.0, (0.0, 0.0))], [Update(1.0, (1.0, 0.0)), None]
    )
    found, seen = walked(plan)
    assert found == [5, 22, 22]
    assert [x for x, _, _ in seen] == [2, 5, 22]
