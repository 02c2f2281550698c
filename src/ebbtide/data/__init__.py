"""Data: points to learn from (`points.py`: the DATASETS table and `load`), the user's own files of them (`files.py`),
images (`images.py`) and robots' episodes (`episodes.py`). What is done to data before a network sees it: codecs/.
"""

from ..codecs import IDENTITY, Pixels, Quantiles, Standardise, within_float32
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
    "Windows",
    "along_curve",
    "gaussian_modes",
    "load",
    "read",
    "save_points",
    "within_float32",
]
