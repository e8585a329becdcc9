"""Scores from elsewhere, judged as a study's own: an analysis for each data set of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infoloss.data.names import counted
from infoloss.study.analysis import Analysis, LossResult
from infoloss.study.grammar import listed
from infoloss.study.headline import findings
from infoloss.study.inference import Cell, Paired, judge
from infoloss.study.plan import Margins
from infoloss.study.report.wording import LABELS
from infoloss.study.report.wording import metric as worded
from infoloss.study.scores_file import KNOWN, Run, ScoresFile

__all__ = ["Asked", "analyses", "asked"]

NEGATIVE = "−"


@dataclass(frozen=True)
class Asked:
    """A metric to judge: ``key`` names it in the analysis, ``factor`` brings it to the margin's unit."""

    column: str
    key: str
    question: str
    higher_is_better: bool
    factor: float
    margin: float


@dataclass(frozen=True)
class Rows:
    """Sizes of the parts where every seed drew its own split."""

    train: int
    test: int


def asked(
    scores: ScoresFile,
    *,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    margin: float | None = None,
    margin_nll: float | None = None,
) -> tuple[Asked, ...]:
    """What is judged: one metric for labels and NLL before and after scaling, or the metric named.

    Args:
        scores: the file.
        metric: the only one to judge.
        higher_is_better: needed for a metric that is not known.
        margin: in points for metrics in percent, in the metric's own unit otherwise.
        margin_nll: in nats.

    Raises:
        ValueError: no metric, a direction that is missing or contradicts what is known, or no margin.
    """

    def margin_of(name: str) -> float | None:
        return margin_nll if worded(name).unit == "nats" and margin_nll is not None else margin

    if metric is not None:
        return (_one(metric, higher_is_better, margin_of(metric)),)
    if higher_is_better is not None:
        raise ValueError("--higher-is-better and --lower-is-better are for the metric named by --metric")
    labels = [name for name in ("accuracy", "balanced_accuracy") if name in scores.metrics][:1]
    nll = [name for name in ("nll", "nll_scaled") if name in scores.metrics]
    if not labels + nll:
        raise ValueError(
            f"{scores.path}: which of {', '.join(scores.metrics)} is to be judged? Name it: --metric NAME"
        )
    return (
        *(_one(name, None, margin) for name in labels),
        *(_one(name, None, margin_nll) for name in nll),
    )


def _one(name: str, higher_is_better: bool | None, margin: float | None) -> Asked:
    if name not in KNOWN:
        return _custom(name, higher_is_better, margin)
    about, defaults = worded(name), Margins()
    if higher_is_better is not None and higher_is_better == about.lower_is_better:
        raise ValueError(f"{name}: {about.direction}, as is known; leave the option out")
    usual = None
    if about.unit == "nats":
        usual = defaults.nll
    elif about.unit == "percent" and about.question == LABELS:
        usual = defaults.labels
    found = _margin(name, usual, margin)
    return Asked(name, name, about.question, not about.lower_is_better, about.factor, found)


def _custom(name: str, higher_is_better: bool | None, margin: float | None) -> Asked:
    """A metric of the user's own. Reports print larger as better, so that one to minimise is negated."""
    if higher_is_better is None:
        raise ValueError(f"{name}: which way is better? Say --higher-is-better or --lower-is-better")
    key = name if higher_is_better else f"{NEGATIVE}{name}"
    return Asked(name, key, name, True, 1.0 if higher_is_better else -1.0, _margin(name, None, margin))


def _margin(name: str, usual: float | None, given: float | None) -> float:
    found = usual if given is None else given
    if found is None:
        raise ValueError(
            f"{name}: how large a difference would not matter? Say --margin NUMBER, in its own unit"
        )
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"the margin of {name} must be a number > 0, got {found:g}")
    return found


def analyses(
    scores: ScoresFile,
    metrics: Sequence[Asked],
    *,
    baseline: str,
    rows: tuple[int, int] | None = None,
    command: str = "",
) -> tuple[Analysis, ...]:
    """An analysis for each data set of the file; each is judged by itself.

    Args:
        scores: the file.
        metrics: from ``asked``.
        baseline: the loss that the others are compared with.
        rows: sizes of the training and the test part, where every seed drew its own split.
        command: that gave this, for the report.

    Raises:
        ValueError: no such baseline, a loss that shares no seed with it, or nothing to compare.
    """
    if rows is not None and min(rows) < 1:
        raise ValueError(f"training and test rows must be 1 or more, got {rows[0]} and {rows[1]}")
    return tuple(
        _Judged(scores, name, tuple(metrics), baseline, None if rows is None else Rows(*rows)).analysis(
            command
        )
        for name in scores.datasets
    )


class _Judged:
    """The runs of one data set, by loss and seed."""

    def __init__(
        self, scores: ScoresFile, dataset: str, metrics: tuple[Asked, ...], baseline: str, rows: Rows | None
    ) -> None:
        self.scores, self.dataset, self.metrics, self.rows = scores, dataset, metrics, rows
        self.where = f"{scores.path}, {dataset}" if dataset else str(scores.path)
        self.runs: dict[str, dict[int, Run]] = {}
        for run in scores.runs:
            if run.dataset == dataset:
                self.runs.setdefault(run.loss, {})[run.seed] = run
        if baseline not in self.runs:
            from infoloss.data.names import unknown

            raise ValueError(f"{self.where}: baseline: {unknown('loss', baseline, self.runs)}")
        if len(self.runs) == 1:
            raise ValueError(f"{self.where}: {baseline} stands there alone, with nothing to compare")
        self.baseline = baseline
        self.losses = [baseline, *(loss for loss in self.runs if loss != baseline)]

    def analysis(self, command: str) -> Analysis:
        cells = [
            cell for asked in self.metrics for loss in self.losses[1:] for cell in self._cells(asked, loss)
        ]
        verdicts = tuple(judge(cells))
        margins = {asked.key: asked.margin for asked in self.metrics}
        name = self.dataset or self.scores.path.name.split(".")[0]
        seeds = sorted({seed for runs in self.runs.values() for seed in runs})
        return Analysis(
            title=f"{counted(len(self.losses), 'loss')} on {name}, scores from {self.scores.path.name}",
            headline=tuple(findings(verdicts, baseline=self.baseline, margins=margins)),
            baseline=self.baseline,
            primary_metric=self.metrics[0].key,
            margins=margins,
            tuned=True,
            complete=True,
            losses=tuple(self._result(loss) for loss in self.losses),
            references=(),
            verdicts=verdicts,
            data={"name": name, "source": self.scores.path.name, "sha256 of the scores": self.scores.sha256},
            notes=(*self.scores.notes, *self._pairing(), *self._beyond()),
            protocol={"seeds": listed([str(seed) for seed in seeds]), "split": self._split()},
            environment={},
            command=command,
        )

    def _cells(self, asked: Asked, loss: str) -> list[Cell]:
        values, base = self._values(asked.column, loss), self._values(asked.column, self.baseline)
        shared = sorted(values.keys() & base.keys())
        if not shared:
            seeds = listed([str(seed) for seed in sorted(self.runs[loss])])
            raise ValueError(
                f"{self.where}: {asked.column}: {loss} (seeds {seeds}) shares no seed with {self.baseline}; "
                "runs are compared in pairs of the same seed"
            )
        evidence = Paired(
            differences=np.array([(values[seed] - base[seed]) * asked.factor for seed in shared]),
            examples=None,
            contributions=None,
            train_rows=self.rows.train if self.rows else 1,
            test_rows=self.rows.test if self.rows else 1,
            resampled=self.rows is not None,
        )
        return [Cell(asked.question, asked.key, loss, evidence, asked.margin, asked.higher_is_better)]

    def _values(self, column: str, loss: str) -> dict[int, float]:
        found = {seed: run.scores[column] for seed, run in self.runs[loss].items()}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def _result(self, loss: str) -> LossResult:
        expression, formula, entries = _described(loss)
        runs = dict(sorted(self.runs[loss].items()))
        scores = {name: np.array([run.scores[name] for run in runs.values()]) for name in self.scores.metrics}
        scores |= {
            asked.key: asked.factor * scores[asked.column]
            for asked in self.metrics
            if asked.key not in scores
        }
        return LossResult(
            label=loss,
            expression=expression,
            formula=formula,
            entries=entries,
            baseline=loss == self.baseline,
            learning_rate=None,
            tuning={},
            seeds=tuple(runs),
            failures=(),
            scores=scores,
            per_class_recall=None,
            confusion=None,
            reliability=None,
            reliability_scaled=None,
            curve={},
            cost={},
        )

    def _pairing(self) -> list[str]:
        """Seeds without a partner, which no verdict uses."""
        base, found = self.runs[self.baseline].keys(), []
        for loss in self.losses[1:]:
            mine = self.runs[loss].keys()
            for lonely, other in ((mine - base, self.baseline), (base - mine, loss)):
                if lonely:
                    seeds = listed([str(seed) for seed in sorted(lonely)])
                    found.append(f"{loss}: left out, since {other} lacks {_seeds(len(lonely))} {seeds}")
        return found

    def _beyond(self) -> list[str]:
        """What a table of scores cannot say."""
        found = [
            f"{asked.column}: lower is better, so its negative is compared"
            for asked in self.metrics
            if asked.key.startswith(NEGATIVE)
        ]
        if len(self.scores.datasets) > 1:
            found.append(
                f"one of {len(self.scores.datasets)} data sets of the file; each is judged by itself"
            )
        return [*found, "whether all losses were tuned alike is not known here"]

    def _split(self) -> str:
        if self.rows is None:
            return "not known; the intervals cover what changes with the seed, not the choice of test rows"
        return f"drawn anew for every seed: {self.rows.train} training and {self.rows.test} test rows"


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"


def _described(label: str) -> tuple[str, str, tuple[str, ...]]:
    """Expression, formula and entries of a loss written as infoloss does; of others the label alone."""
    from infoloss import parse
    from infoloss.study.description import formula

    try:
        term = parse(label)
    except ValueError:
        return label, "", ()
    return (str(term), formula(term.entries), term.entries) if term.has_loss else (label, "", ())
