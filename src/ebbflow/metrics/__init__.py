"""How good are the samples? Every metric is reported beside its floor, what truth itself scores, and an interval.

    inputs       what a point set is
    wasserstein  sliced_w2, within_mode_sliced_w2, exact_w2
    mmd          mmd2, energy_distance
    modes        outlier_fraction, mode_fractions, mean_log_density, label_agreement
    report       METRICS, measure → list[Measurement], table, to_json

A new metric is one function and one row of METRICS.
"""

from .mmd import energy_distance, mmd2
from .modes import label_agreement, mean_log_density, mode_fractions, outlier_fraction
from .report import METRICS, Measurement, Metric, measure, table, to_json
from .wasserstein import exact_w2, sliced_w2, within_mode_sliced_w2

__all__ = [
    "METRICS",
    "Measurement",
    "Metric",
    "energy_distance",
    "exact_w2",
    "label_agreement",
    "mean_log_density",
    "measure",
    "mmd2",
    "mode_fractions",
    "outlier_fraction",
    "sliced_w2",
    "table",
    "to_json",
    "within_mode_sliced_w2",
]
