"""The candidate intervals: what a study could use for a mean paired difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import stats

from infoloss.study.inference import Paired
from infoloss.study.inference.estimates import estimate, resampled_t, seeds_t

Interval = tuple[float, float]
Method = Callable[[Paired, float], Interval]  # evidence, level


def examples_t(evidence: Paired, level: float) -> Interval:
    """The runs' mean on each distinct test row, then a t over the rows: seeds are ignored."""
    assert evidence.examples is not None
    assert evidence.contributions is not None
    _, row = np.unique(np.concatenate(evidence.examples), return_inverse=True)
    sums = np.bincount(row, np.concatenate(evidence.contributions))
    counts = np.bincount(row)
    mean = sums.sum() / counts.sum()
    n = len(counts)
    error = np.sqrt(np.sum((sums - counts * mean) ** 2) * n / (n - 1)) / counts.sum()
    reach = stats.t.isf((1 - level) / 2, n - 1) * error
    return float(mean - reach), float(mean + reach)


def crossed_bootstrap(evidence: Paired, level: float) -> Interval:
    """Percentiles of the pigeonhole bootstrap (Owen 2007): seeds and rows are both drawn with replacement."""
    low, high = np.quantile(_bootstrap_means(evidence), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@lru_cache(maxsize=1)  # a study is asked for two levels
def _bootstrap_means(evidence: Paired, draws: int = 400) -> np.ndarray:
    assert evidence.examples is not None
    assert evidence.contributions is not None
    generator = np.random.default_rng(0)
    ids, row = np.unique(np.concatenate(evidence.examples), return_inverse=True)
    sizes = [len(rows) for rows in evidence.examples]
    seed = np.repeat(np.arange(len(sizes)), sizes)
    values, present = np.zeros((2, len(sizes), len(ids)))
    values[seed, row] = np.concatenate(evidence.contributions)
    present[seed, row] = 1.0
    seeds = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), draws)
    rows = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), draws).astype(np.float64)
    totals = np.einsum("ds,ds->d", seeds, rows @ values.T)
    counts = np.einsum("ds,ds->d", seeds, rows @ present.T)
    means: np.ndarray = totals / np.maximum(counts, 1)
    return means


def crossed_satterthwaite(evidence: Paired, level: float) -> Interval:
    """The same components, one t quantile with Satterthwaite's degrees of freedom."""
    parts = evidence.components
    between, mean = parts.spread / parts.seeds, float(np.mean(evidence.differences))
    variance = between + parts.shared
    if variance == 0.0 or evidence.identical:
        return estimate(evidence, metric="accuracy").interval(level)
    degrees = variance**2 / (between**2 / (parts.seeds - 1) + parts.shared**2 / parts.shared_degrees)
    floor = stats.norm.isf((1 - level) / 2) * np.sqrt(parts.rows)
    reach = max(float(stats.t.isf((1 - level) / 2, degrees) * np.sqrt(variance)), float(floor))
    return mean - reach, mean + reach


METHODS: dict[str, Method] = {
    "crossed": lambda evidence, level: estimate(evidence, metric="accuracy").interval(level),
    "crossed, Satterthwaite": crossed_satterthwaite,
    "seeds t": lambda evidence, level: seeds_t(evidence).interval(level),
    "examples t": examples_t,
    "resampled t": lambda evidence, level: resampled_t(evidence).interval(level),
    "crossed bootstrap": crossed_bootstrap,
}
