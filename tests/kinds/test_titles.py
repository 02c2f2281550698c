"""Titles of figures of samples."""

from dataclasses import replace

from ebbtide.kinds.runs import begin
from ebbtide.kinds.titles import title_of
from ebbtide.recipes import PointRecipe


def test_a_title_has_the_data_the_method_the_way_and_the_number():
    trained, _ = begin(replace(PointRecipe(), data="two_moons", points=100))
    assert title_of(trained) == "two_moons · linear path, velocity target"
    assert title_of(trained, "heun, 50 steps", 1000) == (
        "two_moons · linear path, velocity target · heun, 50 steps · n = 1,000"
    )
