"""Do probabilities mean what they say? Reliability, expected calibration error, temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from infoloss.evaluation.predictions import checked, log_softmax

__all__ = [
    "BINS",
    "Reliability",
    "binned",
    "expected_calibration_error",
    "fit_temperature",
    "noise_floor",
    "reliability",
    "tempered",
]

BINS = 15
"""Equal bins ((m − 1)/15, m/15] of the confidence, as in Guo et al. 2017."""

TEMPERATURES = (0.01, 100.0)
"""Where a temperature is looked for."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Mean confidence and accuracy per bin of confidence (B,), and rows per bin; empty bins hold 0."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Σ_b n_b/n · |accuracy_b − confidence_b|: the expected calibration error."""
        gap = np.abs(self.accuracy - self.confidence)
        return float(gap @ self.count / self.count.sum())


def reliability(log_probabilities: Any, target: Any, bins: int = BINS) -> Reliability:
    """Accuracy against confidence, the confidence being the largest probability of a row.

    The prediction is the class of that probability; a loss that decides otherwise (prior-shifted ones) is
    judged here by its probabilities. Bins are open below and closed above, so a confidence of 1 is in the
    last.

    Args:
        log_probabilities: (n, C), rows sum to 1 in probability.
        target: (n,) class codes.
        bins: how many equal bins.

    Returns:
        `Reliability` with arrays (bins,).

    Raises:
        ValueError: shapes, nan, unnormalised rows, labels out of range.

    Source: Guo et al. 2017 (1706.04599), section 2.

    Example:
        >>> found = reliability(np.log([[0.8, 0.2], [0.75, 0.25], [0.4, 0.6]]), [0, 1, 1], bins=2)
        >>> found.count, round(found.error, 4)
        (array([0, 3]), 0.05)
    """
    log_p, codes = checked(log_probabilities, target)
    return binned(_confidence(log_p), log_p.argmax(axis=1) == codes, bins)


def binned(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability of rows of which only confidence (n,) and whether it was right (n,) are known.

    Example:
        >>> binned(np.array([0.8, 0.75, 0.6]), np.array([True, False, True]), bins=2).count
        array([0, 3])
    """
    place = _bin(confidence, bins)
    count = np.bincount(place, minlength=bins)
    shown = np.maximum(count, 1)
    hits = np.bincount(place, weights=right, minlength=bins)
    return Reliability(np.bincount(place, weights=confidence, minlength=bins) / shown, hits / shown, count)


def expected_calibration_error(log_probabilities: Any, target: Any, bins: int = BINS) -> float:
    """Mean distance of accuracy and confidence over bins, weighted by rows; 0 … 1.

    Positive for a perfectly calibrated model too: see `noise_floor`.

    Source: Guo et al. 2017 (1706.04599), equation 3.

    Example:
        >>> expected_calibration_error(np.log([[0.5, 0.5], [0.5, 0.5]]), [0, 1])
        0.0
    """
    return reliability(log_probabilities, target, bins).error


def noise_floor(log_probabilities: Any, bins: int = BINS, simulations: int = 200) -> float:
    """The expected calibration error that a calibrated model with these confidences would show.

    Mean over simulations in which row i is right with probability confidence_i. The generator's seed is
    fixed: the same predictions give the same number. An error below about this number cannot be told from
    none; it shrinks as 1/√n.

    Example:
        >>> confident = np.log(np.tile([1 - 1e-12, 1e-12], (100, 1)))
        >>> round(noise_floor(confident), 6)
        0.0
    """
    log_p, _ = checked(log_probabilities, np.zeros(len(log_probabilities), int))
    confidence = _confidence(log_p)
    # Rows in order of confidence: a bin is then a slice, and its sum a difference of cumulative sums.
    confidence = np.sort(confidence)
    starts = np.searchsorted(_bin(confidence, bins), np.arange(bins))
    ends = np.append(starts[1:], len(confidence))
    expected = _slices(confidence, starts, ends)
    draw = np.random.Generator(np.random.PCG64(0))
    errors = [
        np.abs(_slices(draw.random(len(confidence)) < confidence, starts, ends) - expected).sum()
        for _ in range(simulations)
    ]
    return float(np.mean(errors) / len(confidence))


def tempered(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """log softmax(log p / T), (n, C).

    Example:
        >>> np.exp(tempered(np.log([[0.8, 0.2]]), 0.5)).round(4)
        array([[0.9412, 0.0588]])
    """
    return log_softmax(np.asarray(log_probabilities, np.float64) / temperature)


def fit_temperature(log_probabilities: Any, target: Any) -> float:
    """The temperature T that makes softmax(log p / T) fit these rows best.

    Minimises Σ_i −log p_T(y_i) plus the mean over rows and classes of −log p_T(c): one pseudo-row whose
    label is uniform, as Platt smooths targets (label smoothing with ε = 1/(n + 1)). Without it, validation
    rows that are all right ask for T → 0, and one wrong test row then costs hundreds of nats; its effect is
    of order 1/n. Convex in β = 1/T; Newton steps inside a bracket.

    Args:
        log_probabilities: (n, C) of validation rows. A row that gives its label the probability 0 is left
            out, since no temperature helps it; classes of probability 0 stay so.
        target: (n,) class codes.

    Returns:
        T in `TEMPERATURES`; 1 where T changes nothing (uniform rows).

    Raises:
        ValueError: shapes, nan, unnormalised rows, labels out of range.

    Source: Guo et al. 2017 (1706.04599), section 4.2; Platt 1999, section 2.2.

    Example:
        >>> log_p = np.log([[0.9, 0.1]] * 999)  # says 0.9; is right 3 times in 4
        >>> round(fit_temperature(log_p, [0, 0, 0, 1] * 249 + [0, 0, 1]), 2)  # log 9 / log 3
        2.0
    """
    log_p, codes = checked(log_probabilities, target)
    possible = np.isfinite(log_p[np.arange(len(codes)), codes])
    if not possible.any():
        return 1.0
    log_p, codes = log_p[possible], codes[possible]
    finite = np.isfinite(log_p)
    z = np.where(finite, log_p, 0.0)
    smoothing = 1 / (len(codes) + 1)
    average = z.sum(axis=1) / finite.sum(axis=1)
    wanted = (1 - smoothing) * z[np.arange(len(codes)), codes] + smoothing * average
    return 1 / _sharpness(log_p, z, wanted)


def _sharpness(log_p: np.ndarray, z: np.ndarray, wanted: np.ndarray) -> float:
    """β = 1/T: the root of the slope, by Newton steps that a bracket guards."""
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    beta = 1.0
    slope, curvature = _slope(log_p, z, wanted, beta)
    if abs(slope) <= 1e-14 and curvature <= 1e-14:
        return 1.0
    for _ in range(100):
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = beta - slope / curvature if curvature > 0 else low
        following = newton if low < newton < high else float(np.sqrt(low * high))
        if abs(following - beta) <= 1e-12 * beta:
            break
        beta = following
        slope, curvature = _slope(log_p, z, wanted, beta)
    return beta


def _slope(log_p: np.ndarray, z: np.ndarray, wanted: np.ndarray, beta: float) -> tuple[float, float]:
    """First and second derivative in β of the mean of log Σ e^{βz} − β·wanted: E z − wanted, Var z."""
    p = np.exp(log_softmax(beta * log_p))
    mean = (p * z).sum(axis=1)
    variance = (p * (z - mean[:, None]) ** 2).sum(axis=1)
    return float((mean - wanted).mean()), float(variance.mean())


def _confidence(log_p: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum(np.exp(log_p.max(axis=1)), 1.0))


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1))


def _slices(values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[ends] - total[starts])
