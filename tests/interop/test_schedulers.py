import importlib
import math

import pytest

from ebbtide.errors import InputError
from ebbtide.interop.diffusers import from_diffusers
from ebbtide.interop.schedulers import SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_no_value_is_named(name):
    """A setting of a kind that diffusers never writes, whatever the scheduler."""
    bad = {
        "num_train_timesteps": [True, 0, -1, 10.0, "10", 10**400], "steps_offset": [-1, "1", []],
        "eta": [math.nan, {}],
        "beta_schedule": [3, []], "prediction_type": [{}], "timestep_spacing": [1], "solver_type": [["bh1"]],
        "algorithm_type": [{}], "sigma_schedule": [2], "use_karras_sigmas": ["yes", 1], "clip_sample": [[]],
        "trained_betas": [3, "abc", [None], [[0.1]], ["0.1"], [2.0], {"a": 1}], "solver_order": [0, 2.5, [2]],
    }  # fmt: skip
    for key, value in ((key, value) for key, values in bad.items() for value in values):
        with pytest.raises(InputError, match=f"{key} must be"):
            from_diffusers({"_class_name": name, key: value})


@pytest.mark.parametrize("name", [[], {}, 3, None])
def test_a_name_that_is_none(name):
    with pytest.raises(InputError, match="_class_name must be one of"):
        from_diffusers({"_class_name": name})


def test_from_a_file_a_folder_or_a_scheduler(tmp_path):
    scheduler = importlib.import_module("diffusers").EulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.save_pretrained(tmp_path)
    assert from_diffusers(tmp_path) == from_diffusers(scheduler)
    assert from_diffusers(str(tmp_path / "scheduler_config.json")) == from_diffusers(scheduler)


@pytest.mark.parametrize("text", ["[]", "{", "", "[" * 100_000])
def test_a_file_that_is_no_config(tmp_path, text):
    (tmp_path / "scheduler_config.json").write_text(text)
    with pytest.raises(InputError, match="config"):
        from_diffusers(tmp_path)
    with pytest.raises(InputError, match="config"):
        from_diffusers(tmp_path / "missing.json")
    with pytest.raises(InputError, match="config"):
        from_diffusers(3)
