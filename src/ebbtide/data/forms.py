"""The forms of a table's columns: text cells become numbers, dates or levels, and are written again as they were.

A form is taken only if every cell of its column fits: nothing is guessed cell by cell.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError, meant, printable
from ..specs import listed, named_list

__all__ = [
    "MISSING", "Column", "Form", "Reading", "Unfit", "absent", "form_from_config", "identified", "in_order",
    "number", "short", "timed", "typed_column",
]  # fmt: skip

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", ".", "?", "-", "#N/A", "<NA>")
_KINDS = Literal["number", "integer", "level", "boolean", "date"]
_FALSE_TRUE = (("false", "true"), ("no", "yes"))
_LARGEST = float(np.finfo(np.float32).max)
_MANY = 10  # levels that any column may have; more only up to half of its rows
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(_DATE.pattern + r"[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?\s?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_SIGNS = r"[$€£¥₹]|CHF|EUR|GBP|USD"
_UNIT = re.compile(rf"([+-]?)((?:(?:{_SIGNS})\s?)?)([+-]?)([^%$€£¥₹A-Za-z]*\d[.,]?)((?:\s?(?:%|{_SIGNS}))?)")


@dataclass(frozen=True)
class Column:
    """A column of a table besides its cells: their kind, and how they are written."""

    name: str = ""
    kind: _KINDS = "number"
    levels: tuple[str, ...] = ()
    """Of kind level and boolean; a cell's number is its place among them."""
    ordered: bool = False
    """True if levels are in the order of their meaning."""
    decimals: int | None = None
    """Digits behind the point, where all of its numbers have as many."""
    point: str = "."
    group: str = ""
    """Between thousands."""
    before: str = ""
    after: str = ""
    """A unit, such as $ or %."""
    empty: str = ""
    """A missing cell."""

    def text(self, values: np.ndarray) -> list[str]:
        """Cells for these numbers, each the shortest text that reads back the same; NaN is a missing one."""
        if self.kind in ("level", "boolean"):
            known = dict(enumerate(self.levels))
            return [self.empty if v != v else known[int(v)] for v in values.tolist()]
        if self.kind == "date":
            days = np.where(np.isnan(values), 0, np.round(values.astype(np.float64))).astype("datetime64[D]")
            return [self.empty if v != v else day for v, day in zip(values.tolist(), days.astype(str).tolist())]
        return [self.empty if v != v else self._number(v, text) for v, text in zip(values.tolist(), _shortest(values))]

    def _number(self, value: float, text: str) -> str:
        if self.kind == "integer" or self.decimals is not None:
            whole, _, rest = text.partition(".")
            wanted = self.decimals or 0
            if text.endswith(".0") and not wanted:
                text = whole
            elif "e" not in text and len(rest) < wanted:
                text = f"{whole}.{rest.ljust(wanted, '0')}"
        if self.point == "." and not self.group + self.before + self.after:
            return text
        sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
        whole, dot, rest = text.partition(".")
        if self.group and whole.isdigit():
            whole = f"{int(whole):,}".replace(",", self.group)
        return f"{sign}{self.before}{whole}{dot and self.point}{rest}{self.after}"

    def value(self, cell: Any) -> float:
        """The number of one cell, a text or a value in this form; NaN for a missing one. Raises Unfit for any other."""
        if absent(cell) or (isinstance(cell, str) and cell.strip() in {*MISSING, self.empty}):
            return math.nan
        if self.kind == "boolean" and isinstance(cell, bool | np.bool_):
            return float(cell)
        text = str(cell).strip()
        if self.levels:
            whole = isinstance(cell, float | np.floating) and cell == round(cell)
            text = str(int(cell)) if whole and text not in self.levels else text
            if text not in self.levels:
                known = listed(self.levels)
                raise Unfit(None, f"must be one of {known}; got {short(text)}{meant(text, self.levels)}.")
            return float(self.levels.index(text))
        if self.kind == "date":
            try:
                return float(np.datetime64(text[:10] if text[10:] in ("", " 00:00:00") else text, "D").astype(np.int64))
            except ValueError:
                raise Unfit(None, f"must be a date, as 2024-02-29; got {short(text)}.") from None
        found = number(text)
        if self.point + self.group + self.before + self.after != ".":
            before, after, body = _unit(text) or ("", "", "")
            fits = (before, after) in ((self.before, self.after), ("", ""))
            if fits and _pattern(self.point, self.group).fullmatch(body):
                found = float((body.replace(self.group, "") if self.group else body).replace(self.point, "."))
        if found is None or not abs(found) <= _LARGEST:
            raise Unfit(None, f"must be a number; got {short(text)}.")
        return found

    @property
    def unusual(self) -> str:
        """Its form in words, "" for plain numbers and levels."""
        found = [repr(unit.strip()) for unit in (self.before, self.after) if unit]
        found += ["a decimal comma"] * (self.point == ",")
        found += [f"{_GROUPS[self.group]} between thousands"] if self.group else []
        return "dates, as days" if self.kind == "date" else " and ".join(found)


@dataclass(frozen=True)
class Form:
    """The columns of a table as its file has them, the labels' among them."""

    columns: tuple[Column, ...] = ()
    label: int | None = None
    """The place of the labels' column."""
    delimiter: str = ","
    header: bool = True

    @property
    def learned(self) -> tuple[Column, ...]:
        """All columns but the labels'."""
        return tuple(column for k, column in enumerate(self.columns) if k != self.label)

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The levels of each learned column, () for one of numbers."""
        return tuple(column.levels for column in self.learned)

    def to_config(self) -> dict[str, Any]:
        """This form as JSON-ready data: of each column what isn't the default."""
        columns = [{key: value for key, value in asdict(one).items() if value != _DEFAULT[key]} for one in self.columns]
        return {"columns": columns, "label": self.label, "delimiter": self.delimiter, "header": self.header}


_DEFAULT = asdict(Column())
_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,), "kind": (str,), "levels": (list, tuple), "ordered": (bool,), "decimals": (int, type(None)),
    "point": (str,), "group": (str,), "before": (str,), "after": (str,), "empty": (str,),
}  # fmt: skip


def form_from_config(config: Any) -> Form:
    """The form whose `to_config` this is; anything else is an InputError."""
    keys = {one.name for one in fields(Form)}
    if not isinstance(config, Mapping) or set(config) != keys or not isinstance(config["columns"], list | tuple):
        raise InputError(f"A table's form must have the keys {', '.join(sorted(keys))}; got {str(config)[:60]}.")
    columns = tuple(map(_column, config["columns"]))
    label, delimiter, header = config["label"], config["delimiter"], config["header"]
    if label is not None and (type(label) is not int or not 0 <= label < len(columns)):
        raise InputError(f"A table's label must be the place of one of {len(columns)} columns; got {label!r}.")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or type(header) is not bool:
        raise InputError(f"A table's delimiter must be a character, and its header true or false; got {delimiter!r}.")
    return Form(columns, label, delimiter, header)


def _column(config: Any) -> Column:
    if not isinstance(config, Mapping) or not all(type(value) in _TYPES.get(key, ()) for key, value in config.items()):
        raise InputError(f"A column can't be {str(config)[:60]!r}.")
    levels = config.get("levels", ())
    if not all(isinstance(level, str) for level in levels) or len(set(levels)) < len(levels):
        raise InputError(f"A column's levels must be different texts; got {str(levels)[:60]}.")
    found = Column(**{**config, "levels": tuple(levels)})
    if found.kind not in get_args(_KINDS) or not 0 <= (found.decimals or 0) <= 400 or found.group not in ("", *_GROUPS):
        raise InputError(f"A column can't be {str(config)[:60]!r}.")
    return found


@dataclass(frozen=True)
class Reading:
    """Options of reading a table: its label, the columns to keep or drop, and what their cells are."""

    label: str | None = None
    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Further marks of missing cells."""
    categorical: tuple[str, ...] = ()
    """Columns of levels, whose cells may look like numbers."""
    ordered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The levels of columns, in order."""
    least: int = 2
    """Rows that there must be; data to learn from has two."""

    @staticmethod
    def of(
        label: str = "", columns: str = "", drop: str = "", missing: str = "", categorical: str = "", ordered: str = ""
    ) -> "Reading":
        """The options from texts: lists separated by commas, and levels in order as in cut=Fair<Good<Ideal.

        A name may hold an equals sign; the least level may not.
        """
        found: dict[str, tuple[str, ...]] = {}
        for part in named_list(ordered):
            head, *above = (piece.strip() for piece in part.split("<"))
            name, _, least = (piece.strip() for piece in head.rpartition("="))
            levels = (least, *above)
            if not name or len(set(levels)) < max(2, len(levels)) or "" in levels:
                raise InputError(f"ordered must name a column and its levels, as in cut=Fair<Good; got {part!r}.")
            if name in found:
                raise InputError(f"ordered must name {name!r} once; got {ordered!r}.")
            found[name] = levels
        return Reading(
            label or None, named_list(columns), named_list(drop), named_list(missing), named_list(categorical), found
        )

    def levels_of(self, name: str) -> tuple[str, ...] | None:
        """The levels of a column in order, () for any in the order of their names; None for one that may be numbers."""
        return self.ordered.get(name, () if name in self.categorical else None)

    def kept(self, where: str, names: Sequence[str]) -> list[int]:
        """The places of the columns to learn from, and of the label; InputError for names that don't stand there."""
        asked = (*self.columns, *self.drop, *self.categorical, *self.ordered)
        for name in asked:
            if name not in names:
                quoted = " (a name with a comma in it stands in quotes)" if any("," in one for one in names) else ""
                raise InputError(f"{where} has no column {name!r}; it has {listed(names)}{quoted}.")
        wanted = set(self.columns or names) - set(self.drop) | ({self.label} if self.label else set())
        kept = [k for k, name in enumerate(names) if name in wanted]
        if not [k for k in kept if names[k] != self.label]:
            raise InputError(f"{where} has no column left besides those that were dropped.")
        return kept


def absent(cell: Any) -> bool:
    """True for a value that stands for a missing cell: None, NaN, and those of pandas."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or bool(cell != cell)


class Unfit(Exception):
    """A cell that doesn't fit its column: its place among the cells, and the sentence that is wrong with it."""

    def __init__(self, place: int | None, why: str) -> None:
        super().__init__(why)
        self.place, self.why = place, why


def typed_column(
    name: str, cells: Sequence[str], how: Reading | None = None, *, comma: bool = False, option: str = ""
) -> tuple[Column, np.ndarray]:
    """The form of a column and its cells as numbers, NaN where one is missing; raises Unfit.

    comma: read 1,234 as a decimal comma, as in files delimited by semicolons, rather than as a thousand.
    option: the column's name as options take it.
    """
    how = how or Reading()
    marks = {*MISSING, *how.missing}
    distinct = dict.fromkeys(cells)
    found = [text for text in distinct if text not in marks]
    empty = next((text for text in distinct if text in marks), "")
    levels = how.levels_of(option or name)
    if levels is None:
        told = printable(option or name)
        column, values = _numbers(name, cells, found, marks, comma, told)
        if column is None:
            column, values = _dates(name, cells, found, told) or _levels(name, cells, found, told)
    else:
        if levels and (left := [text for text in found if text not in levels]):
            where = next(k for k, text in enumerate(cells) if text == left[0])
            raise Unfit(where, f"{short(left[0])} is not one of its levels in order, {listed(levels)}.")
        order = levels or tuple(in_order(found))
        column = Column(name, "level", order, ordered=bool(levels))
        values = dict(zip(order, map(float, range(len(order)))))
    gaps = dict.fromkeys(set(distinct) - values.keys(), math.nan)
    values = {**values, **gaps}
    return replace(column, empty=empty), np.fromiter((values[text] for text in cells), np.float64, len(cells))


def number(text: str | None) -> float | None:
    """The number that a text is, inf and nan among them; None for others, such as Python's own 1_000."""
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None


Found = tuple[Column | None, dict[str, float]]


def _numbers(name: str, cells: Sequence[str], found: Sequence[str], marks: set[str], comma: bool, option: str) -> Found:
    """Plain numbers, or with a unit or the commas of one form; of no column where most cells are texts."""
    plain = {text: value for text in found if (value := number(text)) is not None}
    form = Column(name)
    if len(plain) < len(found):
        units = list(map(_unit, found))
        ends = {unit[:2] for unit in units if unit}
        for point, group in _STYLES[comma] if all(units) and len(ends) == 1 else ():
            written = _pattern(point, group)
            bodies = [unit[2] for unit in units if unit]
            if all(map(written.fullmatch, bodies)):
                before, after = ends.pop()
                form = Column(name, point=point, group=group, before=before, after=after)
                texts = [body.replace(group, "") if group else body for body in bodies]
                plain = {text: float(body.replace(point, ".")) for text, body in zip(found, texts)}
                return _whole(form, plain, [body.replace(point, ".") for body in texts])
        if plain and 2 * sum(text in plain for text in cells) >= sum(text not in marks for text in cells):
            place = next(k for k, text in enumerate(cells) if text not in plain and text not in marks)
            why = f"{short(cells[place])} is not a number, as most of the column's cells are"
            raise Unfit(place, f"{why}; mend it, or learn them as levels by --categorical {option}.")
        return None, {}
    for text, value in plain.items():
        if not abs(value) <= _LARGEST:
            raise Unfit(cells.index(text), f"{short(text)} is not a finite float32 number.")
    return _whole(form, plain, found)


def _whole(form: Column, values: dict[str, float], texts: Sequence[str]) -> Found:
    """The form with its decimals, as an integer where it has none."""
    if any("e" in text.lower() for text in texts):
        return form, values
    counts = {len(text.partition(".")[2]) for text in texts}
    whole = counts == {0} and not any(text.endswith(".") for text in texts)
    one = counts.pop() if len(counts) == 1 else None
    return replace(form, kind="integer" if whole else "number", decimals=0 if whole else one or None), values


def _unit(text: str) -> tuple[str, str, str] | None:
    """A number's unit before and after it, and its other characters."""
    match = _UNIT.fullmatch(text)
    return None if match is None or (match[1] and match[3]) else (match[2], match[5], match[1] + match[3] + match[4])


_GROUPS = {
    ",": "commas",
    ".": "points",
    " ": "blanks",
    "\xa0": "blanks",
    "\u202f": "blanks",
    "'": "apostrophes",
    "’": "apostrophes",
}
_STYLES: tuple[list[tuple[str, str]], ...] = tuple(
    [(".", ""), *first, *[(".", group) for group in " \xa0\u202f'’"], *[(",", group) for group in ". \xa0\u202f'’"]]
    for first in ([(".", ","), (",", "")], [(",", ""), (".", ",")])
)


def _pattern(point: str, group: str) -> re.Pattern[str]:
    """Numbers with this decimal point and, unless it is empty, this between their thousands."""
    whole = rf"(?:\d{{1,3}}(?:{re.escape(group)}\d{{3}})+|\d+)" if group else r"\d+"
    dot = re.escape(point)
    return re.compile(rf"[+-]?(?:{whole}(?:{dot}\d*)?|{dot}\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _dates(
    name: str, cells: Sequence[str], found: Sequence[str], option: str
) -> tuple[Column, dict[str, float]] | None:
    """ISO dates, as days since 1970."""
    if found and all(map(_TIME.fullmatch, found)):
        raise Unfit(None, timed(option))
    if not found or not all(map(_DATE.fullmatch, found)):
        return None
    values = {}
    for text in found:
        try:
            values[text] = float(np.datetime64(text, "D").astype(np.int64))
        except ValueError:
            raise Unfit(list(cells).index(text), f"{text!r} is no date.") from None
    return Column(name, "date"), values


def _levels(name: str, cells: Sequence[str], found: Sequence[str], option: str) -> tuple[Column, dict[str, float]]:
    """Texts, in the order of their names; true and false, yes and no, in that of their meaning."""
    identified(len(found), len(cells), option)
    both = {text.casefold() for text in found}
    truth = len(both) == len(found) and any(both <= set(pair) for pair in _FALSE_TRUE)
    order = tuple(in_order(found))
    return Column(name, "boolean" if truth else "level", order), dict(zip(order, map(float, range(len(order)))))


def timed(name: str) -> str:
    """The reason to refuse a column of dates and times: float32, in which tables are learned, has no such numbers."""
    return f"has dates with a time of day, which aren't learned; make it a date and an hour, or add --drop {name}."


def identified(levels: int, rows: int, name: str) -> None:
    """Refuse a column of texts that name the rows."""
    if levels > max(_MANY, rows / 2):
        why = f"has {levels:,} different texts in {rows:,} rows, as an identifier has"
        raise Unfit(None, f"{why}; add --drop {name} (or --categorical {name}).")


def in_order(names: Iterable[str]) -> list[str]:
    """2 before 10 when all are integers, else as text."""
    names = sorted(names)
    return sorted(names, key=int) if all(re.fullmatch("[+-]?[0-9]+", name) for name in names) else names


def short(text: str) -> str:
    """A text in quotes, cut where it is long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _shortest(values: np.ndarray) -> Iterator[str]:
    """The shortest texts that read back the same."""
    return iter(values.astype(str).tolist())
