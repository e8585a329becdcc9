"""The tables of verdicts: at a glance, in full, and for a paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .table import Body, Cell, Column, Table
from .tables import loss_name
from .wording import (
    GROUPS,
    MARKS,
    Metric,
    alpha_of,
    equivalence_level,
    interval,
    margin,
    mean_and_spread,
    metric,
    number,
    outcome,
    p_value,
    plain,
    question,
    questions,
    remedy,
    seed_count,
)

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis, LossResult
    from infoloss.study.inference import Verdict


def verdict_table(analysis: Analysis) -> Table:
    """Loss × question: the outcome in words and colour, the difference, its adjusted interval."""
    asked = questions(analysis)
    given = {(verdict.loss, verdict.question, verdict.metric): verdict for verdict in analysis.verdicts}
    columns = [Column("loss", numeric=False)]
    columns += [
        Column(
            question(about), note=_asked(metric(key), analysis), numeric=False, short=GROUPS.get(about, about)
        )
        for about, key in asked
    ]
    rows = []
    for loss in analysis.losses:
        cells = [given.get((loss.label, about, key)) for about, key in asked]
        if loss.baseline:
            rows.append((loss_name(loss), *(_level(loss, key) for _, key in asked)))
        else:
            rows.append((loss_name(loss), *(_verdict(cell) for cell in cells)))
    judged, alpha = len(analysis.verdicts), alpha_of(analysis)
    interval = f"interval adjusted for all {judged} verdicts (Holm)"
    if judged == 1:
        interval = f"{100 * (1 - alpha):.4g} % interval"
    caption = (
        f"Difference from {analysis.baseline}, paired by seed, with the {interval} or, where equivalent, the "
        f"{equivalence_level(alpha)} interval that lies within the margin; "
        f"{seed_count([v.seeds for v in analysis.verdicts])}."
    )
    return Table("verdicts", caption, tuple(columns), (Body(tuple(rows)),), layout="cards")


def _asked(shown: Metric, analysis: Analysis) -> str:
    unit = f" {shown.difference_unit}" if shown.difference_unit else ""
    width = analysis.margins.get(shown.key, math.nan)
    bounds = f", margin ±{plain(width)}{unit}" if math.isfinite(width) else ""
    return f"{shown.name}, {shown.direction}{bounds}"


def _level(loss: LossResult, key: str) -> Cell:
    """Where the baseline itself stands."""
    if key not in loss.scores:
        return Cell("–", kind="level")
    mean, spread = mean_and_spread(loss.scores[key], key)
    n = f"n = {len(loss.scores[key])}"
    detail = f"{spread} sd, {n}" if spread else n
    return Cell(f"{mean} {metric(key).symbol}".strip(), (detail,), kind="level")


def _verdict(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return Cell("no verdict", ("no seed finished beside the baseline’s",), kind="none")
    shown = metric(verdict.metric)
    words = f"{MARKS[verdict.outcome]} {outcome(verdict)}"
    order = -verdict.difference if shown.lower_is_better else verdict.difference
    if verdict.identical:
        return Cell(words, (f"difference exactly 0, n = {verdict.seeds}",), kind=verdict.outcome, order=order)
    size = f"{number(verdict.difference, shown.digits, signed=True)} {shown.difference_unit}".strip()
    decided_by = (
        verdict.equivalence_interval if verdict.outcome == "equivalent" else verdict.adjusted_interval
    )
    level = f" ({equivalence_level(verdict.alpha)})"
    bounds = f"{_bounds(decided_by, shown.digits)}{level if verdict.outcome == 'equivalent' else ''}"
    details = (size, f"{bounds}, n = {verdict.seeds}", remedy(verdict))
    return Cell(words, tuple(filter(None, details)), kind=verdict.outcome, order=order)


def _bounds(bounds: tuple[float, float], digits: int) -> str:
    return interval(bounds, digits) if all(map(math.isfinite, bounds)) else "no interval"


def verdict_numbers(analysis: Analysis) -> Table:
    """Every number behind every verdict, one row each."""
    heads = (
        Column("loss", numeric=False),
        Column("outcome", numeric=False),
        Column("difference"),
        Column("95 %", note="unadjusted"),
        Column("adjusted", note="Holm"),
        Column(equivalence_level(alpha_of(analysis)), note="equivalence"),
        Column("margin"),
        Column("standard error"),
        Column("p"),
        Column("adjusted p"),
        Column("n"),
        Column("more seeds"),
    )
    bodies = tuple(
        Body(
            tuple(
                _numbers(verdict, analysis)
                for verdict in analysis.verdicts
                if (verdict.question, verdict.metric) == (about, key)
            ),
            heading=f"{GROUPS.get(about, about)} ({metric(key).name})",
        )
        for about, key in questions(analysis)
    )
    caption = (
        "Each verdict with its intervals; differences in points for accuracies and in nats for NLL; "
        "n is the number of paired seeds."
    )
    return Table("verdict-numbers", caption, heads, bodies, folded="All numbers behind the verdicts")


def _numbers(verdict: Verdict, analysis: Analysis) -> tuple[Cell, ...]:
    shown = metric(verdict.metric)
    digits = shown.digits
    more = (
        ""
        if verdict.outcome != "undecided"
        else "–"
        if verdict.more_seeds is None
        else str(verdict.more_seeds)
    )
    return (
        Cell(verdict.loss, code=True, order=verdict.loss),
        Cell(outcome(verdict), kind=f"word {verdict.outcome}", order=verdict.outcome),
        Cell(number(verdict.difference, digits, signed=True), order=verdict.difference),
        Cell(_bounds(verdict.interval, digits)),
        Cell(_bounds(verdict.adjusted_interval, digits)),
        Cell(_bounds(verdict.equivalence_interval, digits)),
        Cell(plain(margin(verdict, analysis.margins))),
        Cell(number(verdict.standard_error, digits + 1), order=verdict.standard_error),
        Cell(p_value(verdict.p_value), order=verdict.p_value),
        Cell(p_value(verdict.adjusted_p_value), order=verdict.adjusted_p_value),
        Cell(str(verdict.seeds), order=float(verdict.seeds)),
        Cell(more, order=float(verdict.more_seeds or 0)),
    )


def paper_verdicts(analysis: Analysis) -> Table | None:
    """The verdicts as narrow as a column of text allows; None where there are none."""
    if not analysis.verdicts:
        return None
    full = verdict_numbers(analysis)
    heads = [column.head for column in full.columns]
    keep = [heads.index(head) for head in ("loss", "outcome", "difference", "adjusted", "n", "more seeds")]
    bodies = tuple(
        Body(tuple(tuple(row[place] for place in keep) for row in body.rows), heading=body.heading)
        for body in full.bodies
    )
    caption = (
        f"Difference from {analysis.baseline}, paired by seed, in points for accuracies and nats for NLL; "
        "intervals adjusted for all verdicts (Holm); n paired seeds; more seeds needed where undecided "
        "(–: no number suffices)."
    )
    return Table("verdicts", caption, tuple(full.columns[place] for place in keep), bodies)
