"""A grid of cases inside one test: pytest.mark.parametrize without a test for each.

    @each("path", PATHS)
    @each("target", TARGETS)
    def test_round_trips(path, target): ...

is one test. It tries every pair, and fails with the name of each that fails; types and shapes are checked in the first.
For cases that take a moment and leave nothing behind: they share what a fixture gives. Not for hypothesis, which would
look for the smallest failure of every one that fails.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial, wraps
from typing import Any

import jaxtyping
import pytest

EAGER = jaxtyping.jaxtyped
MOST = 8  # calls of a function that are checked in a test: a loop makes thousands of the same kind
# What ends a case: a case that is skipped would pass unseen among the others.
ENDS = (Exception, pytest.fail.Exception, pytest.skip.Exception)


class Current:
    """The test at hand: its number, and how many calls of each function are checked in it."""

    number, most = 0, float(MOST)


def begin_test(every: bool) -> None:
    """Count calls anew; every: check them all."""
    Current.number, Current.most = Current.number + 1, math.inf if every else MOST


@contextmanager
def checks(off: bool) -> Iterator[None]:
    """Without jaxtyping's checks of types and shapes if `off`, else as it is."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", before or off)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def jaxtyped(function: Any = None, *, typechecker: Callable) -> Any:
    """jaxtyping's decorator, which the tests' import hook puts on each function, at work on the first calls of a test.

    Making a check takes milliseconds, so that is left to the first call of all: too long for functions that no test
    has checked, and for those defined in others.
    """
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(function):
        if is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = jaxtyped(function.__init__, typechecker=typechecker)
        return function
    checked, calls, test = None, 0, -1

    @wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checked, calls, test
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        if test != Current.number:
            calls, test = 0, Current.number
        calls += 1
        if calls > Current.most:
            return function(*args, **kwargs)
        checked = checked or EAGER(function, typechecker=typechecker)
        return checked(*args, **kwargs)

    return either


def each(
    names: str | Iterable[str], values: Iterable[Any], ids: Callable[[Any], str] | Iterable[str] = str
) -> Callable:
    """As pytest.mark.parametrize of these arguments; ids: a name for each case, or what makes one of a value."""
    names = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    rows = [(value,) if len(names) == 1 else tuple(value) for value in values]
    shown = [", ".join(map(ids, row)) for row in rows] if callable(ids) else list(ids)
    own = [(f"{', '.join(names)} = {name}", dict(zip(names, row, strict=True)))
           for name, row in zip(shown, rows, strict=True)]  # fmt: skip
    assert own, f"no case of {', '.join(names)}"

    def decorate(test: Callable) -> Callable:
        one, more = getattr(test, "grid", (test, [("", {})]))
        cases = [(f"{name}; {other}".removesuffix("; "), given | rest) for name, given in own for other, rest in more]

        @wraps(one)
        def every(*self: Any, **fixtures: Any) -> None:
            failed = {}
            for i, (name, given) in enumerate(cases):
                try:
                    with checks(off=i > 0):
                        one(*self, **fixtures, **given)
                except ENDS as error:
                    failed[name] = error
            if failed:
                lines = [f"{name}: {type(error).__name__} {str(error)[:500]}" for name, error in failed.items()]
                text = "\n".join([f"{len(failed)} of {len(cases)} cases fail", *lines])
                raise AssertionError(text) from next(iter(failed.values()))

        signature = inspect.signature(one)
        asked = [parameter for name, parameter in signature.parameters.items() if name not in cases[0][1]]
        assert len(asked) + len(cases[0][1]) == len(signature.parameters), f"{one.__name__} takes no {names}"
        every.__signature__, every.grid = signature.replace(parameters=asked), (one, cases)
        return every

    return decorate
