"""Data: points to learn from (`points.py`: the DATASETS table and `load`), the user's own files (`files.py`)
and the explicit transform between the data's units and the network's (`normalise.py`).
"""

from .files import read, save
from .normalise import IDENTITY, Standardise
from .points import DATASETS, Modes, Points, PointSet, along, load, mixture

__all__ = [
    "DATASETS",
    "IDENTITY",
    "Modes",
    "PointSet",
    "Points",
    "Standardise",
    "along",
    "load",
    "mixture",
    "read",
    "save",
]
