"""The report of a study over several data sets: the same page, verdicts over all of them first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from infoloss.data.names import counted
from infoloss.study.grammar import listed, spelt
from infoloss.study.inference.datasets import LEAST_FOR_AN_OUTCOME

from . import bibliography, render
from .document import Document
from .files import collection_written
from .forest import LEVEL, ROW, WIDTH, row_name
from .parts import Code, Gallery, Section, Words
from .svg import Panel, Scale, bottom_axis, group, line, marked, marker, text
from .table import Body, Cell, Column, Table
from .wording import GROUPS, MARKS, abbreviated, metric, number, p_value, plain, question, seed_count

if TYPE_CHECKING:
    from infoloss.study.across import Across, Compared, Ranks
    from infoloss.study.collection import CollectionAnalysis
    from infoloss.study.inference import Verdict

__all__ = ["document", "render_all", "render_collection", "summary"]


def render_collection(found: CollectionAnalysis, folder: Path) -> Path:
    """Writes report.html, report.md, datasets.csv, LaTeX, SVG and BibTeX; the path of the page.

    The reports of the single data sets are written by ``render``.
    """
    return collection_written(document(found), summary(found), _csv_rows(found), Path(folder))


def render_all(found: CollectionAnalysis, folder: Path) -> Path:
    """Writes the reports of the single data sets too; the path of the page of all."""
    for name, analysis in found.members.items():
        render(analysis, folder / found.folders[name])
    return render_collection(found, folder)


def document(found: CollectionAnalysis) -> Document:
    """The report over the data sets, verdicts first."""
    first = next(iter(found.members.values()), None)
    losses = [loss.label for loss in first.losses] if first else []
    sizes = [len(loss.seeds) for analysis in found.members.values() for loss in analysis.losses]
    facts = (
        f"{seed_count(sizes)} on each data set",
        f"baseline {found.baseline}",
    )
    unfinished = [name for name, analysis in found.members.items() if not analysis.complete]
    warnings: tuple[str, ...] = ()
    if unfinished:
        warnings += (f"Not finished: {listed(unfinished)}. Every number may change.",)
    if len(found.members) < LEAST_FOR_AN_OUTCOME:
        warnings += (
            f"{counted(len(found.members), 'data set')}: with fewer than {LEAST_FOR_AN_OUTCOME} there is no "
            "verdict over data sets, since so few agree by chance too often.",
        )
    if not all(analysis.tuned for analysis in found.members.values()):
        warnings += ("untuned: no verdict on rank",)
    title = f"{spelt(len(losses), 'loss').capitalize()} on {counted(len(found.members), 'data set')}"
    sections = (
        Section("verdict", "Over all data sets", (summary(found), Words((_meaning(found),)))),
        *_ranks(found),
        Section("datasets", "Each data set", tuple(_by_dataset(found, asked) for asked in found.questions)),
        Section("reports", "The studies", (_studies(found),)),
        Section("methods", "Methods, for a paper", (Words((_paragraph(found),)), _bibtex())),
        Section("rerun", "Run it again", (Code(found.command, "sh"),) if found.command else ()),
    )
    shown = tuple(section for section in sections if section.parts)
    return Document(title, facts, warnings, tuple(map(_sentence, found.questions)), shown)


def summary(found: CollectionAnalysis) -> Table:
    """Loss × question: the outcome, its posterior probability, and wins, ties and defeats."""
    columns = [Column("loss", numeric=False)]
    columns += [
        Column(
            question(asked.question),
            note=f"{_metrics(asked)}, margin ±{plain(asked.margin)}{_unit(asked)}",
            numeric=False,
            short=GROUPS.get(asked.question, asked.question),
        )
        for asked in found.questions
    ]
    of = {(each.loss, asked.question): each for asked in found.questions for each in asked.compared}
    losses = dict.fromkeys(loss for loss, _ in of)
    rows = tuple(
        (
            Cell(loss, code=True, order=loss),
            *(_summed(of.get((loss, asked.question))) for asked in found.questions),
        )
        for loss in losses
    )
    caption = (
        f"Against {found.baseline}, n = {counted(len(found.members), 'data set')}. Probabilities are those "
        "of the Bayesian signed-rank test: that on another data set of this kind the loss is likeliest "
        "better, worse, or within the margin. An outcome "
        f"needs 95 % and {LEAST_FOR_AN_OUTCOME} data sets. Wins, ties (within the margin) and defeats are "
        "counts of data sets."
    )
    return Table("collection", caption, tuple(columns), (Body(rows),), layout="cards")


def _summed(each: Compared | None) -> Cell:
    if each is None:
        return Cell("no verdict", kind="none")
    counts = f"{each.wins} / {each.ties} / {each.defeats} won, tied, lost"
    if each.posterior is None:
        return Cell("no verdict", (counts,), kind="none")
    chances = each.posterior
    shares = (
        f"better {number(chances.better, 2)}, same {number(chances.equivalent, 2)}, "
        f"worse {number(chances.worse, 2)}"
    )
    words = f"{MARKS[each.outcome]} {each.outcome}"
    return Cell(words, (shares, counts), kind=each.outcome, order=chances.better - chances.worse)


def _unit(asked: Across) -> str:
    """``" points"``, empty where a score has no unit."""
    unit = metric(asked.metrics[0]).difference_unit
    return f" {unit}" if unit else ""


def _metrics(asked: Across) -> str:
    return listed([metric(key).name for key in asked.metrics])


def _sentence(asked: Across) -> str:
    """``"Labels (accuracy): better over data sets: squentropy; undecided: focal."``."""
    parts = []
    for outcome in ("better", "worse", "equivalent", "undecided"):
        names = [each.loss for each in asked.compared if each.outcome == outcome]
        if names:
            parts.append(f"{outcome}: {', '.join(names)}")
    name = GROUPS.get(asked.question, asked.question)
    return f"{name.capitalize()} ({_metrics(asked)}), over data sets: {'; '.join(parts)}."


def _meaning(found: CollectionAnalysis) -> str:
    return (
        "The verdicts over data sets are about data sets like these "
        f"{len(found.members)}, each as good as any other; that of a single data set is about its own source "
        "(below, and in its report). They rest on each data set’s mean difference and take it as known. "
        "Losses stand in the order of the study and data sets by name, in every table and figure."
    )


def _ranks(found: CollectionAnalysis) -> tuple[Section, ...]:
    ranked = [(asked, asked.ranks) for asked in found.questions if asked.ranks is not None]
    if not ranked:
        return ()
    panels = tuple(_rank_panel(asked, ranks) for asked, ranks in ranked)
    caption = (
        f"Mean rank of each loss over {_number_of_sets(ranked)}, 1 is best. Bars reach half of Nemenyi’s "
        "critical difference to both sides: two losses whose bars do not overlap are told apart at 95 %, all "
        "pairs together. Ranks forget how "
        "large differences are: one within the margin counts like one of ten points."
    )
    words = tuple(
        f"{GROUPS.get(asked.question, asked.question).capitalize()}: "
        f"{counted(len(ranks.datasets), 'data set')}, critical difference "
        f"{number(ranks.critical_difference, 2)}, Friedman’s test of equal ranks p {_p(ranks.p_value)}."
        for asked, ranks in ranked
    )
    return (Section("ranks", "Ranks", (Gallery("ranks", caption, panels), Words(words, points=True))),)


def _number_of_sets(ranked: Sequence[tuple[Across, Ranks]]) -> str:
    """The n of every panel: the data sets where all losses have a difference."""
    sizes = {len(ranks.datasets) for _, ranks in ranked}
    low, high = min(sizes), max(sizes)
    return f"n = {counted(low, 'data set')}" if low == high else f"n = {low} to {high} data sets"


def _p(value: float) -> str:
    shown = p_value(value)
    return shown if shown.startswith("<") else f"= {shown}"


def _rank_panel(asked: Across, ranks: Ranks) -> Panel:
    half, count = ranks.critical_difference / 2, len(ranks.of)
    top, side = 24.0, 14.0
    bottom = top + ROW * count
    scale = Scale(1.0, float(count), side, WIDTH - side)
    names = abbreviated(list(ranks.of), 38)
    body = group(
        text(GROUPS.get(asked.question, asked.question), 0, 14, "title"),
        bottom_axis(scale, top, bottom, count=min(6, count - 1)),
        *(
            marked(
                f"{loss}\nmean rank {number(rank, 2)} on {counted(len(ranks.datasets), 'data set')}\n"
                f"critical difference {number(ranks.critical_difference, 2)}",
                _rank(names[loss], rank, half, scale, top + ROW * place),
            )
            for place, (loss, rank) in enumerate(ranks.of.items())
        ),
        text("◂ better", side, bottom + 33, "axis"),
        text("mean rank", WIDTH - side, bottom + 33, "axis", text_anchor="end"),
    )
    spoken = ", ".join(f"{loss} {number(rank, 2)}" for loss, rank in ranks.of.items())
    return Panel(WIDTH, bottom + 40, body, f"Mean ranks in {_metrics(asked)}: {spoken}")


def _rank(label: str, rank: float, half: float, scale: Scale, top: float) -> Markup:
    level = top + LEVEL
    ends = [min(max(scale(at), scale.start), scale.stop) for at in (rank - half, rank + half)]
    return group(
        row_name(label, top),
        text(number(rank, 2), WIDTH, top + 12, "small", text_anchor="end"),
        line(ends[0], level, ends[1], level, "unadjusted"),
        marker("circle", scale(rank), level, 5, "filled"),
        class_="series-0",
    )


def _by_dataset(found: CollectionAnalysis, asked: Across) -> Table:
    losses = [each.loss for each in asked.compared]
    columns = (Column("data set", numeric=False), Column("n"), *(Column(loss, code=True) for loss in losses))
    rows = tuple(
        (
            Cell(name, order=name),
            _paired(asked, name),
            *(_difference(asked.verdicts.get((name, loss))) for loss in losses),
        )
        for name in found.members
    )
    unit = metric(asked.metrics[0]).difference_unit
    caption = (
        f"{GROUPS.get(asked.question, asked.question).capitalize()}: difference in {_metrics(asked)} from "
        f"{found.baseline}{f', {unit}' if unit else ''}, with each data set’s own verdict: "
        f"{', '.join(f'{mark} {word}' for word, mark in MARKS.items())}. n: paired seeds."
    )
    return Table(f"datasets-{found.questions.index(asked) + 1}", caption, columns, (Body(rows),))


def _paired(asked: Across, name: str) -> Cell:
    """The paired seeds of a data set, a range where losses differ."""
    seeds = [verdict.seeds for (dataset, _), verdict in asked.verdicts.items() if dataset == name]
    if not seeds:
        return Cell("–")
    low, high = min(seeds), max(seeds)
    return Cell(str(low) if low == high else f"{low}–{high}", order=float(low))


def _difference(verdict: Verdict | None) -> Cell:
    if verdict is None or not math.isfinite(verdict.difference):
        return Cell("–")
    digits = metric(verdict.metric).digits
    words = f"{MARKS[verdict.outcome]} {number(verdict.difference, digits, signed=True)}"
    return Cell(words, kind=f"word {verdict.outcome}", order=verdict.difference)


def _studies(found: CollectionAnalysis) -> Table:
    columns = (
        Column("data set", numeric=False),
        Column("rows"),
        Column("classes"),
        Column("seeds"),
        Column("report", numeric=False),
    )
    rows = tuple(
        (
            Cell(name, order=name),
            _count(analysis.data.get("rows", "–")),
            _count(analysis.data.get("classes", "–")),
            _count(str(max((len(loss.seeds) for loss in analysis.losses), default=0))),
            Cell(f"{found.folders[name]}/report.html", link=f"{quote(found.folders[name])}/report.html"),
        )
        for name, analysis in found.members.items()
    )
    return Table("studies", "Each data set has a study and a report of its own.", columns, (Body(rows),))


def _count(words: str) -> Cell:
    digits = words.replace(",", "")
    return Cell(words, order=float(digits) if digits.isdecimal() else None)


def _paragraph(found: CollectionAnalysis) -> str:
    names = listed(list(found.members))
    margins = listed([f"±{plain(asked.margin)} in {_metrics(asked)}" for asked in found.questions])
    return (
        f"We compared the losses with {found.baseline} on {counted(len(found.members), 'data set')} "
        f"({names}), each in a study of its own with paired seeds. Over data sets we judged mean paired "
        "differences by the Bayesian signed-rank test [benavoli2014, benavoli2017] with the margins "
        f"{margins} as regions of practical equivalence, a prior strength of 0.5 at 0, and a probability of "
        "95 % for a verdict; ranks by Friedman’s test with Iman and Davenport’s statistic and Nemenyi’s "
        "critical difference [demsar2006]."
    )


def _bibtex() -> Code:
    text = bibliography.methods(bibliography.COLLECTION_METHODS)
    return Code(text, "bibtex", folded="BibTeX (references.bib)")


def _csv_rows(found: CollectionAnalysis) -> tuple[list[str], list[Sequence[object]]]:
    """Heads, and a row for each data set, question and loss."""
    heads = ["dataset", "question", "metric", "loss", "difference", "low", "high", "outcome", "seeds"]
    rows: list[Sequence[object]] = [
        [
            name,
            asked.question,
            verdict.metric,
            loss,
            verdict.difference,
            *verdict.interval,
            verdict.outcome,
            verdict.seeds,
        ]
        for asked in found.questions
        for (name, loss), verdict in asked.verdicts.items()
    ]
    return heads, rows
