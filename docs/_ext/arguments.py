"""Arguments and fields that a docstring doesn't describe, because their names mean the same wherever they stand.

A function's page lists them below its docstring: each argument with the words of its room, or of every room. A field
with a comment beside it in the source is described by that comment.
"""

import ast
import inspect
import re
import textwrap
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from typing import Any

__all__ = ["SHARED", "added", "described", "fields", "names", "undescribed"]

# Shapes as in the annotations: b examples of shape *d. "" holds for every room that has no words of its own.
SHARED: dict[str, dict[str, str]] = {
    "": {
        "x0": "data x₀, (b, *d), at t = 0.",
        "x1": "noise x₁, (b, *d), at t = 1.",
        "x_t": "noisy data, (b, *d), at the time t.",
        "noise": "ε, standard normal, of the data's shape (b, *d).",
        "t": "the time, from 0 (data) to 1 (noise): one for the batch, or (b,).",
        "to": "the time that the estimate leads to, from 0 to t.",
        "c": "the path's scales at t.",
        "path": "the path x_t = α x₀ + σ ε: a row of `PATHS` or one's own `Path`.",
        "denoiser": "estimates x̂₀ and ε̂ of x_t: a `Denoiser`, an oracle or a wrapper.",
        "estimate": "x̂₀ and ε̂ of x_t, as a denoiser returns them.",
        "target": "what the network predicts, y = a x₀ + b ε: a row of `TARGETS`.",
        "cond": "the network's conditions by name, such as label; each one for all, or (b, …).",
        "label": "a class by number, one for all or (b,); None for all classes.",
        "labels": "the class of each example by number, (b,) or (n,); None without classes.",
        "classes": "the number of classes, or their names; 0 or () for none.",
        "walk": "denoiser, start, times and noise, as `trajectory` hands them to a sampler.",
        "steps": "the number of steps, at least 1.",
        "times": "falling times from 1 (noise) to 0 (data), one more than steps.",
        "sampler": "a row of `SAMPLERS` with options, as in `heun:clock=flow`.",
        "grid": "a row of `GRIDS` with options, as in `karras:rho=5`.",
        "seed": "decides all random numbers; an integer from 0.",
        "draws": "random numbers by the sample's own number; see `Draws`.",
        "draw": "torch's generator of the random numbers.",
        "n": "the number of samples or rows, at least 1.",
        "first": "the number of the first sample; sample i depends on the seed and i alone.",
        "device": "where tensors lie: `cpu`, `cuda:0`, `mps`.",
        "progress": "show a bar on the terminal.",
        "trained": "a trained run, as `from_pretrained` or `fit` returns it.",
        "recipe": "what is trained and how; see `Recipe`.",
        "codec": "what stands between data and denoiser; see `Codec`.",
        "config": "the plain dict, as JSON holds it, that `to_config` returned.",
        "folder": "a folder of files, as a path.",
        "tensors": "tensors by name.",
        "overwrite": "replace what is there; without it that is refused.",
        "license": "an SPDX name such as apache-2.0; none is assumed.",
        "token": "an access token of the hub; None for the one that is logged in with.",
        "private": "make the repository visible to its owner alone.",
        "indices": "places of examples, (b,) whole numbers.",
        "eta": "η, the share of fresh noise, from 0 (none) to 1 (ancestral).",
        "clock": "the time that is integrated over: `time`, t, or `flow`, σ/(α + σ).",
        "spec": "a name with options, as in `name:option=value,other=value`.",
        "fields": "fields of the recipe by name, in place of its defaults; see `Recipe`.",
        "out": "a folder that is made, or a file that is written.",
        "observation": "what a policy sees by name, such as state and images; without a batch.",
        "action": "one action in the robot's units, (a,).",
        "simulator": "a row of `SIMULATORS` with options, or a simulator of one's own.",
        "fps": "frames a second.",
        "guidance": "the guidance weight w; 1 is off.",
        "interval": "times low < t ≤ high at which guidance applies.",
        "std": "a standard deviation, above 0.",
        "mean": "a mean, of the data's shape.",
        "on_nonfinite": "what a loss or gradient that isn't finite does: `stop` or `skip`.",
        "data": "what is learned from: a built-in set, a file, a folder, or an array.",
        "what": "what the value is called in an error.",
        "where": "where the value comes from, as an error puts it.",
        "who": "what the value is for, as an error puts it.",
        "limits": "low and high of each column, (d, 2).",
        "columns": "names of columns, in their order.",
        "names": "names, in order.",
    },
    "arrays": {"path": "a file."},
    "cache": {"path": "a file.", "name": "of the result in the cache; its part of the key."},
    "codecs": {
        "x": "data, (n, *d), in data units.",
        "z": "data as the denoiser sees it, (n, *z).",
        "data": "the shape of one example of data.",
        "columns": "the number of columns.",
        "batches": "yields the data to fit to, batch by batch, anew at each call.",
        "v": "V in [0, 1), one for each z: the place inside of a rank's cell.",
        "weights": "tensors by name, as `weights` returned them.",
        "config": "the plain dict, as JSON holds it, that `to_config` returned.",
        "opened": "an autoencoder's run: its config and weights.",
    },
    "core": {
        "u": "uniform numbers in (0, 1), (b,).",
        "generator": "torch's generator of the random numbers.",
        "ratio": "the noise-to-signal ratio σ/α.",
        "tau": "τ = σ/(α + σ), the flow clock, from 0 to 1.",
        "shift": "k; above 1 puts more steps near the noise.",
        "exponent": "p; above 1 puts more steps near the data.",
        "scale": "s, the share of [0, 1] that is drawn from.",
        "mean": "m, of the normal that is transformed.",
        "std": "s, of the normal that is transformed.",
        "rho": "ρ; larger puts more steps near the data.",
        "ratio_min": "σ/α at the last time but 0; None for the path's own.",
        "ratio_max": "σ/α at the first time; None for the path's own.",
        "data_std": "the data's standard deviation, in the denoiser's units.",
        "x": "a tensor of the batch, whose type and dimensions the result has.",
        "labels": "the class of each example by number, (b,); None without classes.",
    },
    "data": {
        "features": "types of columns by name, as `datasets` has them.",
        "stream": "read rows as they are asked for.",
        "action_names": "of the action's numbers.",
        "given": "an observation's parts by name, (n, o, …).",
        "kind": "what they are called, before the number.",
        "width": "how many there are.",
        "texts": "one for each step.",
        "length": "bytes at most.",
        "why": "the rest of the sentence.",
        "levels": "how many there are.",
        "series": "of a data frame.",
        "on": "`device`, `host` or `disk`.",
        "chosen": "places of rows.",
        "bytes_each": "of a row.",
        "need": "in bytes.",
        "notes": "what the shard stores beside its rows.",
        "in_parts": "whether the set has parts.",
        "ranges": "low and high of each attribute.",
        "source": "a file, or its bytes.",
        "wanted": "names or places, separated by commas; `all` for all.",
        "angles": "columns in radians, seen as sine and cosine.",
        "drop": "columns to leave out, separated by commas.",
        "missing": "further marks of missing cells, separated by commas.",
        "categorical": "columns of levels that look like numbers.",
        "ordered": "columns of levels in order, as in cut=Fair<Good<Ideal.",
        "workers": "threads; 0 is one a core.",
        "text": "as it was written.",
        "about": "one line on the set.",
        "means": "μₖ, (k, d).",
        "keep_classes": "hold out the same share of each class.",
        "images": "the whole set.",
        "frames": "images, (n, h, w, 3).",
        "sheet": "of a workbook; the first one without.",
        "delimiter": "between two cells.",
        "header": "begin with the columns' names.",
        "name": "of the column.",
        "array": "as it was read.",
        "table": "rows × columns.",
        "value": "what was given.",
        "file": "the shard.",
        "train": "the parts to train on.",
        "path": "a file.",
        "x": "images or points, one a row: an array, a tensor or a data frame.",
        "y": "labels, one a row.",
        "size": "sides in pixels.",
        "channels": "of an image: 1 (grey), 3 (colour) or 4 (with transparency).",
        "how": "how a table is read: label, columns, types; see `Reading`.",
        "label": "the column or field of labels; \"\" for a usual name, `none` for no labels.",
        "form": "the columns' names, types and levels, to write them as they were read.",
        "on_bad": "for an image that can't be read: `skip` counts it, `fail` refuses the set.",
        "dim": "0: rows.",
        "values": "numbers, one for each cell.",
        "columns": "the columns to learn from, by name or number.",
        "labels": "the label of each row.",
    },
    "exact": {
        "x": "points, (b, *d), in float64 for exact answers.",
        "y": "points, (b, *d).",
        "means": "of the modes, (k, d).",
        "stds": "of the modes, (k,) or one for all.",
        "name": "of the check in the report.",
        "promised": "the order that is promised.",
        "counts": "numbers of evaluations that solvers are fitted for.",
        "cond": "the network's conditions by name; each one for all, or (b, …).",
        "divergence": "how tr ∂u/∂x is found: `exact`, `hutchinson:probes=k` or `hutch++:probes=k`.",
        "prior": "log-density of x₁, (b, *d) → (b,); None for N(0, σ(1)² I).",
        "probe": "k → probe k of every sample, (b, n) of ±1.",
        "probes": "the number of draws.",
        "product": "v → Aᵀ v for a batch (b, n).",
        "reference_steps": "steps of the solver that others are measured against.",
        "solvers": "specs of samplers to choose from.",
    },
    "files": {"path": "a file."},
    "formats": {"path": "a file."},
    "interop": {
        "model": "the other library's network, or a stand-in that is called alike.",
        "key": "the field of the other library's config.",
        "options": "of the other library's scheduler.",
        "kind": "the other library's class, without its suffix.",
        "x": "the batch, (b, *d).",
    },
    "inverse": {
        "residual": "y - A x̂₀, (b, *m).",
        "covariance": "V: v → Cov(x₀ | x_t) v, by one vector-Jacobian product.",
        "x": "x_t, (b, *d).",
        "measurement": "y = A x₀ + s n; see `NoisyMeasurement`.",
    },
    "kinds": {
        "own": "more metrics by name, functions of (samples, real data).",
        "every": "what each process saw, in their order.",
        "seen": "the report, with the nearest training images.",
        "y": "labels, one for each example; None without.",
        "data_on": "where the data lies: `auto`, `device`, `host` or `disk`.",
        "how": "by what they were drawn, for the title.",
        "comparison": "what `compare` found.",
        "name": "of the method, as figures print it; or of a run.",
        "plan": "what `compare` does with this kind of data.",
        "floors": "floors found before, which are used again.",
        "episodes": "recorded episodes.",
        "blind": "show black images.",
        "seeds": "of the episodes.",
        "points": "rows with their labels.",
        "found": "the rows.",
        "factor": "how many times more pixels a side.",
        "flip": "mirror half of them.",
        "most": "how many are shown at most.",
        "train": "rows that were trained on.",
        "held": "rows that were held out.",
        "options": "of the report.",
        "command": "that continues it.",
        "accumulate": "parts of a batch.",
        "given": "data in memory, instead of what the recipe names.",
        "teacher": "the run that a student learns from.",
        "value_range": "LOW:HIGH of images of more than 8 bits.",
        "repeats": "how often it is timed.",
        "tried": "episodes that were played.",
        "state": "the codec of the state.",
        "grown": "(step, samples) over training.",
        "row": "the method.",
        "rows": "which of them.",
        "run_name": "its folder or name.",
        "of": "the recipe, or the comparison.",
        "only": "names of the metrics; all without.",
        "path": "the file that is written.",
        "x": "samples in data units, (n, *d).",
        "real": "real data in data units, (n, *d).",
        "samples": "samples in data units, (n, *d).",
        "out": "the folder of the figures.",
        "title": "the figure's title.",
        "key": "the figure's name in the folder.",
        "colour": "of the samples.",
    },
    "lab": {
        "x": "points, (n, d).",
        "view": "what is on screen: sampler, grid, steps, guidance and the like.",
        "run": "an open run of the lab.",
        "value": "what the page sent.",
        "low": "the least that is accepted.",
        "high": "the most that is accepted.",
        "what": "what the value is called in an error.",
    },
    "losses": {
        "leap": "x_t, its time and the time that the estimate leads to; see `Leap`.",
        "power": "p in |Δ|²/(|Δ|² + c)ᵖ: 0 is the squared error, 1 about its logarithm; see `robust`.",
        "floor": "c in |Δ|²/(|Δ|² + c)ᵖ, above 0; see `robust`.",
    },
    "metrics": {
        "own": "more metrics by name, functions of (samples, real data).",
        "every": "what each process saw, in their order.",
        "asked": "the class that each sample was asked for, (n,).",
        "extractor": "of features: a row of EXTRACTORS with options.",
        "at_most": "samples that the report holds, at most.",
        "channels": "of an image.",
        "size": "sides in pixels.",
        "taken": "the part of a pool of real rows that each repeat took.",
        "value": "as it was returned.",
        "drawn": "labels of a first draw.",
        "case": "samples and real data, with all that a metric may need.",
        "z": "rows as numbers of one size.",
        "shares": "of each row by part, (n, k); all of one part without.",
        "parts": "of the report.",
        "rows": "of the table.",
        "levels": "of each column; () for numbers.",
        "truth": "the true number, without error.",
        "floors": "the metric between two sets of real data, once for each repeat.",
        "values": "one for each sample.",
        "share": "of held-out images that are as near to a training image.",
        "sigmas": "standard deviations beyond which a point is an outlier.",
        "train_labels": "the classes of the training images by number; None without.",
        "held_labels": "the classes of the held-out images by number; None without.",
        "held_images": "images that it never trains on, (m, channels, h, w).",
        "dim": "the number of columns.",
        "count": "the number of directions.",
        "lengths": "of each episode, in steps.",
        "successes": "of each episode, true, false or a share.",
        "predicted": "predicted actions, (n, h, a), or (n, k, h, a) for k chunks each.",
        "carried_out": "the actions that were carried out, (n, h, a).",
        "episode": "the number of the episode of each chunk, (n,).",
        "reference": "real data: an array, or (n, repeat) → fresh points.",
        "repeat": "the number of the repeat, which decides its random half.",
        "gram": "the kernel of each pair of points, (m, m).",
        "other": "rows to tell real ones from.",
        "units": "columns as numbers of one size.",
        "held": "held-out rows; None where there are none.",
        "metric": "the name of a distance, such as FD.",
        "x": "samples, (n, *d), in data units.",
        "y": "real data, (m, *d), in data units.",
        "means": "of the modes, (k, d).",
        "std": "of each mode, one for all.",
        "train": "training rows, (n, *d).",
        "real": "real data, (m, *d), in data units.",
        "log_density": "log p of points, (n, d) → (n,), in nats.",
        "projections": "the number of directions.",
        "better": "which side is better: `lower`, `higher` or `equal`, where p is two-sided.",
        "bounds": "value, low and high of the 95 % interval.",
        "repeats": "how often the floor is drawn.",
        "images": "(n, channels, h, w), uint8 or in the units of the classifier.",
        "labels": "the class of each row by number, (n,).",
        "bandwidth": "of the kernel, in data units; None for the median heuristic.",
        "at_least": "the fewest rows that are accepted.",
        "name": "what the set is called in an error.",
        "k": "the number of neighbours.",
    },
    "networks": {
        "x": "what the target shows of x_t, (b, *d).",
        "t": "the time as the target shows it, (b,) or one for all.",
        "label": "the class by number, (b,); the number of classes hides it.",
        "span": "the time that is spanned, t - to, (b,), for networks of two times.",
        "spans": "True for a network that also takes the time it leads to.",
        "classes": "the number of classes; 0 for an unconditional network.",
        "width": "features of the hidden layers.",
        "depth": "the number of blocks.",
        "dropout": "the share of features that are dropped in training.",
        "groups": "of the group norm.",
        "eps": "added to variances.",
        "emb": "the embedding of time and conditions, (b, width).",
        "h": "features, (b, …, width).",
        "head": "features of an attention head.",
        "hidden": "features between the two layers of a block.",
        "observation": "the shapes of what is seen, by name.",
        "context": "what `context` made of an observation; None to make it anew.",
        "given": "further channels beside x, (b, c, h, w), such as a small image enlarged.",
        "time_features": "the number of sines and cosines of the time.",
        "freq_shift": "1 makes the slowest wave's frequency exactly 1/10 000, as in Ho's code; 0 a little more.",
        "channels": "of an image.",
        "by": "scale and shift from time and conditions.",
        "mask": "True where attention is allowed.",
    },
    "plots": {
        "x": "points, (n, d), in data units.",
        "path": "the file that is written.",
        "title": "of the figure; \"\" for none.",
        "note": "a line below the figure; \"\" for none.",
        "real": "real data, (n, d), in data units.",
        "limits": "low and high of each axis, (d, 2).",
        "columns": "panels in a row.",
        "ax": "matplotlib's axes to draw on.",
        "colour": "of the points, as matplotlib takes it.",
        "log_density": "log p of points, (n, d) → (n,), in nats; draws the exact outline.",
        "methods": "what is compared; each its own panel and colour.",
        "means": "of the modes, (k, d).",
        "size": "of the figure or its panels, in inches.",
        "width": "of the figure or its panels, in inches.",
        "panels": "points with their title and colour, a panel each.",
        "t": "the time, from 0 (data) to 1 (noise).",
        "dpi": "pixels an inch.",
        "names": "of the columns, for the axes.",
        "images": "(n, channels, h, w) in uint8.",
        "rows": "panels in a column.",
        "labels": "the class of each point by number, (n,).",
    },
    "robots": {
        "z": "height in metres.",
        "seed": "decides the episode's start.",
        "side": "an arm: LEFT or RIGHT.",
        "pixels": "sides of rendered images.",
        "source": "what draws chunks: a trained policy's denoiser, or a function.",
        "slot": "the number of the environment, where several run at once.",
        "observations": "an observation of each environment, by its slot.",
        "shapes": "of the parts of one step's observation, by name.",
    },
    "samplers": {
        "sampler": "a row of `SAMPLERS` with options, or a function of a `Walk`.",
        "now": "the path's scales where a step begins.",
        "then": "the path's scales where a step ends.",
        "x": "x_t, (b, *d).",
    },
    "training": {
        "x": "data, (n, *d).",
        "z": "data as the denoiser sees it.",
        "folder": "a run's folder.",
        "step": "the number of training steps done.",
        "now": "what is asked for now.",
        "stored": "what the run's files hold.",
        "track": "trackers such as tensorboard, by name.",
        "trainer": "the training loop; see `Trainer`.",
        "accelerator": "accelerate's, which holds devices and processes.",
        "name": "the folder's name in errors.",
        "path": "a file.",
        "parent": "the folder of a run's checkpoints.",
        "warn": "called with a sentence for each damaged checkpoint that is passed over.",
        "part": "a tensor, of which this process may have only some rows.",
        "prepared": "the data and what describes it; see `Prepared`.",
        "shape": "of one example as the network sees it.",
        "state": "tensors by name, as `state` or `averaged` returned them.",
        "device": "`auto`, `cpu`, `cuda:0` or `mps`; see `train`.",
        "lr": "the learning rate of this step.",
        "teacher": "the run that a student learns from.",
    },
    "cli": {
        "argv": "the words after the command's name.",
        "how": "options of sampling; see `Drawing`.",
    },
    "recipes": {"shape": "of one example of data.", "names": "of the columns.", "config": "a recipe's fields by name."},
}  # fmt: skip


def names(obj: Any) -> list[str]:
    """The arguments of a function or method, in order."""
    found: list[str] = []
    with suppress(TypeError, ValueError):
        found = [name for name in inspect.signature(obj).parameters if name not in ("self", "cls")]
    return [name for name in found if not name.startswith("_")]


def described(name: str, text: str) -> bool:
    """True if a docstring mentions an argument."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def shared(name: str, module: str) -> str:
    """The words for an argument of a module's function, of its room or of every room; "" if there are none."""
    room = module.removeprefix("ebbtide.").partition(".")[0]
    return SHARED.get(room, {}).get(name) or SHARED[""].get(name, "")


def undescribed(obj: Any) -> list[str]:
    """The arguments of a function for which neither its docstring nor SHARED has words."""
    text = inspect.getdoc(obj) or ""
    return [name for name in names(obj) if not described(name, text) and not shared(name, home(obj))]


def home(obj: Any) -> str:
    """The module that a function or class is defined in."""
    return str(getattr(obj, "__module__", "") or "")


def fields(cls: type) -> Iterator[tuple[str, str]]:
    """(name, comment) of the fields of a class that have one beside them in the source."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in comments:
            comment = comments[node.end_lineno]
            if not comment.startswith(("type:", "noqa", "fmt:")):
                yield node.target.id, comment


def added(what: str, obj: Any, lines: list[str]) -> list[str]:
    """Lines for what the docstring leaves out: "name: words." each."""
    text = "\n".join(lines)
    if what in ("class", "exception"):
        found = [(name, comment) for name, comment in fields(obj) if not described(name, text)]
    elif what in ("function", "method"):
        found = [(name, shared(name, home(obj))) for name in names(obj) if not described(name, text)]
    else:
        found = []
    return [f"{name}: {words.rstrip('.')}." for name, words in found if words]
