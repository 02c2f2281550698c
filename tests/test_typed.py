"""What type checkers see of `import ebbtide`: users' right lines pass --strict, and every slip is refused."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ebbtide

ROOT = Path(__file__).resolve().parent.parent
TYPED = ROOT / "tests" / "typed"
# More than half of what torch imports, and more than half of mypy's time; no type of a tensor or of ours is from there.
ASIDE = (
    *(f"torch.{name}" for name in (
        "_decomp", "_dynamo", "_export", "_functorch", "_higher_order_ops", "_inductor", "_prims", "_refs",
        "_subclasses", "ao", "distributed", "distributions", "export", "fx", "onnx", "profiler",
    )),
    "accelerate", "jinja2", "matplotlib", "scipy", "setuptools", "sympy", "transformers",
)  # fmt: skip


def snippets():
    """README's Python, one file's worth each, as a reader would run it."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks
    return blocks


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    for name in ("right.py", "wrong.py"):
        (folder / name).write_text((TYPED / name).read_text(encoding="utf-8"), encoding="utf-8")
    for number, block in enumerate(snippets()):
        (folder / f"readme_{number}.py").write_text(block, encoding="utf-8")
    return folder


def mypy(folder):
    """(file, line) of every error."""
    skipped = ",".join(f"{name}.*" for name in ASIDE)
    (folder / "mypy.ini").write_text(f"[mypy]\n[mypy-{skipped}]\nfollow_imports = skip\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={folder / 'cache'}", str(folder)],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    found = re.findall(r"^([\w.]+):(\d+): error: (.*)$", done.stdout, re.M)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return {(file, int(line)): text for file, line, text in found}


def pyright(folder):
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(folder)],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in found
        if one["severity"] == "error"
    }


# Both refuse the same lines, so the slower one runs daily only where the other one isn't installed.
AT_HAND = importlib.util.find_spec("basedpyright") is not None


@pytest.mark.parametrize("checker", [pytest.param(mypy, marks=[pytest.mark.slow] * AT_HAND), pyright])
def test_right_lines_pass_and_each_slip_is_refused(files, checker):
    if checker is pyright:
        pytest.importorskip("basedpyright")
    lines = (TYPED / "wrong.py").read_text(encoding="utf-8").splitlines()
    slips = {("wrong.py", number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(slips) > 10
    found = checker(files)
    assert not found.keys() - slips, {place: found[place] for place in found.keys() - slips}
    assert not slips - found.keys()


def test_the_typed_names_are_those_that_are_loaded():
    stub = ast.parse((ROOT / "src" / "ebbtide" / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {
        alias.asname: node.module
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert typed == ebbtide._HOME | {"__version__": "version"}
    for name in ebbtide.__all__:
        assert getattr(ebbtide, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        ebbtide.fitt  # noqa: B018
