"""Rows of logits whose answers are known in closed form, and generators of awkward inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def log_ratio(p: float, classes: int) -> float:
    """The logit that gives its class probability p when every other logit is 0."""
    return math.log((classes - 1) * p / (1 - p))


@dataclass(frozen=True)
class TwoLevel:
    """The label has probability p, each of the other C − 1 classes (1 − p)/(C − 1); their logits are 0."""

    p: float
    classes: int
    label: int = 0

    @property
    def level(self) -> float:
        return log_ratio(self.p, self.classes)

    @property
    def logits(self) -> Array:
        z = np.zeros(self.classes)
        z[self.label] = self.level
        return z

    def statistics(self) -> dict[str, float]:
        p, C, a = self.p, self.classes, self.level
        return {
            "lse": math.log((C - 1) / (1 - p)),
            "target_logit": a,
            "logit_sum": a,
            "logit_square_sum": a**2,
            "expected_logit": p * a,
            "collision": p**2 + (1 - p) ** 2 / (C - 1),
            "max_logit": max(a, 0.0),
            "classes": float(C),
        }

    def losses(self) -> dict[str, float]:
        """Entries of the catalogue with default parameters, as functions of p, C and the one logit a."""
        p, C, a = self.p, self.classes, self.level
        other = (1 - p) / (C - 1)
        ce = -math.log(p)
        h = -p * math.log(p) - (1 - p) * math.log(other)
        lse = math.log((C - 1) / (1 - p))
        gamma_flsd = 5 if p < 0.2 else 3
        return {
            "cross_entropy": ce,
            "kl": ce,
            "reverse_cross_entropy": 6 * math.log(10) * (1 - p),
            "reverse_kl": 6 * math.log(10) * (1 - p) - h,
            "min_ent": 1.1933 * ce + 0.1298 * h,
            "mix_ent": 0.2832 * ce + 0.3740 * 6 * math.log(10) * (1 - p),
            "symmetric_cross_entropy": 0.1 * ce + 4 * math.log(10) * (1 - p),
            "squentropy": ce,
            "rescaled_square": (a - 1) ** 2 / C,
            "focal": (1 - p) ** 2 * ce,
            "focal_flsd": (1 - p) ** gamma_flsd * ce,
            "poly1": ce + 2 * (1 - p),
            "taylor": (1 - p) + (1 - p) ** 2 / 2,
            "generalized_cross_entropy": (1 - p**0.7) / 0.7,
            "mae": 2 * (1 - p),
            "jensen_shannon": (2 * math.log(2) - (1 + p) * math.log(1 + p) + p * math.log(p)) / math.log(2),
            "normalized_cross_entropy": ce / (ce - (C - 1) * math.log(other)),
            "brier": (1 - p) ** 2 * C / (C - 1),
            "logit_norm": math.log1p((C - 1) * math.exp(-25 * math.copysign(1.0, a))),
            "soft_bootstrap": 0.95 * ce + 0.05 * h,
            "entropy": h,
            "confidence_penalty": -0.1 * h,
            "z_loss": 1e-4 * lse**2,
            "max_suppression": 0.1 * (max(a, 0.0) - a / C),
        }


@dataclass(frozen=True)
class Geometric:
    """Logits j·ln r for j = 0 … C−1: probabilities form a geometric series."""

    ratio: float
    classes: int

    @property
    def logits(self) -> Array:
        return np.arange(self.classes) * math.log(self.ratio)

    def statistics(self) -> dict[str, float]:
        r, C = self.ratio, self.classes
        total = (r**C - 1) / (r - 1)
        step = math.log(r)
        return {
            "lse": math.log(total),
            "logit_sum": step * C * (C - 1) / 2,
            "logit_square_sum": step**2 * (C - 1) * C * (2 * C - 1) / 6,
            # Σ j r^j = r (1 − C r^(C−1) + (C−1) r^C) / (1−r)²
            "expected_logit": step * r * (1 - C * r ** (C - 1) + (C - 1) * r**C) / (1 - r) ** 2 / total,
            "collision": (r ** (2 * C) - 1) / (r**2 - 1) / total**2,
            "max_logit": step * (C - 1) if r > 1 else 0.0,
            "classes": float(C),
        }


def rows(seed: int, n: int, classes: int, *, spread: float = 2.0, offset: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(offset, spread, (n, classes))


def labels(seed: int, n: int, classes: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 1]).integers(0, classes, n)


def distributions(seed: int, n: int, classes: int) -> Array:
    return np.random.default_rng([seed, 2]).dirichlet(np.ones(classes), n)


def counts(classes: int) -> Array:
    """Uneven class counts 3, 10, 17, …"""
    return 3.0 + 7.0 * np.arange(classes)


def prior(classes: int) -> Array:
    return counts(classes) / counts(classes).sum()


def per_class(name: str, classes: int) -> Any:
    return {"counts": counts, "prior": prior}[name](classes)
