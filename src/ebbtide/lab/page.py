"""A run as one HTML file in which its network runs: no server, no request, nothing to install.

`model_of` makes plain data of a denoiser, `static/network.js` a denoiser of that data again, and `static/walk.js` the
samples, equal to the library's from the same noise.
"""

import base64
import json
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs import Codec, Quantiles, Ranks, Standardise
from ..codecs.ranks import OUTERMOST
from ..core.denoiser import Denoiser
from ..core.paths import PATHS
from ..core.randomness import Draws
from ..core.times import grid_times
from ..data import DATASETS, load
from ..errors import InputError
from ..exact.start import Start
from ..files import located, write_file
from ..networks import MLP
from ..specs import expect, parse, require, words
from ..training.trained import Trained

__all__ = ["SCRIPTS", "export", "model_of", "packed", "page_of", "run_model", "script"]

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("draw.js", "network.js", "walk.js", "player.js")
_PATHS = ("linear", "cosine", "ddpm", "vp", "ve", "bridge")
_TARGETS = ("noise", "x0", "velocity", "v", "score", "edm")
_GRIDS = ("uniform", "quadratic", "power", "shifted", "flow_power", "log_snr", "karras", "trailing")
_SAMPLERS = ("euler", "heun", "midpoint", "rk4", "ddim", "dpmpp_2m", "ddpm", "dpmpp_2m_sde", "exponential_sde", "jump")
MOST_STEPS = 100
REACH, KNOTS = 4.0, 161  # of the curve from a column's ranks to its values: Φ(-4) is 3e-5
REAL = 1500  # points of a built-in set that are drawn behind the samples
STARTS = 2000  # points of a second sample set to start from


def export(run: Trained, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write a run on points as one self-contained page in which its network runs; return the page's path.

    Of a user's data it holds the names of columns and classes, each column's mean and spread or its quantiles, and no
    rows, unless samples start at a second sample set. InputError for a run that isn't on points, whose network isn't
    an MLP or whose columns aren't all numbers, and for a page that exists unless `overwrite`.
    """
    out = located("out", out)
    page = page_of(run)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; give overwrite=True (--overwrite) to replace it.")
    write_file(out, page.encode())
    return out


def page_of(run: Trained) -> str:
    """The text of the page."""
    expect("run", run, Trained)
    data = script("run", run_model(run))
    title = f"{run.recipe.shared().data} · {run.recipe.path} · {run.recipe.target}"
    parts = {
        "title": escape(title if not run.recipe.in_memory else f"{run.recipe.path} · {run.recipe.target}"),
        "style": _static("player.css"),
        "scripts": "\n".join(f"<script>{_static(name)}</script>" for name in SCRIPTS),
        "data": data,
    }
    page = _static("player.html")
    for name, part in parts.items():
        page = page.replace(f"{{{{ {name} }}}}", part)
    return page


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def script(name: str, value: Any) -> str:
    """An inert script element that holds JSON, whatever text is in it. name: by which the page finds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" data-ebbtide="{name}">{text}</script>'


def model_of(denoiser: Denoiser, *, halves: bool = False) -> dict[str, Any]:
    """A denoiser as JSON-ready data: path, target, and an MLP's sizes and weights.

    halves: weights in 16 bits, half the size; the network is then that of the rounded weights.
    """
    expect("denoiser", denoiser, Denoiser)
    network = denoiser.network
    if type(network) is not MLP:
        raise InputError(f"A page runs the network mlp; got {type(network).__name__}.")
    if not isinstance(denoiser.base, Start | None):
        raise InputError(f"A page runs a network by itself or on Gaussians; got base {type(denoiser.base).__name__}.")
    name, given = words(denoiser.target)[0], denoiser.row.keywords
    if name not in _TARGETS:
        raise InputError(f"A page runs the targets {', '.join(_TARGETS)}; got {name!r}.")
    weights = {name: part.detach().float().cpu() for name, part in network.state_dict().items()}
    span = network.from_span
    return {
        "path": _path(denoiser.path),
        "target": {"name": name} | {key: float(value) for key, value in given.items()},
        "alpha_min": denoiser.alpha_min,
        "gaussian_end": denoiser.gaussian_end,
        "bound": 0.0,
        "base": None if denoiser.base is None else _start(denoiser.base),
        "network": {
            "dim": network.out.out_features,
            "width": network.from_x.out_features,
            "depth": len(network.blocks),
            "classes": 0 if network.from_label is None else network.from_label.null,
            "spans": network.spans,
            "frequencies": network.time_features.frequencies.tolist(),
            "span_frequencies": [] if span is None else span.features.frequencies.tolist(),
            "shapes": [[_named(name), part.numel()] for name, part in weights.items()],
            "halves": halves,
            "weights": packed(torch.cat([part.flatten() for part in weights.values()]), halves),
        },
    }


def _start(base: Start) -> dict[str, Any]:
    return {name: part.tolist() for name, part in base.named_buffers()} | {"classes": base.classes}


def packed(x: Tensor, halves: bool = False) -> str:
    """Numbers as base64 of little-endian float32, or of 16 bits each. halves: the latter."""
    if halves:
        require("weights in 16 bits: the largest", float(x.detach().abs().max()), high=65504)
    array = x.detach().cpu().numpy().astype("<f2" if halves else "<f4")
    return base64.b64encode(array.tobytes()).decode()


def _named(name: str) -> str:
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def _path(path: Any) -> dict[str, Any]:
    """The name of a path's row and its options."""
    name = next((name for name in _PATHS if type(path) is PATHS[name]), "")
    if not name:
        raise InputError(f"A page runs the paths {', '.join(_PATHS)}; got {type(path).__name__}.")
    return {"name": name} | asdict(path)


def run_model(run: Trained) -> dict[str, Any]:
    """A run's denoiser with all that its page shows beside: columns, classes, sampling, data."""
    if run.recipe.kind != "points" or run.reconstructs or len(run.shape) != 1:
        raise InputError(f"A page is for runs on points; this one is on {run.recipe.kind}.")
    if run.recipe.learns_columns:
        raise InputError("A page can't be told known columns, which this run's network takes (any_columns).")
    recipe = run.recipe
    return (
        model_of(run.denoiser)
        | {
            "columns": list(run.columns) or _axes(run.shape[0]),
            "classes": list(run.classes) if recipe.learns_labels else [],
            "learns_null": recipe.learns_null,
            "guidable": recipe.learns_labels and recipe.learns_null,
            "bound": float(recipe.bound) or (OUTERMOST if isinstance(run.codec, Ranks) else 0.0),
            "sampling": _sampling(run),
        }
        | _units(run.codec, run.shape[0])
        | _behind(run)
    )


def _axes(count: int) -> list[str]:
    return [f"x{_SUBSCRIPTS[k]}" if k < 9 else f"x{k + 1}" for k in range(count)]


_SUBSCRIPTS = "₁₂₃₄₅₆₇₈₉"


def _units(codec: Codec | None, columns: int) -> dict[str, Any]:
    """z → data: centre + scale z, or a curve for each column; InputError for a codec that does more."""
    found: dict[str, Any] = {"centre": [0.0] * columns, "scale": [1.0] * columns}
    if codec is None:
        return found
    if isinstance(codec, Ranks):
        z = torch.linspace(-REACH, REACH, KNOTS, dtype=torch.float64)
        return found | {"reach": REACH, "curves": codec.decode(z[:, None].expand(-1, columns)).T.tolist()}
    zero, one = (torch.full((1, columns), value, dtype=torch.float64) for value in (0.0, 1.0))
    if not isinstance(codec, Standardise | Quantiles):
        raise InputError(f"A page shows columns of numbers one by one; this run's are seen as {codec.about}.")
    centre = codec.decode(zero)[0]
    return {"centre": centre.tolist(), "scale": (codec.decode(one)[0] - centre).tolist()}


def _sampling(run: Trained) -> dict[str, Any]:
    """The recipe's sampler, grid and steps, as far as static/walk.js has them, and the grids of its solvers."""
    (sampler, chosen), (grid, shape) = parse(run.recipe.sampler), parse(run.recipe.grid)
    jumps = {one.steps: one.grid for one in run.tuned if words(one.sampler)[0] == "jump"}
    path = run.denoiser.path
    numbers: dict[int, list[float]] = {steps: grid_times(own, steps, path).tolist() for steps, own in jumps.items()}
    if grid not in _GRIDS:
        numbers = {k: grid_times(run.recipe.grid, k, path).tolist() for k in range(1, MOST_STEPS + 1)} | numbers
    return {
        "sampler": sampler if sampler in _SAMPLERS else "heun",
        "options": chosen if sampler in _SAMPLERS else {},
        "grid": grid if grid in _GRIDS else "own",
        "shape": shape if grid in _GRIDS else {},
        "steps": min(run.recipe.sample_steps, MOST_STEPS),
        "own": numbers,
    }


def _behind(run: Trained) -> dict[str, Any]:
    """The frame, what is drawn behind samples, and where they start if not at noise."""
    recipe, found = run.recipe, {}
    point_set = DATASETS.get(recipe.data) if recipe.built_in(recipe.data) else None
    if point_set is not None:
        real = load(recipe.data, REAL, 1)
        found = {"real": packed(real.x.float()), "limits": [list(point_set.limits)] * run.shape[0]}
    if not run.denoiser.gaussian_end and getattr(recipe, "source", "noise") != "noise":
        found["starts"] = packed(run.start(STARTS, 0, 0, Draws.first(STARTS, 0)))
    return found
