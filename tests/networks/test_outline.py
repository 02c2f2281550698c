"""An outline is the network in every part but its numbers."""

import subprocess
import sys

import pytest
import torch

from ebbtide.networks import NETWORKS
from ebbtide.networks.outline import Outline, fill
from ebbtide.specs import bind

SEEN = {"observation": {"state": (1, 3)}}
ROWS = {
    "mlp": ((2, 3), {}),
    "unet:width=8,groups=2": ((1, 8, 8, 3), {}),
    "unet-ddpm-cifar10:width=32,head=64": ((3, 8, 8, 3), {}),
    "dit:width=24,head=12": ((1, 8, 8, 3), {}),
    "dit-tiny:positions=rotary": ((1, 8, 8, 0), {}),
    "action_expert:width=16,heads=2,head=8": ((4, 2), SEEN),
    "action_unet:width=8,emb=16": ((4, 2), SEEN),
    "action_transformer:width=16,head=8,emb=16": ((4, 2), {"observation": {"images": (1, 96, 96, 3)}}),
}


def made(spec):
    shape, told = ROWS[spec]
    torch.manual_seed(0)
    return bind(NETWORKS, spec, "network")(*shape, **told)


@pytest.mark.parametrize("spec", ROWS)
def test_an_outline_has_every_part_and_no_numbers(spec):
    """Names, shapes, types and what is trained are the network's; with its weights set, so is every output."""
    whole = made(spec)
    with Outline():
        outline = made(spec)
    parts = dict(whole.named_parameters())
    assert {name: (p.shape, p.dtype, p.requires_grad) for name, p in outline.named_parameters()} == {
        name: (p.shape, p.dtype, p.requires_grad) for name, p in parts.items()
    }
    assert sum(p.numel() for p in outline.parameters() if not p.is_meta) <= sum(p.numel() for p in parts.values()) / 10
    outline.load_state_dict({name: part.clone() for name, part in whole.state_dict().items()}, assign=True)
    assert [name for name, p in outline.named_parameters() if p.requires_grad != parts[name].requires_grad] == []
    given, buffers = outline.state_dict(), dict(whole.named_buffers())
    assert all(torch.equal(p, given[name]) for name, p in parts.items())
    assert dict(outline.named_buffers()).keys() == buffers.keys()
    assert all(torch.equal(part, buffers[name]) for name, part in outline.named_buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_other_types_and_layouts_are_taken_as_the_network_has_its_own(dtype):
    whole = made("unet:width=8,groups=2")
    with Outline():
        outline = made("unet:width=8,groups=2")
    given = {name: part.to(dtype).contiguous() for name, part in whole.state_dict().items()}
    fill(outline, given)
    for name, part in whole.state_dict().items():
        now = outline.state_dict()[name]
        assert (now.dtype, now.stride(), now.device) == (part.dtype, part.stride(), part.device), name
        assert torch.equal(now, given[name].float()), name
    layouts = [p.is_contiguous(memory_format=torch.channels_last) for p in outline.parameters() if p.ndim == 4]
    assert layouts
    assert all(layouts)


def test_it_ends_where_it_is_left():
    with Outline():
        assert torch.nn.Linear(2, 2).weight.is_meta
    layer = torch.nn.Linear(2, 2)
    assert not layer.weight.is_meta
    assert float(layer.weight.detach().abs().sum()) > 0


def test_it_takes_no_memory_and_no_compiler():
    """A network of 3 TB; torch.device("meta") would import sympy and torch._dynamo for it."""
    code = """
import sys
from ebbtide.networks import NETWORKS
from ebbtide.networks.outline import Outline
with Outline():
    made = NETWORKS["mlp"](2, 10, width=2**16, depth=200)
print(sum(p.numel() for p in made.parameters()) > 8 * 10**11, *{"sympy", "torch._dynamo"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
