"""The analysis of a study, from its records alone: what reports, tables and notebooks show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infoloss.evaluation import Reliability
    from infoloss.study.archive import Archive
    from infoloss.study.inference import Verdict

__all__ = ["Analysis", "LossResult", "Reference", "Search", "analyse"]


@dataclass(frozen=True, eq=False)
class Search:
    """What trials beyond the grid chose for a loss, and the result of the grid alone beside it.

    ``validation`` are mean metrics over the tuning seeds, ``grid_scores`` test scores as in ``LossResult``;
    ``weight_decay`` is None where it is the study's; ``from_grid``: no trial beat the grid.
    """

    trials: int
    expression: str
    learning_rate: float
    weight_decay: float | None
    validation: float
    from_grid: bool
    grid_learning_rate: float
    grid_validation: float
    grid_scores: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class LossResult:
    """How one loss did, with the expression and the learning rate that tuning chose.

    Arrays over seeds follow ``seeds``; what is not known is None or empty.

    ``tuning`` maps learning rates to mean validation metrics; ``scores`` have the keys of
    ``infoloss.evaluation.scores`` and an entry a seed; ``per_class_recall`` (C,) is a mean over seeds,
    ``confusion`` (C, C) a sum, ``curve`` are means, ``cost`` medians and the mean best epoch; the
    reliabilities pool all test rows.
    """

    label: str
    expression: str
    formula: str
    entries: tuple[str, ...]
    baseline: bool
    learning_rate: float | None
    tuning: dict[float, float]
    seeds: tuple[int, ...]
    failures: tuple[str, ...]
    scores: dict[str, np.ndarray]
    per_class_recall: np.ndarray | None
    confusion: np.ndarray | None
    reliability: Reliability | None
    reliability_scaled: Reliability | None
    curve: dict[str, np.ndarray]
    cost: dict[str, float]
    search: Search | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference line on the same splits; never in a verdict."""

    name: str
    scores: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A study's findings: verdicts, results, and how they were come by.

    ``tuning_seeds``: how many the means of ``LossResult.tuning`` are over; 0 where that is not known.
    """

    title: str
    headline: tuple[str, ...]
    baseline: str
    primary_metric: str
    margins: dict[str, float]
    tuned: bool
    complete: bool
    losses: tuple[LossResult, ...]
    references: tuple[Reference, ...]
    verdicts: tuple[Verdict, ...]
    data: dict[str, str]
    notes: tuple[str, ...]
    protocol: dict[str, str]
    environment: dict[str, str]
    command: str
    tuning_seeds: int = 0


def analyse(study: Path | str | Archive) -> Analysis:
    """The analysis of a study, finished or not: of its folder, its packed file, or its archive.

    Raises:
        StoreError: there is no study.
    """
    from infoloss.study.archive import archive
    from infoloss.study.findings import Findings, analysed
    from infoloss.study.threads import one_thread

    with one_thread():
        return analysed(Findings(archive(Path(study)) if isinstance(study, Path | str) else study))
