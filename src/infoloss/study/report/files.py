"""The files beside the page: CSV, LaTeX, SVG, BibTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from . import tables
from .bibliography import COLLECTION_METHODS, Source, bibtex, methods
from .document import Document
from .page import figure_files, html, markdown_page
from .table import Table, latex
from .verdicts import paper_verdicts

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis

Rows = tuple[list[str], list[Sequence[object]]]

_PREAMBLE = "% \\usepackage[T1]{fontenc}\n% \\usepackage{booktabs,amssymb}\n\n"


def written(analysis: Analysis, report: Document, folder: Path, catalogue: Mapping[str, Source]) -> Path:
    """Write every file of the report; the page comes last, so that it never points at what is missing."""
    contents = {
        "report.md": markdown_page(report),
        "scores.csv": scores_csv(analysis),
        "verdicts.csv": verdicts_csv(analysis),
        "tables.tex": tables_tex(analysis),
        "references.bib": bibtex(analysis, catalogue),
        **{f"figures/{name}": drawing for name, drawing in figure_files(report).items()},
        "report.html": html(report),
    }
    if analysis.references:
        contents = {"references.csv": references_csv(analysis), **contents}
    _write(contents, folder)
    return folder / "report.html"


def collection_written(report: Document, summary: Table, rows: Rows, folder: Path) -> Path:
    """Write the report over several data sets: page, Markdown, CSV, LaTeX, figures, BibTeX."""
    heads, lines = rows
    contents = {
        "report.md": markdown_page(report),
        "datasets.csv": _csv(heads, [[_value(value) for value in line] for line in lines]),
        "tables.tex": _PREAMBLE + latex(summary),
        "references.bib": methods(COLLECTION_METHODS),
        **{f"figures/{name}": drawing for name, drawing in figure_files(report).items()},
        "report.html": html(report),
    }
    _write(contents, folder)
    return folder / "report.html"


def _write(contents: Mapping[str, str], folder: Path) -> None:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def scores_csv(analysis: Analysis) -> str:
    """One row per loss × seed, every metric unrounded; `infoloss verdict` reads it back."""
    metrics = list(dict.fromkeys(key for loss in analysis.losses for key in loss.scores))
    rows = [
        [
            loss.label,
            seed,
            *(_value(loss.scores[key][place]) if key in loss.scores else "" for key in metrics),
        ]
        for loss in analysis.losses
        for place, seed in enumerate(loss.seeds)
    ]
    return _csv(["loss", "seed", *metrics], rows)


def references_csv(analysis: Analysis) -> str:
    """The reference lines, one row per line × repetition."""
    metrics = list(dict.fromkeys(key for line in analysis.references for key in line.scores))
    rows = [
        [
            line.name,
            place,
            *(_value(line.scores[key][place]) if key in line.scores else "" for key in metrics),
        ]
        for line in analysis.references
        for place in range(max(map(len, line.scores.values()), default=0))
    ]
    return _csv(["reference", "repetition", *metrics], rows)


def verdicts_csv(analysis: Analysis) -> str:
    """One row per verdict with all its fields; intervals as two columns, the margin beside them."""
    from infoloss.study.inference import Verdict

    intervals = ("interval", "adjusted_interval", "equivalence_interval")
    names = [field.name for field in fields(Verdict)]
    heads = [
        head for name in names for head in ((f"{name}_low", f"{name}_high") if name in intervals else (name,))
    ]
    rows = []
    for verdict in analysis.verdicts:
        row: list[object] = []
        for name in names:
            value = getattr(verdict, name)
            row += map(_value, value) if name in intervals else [_value(value)]
        rows.append([*row, _value(analysis.margins.get(verdict.metric))])
    return _csv([*heads, "margin"], rows)


def _value(value: object) -> object:
    """Numbers as the shortest text that gives the same number back; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool | int | str):
        return value
    return repr(float(value))  # type: ignore[arg-type]  # numpy's scalars


def _csv(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()


def tables_tex(analysis: Analysis) -> str:
    """The tables a paper needs, for booktabs."""
    wanted = [
        paper_verdicts(analysis),
        *tables.paper_scores(analysis),
        tables.cost(analysis),
        tables.tuning(analysis),
        tables.search(analysis),
    ]
    return _PREAMBLE + "\n".join(latex(table) for table in wanted if table is not None)
