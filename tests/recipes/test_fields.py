"""The keywords of recipe functions are the fields of their recipes, with the same types."""

import dataclasses
import typing

import numpy as np
import pytest

from ebbtide.errors import InputError
from ebbtide.recipes import RECIPES, ImageRecipe, PointRecipe, RobotRecipe, flow, flow_policy, pi0
from ebbtide.recipes.fields import ImageFields, PointFields, RobotFields


@pytest.mark.parametrize(
    ("fields", "recipe"), [(PointFields, PointRecipe), (ImageFields, ImageRecipe), (RobotFields, RobotRecipe)]
)
def test_keywords_are_the_fields_of_the_recipe(fields, recipe):
    assert typing.get_type_hints(fields) == {field.name: field.type for field in dataclasses.fields(recipe)}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_any_of_its_fields(name):
    row = RECIPES[name]
    assert row(steps=7, seed=5, data="x.npz") == dataclasses.replace(row(), steps=7, seed=5, data="x.npz")
    with pytest.raises(TypeError, match="stepz"):
        row(stepz=7)


def test_a_field_wins_over_the_row():
    assert flow(sampler="ddim", data="two_moons").sampler == "ddim"


def test_an_objective_decides_what_is_left_open():
    assert flow_policy(objective="diffusion") == flow_policy().with_objective("diffusion")
    assert pi0(objective="diffusion", sample_steps=3).sample_steps == 3
    assert pi0(objective="diffusion").target == "noise"


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
