"""The keywords of recipe functions are the fields of their recipes, with the same types."""

import dataclasses
import typing

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
    assert row(seed=5, data="x.npz") == dataclasses.replace(row(), seed=5, data="x.npz")
    settled = {"validation": 0.0, "held_out": 0.2} if row().kind == "points" else {}
    assert row(steps=7) == dataclasses.replace(row(), steps=7, **settled)
    with pytest.raises(InputError, match="no field stepz"):
        row(stepz=7)


def test_a_field_wins_over_the_row():
    assert flow(sampler="ddim", data="two_moons").sampler == "ddim"


def test_an_objective_decides_what_is_left_open():
    assert flow_policy(objective="diffusion") == flow_policy().with_objective("diffusion")
    assert pi0(objective="diffusion", sample_steps=3).sample_steps == 3
    assert pi0(objective="diffusion").target == "noise"
