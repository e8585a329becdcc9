"""Paired evidence about one loss, and the components of its variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Components", "Paired"]


@dataclass(frozen=True, eq=False)
class Paired:
    """A loss against the baseline: one metric, one data source, the same seeds for both.

    Args:
        differences: (S,) loss − baseline, one a seed, in the metric's own unit (points for accuracies,
            nats for NLL). Seeds where either run failed are dropped by the caller, who reports them.
        examples: per seed, the ids of its test rows; the same id is the same row of the data set.
        contributions: per seed, (n_s,) per-example differences whose mean is the seed's difference.
        train_rows: size of a training split, for the corrected resampled t.
        test_rows: size of a test split.
        resampled: every seed drew its own split (False where the test rows are fixed).

    Raises:
        ValueError: shapes that do not fit, no seed, examples that repeat within a seed, or contributions
            whose mean is not the seed's difference.

    Example:
        >>> import numpy as np
        >>> evidence = Paired(
        ...     differences=np.array([50.0, 0.0]),
        ...     examples=(np.array([0, 1]), np.array([1, 2])),
        ...     contributions=(np.array([100.0, 0.0]), np.array([0.0, 0.0])),
        ...     train_rows=6, test_rows=2, resampled=True,
        ... )
        >>> evidence.seeds, evidence.identical
        (2, False)
    """

    differences: np.ndarray
    examples: tuple[np.ndarray, ...] | None
    contributions: tuple[np.ndarray, ...] | None
    train_rows: int
    test_rows: int
    resampled: bool

    def __post_init__(self) -> None:
        differences = np.asarray(self.differences, dtype=np.float64)
        if differences.ndim != 1 or differences.size == 0:
            raise ValueError(f"differences must be (S,) with S ≥ 1, got shape {differences.shape}")
        object.__setattr__(self, "differences", differences)
        if (self.examples is None) != (self.contributions is None):
            raise ValueError("examples and contributions must be given together or not at all")
        if self.examples is not None and self.contributions is not None:
            self._check_examples(self.examples, self.contributions)

    def _check_examples(
        self, examples: tuple[np.ndarray, ...], contributions: tuple[np.ndarray, ...]
    ) -> None:
        seeds = len(self.differences)
        if len(examples) != seeds or len(contributions) != seeds:
            raise ValueError(
                f"examples and contributions must have one array for each of the {seeds} seeds, "
                f"got {len(examples)} and {len(contributions)}"
            )
        for seed, (rows, values) in enumerate(zip(examples, contributions, strict=True)):
            if np.ndim(rows) != 1 or np.shape(rows) != np.shape(values) or np.size(rows) == 0:
                raise ValueError(
                    f"examples[{seed}] and contributions[{seed}] must both be (n,) with n ≥ 1, "
                    f"got shapes {np.shape(rows)} and {np.shape(values)}"
                )
            if len(np.unique(rows)) != len(rows):
                raise ValueError(f"examples[{seed}] holds the same row more than once")
            mean, stated = float(np.mean(values)), float(self.differences[seed])
            scale = float(np.mean(np.abs(values))) + abs(stated)
            if np.isfinite(scale) and abs(mean - stated) > 1e-6 * scale + 1e-12:
                raise ValueError(
                    f"contributions[{seed}] have mean {mean!r}, but differences[{seed}] is {stated!r}"
                )

    @property
    def seeds(self) -> int:
        return len(self.differences)

    @property
    def finite(self) -> bool:
        """Every difference and every contribution is a finite number."""
        parts = (self.differences, *(self.contributions or ()))
        return all(bool(np.isfinite(part).all()) for part in parts)

    @property
    def identical(self) -> bool:
        """Every difference and every contribution is exactly 0."""
        parts = (self.differences, *(self.contributions or ()))
        return not any(bool(np.any(part)) for part in parts)

    @cached_property
    def components(self) -> Components:
        """The variance components; needs two seeds and finite values."""
        if self.seeds < 2:
            raise ValueError(f"variance components need at least 2 seeds, got {self.seeds}")
        spread = float(np.var(self.differences, ddof=1))
        if self.examples is None or self.contributions is None:
            return Components(self.seeds, spread)
        return _crossed_components(self.examples, self.contributions, spread)


@dataclass(frozen=True)
class Components:
    """What the variance of the mean difference over S seeds is made of.

    Model: d_si = δ + a_s + b_i + e_si, seed s (split, initialisation, batches), example i. Different seeds
    share test rows, hence b_i: Cov(D_s, D_t) = σ_b² |T_s ∩ T_t| / (n_s n_t), so that

        Var(mean D) = spread/S + shared,  spread = E[sample variance of D_s],  shared = mean Cov(D_s, D_t).

    `shared` does not shrink with more seeds: it is the price of a finite set of test rows. `rows` is
    the variance if seeds had no effect of their own (rows are then the only independent units): a floor.

    Where most contributions are exactly 0 (answers, right or wrong), a handful of rows decides, and their
    scatter says little. `unit` is then the largest contribution, else 0, and the variance is at least that
    of two such rows among `distinct`, 2 (unit/distinct)²: at 90 % about the rule of three, ± 2.3 rows. More
    seeds reach more rows, up to `most`.
    """

    seeds: int
    spread: float
    shared: float = 0.0
    shared_degrees: float = 1.0
    rows: float = 0.0
    unit: float = 0.0
    distinct: float = 1.0
    most: float = math.inf

    def variance(self, seeds: int | None = None) -> float:
        """Of the mean difference, at this number of seeds or another."""
        at = seeds or self.seeds
        return max(self.spread / at + self.shared, self._rows(at))

    def half_width(self, tail: float, seeds: int | None = None) -> float:
        """h² = t²_{S−1} spread/S + t²_k shared, at least z² rows, with the upper quantiles at `tail`.

        Each component keeps its own quantile: with Satterthwaite's single one, a sample variance that is
        small by chance also looks precise, and few seeds give too many false verdicts (docs/inference.md).
        """
        from scipy import stats

        at = seeds or self.seeds
        width = float(stats.t.isf(tail, at - 1)) * math.sqrt(self.spread / at)
        if self.shared > 0.0:
            width = math.hypot(width, float(stats.t.isf(tail, self.shared_degrees)) * math.sqrt(self.shared))
        return max(width, float(stats.norm.isf(tail)) * math.sqrt(self._rows(at)))

    def _rows(self, seeds: int) -> float:
        ratio = self.seeds / seeds
        rows = self.shared + max(self.rows - self.shared, 0.0) * ratio if self.rows > 0.0 else 0.0
        return max(rows, 2.0 * (self.unit / min(self.distinct / ratio, self.most)) ** 2)


def _crossed_components(
    examples: tuple[np.ndarray, ...], contributions: tuple[np.ndarray, ...], spread: float
) -> Components:
    """The components of seeds crossed with test rows.

    With r_si = d_si − D_s and s ≠ t, E[r_si r_ti] = σ_b² (1 − 1/n_s − 1/n_t + o_st/(n_s n_t)),
    o = |T_s ∩ T_t|, whatever the seed effects are; σ_b² is the ratio of both sides' sums over shared rows.
    """
    from scipy import sparse

    sizes = np.array([len(rows) for rows in examples])
    seed = np.repeat(np.arange(len(sizes)), sizes)
    ids, row = np.unique(np.concatenate(examples), return_inverse=True)
    values = np.concatenate(contributions)
    centred = np.concatenate([part - np.mean(part) for part in contributions])
    weight, shape = 1.0 / sizes[seed], (len(sizes), len(ids))
    present = sparse.csr_array((weight, (seed, row)), shape=shape)
    residual = sparse.csr_array((centred * weight, (seed, row)), shape=shape)

    overlap = (present @ present.T).toarray()  # o_st / (n_s n_t)
    expected = overlap * (1.0 - 1.0 / sizes[:, None] - 1.0 / sizes[None, :] + overlap)
    np.fill_diagonal(overlap, 0.0)
    np.fill_diagonal(expected, 0.0)
    sums: np.ndarray = np.asarray(residual.sum(axis=0)).ravel()
    squares: np.ndarray = np.asarray((residual * residual).sum(axis=0)).ravel()
    scatter = float(np.sum((sums**2 - np.mean(sums**2)) ** 2))

    product, mean_overlap = (
        float(np.sum(sums**2 - squares)),
        float(overlap.sum()) / (len(sizes) * (len(sizes) - 1)),
    )
    example_variance = max(0.0, product / float(expected.sum())) if expected.sum() > 0.0 else 0.0
    return Components(
        seeds=len(sizes),
        spread=spread,
        shared=example_variance * mean_overlap,
        # As many degrees as the rows' squared sums have: a χ²_k has k = 2 mean² / variance. Those of the
        # products would vanish with the products and blow the quantile up where rows hardly matter.
        shared_degrees=max(1.0, 2.0 * float(np.sum(sums**2)) ** 2 / scatter) if scatter > 0.0 else math.inf,
        rows=float(np.sum(sums**2)) / len(sizes) ** 2,
        unit=float(np.max(np.abs(values))) if np.mean(values == 0.0) > 0.5 else 0.0,
        distinct=float(len(ids)),
        # two random test sets of n rows out of N share n²/N
        most=1.0 / mean_overlap if mean_overlap > 0.0 else math.inf,
    )
