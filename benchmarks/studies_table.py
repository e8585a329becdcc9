"""The tables of docs/studies.md, from packed studies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from infoloss.study.analysis import Analysis, analyse
from infoloss.study.collection import CollectionAnalysis, analyse_collection
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
    """What the study was, in a sentence."""
    data = analysis.data
    return f"{data['name']}: {data['rows']} rows, {data['classes']} classes. {_protocol(analysis)}"


def of_collection(found: CollectionAnalysis) -> str:
    """What the studies of the data sets were, in some sentences, with the names of the data sets."""
    first = next(iter(found.members.values()))
    rows = sorted(int(each.data["rows"].replace(",", "")) for each in found.members.values())
    classes = sorted(int(each.data["classes"]) for each in found.members.values())
    judged = Counter(each.verdicts[0].metric for each in found.members.values())
    metrics = " and ".join(f"{key.replace('_', ' ')} on {count}" for key, count in judged.most_common())
    return (
        f"{len(found.members)} tables of {rows[0]:,} to {rows[-1]:,} rows (median {median(rows):,.0f}) "
        f"and {classes[0]} to {classes[-1]} classes; labels are judged by {metrics} of them. "
        f"{_protocol(first)}\n\nThe tables: {', '.join(sorted(found.members, key=str.lower))}."
    )


def _protocol(analysis: Analysis) -> str:
    about = analysis.protocol
    losses = [loss for loss in analysis.losses if not loss.baseline]
    failed = sum(len(loss.failures) for loss in analysis.losses)
    return (
        f"{len(losses)} losses against {analysis.baseline}, {about['seeds']} seeds; the split is "
        f"{about['split']}. Model: {about['model']}; {about['optimiser']}; {about['epochs']} epochs. Tuning: "
        f"{about['tuning']}. Margins: {about['margins']}. Failed runs: {failed}."
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
    caption = f"Verdicts of the data sets one by one: {', '.join(outcomes[:-1])} or {outcomes[-1]}."
    return Table("single", caption, columns, (Body(tuple(rows)),))


def ranks(found: CollectionAnalysis) -> str:
    """Mean ranks, with what it takes to tell two of them apart."""
    ranked = [(asked.question, asked.ranks) for asked in found.questions if asked.ranks is not None]
    losses = list(ranked[0][1].of) if ranked else []
    columns = (Column("loss", numeric=False), *(Column(question) for question, _ in ranked))
    rows = tuple(
        (Cell(loss, code=True), *(Cell(f"{each.of[loss]:.2f}") for _, each in ranked)) for loss in losses
    )
    apart = ", ".join(f"{each.critical_difference:.2f}" for _, each in ranked)
    caption = f"Mean ranks, 1 is best; two are told apart (Nemenyi, 95 %) from a difference of {apart} on."
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
