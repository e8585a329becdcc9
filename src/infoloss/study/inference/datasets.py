"""Inference over several data sets: ranks with a critical difference, the Bayesian signed-rank test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = [
    "LEAST_FOR_AN_OUTCOME",
    "SignedRank",
    "critical_difference",
    "friedman",
    "mean_ranks",
    "signed_rank",
]

PRIOR_STRENGTH = 0.5
DRAWS = 50_000
LEAST_FOR_AN_OUTCOME = 6
"""Five data sets agree by chance with probability 2·2⁻⁵ > 5 %: no outcome may rest on so few."""


@dataclass(frozen=True)
class SignedRank:
    """Posterior probabilities that a loss is worse, practically equivalent, or better; they sum to 1.

    Of the next data set of this kind: which of the three is the likeliest.
    """

    worse: float
    equivalent: float
    better: float


def signed_rank(differences: np.ndarray, rope: float, *, draws: int = DRAWS) -> SignedRank:
    """The Bayesian signed-rank test with a region of practical equivalence.

    A Dirichlet process with a pseudo-observation at 0 of strength ½ as its prior: weights w ~ Dirichlet(½, 1,
    …, 1) of the differences 0, d_1, …, d_D give

        P(better) = Σ_ij w_i w_j [d_i + d_j > 2·rope],   P(worse) likewise below −2·rope,   the rest between

    (a tie at the edge counts half), and a draw goes to the largest of the three. The draws' seed is fixed.

    Args:
        differences: (D,), one a data set, positive where the loss is better.
        rope: half the width of the region within which a difference does not matter, > 0.
        draws: of the weights.

    Raises:
        ValueError: no differences, one that is not finite, or no region.

    Source: Benavoli et al., ICML 2014; Benavoli, Corani, Demšar and Zaffalon, JMLR 18 (2017).

    Example:
        >>> found = signed_rank(np.array([1.0, 2.0, 1.5, 0.8, 1.2, 0.9]), rope=0.5)
        >>> found.better > 0.95, round(found.worse + found.equivalent + found.better, 9)
        (True, 1.0)
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not d.size or not np.isfinite(d).all():
        raise ValueError(f"differences must be (D,) finite numbers with D ≥ 1, got {differences!r}")
    if not (math.isfinite(rope) and rope > 0):
        raise ValueError(f"rope must be a number > 0, got {rope!r}")
    d = np.concatenate([[0.0], d])
    sums = d[:, None] + d[None, :]  # (D + 1, D + 1)
    weights = np.random.Generator(np.random.PCG64(0)).dirichlet(
        [PRIOR_STRENGTH, *np.ones(d.size - 1)], size=draws
    )  # (draws, D + 1)
    shares = [_expected(weights, _above(side * sums, 2 * rope)) for side in (-1.0, 1.0)]
    worse, better = shares
    winner = np.argmax(np.stack([worse, 1.0 - worse - better, better]), axis=0)
    return SignedRank(*(np.bincount(winner, minlength=3) / draws).tolist())


def _above(values: np.ndarray, limit: float) -> np.ndarray:
    return np.asarray((values > limit) + 0.5 * (values == limit))


def _expected(weights: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """Σ_ij w_i w_j holds_ij of each draw."""
    return np.asarray(((weights @ holds) * weights).sum(axis=1))


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean over data sets of the rank of each loss, 1 for the best; ties share their ranks' mean.

    Args:
        scores: (D, K), data sets by losses; more is better.

    Example:
        >>> mean_ranks(np.array([[0.9, 0.8, 0.7], [0.9, 0.9, 0.7]]))
        array([1.25, 1.75, 3.  ])
    """
    from scipy import stats

    return np.asarray(stats.rankdata(-np.asarray(scores), axis=1).mean(axis=0))


def friedman(scores: np.ndarray) -> float:
    """The p-value of Friedman's test that all losses rank alike, with Iman and Davenport's F.

    Ties are corrected for; 1 where every data set ties all losses, and never below (1/K!)^(D − 1), the chance
    that D data sets rank K losses alike.

    Args:
        scores: (D, K), D ≥ 2, K ≥ 2; more is better.

    Source: Friedman (1937); Iman and Davenport (1980); Demšar, JMLR 7 (2006), section 3.2.2.

    Example:
        >>> friedman(np.array([[0.9, 0.8], [0.8, 0.9]]))
        1.0
    """
    from scipy import stats

    ranks = stats.rankdata(-np.asarray(scores), axis=1)  # (D, K)
    sets, losses = ranks.shape
    total = float(((ranks - (losses + 1) / 2) ** 2).sum())
    between = float(sets * ((ranks.mean(axis=0) - (losses + 1) / 2) ** 2).sum())
    if total == 0.0:
        return 1.0
    within = total - between
    least = float(math.factorial(losses) ** (1.0 - sets))
    if within <= 1e-12 * total:
        return least
    # A two-way analysis of variance of the ranks, which is Iman and Davenport's statistic.
    statistic = (sets - 1) * between / within
    return max(least, float(stats.f.sf(statistic, losses - 1, (losses - 1) * (sets - 1))))


def critical_difference(losses: int, datasets: int, *, level: float = 0.95) -> float:
    """Nemenyi's: mean ranks that differ by more are told apart, all pairs together, at this level.

        q · √(K(K + 1) / 6D),   q the studentised range's quantile over √2

    Source: Nemenyi (1963); Demšar, JMLR 7 (2006), section 3.2.2.

    Example:
        >>> round(critical_difference(4, 14), 2)  # Demšar's example, by his table's rounded q: 1.25
        1.25
    """
    from scipy import stats

    quantile = float(stats.studentized_range.ppf(level, losses, np.inf)) / math.sqrt(2.0)
    return quantile * math.sqrt(losses * (losses + 1) / (6.0 * datasets))
