"""From paired evidence to better, worse, equivalent or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from infoloss.data.names import counted
from infoloss.study.inference.estimates import (
    RATES,
    Estimate,
    Exact,
    Fitted,
    Unknown,
    estimate,
)
from infoloss.study.inference.evidence import Paired
from infoloss.study.inference.power import more_seeds

__all__ = ["UNITS", "Cell", "Verdict", "holm", "judge"]

Outcome = Literal["better", "worse", "equivalent", "undecided"]
LEAST_SEEDS = 3

UNITS = {"accuracy": " points", "balanced_accuracy": " points", "nll": " nats", "nll_scaled": " nats"}
"""Of differences; a metric of the user's own has none."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One question about one loss, with its evidence and the margin fixed before running."""

    question: str
    metric: str
    loss: str
    evidence: Paired
    margin: float
    higher_is_better: bool

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin > 0.0):
            raise ValueError(
                f"margin of {self.loss} ({self.metric}) must be a number > 0, got {self.margin!r}"
            )


@dataclass(frozen=True)
class Verdict:
    """The answer to one cell; the fields' meaning stands in `judge`."""

    question: str
    metric: str
    loss: str
    outcome: Outcome
    negligible: bool
    difference: float
    standard_error: float
    interval: tuple[float, float]
    adjusted_interval: tuple[float, float]
    equivalence_interval: tuple[float, float]
    p_value: float
    adjusted_p_value: float
    seeds: int
    more_seeds: int | None
    identical: bool
    covers: str
    sentence: str
    alpha: float = 0.05


def holm(p_values: Sequence[float], *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Holm's step-down: adjusted p-values, and the levels of intervals that agree with them.

    With p_(1) ≤ … ≤ p_(m): adjusted p_(k) = max_{j ≤ k} min(1, (m − j + 1) p_(j)). A rejected cell's
    interval has level 1 − α/(m − k + 1); all others have the level of the first cell that is not rejected, at
    which 0 lies in each of them.

    Returns: two (m,) arrays in the order given: adjusted p-values, levels.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    Example:
        >>> adjusted, levels = holm([0.01, 0.04, 0.03])
        >>> adjusted.round(3).tolist()
        [0.03, 0.06, 0.06]
        >>> levels.round(4).tolist()
        [0.9833, 0.975, 0.975]
    """
    p = np.asarray(p_values, dtype=np.float64)
    alpha, factor = 1.0 - level, np.arange(len(p), 0, -1)
    order = np.argsort(p, kind="stable")
    ordered = np.minimum(1.0, np.maximum.accumulate(factor * p[order]))
    rejected = int(np.sum(ordered < alpha))
    steps = np.arange(len(p)).clip(max=rejected)
    adjusted, levels = np.empty_like(p), np.empty_like(p)
    adjusted[order] = ordered
    levels[order] = 1.0 - alpha / factor[steps.clip(max=len(p) - 1)]
    return adjusted, levels


def judge(cells: Sequence[Cell], *, level: float = 0.95, alpha: float | None = None) -> list[Verdict]:
    """One verdict for each cell.

    *better*, *worse*: the interval adjusted by Holm over all the cells excludes 0. *equivalent*: the interval
    of level 1 − 2α (90 %) lies within ± margin, i.e. two one-sided tests of size α. Both: better or
    worse, and *negligible*. Else *undecided*, with the further seeds after which the half-width, adjusted
    for all cells, is margin/2, or None where no number of seeds can: the rows of the test sets are too few.

    A loss whose predictions are the baseline's is *equivalent*, exactly. One seed, or a difference that is
    not finite, is *undecided* with an infinite interval.

    Args:
        cells: all questions about all losses.
        level: of the unadjusted interval.
        alpha: the error rate of the verdicts; 1 − level unless this is one of several looks.

    Raises:
        ValueError: level outside (.5, 1), alpha outside (0, .5).

    Example:
        >>> import numpy as np
        >>> evidence = Paired(np.array([1.2, 0.9, 1.1, 1.0]), None, None, 60, 20, resampled=True)
        >>> cell = Cell("labels", "accuracy", "focal", evidence, margin=0.5, higher_is_better=True)
        >>> [verdict] = judge([cell])
        >>> verdict.outcome, round(verdict.difference, 2)
        ('better', 1.05)
    """
    if not 0.5 < level < 1.0:
        raise ValueError(f"level must lie between 0.5 and 1, got {level!r}")
    alpha = 1.0 - level if alpha is None else alpha
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha!r}")
    cells = list(cells)
    estimates = [
        estimate(cell.evidence, metric=cell.metric, identical=_identical(cell.loss, cells)) for cell in cells
    ]
    adjusted, levels = holm([found.p_value for found in estimates], level=1.0 - alpha)
    rules = _Rules(level, alpha, len(cells))
    return [
        _verdict(cell, found, float(p), float(adjusted_level), rules)
        for cell, found, p, adjusted_level in zip(cells, estimates, adjusted, levels, strict=True)
    ]


def _identical(loss: str, cells: Sequence[Cell]) -> bool | None:
    """Whether the loss's predictions are the baseline's, as far as its cells other than rates can tell."""
    telling = [
        cell.evidence.identical
        for cell in cells
        if cell.loss == loss and cell.metric not in RATES and cell.evidence.contributions is not None
    ]
    return all(telling) if telling else None


@dataclass(frozen=True)
class _Rules:
    level: float
    alpha: float
    comparisons: int


def _verdict(cell: Cell, found: Estimate, adjusted_p: float, adjusted_level: float, rules: _Rules) -> Verdict:
    equivalence = found.interval(1.0 - 2.0 * rules.alpha)
    within = -cell.margin < equivalence[0] and equivalence[1] < cell.margin
    outcome: Outcome
    if adjusted_p < rules.alpha:
        outcome = "better" if (found.difference > 0.0) == cell.higher_is_better else "worse"
    else:
        outcome = "equivalent" if within else "undecided"
    further = None
    if outcome == "undecided":
        further = _further_seeds(cell, found, level=1.0 - rules.alpha, comparisons=rules.comparisons)
    return Verdict(
        question=cell.question,
        metric=cell.metric,
        loss=cell.loss,
        outcome=outcome,
        negligible=within and outcome in ("better", "worse"),
        difference=found.difference,
        standard_error=found.standard_error,
        interval=found.interval(rules.level),
        adjusted_interval=found.interval(adjusted_level),
        equivalence_interval=equivalence,
        p_value=found.p_value,
        adjusted_p_value=adjusted_p,
        seeds=cell.evidence.seeds,
        more_seeds=further,
        identical=isinstance(found, Exact),
        covers=found.covers,
        sentence=_sentence(cell, found, outcome, within, further, rules.level),
        alpha=rules.alpha,
    )


def _further_seeds(cell: Cell, found: Estimate, *, level: float, comparisons: int) -> int | None:
    if isinstance(found, Unknown) and cell.evidence.finite:
        return max(1, LEAST_SEEDS - cell.evidence.seeds)
    if not isinstance(found, Fitted):
        return None
    needed = more_seeds(found.components, cell.margin, level=level, comparisons=comparisons)
    # the adjusted half-width may be small enough already and the estimate still lie between both verdicts
    return None if needed is None else max(1, needed)


_NAMES = {"nll": "NLL", "nll_scaled": "NLL after temperature scaling"}


def _signed(value: float, width: float) -> str:
    """A number with a sign, to a hundredth of the interval's width."""
    digits = 2 - math.floor(math.log10(width)) if 0 < width < math.inf else 3
    return f"{round(value, digits) + 0.0:+.{max(digits, 0)}f}".replace("-", "−")


def _sentence(
    cell: Cell, found: Estimate, outcome: Outcome, within: bool, further: int | None, level: float
) -> str:
    loss, metric = cell.loss, _NAMES.get(cell.metric, cell.metric.replace("_", " "))
    count, unit = cell.evidence.seeds, UNITS.get(cell.metric, "")
    seeds = counted(count, "seed")
    if isinstance(found, Exact):
        rows = "on every test row of every seed" if cell.evidence.examples is not None else "in every seed"
        return f"{loss} has exactly the baseline's {metric} {rows} ({seeds})."
    if isinstance(found, Unknown):
        advice = f"; at least {count + further} seeds are needed" if further else ""
        return f"{loss}: no verdict, its {metric} {found.reason} ({seeds}){advice}."
    low, high = found.interval(level)
    numbers = f"{_signed(found.difference, high - low)}{unit}, {100 * level:.4g} % interval "
    numbers += f"{_signed(low, high - low)} to {_signed(high, high - low)}, {seeds}"
    if outcome in ("better", "worse"):
        size = ", by a negligible amount" if within else ""
        return f"{loss} is {outcome} than the baseline in {metric}{size} ({numbers})."
    if cell.evidence.identical:
        numbers += f"; right and wrong on the same rows, {found.components.distinct:.0f} distinct ones"
    if outcome == "equivalent":
        return f"{loss} is equivalent to the baseline in {metric} within ±{cell.margin:g}{unit} ({numbers})."
    if further is None:
        return (
            f"{loss}: undecided in {metric} ({numbers}); no number of seeds can settle it on these "
            "test rows, more data can."
        )
    return (
        f"{loss}: undecided in {metric} ({numbers}); about {counted(further, 'more seed')} would settle it."
    )
