"""What a report is put together from, whatever form it is written in."""

from __future__ import annotations

from dataclasses import dataclass

from .svg import Panel
from .table import Table


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
    """Titled parts; one without parts says what it would need."""

    key: str
    title: str
    parts: tuple[Part, ...]
    needs: str = ""
