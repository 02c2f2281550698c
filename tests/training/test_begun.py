"""A run that has begun: which of its folders a resumed run goes on in."""

from ebbtide.training.begun import begun, codec_of, reached, recipe_of, stored
from ebbtide.training.stopping import SEARCH
from training.runs import STEPS, run, tiny


def test_a_run_is_in_its_folder_or_in_that_of_its_search(tmp_path):
    folder = tmp_path / "run"
    assert begun(folder) is None
    run(tiny(), folder / SEARCH)
    assert begun(folder) == folder / SEARCH
    run(tiny(), folder, overwrite=True)
    assert begun(folder) == folder


def test_recipe_options_and_progress_are_those_of_the_newest_checkpoint(tmp_path):
    folder = tmp_path / "run"
    assert (stored(folder), reached(folder), codec_of(folder)) == ({}, 0, None)
    run(tiny(), folder, keep=3)
    assert (recipe_of(folder), reached(folder), stored(folder)["keep"]) == (tiny(), STEPS, 3)
    assert codec_of(folder) is not None
