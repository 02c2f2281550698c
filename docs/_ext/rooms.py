"""Pages of the reference by room: a new module, or a new row of a table, is on its room's page without more words.

    ```{room} core paths targets
    ```

stands for the docstrings of `ebbtide.core` and of its modules, those named first in the order given; each table is
followed by the rows that `ebbtide list` prints. The room `.` has the modules that lie in no folder. A block `{facade}`
stands for the names that `import ebbtide` offers, each module's beside the first line of its docstring.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import ebbtide
from ebbtide.cli.listing import Kind

ROOT = Path(ebbtide.__file__).parent
FACADE = "```{facade}\n```"
ROOM = re.compile(r"^```\{room\} (\S+)(.*)\n```$", re.M)
LISTED = {name.upper(): name for name in get_args(Kind)} | {"DATASETS": "data"}


def modules(room: str, first: list[str]) -> Iterator[tuple[str, Path]]:
    """(module, file) of a room: itself, those named first, and the others by name."""
    folder = ROOT / room
    found = {path: path.relative_to(folder).with_suffix("").parts for path in sorted(folder.rglob("*.py"))}
    names = {".".join(parts).removesuffix("__init__").rstrip("."): path for path, parts in found.items()}
    if room == ".":
        names = {name: path for name, path in names.items() if path.parent == ROOT and name not in ("", "__main__")}
    order = [name for name in ("", *first) if name in names]
    for name in [*order, *(name for name in names if name not in order)]:
        yield f"{room}.{name}".strip("."), names[name]


def tables(path: Path) -> list[str]:
    """The tables that a module defines: names in capitals that are annotated as mappings."""
    return [
        node.target.id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if node.target.id.isupper() and node.target.id[0] != "_"
        if ast.unparse(node.annotation).startswith(("dict[str, ", "Mapping[str, "))
    ]


def section(module: str, path: Path) -> str:
    """A module's heading, docstrings and tables."""
    lines = [f"## {module}\n"] if "." in module or path.stem != "__init__" else []
    lines += [f"```{{eval-rst}}\n.. automodule:: ebbtide.{module}\n   :members:\n   :ignore-module-all:\n```\n"]
    for table in tables(path):
        lines += [f"```{{eval-rst}}\n.. autodata:: ebbtide.{module}.{table}\n   :no-value:\n```\n"]
        lines += [f"```{{said}} list {LISTED[table]}\n```\n"] if table in LISTED else []
    return "\n".join(lines)


def facade() -> str:
    """The names that `import ebbtide` offers, as a table."""
    lines = ["| names | module |", "|---|---|"]
    for room, names in ebbtide._NAMES.items():
        about = (importlib.import_module(f"ebbtide.{room}").__doc__ or "").split("\n\n")[0]
        about = " ".join(about.split()).replace("|", "\\|")
        lines.append(f"| {', '.join(f'{{py:obj}}`{name} <{home(room, name)}>`' for name in names.split())} | {about} |")
    return "\n".join(lines)


def home(room: str, name: str) -> str:
    """The full name of what a room offers: where it is defined."""
    module = getattr(getattr(ebbtide, name), "__module__", None)
    if name.isupper() and module is None:
        parts = room.split(".")
        files = dict(modules(parts[0], []))
        module = next(f"ebbtide.{own}" for own, path in files.items() if own.startswith(room) and name in tables(path))
    return f"{module}.{name}"


def _read(app: Any, page: str, source: list[str]) -> None:
    def shown(found: re.Match[str]) -> str:
        return "\n".join(section(*module) for module in modules(found[1], found[2].split()))

    source[0] = ROOM.sub(shown, source[0])
    if FACADE in source[0]:
        source[0] = source[0].replace(FACADE, facade())


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
