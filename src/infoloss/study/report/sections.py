"""The sections of a report, one function each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from infoloss.data.names import counted

from . import diagrams, figures, methods, tables
from .bibliography import Source, bibtex
from .forest import forest
from .parts import Code, Gallery, Section, Words
from .verdicts import verdict_numbers, verdict_table
from .wording import abbreviated, questions, seed_count

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis, LossResult

MOST_CLASSES = 20
_TRAINED = "finished runs trained by infoloss"
_PREDICTED = "the predictions of finished runs"


def _runs(losses: Iterable[LossResult]) -> str:
    """``n = 20 seeds`` of these losses."""
    return seed_count([len(loss.seeds) for loss in losses])


def scope(analysis: Analysis) -> Section:
    return Section("scope", "What the verdict is about", (Words(methods.scope(analysis), points=True),))


def scores(analysis: Analysis) -> Section:
    return Section("scores", "Scores", (tables.scores(analysis),))


def protocol(analysis: Analysis) -> Section:
    return _pairs("protocol", "Protocol", analysis.protocol)


def environment(analysis: Analysis) -> Section:
    return _pairs("environment", "Environment", analysis.environment)


def _pairs(key: str, title: str, values: Mapping[str, str]) -> Section:
    parts = (tables.pairs(key, values),) if values else ()
    return Section(key, title, parts, needs="a study run by infoloss")


def losses(analysis: Analysis) -> Section:
    return Section("losses", "The losses", (tables.expressions(analysis),))


def rerun(analysis: Analysis) -> Section:
    return Section("rerun", "Run it again", (Code(analysis.command, "sh"),) if analysis.command else ())


def verdicts(analysis: Analysis) -> Section:
    if not analysis.verdicts:
        alone = "One loss alone has nothing to be compared with."
        early = "No verdict yet: no seed is finished for both the baseline and another loss."
        return Section("verdict", "Verdict", (Words((early if len(analysis.losses) > 1 else alone,)),))
    sentences = tuple(verdict.sentence for verdict in analysis.verdicts)
    return Section(
        "verdict",
        "Verdict",
        (
            verdict_table(analysis),
            Words(sentences, points=True, folded="Each verdict in words"),
            verdict_numbers(analysis),
        ),
    )


def differences(analysis: Analysis) -> Section:
    if not analysis.verdicts:
        return Section(
            "differences",
            "Paired differences",
            (),
            needs="a baseline and a second loss with a seed in common",
        )
    panels = tuple(
        forest(
            [verdict for verdict in analysis.verdicts if (verdict.question, verdict.metric) == asked],
            analysis.margins.get(asked[1], math.nan),
        )
        for asked in questions(analysis)
    )
    caption = (
        f"Mean difference from {analysis.baseline}, paired by seed, "
        f"{seed_count([verdict.seeds for verdict in analysis.verdicts])}. Thick: 95 % interval. Thin: "
        "adjusted for all verdicts. Shaded: the margin within which a difference would not matter. "
        "Arrows: beyond the axis. "
        "Right of zero is better in every panel."
    )
    return Section("differences", "Paired differences", (Gallery("forest", caption, panels),))


def calibration(analysis: Analysis) -> Section:
    title = "Accuracy against calibration"
    panel = figures.calibration(analysis.losses)
    if panel is None:
        return Section("calibration", title, (), needs="the accuracy and ECE of finished runs")
    caption = (
        "Means of each loss. Hollow: probabilities as they come. Filled: after temperature scaling, which "
        f"leaves the accuracy as it is. Bars: ± 1 standard error over seeds, {_runs(analysis.losses)}. "
        "Dotted: each loss’s noise floor, the ECE that its confidences would show on as many test rows if "
        "every one of them were right. Exploratory."
    )
    return Section("calibration", title, (Gallery("calibration", caption, (panel,), columns=1),))


def reliability(analysis: Analysis) -> Section:
    names = abbreviated([loss.label for loss in analysis.losses], 28)
    drawn = [(loss, diagrams.reliability(loss, names[loss.label])) for loss in analysis.losses]
    panels = tuple(panel for _, panel in drawn if panel is not None)
    title = "Reliability"
    if not panels:
        return Section("reliability", title, (), needs=_PREDICTED)
    caption = (
        "Accuracy (up) against confidence (across) in bins, pooled over seeds, "
        f"{_runs(loss for loss, panel in drawn if panel)}; the larger the dot, the more "
        "test rows. Hollow, grey: as they come. Filled, blue: after temperature scaling. Shaded alike: where "
        "95 % of one test set’s bins would lie if every confidence were right; bins with less than one row a "
        "test set are left out. ECE and its noise floor are means over seeds. Exploratory."
    )
    return Section("reliability", title, (Gallery("reliability", caption, panels, columns=4),))


def curves(analysis: Analysis) -> Section:
    wanted = (("validation_nll", "validation NLL, nats"), ("validation_accuracy", "validation accuracy, %"))
    panels = tuple(
        panel for key, title in wanted if (panel := figures.curves(analysis.losses, key, title)) is not None
    )
    if not panels:
        return Section("curves", "Learning curves", (), needs=_TRAINED)
    caption = (
        f"Means over the final runs, {_runs(analysis.losses)}. Dots: "
        "mean best epoch, the one whose weights were tested. The first quarter of the epochs may leave the "
        "frame."
    )
    return Section("curves", "Learning curves", (Gallery("curves", caption, panels, columns=2),))


def classes(analysis: Analysis) -> Section:
    title = "Classes"
    size = max(
        (len(loss.per_class_recall) for loss in analysis.losses if loss.per_class_recall is not None),
        default=0,
    )
    size = size or max(
        (len(loss.confusion) for loss in analysis.losses if loss.confusion is not None), default=0
    )
    if not size:
        return Section("classes", title, (), needs=_PREDICTED)
    if size > MOST_CLASSES:
        words = f"{size} classes: recall and confusion by class are shown for up to {MOST_CLASSES}."
        return Section("classes", title, (Words((words,)),))
    names = class_names(analysis, size)
    labels = abbreviated([loss.label for loss in analysis.losses], 40)
    panels = tuple(
        panel
        for loss in analysis.losses
        if (panel := diagrams.confusion(loss, names, labels[loss.label])) is not None
    )
    caption = (
        "Rows: true classes; columns: predicted. Counts summed over seeds, "
        f"{_runs(loss for loss in analysis.losses if loss.confusion is not None)}. "
        "Errors are coloured by their share of the true class, scaled to each matrix’s largest. Exploratory."
    )
    recall = tables.recall(analysis, names)
    folded = f"Confusion matrices of {counted(len(panels), 'loss')}"
    confusions = (Gallery("confusion", caption, panels, folded=folded),) if panels else ()
    return Section("classes", title, ((recall,) if recall else ()) + confusions)


def class_names(analysis: Analysis, size: int) -> Sequence[str]:
    """The classes' names if the data tell them, else their codes."""
    names = [name.strip() for name in analysis.data.get("class names", "").split(",")]
    return names if len(names) == size else [str(code) for code in range(size)]


def cost(analysis: Analysis) -> Section:
    table = tables.cost(analysis)
    return Section("cost", "Cost", (table,) if table else (), needs=_TRAINED)


def tuning(analysis: Analysis) -> Section:
    found = tuple(filter(None, (tables.tuning(analysis), tables.search(analysis))))
    return Section("tuning", "Tuning", found, needs=_TRAINED)


def data(analysis: Analysis) -> Section:
    notes = (Words(analysis.notes, points=True),) if analysis.notes else ()
    return Section("data", "Data", (tables.pairs("data", analysis.data), *notes))


def failures(analysis: Analysis) -> Section:
    table = tables.failures(analysis)
    return Section("failures", "Failures", (table or Words(("No run failed or diverged.",)),))


def method(analysis: Analysis, catalogue: Mapping[str, Source]) -> Section:
    parts = (
        Words((methods.paragraph(analysis, catalogue),)),
        Code(bibtex(analysis, catalogue), "bibtex", folded="BibTeX (references.bib)"),
    )
    return Section("methods", "Methods, for a paper", parts)
