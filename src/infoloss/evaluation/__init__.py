"""How good predictions are: labels, probabilities, calibration."""

from infoloss.evaluation.calibration import (
    Reliability,
    binned,
    expected_calibration_error,
    fit_temperature,
    noise_floor,
    reliability,
    tempered,
)
from infoloss.evaluation.scores import (
    METRICS,
    confusion,
    contributions,
    label_contributions,
    per_class_recall,
    scores,
)
from infoloss.evaluation.streaming import StreamingScores

__all__ = [
    "METRICS",
    "Reliability",
    "StreamingScores",
    "binned",
    "confusion",
    "contributions",
    "expected_calibration_error",
    "fit_temperature",
    "label_contributions",
    "noise_floor",
    "per_class_recall",
    "reliability",
    "scores",
    "tempered",
]
