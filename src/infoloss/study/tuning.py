"""Tuning by a grid: every loss, the baseline included, gets the same learning rates; validation chooses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infoloss.training import METRICS

if TYPE_CHECKING:
    from infoloss.study.design import Arm, Design

__all__ = ["Choice", "choice", "chosen", "mean_scores"]

DECIMALS = 12
"""Of a mean metric: what differs by rounding alone is a tie."""


@dataclass(frozen=True)
class Choice:
    """The learning rate of a loss, and what it was chosen from.

    ``learning_rate`` is None where no learning rate worked; ``scores`` are mean validation metrics, nan where
    a run diverged or failed. ``edge`` is "lowest" or "highest" where the choice is at that end of the grid.
    """

    learning_rate: float | None
    scores: dict[float, float]
    edge: str | None


def chosen(records: Iterable[Mapping[str, Any]], design: Design, arm: Arm) -> Choice | None:
    """The choice for one loss of a design; None while its tuning is unfinished, or where there is no grid.

    Args:
        records: of any runs of the study.
        design: gives grid, seeds and metric; the one learning rate of an untuned study is chosen as it is.
        arm: the loss.
    """
    if not design.tuned:
        return Choice(design.learning_rates[0], {}, None) if design.learning_rates else None
    mine = [
        record
        for record in records
        if record["role"] == "tuning"
        and not record.get("trial")
        and record["loss"] == arm.expression
        and record["seed"] in design.tuning_seeds
    ]
    if len(mine) < len(design.learning_rates) * len(design.tuning_seeds):
        return None
    return choice(mine, grid=design.learning_rates, metric=design.metric)


def choice(records: Iterable[Mapping[str, Any]], *, grid: Sequence[float], metric: str) -> Choice:
    """The learning rate with the best mean metric over the tuning seeds; ties go to the lower mean NLL.

    A learning rate at which any run diverged or failed is not chosen. A tie in both goes to the lower rate.

    Args:
        records: of one loss's tuning runs.
        grid: the learning rates.
        metric: a key of ``METRICS``.

    Example:
        >>> record = {"status": "done", "learning_rate": 0.1, "validation": {"accuracy": 0.9, "nll": 0.3}}
        >>> worse = {**record, "learning_rate": 0.01, "validation": {"accuracy": 0.9, "nll": 0.4}}
        >>> choice([record, worse], grid=(0.01, 0.1), metric="accuracy")
        Choice(learning_rate=0.1, scores={0.01: 0.9, 0.1: 0.9}, edge='highest')
    """
    ranks: dict[float, tuple[float, float]] = {}
    scores: dict[float, float] = {}
    found = list(records)
    for rate in sorted(grid):
        runs = [record for record in found if record["learning_rate"] == rate]
        if not runs or any(run["status"] != "done" for run in runs):
            scores[rate] = float("nan")
            continue
        means = mean_scores([run["validation"] for run in runs])
        scores[rate] = means[metric]
        ranks[rate] = (round(METRICS[metric](means), DECIMALS), -means["nll"])
    if not ranks:
        return Choice(None, scores, None)
    best = max(ranks, key=lambda rate: ranks[rate])
    edges = {max(grid): "highest", min(grid): "lowest"} if len(set(grid)) > 1 else {}
    return Choice(best, scores, edges.get(best))


def mean_scores(validation: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Means over runs, in whatever order they come; a record's null stands for an infinite number."""
    return {key: _mean(scores[key] for scores in validation) for key in validation[0]}


def _mean(values: Iterable[float | None]) -> float:
    known = [math.inf if value is None else value for value in values]
    return math.fsum(known) / len(known)
