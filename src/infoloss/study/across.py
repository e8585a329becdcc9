"""One question over several data sets, from the analyses of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from infoloss.study.inference.datasets import (
    LEAST_FOR_AN_OUTCOME,
    SignedRank,
    critical_difference,
    friedman,
    mean_ranks,
    signed_rank,
)
from infoloss.study.report.wording import metric

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis
    from infoloss.study.inference import Verdict

__all__ = ["Across", "Compared", "Ranks", "across"]

LEVEL = 0.95
LEAST_DATASETS = 2


@dataclass(frozen=True, eq=False)
class Compared:
    """A loss against the baseline over data sets.

    ``differences`` map data sets to mean paired differences, positive where the loss is better. A win is a
    difference above the margin, a tie one within. ``posterior`` is None with fewer than two data sets.
    """

    loss: str
    differences: Mapping[str, float]
    wins: int
    ties: int
    defeats: int
    posterior: SignedRank | None

    @property
    def outcome(self) -> Literal["better", "worse", "equivalent", "undecided"]:
        """What has a posterior probability of at least 95 %, on six data sets or more."""
        if self.posterior is not None and len(self.differences) >= LEAST_FOR_AN_OUTCOME:
            if self.posterior.better >= LEVEL:
                return "better"
            if self.posterior.worse >= LEVEL:
                return "worse"
            if self.posterior.equivalent >= LEVEL:
                return "equivalent"
        return "undecided"


@dataclass(frozen=True, eq=False)
class Ranks:
    """Mean ranks (1 is best) over the data sets on which every loss has a finite score."""

    datasets: tuple[str, ...]
    of: Mapping[str, float]
    critical_difference: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Across:
    """One question over all data sets; ``verdicts`` are those of each data set, by its name and the loss."""

    question: str
    metrics: tuple[str, ...]
    margin: float
    compared: tuple[Compared, ...]
    ranks: Ranks | None
    verdicts: Mapping[tuple[str, str], Verdict]


def across(members: Mapping[str, Analysis]) -> tuple[Across, ...]:
    """Each question of the analyses over all of them; they share losses, baseline and margins.

    Args:
        members: analyses by the data sets' names.
    """
    asked = dict.fromkeys(verdict.question for analysis in members.values() for verdict in analysis.verdicts)
    return tuple(_across(members, question) for question in asked)


def _across(members: Mapping[str, Analysis], question: str) -> Across:
    verdicts = {
        (name, verdict.loss): verdict
        for name, analysis in members.items()
        for verdict in analysis.verdicts
        if verdict.question == question
    }
    metrics = {name: verdict.metric for (name, _), verdict in verdicts.items()}
    margin = next(analysis.margins[metrics[name]] for name, analysis in members.items() if name in metrics)
    losses = dict.fromkeys(loss for _, loss in verdicts)
    return Across(
        question=question,
        metrics=tuple(dict.fromkeys(metrics.values())),
        margin=margin,
        compared=tuple(_compared(loss, verdicts, margin) for loss in losses),
        ranks=_ranks(members, metrics),
        verdicts=verdicts,
    )


def _compared(loss: str, verdicts: Mapping[tuple[str, str], Verdict], margin: float) -> Compared:
    differences = {
        name: _gain(verdict)
        for (name, of), verdict in verdicts.items()
        if of == loss and math.isfinite(verdict.difference)
    }
    gains = np.array(list(differences.values()))
    enough = len(gains) >= LEAST_DATASETS
    return Compared(
        loss=loss,
        differences=differences,
        wins=int((gains > margin).sum()),
        ties=int((np.abs(gains) <= margin).sum()),
        defeats=int((gains < -margin).sum()),
        posterior=signed_rank(gains, margin) if enough else None,
    )


def _gain(verdict: Verdict) -> float:
    """The difference, positive where the loss is better; of identical predictions exactly 0."""
    return -verdict.difference if metric(verdict.metric).lower_is_better else verdict.difference


def _ranks(members: Mapping[str, Analysis], metrics: Mapping[str, str]) -> Ranks | None:
    """None for fewer than two data sets, or a single loss."""
    losses = list(dict.fromkeys(loss.label for analysis in members.values() for loss in analysis.losses))
    rows = {name: _means(members[name], key, losses) for name, key in metrics.items()}
    finite = {name: row for name, row in rows.items() if np.isfinite(row).all()}
    if len(finite) < LEAST_DATASETS or len(losses) < 2:
        return None
    scores = np.stack(list(finite.values()))  # (D, K)
    return Ranks(
        datasets=tuple(finite),
        of=dict(zip(losses, mean_ranks(scores).tolist(), strict=True)),
        critical_difference=critical_difference(len(losses), len(scores)),
        p_value=friedman(scores),
    )


def _means(analysis: Analysis, key: str, losses: Sequence[str]) -> np.ndarray:
    """(K,) mean scores, more is better; nan where a loss has none."""
    sign = -1.0 if metric(key).lower_is_better else 1.0
    found = {loss.label: loss.scores[key].mean() for loss in analysis.losses if key in loss.scores}
    return sign * np.array([found.get(label, math.nan) for label in losses])
