"""Every command and program in the documents runs as typed, and every result they state was measured."""

import contextlib
import importlib.util
import json
import math
import pydoc
import re
import shlex
from pathlib import Path

import pytest

import problems
from ebbtide.cli import main
from ebbtide.core.paths import PATHS
from ebbtide.core.targets import TARGETS
from ebbtide.recipes import RECIPES
from ebbtide.samplers import SAMPLERS
from plots.material import small

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
]
RESULTS = ROOT / "docs/results.md"
DAILY = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/quickstart.md")
MEASURED = json.loads((ROOT / "docs/figures.json").read_text())
FIGURES = MEASURED["figures"]


# The most that a command is asked for, typed or not: a test takes less than a reader.
LESS = {
    "train": {"--batch": 16, "--snapshots": 1, "--sample-steps": 2, "--steps": 40},
    "tune": {"--n": 16, "--reference": 30},
    "evaluate": {"--n": 100},
    "likelihood": {"--n": 20},
    "sample": {"--n": 200},
    "demos": {"--episodes": 2},
}


def blocks(language, documents=DOCUMENTS, *more, marks=()):
    """The text of every block, each a case of a test, which is given `more` as well."""
    return [
        pytest.param(text, *more, id=f"{document.name}: {text.strip().splitlines()[0][:60]}", marks=marks)
        for document in documents
        for text in re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.S | re.M)
    ]


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory):
    """All of it runs in one folder, top to bottom, as a reader would; figures are small, and solvers quickly fitted."""
    with contextlib.chdir(tmp_path_factory.mktemp("reader")), pytest.MonkeyPatch.context() as patch:
        small(patch)
        patch.setattr("ebbtide.training.solver.MOST_JOINT", 4)
        patch.setattr("ebbtide.training.devices.fast_bf16", lambda _: False)  # a trial takes longer than the training
        yield


@pytest.mark.unchecked  # as a reader has it
@pytest.mark.parametrize("text", blocks("python"))
def test_python(text):
    """As it stands, but for hundreds of steps of training, of which a test takes sixty; twenty of images."""
    steps = "20" if "_images(" in text else "60"
    exec(compile(re.sub(r"(?<=steps=)\d{3,}", steps, text), "README", "exec"), {})


@pytest.mark.slow
@pytest.mark.unchecked
@pytest.mark.parametrize("text", blocks("py", [ROOT / "docs/howto/moving.md"]))
def test_programs_of_other_libraries(text):
    """What the page on moving shows as "before" runs where that library is installed, and draws samples as ours do."""
    found = {}
    try:
        exec(compile(text, "moving.md", "exec"), found)
    except ModuleNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed.")
    assert found["x"].isfinite().all()
    if found["x"].ndim == 2:  # data around (2, 0); the images are noise
        assert found["x"].mean(0).tolist() == pytest.approx([2, 0], abs=0.15)


@pytest.mark.slow
def test_names_of_other_libraries_exist():
    """Every name in the tables of the page on moving, of the libraries that are installed."""
    text, seen = (ROOT / "docs/howto/moving.md").read_text(), set()
    for name in set(re.findall(r"`((?:torchcfm|flow_matching|diffusers)\.[\w.]+)`", text)):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            assert pydoc.locate(name) is not None, name
            seen.add(name.partition(".")[0])
    assert seen, "None of these libraries is installed."


@pytest.mark.unchecked  # as a reader has it
@pytest.mark.parametrize(
    ("text", "less"), [*blocks("bash", DAILY, LESS), *blocks("bash", DOCUMENTS, {}, marks=pytest.mark.slow)]
)
def test_commands(text, less, monkeypatch):
    """Those of the front pages run with every test; all of them, a quarter of a minute each, with the slow ones."""
    if less:
        monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
        monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 100))
        monkeypatch.setattr("ebbtide.kinds.points.study.WALK_POINTS", 20)
    if "penguins.csv" in text:  # which the page makes first; the two may run in different processes
        (made,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/howto/points.md").read_text(), re.S | re.M)
        exec(compile(made, "points.md", "exec"), {})
    for line in text.strip().splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "ebbtide":
            for option, most in less.get(words[1], {}).items():
                place = words.index(option) + 1 if option in words else len(words) + 1
                words[place - 1 : place + 1] = [option, str(min(most, int((words[place:] or [most])[0])))]
            assert main(words[1:]) == 0, line


def test_the_cells_counted_are_those_of_the_tables():
    """tests/samplers/test_all.py walks every one of them: daily a third, all when slow."""
    rows = [len(SAMPLERS), len(PATHS), len(TARGETS)]
    says = f"{rows[0]} samplers × {rows[1]} paths × {rows[2]} targets, all {math.prod(rows)}, "
    assert says in " ".join((ROOT / "docs/overview.md").read_text().split())
    assert set(problems.PATHS) == set(PATHS)


def test_the_readme_quotes_no_measurement():
    """Results stand in docs/results.md, where they are checked; a number here is a count that the code confirms."""
    text = (ROOT / "README.md").read_text()
    counts = [f"its {len(SAMPLERS)} samplers", f"{len(SAMPLERS)} samplers on every checkpoint"]
    names = ("t = 1", "t = 0", "π0", "1-D", "Apache-2.0", "Python 3.11", "about 200 MB", "code in 30")
    for known in (*counts, *names):
        assert known in text, known
        text = text.replace(known, "")
    prose = re.sub(r"```.*?```|`[^`]*`|\([^)]*\)", "", text, flags=re.S)
    assert not re.findall(r".{0,30}(?<![A-Za-z\d])\d.{0,30}", prose)


def test_the_readme_is_seven_lines_of_python_and_two_commands():
    text = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    (commands,) = re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M)
    assert len([line for line in program.splitlines() if line]) == 7
    assert [line.partition("#")[0].strip() for line in commands.splitlines()] == ["make demo", "make test"]


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        for text in re.findall(r"^```(?:bash|sh)\n(.*?)^```", document.read_text(), re.S | re.M):
            for line in text.splitlines():
                if line.startswith("make "):
                    assert set(shlex.split(line, comments=True)[1:]) <= targets, line


class Several(list):
    """The numbers of several seeds, which print side by side."""

    def __format__(self, spec):
        return ", ".join(format(value, spec) for value in self)


def plain(text):
    """A text on one line, its numbers as Python writes them."""
    return " ".join(text.replace("−", "-").replace(" %", "%").split())


def printed(figure, document):
    """How a document states a figure, with the numbers that were measured."""
    values = {name: Several(found) for name, found in figure["values"].items()}
    return plain(figure["printed"][document].format(**values, spread=figure["spread"]))


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure["figure"])
def test_a_figure_is_stated_as_it_was_measured(figure):
    assert {"figure", "commands", "seeds", "values", "spread", "printed"} == set(figure)
    assert figure["commands"]
    assert figure["values"]
    if isinstance(figure["seeds"], list) and figure["commands"][0].startswith("ebbtide train"):
        assert {len(found) for found in figure["values"].values()} == {len(figure["seeds"])}
    for document in figure["printed"]:
        assert plain((ROOT / document).read_text()).count(printed(figure, document)) == 1, printed(figure, document)


WORDS = {  # of the overview's table of recipes, as their rows are called
    "DDPM's β table": "ddpm", "variance exploding": "ve", "linear plus noise on the way": "bridge:",
    "DDPM's cosine": "ddpm:betas=squared_cosine", "EDM's": "edm", "log-normal σ": "log_normal", "Beta(1.5, 1)": "beta",
    "minibatch OT": "ot", "ancestral": "ddpm:", "Heun": "heun", "Heun on Karras's grid": "heun", "Euler": "euler",
    "DDIM": "ddim",
}  # fmt: skip


def test_the_table_of_recipes_is_what_they_are():
    """All but the row of images, which says only how they differ from those above."""
    rows = re.findall(r"^\| (`.*) \|$", (ROOT / "docs/overview.md").read_text(), re.M)
    seen = set()
    for names, *cells, sampler, _ in (row.split(" | ") for row in rows if "images" not in row):
        parts = re.findall(r"`([\w-]+)…?`", names)
        found = {name for name in RECIPES for part in parts if name == part or (part[-1] == "-" and part in f"{name}-")}
        assert found, names
        walk, *more = sampler.split(", ")
        for name in found:
            recipe = RECIPES[name]()
            for field, cell in zip(("path", "target", "times", "coupling", "sampler"), (*cells, walk), strict=True):
                assert getattr(recipe, field).startswith(WORDS.get(cell, cell)), (name, field)
            assert more[:1] in ([], [f"{recipe.sample_steps} steps"]), name
            assert ("Karras" in sampler) == (recipe.grid == "karras"), name
        seen |= found
    assert seen == {name for name, row in RECIPES.items() if row().kind != "images"}


def test_every_number_of_the_results_was_measured():
    """Once what docs/figures.json holds is taken out of the page, no number is left, but for those of samplers."""
    # The table of samplers is that of benchmarks/samplers.json.
    before, _, samplers = RESULTS.read_text().partition("## Samplers")
    rest = plain(re.sub(r"```.*?```", "", before + samplers.partition("\n## ")[2], flags=re.S))
    for text in map(plain, MEASURED["settings"]):
        assert rest.count(text) == 1, text
        rest = rest.replace(text, "")
    for figure in FIGURES:
        if "docs/results.md" in figure["printed"]:
            rest = rest.replace(printed(figure, "docs/results.md"), "")
    assert not re.findall(r".{0,30}(?<![A-Za-z\d])\d.{0,30}", rest)


def test_every_command_of_the_results_is_that_of_a_figure():
    commands = [
        command.format(seed=0) for figure in FIGURES for command in figure["commands"] if "python" not in command
    ]
    fenced = re.findall(r"```sh\n(.*?)```", RESULTS.read_text(), re.S)
    typed = [line for text in fenced for line in text.strip().splitlines()]
    assert len(typed) == 11
    assert set(typed) <= set(commands)


def test_a_figure_of_a_benchmark_is_in_its_results():
    """To the digits that they print; so results that are measured again take the pages that quote them along."""
    results = (ROOT / "benchmarks/RESULTS.md").read_text()
    numbers = {float(text) for text in re.findall(r"\d+(?:\.\d+)?", results)}
    found = [figure for figure in FIGURES if figure["commands"][0].startswith("python -m benchmarks")]
    assert found
    for figure in found:
        assert f"`{figure['commands'][0]}`" in results
        for name, values in figure["values"].items():
            assert set(values) <= numbers, name


@pytest.mark.slow
def test_slow_commands(capsys):
    """The commands behind the figures of docs/results.md, minutes of training, fenced as `sh`; they print what it says.

    A number within three of the spreads that docs/figures.json has for it: on another machine a seed is another one.
    `lab` isn't called, which serves until it is stopped (tests/cli/test_lab.py).
    """
    said = {}
    for document in DOCUMENTS:
        for text in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.S | re.M):
            for line in text.strip().splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["ebbtide"] and words[1] != "lab":
                    assert main([*words[1:]]) == 0, line
                    said[line] = capsys.readouterr().out
    held = 0
    for figure in FIGURES:
        rows = [re.split(r"\s{2,}", row) for row in said.get(figure["commands"][-1].format(seed=0), "").splitlines()]
        values = {row[0]: float(row[1]) for row in rows if row[0] in figure["values"]}
        for name, value in values.items():
            spread = figure["spread"][name]
            assert value == pytest.approx(figure["values"][name][0], abs=3 * spread), (figure["figure"], name)
            held += 1
    assert held >= 13
