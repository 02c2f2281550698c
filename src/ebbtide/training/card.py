"""The model card: README.md of an exported run, with what was measured of it and a figure where its folder has them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, printable
from ..exact.tuned import TUNED
from ..files import load_json
from ..recipes import RECIPES, Recipe, cited
from ..specs import expect, fits_float
from ..version import __version__

if TYPE_CHECKING:
    from .trained import Trained

__all__ = ["FIGURE", "CardParts", "for_the_card", "licence_line", "model_card"]

FIGURE = "samples.png"
_TASKS = {"images": "unconditional-image-generation", "robots": "robotics"}  # of the hub, which has none for tables


class CardParts(NamedTuple):
    """The parts of a model card that a run's folder holds."""

    measured: tuple[Mapping[str, Any], ...] = ()
    """Rows that `ebbtide evaluate` left there, of the checkpoint in use."""
    figure: bytes = b""
    """A figure of its samples, as .png."""


def for_the_card(folder: Path, checkpoint: Path, step: int, figure: str) -> CardParts:
    """The rows of evaluation.json and the figure of samples in a run's folder.

    Rows and a figure of an older checkpoint than the one in use are left out, and so is a figure once that is gone.
    figure: its usual name.
    """
    rows: Any = []
    if (folder / "evaluation.json").is_file():
        try:
            rows = load_json(folder / "evaluation.json")
        except InputError:  # it is no part of the run, which is whole without
            rows = []
    fits = lambda row: (
        isinstance(row, dict)
        and isinstance(row.get("how"), dict)
        and row["how"].get("checkpoint") == step
        and isinstance(row.get("name"), str)
        and isinstance(row.get("value"), int | float)
        and fits_float(row["value"])
    )
    measured = tuple(filter(fits, rows if isinstance(rows, list) else []))
    drawn = folder / Path(figure).with_suffix(".png")
    fresh = drawn.is_file() and checkpoint.exists() and drawn.stat().st_mtime >= checkpoint.stat().st_mtime
    return CardParts(measured, drawn.read_bytes() if fresh else b"")


def model_card(trained: "Trained", where: str, license: str = "") -> str:
    """README.md of an exported model: what it is, how it was trained, how to sample from it at `where`."""
    data, licensed = printable(trained.about or "its data"), licence_line(license)
    recipe, parameters = trained.recipe, sum(p.numel() for p in trained.denoiser.parameters())
    size = " × ".join(map(str, trained.shape)) + {1: " columns"}.get(len(trained.shape), "")
    if trained.reconstructs:
        return f"""---
library_name: ebbtide
{licensed}tags: [ebbtide, autoencoder]
---
# Autoencoder

A codec of {data} ({size}), trained with ebbtide {__version__}: a flow can be trained in its latent.

| | |
|---|---|
| network | `{printable(recipe.network)}`, {parameters:,} parameters, EMA weights |
| training | {trained.step:,} steps of {recipe.batch:,} examples, seed {recipe.seed}, loss `{printable(recipe.loss)}` |

```python
import ebbtide

recipe = ebbtide.flow_latents(data="photos/", codec={f"pixels+autoencoder:run={where}"!r})
trained = ebbtide.fit(recipe, out="runs/latents")
```

{_citations(recipe)}"""
    parts = trained.card_parts()
    labels = f"by class: {printable(', '.join(trained.classes))}" if recipe.conditional else "unconditional"
    return f"""---
library_name: ebbtide
{licensed}tags: [ebbtide, diffusion, flow-matching]
{_on_the_hub(trained, where, data, parts.measured)}---
# {recipe.path.partition(":")[0]} path, {recipe.target} target

A generative model of {data} ({size}; {labels}), trained with ebbtide {__version__}.
{f"{chr(10)}![Samples]({FIGURE}){chr(10)}" if parts.figure else ""}
| | |
|---|---|
| path | `{recipe.path}` |
| target | `{recipe.target}` |
| network | `{printable(recipe.network)}`, {parameters:,} parameters, EMA weights |
| training | {trained.step:,} steps of {recipe.batch:,} examples, seed {recipe.seed} |
| data codec | {trained.codec.about if trained.codec else "none"} |
| time | t = 0 is data, t = 1 is noise |
| default sampler | {_default_sampler(trained)} |

```python
{_snippet(trained, where)}
```

It reproduces the distribution of its training data, with whatever biases that has. Any sampler of ebbtide runs on it.

{_measured(parts.measured)}{_citations(recipe)}"""


def licence_line(license: str) -> str:
    """The card's line of a licence written as the hub writes it; "" for none."""
    expect("license", license, str)
    if not re.fullmatch(r"([a-z0-9][a-z0-9.+-]*)?", license):
        raise InputError(f"license must be written as the hub does, such as apache-2.0 or cc-by-4.0; got {license!r}.")
    return f"license: {license}\n" if license else ""


def _on_the_hub(trained: "Trained", where: str, data: str, measured: Sequence[Mapping[str, Any]]) -> str:
    """The front matter's lines on task, data set and measurements, as far as there are any."""
    recipe, lines = trained.recipe, []
    task = "image-to-image" if getattr(recipe, "factor", 0) > 1 else _TASKS.get(recipe.kind)
    if task:
        lines.append(f"pipeline_tag: {task}")
    name = re.match(r"(?:hf:)?([\w-][\w.-]*/[\w-][\w.-]*)", recipe.data) if recipe.on_hub(recipe.data) else None
    if name:
        lines.append(f"datasets: [{json.dumps(name[1])}]")
    if measured:
        metrics = [
            {
                "type": re.sub(r"\W+", "_", row["name"]).strip("_").lower(),
                "name": printable(row["name"]),
                "value": row["value"],
            }
            for row in measured
        ]
        set_name = name[1] if name else recipe.data
        result = {
            "task": {"type": task or "other"},
            "dataset": {"type": printable(set_name), "name": data},
            "metrics": metrics,
        }
        index = [{"name": printable(where).rpartition("/")[2], "results": [result]}]
        lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")  # JSON is YAML
    return "".join(f"{line}\n" for line in lines)


def _measured(measured: Sequence[Mapping[str, Any]]) -> str:
    """A table of what `ebbtide evaluate` measured, each metric beside the score of real data."""
    if not measured:
        return ""

    def number(row: Mapping[str, Any], key: str) -> str:
        value = row.get(key)
        return f"{value:.4g}" if isinstance(value, int | float) and fits_float(value) else ""

    how = measured[0]["how"]
    if _is_fitted(how.get("sampler")):
        how = {key: value for key, value in how.items() if key != "grid"} | {"sampler": f"bespoke (`{TUNED}`)"}
    said = ", ".join(f"{key} {how[key]}" for key in ("n", "sampler", "grid", "steps", "episodes", "seed") if key in how)
    rows = [
        f"| {_in_a_cell(row['name'])} | {number(row, 'value')} | "
        + (f"{number(row, 'low')} to {number(row, 'high')}" if number(row, "low") else "")
        + f" | {number(row, 'floor')} |"
        for row in measured
    ]
    return "\n".join(
        ["## Measured", "", f"By `ebbtide evaluate`: {printable(said)}.", "",
         "| | | 95 % interval | real data |", "|---|---|---|---|", *rows, "", ""]
    )  # fmt: skip


def _default_sampler(trained: "Trained") -> str:
    sampler, grid, steps = trained.choice()
    if _is_fitted(sampler):
        return f"its own, fitted to it: {steps} evaluations (`{TUNED}`)"
    return f"`{sampler}` on the `{grid}` grid, {steps} steps"


def _is_fitted(sampler: object) -> bool:
    """True for a run's own solver, whose spec is hundreds of numbers."""
    return str(sampler).startswith("bespoke:weights=")


def _in_a_cell(text: str) -> str:
    """Text for a cell of a Markdown table, which a bar would end."""
    return printable(text).replace("|", r"\|")


def _snippet(trained: "Trained", where: str) -> str:
    """The code that uses it: samples; of a policy, an action for what is seen."""
    if trained.observation is None:
        return f"""import ebbtide

trained = ebbtide.from_pretrained({where!r})
x = trained.sample(1000, seed=0)"""
    each, shapes = getattr(trained.recipe, "n_obs_steps", 1), trained.observation.shapes
    parts: dict[str, Callable[..., str]] = {
        "state": lambda steps, width: f"np.zeros({width}, np.float32)",
        "images": lambda images, *shape: f"np.zeros({(images // each, *shape)}, np.uint8)",
        "prompt": lambda length: repr("what is to be done"),
    }
    seen = "\n".join(f"    {name!r}: {parts[name](*shape)}," for name, shape in shapes.items())
    return f"""import numpy as np

import ebbtide

robot = ebbtide.policy(ebbtide.from_pretrained({where!r}))
robot.reset()  # before every episode
observation = {{  # what is seen now, in the robot's units
{seen}
}}
action = robot.select_action(observation)  # once for every step"""


def _citations(recipe: Recipe) -> str:
    """BibTeX of the named recipe that this one is most like, if any has its path and coupling."""

    def ways(of: Recipe) -> tuple[str, str]:
        return of.path.partition(":")[0], of.coupling

    def likeness(name: str) -> tuple[bool, ...]:
        row = RECIPES[name]()
        alike = (
            [spec.partition(":")[0] for spec in (of.loss, of.network)]
            + ["+" in getattr(of, "codec", ""), getattr(of, "factor", 0) > 1, of.target]
            for of in (row, recipe)
        )
        return type(row) is type(recipe), *(one == other for one, other in zip(*alike, strict=True))

    alike = [name for name, row in RECIPES.items() if ways(row()) == ways(recipe)]
    text = cited(RECIPES[max(alike, key=likeness)]) if alike else ""
    return f"```bibtex\n{text}\n```\n" if text else ""
