"""``infoloss report`` and ``infoloss verdict``: reports without training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infoloss.cli.complaints import InputError, reading
from infoloss.cli.rerun import command
from infoloss.cli.results import print_verdicts

__all__ = ["report", "verdict"]


def report(study: Path, /, *, out: Path | None = None) -> None:
    """Write a study's report again, from its records alone; also while the study runs.

    Args:
        study: The folder, or a packed study.
        out: Where the report goes [default: the study's folder; for NAME.parquet, NAME-report].
    """
    from infoloss.cli.collections import print_collection
    from infoloss.study.analysis import analyse
    from infoloss.study.collection import analyse_collection
    from infoloss.study.members import holds
    from infoloss.study.report import render

    beside = study.with_name(f"{study.stem}-report") if study.is_file() else study
    if holds(study):
        print_collection(analyse_collection(study), out or beside)
        return
    if not study.is_file() and not (study / "study.json").is_file():
        raise InputError(f"{study} holds no study: there is no study.json")
    analysis = analyse(study)
    print_verdicts(analysis, render(analysis, out or beside))


@Parameter(name="*")
@dataclass(frozen=True)
class Judging:
    """What is judged, and how.

    Args:
        metric: The only metric to judge [default: accuracy, nll and nll_scaled, as far as they are there].
        higher_is_better: The direction of a metric that infoloss does not know.
        lower_is_better: The direction of a metric that infoloss does not know.
        margin: What makes no difference: points for accuracies, else in the metric's own unit.
        margin_nll: What makes no difference in NLL, in nats.
    """

    metric: str | None = None
    higher_is_better: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    lower_is_better: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    margin: float | None = None
    margin_nll: float | None = None

    @property
    def direction(self) -> bool | None:
        if self.higher_is_better and self.lower_is_better:
            raise InputError("--higher-is-better and --lower-is-better contradict each other")
        return self.higher_is_better if self.higher_is_better or self.lower_is_better else None


def verdict(
    scores: Path,
    /,
    *,
    baseline: Annotated[str, Parameter(allow_leading_hyphen=True)],
    judging: Judging | None = None,
    rows: tuple[int, int] | None = None,
    out: Path | None = None,
) -> None:
    """Judge scores from elsewhere, paired by seed.

    Args:
        scores: A table with the columns loss, seed, metrics, and perhaps dataset.
        baseline: The loss that the others are compared with.
        rows: Training and test rows, where every seed drew its own split: --rows 800 200.
        out: Where the report goes [default: a name from the file's].
    """
    from infoloss.study.report import render
    from infoloss.study.scores_file import read_scores
    from infoloss.study.scores_verdict import analyses, asked

    judging = judging or Judging()
    with reading():
        table = read_scores(scores, metric=judging.metric)
        metrics = asked(
            table,
            metric=judging.metric,
            higher_is_better=judging.direction,
            margin=judging.margin,
            margin_nll=judging.margin_nll,
        )
        found = analyses(table, metrics, baseline=baseline, rows=rows, command=command())
    folder = out or Path(f"infoloss-{scores.name.split('.')[0]}-verdict")
    for name, analysis in zip(table.datasets, found, strict=True):
        for note in analysis.notes:
            print(f"note: {note}", file=sys.stderr)
        print_verdicts(analysis, render(analysis, folder / _file_name(name) if len(found) > 1 else folder))


def _file_name(dataset: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in dataset)
