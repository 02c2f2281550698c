"""The book teaches what it shows: chapters are complete, run when it is built, and need nothing from elsewhere."""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ebbtide
from ebbtide.cli import COMMANDS
from ebbtide.cli.arguments import options
from ebbtide.cli.compare import SUBJECTS, Compare
from ebbtide.cli.completion import TABLES, options_of
from ebbtide.cli.listing import tables
from ebbtide.cli.train import Train
from ebbtide.recipes import RECIPES

DOCS = Path(__file__).resolve().parent.parent / "docs"
SOURCE = DOCS.parent / "src/ebbtide"
CHAPTERS = sorted(DOCS.glob("book/*.md"))
PAGES = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb") and "_build" not in path.parts]
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```", re.S | re.M)


def from_docs(file):
    """A module that the book is built with, and those beside it that it uses."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, DOCS / file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str((DOCS / file).parent))
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def as_rst():
    return from_docs("_ext/docstrings.py").as_rst


def test_every_page_is_in_the_contents():
    listed = {"index"}
    for page in PAGES:
        if page.suffix == ".md":
            for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.S | re.M):
                for entry in block.split():
                    if not entry.startswith(":"):
                        listed.add(str((page.parent / entry).resolve().relative_to(DOCS)))
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} <= listed


def test_every_room_is_in_the_reference():
    """All but the commands, which have a page of their own; docs/_ext/rooms.py adds a room's modules by itself."""
    folders = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    pages = "".join(page.read_text() for page in (DOCS / "reference/api").glob("*.md"))
    found = re.findall(r"^```\{room\} (\S+)(.*)$", pages, re.M)
    assert sorted(room for room, _ in found) == sorted({".", *folders} - {"cli"})
    for room, first in found:
        for name in first.split():
            assert any((SOURCE / room / name).with_suffix(suffix).exists() for suffix in ("", ".py")), (room, name)


def functions(module):
    """(name, function) of a module's public functions, methods and classes with a constructor that is written out."""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if getattr(thing, "__module__", None) != module.__name__ or getattr(thing, "_is_protocol", False):
            continue
        written = inspect.isclass(thing) and "__init__" in vars(thing) and not dataclasses.is_dataclass(thing)
        if inspect.isfunction(thing) or written:
            yield name, thing
        if inspect.isclass(thing):
            for own in vars(thing):
                method = getattr(thing, own)
                if not own.startswith("_") and inspect.isroutine(method) and method.__doc__:
                    yield f"{name}.{own}", method


def test_every_argument_is_described():
    """By its docstring, or by the words that the reference has for its name."""
    words = from_docs("_ext/arguments.py")
    found, counted = {}, 0
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(("ebbtide", *parts)).removesuffix(".__init__")
        if parts[-1] in ("__main__", "community", "decoder"):
            continue
        for owner, function in functions(importlib.import_module(name)):
            counted += len(words.names(function))
            if missing := words.undescribed(function):
                found[f"{name}.{owner}"] = missing
    assert not found, found
    assert counted > 3400, counted


def test_the_reference_shows_what_docstrings_leave_out(as_rst):
    """A shared word, a comment beside a field, and nothing of what is described already."""
    words = from_docs("_ext/arguments.py")

    def made(x0, seed, odd):
        """x₀ plus noise; seed: of it."""

    made.__module__ = "ebbtide.core.made"
    assert words.added("function", made, [made.__doc__]) == ["x0: data x₀, (b, *d), at t = 0."]
    assert words.undescribed(made) == ["odd"]
    lines = words.added("class", ebbtide.Comparison, [ebbtide.Comparison.__doc__])
    assert "real: real data, (n, *d)." in lines
    shown = "\n".join(as_rst([made.__doc__, "", *words.added("function", made, [made.__doc__])], {"x0", "seed"}))
    assert "- **x0**: data x₀, (b, \\*d), at t = 0." in shown


def test_a_page_names_only_what_there_is():
    """Files of the source by their path from src/ebbtide, as do tests and examples from the top; names by import."""
    top = DOCS.parent
    for page in [top / "README.md", top / "CONTRIBUTING.md", *PAGES]:
        if page.name == "LOG.md":  # a log keeps the names of its days
            continue
        text = page.read_text()
        written = re.findall(r"%%writefile (\S+)", text)
        for name in re.findall(r"`([\w/]+\.(?:py|cpp))\b", text):
            assert name in written or (SOURCE / name).exists() or (top / name).exists(), f"{page.name}: {name}"
        for name in re.findall(r"\{py:\w+\}`[^`]*?~?(ebbtide[\w.]+)>?`", text):
            home, _, own = name.rpartition(".")
            with contextlib.suppress(ModuleNotFoundError):
                assert hasattr(importlib.import_module(home), own), f"{page.name}: {name}"
                continue
            home, _, owner = home.rpartition(".")
            assert hasattr(getattr(importlib.import_module(home), owner), own), f"{page.name}: {name}"


def test_every_option_of_training_has_its_default_and_effect():
    """Of every recipe: in a table of its own, or of its kind, or of all; and a recipe's own defaults as it has them."""
    made = from_docs("_ext/options.py")
    sections = dict(re.findall(r"^#{2,3} ([^\n]+)\n(.*?)(?=^##|\Z)", made.page(), re.S | re.M))
    described = {
        name: re.findall(r"^\| `--([\w-]+)`.*? \| (.+?) \| .*\w", text, re.M) for name, text in sections.items()
    }
    for name, make in RECIPES.items():
        recipe = make()
        told = dict([*described["All recipes"], *described[made.HEADS[recipe.kind]]])
        for own in (sections[made.HEADS[recipe.kind]], sections[name]):
            told |= dict(re.findall(r"^\| `--([\w-]+)` \| ([^|]+) \|$", own, re.M))
        assert {*options(Train(recipe))} == {*told} | {option for option, _ in described["The run"]}, name
        for field in dataclasses.fields(recipe):
            value = told[field.name.replace("_", "-")].strip("`")
            own = getattr(recipe, field.name)
            assert value == {True: "on", False: "off", "": "none"}.get(
                own if isinstance(own, bool | str) else None, str(own)
            )
    assert "gradient-accumulation-steps" in sections["By another library's name"]


def test_every_extra_is_explained():
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (DOCS / "install.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \| [^|]+ \| [^|]+ \|$", page, re.M)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == sorted(extras)


ROWS = tables()
# What a page writes for the reader's own names.
WRITTEN = {"RECIPE": "flow", "RUN": "runs/moons", "DATA": "two_moons"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_no_test_runs_have_the_options_they_name(page):
    """Those in blocks of text and in tables: each option is one of its command's, each row one of its table's."""
    text = page.read_text()
    fenced = re.findall(r"^```(?:text|bash|sh)\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in fenced for line in re.sub(r"\\\n", " ", block).splitlines()]
    lines += re.findall(r"`(ebbtide [^`…]*?)`", text) if page.name != "LOG.md" else []
    for line in lines:
        line = line.removeprefix("$ ").strip()
        if not line.startswith("ebbtide ") or "…" in line or line.startswith("ebbtide: "):
            continue
        words = [WRITTEN.get(word, word) for word in shlex.split(line.partition(" > ")[0], comments=True)]
        command, *typed = words[1:]
        if command.startswith("-") or command == "COMMAND":
            continue
        assert command in COMMANDS, f"{page.name}: {line}"
        known = options_of(command, next(iter(typed), ""))
        if command == "train" and typed[:1] and not typed[0].startswith("-"):
            assert typed[0] in RECIPES, f"{page.name}: {line}"
        if command == "train" and set(typed) & {"--config", "--from"}:
            known = {name: field for recipe in RECIPES for name, field in options_of("train", recipe).items()}
        if command == "compare":
            known |= {
                f"--{name}": field
                for _, subject, _ in SUBJECTS.values()
                for name, field in options(Compare(subject)).items()
            }
        negated = {f"--no-{name[2:]}" for name in known}
        for place, word in enumerate(typed):
            option, _, value = word.partition("=")
            if not option.startswith("--") or option in ("--help", "--"):
                continue
            assert option in known or option in negated, f"{page.name}: {line}: {option}"
            table = TABLES.get(option[2:])
            value = value or next(iter(typed[place + 1 :]), "")
            name, _, more = value.partition(":")
            if table in ("paths", "targets", "times", "networks", "samplers", "grids", "couplings", "losses"):
                known_row = name in ROWS[table] or re.match(r"[\d.]", name)  # a grid may be times
                assert known_row or (more and "=" not in more.split(":")[0]), (
                    f"{page.name}: {line}: {value}"
                )  # module:function


def test_the_tour_of_the_code_counts_its_lines():
    """Every file of the tour and every room, in lines, to a tenth or 25."""
    page = (DOCS / "reference/code.md").read_text()

    def lines(path):
        files = path.rglob("*.py") if path.is_dir() else [path]
        return sum(len(file.read_text().splitlines()) for file in files)

    tour = re.findall(r"^\| \d ((?:`[\w/.]+`(?:, )?)+) \| ([\d +]+) \|", page, re.M)
    rooms = re.findall(r"^\| ((?:`[\w/]+`(?:, )?)+) \| (\d+) \|", page, re.M)
    assert len(tour) == 8
    named = set()
    for names, counts in [*tour, *rooms]:
        paths = [SOURCE / name for name in re.findall(r"`([^`]+)`", names)]
        paths = [path if path.exists() else path.with_suffix(".py") for path in paths]
        named |= set(paths)
        told, true = [int(count) for count in counts.split("+")], [lines(path) for path in paths]
        told, true = (told, true) if len(told) == len(true) else (told, [sum(true)])
        assert told == pytest.approx(true, rel=0.1, abs=25), names
    own = {path for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {path.stem for path in own - named} <= {"__init__", "__main__", "version"}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_what_a_chapter_needs(chapter):
    text = chapter.read_text()
    assert re.search(r"\{admonition\} Try it yourself\n:class: try", text)
    assert re.search(r"\{admonition\} The mistake people make\n:class: mistake", text)
    if chapter.stem != "choosing":  # which is about measurements
        assert "$$" in text
        assert "arxiv.org/abs/" in text.lower()
    cells = CELL.findall(text)
    figures = [cell for cell in cells if "figure:" in cell]
    assert len(figures) >= 2
    for cell in figures:
        assert "caption:" in cell
        assert "alt:" in cell


def test_the_tutorial_opens_elsewhere():
    notebook = json.loads((DOCS / "tutorial.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4
    assert len(code) >= 12
    for cell in code:
        assert not cell["outputs"]
        assert cell["execution_count"] is None


def test_docstrings_keep_their_equations_and_arguments(as_rst):
    rst = as_rst(
        [
            "y = a x₀ + b ε of |x₀|², with `name_`.",
            "",
            "Then",
            "    x* = α * x_t",
            "mask: which numbers",
            "  count.",
            "z, w: others.",
        ]
    )
    text = "\n".join(rst)
    assert r"of \|x₀\|²" in text
    assert "``name_``" in text
    assert "::\n\n" in text
    assert "x* = α * x_t" in text  # as it stands
    assert "**mask**: which numbers count." in text
    assert "**z, w**: others." in text


def code(page):
    """The code of a page or notebook, without cells' options and magics."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    else:
        cells = [re.sub(r"\A---\n.*?\n---\n", "", cell, flags=re.S) for cell in CELL.findall(text)]
    return re.sub(r"^[:%!].*$", "", "\n".join(cells), flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_calls_of_ours_have_the_arguments_that_they_take(page):
    """Without running them, which takes minutes: a function that asks for one more is noticed on the same day."""
    tree, known = ast.parse(code(page)), {"ebbtide": ebbtide}
    for row in ast.walk(tree):
        if isinstance(row, ast.ImportFrom) and (row.module or "").partition(".")[0] == "ebbtide":
            home = importlib.import_module(row.module)
            for alias in row.names:
                found = getattr(home, alias.name, None)
                known[alias.asname or alias.name] = found or importlib.import_module(f"{row.module}.{alias.name}")
    own = {row.id for row in ast.walk(tree) if isinstance(row, ast.Name) and isinstance(row.ctx, ast.Store)}
    own |= {row.arg for row in ast.walk(tree) if isinstance(row, ast.arg)}
    for row in ast.walk(tree):
        if not isinstance(row, ast.Call) or any(isinstance(each, ast.Starred) for each in row.args):
            continue
        if not re.fullmatch(r"(\w+\.)?\w+", said := ast.unparse(row.func)):
            continue
        owner, _, name = said.rpartition(".")
        if (owner or name) in own or (owner or name) not in known or None in (word.arg for word in row.keywords):
            continue
        function = getattr(known[owner], name) if owner else known[name]
        given = {word.arg: None for word in row.keywords}
        if not (getattr(function, "__module__", None) or "").startswith("ebbtide"):
            continue
        try:
            inspect.signature(function).bind(*[None] * len(row.args), **given)
        except TypeError as error:
            pytest.fail(f"{ast.unparse(row)}: {error}")


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress")  # accelerate's tqdm misses Jupyter's ipywidgets
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/gif" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output.output_type == "stream" and output.name == "stderr"]


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    pytest.importorskip("myst_nb", reason="the book's own packages are not installed: make docs")
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-d", out / "trees"]
    run = subprocess.run([*command, "-b", "html", DOCS, out / "html"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return out / "html"


@pytest.fixture(scope="module")
def players():
    return from_docs("players.py")


def test_figures_that_move_have_data_and_a_figure_that_stands(players):
    """Each with words for those who don't see it; a network's page data has at most 60 kB."""
    book = (DOCS / "_static/book.js").read_text()
    kinds = set(re.findall(r"^  function (\w+)\(box", book, re.M))
    found = list(players.written())
    assert sorted(name for _, name, _, _ in found) == sorted(kinds)
    for page, name, given, caption in found:
        assert {"with", "name", "alt"} <= given.keys(), (page, name)
        assert caption.strip(), (page, name)
        assert (DOCS / f"_static/players/{name}.png").stat().st_size < 200_000, name
        for part in given["with"].split():
            assert (DOCS / f"_static/players/{part}.json").stat().st_size <= 60_000, part
            json.loads((DOCS / f"_static/players/{part}.json").read_text())


@pytest.mark.slow
def test_figures_that_move_do(players, chromium, tmp_path):
    """Every control of every player, without an error or a request; each says something in the end."""
    troubles, asked = [], []
    for _, name, given, _ in players.written():
        (tmp_path / f"{name}.html").write_text(players.alone(name, given["with"].split()), encoding="utf-8")
        tab = chromium.new_page(viewport={"width": 390, "height": 900}, reduced_motion="reduce")
        tab.on("pageerror", lambda error, name=name: troubles.append(f"{name}: {error}"))
        tab.on("console", lambda said, name=name: troubles.append(f"{name}: {said.text}"))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((tmp_path / f"{name}.html").as_uri())
        tab.locator(".eb-facts", has_text=re.compile(r"\w")).wait_for()
        for control in tab.locator(".eb-controls select:visible").all():
            for option in control.locator("option").all():
                control.select_option(option.get_attribute("value"))
        for control in tab.locator(".eb input[type=range]:visible").all():
            for end in ("max", "min"):
                control.fill(control.get_attribute(end))
        for control in tab.locator(".eb input[type=checkbox]:visible").all():
            control.click()
        for canvas in tab.locator("canvas").all():
            canvas.click()
        tab.get_by_role("button", name="play").click() if name != "solvers" else None
        tab.locator(".eb-facts", has_text=re.compile(r"\w")).wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, name
        tab.close()
    assert not troubles, troubles
    assert all(url.startswith(("file:", "blob:")) for url in asked)


# What people type, as the search stems it, and the page that has to be among those that it finds.
TYPED = {
    "cfg": "book/guidance", "onnx": "howto/leave", "latent": "book/latents", "window": "install",
    "nan": "troubleshooting", "accumul": "troubleshooting", "batch": "reference/options", "torchcfm": "howto/moving",
}  # fmt: skip


@pytest.mark.slow
def test_the_search_finds_what_people_type(built):
    text = (built / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    for word, page in TYPED.items():
        found = [index[table].get(word, []) for table in ("terms", "titleterms")]
        places = [place for each in found for place in (each if isinstance(each, list) else [each])]
        assert page in {index["docnames"][place] for place in places}, word


@pytest.mark.slow
def test_an_equation_and_its_number_stand_apart(built, chromium):
    """On a phone too, where there is little room beside an equation."""
    overlaps = """[...document.querySelectorAll('div.math')].filter(equation => {
        const number = equation.querySelector('.eqno')?.getBoundingClientRect();
        return number && [...equation.querySelectorAll('.katex-html .base')].some(part => {
            const box = part.getBoundingClientRect(), shown = part.closest('.katex-display').getBoundingClientRect();
            const beside = Math.min(box.right, shown.right) <= number.left + 1 || box.left >= number.right;
            return !beside && box.bottom > number.top && box.top < number.bottom;
        });
    }).map(equation => equation.textContent.slice(0, 8))"""
    for width in (390, 1200):
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        for page in sorted((built / "book").glob("*.html")):
            tab.goto(page.as_uri())
            assert not tab.evaluate(overlaps), (page.name, width)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, (page.name, width)


def test_a_figure_for_the_dark_is_its_inks_on_dark_ground():
    """White becomes the page's ground, black its ink, colours stay; images of the data are left as they are."""
    made = from_docs("_ext/dark.py")
    light = np.full((4, 10, 3), 255, np.uint8)
    light[0, 0], light[0, 1], light[3, 8] = (0, 0, 0), (213, 94, 0), (200, 200, 200)
    picture = Image.fromarray(light)
    picture.info["Photographs"] = json.dumps([[0.8, 0.0, 1.0, 0.5]])  # left, bottom, right, top
    dark = np.asarray(made.dark(picture)).astype(int)
    assert dark[1, 4].tolist() == pytest.approx(255 * made.GROUND, abs=1)
    assert dark[0, 0].tolist() == pytest.approx(255 * made.INK, abs=1)
    red, green, blue = dark[0, 1]
    assert red > green > blue
    assert (dark[2:, 8:] == light[2:, 8:]).all()
    assert (dark[:2, 8:] < 30).all()


@pytest.mark.slow
def test_the_pages_ask_for_nothing_from_elsewhere(built, chromium):
    """Every page in a real browser: each address it asks for, nothing that goes wrong in it, and its equations set."""
    for page in sorted(built.rglob("*.html")):
        asked, troubles = [], []
        tab = chromium.new_page()
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("pageerror", lambda error, troubles=troubles: troubles.append(str(error)))
        tab.goto(page.as_uri(), wait_until="networkidle")
        foreign = {url for url in asked if not url.startswith(("file:", "blob:", "data:"))}
        assert not foreign, page
        assert not troubles, (page, troubles)
        assert not tab.locator(".katex-error").count(), page
        assert tab.locator(".katex").count() >= tab.locator("span.math, div.math").count(), page
        tab.close()
