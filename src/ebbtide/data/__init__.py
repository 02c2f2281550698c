"""Data: points to learn from (`points.py`: the DATASETS table and `load`), the user's own files of them (`files.py`),
images (`images.py`) and robots' episodes (`episodes.py`). What is done to data before a network sees it: codecs/.
"""

from ..codecs import IDENTITY, Pixels, Quantiles, Standardise, within_float32
from .episodes import Episodes, Observation, Windows
from .files import read, save_points, save_table
from .forms import Column, Form, Reading
from .frames import as_columns, as_frame
from .points import DATASETS, Modes, PointSet, along_curve, gaussian_modes, load
from .table import Points

__all__ = [
    "DATASETS",
    "IDENTITY",
    "Column",
    "Episodes",
    "Form",
    "Modes",
    "Observation",
    "Pixels",
    "PointSet",
    "Points",
    "Quantiles",
    "Reading",
    "Standardise",
    "Windows",
    "along_curve",
    "as_columns",
    "as_frame",
    "gaussian_modes",
    "load",
    "read",
    "save_points",
    "save_table",
    "within_float32",
]
