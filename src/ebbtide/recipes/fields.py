"""The fields of recipes as keywords, for type checkers: what `flow(data="table.csv", steps=300)` may name.

One line for each field of the recipes' classes; tests/recipes/test_fields.py holds the two together.
"""

from typing import Literal, TypedDict

__all__ = ["Fields", "ImageFields", "PointFields", "RobotFields"]


class Fields(TypedDict, total=False):
    """Of every recipe."""

    data: str
    label: str
    conditional: bool
    label_dropout: float
    path: str
    target: str
    times: str
    stratified: bool
    weight: str
    coupling: str
    stable_targets: bool
    loss: str
    spans: str
    teacher: str
    teacher_guidance: float
    trajectories: int
    trajectory_steps: int
    network: str
    init: str
    steps: int
    batch: int
    lr: float
    warmup: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    lr_steps: int
    clip: float
    ema: float
    seed: int
    sampler: str
    grid: str
    sample_steps: int
    bound: float


class PointFields(Fields, total=False):
    """Of a PointRecipe."""

    points: int
    source: str
    held_out: float
    validation: float
    gaussians: int
    columns: str
    drop: str
    missing: str
    categorical: str
    ordered: str
    codec: str
    any_columns: bool
    standardise: bool


class ImageFields(Fields, total=False):
    """Of an ImageRecipe."""

    size: int
    channels: int
    value_range: str
    codec: str
    flip: bool
    factor: int
    attributes: str
    attribute_ranges: str
    held_out: float
    on_bad_image: Literal["skip", "fail"]


class RobotFields(Fields, total=False):
    """Of a RobotRecipe."""

    simulator: str
    objective: Literal["flow_matching", "diffusion"]
    horizon: int
    n_obs_steps: int
    n_action_steps: int
    state: str
    angles: str
    action: str
    cameras: str
    size: int
    value_range: str
    prompt: int
    normalise: Literal["mean_std", "quantiles", "min_max"]
    least: float
    masked: bool
    held_out: float
