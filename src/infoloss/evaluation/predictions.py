"""Predictions and labels as checked float64 and int64 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["checked", "labels", "log_softmax"]


def checked(log_probabilities: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (n, C) float64 and target (n,) int64.

    Raises:
        ValueError: shapes do not fit, no rows, a nan, a row that does not sum to 1, a label out of range.
    """
    log_p = _array(log_probabilities).astype(np.float64)
    if log_p.ndim != 2 or not len(log_p) or log_p.shape[1] < 2:
        raise ValueError(f"log_probabilities has shape {log_p.shape}; expected (rows, classes ≥ 2), rows ≥ 1")
    wrong = np.isnan(log_p)
    if wrong.any():
        raise ValueError(f"log_probabilities is nan in row {int(wrong.any(axis=1).argmax())}")
    total = np.exp(np.minimum(log_p, 1.0)).sum(axis=1)
    off = np.abs(total - 1) > 1e-3
    if off.any():
        row = int(off.argmax())
        raise ValueError(
            f"row {row} of log_probabilities has probabilities that sum to {total[row]:.4g}; expected 1 "
            "(pass log_softmax(logits), not logits)"
        )
    return log_p, labels(target, len(log_p), log_p.shape[1], "target")


def labels(values: Any, rows: int, classes: int, what: str) -> np.ndarray:
    """Class codes (rows,) int64 in 0 … classes − 1."""
    given = _array(values)
    if given.shape != (rows,):
        raise ValueError(f"{what} has shape {given.shape}; expected ({rows},)")
    codes = given.astype(np.int64)
    wrong = (codes != given) | (codes < 0) | (codes >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{what} is {given[row]} in row {row}; expected a class in 0 … {classes - 1}")
    return codes


def log_softmax(z: np.ndarray) -> np.ndarray:
    """z − log Σ e^z over the last axis; the maximum of every row must be finite."""
    centred = z - z.max(axis=-1, keepdims=True)
    return np.asarray(centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True)))


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if "bfloat16" in str(getattr(values, "dtype", "")):  # NumPy has no bfloat16
            values = values.float()
        return np.asarray(values.numpy())
    return np.asarray(values)
