"""The tables of a study below its verdicts: scores, recall, cost, tuning, failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from infoloss.data.names import counted

from .table import Body, Cell, Column, Table, code
from .wording import (
    GROUPS,
    Metric,
    abbreviated,
    mean_and_spread,
    metric,
    metrics,
    number,
    plain,
    questions,
    seed_count,
    significant,
)

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis, LossResult, Search

_PERCENT = ",\u00a0%"  # the unit never starts a line
REFERENCES = "Reference lines on the same splits, never in the verdict"


def loss_name(loss: LossResult) -> Cell:
    failed = (f"{len(loss.failures)} failed",) if loss.failures else ()
    return Cell(loss.label, (("baseline",) if loss.baseline else ()) + failed, order=loss.label, code=True)


def _seeds(loss: LossResult) -> Cell:
    return Cell(str(len(loss.seeds)), order=float(len(loss.seeds)))


def scores(analysis: Analysis) -> Table:
    """Mean ± standard deviation of every metric; the reference lines apart."""
    return _scores_of(analysis, _measured(analysis), key="scores")


def paper_scores(analysis: Analysis) -> list[Table]:
    """The same, a table for each group of metrics, as wide as a page."""
    shown = _measured(analysis)
    groups = dict.fromkeys(entry.question for entry in shown)
    return [
        _scores_of(analysis, [entry for entry in shown if entry.question == about], key=f"scores-{place}")
        for place, about in enumerate(groups, start=1)
    ]


def _measured(analysis: Analysis) -> list[Metric]:
    return metrics(list(dict.fromkeys(key for loss in analysis.losses for key in loss.scores)))


def _scores_of(analysis: Analysis, shown: Sequence[Metric], *, key: str) -> Table:
    judged = {key for _, key in questions(analysis)}
    columns = [Column("loss", numeric=False), Column("n")]
    columns += [
        Column(
            f"{entry.name}{_PERCENT if entry.unit == 'percent' else ''}",
            note="verdict" if entry.key in judged else "exploratory",
            group=GROUPS.get(entry.question, ""),
        )
        for entry in shown
    ]
    bodies = [Body(tuple(_scores(loss_name(loss), loss.scores, shown) for loss in analysis.losses))]
    if analysis.references:
        rows = tuple(
            _scores(Cell(line.name, order=line.name), line.scores, shown) for line in analysis.references
        )
        bodies.append(Body(rows, heading=REFERENCES))
    caption = (
        "Mean ± standard deviation over n seeds on the test rows. Columns marked verdict are what the study "
        "judges; those marked exploratory were not corrected for their number and decide nothing."
    )
    return Table(key, caption, tuple(columns), tuple(bodies))


def _scores(name: Cell, values: dict[str, np.ndarray], shown: Sequence[Metric]) -> tuple[Cell, ...]:
    n = max((len(value) for value in values.values()), default=0)
    cells = [name, Cell(str(n), order=float(n))]
    for entry in shown:
        if entry.key not in values:
            cells.append(Cell("–"))
            continue
        mean, spread = mean_and_spread(values[entry.key], entry.key)
        finite = values[entry.key][np.isfinite(values[entry.key])]
        missing = (f"n = {finite.size}",) if 0 < finite.size < n else ()
        order = float(finite.mean()) if finite.size else math.nan
        cells.append(Cell(mean, tuple(filter(None, (spread, *missing))), order=order))
    return tuple(cells)


def recall(analysis: Analysis, classes: Sequence[str]) -> Table | None:
    """Recall of each class, mean over seeds; None where no loss has it."""
    measured = [
        (loss, loss.per_class_recall) for loss in analysis.losses if loss.per_class_recall is not None
    ]
    if not measured:
        return None
    every = np.concatenate([values[np.isfinite(values)] for _, values in measured])
    bounds = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    rows = tuple(
        (loss_name(loss), *(_recall(float(value), bounds) for value in values)) for loss, values in measured
    )
    names = abbreviated(classes, 14).values()
    counts = _class_rows([loss for loss, _ in measured], len(classes))
    columns = (
        Column("loss", numeric=False),
        *(Column(name, note=note) for name, note in zip(names, counts, strict=True)),
    )
    explained = " n under a class: its test rows, over all seeds." if any(counts) else ""
    caption = (
        f"Recall of each class in %, mean over {seed_count([len(loss.seeds) for loss, _ in measured])}; "
        f"darker is lower.{explained} Exploratory."
    )
    return Table("recall", caption, columns, (Body(rows),))


def _class_rows(losses: Sequence[LossResult], classes: int) -> list[str]:
    """The test rows of each class, of the loss with most seeds; empty where they are not known."""
    known = [loss.confusion for loss in losses if loss.confusion is not None]
    if not known:
        return [""] * classes
    return [f"n = {count:.0f}" for count in max((np.asarray(each).sum(axis=1) for each in known), key=np.sum)]


def _recall(value: float, bounds: tuple[float, float]) -> Cell:
    lowest, highest = bounds
    heat = (highest - value) / (highest - lowest) if highest > lowest and math.isfinite(value) else 0.0
    return Cell(number(value * 100, 1), order=value, heat=round(heat, 2))


_COSTS = {
    "seconds": "seconds a run",
    "step_milliseconds": "milliseconds a step",
    "peak_memory_mib": "peak memory, MiB",
    "best_epoch": "best epoch",
}


def cost(analysis: Analysis) -> Table | None:
    """What a run takes; None where nothing was timed."""
    keys = [key for key in _COSTS if any(key in loss.cost for loss in analysis.losses)]
    if not keys:
        return None
    base: dict[str, float] = next((loss.cost for loss in analysis.losses if loss.baseline), {})
    rows = tuple(
        (
            loss_name(loss),
            _seeds(loss),
            *(_cost(loss, key, base) for key in keys),
        )
        for loss in analysis.losses
    )
    columns = (Column("loss", numeric=False), Column("n"), *(Column(_COSTS[key]) for key in keys))
    caption = (
        "Cost of the final runs: medians over n seeds, best epochs means; in brackets, times the baseline."
    )
    if "peak_memory_mib" in keys:
        caption += (
            " Peak memory is what was allocated on the device; on a CPU it is that of the whole worker "
            "process, with the libraries it has loaded."
        )
    return Table("cost", caption, columns, (Body(rows),))


def _cost(loss: LossResult, key: str, base: dict[str, float]) -> Cell:
    value, unit = loss.cost.get(key, math.nan), base.get(key, math.nan)
    timed = key in ("seconds", "step_milliseconds") and not loss.baseline
    ratio = (f"({number(value / unit, 2)} ×)",) if timed and unit > 0 and math.isfinite(value) else ()
    return Cell(number(value, 1) if key == "best_epoch" else significant(value), ratio, order=value)


def tuning(analysis: Analysis) -> Table | None:
    """Mean validation score of each learning rate; the chosen one is marked, an edge of the grid is said."""
    grid = sorted({rate for loss in analysis.losses for rate in loss.tuning})
    if not grid and all(loss.learning_rate is None for loss in analysis.losses):
        return None
    columns = (
        Column("loss", numeric=False),
        Column("chosen"),
        *(Column(plain(rate)) for rate in grid),
        Column("on the grid’s edge?", numeric=False),
    )
    rows = tuple(
        (
            loss_name(loss),
            _rate(_grid_rate(loss)),
            *(_trial(loss, rate, analysis.primary_metric) for rate in grid),
            Cell(_edge(loss)),
        )
        for loss in analysis.losses
    )
    entry = metric(analysis.primary_metric)
    unit = " in %" if entry.unit == "percent" else ""
    caption = (
        f"Mean validation {entry.name}{unit} of each learning rate{_over_tuning_seeds(analysis)}; the chosen "
        "one is marked ✓, ties were broken by validation NLL. The test set had no part in the choice."
    )
    return Table("tuning", caption, columns, (Body(rows),))


def _over_tuning_seeds(analysis: Analysis) -> str:
    seeds = analysis.tuning_seeds
    return f" over n = {counted(seeds, 'tuning seed')}" if seeds else ""


def _trial(loss: LossResult, rate: float, key: str) -> Cell:
    value = loss.tuning.get(rate, math.nan)
    words = number(value * metric(key).factor, metric(key).digits)
    mine = _grid_rate(loss)
    chosen = mine is not None and math.isclose(rate, mine)
    return Cell(f"✓ {words}" if chosen else words, kind="chosen" if chosen else "", order=value)


def _edge(loss: LossResult) -> str:
    tried, mine = sorted(loss.tuning), _grid_rate(loss)
    if len(tried) < 2 or mine is None:
        return "not tuned"
    if math.isclose(mine, tried[0]):
        return "yes, the lowest: a lower one might be better"
    if math.isclose(mine, tried[-1]):
        return "yes, the highest: a higher one might be better"
    return "no"


def _grid_rate(loss: LossResult) -> float | None:
    """The learning rate that the grid gave, whatever trials chose after it."""
    return loss.search.grid_learning_rate if loss.search else loss.learning_rate


def _rate(rate: float | None) -> Cell:
    return Cell("–" if rate is None else plain(rate), order=rate)


def search(analysis: Analysis) -> Table | None:
    """What the trials chose, with the result of the grid alone beside it; None where there were no trials."""
    searched = [(loss, loss.search) for loss in analysis.losses if loss.search is not None]
    if not searched:
        return None
    entry = metric(analysis.primary_metric)
    judged = list(dict.fromkeys([entry.key, *(key for _, key in questions(analysis))]))
    shown = [metric(key) for key in judged if any(key in loss.scores for loss, _ in searched)]
    unit = _PERCENT if entry.unit == "percent" else ""
    columns = (
        Column("loss", numeric=False),
        Column("chosen", numeric=False),
        Column("learning rate"),
        Column("weight decay"),
        Column("n"),
        Column(f"validation {entry.name}{unit}", note="grid → trials"),
        *(
            Column(
                f"test {each.name}{_PERCENT if each.unit == 'percent' else ''}",
                group=GROUPS.get(each.question, ""),
            )
            for each in shown
        ),
    )
    rows = tuple(_searched(loss, found, entry, shown) for loss, found in searched)
    caption = (
        f"What {counted(searched[0][1].trials, 'trial')} of every loss, the baseline included, chose "
        "on validation rows, and in brackets what the grid of learning rates alone gave. Validation: means"
        f"{_over_tuning_seeds(analysis)}; test: means over n seeds. The verdicts are about the first. "
        "A weight decay of – is the study’s own. Exploratory."
    )
    return Table("search", caption, columns, (Body(rows),))


def _searched(loss: LossResult, found: Search, entry: Metric, shown: Sequence[Metric]) -> tuple[Cell, ...]:
    digits, factor = entry.digits, entry.factor
    before = number(found.grid_validation * factor, digits)
    after = number(found.validation * factor, digits)
    chosen = Cell("as in the grid") if found.from_grid else code(found.expression)
    decay = "–" if found.weight_decay is None else plain(found.weight_decay)
    return (
        loss_name(loss),
        chosen,
        Cell(
            plain(found.learning_rate), (f"({plain(found.grid_learning_rate)})",), order=found.learning_rate
        ),
        Cell(decay, order=found.weight_decay),
        _seeds(loss),
        Cell(f"{before} → {after}", order=found.validation),
        *(_beside(loss.scores, found.grid_scores, each.key) for each in shown),
    )


def _beside(tuned: Mapping[str, np.ndarray], grid: Mapping[str, np.ndarray], key: str) -> Cell:
    """Mean with the best trial, and in brackets with the grid's learning rate."""
    if key not in tuned:
        return Cell("–")
    other = f"({mean_and_spread(grid[key], key)[0]})" if key in grid else ""
    return Cell(mean_and_spread(tuned[key], key)[0], (other,))


def failures(analysis: Analysis) -> Table | None:
    """Every failed or diverged run; None where all ran through."""
    rows = tuple((loss_name(loss), Cell(failure)) for loss in analysis.losses for failure in loss.failures)
    if not rows:
        return None
    total = counted(len(rows), "run")
    columns = (Column("loss", numeric=False), Column("what happened", numeric=False))
    return Table("failures", f"{total} failed or diverged. They are results too.", columns, (Body(rows),))


def expressions(analysis: Analysis) -> Table:
    """What each label stands for, with every parameter."""
    columns = (
        Column("loss", numeric=False),
        Column("expression", numeric=False),
        Column("formula", numeric=False),
    )
    rows = tuple((loss_name(loss), code(loss.expression), Cell(loss.formula)) for loss in analysis.losses)
    caption = (
        "The losses compared, with every parameter. z are the logits, y the label, C the number of classes, "
        "L = ln Σ_j exp z_j, q = softmax(z), p = q_y, H the entropy in nats."
    )
    return Table("losses", caption, columns, (Body(rows),))


def pairs(key: str, values: Mapping[str, str]) -> Table:
    """Names and values, such as the protocol; they need no caption."""
    columns = (Column("", numeric=False), Column("", numeric=False))
    rows = tuple((Cell(name.replace("_", " ")), Cell(value)) for name, value in values.items())
    return Table(key, "", columns, (Body(rows),), layout="pairs")
