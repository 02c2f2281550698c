"""Habits that no other test would miss: versions agree, every file has its tests, nothing local is committed."""

import ast
import functools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import ebbtide
from ebbtide import errors

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "ebbtide"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Files that need no test file of their own, and where they are tested instead.
TESTED_ELSEWHERE = {
    "data/given.py": "tests/kinds/test_fit.py",
    "data/packed.py": "tests/data/test_forms.py",
    "data/prepared.py": "tests/training/test_trainer.py",
    "data/table.py": "tests/data/test_points.py",
    "exact/tuned.py": "tests/exact/test_tune.py",
    "interop/community.py": "tests/interop/test_pipelines.py",
    "interop/decoder.py": "tests/interop/test_pipelines.py",
    "interop/solvers.py": "tests/interop/test_certified.py",
    "kinds/kind.py": "tests/kinds",
    "kinds/runs.py": "tests/training/test_trained.py",
    "plots/study.py": "tests/plots",
    "training/asked.py": "tests/training/test_trained.py",
    "training/build.py": "tests/training/test_trained.py",
    "training/card.py": "tests/interop/test_hub.py",
    "training/devices.py": "tests/training/test_run.py",
    "training/history.py": "tests/training/test_run.py",
    "training/processes.py": "tests/kinds/test_compare.py",
    "training/same.py": "tests/training/test_run.py",
    "training/solver.py": "tests/exact/test_fit.py",
    "training/storage.py": "tests/training/test_trained.py",
}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def tracked():
    """Every file git knows; without git (an unpacked sdist) every file outside hidden folders."""
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
        ]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts():
    """(file's name, line number, line) of every text file in the tree."""
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            yield path.relative_to(ROOT), number, line


def test_the_changelog_has_this_version():
    heading = re.search(rf"^## \[{re.escape(PROJECT['version'])}\] - \d{{4}}-\d\d-\d\d$", read("CHANGELOG.md"), re.M)
    assert heading, f"CHANGELOG.md has no heading for version {PROJECT['version']}"
    assert "## [Unreleased]" in read("CHANGELOG.md")


def test_the_citation_parses_and_has_this_version():
    yaml = pytest.importorskip("yaml")  # comes with huggingface_hub
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert f"[{citation['version']}] - {citation['date-released']}" in read("CHANGELOG.md")


def test_the_licence_is_apache():
    text = read("LICENSE")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text


def test_what_the_package_promises_to_carry_exists():
    assert (SOURCE / "py.typed").is_file()
    for name in (PROJECT["readme"], *PROJECT["license-files"]):
        assert (ROOT / name).is_file()


def is_tiny(path):
    """Fewer than ten statements: a table, a re-export, an entry point."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(parsed(path))) < 10


def mirrors(module):
    """Where the tests of src/ebbtide/a/b.py may be: tests/a/test_b.py, tests/test_b.py, or a/ as one, test_a.py."""
    places = [ROOT / "tests" / module.parent / f"test_{module.stem}.py", ROOT / "tests" / f"test_{module.stem}.py"]
    if module.parent.name:
        places += [
            ROOT / "tests" / module.parent / f"test_{module.parent.name}.py",
            ROOT / "tests" / f"test_{module.parent.name}.py",
        ]
    return places


def test_every_source_file_has_its_tests():
    modules = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py"))]
    missing = [
        str(module)
        for module in modules
        if module.stem not in ("__init__", "__main__")
        and str(module) not in TESTED_ELSEWHERE
        and not any(place.is_file() for place in mirrors(module))
        and not is_tiny(SOURCE / module)
    ]
    assert not missing, f"No test file mirrors {', '.join(missing)}; write tests/…/test_NAME.py."
    gone = [name for name in TESTED_ELSEWHERE if not (SOURCE / name).is_file()]
    assert not gone, f"TESTED_ELSEWHERE lists {', '.join(gone)}, which no longer exist."


# --- English: see CONTRIBUTING.md -------------------------------------------------------------------------------------

QUESTIONS = re.compile(r"\W*(what|how|why|where|whether|which|who|whose|when)\b", re.I)
# In order: headless or boastful, riddles, and connectives that nobody writes any more.
WORN = re.compile(
    r"truth itself|knowingly otherwise|\bled astray\b|\bof no use\b|\bcan't be had\b|\bcan be had\b"
    r"|\bof (?:its|their|one's) own\b|\bso many\b|\bbut for\b",
    re.I,
)


def docstrings(path):
    """(line, text) of every docstring, of fields too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for row in node.body:
                if (
                    isinstance(row, ast.Expr)
                    and isinstance(row.value, ast.Constant)
                    and isinstance(row.value.value, str)
                ):
                    yield row.lineno, row.value.value


def test_no_docstring_begins_with_a_question_word():
    found = {
        f"{path.relative_to(SOURCE)}:{line} {text.strip()[:60]}"
        for path in SOURCE.rglob("*.py")
        for line, text in docstrings(path)
        if QUESTIONS.match(text)
    }
    assert not found, sorted(found)


def test_worn_phrases_stand_nowhere():
    """In src, README and docs, except for the book, which keeps its voice, and the log."""
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    texts = {
        str(path.relative_to(SOURCE if SOURCE in path.parents else ROOT)): path.read_text(encoding="utf-8")
        for path in (*SOURCE.rglob("*.py"), *SOURCE.rglob("*.html"), *documents)
        if not {"book", "_build"} & set(path.parts) and path.name != "LOG.md"
    }
    found = {
        name: match[0] for name, text in texts.items() if (match := WORN.search(re.sub(r"\s*\n[\s#]*", " ", text)))
    }
    assert not found, found


# Written in pieces, so that this file doesn't match itself.
REGISTRIES = re.compile(
    "|".join(
        [
            "py" + r"pi\.org",
            "python" + r"hosted\.org",
            "download" + r"\.pytorch\.org",
            "registry" + r"\.npmjs",
            "conda" + r"\.anaconda\.org",
            "proxy" + r"\.golang\.org",
            "deb" + r"\.debian\.org",
        ]
    ),
    re.I,
)
LOCAL_PATHS = re.compile(r"(?<![\w.$~{}-])/(?:root|home|work|opt|Users)/\w")


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (REGISTRIES, "names a registry's host; leave that to the user's own settings"),
        (LOCAL_PATHS, "names a folder of one machine"),
    ],
    ids=["registry hosts", "local paths"],
)
def test_nothing_local_is_committed(pattern, what):
    found = [f"{name}:{number}" for name, number, line in texts() if pattern.search(line)]
    assert not found, f"{', '.join(found[:5])} {what} ({len(found)} lines in all)."


INSTALLED = re.compile(r"pip install (?!-)([\"']?)([^\s\"'`]+)")


def test_what_readers_are_told_to_install_is_ours_or_a_declared_dependency():
    """The name of another package on the index, or of our own before it was renamed, would run a stranger's code."""
    extras = PROJECT["optional-dependencies"]
    declared = {
        re.split(r"[<>=!~\[;]", line)[0] for part in (PROJECT["dependencies"], *extras.values()) for line in part
    }
    found = [
        (name, number, match[2].rstrip(".,:)") or ".")
        for name, number, line in texts()
        if name.suffix in (".py", ".md", ".ipynb", ".cff", ".toml") and name.parts[0] != "tests"
        for match in INSTALLED.finditer(line)
    ]
    assert len(found) > 10
    strange = []
    for name, number, what in found:
        package, _, extra = what.rstrip("]").partition("[")
        ours = package in (".", PROJECT["name"]) and all(part in extras for part in filter(None, extra.split(",")))
        former = package in ("ebbflow", "somebody's") and name == Path("CHANGELOG.md")
        if not (ours or former or (not extra and package in declared | {"pytorch-fid", "{name}", "einops"})):
            strange.append(f"{name}:{number} {what}")
    assert not strange, strange


def test_the_patterns_find_what_they_are_for():
    assert REGISTRIES.search("https://test." + "pypi" + ".org/simple")
    assert LOCAL_PATHS.search("open('/" + "home/me/data.csv')")
    assert not LOCAL_PATHS.search("src/home/x $HOME/work/x ~/work/x")


@functools.cache
def modules():
    """The parts of every module's name."""
    known = {module.relative_to(SOURCE).with_suffix("").parts for module in SOURCE.rglob("*.py")}
    return {parts[:-1] if parts[-1] == "__init__" else parts for parts in known}


def imports(path):
    """The modules of ours that a file imports, at its top or inside functions; not those for type checkers alone."""
    here = path.relative_to(SOURCE).with_suffix("").parts
    package = here[:-1]  # of an __init__ too: it is its own package's
    known = modules()

    def inside(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            yield child
            yield from inside(child)

    for node in inside(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == "ebbtide":
                base = ()
            else:
                continue
            named = tuple(node.module.split(".")) if node.module else ()
            base += named if node.level else named[1:]
            for alias in node.names:
                target = (*base, alias.name)
                yield ".".join(target if target in known else base)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ebbtide":
                    yield ".".join(alias.name.split(".")[1:])


@functools.cache
def graph():
    """Module → the modules of ours that it imports. What the facade's table names it loads by name."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = {target for target in imports(path) if target != name}
    found[""] |= set(ebbtide._HOME.values())
    return found


def circles(arrows):
    """The groups of more than one module that reach each other (Tarjan 1972)."""
    index, low, stack, groups = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in arrows[node]:
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for node in arrows:
        if node not in index:
            visit(node)
    return groups


def test_imports_have_no_circle():
    assert not circles(graph())


# From the ground up; a room uses its own modules and those of the floors below it.
FLOORS = (
    ("errors", "signals", "tables", "version"),
    ("memory", "progress"),
    ("arrays", "files"),
    ("cache", "formats", "specs", "tensors"),
    ("losses",),
    ("core",),
    ("networks", "recipes"),
    ("codecs",),
    ("data", "samplers"),
    ("metrics",),
    ("exact", "inverse"),
    ("training",),
    ("plots",),
    ("robots",),
    ("interop",),
    ("kinds",),
    ("lab",),
    ("cli",),
    ("", "__main__"),
)


def test_a_room_uses_only_rooms_below_it():
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    arrows = graph()
    rooms = {name.split(".")[0] for name in arrows}
    assert rooms <= floor.keys(), rooms - floor.keys()
    upwards = [
        f"{name} -> {target}"
        for name, targets in arrows.items()
        for target in targets
        if name
        and name.split(".")[0] != target.split(".")[0]
        and floor[name.split(".")[0]] <= floor[target.split(".")[0]]
    ]
    assert not upwards, upwards


# A method's recipe and its sampler are rows of two tables, both named as their paper names it.
SHARED = {"ddpm", "edm"}


def test_no_two_rooms_have_a_function_or_class_of_one_name():
    rooms = {}
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0]
        if room != "cli":  # every command is a module with `run`
            for node in parsed(path).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    rooms.setdefault(node.name, set()).add(room)
    twice = {name: sorted(found) for name, found in rooms.items() if len(found) > 1 and name not in SHARED}
    assert not twice, twice


def test_the_graph_sees_what_it_is_for(tmp_path):
    arrows = graph()
    assert {"kinds.points.kind", "kinds.images.kind", "kinds.robots.kind"} <= arrows["kinds"]
    assert "interop.hub" in arrows["kinds.runs"]  # inside a function
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]


def test_every_exit_code_is_documented():
    rows = dict(re.findall(r"^\| (\d+) \|.*\| *(?:`(\w+)`)? *\|$", read("CONTRIBUTING.md"), re.M))
    classes = {name: kind for name, kind in vars(errors).items() if hasattr(kind, "exit_code")}
    assert {code: name for code, name in rows.items() if name} == {
        str(kind.exit_code): name for name, kind in classes.items()
    }
    assert [code for code, name in rows.items() if not name] == ["0", "129", "130", "143"]


def test_contributing_names_files_that_exist():
    table = re.findall(
        r"^\| [\w' ]+ \| .*`(src/[\w/.]+)` \| `([A-Z_]+)`(?:, same file| in `([\w/.]+)`) \|$",
        read("CONTRIBUTING.md"),
        re.M,
    )
    assert len(table) == 15
    for file, name, elsewhere in table:
        table_file = SOURCE / elsewhere if elsewhere else ROOT / file
        assert (ROOT / file).exists(), f"CONTRIBUTING.md sends the reader to {file}, which doesn't exist."
        assert re.search(rf"^{name}\b", table_file.read_text(encoding="utf-8"), re.M), (
            f"{table_file} has no table {name}."
        )


def test_ci_runs_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert commands == ["make lint", "make test"]
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.M)
    mentioned = re.findall(r"^make ([a-z-]+)", read("README.md") + read("CONTRIBUTING.md"), re.M)
    assert set(mentioned) <= set(targets), "README or CONTRIBUTING names a target the Makefile lacks."


def test_what_is_installed_is_pinned():
    """Every direct dependency of the package and of its tests has its tested version in constraints.txt."""
    names = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["metrics"]]
    pins = {re.split("==", line)[0].lower() for line in read("constraints.txt").splitlines() if "==" in line}
    missing = [
        name for name in (re.split(r"[<>=!~\[;]", entry)[0].strip() for entry in names) if name.lower() not in pins
    ]
    assert not missing, f"constraints.txt has no version of {', '.join(missing)}."


POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_no_module_needs_what_windows_lacks_to_be_imported():
    """Such a module may be imported where it is used, or in a `try`; not at the top of a file."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if needed := {name.partition(".")[0] for name in names} & POSIX:
                found[str(path.relative_to(SOURCE))] = needed
    assert not found
