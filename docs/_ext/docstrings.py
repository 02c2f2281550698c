"""Docstrings are written to be read in the source: plain text, `names` in backticks, equations in Unicode.

Sphinx would take their * | and _ for markup. Here they become reStructuredText that says the same: equations stand
apart, "name: what it is" becomes an item of a list, columns a table, and papers and names become links.
"""

import inspect
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from arguments import added

WIDTH = 120  # of a line of source: what ends well before it was ended on purpose
INDENT = {"module": 0, "class": 4, "exception": 4, "function": 4, "attribute": 4}  # of a docstring; of all else 8

_ITEM = re.compile(r"(?P<names>\.?[A-Za-z_]\w*(?:, \.?\w+)*): (?P<text>.*)")
_COLUMNS = re.compile(r"\S {2,}(?=\S)")
# An English word, and what looks like one in equations.
_WORD = re.compile(r"(?<![\w.^])(?:[a-z]{2,}|[A-Z][a-z]+|[A-Z]{3,}(?='s))(?=[ .,:;)]|'s|$)|\bI (?=[a-z])")
_NO_WORD = re.compile(r"log|exp|min|max|sin|cos|tr|mean|std|round|lr|d[txru]|act|gelu|mlp|attention")
_RELATION = re.compile(r" (?:=|←|≤|≈|∝|~) ")
_ERRORS = "EbbtideError|InputError|DivergedError|StorageError|CertificationError"
_LINKS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(r"``?([^`]+)``?"), lambda m: _code(m[1])),
    (re.compile(r"\*\*([A-Z][^*`]*)\*\*"), lambda m: f"**{_escaped(m[1])}**"),
    (re.compile(r"(?<![\w*(])\*([A-Za-z][A-Za-z ]*)\*(?!\w)"), lambda m: f"*{m[1]}*"),
    (re.compile(r"arXiv:(\d{4}\.\d{4,5})"), lambda m: _link(m[0], f"https://arxiv.org/abs/{m[1]}")),
    (re.compile(r"doi:(10\.\d+/(?:[\w.;/-]|\([\w.-]*\))*[\w])"), lambda m: _link(m[0], f"https://doi.org/{m[1]}")),
    (re.compile(rf"\b(?:{_ERRORS})\b"), lambda m: f":py:exc:`~ebbtide.errors.{m[0]}`"),
]


def as_rst(lines: Sequence[str], names: Collection[str] = (), indent: int = 4) -> list[str]:
    """A plain docstring as reStructuredText.

    names: the arguments, so that one described in mid-paragraph becomes an item too. indent: of the source.
    """
    out: list[str] = []
    first = True
    for chunk in _chunks(lines):
        if cells := _table(chunk):
            out += _list_table(cells)
        elif all(line.startswith("  ") for line in chunk):
            out += _set_apart(chunk)
        else:
            for piece in _pieces(chunk, names, WIDTH - indent, first):
                out += _piece(piece, names, first=first)
        first = False
    return out


def _chunks(lines: Sequence[str]) -> list[list[str]]:
    """Runs of lines without an empty one between them."""
    return [list(chunk) for full, chunk in groupby(map(str.rstrip, lines), key=bool) if full]


def _pieces(chunk: Sequence[str], names: Collection[str], width: int, first: bool) -> list[list[str | list[str]]]:
    """Items and paragraphs of a chunk: each a row of lines, in which deeper ones are a list of their own.

    A line that the next word would have fitted on was ended on purpose, and so was its paragraph.
    """
    pieces: list[list[str | list[str]]] = []
    before = ""
    for number, line in enumerate(chunk):
        if line.startswith("  ") and pieces:
            deep = pieces[-1][-1]
            if isinstance(deep, list):
                deep.append(line)
            else:
                pieces[-1].append([line])
        else:
            room = width - _length(before) - 3 * (first and number == 1)
            ended = before.startswith("  ") or (before.endswith((".", ".)", ";")) and not before.endswith("al."))
            short = room >= 1 + _length(line.split()[0]) and not before.startswith("  ")
            if not pieces or (ended and (short or _begins(line, names, first))):
                pieces.append([])
            pieces[-1].append(line)
        before = line
    return pieces


def _begins(line: str, names: Collection[str], first: bool) -> re.Match[str] | None:
    """A line that begins an item: "- …", or "name: …" of an argument or, after the first lines, what may be one."""
    item = _ITEM.match(line)
    if item and not (item["names"].split(", ")[0] in names or (not first and re.match("[.a-z_]", line))):
        return None
    return item or re.match("- ", line)


def _piece(piece: Sequence[str | list[str]], names: Collection[str], *, first: bool) -> list[str]:
    """One item or paragraph, with the equations set in it."""
    parts: list[str | list[str]] = []
    for part in piece:  # deeper lines with words in them only go on with the text
        if isinstance(part, list) and _begins(str(piece[0]), names, first) and not _is_equation(part):
            part = " ".join(line.strip() for line in part)
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += " " + part.strip()
        else:
            parts.append(part)
    text = str(parts[0])
    if text.startswith("- "):
        return _item("", text[2:], parts[1:])
    if match := _begins(text, names, first):
        head, *more = _split_items(match["text"], names)
        out = _item(match["names"], head, [] if more else parts[1:])
    else:
        head, *more = _split_items(text, names)
        lead, colon, rest = head.partition(": ") if first else ("", "", "")
        if colon and _leading_equation(rest)[0] and not _leading_equation(head)[0]:
            out = [_start(_inline(lead)) + ":", "", *_paragraph(rest)]
        else:
            out = _paragraph(head)
        out += [] if more else _parts(parts[1:])
    for i, item in enumerate(more, 1):
        name, _, rest = item.partition(": ")
        out += _item(name, rest, parts[1:] if i == len(more) else [])
    return out


def _split_items(text: str, names: Collection[str]) -> list[str]:
    """What comes before the first "name: …" in mid-paragraph, and each of these."""
    name = rf"(?:{'|'.join([*map(re.escape, names), '[.]np[yz]'])})"
    first, *rest = re.split(rf"(?<=[.;)]) (?={name}(?:, {name})*: )", text)
    return [first, *rest] if not rest else [part[:-1] + "." if part.endswith(";") else part for part in (first, *rest)]


def _item(name: str, text: str, parts: Sequence[str | list[str]]) -> list[str]:
    head = f"**{_escaped(name)}**: " if name else ""
    out = [f"- {head}{_inline(text)}", ""]
    return out + ["  " + line if line else "" for line in _parts(parts)]


def _parts(parts: Sequence[str | list[str]]) -> list[str]:
    out: list[str] = []
    for part in parts:
        out += [_start(_inline(part)), ""] if isinstance(part, str) else _set_apart(part)
    return out


def _paragraph(text: str) -> list[str]:
    """A paragraph; an equation that it begins with stands alone."""
    equation, rest = _leading_equation(text)
    return [*(_as_it_stands("formula", [equation]) if equation else []), *([_start(_inline(rest)), ""] if rest else [])]


def _set_apart(lines: Sequence[str]) -> list[str]:
    """Indented lines: a table, equations, or a block as it stands."""
    least = min(len(line) - len(line.lstrip()) for line in lines)
    lines = [line[least:] for line in lines]
    if cells := _table(lines):
        return _list_table(cells)
    if _is_equation(lines):
        return _as_it_stands("formula", lines)
    return _as_it_stands("plain", lines)


def _as_it_stands(kind: str, lines: Sequence[str]) -> list[str]:
    """Lines without markup; what they look like is in reference.css."""
    return [f".. rst-class:: {kind}", "", "   ::", "", *(f"      {line}" for line in lines), ""]


def _table(lines: Sequence[str]) -> list[tuple[str, str]]:
    """The two columns of lines that have two; [] for other lines. One column's width is that of most of its lines."""
    lines = [line.strip() for line in lines]
    gaps = [[m.end() for m in _COLUMNS.finditer(line)] for line in lines]
    ends = [end for found in gaps for end in found]
    if len(lines) < 2 or len(ends) < len(lines) - 1 or any(" = " in line for line in lines):
        return []
    usual = max(ends, key=ends.count)
    places = [found[0] if len(found) == 1 else usual for found in gaps]
    if any(len(found) > 1 for found in gaps) or ends.count(usual) < len(lines) - 1:
        return []
    return [(line[:place].strip(), line[place:]) for line, place in zip(lines, places, strict=True)]


def _list_table(cells: Sequence[tuple[str, str]]) -> list[str]:
    out = [".. list-table::", "   :class: columns", ""]
    for name, what in cells:
        words = ", ".join(f"``{word}``" for word in name.split(", "))
        out += [f"   * - {words}", f"     - {_inline(what)}"]
    return [*out, ""]


def _leading_equation(text: str) -> tuple[str, str]:
    """The equation that a paragraph begins with, up to its first English word, and what follows; "" without one."""
    words = [at for at in _words(text) if text[at - 1] not in "[_"]  # but E[label] is none
    end = min([*words, *(m.start() for m in re.finditer("`", text))], default=len(text))
    head = text[:end].rstrip()
    if end < len(text) and head[-1:] not in tuple(".,:;") and not text.startswith(("with ", "where "), end):
        clauses = [m.start() for m in re.finditer(r"[.,:;](?= )| (?=\((?:[A-Z]|arXiv))", text) if m.start() < end]
        head = head[: clauses[-1]] if clauses else ""
    if not _RELATION.search(head) or head.count("(") != head.count(")"):
        return "", text
    return head.rstrip(".,:;"), text[len(head) :].lstrip(".,:; ")


def _is_equation(lines: Sequence[str]) -> bool:
    return all(_RELATION.search(line) and not _words(line) for line in lines)


def _words(text: str) -> list[int]:
    """Where English words begin."""
    return [m.start() for m in _WORD.finditer(text) if not _NO_WORD.fullmatch(m[0])]


def _inline(text: str) -> str:
    """Text with its code, emphasis, papers and errors marked up, and nothing else taken for markup."""
    for pattern, marked in _LINKS:
        if match := pattern.search(text):
            before, after = text[: match.start()], text[match.end() :]
            glue = "\\ " if before and not before[-1].isspace() and before[-1] not in "([{\"'-/" else ""
            tail = "\\ " if after and (after[0].isalnum() or after[0] in "(_") else ""
            return f"{_inline(before)}{glue}{marked(match)}{tail}{_inline(after)}"
    return _escaped(text)


def _escaped(text: str) -> str:
    return re.sub(r"([*|_\\`])", r"\\\1", text)


def _start(text: str) -> str:
    """The beginning of a paragraph that reStructuredText would take for a list's."""
    return re.sub(r"^([-+:•]|\w{1,4}[.)]|\(\w\)|>>>|\.\.)(?=\s|$)", r"\\\1", text)


def _code(text: str) -> str:
    """Code, and a link where it is a name of the library's."""
    name = re.fullmatch(r"[A-Za-z_][\w.]*[A-Za-z0-9](?:\(\))?", text) and not text.endswith((".py", ".cpp"))
    return f":py:obj:`{text}`" if name else f"``{text}``"


def _link(text: str, address: str) -> str:
    return f"`{text} <{address}>`__"


def _length(line: str) -> int:
    return sum(not unicodedata.combining(letter) for letter in line)


def _arguments(obj: Any) -> set[str]:
    """The names that a docstring may describe: what a function takes, and what a class is made of."""
    names = set(getattr(obj, "__annotations__", {}))
    with suppress(TypeError, ValueError):
        names |= set(inspect.signature(obj).parameters)
    return {name for name in names if not name.startswith("_")}


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "data" and getattr(obj, "__doc__", None) == type(obj).__doc__:
        lines.clear()  # a table says nothing of its own; what dict says of itself is no help
        return
    if more := added(what, obj, lines):
        lines += ["", *more]
    names = _arguments(obj) if what in ("class", "exception", "function", "method") else ()
    text = "\n".join(as_rst(lines, names, INDENT.get(what, 8)))
    own = "|".join(map(re.escape, names))  # an argument is no link, whatever else has its name
    lines[:] = re.sub(f":py:obj:`({own})`", r"``\1``", text).split("\n")


def _sign(app: Any, what: str, name: str, obj: Any, options: Any, args: str | None, returns: str | None) -> Any:
    """Signatures say Time where the source does; a protocol has none."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    for whole, alias in {**_aliases(), "<factory>": "..."}.items():
        args, returns = (text and text.replace(whole, alias) for text in (args, returns))
    # Written "Measurement", as it is imported for types alone: without its module it might be posterior's.
    returns = returns and re.sub(r"(?<![.\w])Measurement\b", "~ebbtide.metrics.measurement.Measurement", returns)
    return args, returns


@cache
def _aliases() -> dict[str, str]:
    from sphinx.util.typing import stringify_annotation

    from ebbtide.core import paths

    return {stringify_annotation(paths.Time, "smart"): "~ebbtide.core.paths.Time"}


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what says nothing of its own: a field of a named tuple, a method that does what its base says."""
    if type(obj).__name__ == "_tuplegetter":
        return True
    if isinstance(obj, (property, cached_property, classmethod, staticmethod)) or inspect.isroutine(obj):
        return True if not obj.__doc__ else None
    return None


def _contents(app: Any, domain: str, kind: str, content: Any) -> None:
    """The page's contents name its classes and functions; a class's methods stand under it anyway."""
    from sphinx.addnodes import desc_signature

    if kind in ("method", "property", "attribute"):
        for signature in content.parent.findall(desc_signature):
            signature["_toc_name"] = ""


def _style(app: Any) -> None:
    app.config.html_static_path.append(str(Path(__file__).parent / "style"))


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("builder-inited", _style)
    app.add_css_file("reference.css")
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _sign)
    app.connect("autodoc-skip-member", _skip)
    app.connect("object-description-transform", _contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
