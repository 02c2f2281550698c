"""A run as a folder that `DiffusionPipeline.from_pretrained` of diffusers runs, without ebbtide.

A network in pixels, without classes, runs in a pipeline of theirs: DDPMPipeline, or ConsistencyModelPipeline where the
scheduler scales the network's inputs. What theirs lack (classes and guidance, latents, students, features of a real
time) is in community.py, which such a folder
holds as pipeline.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..codecs import Chain, Codec, Patches, Pixels
from ..core.paths import VE, Linear
from ..errors import InputError, printable
from ..files import dump_json, located, read_file
from ..networks.clock import Timestep
from ..networks.unet import UNet
from ..samplers import facts
from ..specs import require, words
from ..training import checkpoint
from ..training.card import licence_line
from ..version import __version__
from .diffusers import to_diffusers
from .schedulers import SAMPLED_BY
from .unet import CONFIG, WEIGHTS, unet_files

if TYPE_CHECKING:
    from ..training.trained import Trained

__all__ = ["PIPELINE", "ForDiffusers", "pipeline_files", "save_pipeline"]

VERSION = "0.42.1"  # of diffusers, whose formats these are
PIPELINE, DECODER = "pipeline.py", "decoder.py"


class ForDiffusers(NamedTuple):
    """A folder for diffusers: the class of its pipeline, that of its scheduler, and the steps it samples in."""

    folder: Path
    pipeline: str
    scheduler: str
    steps: int


def save_pipeline(
    trained: "Trained",
    folder: str | Path,
    *,
    sampler: str = "",
    steps: int | None = None,
    license: str = "",
    overwrite: bool = False,
) -> ForDiffusers:
    """Write a folder that DiffusionPipeline.from_pretrained opens, whole or not at all.

    sampler: one that diffusers has, "" for the run's, or the simplest where it hasn't that. steps: the run's unless
    given; a student of two times jumps once. overwrite: replace what an earlier call wrote.

    Raises InputError for a run that has no counterpart there: its kind, network, path, target, codec or bound.
    """
    made, files = pipeline_files(trained, Path(folder).name, sampler=sampler, steps=steps, license=license)
    target = located("folder", folder).resolve()
    if target.exists():
        if not overwrite:
            raise InputError(f"{folder} exists; give overwrite=True (--overwrite) to replace it.")
        if not target.is_dir() or not (target / "model_index.json").is_file():
            raise InputError(f"{folder} holds no exported pipeline, so it is not replaced.")
        found = {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}
        if more := sorted(found - _EVER):
            raise InputError(f"{folder} holds more than an exported pipeline, {more[0]}, so it is not replaced.")
    checkpoint.write_folder(target, files)
    return made._replace(folder=Path(folder))


_EVER = {
    "model_index.json", checkpoint.MANIFEST, checkpoint.README, PIPELINE, f"unet/{CONFIG}", f"unet/{WEIGHTS}",
    "scheduler/scheduler_config.json", f"decoder/{CONFIG}", f"decoder/{WEIGHTS}", f"decoder/{DECODER}",
}  # fmt: skip


def pipeline_files(
    trained: "Trained", where: str, *, sampler: str = "", steps: int | None = None, license: str = ""
) -> tuple[ForDiffusers, dict[str, checkpoint.Content]]:
    """The files of such a folder by their names in it, for readers who find it at `where`."""
    denoiser, recipe, network = trained.denoiser, trained.recipe, trained.denoiser.network
    trained.sampling()
    if not isinstance(network, UNet):
        raise InputError(f"diffusers runs U-Nets of images; this run's network is {words(recipe.network)[0]}.")
    trained.given_nothing("no pipeline of diffusers takes")
    path, count = denoiser.path, recipe.sample_steps if steps is None else steps
    require("steps", count, 1, 1000, whole=True)
    student = facts(recipe.sampler).spans
    if student:
        if not denoiser.predicts_velocity or not isinstance(path, Linear):
            raise InputError("diffusers runs students of flows alone: the path linear, the target velocity.")
        if steps not in (None, 1) or sampler not in ("", "jump"):
            raise InputError("In diffusers a student of two times jumps once: leave sampler out, and let steps be 1.")
        config, bound, count = to_diffusers(path, denoiser.target), 0.0, 1
    else:
        bound = recipe.bound
        if not sampler:
            family = "flow" if isinstance(path, Linear) else "edm" if isinstance(path, VE) else "table"
            sampler = recipe.sampler if recipe.sampler in SAMPLED_BY[family] else ""
        config = to_diffusers(path, denoiser.target, sampler, recipe.grid, bound=bound)
    decoder = _decoder(trained.codec, bound)
    unet, clock = _unet(network, config, path, 1.0 if student else None)
    square = network.shape[1] == network.shape[2]
    scaled = isinstance(path, VE)
    plain = not (recipe.conditional or decoder or clock) and (square or not scaled)
    index: dict[str, Any] = {
        "_class_name": ("ConsistencyModelPipeline" if scaled else "DDPMPipeline") if plain else ["pipeline", _CLASS],
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", config["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
    }
    files: dict[str, checkpoint.Content] = {f"unet/{name}": data for name, data in unet.items()}
    files["scheduler/scheduler_config.json"] = dump_json(config | {"_diffusers_version": VERSION})
    if not plain:
        labels = network.from_label is not None
        index |= {
            "decoder": ["decoder", "PatchDecoder"] if decoder else [None, None],
            "classes": list(trained.classes) if labels else None,
            "null_label": network.classes if labels and not denoiser.needs_label else None,
            "clock": clock, "steps": count,
        }  # fmt: skip
        files[PIPELINE] = read_file(Path(__file__).with_name("community.py"))
        files |= {f"decoder/{name}": data for name, data in decoder.items()}
    files["model_index.json"] = dump_json(index)
    name = index["_class_name"] if plain else _CLASS
    made = ForDiffusers(Path(where), name, config["_class_name"], count)
    files[checkpoint.README] = _card(trained, where, made, license).encode()
    return made, files


_CLASS = "ImagePipeline"


def _unet(
    network: UNet, config: Mapping[str, Any], path: Any, span: float | None
) -> tuple[dict[str, checkpoint.Content], dict[str, Any] | None]:
    """The network's files, and its clock where it isn't one that their network has: `community.Clock`'s arguments."""
    clock: Any = network.from_time[0]
    size = config["num_train_timesteps"]
    first = 0 if isinstance(path, Linear) else 1  # timestep i of a table is t = (i + 1) / size
    per, first = (1, 0) if isinstance(path, VE) else (size, first)
    if isinstance(clock, Timestep) and (clock.timesteps, clock.first) == (per, first):
        return unet_files(network, span=span), None
    whole = (torch.arange(1 if isinstance(path, VE) else size) + first) / per
    files = unet_files(network, table=whole, span=span)
    if not isinstance(path, VE | Linear):  # whose schedulers ask at whole timesteps alone
        return files, None
    scale, offset = (clock.timesteps, clock.first) if isinstance(clock, Timestep) else (1, 0)
    return files, {"frequencies": clock.frequencies.tolist(), "scale": scale / per, "offset": -float(offset)}


def _decoder(codec: Codec | None, bound: float) -> dict[str, checkpoint.Content]:
    """The files of a module that makes images in -1 to 1 of latents; none where the network's units are those."""
    codecs = codec.codecs if isinstance(codec, Chain) else (codec,)
    if not isinstance(codecs[0], Pixels):
        raise InputError("diffusers draws images whose pixels 0 to 255 are -1 to 1; this run's data are others.")
    if len(codecs) == 1:
        return {}
    patches = codecs[1]
    if len(codecs) > 2 or not isinstance(patches, Patches):
        raise InputError(
            "Of latents, only those of the codec pixels+patches have a decoder that diffusers can run here."
        )
    if bound:
        raise InputError(f"bound {bound:g} acts on the pixels of latents here, which no scheduler does; give bound 0.")
    nothing = patches.decode(torch.zeros(1, len(patches.scale), 1, 1))
    weight = patches.decode(torch.eye(len(patches.scale))[:, :, None, None]) - nothing
    config = {"channels": len(weight), "colours": weight.shape[1], "size": patches.size}
    return {
        CONFIG: dump_json({"_class_name": "PatchDecoder", "_diffusers_version": VERSION} | config),
        WEIGHTS: {"weight": weight, "mean": nothing[0]},
        DECODER: read_file(Path(__file__).with_name("decoder.py")),
    }


def _card(trained: "Trained", where: str, made: ForDiffusers, license: str) -> str:
    """README.md of the folder: what it is, and how diffusers runs it."""
    custom = made.pipeline == _CLASS
    trust = ", trust_remote_code=True" if custom else ""
    label = f", class_labels={printable(trained.classes[0])!r}" if trained.recipe.conditional else ""
    steps = f"num_inference_steps={made.steps}"
    code = " Its `pipeline.py` needs diffusers and torch alone; read it before you trust it." if custom else ""
    return f"""---
library_name: diffusers
pipeline_tag: unconditional-image-generation
{licence_line(license)}tags: [diffusers, diffusion, flow-matching]
---
# {printable(trained.about or "Images")}

A `UNet2DModel` trained with ebbtide {__version__} on the path `{trained.recipe.path}`, with the target
`{trained.recipe.target}`, for `{made.pipeline}` with `{made.scheduler}`.{code}

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({where!r}{trust})
images = pipeline(batch_size=4{label}, {steps}).images
```
"""
