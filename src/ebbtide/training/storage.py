"""config.json and the weights beside it: how a `Trained` is written down, and checked before it is built.

A folder may be a stranger's: every field is checked, and nothing is allocated but what the weights at hand fill.
"""

import math
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codecs import Codec, codec_from_config, encoder_hash, latent_shape, within_float32
from ..data import Observation
from ..data.forms import form_from_config
from ..errors import InputError
from ..exact.tuned import TUNED
from ..files import dump_json, parse_json
from ..memory import room
from ..networks.outline import fill
from ..recipes import IN_MEMORY, recipe_from_config
from ..specs import parse
from ..tensors import sound, unpack
from ..version import __version__
from . import checkpoint, seal
from .build import build_denoiser
from .card import FIGURE
from .settings import MADE

if TYPE_CHECKING:
    from .trained import Trained

__all__ = [
    "EXPORTED",
    "FORMAT",
    "IN_FLIGHT",
    "TIME",
    "codec_in",
    "config_json",
    "fields",
    "folder_name",
    "opened",
    "unnamed",
]

FORMAT = 2
READS = (1, 2)  # 1 had `transform` for `codec`
TIME = "t = 0 is data, t = 1 is noise"
IN_FLIGHT = 32  # numbers that a network holds for each of a sample's, at least
CODEC = "codec.safetensors"
EXPORTED = (checkpoint.MANIFEST, checkpoint.README, "config.json", checkpoint.WEIGHTS, CODEC, TUNED, FIGURE)


def config_json(trained: "Trained") -> bytes:
    """config.json: everything but the weights."""
    fields = {
        "format": FORMAT,
        "ebbtide": __version__,
        "torch": torch.__version__.split("+")[0],
        "time": TIME,
        "step": trained.step,
        "shape": list(trained.shape),
        "columns": list(trained.columns),
        "classes": list(trained.classes),
        "codec": None if trained.codec is None else trained.codec.to_config(),
        "encoder": "" if trained.codec is None or not trained.codec.weights() else encoder_hash(trained.codec),
        "observation": None if trained.observation is None else trained.observation.to_config(),
        "frequencies": list(trained.frequencies),
        "form": None if trained.form is None else trained.form.to_config(),
        "made": dict(trained.made),
        "recipe": trained.recipe.to_config(),
    }
    return dump_json(fields)


def opened(name: str) -> tuple[Any, dict[str, Tensor]]:
    """config.json and the weights of a run's newest checkpoint, or of an export, for a codec that is made of them.

    name: the folder.
    """
    where, files = checkpoint.files_of(folder_name("codec", name), lambda text: None)
    return parse_json(files["config.json"], where / "config.json"), checkpoint.weights_in(files, str(where))


def codec_in(files: Mapping[str, bytes], name: str) -> Codec | None:
    """The codec in a folder's files; InputError if it isn't whole, or another than the network was trained on."""
    config = parse_json(files["config.json"], f"{name}/config.json")
    described = config.get("codec", config.get("transform")) if isinstance(config, dict) else None
    return None if described is None else _codec(described, config.get("encoder", ""), files, name)


def _codec(described: Any, encoder: Any, files: Mapping[str, bytes], name: str) -> Codec:
    weights = sound(unpack(files[CODEC], f"{name}/{CODEC}"), f"{name}/{CODEC}") if CODEC in files else {}
    found = codec_from_config(described, weights)
    if weights and encoder_hash(found) != encoder:
        raise InputError(f"{CODEC} holds another encoder than the one that this run was trained with.")
    within_float32(found, "its codec")
    return found


def fields(files: Mapping[str, bytes], name: str, named: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the `Trained` that a folder's files describe; `name` is what errors call the folder.

    named: what the user names, and so may be opened, by field of the recipe.
    """
    where = f"{name}/config.json"
    config = parse_json(files["config.json"], where)
    if not isinstance(config, dict) or config.get("format") not in READS or config.get("time") != TIME:
        raise InputError(f"{where} is not a configuration of this version of ebbtide.")
    weights = checkpoint.weights_in(files, name)
    try:
        return _checked(config, weights, named, files, name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{where} can't be used: {' '.join(str(error).split())}") from error


def _checked(
    config: dict[str, Any], weights: dict[str, Tensor], named: Mapping[str, str], files: Mapping[str, bytes], name: str
) -> dict[str, Any]:
    """Check every field, then build: nothing is allocated but what the weights at hand fill."""
    config = {
        "observation": None,
        "frequencies": [],
        "encoder": "",
        "form": None,
        "made": {},
    } | config  # which older versions wrote without
    if "ebbflow" in config:  # the library's name before version 0.2
        config["ebbtide"] = config.pop("ebbflow")
    if "transform" in config:
        config["codec"] = config.pop("transform")
    if set(config) != set(_FIELDS):
        raise InputError(f"it must have the fields {', '.join(_FIELDS)}; got {', '.join(config)}.")
    for field, fits in _FIELDS.items():
        if not fits(config[field]):
            raise InputError(f"its {field} can't be {str(config[field])[:60]!r}.")
    recipe, shape, classes = recipe_from_config(config["recipe"]), tuple(config["shape"]), tuple(config["classes"])
    outside = recipe.outside()
    if seal.holds(files, recipe):
        named = outside | {**named}
    if (
        closed := outside.keys() - named.keys() - {*recipe.sources, "teacher", "init", "codec"}
    ):  # what its network is built from
        raise InputError(unnamed(min(closed), outside[min(closed)]))
    built = recipe.naming(named)
    most = sum(part.numel() for part in weights.values())
    for option, value in parse(recipe.network)[1].items():
        if isinstance(value, int) and value > most:
            raise InputError(f"its network's {option} can't be {value}: model.safetensors has {most} weights.")
    shares = tuple(map(float, config["frequencies"]))
    if shares and (len(shares) != len(classes) or not math.isclose(sum(shares), 1, abs_tol=1e-6)):
        raise InputError(f"its frequencies must be {len(classes)}, one for each class, and add up to 1.")
    seen = None if config["observation"] is None else Observation.from_config(config["observation"])
    room(4 * IN_FLIGHT * math.prod(shape), f"a network for samples of shape {shape}")
    codec = None if config["codec"] is None else _codec(config["codec"], config["encoder"], files, name)
    denoiser = build_denoiser(built, latent_shape(codec, shape), len(classes), seen, outline=True)
    outline = denoiser.state_dict()
    for part in sorted(outline.keys() | weights.keys()):
        described, found = (_kind(tensors.get(part)) for tensors in (outline, weights))
        if described != found:
            raise InputError(f"it describes {part[:80]} as {described}, but model.safetensors has {found}.")
    fill(denoiser, weights)
    columns = tuple(config["columns"])
    form = None if config["form"] is None else form_from_config(config["form"])
    if form is not None and len(form.learned) != shape[-1]:
        raise InputError(f"its form must be of {shape[-1]} columns besides the labels'; got {len(form.learned)}.")
    return {
        "denoiser": denoiser.eval(), "recipe": recipe, "shape": shape, "codec": codec, "columns": columns,
        "classes": classes, "step": config["step"], "observation": seen, "frequencies": shares, "named": dict(named),
        "form": form, "made": config["made"],
    }  # fmt: skip


def folder_name(what: str, name: Any) -> Path:
    """The folder of this name; InputError for what names none. "" would be the current folder."""
    if not isinstance(name, str | os.PathLike) or not os.fspath(name) or "\0" in str(name):
        raise InputError(f"{what} must name a folder; got {repr(name)[:60]}.")
    return Path(name)


def unnamed(what: str, name: str) -> str:
    """The sentence for a loaded run that names something which the user did not name.

    what: the field of the recipe; name: its value.
    """
    if (what, name) == ("data", IN_MEMORY):
        return (
            "This run was trained on data in memory; give a file with the same rows: --data FILE (data=… in "
            "from_pretrained)."
        )
    uses = {
        "data": "was trained on",
        "source": "starts from",
        "teacher": "was distilled from",
        "init": "began with the weights of",
        "weights": "was built on",
        "codec": "was encoded by",
        "tokenizer": "reads prompts by",
    }
    return (
        f"This run {uses[what]} {name}, which is opened only if you name it too: --{what} {shlex.quote(name)}, or "
        f"where it lies now ({what}=… in from_pretrained)."
    )


def _kind(part: Tensor | None) -> str:
    if part is None:
        return "none"
    return f"{'float' if part.is_floating_point() else 'integer'} {str(tuple(part.shape))[:80]}"


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _count(value: Any, low: int = 0) -> bool:
    return type(value) is int and low <= value <= 10**12


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


# The fields of config.json, each with what it may hold.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "format": _count,
    "ebbtide": lambda value: isinstance(value, str),
    "torch": lambda value: isinstance(value, str),
    "time": lambda value: value == TIME,
    "step": _count,
    "shape": lambda value: isinstance(value, list) and bool(value) and all(_count(part, 1) for part in value),
    "columns": _texts,
    "classes": _texts,
    "codec": lambda value: value is None or isinstance(value, dict),
    "encoder": lambda value: isinstance(value, str),
    "observation": lambda value: value is None or isinstance(value, dict),
    "frequencies": lambda value: isinstance(value, list) and all(map(_share, value)),
    "form": lambda value: value is None or isinstance(value, dict),
    "made": lambda value: isinstance(value, dict) and value.keys() <= MADE.keys(),
    "recipe": lambda value: isinstance(value, dict),
}
