"""The U-Net's norm and convolution, fast on CPUs: `fused.cpp`, compiled on first use, or else plain torch.

`fused.cpp` serves maps in channels_last whose channels are multiples of 16, on Linux with a C++ compiler: float32, and
for the norm bfloat16. torch serves the rest, all under torch.compile and functorch, and convolutions under autocast.
EBBTIDE_NATIVE=0 leaves everything to torch.
"""

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..cache import executable

__all__ = ["SIGNATURES", "WIDEST", "Conv3x3", "conv3x3", "fast_bf16", "native", "norm_silu"]

CHANNELS, TILES, WORK = 16, 16, 2**20  # channels: a multiple of; tiles, and products of one place of a filter: at least
WIDEST = 1024  # channels that fused.cpp's norm takes at once
POINTER, INT, SIZE, FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t, ctypes.c_float
SIGNATURES = {
    "winograd": [*[POINTER] * 2, *[SIZE] * 4, *[POINTER] * 2, *[INT] * 6],
    "winograd_gradient": [*[POINTER] * 3, *[SIZE] * 4, *[INT] * 6],
    "norm_silu": [*[POINTER] * 6, *[INT] * 5, FLOAT, INT],
    "norm_silu_gradient": [*[POINTER] * 9, *[INT] * 6],
}
SIGNATURES |= {f"{name}_bf16": types for name, types in SIGNATURES.items() if name.startswith("norm_silu")}


def norm_silu(
    x: Float[Tensor, " b c h w"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, " c"],
    groups: int,
    eps: float,
    scale: Float[Tensor, " #b c"] | None = None,
    shift: Float[Tensor, " #b c"] | None = None,
) -> Float[Tensor, " b c h w"]:
    """SiLU(GroupNorm(x) (1 + scale) + shift), in the type of x; of all maps only x is kept for the way back.

    Wu & He 2018, arXiv:1803.08494, Eq. 7; Dhariwal & Nichol 2021, arXiv:2105.05233, Eq. 1 with y_s = 1 + scale.

    weight, bias: the norm's, a number a channel.
    """
    slope, offset = weight[None], bias[None]
    if scale is not None and shift is not None:
        slope, offset = slope * (1 + scale), torch.addcmul(shift, offset, 1 + scale)
    if _traced():
        return _norm_silu(x, slope, offset, groups, eps)
    slope, offset = slope.expand(len(x), -1), offset.expand(len(x), -1)
    y: Tensor = _NormSiLU.apply(x, slope, offset, groups, eps)
    return y


def conv3x3(
    x: Float[Tensor, " b c h w"], weight: Float[Tensor, " k c 3 3"], bias: Float[Tensor, " k"] | None = None
) -> Float[Tensor, " b k h w"]:
    """F.conv2d(x, weight, bias, padding=1) by Winograd's method, with a quarter of the products.

    F(4×4, 3×3) of Lavin & Gray 2015, arXiv:1509.09308, Section 4, at the points 0, ±3/4, ±3/2 and ∞. In float32 it errs
    by 1e-6 to 2e-6 of the result, twice as much as a direct convolution.
    """
    if _traced() or torch.is_autocast_enabled("cpu") or not _pays(x, weight, bias) or _library() is None:
        return F.conv2d(x, weight, bias, padding=1)
    y: Tensor = _Conv3x3.apply(x, weight, bias)
    return y


class Conv3x3(nn.Conv2d):
    """nn.Conv2d(into, out, 3, padding=1), through `conv3x3`."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__(into, out, 3, padding=1)

    def forward(self, x: Float[Tensor, " b c h w"]) -> Float[Tensor, " b k h w"]:
        return conv3x3(x, self.weight, self.bias)


@functools.cache
def fast_bf16(device: str | torch.device) -> bool:
    """True if this device convolves faster in bf16 than `conv3x3` in float32: a trial of a few milliseconds, once."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    with torch.no_grad():
        x = torch.ones(4, 128, 16, 16, device=device).to(memory_format=torch.channels_last)
        weight = torch.ones(128, 128, 3, 3, device=device).to(memory_format=torch.channels_last)
        x16, weight16 = x.bfloat16(), weight.bfloat16()
        single = min(_seconds(lambda: conv3x3(x, weight)) for _ in range(3))
        half = _seconds(lambda: F.conv2d(x16, weight16, padding=1))
        if half < 8 * single:  # the first call also sets up, so it says nothing unless it is very slow
            half = min(_seconds(lambda: F.conv2d(x16, weight16, padding=1)) for _ in range(3))
    return half < single


def native() -> bool:
    """True if the compiled kernels are available; compiles them if necessary."""
    return _library() is not None


class _NormSiLU(torch.autograd.Function):
    """y = silu(x̂ slope + offset), x̂ = (x - mean) rstd; slope and offset are (b, c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        b, c, *_ = x.shape
        part = _slice(c, groups)
        served = x.numel() >= 2**15 and _plain(slope, offset) and _plain(x, of=(torch.float32, torch.bfloat16))
        library = _library() if part and served and _last(x) else None
        if library is None:
            h, mean, rstd = torch.native_group_norm(x, None, None, b, c, x.shape[2:].numel(), groups, eps)
            y = F.silu(torch.addcmul(_maps(offset, x), h, _maps(slope, x)))
        else:
            slope, offset = slope.contiguous(), offset.contiguous()
            y, mean, rstd = torch.empty_like(x), torch.empty_like(slope), torch.empty_like(slope)
            pointers = [tensor.data_ptr() for tensor in (x, slope, offset, y, mean, rstd)]
            sizes = b, x.shape[2:].numel(), c, groups, part
            _of(library, "norm_silu", x)(*pointers, *sizes, eps, torch.get_num_threads())
        ctx.save_for_backward(x, slope, offset, mean, rstd)
        ctx.groups, ctx.eps, ctx.library, ctx.part = groups, eps, library, part
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, slope, offset, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of gradients is wanted
            y = _norm_silu(x, slope, offset, ctx.groups, ctx.eps)
            return *_gradients(y, ctx.needs_input_grad[:3], (x, slope, offset), dy), None, None
        b, c, *_ = x.shape
        if ctx.library is not None:
            dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
            dx, dslope, doffset = torch.empty_like(x), torch.empty_like(slope), torch.empty_like(offset)
            pointers = [t.data_ptr() for t in (x, dy, slope, offset, mean, rstd, dx, dslope, doffset)]
            sizes = b, x.shape[2:].numel(), c, ctx.groups, ctx.part
            _of(ctx.library, "norm_silu_gradient", x)(*pointers, *sizes, torch.get_num_threads())
            return dx, dslope, doffset, None, None
        each = c // ctx.groups
        m, r = (_maps(statistic.repeat_interleave(each, 1), x) for statistic in (mean, rstd))
        h, a = (x - m) * r, _maps(slope, x)
        dz = torch.ops.aten.silu_backward(dy, torch.addcmul(_maps(offset, x), h, a))
        dslope, doffset = (dz * h).sum((2, 3), dtype=slope.dtype), dz.sum((2, 3), dtype=offset.dtype)
        # Over a group: dx = rstd (slope dz - mean of slope dz - x̂ mean of slope dz x̂).
        count = each * x.shape[2:].numel()
        p, q = (
            _maps((slope * d).unflatten(1, (-1, each)).sum(2).div(count).repeat_interleave(each, 1), x)
            for d in (dslope, doffset)
        )
        return r * (a * dz - q - h * p), dslope, doffset, None, None


class _Conv3x3(torch.autograd.Function):
    """y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ x B)]A, and the gradients by the same method; see fused.cpp."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        return _convolved(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of gradients is wanted
            y = F.conv2d(x, weight, bias, padding=1)
            return _gradients(y, ctx.needs_input_grad, (x, weight, bias), dy)
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = _convolved(dy, weight, None, turned=True) if ctx.needs_input_grad[0] else None
        dweight = None
        if ctx.needs_input_grad[1]:
            dweight, (b, c, h, w) = torch.empty_like(weight), x.shape
            pointers = x.data_ptr(), dy.data_ptr(), dweight.data_ptr()
            sizes = b, h, w, c, len(weight), torch.get_num_threads()
            _loaded().winograd_gradient(*pointers, *dweight.stride(), *sizes)
        return dx, dweight, dy.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


def _norm_silu(x: Tensor, slope: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
    """The operation of _NormSiLU, in a form that autograd and torch.compile can follow."""
    if torch.autograd.forward_ad._current_level >= 0:
        x = x.contiguous()  # torch's rule for this derivative takes views of x
    h = F.group_norm(x, groups, eps=eps)
    return F.silu(torch.addcmul(offset[:, :, None, None], h, slope[:, :, None, None])).to(x.dtype)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, turned: bool = False) -> Tensor:
    """The convolution with the weights, or with them turned: what takes the gradient of y to that of x."""
    to_out, to_in, *places = weight.stride()
    out, start = len(weight), weight.data_ptr()
    if turned:
        out, start = weight.shape[1], start + 2 * sum(places) * weight.element_size()
        to_out, to_in, places = to_in, to_out, [-stride for stride in places]
    b, c, h, w = x.shape
    y = torch.empty(b, out, h, w, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    bias = None if bias is None else bias.contiguous()
    pointers = None if bias is None else bias.data_ptr(), y.data_ptr()
    sizes = b, h, w, c, out, torch.get_num_threads()
    _loaded().winograd(x.data_ptr(), start, to_out, to_in, *places, *pointers, *sizes)
    return y


def _gradients(y: Tensor, wanted: tuple[bool, ...], inputs: tuple[Any, ...], dy: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiable gradients of y, for the inputs where they are wanted."""
    chosen = [x for x, want in zip(inputs, wanted) if want]
    found = iter(torch.autograd.grad(y, chosen, dy, create_graph=True))
    return tuple(next(found) if want else None for want in wanted)


def _maps(values: Tensor, x: Tensor) -> Tensor:
    return values[:, :, None, None].to(x.dtype)


def _slice(channels: int, groups: int) -> int:
    """Channels to normalise at a time: whole groups, a multiple of 16, at least 64 if it can be; 0 where none are."""
    least = math.lcm(channels // groups, CHANNELS)
    if channels % least:
        return 0
    wide = [size for size in range(least, min(channels, WIDEST) + 1, least) if channels % size == 0]
    return next((size for size in wide if size >= 64), max(wide, default=0))


def _last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _of(library: Any, name: str, x: Tensor) -> Any:
    """The library's function of this name for maps of this type."""
    return getattr(library, f"{name}_bf16" if x.dtype == torch.bfloat16 else name)


def _plain(*tensors: Tensor | None, of: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """True if their memory can be read: no stand-ins for tracing, no other device or type."""
    return all(
        t is None or (type(t) in (Tensor, nn.Parameter) and t.dtype in of and t.device.type == "cpu" and not t.is_neg())
        for t in tensors
    )


def _pays(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """True if Winograd's method is applicable and faster than a direct convolution."""
    if not (_plain(x, weight, bias) and _last(x)) or weight.shape[1] % CHANNELS or len(weight) % CHANNELS:
        return False
    b, c, h, w = x.shape
    return b * -(-h // 4) * -(-w // 4) >= TILES and b * h * w * c * len(weight) >= WORK


def _traced() -> bool:
    """True under a tracer that can't see into compiled code: torch.compile, functorch, forward-mode autograd."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _loaded() -> Any:
    library = _library()
    assert library is not None
    return library


@functools.cache
def _library() -> Any:
    """fused.cpp, compiled for this processor into the user's cache; None if that fails or gives wrong results."""
    if os.environ.get("EBBTIDE_NATIVE", "1") == "0" or sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(str(_compiled()))
        for name, types in SIGNATURES.items():
            getattr(library, name).argtypes, getattr(library, name).restype = types, None
    except PermissionError as error:
        warnings.warn(f"The U-Net runs without its compiled kernels: {error}.", stacklevel=2)
        return None
    except (OSError, AttributeError, ValueError, subprocess.SubprocessError):
        return None
    return library


def _compiled() -> Path:
    """The shared library: named by all that it depends on, so that a cache on a shared disk serves unlike machines.

    ValueError where CXX can't be read as a command.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or [shutil.which("g++") or shutil.which("clang++") or "c++"]
    command = [*compiler, "-O3", "-march=native", "-std=c++17", "-ffp-contract=fast", "-fPIC", "-shared", "-fopenmp"]
    source = Path(__file__).with_suffix(".cpp")
    cpu = Path("/proc/cpuinfo").read_text()
    features = sorted({line for line in cpu.splitlines() if line.startswith(("flags", "Features", "model name"))})
    key = "\n".join([source.read_text(), *command, platform.machine(), *features])

    def compile(made: Path) -> None:
        subprocess.run([*command, str(source), "-o", str(made)], check=True, capture_output=True, timeout=120)

    return executable(f"fused-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so", compile)
