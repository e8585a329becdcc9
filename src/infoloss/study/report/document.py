"""The report's content in its order, independent of the form it is written in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import diagrams, figures, methods, tables
from .bibliography import Source, bibtex
from .svg import Panel
from .table import Table
from .wording import abbreviated, counted, metric, seed_count

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis, LossResult

MOST_CLASSES = 20
TRAINED = "finished runs trained by infoloss"
PREDICTED = "the predictions of finished runs"


@dataclass(frozen=True)
class Gallery:
    """Panels shown side by side under one caption; one file in the folder of figures."""

    key: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int = 3
    folded: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class Words:
    """Paragraphs, or the points of a list."""

    lines: tuple[str, ...]
    points: bool = False
    folded: str = ""
    kind: str = "words"


@dataclass(frozen=True)
class Code:
    """Text to copy as it stands."""

    text: str
    language: str = ""
    folded: str = ""
    kind: str = "code"


Part = Table | Gallery | Words | Code


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """Everything a reader gets, verdicts first."""

    title: str
    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    headline: tuple[str, ...]
    sections: tuple[Section, ...] = field(repr=False)

    @property
    def parts(self) -> list[Part]:
        return [part for section in self.sections for part in section.parts]

    @property
    def galleries(self) -> list[Gallery]:
        return [part for part in self.parts if isinstance(part, Gallery)]


def document(analysis: Analysis, catalogue: Mapping[str, Source]) -> Document:
    """The whole report of an analysis."""
    sections = (
        _verdicts(analysis),
        Section("scope", "What the verdict is about", (Words((methods.scope(analysis),)),)),
        _differences(analysis),
        _calibration(analysis),
        _reliability(analysis),
        _curves(analysis),
        Section("scores", "Scores", (tables.scores(analysis),)),
        _classes(analysis),
        _cost(analysis),
        _tuning(analysis),
        _data(analysis),
        _failures(analysis),
        Section("protocol", "Protocol", (tables.pairs("protocol", analysis.protocol),)),
        _environment(analysis),
        Section("losses", "The losses", (tables.expressions(analysis),)),
        _methods(analysis, catalogue),
        Section("rerun", "Run it again", (Code(analysis.command, "sh"),)),
    )
    return Document(analysis.title, _facts(analysis), _warnings(analysis), _headline(analysis), sections)


def _facts(analysis: Analysis) -> tuple[str, ...]:
    data = analysis.data
    sizes = [f"{data[key]} {key}" for key in ("rows", "features", "classes") if key in data]
    runs = (
        f"{counted(len(analysis.losses), 'loss')}, {seed_count([_seeds(loss) for loss in analysis.losses])}"
    )
    failed = sum(len(loss.failures) for loss in analysis.losses)
    failures = (f"{counted(failed, 'run')} failed or diverged",) if failed else ()
    primary = f"selected by {metric(analysis.primary_metric).name}"
    return (*sizes, runs, f"baseline {analysis.baseline}", primary, *failures)


def _seeds(loss: LossResult) -> int:
    return max((len(values) for values in loss.scores.values()), default=0)


def _warnings(analysis: Analysis) -> tuple[str, ...]:
    if analysis.complete:
        return ()
    return ("This study is not finished. Every number below may change, the verdicts too.",)


def _headline(analysis: Analysis) -> tuple[str, ...]:
    if analysis.tuned or any("untuned" in sentence.lower() for sentence in analysis.headline):
        return analysis.headline
    return ("untuned: no verdict on rank", *analysis.headline)


def _verdicts(analysis: Analysis) -> Section:
    if not analysis.verdicts:
        alone = "One loss alone has nothing to be compared with."
        early = "No verdict yet: no seed is finished for both the baseline and another loss."
        return Section("verdict", "Verdict", (Words((early if len(analysis.losses) > 1 else alone,)),))
    sentences = tuple(verdict.sentence for verdict in analysis.verdicts)
    return Section(
        "verdict",
        "Verdict",
        (
            tables.verdicts(analysis),
            Words(sentences, points=True, folded="Each verdict in words"),
            tables.verdict_numbers(analysis),
        ),
    )


def _differences(analysis: Analysis) -> Section:
    if not analysis.verdicts:
        return Section(
            "differences",
            "Paired differences",
            (_missing("paired differences", "a baseline and a second loss with a seed in common"),),
        )
    panels = tuple(
        figures.forest(
            [verdict for verdict in analysis.verdicts if (verdict.question, verdict.metric) == asked],
            analysis.margins.get(asked[1], math.nan),
        )
        for asked in tables.questions(analysis)
    )
    caption = (
        f"Mean difference from {analysis.baseline}, paired by seed, "
        f"{seed_count([verdict.seeds for verdict in analysis.verdicts])}. Thick: 95 % interval. Thin: "
        "adjusted for all verdicts. Shaded: the margin within which a difference would not matter. "
        "Right of zero is better in every panel."
    )
    return Section("differences", "Paired differences", (Gallery("forest", caption, panels),))


def _missing(what: str, needs: str) -> Words:
    return Words((f"No {what}: that takes {needs}.",))


def _calibration(analysis: Analysis) -> Section:
    title = "Accuracy against calibration"
    panel = figures.calibration(analysis.losses)
    if panel is None:
        return Section(
            "calibration", title, (_missing("calibration figure", "the accuracy and ECE of finished runs"),)
        )
    caption = (
        "Hollow: probabilities as they come. Filled: after temperature scaling, which leaves the accuracy "
        f"as it is. Bars: ± 1 standard error over seeds, {seed_count(list(map(_seeds, analysis.losses)))}. "
        "Dotted: each loss’s noise floor, the ECE that its confidences would show on as many test rows if "
        "every one of them were right. Exploratory."
    )
    return Section("calibration", title, (Gallery("calibration", caption, (panel,), columns=1),))


def _reliability(analysis: Analysis) -> Section:
    names = abbreviated([loss.label for loss in analysis.losses], 28)
    drawn = [(loss, diagrams.reliability(loss, names[loss.label])) for loss in analysis.losses]
    panels = tuple(panel for _, panel in drawn if panel is not None)
    title = "Reliability"
    if not panels:
        return Section("reliability", title, (_missing("reliability diagrams", PREDICTED),))
    caption = (
        "Accuracy (up) against confidence (across) in bins, pooled over seeds, "
        f"{seed_count([len(loss.seeds) for loss, panel in drawn if panel])}; the larger the dot, the more "
        "test rows. Hollow, grey: as they come. Filled, blue: after temperature scaling. Shaded alike: where "
        "95 % of one test set’s bins would lie if every confidence were right; bins with less than one row a "
        "test set are left out. ECE and its noise floor are means over seeds. Exploratory."
    )
    return Section("reliability", title, (Gallery("reliability", caption, panels, columns=4),))


def _curves(analysis: Analysis) -> Section:
    wanted = (("validation_nll", "validation NLL, nats"), ("validation_accuracy", "validation accuracy, %"))
    panels = tuple(
        panel for key, title in wanted if (panel := figures.curves(analysis.losses, key, title)) is not None
    )
    if not panels:
        return Section("curves", "Learning curves", (_missing("learning curves", TRAINED),))
    caption = (
        f"Means over the final runs, {seed_count([len(loss.seeds) for loss in analysis.losses])}. Dots: "
        "mean best epoch, the one whose weights were tested. The first quarter of the epochs may leave the "
        "frame."
    )
    return Section("curves", "Learning curves", (Gallery("curves", caption, panels, columns=2),))


def _classes(analysis: Analysis) -> Section:
    title = "Classes"
    size = max(
        (len(loss.per_class_recall) for loss in analysis.losses if loss.per_class_recall is not None),
        default=0,
    )
    size = size or max(
        (len(loss.confusion) for loss in analysis.losses if loss.confusion is not None), default=0
    )
    if not size:
        return Section("classes", title, (_missing("recall and confusion by class", PREDICTED),))
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
        f"{seed_count([len(loss.seeds) for loss in analysis.losses if loss.confusion is not None])}. "
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


def _cost(analysis: Analysis) -> Section:
    table = tables.cost(analysis)
    return Section("cost", "Cost", (table or _missing("costs", TRAINED),))


def _tuning(analysis: Analysis) -> Section:
    table = tables.tuning(analysis)
    return Section("tuning", "Tuning", (table or _missing("tuning table", TRAINED),))


def _data(analysis: Analysis) -> Section:
    notes = (Words(analysis.notes, points=True),) if analysis.notes else ()
    return Section("data", "Data", (tables.pairs("data", analysis.data), *notes))


def _failures(analysis: Analysis) -> Section:
    table = tables.failures(analysis)
    return Section("failures", "Failures", (table or Words(("No run failed or diverged.",)),))


def _environment(analysis: Analysis) -> Section:
    table = tables.pairs("environment", analysis.environment)
    return Section("environment", "Environment", (table,))


def _methods(analysis: Analysis, catalogue: Mapping[str, Source]) -> Section:
    parts = (
        Words((methods.paragraph(analysis, catalogue),)),
        Code(bibtex(analysis, catalogue), "bibtex", folded="BibTeX (references.bib)"),
    )
    return Section("methods", "Methods, for a paper", parts)
