"""The report's content in its order, independent of the form it is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infoloss.data.names import counted

from . import sections
from .bibliography import Source
from .parts import Gallery, Part, Section, Words
from .wording import ALTERED, metric, seed_count

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis


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
    built = [
        sections.verdicts(analysis),
        sections.scope(analysis),
        sections.differences(analysis),
        sections.calibration(analysis),
        sections.reliability(analysis),
        sections.curves(analysis),
        sections.scores(analysis),
        sections.classes(analysis),
        sections.cost(analysis),
        sections.tuning(analysis),
        sections.data(analysis),
        sections.failures(analysis),
        sections.protocol(analysis),
        sections.environment(analysis),
        sections.losses(analysis),
        sections.method(analysis, catalogue),
        sections.rerun(analysis),
    ]
    shown = [section for section in built if section.parts]
    absent = tuple(
        f"{section.title}: needs {section.needs}." for section in built if not section.parts and section.needs
    )
    if absent:
        shown.append(Section("absent", "What is not here", (Words(absent, points=True),)))
    return Document(analysis.title, _facts(analysis), _warnings(analysis), _headline(analysis), tuple(shown))


def _facts(analysis: Analysis) -> tuple[str, ...]:
    data = analysis.data
    sizes = [f"{data[key]} {key}" for key in ("rows", "features", "classes") if key in data]
    seeds = seed_count([len(loss.seeds) for loss in analysis.losses])
    runs = f"{counted(len(analysis.losses), 'loss')}, {seeds}"
    failed = sum(len(loss.failures) for loss in analysis.losses)
    failures = (f"{counted(failed, 'run')} failed or diverged",) if failed else ()
    primary = f"selected by {metric(analysis.primary_metric).name}"
    altered = (f"training rows altered: {data[ALTERED]}",) if ALTERED in data else ()
    looks = ("seeds were added until decided",) if "looks" in analysis.protocol else ()
    return (*sizes, *altered, runs, *looks, f"baseline {analysis.baseline}", primary, *failures)


def _warnings(analysis: Analysis) -> tuple[str, ...]:
    if analysis.complete:
        return ()
    return ("This study is not finished. Every number below may change, the verdicts too.",)


def _headline(analysis: Analysis) -> tuple[str, ...]:
    if analysis.tuned or any("untuned" in sentence.lower() for sentence in analysis.headline):
        return analysis.headline
    return ("untuned: no verdict on rank", *analysis.headline)
