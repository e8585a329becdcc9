"""From a design and its records to an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infoloss.evaluation import Reliability, binned, confusion, per_class_recall
from infoloss.study import description
from infoloss.study.analysis import Analysis, LossResult, Reference, Search
from infoloss.study.archive import Archive, Record
from infoloss.study.design import Arm, Design
from infoloss.study.headline import headline
from infoloss.study.inference import Cell, Paired, judge
from infoloss.study.own_losses import is_own, term_of
from infoloss.study.references import REFERENCES
from infoloss.study.scored import Scored
from infoloss.study.store import COSTS
from infoloss.study.trials import Found, best_setting
from infoloss.study.tuning import Choice, chosen

__all__ = ["Findings", "analysed", "cells"]


@dataclass(frozen=True, eq=False)
class Findings:
    """The records of a study, sorted out by its design."""

    archive: Archive

    @property
    def design(self) -> Design:
        return self.archive.design

    @property
    def records(self) -> tuple[Record, ...]:
        return self.archive.records

    @cached_property
    def choices(self) -> dict[Arm, Choice | None]:
        """The learning rate of each loss; None while its tuning is unfinished or where there is no grid."""
        return {arm: chosen(self.records, self.design, arm) for arm in self.design.arms}

    @cached_property
    def finals(self) -> dict[Arm, dict[int, Record]]:
        """Final runs by loss and seed, whatever their status."""
        return {arm: self._finals(arm) for arm in self.design.arms}

    def _finals(self, arm: Arm) -> dict[int, Record]:
        best = self.found[arm]
        if self.design.trials and best is None:
            return {}
        if best is None or best.trial.number is None:
            return self.grid_finals(arm)
        return self._trained(best.trial.expression, best.trial.learning_rate, best.trial.weight_decay)

    @cached_property
    def found(self) -> dict[Arm, Found | None]:
        """What the trials of each loss found; None without trials, and while they are unfinished."""
        design = self.design
        return {
            arm: best_setting(self.records, design, arm) if design.trials else None for arm in design.arms
        }

    def grid_finals(self, arm: Arm) -> dict[int, Record]:
        """Final runs by seed with the learning rate of the grid; without trials there are no others."""
        made = self.choices[arm]
        if made is None and self.design.learning_rates:
            return {}
        return self._trained(arm.expression, made.learning_rate if made else None, None)

    def _trained(
        self, expression: str, learning_rate: float | None, weight_decay: float | None
    ) -> dict[int, Record]:
        if weight_decay is None:
            weight_decay = self.design.training.get("weight_decay")
        found = {
            record["seed"]: record
            for record in self.records
            if record["role"] == "final"
            and record["loss"] == expression
            and record["learning_rate"] == learning_rate
            and record["config"].get("training", {}).get("weight_decay") == weight_decay
            and record["seed"] in self.design.seeds
        }
        return dict(sorted(found.items()))

    @cached_property
    def scored(self) -> dict[Arm, dict[int, Scored]]:
        """Predictions of the final runs that came to an end."""
        return {
            arm: {seed: self.archive.scored(run) for seed, run in runs.items() if run["status"] == "done"}
            for arm, runs in self.finals.items()
        }

    def unpaired(self, arm: Arm) -> list[int]:
        """Seeds whose test labels differ from the baseline's, as of a training that splits by loss."""
        base = self.scored[self.design.baseline]
        return [
            seed
            for seed, run in self.scored[arm].items()
            if seed in base and not np.array_equal(run.target, base[seed].target)
        ]

    def paired_seeds(self, arm: Arm) -> list[int]:
        """Seeds that the loss and the baseline both finished, on the same test rows."""
        base, unpaired = self.scored[self.design.baseline], self.unpaired(arm)
        return [seed for seed in self.scored[arm] if seed in base and seed not in unpaired]

    def paired_scores(self, arm: Arm, metric: str) -> Paired | None:
        """Differences of a score that is known of whole runs only; None where no seed has both."""
        mine, base = self.scored[arm], self.scored[self.design.baseline]
        seeds = [
            seed
            for seed in self.paired_seeds(arm)
            if metric in mine[seed].scores and metric in base[seed].scores
        ]
        if not seeds:
            return None
        differences = [mine[seed].scores[metric] - base[seed].scores[metric] for seed in seeds]
        return Paired(np.array(differences), None, None, *_rows(self, base[seeds[0]]))

    @cached_property
    def references(self) -> dict[str, dict[int, Record]]:
        """Runs of the reference lines by name and seed."""
        found: dict[str, dict[int, Record]] = {name: {} for name in REFERENCES}
        for record in self.records:
            if record["role"] == "reference" and record["seed"] in self.design.seeds:
                found[record["config"]["model"]["name"]][record["seed"]] = record
        return {name: dict(sorted(runs.items())) for name, runs in found.items() if runs}

    @property
    def complete(self) -> bool:
        """Whether every final run is there, whatever came of it; a loss without a learning rate has none."""
        for arm in self.design.arms:
            made = self.choices[arm]
            if made is None and self.design.learning_rates:
                return False
            hopeless = made is not None and made.learning_rate is None
            if self.design.trials and self.found[arm] is None and not hopeless:
                return False
            if not hopeless and len(self.finals[arm]) < len(self.design.seeds):
                return False
        return True

    @property
    def used(self) -> list[Record]:
        """The records that the analysis rests on."""
        finals = [record for runs in self.finals.values() for record in runs.values()]
        if self.design.trials:
            finals += [record for arm in self.design.arms for record in self.grid_finals(arm).values()]
        tuning = [record for record in self.records if record["role"] == "tuning"]
        return [*finals, *tuning, *(record for runs in self.references.values() for record in runs.values())]


def analysed(findings: Findings) -> Analysis:
    """The analysis of sorted records."""
    design = findings.design
    losses = tuple(_result(findings, arm) for arm in design.arms)
    verdicts = tuple(judge(asked, alpha=design.alpha)) if (asked := cells(findings)) else ()
    margins = {metric: margin for _, metric, margin, _ in _questions(design)}
    return Analysis(
        title=description.title(design),
        headline=headline(verdicts, losses, design=design, margins=margins, complete=findings.complete),
        baseline=design.baseline.label,
        primary_metric=design.metric,
        margins=margins,
        tuned=design.tuned,
        complete=findings.complete,
        losses=losses,
        references=_references(findings),
        verdicts=verdicts,
        data=description.data(design) | description.alteration(findings.used),
        notes=description.notes(findings),
        protocol=description.protocol(design) | description.parts(findings),
        environment=description.environment(findings.used),
        command=design.command,
        tuning_seeds=len(design.tuning_seeds) if design.tuned else 0,
    )


def _questions(design: Design) -> tuple[tuple[str, str, float, bool], ...]:
    """Question, metric, margin, and whether higher is better."""
    labels, nll = design.margins["labels"], design.margins["nll"]
    return (
        ("labels", design.labels_metric, labels, True),
        ("probabilities", "nll", nll, False),
        ("probabilities after temperature scaling", "nll_scaled", nll, False),
    )


def cells(findings: Findings) -> list[Cell]:
    """What is to be judged: each question about each loss that shares a finished seed with the baseline."""
    found = []
    for question, metric, margin, higher in _questions(findings.design):
        for arm in findings.design.arms[1:]:
            if seeds := findings.paired_seeds(arm):
                evidence = _paired(findings, arm, seeds, metric)
                found.append(Cell(question, metric, arm.label, evidence, margin, higher))
    return found


def _paired(findings: Findings, arm: Arm, seeds: Sequence[int], metric: str) -> Paired:
    pairs = [(findings.scored[arm][seed], findings.scored[findings.design.baseline][seed]) for seed in seeds]
    differences = [loss.contributions(metric) - base.contributions(metric) for loss, base in pairs]
    examples = _examples([base for _, base in pairs])
    fixed = examples is not None and all(np.array_equal(examples[0], other) for other in examples)
    contributed = None if examples is None else tuple(differences)
    means = np.array([values.mean() for values in differences])
    return Paired(means, examples, contributed, *_rows(findings, pairs[0][1], resampled=not fixed))


def _rows(findings: Findings, run: Scored, *, resampled: bool = True) -> tuple[int, int, bool]:
    """Training and test rows, and whether each seed drew its own; ``resampled`` where the data do not say."""
    test = len(run.target)
    train = findings.design.data.get("rows", 0) - test - run.validation_rows
    # Where the training rows are not known, as many as test rows: the interval is then rather too wide.
    return (train if train > 0 else test), test, findings.design.data.get("resampled", resampled)


def _examples(runs: Sequence[Scored]) -> tuple[np.ndarray, ...] | None:
    """Row ids of each seed. Unnamed rows whose labels agree in every seed are taken to be the same rows."""
    rows = [run.rows for run in runs]
    if all(ids is not None for ids in rows):
        return tuple(ids for ids in rows if ids is not None)
    if len(runs) > 1 and all(np.array_equal(runs[0].target, run.target) for run in runs):
        return tuple(np.arange(len(run.target)) for run in runs)
    return None


def _result(findings: Findings, arm: Arm) -> LossResult:
    made, runs, scored = findings.choices[arm], findings.finals[arm], findings.scored[arm]
    search = _search(findings, arm)
    expression = search.expression if search else arm.expression
    done = list(scored.values())
    decisions = [(run.target, run.decision) for run in done]
    classes = done[0].classes if done else 0
    entries = () if is_own(expression) else term_of(expression).entries
    return LossResult(
        label=arm.label,
        expression=expression,
        formula=description.formula(entries),
        entries=entries,
        baseline=arm == findings.design.baseline,
        learning_rate=search.learning_rate if search else made.learning_rate if made else None,
        tuning=made.scores if made else {},
        seeds=tuple(scored),
        failures=_failures(findings, arm),
        scores=_stacked([run.scores for run in done]),
        per_class_recall=_mean_recall(decisions, classes) if done else None,
        confusion=np.sum([confusion(t, d, classes) for t, d in decisions], axis=0) if done else None,
        reliability=_pooled([run.confidence for run in done], done),
        reliability_scaled=_pooled([run.confidence_scaled for run in done], done),
        curve=_curve([runs[seed]["curve"] for seed in scored]),
        cost=_cost([runs[seed] for seed in scored]),
        search=search,
    )


def _search(findings: Findings, arm: Arm) -> Search | None:
    """What the trials of a loss found, beside the grid."""
    found, made = findings.found[arm], findings.choices[arm]
    if found is None or made is None or made.learning_rate is None:
        return None
    grid = [
        findings.archive.scored(run).scores
        for run in findings.grid_finals(arm).values()
        if run["status"] == "done"
    ]
    metric = findings.design.metric
    return Search(
        trials=found.trials,
        expression=found.trial.expression,
        learning_rate=found.trial.learning_rate,
        weight_decay=found.trial.weight_decay,
        validation=found.validation[metric],
        from_grid=found.trial.number is None,
        grid_learning_rate=made.learning_rate,
        grid_validation=made.scores[made.learning_rate],
        grid_scores=_stacked(grid),
    )


def _failures(findings: Findings, arm: Arm) -> tuple[str, ...]:
    made = findings.choices[arm]
    found = [
        f"seed {seed}: {run['status']}: {run['error']}"
        for seed, run in findings.finals[arm].items()
        if run["status"] != "done"
    ]
    if made is not None and made.learning_rate is None and findings.design.learning_rates:
        found.append("no learning rate of the grid gave a finished run for every tuning seed")
    return tuple(found)


def _stacked(scores: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """An array over runs for each score; nan where a run lacks it."""
    keys = dict.fromkeys(key for run in scores for key in run)
    return {key: np.array([run.get(key, np.nan) for run in scores]) for key in keys}


def _mean_recall(decisions: Sequence[tuple[np.ndarray, np.ndarray]], classes: int) -> np.ndarray:
    """(C,) over the seeds whose test rows have the class."""
    recall = np.stack([per_class_recall(target, decision, classes) for target, decision in decisions])
    known = ~np.isnan(recall)
    mean: np.ndarray = np.where(known, recall, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), mean, np.nan)


def _pooled(confidences: Sequence[np.ndarray], runs: Sequence[Scored]) -> Reliability | None:
    if not runs:
        return None
    return binned(np.concatenate(confidences), np.concatenate([run.likeliest for run in runs]))


def _curve(curves: Sequence[Sequence[Mapping[str, float | None]]]) -> dict[str, np.ndarray]:
    """Means over runs, which all have the same epochs; null stands for a number that was not finite."""
    if not curves or not curves[0]:
        return {}
    return {
        key: np.mean([[_number(entry[key]) for entry in curve] for curve in curves], axis=0)
        for key in curves[0][0]
    }


def _number(value: float | None) -> float:
    return np.inf if value is None else value


def _cost(runs: Sequence[Record]) -> dict[str, float]:
    """Medians, since the first run of a worker also compiles, often for longer than it trains; one mean."""
    found = {}
    for key in (*COSTS, "best_epoch"):
        values = [run[key] for run in runs if run[key] is not None]
        if values:
            found[key] = float(np.median(values) if key in COSTS else np.mean(values))
    return found


def _references(findings: Findings) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            name,
            _stacked(
                [findings.archive.scored(run).scores for run in runs.values() if run["status"] == "done"]
            ),
        )
        for name, runs in findings.references.items()
        if runs
    )
