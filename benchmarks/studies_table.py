"""The tables of docs/studies.md, from packed studies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from infoloss.study.analysis import Analysis, analyse
from infoloss.study.collection import CollectionAnalysis, analyse_collection
from infoloss.study.inference import Verdict
from infoloss.study.members import holds
from infoloss.study.report.collection import summary
from infoloss.study.report.table import Body, Cell, Column, Table, markdown
from infoloss.study.report.verdicts import verdict_table


def text_of(name: str, results: Path) -> str:
    """Conditions and tables of a study, from what is kept of it."""
    file, about = results / f"{name}.parquet", json.loads((results / f"{name}.json").read_text("utf-8"))
    if holds(file):
        found = analyse_collection(file)
        first = next(iter(found.members.values()))
        parts = [
            of_collection(found),
            markdown(summary(found)),
            markdown(single_verdicts(found)),
            ranks(found),
        ]
    else:
        first = analyse(file)
        parts = [of_one(first), markdown(verdict_table(first)), learning_rates(first)]
    versions = ", ".join(
        f"{key} {first.environment[key]}" for key in ("infoloss", "torch", "numpy", "python")
    )
    written = f"Written by `python -m benchmarks.studies --table` from `results/studies/{file.name}`"
    made = f"runs of commit {about['commit']} on {about['processor']}, one thread each; {versions}"
    return "\n\n".join(part.strip() for part in [*parts, f"{written}; {made}."])


def of_one(analysis: Analysis) -> str:
    """What the study was, in some sentences."""
    data = analysis.data
    return f"{data['name']}: {data['rows']} rows, {data['classes']} classes. {_protocol([analysis])}"


def of_collection(found: CollectionAnalysis) -> str:
    """What the studies of the data sets were, in some sentences, with the names of the data sets."""
    members = list(found.members.values())
    rows = sorted(int(each.data["rows"].replace(",", "")) for each in members)
    classes = sorted(int(each.data["classes"]) for each in members)
    judged = Counter(each.verdicts[0].metric for each in members)
    metrics = " and ".join(f"{key.replace('_', ' ')} on {count}" for key, count in judged.most_common())
    return (
        f"{len(members)} tables of {rows[0]:,} to {rows[-1]:,} rows (median {median(rows):,.0f}) and "
        f"{classes[0]} to {classes[-1]} classes; validation chooses, and labels are judged, by {metrics} of "
        f"them. {_protocol(members)}\n\nThe tables: {', '.join(sorted(found.members, key=str.lower))}."
    )


def _protocol(analyses: Sequence[Analysis]) -> str:
    first, failed = analyses[0], sum(len(loss.failures) for each in analyses for loss in each.losses)
    about, losses = first.protocol, len(first.losses)
    return (
        f"{losses} losses; seeds: {about['seeds']}; split: {about['split']}. Model: {about['model']}; "
        f"{about['optimiser']}; {about['epochs']} epochs. Tuning: {about['tuning'].partition(';')[0]}. "
        f"Failed or diverged runs: {failed}."
    )


def learning_rates(analysis: Analysis) -> str:
    """What tuning chose."""
    chosen = "; ".join(
        f"`{loss.label}` {loss.learning_rate:g}" for loss in analysis.losses if loss.learning_rate
    )
    return f"Learning rates that tuning chose: {chosen}."


def single_verdicts(found: CollectionAnalysis) -> Table:
    """How many of the data sets judge a loss better, worse, equivalent or undecided by themselves."""
    outcomes = ("better", "worse", "equivalent", "undecided")
    columns = (Column("loss", numeric=False), *(Column(asked.question) for asked in found.questions))
    rows = []
    for each in found.questions[0].compared:
        counts = [
            Counter(verdict.outcome for (_, loss), verdict in asked.verdicts.items() if loss == each.loss)
            for asked in found.questions
        ]
        cells = [Cell(" / ".join(str(count[outcome]) for outcome in outcomes)) for count in counts]
        rows.append((Cell(each.loss, code=True), *cells))
    widths = [median(map(_half_width, asked.verdicts.values())) for asked in found.questions]
    caption = (
        f"Verdicts of the data sets one by one: {' / '.join(outcomes)}. Their intervals reach "
        f"{' / '.join(f'{width:.2g}' for width in widths)} to both sides (median)."
    )
    return Table("single", caption, columns, (Body(tuple(rows)),))


def _half_width(verdict: Verdict) -> float:
    low, high = verdict.adjusted_interval
    return (high - low) / 2


def ranks(found: CollectionAnalysis) -> str:
    """Mean ranks, with what it takes to tell two of them apart."""
    ranked = [(asked.question, asked.ranks) for asked in found.questions if asked.ranks is not None]
    losses = list(ranked[0][1].of) if ranked else []
    columns = (Column("loss", numeric=False), *(Column(question) for question, _ in ranked))
    rows = tuple(
        (Cell(loss, code=True), *(Cell(f"{each.of[loss]:.2f}") for _, each in ranked)) for loss in losses
    )
    apart = " or ".join(dict.fromkeys(f"{each.critical_difference:.2f}" for _, each in ranked))
    caption = f"Mean ranks, 1 is best; two are told apart (Nemenyi, 95 %) where they differ by {apart}."
    return markdown(Table("ranks", caption, columns, (Body(rows),)))


def write_tables(document: Path, names: Iterable[str], results: Path) -> None:
    """Replaces what stands between the markers of the studies that are kept."""
    text = document.read_text(encoding="utf-8")
    for name in names:
        if (results / f"{name}.parquet").is_file():
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            before, rest = text.split(begin)
            _, after = rest.split(end)
            text = f"{before}{begin}\n\n{text_of(name, results)}\n\n{end}{after}"
    document.write_text(text, encoding="utf-8")
