"""The interval of a mean paired difference."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from infoloss.study.inference.evidence import Components, Paired

__all__ = ["Estimate", "Exact", "Fitted", "Unknown", "crossed", "estimate", "resampled_t", "seeds_t"]

RATES = ("accuracy", "balanced_accuracy")  # metrics that can agree on every row though the predictions differ
POINTS = 100.0  # what one row contributes to them at most, were all classes alike
ONE_SEED = "has one seed, which shows no spread"
LEAST_EQUAL_SEEDS = 5  # without the rows, equal (perhaps rounded) scores are taken as identity from here on


@dataclass(frozen=True)
class Fitted:
    """A mean difference and the components of its variance."""

    difference: float
    components: Components
    covers: str

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.components.variance())

    @property
    def p_value(self) -> float:
        """Two-sided, against 0: 1 − the level of the interval that has 0 as its end."""
        from scipy import optimize

        distance = abs(self.difference)
        if distance == 0.0:
            return 1.0

        def excess(log_tail: float) -> float:
            return self.components.half_width(math.exp(log_tail)) - distance

        lowest = math.log(1e-150)  # further out SciPy's t quantiles can be −inf
        if excess(lowest) < 0.0:
            return 0.0
        # half the tail mass: there the quantiles are 0
        return 2.0 * math.exp(optimize.brentq(excess, lowest, math.log(0.5), xtol=1e-12))

    def interval(self, level: float) -> tuple[float, float]:
        reach = self.components.half_width((1.0 - level) / 2.0)
        return self.difference - reach, self.difference + reach


@dataclass(frozen=True)
class Exact:
    """The predictions are the baseline's: the difference is 0 without uncertainty."""

    difference: float = 0.0
    standard_error: float = 0.0
    p_value: float = 1.0
    covers: str = "exact: every prediction is the baseline's"

    def interval(self, level: float) -> tuple[float, float]:
        return 0.0, 0.0


@dataclass(frozen=True)
class Unknown:
    """No spread could be measured: one seed, a number that is not finite, or no variation at all."""

    difference: float
    reason: str
    standard_error: float = math.inf
    p_value: float = 1.0
    covers: str = "nothing: no spread could be measured"

    def interval(self, level: float) -> tuple[float, float]:
        return -math.inf, math.inf


Estimate = Fitted | Exact | Unknown


def estimate(evidence: Paired, *, metric: str = "", identical: bool | None = None) -> Estimate:
    """The default: crossed where the rows' contributions are known, else the corrected resampled t.

    Args:
        evidence: the paired differences.
        metric: its name; agreement on every row proves equal predictions unless it is in `RATES`.
        identical: what is known from other metrics about the equality of all predictions.
    """
    difference = float(np.mean(evidence.differences))
    if not evidence.finite:
        return Unknown(difference, "is not finite in every seed")
    if evidence.identical:
        return _without_difference(evidence, metric, identical)
    if evidence.seeds < 2:
        return Unknown(difference, ONE_SEED)
    if evidence.contributions is not None:
        return crossed(evidence)
    if evidence.components.spread == 0.0:
        return Unknown(difference, "differs by the same number in every seed, which shows no spread")
    return resampled_t(evidence) if evidence.resampled and evidence.train_rows > 0 else seeds_t(evidence)


def _without_difference(evidence: Paired, metric: str, identical: bool | None) -> Estimate:
    if evidence.examples is None:
        if evidence.seeds >= LEAST_EQUAL_SEEDS:
            return Exact(covers="exact: every seed's score is the baseline's")
        return Unknown(0.0, f"is equal in all seeds, but they are fewer than {LEAST_EQUAL_SEEDS}")
    if identical is None:
        identical = metric not in RATES
    if identical:
        return Exact()
    if evidence.seeds < 2:
        return Unknown(0.0, ONE_SEED)
    # The same rows right and wrong, which rows of other samples need not be.
    fitted = crossed(evidence)
    return replace(fitted, components=replace(fitted.components, unit=POINTS))


def crossed(evidence: Paired) -> Fitted:
    """Crossed random effects: seeds and test rows both vary; see `Components`."""
    fixed = "seeds and test examples, on this training set"
    covers = "resampled splits, seeds and test examples" if evidence.resampled else fixed
    return Fitted(float(np.mean(evidence.differences)), evidence.components, covers)


def seeds_t(evidence: Paired) -> Fitted:
    """The paired t over seeds. It ignores that seeds share test rows."""
    components = Components(evidence.seeds, evidence.components.spread)
    return Fitted(float(np.mean(evidence.differences)), components, "seeds only, on these test rows")


def resampled_t(evidence: Paired) -> Fitted:
    """The corrected resampled t: variance s² (1/S + n_test/n_train), S − 1 degrees of freedom.

    Source: Nadeau & Bengio, Machine Learning 52 (2003).
    """
    spread = evidence.components.spread
    shared = spread * evidence.test_rows / evidence.train_rows
    components = Components(evidence.seeds, spread, shared, float(evidence.seeds - 1))
    found = seeds_t(evidence)
    return replace(found, components=components, covers="resampled splits, seeds and, roughly, test examples")
