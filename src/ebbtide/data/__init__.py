"""Data: points to learn from (`points.py`: the DATASETS table and `load`), the user's own files of them (`files.py`),
images (`images.py`), robots' episodes (`episodes.py`), and the explicit transforms between the data's units and the
network's (`normalise.py`).
"""

from ..codecs.columns import IDENTITY, Pixels, Quantiles, Standardise, Transform, transform_from_config, within_float32
from .episodes import Episodes, Observation, Windows
from .files import read, save_points
from .points import DATASETS, Modes, PointSet, along_curve, gaussian_modes, load
from .table import Points

__all__ = [
    "DATASETS",
    "IDENTITY",
    "Episodes",
    "Modes",
    "Observation",
    "Pixels",
    "PointSet",
    "Points",
    "Quantiles",
    "Standardise",
    "Transform",
    "Windows",
    "along_curve",
    "gaussian_modes",
    "load",
    "read",
    "save_points",
    "transform_from_config",
    "within_float32",
]
