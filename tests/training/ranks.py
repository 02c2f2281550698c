"""A program for torchrun, `ranks.py FOLDER CASE …`: cases trained with the sharded engine, for the tests to look at.

The first process writes FOLDER/CASE.json, with losses and norms, and all of them the checkpoint FOLDER/CASE after the
last step. Halfway the run is saved, thrown away and resumed in a new trainer.
"""

import json
import sys
from itertools import islice
from pathlib import Path

from ebbtide.kinds.runs import begin
from ebbtide.recipes import RECIPES
from ebbtide.tensors import unpack
from ebbtide.training import pieces
from ebbtide.training.checkpoint import PIECES, WEIGHTS, read_folder
from ebbtide.training.devices import accelerate, leaving_group
from ebbtide.training.trainer import Trainer
from training.runs import tiny

HALF, STEPS = 2, 4
# A network in blocks, with labels, clipping and decay; one in levels, channels last; and a policy's of every kind.
CASES = {
    "dit": {"network": "dit:width=16,depth=2,head=8", "weight_decay": 0.2, "clip": 0.3},
    "unet": {"network": "unet-tiny:width=8,checkpointing=true"},
}
POLICIES = {
    name: {"network": f"{name}:{sizes}"}
    for name, sizes in (
        ("action_expert", "width=16,depth=2,heads=2,head=8,checkpointing=true"),
        ("action_unet", "width=8,emb=16,blocks=2"),
        ("action_transformer", "width=16,depth=2,head=8,emb=16"),
        ("action_unet-film", "widths=16-32,groups=4"),
    )
}
PARTS = 2  # of a process's share


def recipe_of(name, folder):
    """eps: Adam makes whole steps of gradients that are 0 but for rounding, whose signs are chance."""
    common = {"steps": STEPS, "batch": 16, "eps": 1e-4, "seed": 3, "lr": 0.01}
    if name in CASES:
        return tiny("images", **common, **CASES[name])
    return RECIPES["pi0-pusht"](data=str(folder / "episodes.npz"), cameras="top", **common, **POLICIES[name])


def trainer_of(name, folder, engine):
    recipe = recipe_of(name, folder)
    start, data = begin(recipe)
    run = Trainer(start.denoiser, data, recipe, accelerate(), PARTS, len(start.classes), engine)
    run.every = 2 if name == "unet" else 1  # as on a GPU
    return run


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
            run, half = trainer_of(name, folder, "fsdp"), folder / f"{name}-half"
            records = list(islice(run.steps(), HALF))
            saved(run, half)
            run = resumed(trainer_of(name, folder, "fsdp"), half)
            records += list(run.steps())
            saved(run, folder / name)
            if run.accelerator.is_main_process:
                (folder / f"{name}.json").write_text(json.dumps([[one.loss, one.grad_norm] for one in records]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
