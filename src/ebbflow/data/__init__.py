"""Data: points to learn from (`points.py`: the DATASETS table and `load`), the user's own files of them (`files.py`),
pictures (`images.py`), and the explicit transforms between the data's units and the network's (`normalise.py`).
"""

from .files import read, save
from .normalise import IDENTITY, Pixels, Standardise, Transform, transform_from_config
from .points import DATASETS, Modes, Points, PointSet, along, load, mixture

__all__ = [
    "DATASETS",
    "IDENTITY",
    "Modes",
    "Pixels",
    "PointSet",
    "Points",
    "Standardise",
    "Transform",
    "along",
    "load",
    "mixture",
    "read",
    "save",
    "transform_from_config",
]
