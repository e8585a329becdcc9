"""Seeds needed, and the effect a study can detect: from the spread only, never from the observed effect."""

from __future__ import annotations

import math

from infoloss.study.inference.evidence import Components, Paired

__all__ = ["minimum_detectable_effect", "more_seeds"]

MOST_SEEDS = 1_000_000


def more_seeds(
    components: Components, margin: float, *, level: float = 0.95, comparisons: int = 1
) -> int | None:
    """How many more seeds until the interval's half-width is margin/2; None where no number of seeds can.

    The half-width is that of the interval adjusted for all `comparisons` (Bonferroni, Holm's first step).
    Then a verdict is certain: either |difference| > margin/2 and the interval excludes 0, or the 90 %
    interval lies within ± margin.

    Example:
        >>> from infoloss.study.inference.evidence import Components
        >>> more_seeds(Components(seeds=5, spread=1.0), margin=1.0)
        13
        >>> more_seeds(Components(seeds=5, spread=1.0, shared=0.1, shared_degrees=500.0), margin=1.0) is None
        True
    """
    tail = (1.0 - level) / (2.0 * comparisons)

    def wide(seeds: int) -> bool:
        return components.half_width(tail, seeds) > margin / 2.0

    if not wide(components.seeds):
        return 0
    if wide(MOST_SEEDS):
        return None
    low, high = components.seeds, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high - components.seeds


def minimum_detectable_effect(
    spread: float | Paired,
    seeds: int | None = None,
    *,
    comparisons: int = 1,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """The true difference that a two-sided test at this level finds with this power, in the spread's unit.

    The test is described by one t distribution: the one whose quantile gives the interval's half-width.

    Args:
        spread: the standard deviation of the paired difference between seeds (before running: an assumption
            that the caller states), or the evidence after running.
        seeds: how many seeds; the evidence's own number unless given.
        comparisons: cells in the family; the effect is for Holm's first step: α/comparisons.

    Returns:
        The effect ≥ 0; inf with fewer than 2 seeds or where no spread could be measured.

    Raises:
        ValueError: a negative spread, no number of seeds, power or level outside (0, 1).

    Example:
        >>> round(minimum_detectable_effect(1.0, 5), 2)
        1.68
        >>> round(minimum_detectable_effect(1.0, 5, comparisons=8), 1)
        3.0
    """
    for name, value in (("power", power), ("level", level)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons!r}")
    if isinstance(spread, Paired):
        seeds = spread.seeds if seeds is None else seeds
        if spread.seeds < 2 or not spread.finite:
            return math.inf
        components = spread.components
    else:
        if seeds is None:
            raise ValueError("seeds must be given with a number as spread")
        if not (math.isfinite(spread) and spread >= 0.0):
            raise ValueError(f"spread must be a finite standard deviation ≥ 0, got {spread!r}")
        components = Components(max(seeds, 2), spread**2)
    if seeds < 2:
        return math.inf
    error = math.sqrt(components.variance(seeds))
    if error == 0.0:
        return 0.0
    tail = (1.0 - level) / (2.0 * comparisons)
    return error * _standardised_effect(components.half_width(tail, seeds) / error, tail, power)


def _standardised_effect(critical: float, tail: float, power: float) -> float:
    """The noncentrality at which |t| passes the critical value with this power."""
    from scipy import optimize, stats

    degrees = _degrees(critical, tail)

    def shortfall(effect: float) -> float:
        passed = stats.nct.sf(critical, degrees, effect) if math.isfinite(degrees) else None
        return float(stats.norm.sf(critical - effect) if passed is None else passed) - power

    return float(optimize.brentq(shortfall, 0.0, 4.0 * critical + 10.0))


def _degrees(critical: float, tail: float) -> float:
    """Degrees of freedom of the t distribution with this upper quantile."""
    from scipy import optimize, stats

    many = 1e6
    if critical <= float(stats.t.isf(tail, many)):
        return math.inf
    if critical >= float(stats.t.isf(tail, 1.0)):
        return 1.0
    return float(optimize.brentq(lambda degrees: float(stats.t.isf(tail, degrees)) - critical, 1.0, many))
