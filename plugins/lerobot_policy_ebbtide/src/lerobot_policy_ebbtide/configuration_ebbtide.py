"""The configuration of an ebbtide policy, as LeRobot stores it."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE

from ebbtide.errors import InputError

__all__ = ["EbbtideConfig"]


@PreTrainedConfig.register_subclass("ebbtide")
@dataclass
class EbbtideConfig(PreTrainedConfig):
    """An ebbtide run, or the recipe of a new policy, and how its chunks are executed.

    run, solvers: the run's config.json and tuned.json. Shapes, codecs, network, path and target stand there, and
        nowhere else. Empty for a policy that LeRobot's trainer makes from scratch.
    recipe, network, objective, normalise: of a new policy, as in `ebbtide train`; "" for the recipe's own.
    horizon, n_obs_steps, n_action_steps: actions in a chunk, observations that it is given, and actions of it that are
        executed. The first two of a run are its own.
    sampler, grid, steps: of its chunks; the run's own unless given.
    seed: of their noise. delay, real_time, ensemble: as in `ebbtide.Policy`; a negative ensemble is none.
    state_names: the columns of observation.state, of which the run's are chosen; needed where it observes some of
        them, or the sine and cosine of angles. cameras: the keys of its images, in their order.
    """

    run: dict[str, Any] = field(default_factory=dict)
    solvers: list[dict[str, Any]] = field(default_factory=list)
    recipe: str = "flow-policy"
    network: str = ""
    objective: str = ""
    normalise: str = ""
    n_obs_steps: int = 1
    horizon: int = 16
    n_action_steps: int = 8
    sampler: str = ""
    grid: str = ""
    steps: int = 0
    seed: int = 0
    delay: int = 0
    real_time: bool = False
    ensemble: float = -1.0
    state_names: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    # The run's codecs do it, so that a batch and its actions are in the robot's units on both sides of the policy.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run:
            self.follow(self.run)

    def follow(self, run: dict[str, Any]) -> None:
        """Take from a run's config.json what LeRobot reads of a policy's configuration."""
        recipe, seen = run["recipe"], run["observation"]["shapes"]
        if not self.cameras:
            self.cameras = [_key(name) for name in filter(None, recipe.get("cameras", "").split(","))]
        self.n_obs_steps = recipe.get("n_obs_steps", 1)
        self.horizon, actions = run["shape"]
        features = {}
        if "state" in seen:
            width = len(self.state_names) or seen["state"][1]
            features[OBS_STATE] = PolicyFeature(FeatureType.STATE, (width,))
        if "images" in seen:
            _, height, width, channels = seen["images"]
            features |= {key: PolicyFeature(FeatureType.VISUAL, (channels, height, width)) for key in self.cameras}
        own: Any = self  # LeRobot's fields have no types where it isn't installed
        own.input_features = own.input_features or features
        own.output_features = own.output_features or {ACTION: PolicyFeature(FeatureType.ACTION, (actions,))}
        self.validate_features()

    def validate_features(self) -> None:
        """InputError where the inputs lack a camera of the run's."""
        if missing := [key for key in self.cameras if key not in (self.input_features or {})]:
            raise InputError(f"The policy needs the camera {missing[0]!r}; got {', '.join(self.input_features or {})}.")

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, grad_clip_norm=1.0)

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name="cosine", num_warmup_steps=self.scheduler_warmup_steps)


def _key(camera: str) -> str:
    """A camera's key in LeRobot: its only one is observation.image, others have names."""
    if camera.startswith("observation."):
        return camera
    return OBS_IMAGE if camera == "image" else f"{OBS_IMAGES}.{camera}"
