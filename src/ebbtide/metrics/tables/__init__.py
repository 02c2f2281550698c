"""Tables: how good generated rows are, copies first.

rows      Rows, a table whose columns have kinds; Units, in which rows are near to one another
trees     C2ST and TSTR, by scikit-learn's boosted trees
margins   each column's distance, correlations
bars      cheap bars: Gaussian copula, one per class, mixture of ranks
nats      densities over that of independent columns
judge     all of them as a report
"""

from .bars import copula, per_class, rank_mixture
from .judge import Part, judge_table, report_text
from .margins import column_distances, correlations
from .nats import Nats, nats_over_independent
from .rows import Rows, Units
from .trees import auc, skill

__all__ = [
    "Nats",
    "Part",
    "Rows",
    "Units",
    "auc",
    "column_distances",
    "copula",
    "correlations",
    "judge_table",
    "nats_over_independent",
    "per_class",
    "rank_mixture",
    "report_text",
    "skill",
]  # fmt: skip
