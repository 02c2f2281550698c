"""Which values become 0 and 255 is written and read without loss."""

import pytest
from hypothesis import given, strategies as st

from ebbflow.data.levels import Levels
from ebbflow.errors import InputError


@given(low=st.floats(-1e9, 1e9), span=st.floats(1e-3, 1e9))
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
