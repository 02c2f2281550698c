"""Messages between a page and the lab: what their fields may hold, and the form of answers.

A message is JSON text, {"id": 7, "do": "sample", …}. The answer to it is a binary frame: the length of a header in
four bytes (little-endian), the header in JSON, and the arrays that it lists, each from a multiple of four bytes on. A
message that can't be used is answered {"id": 7, "error": one sentence}.

A check is a function of a field's name and value that returns the value to use, or raises InputError.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import without_nan
from ..specs import expect, pick, require

__all__ = ["Array", "Check", "a_list", "a_name", "a_number", "a_text", "a_truth", "a_whole", "packed", "parsed"]

Array = tuple[str, np.ndarray]
Check = Callable[[str, Any], Any]


def a_whole(low: int, high: int) -> Check:
    """A whole number in a range."""

    def check(what: str, value: Any) -> int:
        require(what, value, low, high, whole=True)
        return int(value)

    return check


def a_number(low: float | int, high: float | int) -> Check:
    """A number in a range."""

    def check(what: str, value: Any) -> float:
        require(what, value, low, high)
        return float(value)

    return check


def a_text(most: int) -> Check:
    """A text of a limited length. most: of the length."""

    def check(what: str, value: Any) -> str:
        expect(what, value, str)
        require(f"{what}, its characters,", len(value), 0, most, whole=True)
        return str(value)

    return check


def a_truth(what: str, value: Any) -> bool:
    """True or False."""
    expect(what, value, bool)
    return bool(value)


def a_list(least: int, most: int, each: Check) -> Check:
    """A list whose length is in a range. least, most: of the length. each: checks an item."""

    def check(what: str, value: Any) -> list[Any]:
        expect(what, value, list)
        require(f"{what}, its length,", len(value), least, most, whole=True)
        return [each(f"{what}[{k}]", one) for k, one in enumerate(value)]

    return check


def a_name(table: Mapping[str, Any]) -> Check:
    """A name in a table; "" leaves the choice to the run."""
    return lambda what, value: "" if value in ("", None) else pick(table, str(value)[:80], what)


def packed(header: Mapping[str, Any], arrays: Sequence[Array] = ()) -> bytes:
    """A binary frame. header: JSON, before the arrays; null where a number is not finite. arrays: by name."""
    parts, listing, offset = [], [], 0
    for name, array in arrays:
        raw = np.ascontiguousarray(array)
        listing.append({"name": name, "shape": list(raw.shape), "type": str(raw.dtype), "at": offset})
        data = raw.tobytes() + b"\0" * (-raw.nbytes % 4)
        parts.append(data)
        offset += len(data)
    head = json.dumps(without_nan({**header, "arrays": listing}), default=str, allow_nan=False).encode()
    head += b" " * (-len(head) % 4)
    return len(head).to_bytes(4, "little") + head + b"".join(parts)


def parsed(message: str | bytes) -> dict[str, Any]:
    """A message as a dict."""
    if not isinstance(message, str):
        raise InputError("A message must be JSON text; got bytes.")
    try:
        asked = json.loads(message)
    except (ValueError, RecursionError):
        raise InputError('A message must be JSON text, as in {"id": 1, "do": "about"}.') from None
    expect("A message", asked, dict)
    return dict(asked)
