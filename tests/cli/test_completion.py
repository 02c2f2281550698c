"""Completion in a shell: commands, options, choices, and the names of the tables."""

import shutil
import subprocess
import sys

import pytest

from ebbtide.cli import COMMANDS
from ebbtide.cli.completion import SCRIPTS, candidates, options_of
from ebbtide.core.paths import PATHS
from ebbtide.data import DATASETS
from ebbtide.recipes import RECIPES
from ebbtide.samplers import SAMPLERS


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([""], list(COMMANDS)),
        ([], list(COMMANDS)),
        (["tr"], ["train"]),
        (["train", ""], list(RECIPES)),
        (["train", "ddpm-l"], ["ddpm-latents"]),
        (["train", "flow", "--da"], ["--data", "--data-on"]),
        (["train", "flow", "--no-f"], ["--no-fit"]),
        (["train", "flow-images", "--fli"], ["--flip"]),
        (["train", "flow", "--fli"], []),
        (["train", "flow", "--path", ""], list(PATHS)),
        (["train", "flow", "--path=co"], ["--path=cosine"]),
        (["train", "flow", "--precision", "b"], ["bf16"]),
        (["train", "flow", "--device", "c"], ["cpu", "cuda"]),
        (["train", "flow", "--conditional", ""], []),
        (["train", "flow", "--nothing", ""], []),
        (["sample", ""], []),
        (["sample", "run", "--sampler", "dpm"], [name for name in SAMPLERS if name.startswith("dpm")]),
        (["sample", "run", "--out", ""], []),
        (["show", ""], ["path", "data"]),
        (["show", "data", "two"], [name for name in DATASETS if name.startswith("two")]),
        (["show", "path", "--pa"], ["--path"]),
        (["list", "sam"], ["samplers"]),
        (["list", "paths", ""], []),
        (["certify", "heun", "rk"], [name for name in SAMPLERS if name.startswith("rk")]),
        (["cite", "ed"], ["edm", "edm-images"]),
        (["demos", "aloha-t"], ["aloha-transfer"]),
        (["nothing", ""], []),
        (["nothing", "--"], ["--help"]),
    ],
)
def test_what_may_come_next(words, found):
    assert candidates(words) == found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_completed(ebbtide, command):
    """Those of --help: what the shell offers and what the parser takes are the same."""
    first = {"train": ["flow"], "show": ["data"]}.get(command, [])
    words = ebbtide(command, *first, "--help")[1].split()
    shown = {word.rstrip(",") for word in words if word.startswith("--") and word != "--help"}
    offered = {*candidates([command, *first, "--"])} - {"--help"}
    assert {word for word in offered if word not in shown} == set()
    assert set(options_of(command, *first)) <= offered


def test_a_script_is_printed(ebbtide):
    for shell, script in SCRIPTS.items():
        assert ebbtide("completion", shell) == (0, script, "")
    assert ebbtide("completion", "words", "--", "train", "flow", "--fi")[:2] == (0, "--fit\n")
    code, out, err = ebbtide("completion", "fish")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'bash', 'zsh'" in err


BASH = f"""
ebbtide() {{ {sys.executable} -m ebbtide "$@"; }}
source /dev/stdin <<< "$(ebbtide completion bash)"
COMP_WORDS=(ebbtide train flow --data two); COMP_CWORD=4
_ebbtide
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_bash_completes(tmp_path):
    if not (bash := shutil.which("bash")):
        pytest.skip("bash is not installed")
    done = subprocess.run([bash, "-c", BASH], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split() == [name for name in DATASETS if name.startswith("two")], done.stderr


def test_zsh_completes(tmp_path):
    if not (zsh := shutil.which("zsh")):
        pytest.skip("zsh is not installed")
    setup = (
        "autoload -U compinit; compinit -u -D; compadd() { print -l ${(P)2}; }; words=(ebbtide train ddpm-l); CURRENT=3"
    )
    script = f'ebbtide() {{ {sys.executable} -m ebbtide "$@"; }}; {setup}; eval "$(ebbtide completion zsh)"; _ebbtide'
    done = subprocess.run([zsh, "-fc", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split() == ["ddpm-latents"], done.stderr
