"""The document as one HTML file, and as Markdown."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from .document import Document
from .parts import Code, Gallery, Part, Words
from .svg import sheet
from .table import Table, markdown, markdown_text

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def asset(name: str) -> str:
    """The text of a file beside the templates."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def html(report: Document) -> str:
    """One file that fetches nothing: style, figures, the sorting of tables and what marks say are inside."""
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            styles=[asset(name) for name in ("colours.css", "page.css", "figures.css")],
            scripts=[asset(name) for name in ("sort.js", "tips.js", "more.js", "print.js")],
        )
    )


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("infoloss.study.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    environment.filters["unbroken"] = unbroken
    return environment


def breakable(expression: str) -> Markup:
    """An expression or a name that may wrap after its joints, so that no word is cut in the middle.

    >>> print(breakable("mix_ent(w1=1)<"))
    mix_<wbr>ent(<wbr>w1=1)&lt;
    """
    return Markup(re.sub(r"([_(,+*/])", r"\1<wbr>", str(escape(expression))))


def unbroken(words: str) -> str:
    """Words whose units never start a line, and whose marks never end one.

    >>> unbroken("a 95 % interval of n = 3 seeds")
    'a 95\xa0% interval of n\xa0=\xa03 seeds'
    """
    return re.sub(r"(?<=\d) (?=%)|(?<=[▲▼≈○]) |(?<=\bn) (?== \d)|(?<=\bn =) (?=\d)", "\u00a0", words)


def figure_files(report: Document) -> dict[str, str]:
    """SVG by file name, one a gallery, its panels on one sheet."""
    style = asset("colours.css").split("@media", 1)[0] + asset("figures.css")
    return {f"{part.key}.svg": sheet(part.panels, part.columns).alone(style) for part in report.galleries}


def markdown_page(report: Document) -> str:
    """The same content for a terminal, a pull request or a notebook."""
    blocks = [f"# {markdown_text(report.title)}", markdown_text(" · ".join(report.facts))]
    blocks += [f"> **Note.** {markdown_text(warning)}" for warning in report.warnings]
    blocks += ["\n".join(f"- {markdown_text(sentence)}" for sentence in report.headline)]
    for section in report.sections:
        blocks.append(f"## {section.title}")
        blocks += [_markdown(part) for part in section.parts]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def _markdown(part: Part) -> str:
    match part:
        case Table():
            return markdown(part)
        case Gallery():
            return f"![{markdown_text(part.key)}](figures/{part.key}.svg)\n\n{markdown_text(part.caption)}"
        case Words(lines=lines, points=True):
            return "\n".join(f"- {markdown_text(line)}" for line in lines)
        case Words(lines=lines):
            return "\n\n".join(map(markdown_text, lines))
        case Code(text=text, language=language):
            fence = "`" * (3 if "```" not in text else 5)
            return f"{fence}{language}\n{text.strip()}\n{fence}"
