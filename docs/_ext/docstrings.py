"""Docstrings are written to be read in the source: plain text, `names` in backticks, equations set in.

Sphinx would take their * | and _ for markup. Here equations become blocks as they stand, "name: what it is" items of
a list, and the rest text without markup.
"""

import re
from typing import Any

_ARGUMENT = re.compile(r"^(?P<names>[a-z_]\w*(?:, \w+)*): (?P<text>.*)", re.S)
_MARKUP = re.compile(r"([*|_\\])")


def as_rst(lines: list[str]) -> list[str]:
    """A plain docstring as reStructuredText that says the same."""
    out: list[str] = []
    for block in _blocks(lines):
        if block[0].startswith("  "):
            out += ["::", "", *(f"   {line}" for line in block), ""]
            continue
        text = "\n".join(block)
        argument = _ARGUMENT.match(text)
        if argument:
            rest = " ".join(argument["text"].split())
            out += [f"- **{argument['names'].replace('_', chr(92) + '_')}**: {_escaped(rest)}", ""]
        else:
            out += [*_escaped(text).splitlines(), ""]
    return out


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines that belong together: an argument, an equation, a paragraph."""
    blocks: list[list[str]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        deep = line.startswith("  ")
        if fresh or not blocks or deep != blocks[-1][0].startswith("  ") or (not deep and _ARGUMENT.match(line)):
            blocks.append([])
        blocks[-1].append(line)
        fresh = False
    return blocks


def _escaped(text: str) -> str:
    """Backticks become literals; what reStructuredText would read as markup is kept as it stands."""
    parts = re.split(r"``?([^`]+)``?", text)
    return "".join(f"``{part}``" if i % 2 else _MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
