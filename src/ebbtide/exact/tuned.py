"""A solver that was found or fitted for a number of evaluations, and tuned.json, where a run keeps them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from ..files import dump_json, parse_json
from ..specs import fits_float

__all__ = ["MOST_STEPS", "TUNED", "Tuned", "read_tuned", "write_tuned"]

TUNED = "tuned.json"


MOST_STEPS = 10**6  # that a stored choice may ask for


@dataclass(frozen=True)
class Tuned:
    """The best sampler, grid and number of steps for a number of evaluations, and how close it comes.

    rms, median: distance to the reference, over the starts that had no part in the choice; `error` is that of the
    reference itself (against half its steps), `usual` that of the best solver on the uniform grid. weights: the
    fingerprint of the run's weights that it was found for; a file of an older version doesn't hold it.
    """

    evaluations: int
    sampler: str
    grid: str
    steps: int
    rms: float
    median: float
    error: float
    usual: float
    weights: str = ""

    def to_config(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Any, where: str) -> "Tuned":
        """The inverse; InputError where the values can't be used."""
        try:
            tuned = cls(**config)
            texts, counts = (tuned.sampler, tuned.grid, tuned.weights), (tuned.evaluations, tuned.steps)
            errors = tuned.rms, tuned.median, tuned.error, tuned.usual
            right = (
                all(isinstance(text, str) for text in texts)
                and all(type(count) is int for count in counts)
                and all(type(error) in (int, float) and fits_float(error) for error in errors)
            )
            if not right or not 1 <= min(counts) <= max(counts) <= MOST_STEPS:
                raise TypeError("a value of the wrong kind")
        except TypeError as error:
            raise InputError(f"{where} is not a file of ebbtide tune: {error}.") from error
        return tuned


def read_tuned(data: bytes, where: str) -> tuple[Tuned, ...]:
    """The stored solvers, the latest last."""
    rows = parse_json(data, where)
    if not isinstance(rows, list):
        raise InputError(f"{where} is not a file of ebbtide tune: not a list.")
    return tuple(Tuned.from_config(row, where) for row in rows)


def write_tuned(tuned: Iterable[Tuned]) -> bytes:
    """The inverse of `read_tuned`. tuned: the solvers to store."""
    return dump_json([one.to_config() for one in tuned])
