"""Sample quality: every metric is reported beside its floor, the score of real data, and with an interval.

    inputs       point sets as the metrics take them
    wasserstein  sliced_w2, within_mode_sliced_w2, exact_w2
    mmd          mmd2, energy_distance
    modes        outlier_fraction, mode_fractions, mean_log_density, label_agreement
    floor        the error of a difference to the floor, and its p
    intervals    of means, fractions and medians
    measurement  Measurement, a row of a report; table, to_json
    reference    real points, in two sets that share nothing
    points       METRICS
    report       measure → list[Measurement]

and of images, in the features of a network:

    frechet      frechet_distance, "FID" when the features are Inception's
    kid          kid
    manifold     precision_recall → Manifold
    memorisation nearest → Nearest, copied_share
    extractors   EXTRACTORS, train_classifier
    images       IMAGE_METRICS
    image_judge  measure_images → ImageReport; ImageJudge, for samples that come in blocks

and of generated tables:

    tables       Rows, judge_table: copies, C2ST beside cheap bars, columns, correlations, TSTR, nats

A new metric is one function and one row of METRICS or IMAGE_METRICS.
"""

from .actions import best_of, mean_absolute_error
from .extractors import EXTRACTORS, Classifier, Extractor, RealImages, train_classifier
from .frechet import frechet_distance
from .image_judge import ImageJudge, ImageReport, measure_images
from .images import IMAGE_METRICS, mean_squares, peak_of, peak_signal
from .kid import kid
from .manifold import Manifold, precision_recall
from .measurement import Measurement, table, to_json
from .memorisation import Nearest, copied_share, nearest
from .mmd import energy_distance, mmd2
from .modes import label_agreement, mean_log_density, mode_fractions, outlier_fraction
from .points import METRICS, Metric
from .report import measure
from .wasserstein import exact_w2, sliced_w2, within_mode_sliced_w2

__all__ = [
    "EXTRACTORS",
    "IMAGE_METRICS",
    "METRICS",
    "Classifier",
    "Extractor",
    "ImageJudge",
    "ImageReport",
    "Manifold",
    "Measurement",
    "Metric",
    "Nearest",
    "RealImages",
    "best_of",
    "copied_share",
    "energy_distance",
    "exact_w2",
    "frechet_distance",
    "kid",
    "label_agreement",
    "mean_absolute_error",
    "mean_log_density",
    "mean_squares",
    "measure",
    "measure_images",
    "mmd2",
    "mode_fractions",
    "nearest",
    "outlier_fraction",
    "peak_of",
    "peak_signal",
    "precision_recall",
    "sliced_w2",
    "table",
    "to_json",
    "train_classifier",
    "within_mode_sliced_w2",
]
