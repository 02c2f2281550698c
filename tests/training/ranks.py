"""A program for torchrun, `ranks.py FOLDER CASE …`: cases trained with the sharded engine, for the tests to look at.

The first process writes FOLDER/CASE.json, with losses and norms, and all of them the checkpoint FOLDER/CASE after the
last step. Halfway the run is saved, thrown away and resumed in a new trainer.
"""

import json
import sys
from itertools import islice
from pathlib import Path

from ebbtide.kinds.runs import begin
from ebbtide.training import pieces
from ebbtide.training.checkpoint import PIECES, WEIGHTS, read_folder, unpack
from ebbtide.training.devices import accelerate, leaving_group
from ebbtide.training.trainer import Trainer
from training.runs import tiny

HALF, STEPS = 2, 4
# Labels, parts, clipping and decay; a network in levels, channels last; positions that turn, and hardly a row each.
CASES = {
    "dit": ({"network": "dit:width=16,depth=2,head=8", "weight_decay": 0.2, "clip": 0.3, "eps": 1e-4}, 2),
    "unet": ({"network": "unet-tiny:width=8,checkpointing=true", "eps": 1e-4}, 1),
}


def recipe_of(name):
    return tiny("images", steps=STEPS, **CASES[name][0])


def trainer_of(name, engine):
    start, data = begin(recipe_of(name))
    return Trainer(start.denoiser, data, recipe_of(name), accelerate(), CASES[name][1], len(start.classes), engine)


def saved(run, folder):
    pieces.write_pieces(folder, {"config.json": b"{}", WEIGHTS: run.averaged()}, run.state(), run.accelerator)


def resumed(run, folder):
    """The trainer, as the one that was saved: of any engine, in any number of processes."""
    average = unpack(read_folder(folder)[WEIGHTS], "")
    run.load_state(average, pieces.read_pieces(folder / PIECES, run.state()))
    return run


def main(folder, *names):
    with leaving_group():
        for name in names:
            run, half = trainer_of(name, "fsdp"), folder / f"{name}-half"
            records = list(islice(run.steps(), HALF))
            saved(run, half)
            run = resumed(trainer_of(name, "fsdp"), half)
            records += list(run.steps())
            saved(run, folder / name)
            if run.accelerator.is_main_process:
                (folder / f"{name}.json").write_text(json.dumps([[one.loss, one.grad_norm] for one in records]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
