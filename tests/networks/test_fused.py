"""The fast norm and convolution say what torch says in float64, and so do their gradients, compiled or not."""

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from ebbtide.networks import fused

LAST = torch.channels_last
KINDS = ["compiled", "torch"]
NORMS = [  # b, c, h, w, groups; those with 2¹⁵ entries and more are compiled
    (8, 64, 8, 8, 32),
    (3, 96, 12, 10, 32),
    (1, 32, 32, 33, 8),
    (64, 512, 1, 1, 32),
    (2, 40, 20, 21, 8),
    (3, 12, 3, 5, 4),
    (2, 9, 1, 1, 3),
]
CONVOLUTIONS = [  # b, c, k, h, w; those with 16 tiles and 2²⁰ products and more are compiled
    (4, 64, 64, 16, 16),
    (2, 48, 80, 31, 38),
    (64, 128, 64, 4, 2),
    (128, 256, 128, 1, 1),
    (1, 32, 64, 50, 49),
    (2, 24, 40, 32, 32),
    (1, 3, 16, 8, 8),
]


@pytest.fixture(params=KINDS)
def kind(request):
    """Both ways, where both are there."""
    if request.param == "compiled" and not fused.native():
        pytest.skip("no C++ compiler here")
    with patch.object(fused, "_library", lambda: None) if request.param == "torch" else nullcontext():
        yield request.param


def normal(*shape, seed=0, last=True, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.to(memory_format=LAST) if last and x.ndim == 4 else x


def inputs_of_norm(b, c, h, w, last=True, dtype=torch.float32):
    """x off centre and uneven, so that a wrong mean or a wrong group shows."""
    x = normal(b, c, h, w, last=last, dtype=dtype) * torch.linspace(0.5, 2, c)[:, None, None].to(dtype) + 3
    rest = [normal(c, seed=1, dtype=dtype) + 1, normal(c, seed=2, dtype=dtype)]
    return [x, *rest, normal(b, c, seed=3, dtype=dtype) / 2, normal(b, c, seed=4, dtype=dtype)]


def reference(x, weight, bias, groups, eps, scale=None, shift=None):
    """By the definition, without torch's own group norm."""
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    h = (centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()).reshape(x.shape)
    h = h * weight[:, None, None] + bias[:, None, None]
    if scale is not None:
        h = h * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return h / (1 + torch.exp(-h))


def with_gradients(function, tensors, dy):
    """y and the gradients of all tensors."""
    tensors = [t.detach().requires_grad_() for t in tensors]
    y = function(*tensors)
    return [y.detach(), *torch.autograd.grad(y, tensors, dy.to(y))]


def close(got, expected, tolerance):
    """Within `tolerance` of the largest entry."""
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs.double()).abs().max() / theirs.abs().max().clamp(min=1e-3)
        assert error < tolerance


def run(code, *arguments, **environment):
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split(), answer.stderr


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("shape", NORMS)
def test_the_norm_and_its_gradients(kind, shape, last):
    *shape, groups = shape
    tensors, dy = inputs_of_norm(*shape, last=last), normal(*shape, seed=5)
    for count in (3, 5):
        call = lambda f: lambda x, weight, bias, *more: f(x, weight, bias, groups, 1e-5, *more)
        got = with_gradients(call(fused.norm_silu), tensors[:count], dy)
        expected = with_gradients(call(reference), [t.double() for t in tensors[:count]], dy)
        # Where a group is one number or little more, its x̂ and gradient are a small difference of large numbers.
        close(got, expected, 2e-5 if shape[1] // groups * shape[2] * shape[3] > 16 else 1e-3)
        assert got[0].is_contiguous(memory_format=LAST) or not last


def test_the_compiled_norm_is_compiled_and_torch_s_is_torch_s(kind):
    """That the two kinds above are two: the first shape goes one way, the odd one the other, whatever the kind."""
    for shape, compiled in ((NORMS[0], kind == "compiled"), (NORMS[4], False)):
        *shape, groups = shape
        x, weight, bias, *_ = (t.requires_grad_() for t in inputs_of_norm(*shape))
        y = fused.norm_silu(x, weight, bias, groups, 1e-5)
        assert (y.grad_fn.library is not None) == compiled


def test_of_the_maps_only_x_is_kept(kind):
    kept = []
    x, weight, bias, *_ = (t.requires_grad_() for t in inputs_of_norm(8, 64, 8, 8))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused.norm_silu(x, weight, bias, 32, 1e-5)
    maps = [t for t in kept if t.numel() >= x.numel()]
    assert [t.data_ptr() for t in maps] == [x.data_ptr()]


def test_one_shift_for_the_whole_batch(kind):
    x, weight, bias, scale, shift = inputs_of_norm(8, 64, 8, 8)
    got = fused.norm_silu(x, weight, bias, 32, 1e-5, scale[:1], shift[:1])
    close([got], [reference(x.double(), weight, bias, 32, 1e-5, scale[:1], shift[:1])], 2e-5)


def test_far_from_zero_the_compiled_statistics_hold():
    """At a mean of 1000 standard deviations float32 leaves x̂ four digits; sums of squares, torch's way, leave none."""
    if not fused.native():
        pytest.skip("no C++ compiler here")
    x, ones, zeros = normal(2, 64, 32, 32) + 1000, torch.ones(64), torch.zeros(64)
    close([fused.norm_silu(x, ones, zeros, 32, 1e-5)], [reference(x.double(), ones, zeros, 32, 1e-5)], 1e-3)


def test_extreme_values_do_not_overflow(kind):
    """silu(-1000) = 0, silu(1000) = 1000, and their derivatives 0 and 1."""
    x, bias = normal(8, 64, 8, 8), torch.full((64,), 1000.0)
    bias[:32] = -1000
    bias.requires_grad_()
    y = fused.norm_silu(x, torch.zeros(64), bias, 32, 1e-5)
    torch.testing.assert_close(y[:, :32], torch.zeros(8, 32, 8, 8), rtol=0, atol=1e-30)
    torch.testing.assert_close(y[:, 32:], torch.full((8, 32, 8, 8), 1000.0))
    (gradient,) = torch.autograd.grad(y.sum(), bias)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 512.0]).repeat_interleave(32))


def test_a_large_map_is_summed_as_well():
    """256 × 256 pixels of mean 3: one running sum in float32, as torch's, is off by 1e-4."""
    if not fused.native():
        pytest.skip("no C++ compiler here")
    x, weight, bias, *_ = inputs_of_norm(1, 16, 256, 256)
    dy = normal(1, 16, 256, 256, seed=5)
    call = lambda f: lambda x, weight, bias: f(x, weight, bias, 4, 1e-5)
    expected = with_gradients(call(reference), [x.double(), weight.double(), bias.double()], dy)
    close(with_gradients(call(fused.norm_silu), [x, weight, bias], dy), expected, 1e-5)


def test_bf16_stays_bf16(kind):
    x, weight, bias, scale, shift = inputs_of_norm(8, 64, 8, 8)
    dy = normal(8, 64, 8, 8, seed=5)
    call = lambda f: lambda x, *rest: f(x, *rest[:2], 32, 1e-5, *rest[2:])
    got = with_gradients(call(fused.norm_silu), [x.bfloat16(), weight, bias, scale, shift], dy)
    assert [t.dtype for t in got] == [torch.bfloat16] * 2 + [torch.float32] * 4
    rounded = [t.double() for t in (x.bfloat16(), weight, bias, scale, shift)]
    close(got, with_gradients(call(reference), rounded, dy), 0.03)


def test_compiled_bf16_is_computed_in_float32_and_rounded_once():
    """To the nearest: all but the few entries that lie within float32's own error of halfway are the exact ones'."""
    if not fused.native():
        pytest.skip("no C++ compiler here")
    x, weight, bias, scale, shift = inputs_of_norm(8, 64, 16, 16)
    dy = normal(8, 64, 16, 16, seed=5).bfloat16()
    call = lambda f: lambda x, *rest: f(x, *rest[:2], 32, 1e-5, *rest[2:])
    got = with_gradients(call(fused.norm_silu), [x.bfloat16(), weight, bias, scale, shift], dy)
    exact = [t.double() for t in (x.bfloat16(), weight, bias, scale, shift)]
    expected = with_gradients(call(reference), exact, dy)
    for ours, theirs in zip(got[:2], expected[:2]):
        assert ours.is_contiguous(memory_format=LAST)
        assert (ours != theirs.bfloat16()).double().mean() < 0.002
    close(got[2:], expected[2:], 1e-4)  # sums of numbers that were not rounded
    x.requires_grad_(False)[3, 5, 2, 1] = torch.nan
    y = fused.norm_silu(x.bfloat16(), weight, bias, 32, 1e-5)
    assert y[3, 4:6].isnan().all()  # the whole group
    assert y.isnan().sum() == 2 * 256


def test_the_norm_s_derivatives_by_finite_differences():
    tensors = [t.requires_grad_() for t in inputs_of_norm(2, 4, 3, 2, dtype=torch.float64)]
    call = lambda x, *rest: fused.norm_silu(x, *rest[:2], 2, 1e-3, *rest[2:])
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


@pytest.mark.parametrize("weights_last", [True, False])
@pytest.mark.parametrize("shape", CONVOLUTIONS)
def test_the_convolution_and_its_gradients(kind, shape, weights_last):
    b, c, k, h, w = shape
    x, dy = normal(b, c, h, w), normal(b, k, h, w, seed=1)
    weight, bias = normal(k, c, 3, 3, seed=2, last=weights_last), normal(k, seed=3)
    got = with_gradients(fused.conv3x3, [x, weight, bias], dy)
    expected = with_gradients(lambda *a: F.conv2d(*a, padding=1), [t.double() for t in (x, weight, bias)], dy)
    close(got, expected, 1e-5)
    assert got[0].is_contiguous(memory_format=LAST)


def test_the_compiled_convolution_is_compiled_and_torch_s_is_torch_s(kind):
    for shape, compiled in ((CONVOLUTIONS[0], True), (CONVOLUTIONS[1], True), (CONVOLUTIONS[5], False)):
        b, c, k, h, w = shape
        y = fused.conv3x3(normal(b, c, h, w), normal(k, c, 3, 3).requires_grad_())
        assert ("_Conv3x3" in type(y.grad_fn).__name__) == (compiled and kind == "compiled")


def test_only_the_gradients_that_are_wanted(kind):
    x, weight, bias = normal(4, 64, 16, 16), normal(64, 64, 3, 3), normal(64)
    for wanted in ({0}, {1}, {2}, {0, 2}):
        tensors = [t.clone().requires_grad_(i in wanted) for i, t in enumerate((x, weight, bias))]
        fused.conv3x3(*tensors).square().sum().backward()
        assert {i for i, t in enumerate(tensors) if t.grad is not None} == wanted


def test_a_gradient_of_the_gradient(kind):
    x, weight, bias = normal(4, 64, 16, 16), normal(64, 64, 3, 3) / 24, normal(64)

    def penalty(convolve, *tensors):
        tensors = [t.detach().requires_grad_() for t in tensors]
        y = F.silu(convolve(*tensors))
        (gradient,) = torch.autograd.grad(y.square().sum(), tensors[0], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), tensors)

    expected = penalty(lambda *a: F.conv2d(*a, padding=1), x.double(), weight.double(), bias.double())
    close(penalty(fused.conv3x3, x, weight, bias), expected, 2e-5)


def test_gradients_that_are_views_are_read_aright(kind):
    """The gradient of a sum is one number, expanded; that of a transposed map is transposed."""
    x, weight, bias, *_ = inputs_of_norm(4, 64, 16, 16)
    kernel, ramp = normal(64, 64, 3, 3), torch.arange(16.0)
    ours = lambda x: fused.conv3x3(x, kernel), lambda x: fused.norm_silu(x, weight, bias, 32, 1e-5)
    theirs = lambda x: F.conv2d(x, kernel.double(), padding=1), lambda x: reference(x, weight, bias, 32, 1e-5)
    for loss in (lambda y: y.sum(), lambda y: (y.transpose(2, 3).contiguous() * ramp).sum()):
        for f, g in zip(ours, theirs):
            a, b = x.clone().requires_grad_(), x.double().requires_grad_()
            loss(f(a)).backward()
            loss(g(b)).backward()
            close([a.grad], [b.grad], 5e-5)


SMALL = """
import torch
from ebbtide.networks import fused

def small(x, weight, bias, kernel):
    return fused.conv3x3(fused.norm_silu(x, weight, bias, 8, 1e-5, weight[None], bias[None]), kernel, bias)
"""
COMPILE = """
x = torch.randn(4, 64, 16, 16).to(memory_format=torch.channels_last)
inputs = [t.requires_grad_() for t in (x, torch.randn(64), torch.randn(64), torch.randn(64, 64, 3, 3) / 24)]
y, compiled = small(*inputs), torch.compile(small, backend="eager", fullgraph=True)(*inputs)
errors = [(y - compiled).abs().max() / y.abs().max()]
for a, b in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (y, compiled))):
    errors.append((a - b).abs().max() / a.abs().max())
print(float(max(errors)))

from ebbtide.networks.unet import UNet

other = {"conditioning": "add", "time": "timestep", "asymmetric": True, "patch": 2, "checkpointing": True}
for options in ({}, other):
    network = UNet(2, 12, 12, 3, width=8, multipliers="1-2", attention="0-1", blocks=1, groups=4, **options)
    for parameter in network.eval().parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    inputs = torch.randn(2, 2, 12, 12), torch.rand(2), torch.tensor([0, 3])
    y, compiled = network(*inputs), torch.compile(network, backend="eager", fullgraph=True)(*inputs)
    print(float((compiled - y).abs().max() / y.abs().max()))
"""


def test_torch_compile_sees_through_them_and_through_u_nets():
    """fullgraph raises where torch.compile would leave the graph. In a process of its own: the tests' checks of shapes,
    which no user has, can't be traced.
    """
    errors, _ = run(SMALL + COMPILE)
    assert len(errors) == 3
    assert max(map(float, errors)) < 1e-4


def test_forward_mode_and_vmap_see_through_them():
    x, weight, bias, kernel = (
        normal(4, 64, 16, 16),
        normal(64, seed=1),
        normal(64, seed=2),
        normal(64, 64, 3, 3, seed=3),
    )
    small = lambda x: fused.conv3x3(fused.norm_silu(x, weight, bias, 8, 1e-5, weight[None], bias[None]), kernel, bias)
    call = lambda x: small(x).square().mean()
    direction = normal(4, 64, 16, 16, seed=4)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(call(x), x)
    x = x.detach()
    _, derivative = torch.func.jvp(call, (x,), (direction,))
    torch.testing.assert_close(derivative, (gradient * direction).sum(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.func.grad(call)(x), gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    stacked = torch.func.vmap(lambda row: small(row[None])[0])(x)
    close([stacked], [small(x)], 1e-5)


def test_autocast_gets_bf16(kind):
    with torch.autocast("cpu", torch.bfloat16):
        y = fused.conv3x3(normal(4, 64, 16, 16), normal(64, 64, 3, 3))
    assert y.dtype == torch.bfloat16


def test_threads_do_not_change_a_bit():
    if not fused.native():
        pytest.skip("no C++ compiler here")
    x, weight, bias, scale, shift = inputs_of_norm(5, 64, 16, 16)
    kernel, dy, threads, found = normal(64, 64, 3, 3), normal(5, 64, 16, 16, seed=6), torch.get_num_threads(), []
    call = lambda x, kernel, *rest: fused.conv3x3(fused.norm_silu(x, *rest[:2], 32, 1e-5, *rest[2:]), kernel)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(with_gradients(call, [x, kernel, weight, bias, scale, shift], dy))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_the_module_is_a_convolution():
    layer = fused.Conv3x3(32, 48)
    plain = torch.nn.Conv2d(32, 48, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = normal(4, 32, 32, 32)
    close([layer(x)], [plain(x)], 1e-5)


def test_bf16_is_tried_once():
    fused.fast_bf16.cache_clear()
    first = fused.fast_bf16("cpu")
    with patch.object(fused, "_seconds", side_effect=AssertionError):
        assert fused.fast_bf16("cpu") is first


@pytest.mark.parametrize(("single", "half", "fast"), [(1.0, 0.5, True), (1.0, 1.5, False), (1.0, 40.0, False)])
def test_bf16_is_fast_where_it_takes_less_time(single, half, fast):
    fused.fast_bf16.cache_clear()
    with patch.object(fused, "_seconds", side_effect=[single] * 3 + [half] * 4):
        assert fused.fast_bf16("cpu") is fast
    fused.fast_bf16.cache_clear()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """As if nothing had been compiled yet, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fused._library.cache_clear()
    yield monkeypatch, tmp_path
    fused._library.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"), [
        ("EBBTIDE_NATIVE", "0"), ("CXX", "/nowhere/c++"), ("CXX", "false"), ("CXX", 'g++ "x'), ("CXX", "true"),
        ("XDG_CACHE_HOME", "file"),
    ],
)  # fmt: skip
def test_without_a_compiler_a_cache_or_the_wish_it_is_torch(fresh, name, value):
    """`false` is a compiler that fails, `true` one that makes nothing; a file is no folder to keep the library in."""
    monkeypatch, folder = fresh
    (folder / "file").write_text("")
    monkeypatch.setenv(name, str(folder / value) if value == "file" else value)
    assert not fused.native()
    x, weight = normal(4, 64, 16, 16), normal(64, 64, 3, 3)
    assert torch.equal(fused.conv3x3(x, weight), F.conv2d(x, weight, padding=1))
    assert not list(folder.rglob("*.so"))


def libraries(folder):
    return sorted((folder / "ebbtide" / "executable").glob("*.so"))


@pytest.fixture
def compiler(tmp_path_factory):
    """A compiler that takes no time: it copies the library that is there already, and adds a line to `runs`."""
    if not fused.native():
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("compiler")
    shutil.copy(fused._compiled(), folder / "whole")
    file = folder / "compiler"
    file.write_text(f'#!/bin/sh\nfor last; do :; done\ncp {folder}/whole "$last"\necho >> {folder}/runs\n')
    file.chmod(0o700)
    return file


def test_a_compiled_library_is_used_again(compiler, fresh):
    monkeypatch, folder = fresh
    monkeypatch.setenv("CXX", str(compiler))
    assert fused.native()
    (library,) = libraries(folder)
    with patch.object(fused.subprocess, "run", side_effect=AssertionError):
        fused._library.cache_clear()
        assert fused.native()
    monkeypatch.setenv("CXX", f"{compiler} -DOTHER")
    fused._library.cache_clear()
    assert fused.native()
    assert len(libraries(folder)) == 2
    assert library.exists()


DAMAGES = """
import sys
from pathlib import Path
from ebbtide.networks import fused

compiler, cache = map(Path, sys.argv[1:])
print(*cache.iterdir(), "imported", fused.native(), len((compiler / "runs").read_text()))
whole = (compiler / "whole").read_bytes()
flipped = whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:]
for damage in (whole, b"", whole[: len(whole) // 2], whole[:-4096], flipped):
    for library in cache.rglob("*.so"):
        library.unlink()  # a file that is loaded must not change
        library.write_bytes(damage)
    fused._library.cache_clear()
    (library,) = fused.native() and cache.rglob("*.so")
    print(library.read_bytes() == whole, len((compiler / "runs").read_text()))
"""


def test_importing_compiles_nothing_and_a_damaged_library_is_compiled_again_and_never_loaded(compiler, tmp_path):
    """Loading half a library is a SIGBUS, so this is a process of its own."""
    answer, _ = run(DAMAGES, str(compiler.parent), str(tmp_path), XDG_CACHE_HOME=str(tmp_path), CXX=str(compiler))
    assert answer == ["imported", "True", "1", *["True", "1", "True", "2", "True", "3", "True", "4", "True", "5"]]


def test_a_cache_of_somebody_else_is_said(fresh):
    _, folder = fresh
    (folder / "ebbtide").mkdir()
    (folder / "ebbtide" / "executable").symlink_to(folder)
    with pytest.warns(UserWarning, match="without its compiled kernels: .* is a link"):
        assert not fused.native()
