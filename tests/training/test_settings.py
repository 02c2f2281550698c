"""How a run is trained, as it is stored; and what tells its data from other data."""

import pytest
import torch

from ebbtide.data.prepared import TensorData
from ebbtide.errors import InputError
from ebbtide.training.settings import data_fingerprint, how, same


def test_data_is_itself_and_nothing_else():
    """Another machine's last bits are no other data; a value moved, two rows swapped, or a type is."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    of = lambda x, labels=None: data_fingerprint(TensorData(x, labels))
    assert same(of(x), of(x * (1 + 1e-7)))
    for other in (x.flip(0), x[:49], torch.cat([x, x[:1]]), x.reshape(75, 2), x.index_fill(0, torch.tensor(7), 0.5)):
        assert not same(of(x), of(other))
    labels = torch.arange(50) % 2
    assert same(of(x, labels), of(x, labels.clone()))
    assert not same(of(x, labels), of(x, 1 - labels))
    assert not same(of(x, labels), of(x))
    pixels = (x * 50).to(torch.uint8)
    assert not same(of(pixels), of(pixels.roll(1, 1)))


@pytest.mark.parametrize(
    "stored", [[], {"how": 1}, {"how": {"keep": "2"}}, {"how": {"keep": True}}, {"how": {"no": 1}}]
)
def test_settings_that_are_none_are_refused(stored):
    with pytest.raises(InputError, match=r"running\.json is damaged"):
        how(stored, "run")


def test_a_run_without_settings_has_none():
    assert how({}, "run") == {}
