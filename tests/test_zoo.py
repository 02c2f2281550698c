"""The commands of zoo/README.md: each is one that ebbtide takes, and those for points make a folder ready to push."""

import re
import shlex
from pathlib import Path

import pytest

from ebbtide.cli import main
from ebbtide.cli.arguments import parse
from ebbtide.cli.demos import Demos
from ebbtide.cli.evaluate import Evaluate
from ebbtide.cli.export import Export
from ebbtide.cli.sample import Sample
from ebbtide.training.card import licence_line

TEXT = (Path(__file__).resolve().parent.parent / "zoo/README.md").read_text(encoding="utf-8")
BLOCKS = {
    title: [shlex.split(line)[1:] for line in block.splitlines()]
    for title, block in re.findall(r"^## ([\w-]+)\n\n```text\n(.*?)^```", TEXT, re.S | re.M)
}
COMMANDS = {"demos": Demos, "sample": Sample, "evaluate": Evaluate, "export": Export}


@pytest.mark.parametrize("title", BLOCKS)
def test_commands_are_taken(title, capsys):
    """Trained, sampled, measured, exported, in this order; all of one run, into the folder that the table names."""
    commands = [words for words in BLOCKS[title] if words[0] != "demos"]
    assert [words[0] for words in commands] == ["train", "sample", "evaluate", "export"]
    for command, *words in BLOCKS[title]:
        if command == "train":
            assert main([command, *words, "--print-config"]) == 0
            out = words[words.index("--out") + 1]
            continue
        made = parse(COMMANDS[command], words, command)
        if command != "demos":
            assert str(made.run) == out
        if command == "export":
            licence_line(made.license)
            folder = made.out.removeprefix("zoo/")
            assert re.search(rf"^\| `{folder}` \|.*\| {made.license} \|", TEXT, re.M)


def test_there_are_five():
    assert len(BLOCKS) == len(re.findall(r"^\| `", TEXT, re.M)) == 5


@pytest.mark.slow
def test_the_points_checkpoint_is_ready_to_push(tmp_path, monkeypatch, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    for words in BLOCKS["Points"]:
        assert main(words) == 0, words
    folder = tmp_path / "zoo/flow-two-moons"
    assert {path.name for path in folder.iterdir()} >= {"README.md", "model.safetensors", "samples.png"}
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert len(card.data.eval_results) > 1
    assert "![Samples](samples.png)" in card.text
    assert main(["sample", str(folder), "--n", "5", "--out", "again.npy"]) == 0
