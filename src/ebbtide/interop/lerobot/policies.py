"""LeRobot's diffusion policies (0.4) as chunks of ours, and the names of their weights. It does not import LeRobot."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...codecs import Codec, Standardise
from ...core.denoiser import Denoiser
from ...core.randomness import Draws
from ...data.episodes import Robot
from ...errors import InputError
from ...files import hub_name, load_json, located, read_file
from ...inverse.chunking import Previous
from ...networks.action_film import ActionFiLMUNet
from ...robots.chunks import DenoiserChunks
from ...tensors import sound, unpack
from ...training import checkpoint
from ...training.build import ALPHA_MIN
from ..diffusers import from_diffusers
from ..hub import download
from ..names import renamed
from .files import ACTION, STATE
from .vision import columns_of_theirs, image_scaling, vision_options, vision_weights

__all__ = ["FromOldest", "from_lerobot", "load_policy", "to_lerobot"]

_UNET = "diffusion.unet."  # before the names of the network's weights
_ENVIRONMENT = "observation.environment_state"
_KINDS = {STATE: "STATE", _ENVIRONMENT: "ENV"}  # a kind that their table of scalings lacks is left as it is
# Their names of a network's parts, and ours; what is between them is the same.
_PARTS = (
    (r"^diffusion_step_encoder\.", "clock."),
    (r"^(down|up)_modules\.(\d+)\.([01])\.", r"\1.\2.\3."),
    (r"^down_modules\.(\d+)\.2\.", r"halving.\1."),
    (r"^up_modules\.(\d+)\.2\.", r"doubling.\1."),
    (r"^mid_modules\.", "middle."),
    (r"^final_conv\.0\.block\.", "last."),
    (r"^final_conv\.1\.", "out."),
    (r"\.cond_encoder\.", ".film."),
    (r"\.residual_conv\.", ".shortcut."),
    (r"\.(conv[12])\.block\.", r".\1."),
)
_BACK = (
    (r"\.(conv[12])\.", r".\1.block."),
    (r"\.shortcut\.", ".residual_conv."),
    (r"\.film\.", ".cond_encoder."),
    (r"^out\.", "final_conv.1."),
    (r"^last\.", "final_conv.0.block."),
    (r"^middle\.", "mid_modules."),
    (r"^doubling\.(\d+)\.", r"up_modules.\1.2."),
    (r"^halving\.(\d+)\.", r"down_modules.\1.2."),
    (r"^(down|up)\.", r"\1_modules."),
    (r"^clock\.", "diffusion_step_encoder."),
)


def from_lerobot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of LeRobot's DiffusionConditionalUnet1d under the names of an ActionFiLMUNet's."""
    return {renamed(name, _PARTS): part for name, part in tensors.items()}


def to_lerobot(network: ActionFiLMUNet) -> dict[str, Tensor]:
    """The inverse: a state-conditioned network's weights under LeRobot's names."""
    if network.observation is not None or network.vision is not None:
        raise InputError("Only a network that observes nothing but states is written under LeRobot's names.")
    return {renamed(name, _BACK): part for name, part in network.state_dict().items()}


@dataclass(frozen=True, eq=False)
class FromOldest:
    """Chunks whose first action is for the oldest of o observations, as Diffusion Policy's; given from now on.

    whole: the chunks of h actions; those here are the last h - o + 1 of them.
    """

    whole: DenoiserChunks

    @property
    def shape(self) -> tuple[int, int]:
        steps, actions = self.whole.shape
        return steps - self.n_obs_steps + 1, actions

    @property
    def observation(self) -> Mapping[str, tuple[int, ...]]:
        return self.whole.observation

    @property
    def n_obs_steps(self) -> int:
        return self.whole.n_obs_steps

    @property
    def n_action_steps(self) -> int:
        return self.whole.n_action_steps

    @property
    def robot(self) -> Robot:
        return self.whole.robot

    def sample_chunks(
        self,
        observation: dict[str, Tensor],
        *,
        draws: Draws,
        previous: Previous | None = None,
        noise: Float[Tensor, "b whole a"] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """As DenoiserChunks'; noise: of the whole chunks. previous: the chunk to continue."""
        past = self.n_obs_steps - 1
        if previous is not None and past:
            first = previous.actions[:, :1].expand(-1, past, -1)
            free = previous.weights.new_zeros(len(first), past)
            previous = Previous(torch.cat([first, previous.actions], 1), torch.cat([free, previous.weights], 1))
        return self.whole.sample_chunks(observation, draws=draws, previous=previous, noise=noise)[:, past:]


def load_policy(
    where: str | os.PathLike[str], *, sampler: str = "", grid: str = "", steps: int | None = None
) -> FromOldest:
    """The chunks of a diffusion policy that LeRobot stored, for `ebbtide.Policy`: a folder, or user/name on the hub.

    Its observation is `state` (o, s): LeRobot's observation.state and, after it, observation.environment_state, of
    each of o steps; and `images` (o · c, h, w, 3), in the order of the c cameras in its config.json, where it sees
    images. sampler, grid, steps: as in `sample`; by default its own scheduler's.

    Raises InputError for a policy of another type, for images seen by other networks than ResNet-18 or 34, and for
    weights that don't fit its configuration.
    """
    located("a policy's folder", where)
    folder = Path(where) if os.path.isdir(where) else _downloaded(os.fspath(where))
    config = load_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("type") != "diffusion":
        found = config.get("type") if isinstance(config, dict) else config
        raise InputError(f"{where} must be a policy of LeRobot's type diffusion; got {str(found)[:60]!r}.")
    try:
        return _loaded(config, folder, sampler, grid, steps)
    except KeyError as error:
        raise InputError(f"{where} can't be used: its config.json has no {error}.") from error
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{where} can't be used: {' '.join(str(error).split())[:300]}") from error


def _loaded(config: dict[str, Any], folder: Path, sampler: str, grid: str, steps: int | None) -> FromOldest:
    features = config["input_features"]
    keys = [key for key in _KINDS if key in features]
    cameras = [key for key in features if features[key]["type"] == "VISUAL"]
    if other := sorted(features.keys() - {*keys, *cameras}):
        raise InputError(
            f"{folder}: a policy that sees {other[0]} can't be loaded; only states and images can be read."
        )
    file = folder / checkpoint.WEIGHTS
    tensors = unpack(read_file(file), str(file))
    sound({name: part for name, part in tensors.items() if name.startswith("diffusion.")}, str(file))
    tensors = {name.replace("._orig_mod.", "."): part for name, part in tensors.items()}  # of a compiled network
    stats, modes = _statistics(folder, tensors, features), config["normalization_mapping"]
    o, sizes = config["n_obs_steps"], {key: features[key]["shape"][0] for key in keys}
    shape = config["horizon"], config["output_features"][ACTION]["shape"][0]
    observation: dict[str, tuple[int, ...]] = {"state": (o, sum(sizes.values()))}
    if cameras:
        observation["images"] = (o * len(cameras), *_size([features[key]["shape"] for key in cameras]), 3)
    network = ActionFiLMUNet(
        *shape, observation=observation, widths="-".join(map(str, config["down_dims"])), kernel=config["kernel_size"],
        groups=config["n_groups"], emb=config["diffusion_step_embed_dim"], timesteps=config["num_train_timesteps"],
        scales=config["use_film_scale_modulation"], **vision_options(config, len(cameras)) if cameras else {},
    )  # fmt: skip
    weights = from_lerobot({name[len(_UNET) :]: part for name, part in tensors.items() if name.startswith(_UNET)})
    if network.vision is not None:
        seen = vision_weights(tensors, len(network.vision.encoders))
        seen |= image_scaling(modes.get("VISUAL", "IDENTITY"), [stats.get(key) for key in cameras], o)
        weights |= {f"vision.{name}": part for name, part in seen.items()}
        ours = columns_of_theirs(
            config["diffusion_step_embed_dim"], o, sizes.get(STATE, 0), network.vision.features // o,
            sizes.get(_ENVIRONMENT, 0),
        )  # fmt: skip
        weights |= {
            name: part[:, ours]
            for name, part in weights.items()
            if name.endswith(".film.1.weight") and part.shape[1] == len(ours)  # else its sizes are refused below
        }
    if whole := [name for name, part in weights.items() if not part.is_floating_point()]:
        raise InputError(f"{file}: weights must be floating-point numbers; {whole[0]} isn't.")
    network.load_state_dict(weights)
    theirs = config["num_inference_steps"] or config["num_train_timesteps"]
    count = theirs if steps is None else steps
    made = from_diffusers(_scheduler(config, count), None if sampler or grid else count)
    coding = {key: _codec(modes.get(_KINDS[key], "IDENTITY"), stats.get(key), key, sizes[key]) for key in keys}
    return FromOldest(
        DenoiserChunks(
            Denoiser(network, made.path, made.target, alpha_min=ALPHA_MIN if sampler or grid else 0.0).eval(),
            shape,
            observation,
            o,
            config["n_action_steps"],
            _codec(modes.get("ACTION", "IDENTITY"), stats.get(ACTION), ACTION, shape[1], action=True),
            {"state": _joined([coding[key] for key in keys], list(sizes.values()))},
            sampler or made.sampler,
            count,
            grid or made.grid,
            config["clip_sample_range"] if config["clip_sample"] else 0.0,
        )
    )


def _scheduler(config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The configuration of the policy's scheduler, as diffusers writes it. Of all its steps every spacing is one."""
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    own = {name: config[name] for name in names}
    spacing = "trailing" if steps == config["num_train_timesteps"] else "leading"
    kind = f"{config['noise_scheduler_type']}Scheduler"
    return own | {"_class_name": kind, "clip_sample": False, "timestep_spacing": spacing}


def _size(shapes: list[Any]) -> tuple[int, int]:
    """Height and width of the cameras' images, which LeRobot has channels first."""
    if any(len(shape) != 3 or shape[0] != 3 or shape != shapes[0] for shape in shapes):
        raise InputError(f"A policy's images must be of one shape, with three channels first; got {shapes}.")
    return shapes[0][1], shapes[0][2]


def _statistics(
    folder: Path, tensors: Mapping[str, Tensor], features: Mapping[str, Any]
) -> dict[str, dict[str, Tensor]]:
    """By feature: those in the processors' files; in old folders they are among the weights, without dots in names."""
    dotted = {key.replace(".", "_"): key for key in (*features, ACTION)}
    found: dict[str, dict[str, Tensor]] = {}
    for name, part in tensors.items():
        if old := re.fullmatch(r"(?:un)?normalize_\w+\.buffer_(\w+)\.(\w+)", name):
            found.setdefault(dotted.get(old[1], old[1]), {})[old[2]] = part
    for file in sorted(folder.glob("policy_p*_*normalizer_processor.safetensors")):
        for name, part in unpack(read_file(file), str(file)).items():
            key, _, kind = name.rpartition(".")
            found.setdefault(key, {})[kind] = part
    return found


def _codec(mode: str, stats: Mapping[str, Tensor] | None, key: str, width: int, *, action: bool = False) -> Standardise:
    """LeRobot's scaling of a feature of this width: (x - mean) / std, or the range to [-1, 1], where a constant is -1.

    InputError where the folder has no statistics of it, or of another width, of which none would be no scaling.
    """
    if mode == "IDENTITY":
        return Standardise()
    ends = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99")}
    if stats is None or mode not in ends or not set(ends[mode]) <= stats.keys():
        raise InputError(f"The policy scales {key} by {mode}, for which its folder has no statistics.")
    low, high = (stats[name].double().flatten() for name in ends[mode])
    for name, found in zip(ends[mode], (low, high)):
        if len(found) != width:
            raise InputError(f"The policy's {key} has {width} numbers; its folder's {name} of it has {len(found)}.")
    if mode == "MEAN_STD":
        return Standardise(tuple(low.tolist()), tuple(high.tolist()))
    middle, half = (low + high) / 2, (high - low) / 2
    still = half == 0
    middle = middle if action else middle.where(~still, low + 1)
    half = half if action else half.where(~still, 1.0)
    return Standardise(tuple(middle.tolist()), tuple(half.tolist()))


def _joined(parts: list[Standardise], widths: list[int]) -> Codec:
    """One codec of several features' columns."""
    whole = [
        part if part.mean else Standardise((0.0,) * width, (1.0,) * width)
        for part, width in zip(parts, widths, strict=True)
    ]
    return Standardise(sum((part.mean for part in whole), ()), sum((part.std for part in whole), ()))


def _downloaded(name: str) -> Path:
    if (found := hub_name(name)) is None:
        raise InputError(f"{name} is no folder; a policy of LeRobot's is a folder, or USER/NAME on the hub.")
    repository, revision = found
    return download(repository, revision, ("*.json", "*.safetensors"))
