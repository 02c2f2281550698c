"""The sampler, grid and steps of samples: a run's own solver by its number, and never where it isn't made for them."""

from dataclasses import replace

import pytest

from ebbtide.errors import InputError
from training.runs import run, sentence, tiny, tuned


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return run(tiny("flow"), tmp_path_factory.mktemp("runs") / "flow")


def test_auto_is_the_latest_or_the_one_of_that_number(flow):
    trained = replace(flow, tuned=(tuned(6), tuned(20), tuned(4)))
    assert trained.choice(steps="auto") == ("euler", "quadratic", 4)
    for n in (6, 20, 4):
        assert trained.choice(steps=f"auto:{n}") == ("euler", "quadratic", n)
    assert trained.choice(steps="auto:06")[2] == 6
    # Of two for the same number the later one.
    twice = replace(trained, tuned=(tuned(6), tuned(4), tuned(6, sampler="heun"), tuned(8)))
    assert twice.choice(steps="auto:6")[0] == "heun"


@pytest.mark.parametrize("steps", ["10", "Auto", "auto:", "auto:x", "auto:-1", "auto:1.5", " auto", "auto:1234567"])
def test_other_words_for_steps_are_refused(flow, steps):
    trained = replace(flow, tuned=(tuned(6),))
    with pytest.raises(InputError, match="steps must be a number, auto, or auto:N for N evaluations") as refused:
        trained.choice(steps=steps)
    sentence(refused.value)
    with pytest.raises(InputError, match="steps must be a number, auto, or auto:N"):
        trained.sample(2, steps=steps)


def test_a_runs_own_solver_is_for_a_whole_grid(flow):
    trained = replace(flow, tuned=(tuned(20, weights="w"),))
    recipe = trained.recipe
    assert trained.choice() == ("euler", "quadratic", 20)
    assert trained.choice(at=0.5) == (recipe.sampler, recipe.grid, recipe.sample_steps)
