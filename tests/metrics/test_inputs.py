"""What metrics refuse, each in one sentence."""

import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import inputs

X = torch.zeros(5, 2)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "call",
    [
        lambda: inputs.points(torch.zeros(0, 2)),
        lambda: inputs.points(torch.zeros(())),
        lambda: inputs.points([[0.0, 1.0]]),
        lambda: inputs.points(torch.tensor([[1.0, float("nan")]])),
        lambda: inputs.points(X, at_least=6),
        lambda: inputs.pair(X, torch.zeros(5, 3)),
        lambda: inputs.checked_mixture(X, torch.zeros(3, 3)),
        lambda: inputs.checked_mixture(X, torch.zeros(3, 2), std=0.0),
        lambda: inputs.checked_mixture(X, torch.zeros(3, 2), std="1"),
    ],
)
def test_unusable_points_are_one_sentence(call):
    with pytest.raises(InputError) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_points_of_any_shape_become_a_float64_table():
    table = inputs.points(torch.arange(24.0).reshape(4, 2, 3))
    assert table.shape == (4, 6)
    assert table.dtype == "float64"
    assert table[1].tolist() == [6, 7, 8, 9, 10, 11]
