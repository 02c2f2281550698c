"""Where data lie: batches are the same from the device, memory and the disk, and it is said where that is."""

import numpy as np
import pytest
import torch

from ebbtide.core.randomness import generator
from ebbtide.data import Windows, place
from ebbtide.data.gather import Source, gather
from ebbtide.data.levels import Decoded
from ebbtide.data.place import PLACES, Fetched, said, settled_on
from ebbtide.data.prepared import TensorData
from ebbtide.data.shards import Shards
from ebbtide.errors import InputError
from ebbtide.kinds.images.conditions import WithGiven
from ebbtide.kinds.images.data import see

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path))
    image = lambda i, *_: Decoded(np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8))
    made = Source(50, image, str, "the set", "s")
    x, shards = (gather(made, on_disk=flag, progress=False)[0] for flag in (False, True))
    assert isinstance(shards, Shards)
    return x, shards


def test_a_batch_is_the_same_wherever_it_comes_from(sources):
    x, shards = sources
    labels, numbers = torch.arange(50) % 3, torch.randn(50, 2)
    places = torch.tensor([49, 3, 3, 17])
    for wrap in (
        lambda data: data,
        lambda data: WithGiven(data, 0.3, 2),
        lambda data: WithGiven(data, 0.3, 0, numbers),
    ):
        whole = wrap(TensorData(x, labels, prepare=lambda x, draw: see(x, draw, flip=True)))
        expected = whole.take(places, generator(1))
        on_disk = wrap(TensorData(shards, labels, prepare=lambda x, draw: see(x, draw, flip=True)))
        fetched = Fetched(x, CPU)
        others = [
            settled_on(on_disk, CPU, "disk"),
            settled_on(on_disk, CPU),
            settled_on(on_disk, CPU, "host"),
            settled_on(whole, CPU),
        ]
        others += [wrap(TensorData(fetched, labels, prepare=lambda x, draw: see(x, draw, flip=True)))]
        assert [bool(one.ahead) for one in others] == [True, True, False, False, True]
        for data in others:
            found = data.take(places, generator(1))
            assert found.keys() == expected.keys()
            assert all(torch.allclose(found[key], expected[key], rtol=0, atol=0, equal_nan=True) for key in found)


def test_what_does_not_fit_on_the_device_is_fetched(sources):
    """On a device with another memory; meta stands for it."""
    x, shards = sources
    assert isinstance(settled_on(TensorData(x), META, "host").x, Fetched)
    assert isinstance(settled_on(TensorData(x), META, "device").x, torch.Tensor)
    assert isinstance(settled_on(TensorData(x), META).x, torch.Tensor)
    assert isinstance(settled_on(TensorData(shards), META, "device").x, torch.Tensor)
    assert isinstance(settled_on(TensorData(shards), META).x, Fetched)
    assert settled_on(TensorData(x), META, "host").x.index_select(0, torch.tensor([2, 3])).device == META


def test_parts_of_data_go_to_a_device_together(monkeypatch):
    """Actions alone would fit on it."""
    windows = Windows(torch.zeros(10, 2), torch.tensor([10]), 4, 1, torch.zeros(10, 3))
    for free, kind in ((200 / 0.8, torch.Tensor), (199 / 0.8, Fetched)):
        monkeypatch.setattr(place, "_free", lambda device, free=free: free)
        found = settled_on(windows, META)
        assert isinstance(found.action, kind)
        assert isinstance(found.state, kind)
    assert found.ahead
    assert found.ends.device == CPU  # where its steps are found
    assert {part.device for part in found.take(torch.tensor([3, 9])).values()} == {META}
    assert said(found, "auto") == "10 examples, 200 B, lie in memory."


@pytest.mark.parametrize("on", PLACES)
def test_where_data_lie_is_said_where_it_is_not_plain(sources, on):
    x, shards = sources
    data = TensorData(shards if on == "disk" else x)
    words = {"auto": "", "device": "lie on cpu.", "host": "lie on cpu.", "disk": "lie on the disk."}[on]
    text = said(settled_on(data, CPU, on), on)
    assert text == (words and f"50 examples, 2.4 kB, {words}")
    assert said(WithGiven(settled_on(data, CPU, on), 0.1, 2), on) == text
    assert said(settled_on(TensorData(x), META, "host"), "host").endswith("lie in memory.")


def test_what_is_in_memory_is_not_on_the_disk(sources):
    with pytest.raises(InputError, match="these data are in memory; only images and episodes are kept there"):
        settled_on(TensorData(sources[0]), CPU, "disk")
    with pytest.raises(InputError, match="data_on must be one of"):
        settled_on(TensorData(sources[0]), CPU, "tape")
