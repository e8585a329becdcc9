"""How good predictions are: labels, probabilities, calibration."""

from infoloss.evaluation.calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    noise_floor,
    reliability,
    tempered,
)
from infoloss.evaluation.scores import METRICS, confusion, contributions, per_class_recall, scores
from infoloss.evaluation.streaming import StreamingScores

__all__ = [
    "METRICS",
    "Reliability",
    "StreamingScores",
    "confusion",
    "contributions",
    "expected_calibration_error",
    "fit_temperature",
    "noise_floor",
    "per_class_recall",
    "reliability",
    "scores",
    "tempered",
]
