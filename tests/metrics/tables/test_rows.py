"""Units against hand-worked numbers; labels beside rows."""

import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics.tables import Rows, Units
from metrics.tables.people import LEVELS, NAMES, people


def test_units_are_standard_deviations_levels_one_apart_and_gaps_at_the_mean():
    x = torch.tensor([[0.0, 0.0, 5.0], [2.0, 1.0, torch.nan], [4.0, 1.0, 7.0]])
    train = Rows.of(x, ("n", "kind", "gap"), ((), ("a", "b"), ()))
    z, names = Units(train).numbers(train)
    half = 0.5**0.5
    assert names == ("n", "kind=a", "kind=b", "gap", "gap missing")
    assert np.allclose(z[:, 0], [-1, 0, 1])  # mean 2, standard deviation 2 with n - 1
    assert np.allclose(z[:, 1:3], [[half, 0], [0, half], [0, half]])
    assert np.linalg.norm(z[0, 1:3] - z[1, 1:3]) == pytest.approx(1)
    assert np.allclose(z[:, 3], [-half, 0, half])
    assert np.allclose(z[:, 4], [0, half, 0])


def test_constant_and_empty_columns_have_no_distance():
    rows = people(50)
    z, names = Units(rows).numbers(rows)
    assert np.isfinite(z).all()
    assert not z[:, names.index("same")].any()
    assert not z[:, names.index("gone")].any()


def test_labels_are_the_last_column_and_names_are_checked():
    rows = Rows.of(torch.zeros(2, 1)).beside(torch.tensor([1, 0]), "label", ["x", "y"])
    assert rows.names == ("column 1", "label")
    assert rows.levels == ((), ("x", "y"))
    assert rows.x[:, 1].tolist() == [1, 0]
    assert rows.column("label") == 1
    with pytest.raises(InputError, match="The column must be one of column 1, label"):
        rows.column("other")
    with pytest.raises(InputError, match="levels must be given for 2 columns"):
        Rows(np.zeros((1, 2)), ("a", "b"), ((),))
    assert people(5).names == NAMES
    assert people(5).levels == LEVELS


def test_values_are_those_of_float32():
    """Data is kept so: 0.1 of a generator in float64 would be no copy of it."""
    rows = Rows.of(torch.tensor([[0.1]], dtype=torch.float64))
    assert rows.x[0, 0] == float(np.float32(0.1))
