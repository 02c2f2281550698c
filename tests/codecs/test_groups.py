"""Which column each number of a code belongs to, and which of them tell whether there is a cell."""

import pytest
import torch

from ebbtide.codecs import Missing, Ranks, Standardise, fit_table, groups

NAN = float("nan")
# Numbers, levels with a gap, numbers with a gap, levels, many levels.
TABLE = torch.tensor([[1, 0, 5, 2, 0], [2, NAN, NAN, 0, 8], [4, 1, 7, 1, 3], [9, 0, 6, 2, 1.0]])


@pytest.mark.parametrize("codec", [None, Standardise((0.0,) * 3, (1.0,) * 3), Ranks.fit(torch.rand(9, 3))])
def test_a_number_per_column_is_its_own_group(codec):
    found = groups(codec, 3)
    assert found.column.tolist() == [0, 1, 2]
    assert not found.tells.any()


def test_a_change_of_one_column_changes_its_own_numbers_alone():
    codec = fit_table(TABLE, [0, 2, 0, 3, 9])
    found, z = groups(codec, 5), codec.encode(TABLE)
    assert len(found.column) == len(found.tells) == z.shape[1]
    for k in range(5):
        other = TABLE[2:].clone()
        other[:, k] = TABLE[[3, 2], k]
        changed = (codec.encode(other) != z[2:]).any(0)
        assert bool(changed.any())
        assert set(found.column[changed].tolist()) == {k}


def test_only_the_numbers_that_tell_differ_between_a_cell_and_none():
    codec = fit_table(TABLE, [0, 2, 0, 3, 9])
    found = groups(codec, 5)
    assert sorted(found.column[found.tells].tolist()) == [1, 2]  # the columns with gaps
    z, row = codec.encode(TABLE), TABLE[1].clone()
    row[[1, 2]] = torch.tensor([1.0, 7.0])
    there = codec.encode(row[None])[0]
    assert bool((there[found.tells] != z[1, found.tells]).all())
    assert torch.equal(there[found.tells], z[2, found.tells])
    alone = Missing.fit(TABLE[:, [0, 2]])
    assert groups(alone, 2).column.tolist() == [0, 1, 0, 1]
    assert groups(alone, 2).tells.tolist() == [False, False, True, True]
