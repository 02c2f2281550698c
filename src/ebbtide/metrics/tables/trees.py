"""Boosted trees as judges of a table: can they tell samples from real rows, and what do they learn from samples?

They are scikit-learn's, of the extra `metrics`: HistGradientBoosting takes levels and missing cells as they are.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ...errors import InputError
from .rows import Rows

__all__ = ["FEWEST", "MOST_LEVELS", "NO_TREES", "auc", "skill", "trees_at_hand"]

NO_TREES = "skipped: it needs scikit-learn (pip install 'ebbtide[metrics]')"
FEWEST = 10  # rows of either set
MOST_LEVELS = 250  # of a column that trees take as levels; of others the order counts
FOLDS, ITERATIONS = 5, 60
FEWEST_CELLS = 20  # of a column in the rows that are learned from
SMALL = 150  # training rows; with fewer, leaves of 5 rows


def trees_at_hand() -> bool:
    """True if scikit-learn is installed."""
    return find_spec("sklearn") is not None


def auc(real: Rows, other: Rows, seed: int = 0) -> float:
    """C2ST: the area under the ROC curve of trees that tell real rows from others, each row judged by trees that
    haven't seen it (5 folds). 0.5: they can't be told apart; 1: every row can. Less than 0.5 by chance.

    Lopez-Paz & Oquab 2017, arXiv:1610.06545.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(len(real), len(other)) < FEWEST:
        raise InputError(f"C2ST needs at least {FEWEST} rows of either set; got {len(real)} and {len(other)}.")
    x, y = _features(np.concatenate([real.x, other.x])), np.repeat([0, 1], [len(real), len(other)])
    trees = _trees(real, np.ones(len(real.names), bool), max_iter=ITERATIONS)[0]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(roc_auc_score(y, cross_val_predict(trees(), x, y, cv=folds, method="predict_proba")[:, 1]))


def skill(train: Rows, test: Rows, target: int) -> float:
    """The accuracy, or of a column of numbers R², on test rows, of trees that predict `target` from other columns."""
    others = np.arange(len(train.names)) != target
    leaf = 5 if len(train) < SMALL else 20
    classify, predict = _trees(train, others, max_iter=ITERATIONS, min_samples_leaf=leaf)
    known, asked = (rows.x[~np.isnan(rows.x[:, target])] for rows in (train, test))
    if len(known) < 2 or len(asked) < 2:
        raise InputError(f"{train.names[target]} has {len(known)} cells to learn from and {len(asked)} to predict.")
    y = known[:, target]
    if train.levels[target] and len(np.unique(y)) == 1:  # of one class nothing is learned
        return float((asked[:, target] == y[0]).mean())
    features = _features(np.concatenate([known, asked])[:, others], len(known))
    found = (classify if train.levels[target] else predict)().fit(features[: len(known)], y)
    return float(found.score(features[len(known) :], asked[:, target]))


def _features(x: Float[np.ndarray, "n d"], learned: int | None = None) -> Float[np.ndarray, "n d"]:
    """The columns, of which each needs cells to be binned: of those with very few only whether a cell is there."""
    gaps = np.isnan(x)
    return np.where((~gaps[:learned]).sum(0) < FEWEST_CELLS, gaps, x)


def _trees(rows: Rows, kept: Bool[np.ndarray, " d"], **options: Any) -> tuple[Any, Any]:
    """Makers of a classifier and a regressor for these columns."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    levels = [0 < len(own) <= MOST_LEVELS for own, keep in zip(rows.levels, kept) if keep]
    own = {"categorical_features": levels, "random_state": 0, **options}
    return partial(HistGradientBoostingClassifier, **own), partial(HistGradientBoostingRegressor, **own)
