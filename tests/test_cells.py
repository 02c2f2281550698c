"""The grid inside a test tries every case and names those that fail."""

import inspect
from unittest.mock import patch

import pytest

import cells
from cells import each


@each("a", {"p": 1, "q": 2})
@each(("b", "c"), [(1, 2), (3, 4)], ids=["low", "high"])
def grid(a, b, c, seen):
    seen.append((a, b, c))
    if a == "p":
        assert b != 3, "three"
    elif b == 1:
        pytest.skip("not here")


def test_every_case_is_tried_and_those_that_fail_are_named():
    """One that is skipped would otherwise pass unseen."""
    seen = []
    with pytest.raises(AssertionError) as caught:
        grid(seen=seen)
    assert seen == [("p", 1, 2), ("p", 3, 4), ("q", 1, 2), ("q", 3, 4)]
    head, *lines = [line for line in str(caught.value).splitlines() if " = " in line or "cases" in line]
    assert head == "2 of 4 cases fail"
    assert lines[0].startswith("a = p; b, c = high: AssertionError three")
    assert lines[-1].startswith("a = q; b, c = low: Skipped not here")
    assert isinstance(caught.value.__cause__, AssertionError)


def test_fixtures_are_pytests_and_cases_are_not():
    assert list(inspect.signature(grid).parameters) == ["seen"]


def test_a_grid_of_nothing_or_of_a_name_the_test_has_not_is_refused():
    with pytest.raises(AssertionError, match="no case of a"):
        each("a", [])
    with pytest.raises(AssertionError, match="takes no"):
        each("z", [1])(lambda a: None)


@pytest.mark.checked
@pytest.mark.parametrize("every", [False, True])
def test_the_first_calls_of_a_test_are_checked_or_every_one(every):
    calls = []
    typechecker = lambda function: lambda *args: calls.append(args) or function(*args)
    with patch.object(cells, "EAGER", lambda function, typechecker: typechecker(function)):
        double = cells.jaxtyped(lambda x: 2 * x, typechecker=typechecker)
        for _ in range(2):  # tests
            cells.begin_test(every)
            assert [double(x) for x in range(cells.MOST + 5)] == list(range(0, 2 * cells.MOST + 10, 2))
    assert len(calls) == 2 * (cells.MOST + 5 * every)


@pytest.mark.parametrize("outer", [1, 2])
@each("inner", range(3))
def test_it_goes_with_parametrize(outer, inner, tmp_path):
    assert outer > 0 <= inner < 3
    assert tmp_path.is_dir()
