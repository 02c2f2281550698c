"""The device of a run, and of a network that is lent to one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.errors import InputError
from ebbtide.training.devices import device_of, lend, place_of, placed


@pytest.fixture
def accelerators(monkeypatch):
    """accelerators(n): a machine with n GPUs, as torch describes it."""

    def have(count):
        monkeypatch.setattr("torch.accelerator.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
        monkeypatch.setattr("torch.accelerator.device_count", lambda: count)

    return have


def test_auto_is_the_first_accelerator_or_the_cpu(accelerators):
    accelerators(0)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    accelerators(2)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert device_of("cuda:1") == torch.device("cuda", 1)
    assert device_of("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "mps", "", "gpu", "CUDA", "cuda:-1", "cpu:0", "meta"])
def test_a_device_that_is_not_there_is_one_sentence(accelerators, name):
    accelerators(2)
    with pytest.raises(
        InputError, match=r"^device must be one of auto, cpu, cuda, cuda:0, cuda:1 on this machine; got "
    ):
        device_of(name)
    accelerators(0)
    with pytest.raises(InputError, match=rf"^device must be one of auto, cpu on this machine; got '{name}'\.$"):
        device_of(name)


@pytest.fixture
def state(monkeypatch):
    """state(processes): what accelerate says of this process."""

    def of(processes):
        one = SimpleNamespace(num_processes=processes, device=torch.device("cuda", 0))
        monkeypatch.setattr("accelerate.PartialState", lambda cpu: one)
        return one

    return of


def test_a_single_process_is_put_on_its_device(accelerators, state):
    accelerators(2)
    for name in ("cuda:1", "cpu", "cuda"):
        assert placed(name).device == state(1).device or placed(name).device == torch.device(name)


def test_one_device_is_not_for_several_processes(accelerators, state):
    accelerators(2)
    state(2)
    assert placed("auto").device == placed("cuda").device == torch.device("cuda", 0)
    for name in ("cuda:1", "cpu"):
        with pytest.raises(InputError, match=f"device '{name}' is for one process; each of the 2 takes its own"):
            placed(name)


class Elsewhere(nn.Module):
    """A network that notes where its inputs are, and answers on the CPU, since nothing real can come from `meta`."""

    spans = False

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(1)), []

    def forward(self, x, t, label=None, context=None):
        self.seen += [part.device.type for part in (x, t, label, *context)]
        return torch.ones(x.shape)


def test_a_lent_network_gets_its_inputs_where_it_is_and_answers_where_x_is():
    network = Elsewhere()
    denoiser, x = Denoiser(network, Linear()), torch.zeros(3, 2)
    names = list(denoiser.state_dict())
    assert place_of(denoiser) == torch.device("cpu")
    lend(denoiser, torch.device("meta"))
    lend(denoiser, torch.device("meta"))  # as evaluate does, for each draw
    out = denoiser(x, 0.5, label=torch.zeros(3, dtype=torch.int64), context=(x, x))
    assert network.seen == ["meta"] * 5
    assert network.weight.device.type == "meta"
    assert (out.x0.device, place_of(denoiser)) == (torch.device("cpu"), torch.device("cpu"))
    assert list(denoiser.state_dict()) == names


def test_what_computes_on_the_cpu_is_left_as_it_is():
    denoiser = Denoiser(Elsewhere(), Linear())
    lend(denoiser, torch.device("cpu"))
    assert not denoiser.network._forward_hooks
    assert not hasattr(denoiser.network, "lent")
