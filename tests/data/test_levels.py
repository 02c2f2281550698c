"""Which values become 0 and 255 is written and read without loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from ebbtide.data.levels import Levels, on_white
from ebbtide.errors import InputError


@given(low=st.floats(-1e9, 1e9, allow_subnormal=False), span=st.floats(1e-3, 1e9))
def test_levels_are_written_and_read(low, span):
    levels = Levels(low, low + span)
    if levels.low < levels.high:
        assert Levels.parse(str(levels)) == levels


def test_levels_in_words():
    assert str(Levels(300, 2200)) == "300:2200"
    assert Levels.parse("-0.5:1e3") == (-0.5, 1000)
    for wrong in ("", "3", "1:2:3", "a:b", "2:1", "nan:1", "0:inf", "0-5"):
        with pytest.raises(InputError, match="value_range must be LOW:HIGH, two numbers, the lower first; got"):
            Levels.parse(wrong)


def test_on_white():
    """0.2 · 100 + 0.8 · 255 = 224."""
    x = np.array([100, 0, 255, 51], np.uint8).reshape(1, 4, 1, 1)
    assert on_white(x).ravel().tolist() == pytest.approx([224, 204, 255])
    assert on_white(torch.from_numpy(x)).flatten().tolist() == pytest.approx([224, 204, 255])
