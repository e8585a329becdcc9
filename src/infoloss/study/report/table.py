"""One table, three forms: the same cells as HTML (by template), Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Layout = Literal["plain", "cards", "pairs"]


@dataclass(frozen=True)
class Cell:
    """What is read: a main text, smaller details under it, and the colour that repeats its meaning.

    `order` is what the column is sorted by; `heat` in 0 … 1 tints the cell; `link` is a page beside
    this one.
    """

    text: str
    details: tuple[str, ...] = ()
    kind: str = ""
    order: float | str | None = None
    heat: float | None = None
    code: bool = False
    link: str = ""

    @property
    def whole(self) -> str:
        """Text and details in one line, where there is only one."""
        return ", ".join(part for part in (self.text, *self.details) if part)

    @property
    def key(self) -> str | None:
        """The sort key as an attribute; nan sorts as if it were missing."""
        if isinstance(self.order, float) and math.isnan(self.order):
            return None
        return None if self.order is None else str(self.order)


@dataclass(frozen=True)
class Column:
    """A head, a smaller line under it, and the group it stands in with its neighbours.

    `short` names the column where each row is a card of its own; the head of a `code` column is an
    expression.
    """

    head: str
    note: str = ""
    group: str = ""
    short: str = ""
    numeric: bool = True
    code: bool = False

    @property
    def whole(self) -> str:
        """The head where groups and notes have no line of their own."""
        group = f"{self.head} {self.group}" if self.group and self.group not in self.head else self.head
        return f"{group} ({self.note})" if self.note else group


@dataclass(frozen=True)
class Body:
    """Rows under a common heading ("" for none)."""

    rows: tuple[tuple[Cell, ...], ...]
    heading: str = ""


@dataclass(frozen=True)
class Table:
    """A caption that names the n, columns, and bodies of rows."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    bodies: tuple[Body, ...]
    layout: Layout = "plain"
    folded: str = ""
    kind: str = "table"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns of the same group, with how many they are; empty where no column has one."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(group for group, _ in spans) else []


def code(text: str) -> Cell:
    return Cell(text, code=True, order=text)


def markdown(table: Table) -> str:
    """A GitHub-flavoured table with its caption above."""
    heads = [(markdown_code if column.code else markdown_text)(column.whole) for column in table.columns]
    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [f"{markdown_text(table.caption)}\n" if table.caption else "", _row(heads), _row(rules)]
    for body in table.bodies:
        if body.heading:
            lines.append(_row([f"*{markdown_text(body.heading)}*", *[""] * (len(heads) - 1)]))
        lines += [_row([_markdown_cell(cell) for cell in row]) for row in body.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    if not cell.code:
        return markdown_text(cell.whole)
    details = f", {markdown_text(', '.join(cell.details))}" if cell.details else ""
    return markdown_code(cell.text) + details


def markdown_text(words: str) -> str:
    """Text that Markdown and its HTML leave as it is, on one line.

    >>> print(markdown_text("a|b <i> *c* _d_"))
    a\\|b &lt;i&gt; \\*c\\* \\_d\\_
    """
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", words).split())


def markdown_code(words: str) -> str:
    """A code span that may stand in a table, its fence longer than any run of backticks inside."""
    words = " ".join(words.split())
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence, room = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{room}{words}{room}{fence}".replace("|", "\\|")


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "–": "--",
    "’": "'",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "∈": r"$\in$",
    "Σ": r"$\Sigma$",
    "‖": r"$\Vert$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "○": r"$\circ$",
    "✓": r"$\checkmark$",
} | {
    greek: rf"$\{name}$"
    for greek, name in zip(
        "αβγδεζηθκλμνξπρστφχψωΔΦΩ",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "varepsilon",
            "zeta",
            "eta",
            "theta",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "tau",
            "varphi",
            "chi",
            "psi",
            "omega",
            "Delta",
            "Phi",
            "Omega",
        ],
        strict=True,
    )
}


def latex_text(words: str) -> str:
    r"""Text with every character that LaTeX would take for a command, or lacks, replaced.

    >>> print(latex_text("0.5*z_loss & 5 % < ±1"))
    0.5*z\_loss \& 5 \% \textless{} $\pm$1
    """
    return " ".join("".join(_LATEX.get(letter, letter) for letter in words).split())


def latex(table: Table) -> str:
    """A booktabs table; small, since most have many columns."""
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    heads = " & ".join(_latex_cell(Cell(column.head, code=column.code)) for column in table.columns) + r" \\"
    rows = []
    for place, body in enumerate(table.bodies):
        if place:
            rows.append(r"\midrule")
        if body.heading:
            rows.append(
                rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{latex_text(body.heading)}}}}} \\"
            )
        rows += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in body.rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\footnotesize",
            rf"\caption{{{latex_text(table.caption)}}}",
            rf"\label{{tab:{table.key}}}",
            rf"\begin{{tabular}}{{@{{}}{spec}@{{}}}}",
            r"\toprule",
            *_latex_groups(table),
            heads,
            *_latex_notes(table),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_groups(table: Table) -> list[str]:
    spans = table.groups
    if not spans:
        return []
    cells = [rf"\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}" for group, count in spans]
    rules, start = [], 1
    for group, count in spans:
        if group:
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _latex_notes(table: Table) -> list[str]:
    if not any(column.note for column in table.columns):
        return []
    return [" & ".join(rf"\emph{{{latex_text(column.note)}}}" for column in table.columns) + r" \\"]


def _latex_cell(cell: Cell) -> str:
    words, details = latex_text(cell.text), latex_text(" ".join(filter(None, cell.details)))
    return " ".join(filter(None, (rf"\texttt{{{words}}}" if cell.code else words, details)))
