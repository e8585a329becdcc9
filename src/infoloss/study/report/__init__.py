"""The report of a study: one offline page, and the same numbers as Markdown, CSV, LaTeX and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis

__all__ = ["render"]


def render(analysis: Analysis, folder: Path) -> Path:
    """Write an analysis as report.html, report.md, CSV, LaTeX, SVG figures and BibTeX.

    Nothing is computed here that the analysis does not hold, and nothing is read from disk or network.

    Args:
        analysis: a study's results, complete or not.
        folder: where the files go; made if missing, files of an earlier report are replaced.

    Returns:
        The path of report.html.

    Raises:
        OSError: the folder cannot be written.
    """
    from infoloss import catalogue

    from .document import document
    from .files import written

    return written(analysis, document(analysis, catalogue), Path(folder), catalogue)
