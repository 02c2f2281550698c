"""The fields of recipes are checked once: their types, and their ranges."""

import dataclasses

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.recipes import RECIPE_TYPES, flow
from ebbtide.recipes.checks import RANGES


def test_every_number_has_a_range():
    fields = {field.name: field.type for row in RECIPE_TYPES.values() for field in dataclasses.fields(row)}
    assert {name for name, kind in fields.items() if kind in (int, float)} == set(RANGES)


@pytest.mark.unchecked
def test_numbers_of_numpy_are_numbers():
    recipe = flow(steps=np.int64(7), lr=np.float32(0.5), seed=np.int32(2))
    assert recipe == flow(steps=7, lr=0.5, seed=2)
    assert {type(recipe.steps), type(recipe.seed)} == {int}
    assert type(recipe.lr) is float


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("steps", "5", "steps must be a whole number, at least 1 and at most 1000000000000; got '5'."),
        ("steps", 5.0, "steps must be a whole number, at least 1 and at most 1000000000000; got 5.0."),
        ("steps", True, "steps must be a whole number, at least 1 and at most 1000000000000; got True."),
        ("lr", None, "lr must be a number, at least 0 and at most 1000; got None."),
        ("lr", 10**400, f"lr must be at least 0 and at most 1000; got an int, 1{'0' * 39}…."),
        ("ema", 1.0, "ema must be at least 0 and below 1; got 1.0."),
        ("conditional", "no", "conditional must be True or False; got 'no'."),
        ("conditional", 1, "conditional must be True or False; got 1."),
        ("path", None, "path must be a text; got None."),
        ("data", 5, "data must be a text; got 5."),
    ],
)
@pytest.mark.unchecked
def test_a_value_of_another_type_is_one_sentence(field, value, words):
    with pytest.raises(InputError) as refused:
        flow(**{field: value})
    assert str(refused.value) == words
