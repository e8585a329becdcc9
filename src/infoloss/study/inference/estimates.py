"""The interval of a mean paired difference: crossed seeds and test examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from infoloss.study.inference.evidence import Components, Paired

__all__ = ["Estimate", "crossed", "estimate", "resampled_t", "seeds_t"]


@dataclass(frozen=True)
class Estimate:
    """A mean difference, its standard error and t distribution; components are None with one seed."""

    difference: float
    standard_error: float
    degrees: float
    components: Components | None
    covers: str

    @property
    def p_value(self) -> float:
        """Two-sided, against a difference of 0."""
        from scipy import stats

        if self.standard_error == 0.0:
            return 1.0 if self.difference == 0.0 else 0.0
        if not math.isfinite(self.standard_error):
            return 1.0
        return 2.0 * float(stats.t.sf(abs(self.difference) / self.standard_error, self.degrees))

    def interval(self, level: float) -> tuple[float, float]:
        from scipy import stats

        if self.standard_error == 0.0:
            return self.difference, self.difference
        if not math.isfinite(self.standard_error):
            return -math.inf, math.inf
        reach = float(stats.t.isf((1.0 - level) / 2.0, self.degrees)) * self.standard_error
        return self.difference - reach, self.difference + reach


def estimate(evidence: Paired, *, metric: str = "") -> Estimate:
    """The default: crossed where the per-example contributions are known, else the corrected resampled t."""
    if not evidence.finite or (evidence.seeds < 2 and not evidence.identical):
        difference = float(np.mean(evidence.differences))
        return Estimate(difference, math.inf, 1.0, None, "nothing: no spread could be measured")
    if evidence.identical:
        return Estimate(0.0, 0.0, 1.0, None, "exact: every difference is 0")
    if evidence.contributions is not None:
        return crossed(evidence)
    return resampled_t(evidence) if evidence.resampled else seeds_t(evidence)


def crossed(evidence: Paired) -> Estimate:
    """Crossed random effects: seeds and test rows both vary; see `Components`."""
    sampled = "resampled splits, seeds and test examples" if evidence.resampled else "seeds and test examples"
    return _from_components(evidence, evidence.components, sampled)


def seeds_t(evidence: Paired) -> Estimate:
    """The paired t over seeds. It ignores that seeds share test rows."""
    components = replace(evidence.components, shared=0.0, shared_degrees=1.0)
    return _from_components(evidence, components, "seeds only, on these test rows")


def resampled_t(evidence: Paired) -> Estimate:
    """The corrected resampled t: variance s² (1/S + n_test/n_train), S − 1 degrees of freedom.

    Source: Nadeau & Bengio, Machine Learning 52 (2003).
    """
    spread = evidence.components.spread
    shared = spread * evidence.test_rows / evidence.train_rows
    # one sample variance carries both parts, so the degrees of freedom do not grow by adding them
    components = Components(evidence.seeds, spread, shared, float(evidence.seeds - 1))
    found = _from_components(evidence, components, "resampled splits, seeds and test examples, approximately")
    return replace(found, degrees=float(evidence.seeds - 1))


def _from_components(evidence: Paired, components: Components, covers: str) -> Estimate:
    return Estimate(
        difference=float(np.mean(evidence.differences)),
        standard_error=math.sqrt(components.variance),
        degrees=components.degrees(components.seeds),
        components=components,
        covers=covers,
    )
