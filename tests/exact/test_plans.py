import pytest

from ebbtide.core.paths import Linear
from ebbtide.exact.fit import fit_solver
from ebbtide.exact.oracle import mixture
from ebbtide.exact.plans import COUNTS, LARGE, MOST_EVALUATIONS, PLANS, allowance, plan
from problems import noise_like

pytestmark = pytest.mark.unchecked
MODES = mixture(Linear(), noise_like(5, 2, seed=3), 0.2)


def test_plans_cost_what_they_say():
    """Counted at the denoiser, sample by sample; and within what a run may cost."""
    for row in (PLANS[2], PLANS[3]):
        seen = []

        class Counting:
            path, gaussian_end = Linear(), True

            def __call__(self, x, t, /, seen=seen, **cond):
                seen.append(len(x))
                return MODES(x, t)

        fit_solver(Counting(), noise_like(row.pool, 2), plan=row)
        assert sum(seen) == row.cost(COUNTS)
    for dim in (1, 2, 63, LARGE, 784):
        most = MOST_EVALUATIONS[dim >= LARGE]
        assert plan(10**9, dim).cost(COUNTS) <= most
        assert plan(10**9, dim).cost(COUNTS) > most / 2
        assert plan(1000, dim) is None
    assert plan(23_040, 2) == PLANS[3]  # 32 starts of two numbers are too few equations for a row of 20
    assert plan(23_000, 64) == PLANS[4]


def test_a_fit_may_take_a_twentieth_of_training():
    """A step of training costs three evaluations of each of its samples."""
    assert allowance(1000, 64) == 1000 * 64 * 3 // 20
