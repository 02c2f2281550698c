"""Weights from outside: what can't be read, and what can be but isn't a network's."""

import pytest
import torch
from safetensors.torch import save

from ebbtide.errors import InputError
from ebbtide.tensors import read_weights, sound, unpack

GOOD = {"a.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3), "b.running_var": torch.tensor([0.0, 1.0])}


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(save(GOOD))
    found = read_weights(tmp_path / "w.safetensors")
    assert found.keys() == GOOD.keys()
    assert all(torch.equal(found[name], part) for name, part in GOOD.items())


@pytest.mark.parametrize("data", [b"", b"no tensors", save(GOOD)[:-1], (2**60).to_bytes(8, "little") + b"{}"])
def test_what_is_no_file_of_tensors_is_one_sentence(data):
    with pytest.raises(InputError, match=r"^here is not a readable safetensors file: .*\.$"):
        unpack(data, "here")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("a.weight", float("nan"), "here holds numbers that are not finite."),
        ("a.weight", float("inf"), "here holds numbers that are not finite."),
        ("b.running_var", -1e-9, "here holds a variance below 0, in b.running_var."),
    ],
)
def test_what_no_network_can_hold_is_refused(name, value, says):
    bad = {key: part.clone() for key, part in GOOD.items()}
    bad[name].view(-1)[1] = value
    with pytest.raises(InputError) as error:
        sound(bad, "here")
    assert str(error.value) == says
