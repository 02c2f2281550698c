"""Arguments of samples as tensors and times, whatever a user's arrays are made of."""

import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.training.asked import ends_of, numbers, tensor_of

ROWS = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    "given",
    [
        ROWS[::-1][::-1], ROWS.astype(">f8"), ROWS.astype(np.longdouble), ROWS.astype(">i2"), np.asfortranarray(ROWS),
        ROWS.astype(np.float32), ROWS.tolist(), np.ma.masked_array(ROWS, False), torch.tensor(ROWS),
    ],
)  # fmt: skip
def test_numbers_are_what_they_are_in_any_layout(given):
    assert tensor_of("x", given).double().tolist() == ROWS.tolist()


def test_a_masked_number_is_none():
    found = tensor_of("x", np.ma.masked_array([[1, 2], [3, 4]], [[0, 1], [0, 0]]))
    np.testing.assert_array_equal(found.numpy(), [[1, np.nan], [3, 4]])


@pytest.mark.parametrize(
    "given",
    [
        np.array([1, None]), np.array(["1"]), [[1], [2, 3]], [1, "x"], None, np.array(["2020-01-01"], np.datetime64),
        torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta"),
    ],
)  # fmt: skip
@pytest.mark.unchecked
def test_what_holds_no_numbers_is_one_sentence(given):
    with pytest.raises(InputError, match=r"^start must ") as refused:
        tensor_of("start", given)
    assert "\n" not in str(refused.value)


def test_numbers_of_samples_may_run_backwards():
    assert numbers(np.arange(3)[::-1], 3).tolist() == [2, 1, 0]


def test_an_interval_is_two_times_in_any_container():
    for given in ((0.25, 1), [0.25, 1.0], np.array([0.25, 1.0]), torch.tensor([0.25, 1.0])):
        assert ends_of(given) == (0.25, 1.0)
    for given in ((0.5, 0.5), (0, 1, 2), None, "ab", torch.tensor(0.5)):
        with pytest.raises(InputError, match="interval"):
            ends_of(given)
