"""What is kept comes back exactly, and what is damaged, missing or can't be written does no harm."""

import pytest
import torch

from ebbflow.cache import cache_folder, fetch, fingerprint, store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EBBFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_stored_is_fetched(folder):
    tensors = {"b": torch.randn(3, 4).T, "a": torch.arange(5)}
    assert fetch("one") is None
    store("one", tensors, accuracy="0.97")
    found, about = fetch("one")
    assert about["accuracy"] == "0.97"
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], part) for name, part in tensors.items())
    assert [path.name for path in folder.iterdir()] == ["one.safetensors"]
    store("one", {"a": torch.zeros(2)})
    assert fetch("one")[0]["a"].tolist() == [0, 0]


def test_damage_is_as_good_as_nothing(folder):
    store("one", {"a": torch.arange(100)})
    data = bytearray((folder / "one.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "one.safetensors").write_bytes(data)
    assert fetch("one") is None
    (folder / "one.safetensors").write_bytes(data[:50])
    assert fetch("one") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBBFLOW_CACHE", str(tmp_path / "file"))
    store("one", {"a": torch.zeros(1)})
    assert fetch("one") is None


def test_a_fingerprint_tells_values_shapes_and_words_apart():
    a = torch.arange(6)
    every = [([a], 1), ([a + 1], 1), ([a.reshape(2, 3)], 1), ([a], 2), ([a, a], 1), ([a[:3], a[3:]], 1), ([], 1)]
    found = {fingerprint(word, tensors=tensors) for tensors, word in every}
    assert len(found) == len(every)
    assert fingerprint(1, tensors=[torch.arange(6)]) == fingerprint(1, tensors=[a])


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("EBBFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ebbflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ebbflow"
