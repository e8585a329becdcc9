"""Differences with known truth: seed and example effects, a finite data set whose rows recur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from infoloss.study.inference import Paired


@dataclass(frozen=True)
class Source:
    """A population of rows and a training procedure.

    metric "accuracy": a share `hard` of the rows is uncertain; both losses are right on all others. On a hard
    row the logit of being right is m_i ∓ (shift + taste·z_i + seeds·a_s)/2, m_i ~ N(1, 1.5²), z_i and a_s
    standard normal, and each run draws its own answer: differences in {−100, 0, 100} points, mostly 0.
    metric "nll": d_si = shift + taste·b_i + seeds·a_s + e_si, a_s standard normal, b_i and e_si Student t of
    5 degrees of freedom with unit variance.
    """

    metric: str
    hard: float
    taste: float
    seeds: float

    def difference(self, shift: float) -> float:
        """The population's true difference: points for accuracy, nats for nll."""
        if self.metric == "nll":
            return shift
        # m ~ N(1, 1.5²): both logits are normal with the same spread, symmetric about shift
        deviation = np.sqrt(1.5**2 + (self.taste**2 + self.seeds**2) / 4)
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()
        right = [float(weights @ special.expit(1 + deviation * nodes + sign * shift / 2)) for sign in (-1, 1)]
        return 100 * self.hard * (right[1] - right[0])

    def shift(self, difference: float) -> float:
        """The inverse of `difference`."""
        if self.metric == "nll" or difference == 0:
            return difference
        return float(optimize.brentq(lambda shift: self.difference(shift) - difference, 0, 60))


@dataclass(frozen=True)
class Design:
    rows: int
    seeds: int
    resampled: bool

    @property
    def test_rows(self) -> int:
        return self.rows // 5


def drawn_evidence(source: Source, design: Design, shift: float, generator: np.random.Generator) -> Paired:
    """One study: a new data set from the population, then its splits and runs."""
    rows, seeds, test = design.rows, design.seeds, design.test_rows
    example = _Rows(source, generator, rows)
    chosen = [np.sort(generator.choice(rows, test, replace=False)) for _ in range(seeds)]
    if not design.resampled:
        chosen = [chosen[0]] * seeds
    contributions = tuple(example.run(ids, shift, generator) for ids in chosen)
    return Paired(
        differences=np.array([values.mean() for values in contributions]),
        examples=tuple(chosen),
        contributions=contributions,
        train_rows=round(0.6 * rows),
        test_rows=test,
        resampled=design.resampled,
    )


class _Rows:
    def __init__(self, source: Source, generator: np.random.Generator, rows: int) -> None:
        self.source = source
        self.hard = generator.random(rows) < source.hard
        self.level = 1 + 1.5 * generator.standard_normal(rows)
        heavy = generator.standard_t(5, rows) / np.sqrt(5 / 3)
        self.taste = source.taste * (
            generator.standard_normal(rows) if source.metric == "accuracy" else heavy
        )

    def run(self, ids: np.ndarray, shift: float, generator: np.random.Generator) -> np.ndarray:
        lean = shift + self.taste[ids] + self.source.seeds * generator.standard_normal()
        if self.source.metric == "nll":
            noise: np.ndarray = generator.standard_t(5, len(ids)) / np.sqrt(5 / 3)
            return lean + noise
        ours = generator.random(len(ids)) < special.expit(self.level[ids] + lean / 2)
        theirs = generator.random(len(ids)) < special.expit(self.level[ids] - lean / 2)
        difference: np.ndarray = 100.0 * self.hard[ids] * (ours.astype(np.float64) - theirs)
        return difference
