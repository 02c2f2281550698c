"""Errors are one family, each with its exit code and a builtin it can be caught as."""

import inspect
from pathlib import Path

import pytest

from ebbtide import errors
from ebbtide.errors import CertificationError, DivergedError, EbbtideError, InputError, StorageError, meant, printable


@pytest.mark.parametrize(
    ("error", "builtin", "code"),
    [
        (EbbtideError, Exception, 1),
        (InputError, ValueError, 2),
        (DivergedError, ArithmeticError, 3),
        (StorageError, OSError, 4),
        (CertificationError, Exception, 5),
    ],
)
def test_an_error_has_its_exit_code_and_can_be_caught_both_ways(error, builtin, code):
    assert error.exit_code == code
    for family in (EbbtideError, builtin):
        with pytest.raises(family, match=r"^The disk is full\.$"):
            raise error("The disk is full.")


def test_every_error_is_of_the_family_and_no_two_share_a_code():
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert all(issubclass(kind, EbbtideError) for kind in classes)
    assert sorted(kind.exit_code for kind in classes) == [1, 2, 3, 4, 5]
    assert all(kind.__doc__ for kind in classes)


def test_what_a_terminal_obeys_is_written_out():
    """Escapes, also in one byte; line breaks; text that runs backwards; bytes that are no text."""
    assert printable("a\x1b]0;x\x07b\n\x9b2J\u202ec\udcff") == r"a\x1b]0;x\x07b\n\x9b2J\u202ec\udcff"
    assert printable(Path("Bögen × 2 – 数.csv")) == "Bögen × 2 – 数.csv"


def test_input_errors_are_not_taken_for_a_refusing_disk():
    assert not issubclass(InputError, OSError)
    assert not issubclass(StorageError, ValueError)


def test_a_name_is_guessed_if_one_is_near():
    assert meant("smapler", ["steps", "sampler"]) == " (did you mean 'sampler'?)"
    assert meant("--smapler", ["--steps", "--sampler"], str) == " (did you mean --sampler?)"
    assert meant("zebra", ["steps", "sampler"]) == meant("x", []) == ""
