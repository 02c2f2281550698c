"""Runs in a file and from another run: `train --config`, `--print-config` and `--from`."""

import dataclasses
import shutil
import tomllib
from typing import Literal, get_args, get_origin

from cells import each
from ebbtide.cli import config
from ebbtide.cli.arguments import parse
from ebbtide.cli.train import Running, Train
from ebbtide.recipes import RECIPES
from ebbtide.training.begun import recipe_of, stored
from ebbtide.training.build import TABLES

from .test_arguments import stranger

QUICK = ["--points", "200", "--batch", "16", "--snapshots", "0", "--checkpoints", "1", "--no-fit", "--quiet"]


def other(field, value):
    """Another value of a field, in its range; of texts, one with all that a file has to escape."""
    if get_origin(field.type) is Literal:
        return next(one for one in get_args(field.type) if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return 'é "x" \\ # \t\x7f = 😀'
    return {"points": 7, "n_action_steps": 3, "n_obs_steps": 3}.get(field.name, value + 1 if value < 1 else value * 2) \
        if isinstance(value, int) else value / 2 + 1e-9  # fmt: skip


def back(train, tmp_path):
    """What a printed file is read as."""
    file = tmp_path / "run.toml"
    file.write_text(config.as_text(train), encoding="utf-8")
    lines = config.read(str(file))
    base = RECIPES[lines["recipe"]]()
    return parse(Train, config.words_of(str(file), lines, Train(base)), "train", Train(base))


@each("name", RECIPES)
def test_a_printed_recipe_is_read_as_itself(name, tmp_path):
    """As it is, and with every field changed, which is nearest to any row of its kind."""
    recipe = RECIPES[name]()
    assert config.nearest(recipe) in RECIPES
    assert type(RECIPES[config.nearest(recipe)]()) is type(recipe)
    assert back(Train(recipe), tmp_path) == Train(recipe)
    changed = {one.name: other(one, getattr(recipe, one.name)) for one in dataclasses.fields(recipe)}
    if "normalise" in changed:  # a bound needs another one than mean_std
        changed |= {"normalise": "quantiles", "bound": 2.0}
    whole = Train(dataclasses.replace(recipe, **changed), out="a b/ü")
    assert all(value != getattr(recipe, field) or field == "bound" for field, value in changed.items())
    assert back(whole, tmp_path) == whole


def test_printed_options_of_training_are_read_as_themselves(tmp_path):
    how = Running(
        on_nonfinite="skip", precision="bf16", device="cuda:1", compile=True, track=("tensorboard", "wandb"),
        checkpoints=3, keep=4, accumulate=2, snapshots=5, solvers=False, evaluations="1,2", threads=2, quiet=True,
    )  # fmt: skip
    changed = [one.name for one in dataclasses.fields(how) if getattr(how, one.name) != one.default]
    assert len(changed) >= 12
    train = Train(RECIPES["flow"](), running=how)
    assert back(train, tmp_path) == train


def test_the_nearest_row_is_the_row_itself():
    assert config.nearest(RECIPES["ddpm"](data="rings", steps=7)) == "ddpm"
    assert config.nearest(RECIPES["pi0-pusht"]()) == "pi0-pusht"


def test_a_file_trains_what_the_command_trains(ebbtide, tmp_path):
    words = ["--data", "rings", "--steps", "3", *QUICK]
    code, text, err = ebbtide("train", "ddpm", *words, "--print-config")
    assert (code, err, (tmp_path / "runs").exists()) == (0, "", False)
    assert tomllib.loads(text)["recipe"] == "ddpm"
    (tmp_path / "run.toml").write_text(text)
    assert ebbtide("train", "ddpm", *words, "--out", "one")[0] == 0
    assert ebbtide("train", "--config", "run.toml", "--out", "two")[0] == 0
    assert ebbtide("train", "ddpm", "--config=run.toml", "--out", "three", "--seed", "1")[0] == 0
    one, two, three = (
        tmp_path / name / "checkpoints" / "last" / "model.safetensors" for name in ("one", "two", "three")
    )
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()
    assert recipe_of(tmp_path / "three") == dataclasses.replace(recipe_of(tmp_path / "one"), seed=1)
    assert ebbtide("train", "--config", "run.toml", "--print-config") == (0, text, "")


def test_a_few_lines_are_a_file(ebbtide, tmp_path):
    """A key may be written with a dash; what decides others on the command line does so in a file."""
    (tmp_path / "run.toml").write_text('recipe = "flow"\nsteps = 5\nlabel-dropout = 0.3\nfit = false\ncompile = true\n')
    code, text, _ = ebbtide("train", "--config", "run.toml", "--no-compile", "--print-config")
    lines = tomllib.loads(text)
    assert (code, lines["validation"], lines["held_out"], lines["label_dropout"]) == (0, 0.0, 0.2, 0.3)
    assert (lines["fit"], lines["compile"], lines["steps"]) == (False, False, 5)
    (tmp_path / "arm.toml").write_text('recipe = "flow-policy"\nobjective = "diffusion"\ntarget = "v"\n')
    lines = tomllib.loads(ebbtide("train", "--config", "arm.toml", "--print-config")[1])
    assert (lines["path"], lines["target"], lines["sampler"]) == ("ddpm:betas=squared_cosine", "v", "ddim")


SENTENCES = {
    'recipe = "flow"\nstepz = 3': "run.toml has no option 'stepz' to set (did you mean 'steps'?).",
    'recipe = "flow"\nsteps = "x"': "run.toml: --steps must be a whole number; got 'x'.",
    'recipe = "flow"\nlr = true': "run.toml: --lr must be a number; got 'True'.",
    'recipe = "flow"\nconditional = "yes"': "run.toml: conditional must be true or false; got 'yes'.",
    'recipe = "flow"\ncompile = 1': "run.toml: compile must be true or false; got 1.",
    'recipe = "flow"\nlr = -1': "run.toml: lr must be at least 0 and at most 1000; got -1.",
    'recipe = "flow"\nlr = [1]': "run.toml: lr must be a text, a number, true or false; got [1].",
    'recipe = "flow"\n[training]\nsteps = 3': "run.toml must have its options at the top, without tables; got [tra",
    'recipe = "flow"\nresume = true': "run.toml: resume is for the command line; a file describes the run.",
    'recipe = "flwo"': "got 'flwo' (did you mean 'flow'?).",
    "steps = 3": "RECIPE is missing; run.toml names none: ",
    "steps 3": "run.toml is not a TOML file: ",
    'recipe = "flow"\nrecipe = "ddpm"': "run.toml is not a TOML file: ",
    'recipe = "flow"\nout = "a\\u0000b"': r"run.toml: out must be a text, a number, true or false; got 'a\x00b'.",
    'recipe = "flow"\ndata = ["rings"]': "run.toml: data must be a text, a number, true or false; got ['rings'].",
    'recipe = "flow"\ndata = []': "run.toml: data must be a text, a number, true or false; got [].",
    'recipe = "flow"\ndata = ["rings", "--overwrite"]': "run.toml: data must be a text, a number, true or false; got [",
    'recipe = "flow"\ntrack = ["tensorboard", "--overwrite"]': "run.toml: track must be a list of names; got ['tenso",
    'recipe = "flow"\ntrack = "wandb"': "run.toml: track must be a list of names; got 'wandb'.",
    'recipe = "flow"\n' + "# long\n" * 20_000: "run.toml holds more than 100,000 bytes, so it is no file of options.",
    'recipe = "flow"\nnetwork = "json:loads"': "network 'json:loads' is a function outside ebbtide, so it runs only if",
}


@each("text", SENTENCES)
def test_what_a_file_cannot_hold_is_one_sentence(text, ebbtide, tmp_path):
    (tmp_path / "run.toml").write_text(text)
    code, out, err = ebbtide("train", "--config", "run.toml", "--out", "there")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert SENTENCES[text].removeprefix("run.toml: lr") in err
    assert not (tmp_path / "there").exists()


def test_a_mistake_on_the_command_line_is_not_the_files(ebbtide, tmp_path):
    (tmp_path / "run.toml").write_text('recipe = "flow"\nsteps = 3\n')
    assert ebbtide("train", "--config", "run.toml", "--lr", "x")[2] == "ebbtide: --lr must be a number; got 'x'.\n"
    assert (
        "run.toml is a run of flow, not of ddpm; leave ddpm out." in ebbtide("train", "ddpm", "--config", "run.toml")[2]
    )
    both = ebbtide("train", "--config", "run.toml", "--from", "there")
    assert both == (2, "", "ebbtide: --config and --from each describe a whole run; give one of them.\n")
    assert "Can't use nothere.toml: No such file" in ebbtide("train", "--config", "nothere.toml")[2]
    assert (
        "Can't use run.tml: No such file or directory (did you mean 'run.toml'?)"
        in ebbtide("train", "--config", "run.tml")[2]
    )
    assert ebbtide("train", "--config", ".") == (2, "", "ebbtide: Can't use .: Is a directory.\n")
    assert ebbtide("train", "--config", "") == (2, "", "ebbtide: --config must name a file.\n")
    assert "/dev/zero holds more than 100,000 bytes" in ebbtide("train", "--config", "/dev/zero")[2]
    assert "RECIPE is missing; ebbtide train flow, or" in ebbtide("train", "--steps", "3")[2]


def test_paths_of_a_file_begin_in_the_working_directory(ebbtide, table, tmp_path):
    (tmp_path / "deep").mkdir()
    shutil.copy(table, tmp_path / "deep" / "plants.csv")
    (tmp_path / "deep" / "run.toml").write_text('recipe = "flow"\ndata = "plants.csv"\nlabel = "kind"\n')
    code, _, err = ebbtide("train", "--config", "deep/run.toml")
    assert (code, err.count("\n")) == (2, 1)
    assert "data 'plants.csv' isn't in the working directory" in err
    assert "give --data deep/plants.csv." in err
    code, text, _ = ebbtide("train", "--config", "deep/run.toml", "--data", "deep/plants.csv", "--print-config")
    assert (code, tomllib.loads(text)["data"]) == (0, "deep/plants.csv")


def test_functions_of_a_file_run_only_if_they_are_typed(ebbtide, tmp_path, monkeypatch):
    """And the file that is printed says so in its first line."""
    (tmp_path / "mine.py").write_text(
        "from ebbtide.networks.mlp import MLP\n\ndef net(dim):\n    return MLP(dim, width=8)\n"
    )
    own = ["--network", "mine:net", "--steps", "2", *QUICK]
    assert ebbtide("train", "flow", *own, "--out", "one")[0] == 0
    code, text, _ = ebbtide("train", "flow", *own, "--print-config")
    assert (code, text.splitlines()[0]) == (0, "# ebbtide train --config FILE --network mine:net")
    (tmp_path / "run.toml").write_text(text)
    TABLES["network"][0].pop("mine:net")  # which monkeypatch would put back
    code, _, err = ebbtide("train", "--config", "run.toml", "--out", "two")
    assert (code, "runs only if you name it: by --network mine:net" in err) == (2, True)
    code, _, err = ebbtide("train", "--from", "one")
    assert (code, "runs only if you name it: by --network mine:net" in err) == (2, True)
    assert ebbtide("train", "--from", "one", "--network", "mine:net", "--out", "two")[0] == 0
    TABLES["network"][0].pop("mine:net")  # which monkeypatch would put back


def test_the_fields_that_name_rows_are_those_of_the_tables():
    assert set(RECIPES["flow"]().rows) == set(TABLES)


def test_the_same_again_and_longer(ebbtide, runs, tmp_path):
    assert ebbtide("train", "flow", "--data", "rings", "--steps", "4", *QUICK, "--keep", "3", "--out", "one")[0] == 0
    code, _, err = ebbtide("train", "--from", "one")
    assert (code, "the run is one-again" in err) == (0, True)
    one, two = (tmp_path / name / "checkpoints" / "last" / "model.safetensors" for name in ("one", "one-again"))
    assert one.read_bytes() == two.read_bytes()
    assert stored(tmp_path / "one-again")["keep"] == 3
    assert ebbtide("train", "--from", "one", "--steps", "6", "--keep", "1", "--out", "longer", "--quiet")[0] == 0
    assert recipe_of(tmp_path / "longer") == dataclasses.replace(recipe_of(tmp_path / "one"), steps=6)
    assert stored(tmp_path / "longer")["keep"] == 1
    code, text, _ = ebbtide("train", "--from", "one", "--print-config")
    assert (code, tomllib.loads(text)["data"], tomllib.loads(text)["keep"]) == (0, "rings", 3)
    assert "--from one has its own recipe; leave flow out." in ebbtide("train", "flow", "--from", "one")[2]


def test_longer_than_a_search_falls_over_all_its_steps(ebbtide, runs, tmp_path):
    """A run whose number of steps was found by held-out loss has the learning rate of more; another number is whole."""
    stranger(runs / "flow", tmp_path / "one", lr_steps=50)
    same = tomllib.loads(ebbtide("train", "--from", "one", "--print-config")[1])
    assert (same["steps"], same["lr_steps"]) == (20, 50)
    longer = tomllib.loads(ebbtide("train", "--from", "one", "--steps", "9000", "--print-config")[1])
    assert (longer["steps"], longer["lr_steps"], longer["validation"]) == (9000, 0, 0.0)


def test_a_strangers_run_trains_again_only_on_what_is_named(ebbtide, runs, table, tmp_path):
    """The rules of `from_pretrained`: nothing of this user's is opened by a run's own word."""
    stranger(runs / "flow", tmp_path / "theirs", data=str(table), label="kind")
    code, _, err = ebbtide("train", "--from", "theirs", *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert f"This run was trained on {table}, which is opened only if you name it too: --data {table}" in err
    fine = ["--steps", "2", "--batch", "16", "--no-fit", "--quiet", "--snapshots", "0"]
    assert ebbtide("train", "--from", "theirs", "--data", table, *fine)[0] == 0
    assert ebbtide("export", "theirs-again", "--out", "shared")[0] == 0
    code, _, err = ebbtide("train", "--from", "shared", *fine)
    assert (code, "This run was trained on plants.csv, which is opened only if" in err) == (2, True)
    assert ebbtide("train", "--from", "shared", "--data", table, *fine)[0] == 0
