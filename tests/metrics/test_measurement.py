import math
import re
from dataclasses import replace

import pytest

from ebbtide.metrics import Measurement, table


@pytest.mark.parametrize(("p", "expected"), [(0.5, True), (0.01, True), (0.0099, False), (math.nan, False)])
def test_at_floor_is_one_in_a_hundred(p, expected):
    assert Measurement("m", 1.0, 0.9, 1.1, 0.5, 0.4, 0.6, "lower", error=0.1, p=p).at_floor is expected


def test_the_table_shows_the_difference_with_its_error_and_p():
    shown = Measurement("m", 1.0, 0.9, 1.1, 0.53, 0.4, 0.6, "lower", error=0.0712, p=0.2)
    line = table([shown, replace(shown, p=1e-12), replace(shown, floor=math.nan, error=math.nan, p=math.nan)])
    rows = [re.split("  +", row) for row in line.splitlines()[2:]]
    assert rows[0] == ["m", "1", "0.9 to 1.1", "0.53", "+0.47 ± 0.07", "0.2", "lower", "at the floor"]
    assert rows[1][5:] == ["< 1e-09", "lower"]
    assert rows[2][3:] == ["-", "-", "-", "lower"]
    assert rows[3] == ["p: the probability that real data score as far off, or worse; at the floor: p ≥ 0.01"]
    assert "p:" not in table([replace(shown, p=math.nan)])
