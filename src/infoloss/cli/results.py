"""What a study ends with on the terminal: findings, verdicts, where the report is, the loss to use."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis, LossResult
    from infoloss.study.report.table import Cell, Table

__all__ = ["best", "print_table", "print_verdicts", "recipe"]

STYLES = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow"}
WIDTH_OF_FILES = 160
"""Where nothing says how wide a line may be, cells are rather left in one piece."""


def print_verdicts(analysis: Analysis, report: Path | None = None, *, stream: TextIO | None = None) -> None:
    """Prints the headline, the table of verdicts and the path of the report."""
    from infoloss.study.report.verdicts import verdict_table

    stream = stream or sys.stdout
    print_lines(f"\n{analysis.title}\n", stream)
    if analysis.verdicts:
        print_verdict_table(verdict_table(analysis), stream)
    for sentence in analysis.headline:
        print_lines(f"- {sentence}", stream)
    if report is not None:
        print(f"\nReport: {report}", file=stream)


def print_verdict_table(table: Table, stream: TextIO) -> None:
    """The report's own table, with its caption below."""
    heads = [f"{column.short or column.head}\n{column.note}".strip() for column in table.columns]
    rows = [[_styled(cell) for cell in row] for body in table.bodies for row in body.rows]
    print_table(heads, rows, stream)
    print_lines(f"{table.caption}\n", stream)


def print_lines(text: str, stream: TextIO) -> None:
    """Words, wrapped only where a terminal has a width."""
    if stream.isatty():
        columns = shutil.get_terminal_size().columns
        text = "\n".join(textwrap.fill(line, columns, subsequent_indent="  ") for line in text.split("\n"))
    print(text, file=stream)


def print_table(heads: list[str], rows: list[list[Any]], stream: TextIO | None = None) -> None:
    """A table without colours or a terminal's width where the stream is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    width = None if stream.isatty() else max(WIDTH_OF_FILES, shutil.get_terminal_size().columns)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(Text(head), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console(file=stream, width=width, highlight=False, emoji=False).print(table)


def _styled(cell: Cell) -> Any:
    from rich.text import Text

    outcome = Text(cell.text, style=STYLES.get(cell.kind, ""))
    return Text("\n").join([outcome, *map(Text, cell.details)])


def best(analysis: Analysis) -> LossResult:
    """The loss with the largest gain in labels among those judged better, or the baseline.

    Unfinished and untuned studies have no verdict on rank: the baseline.
    """
    better = {
        verdict.loss: verdict.difference
        for verdict in analysis.verdicts
        if verdict.question == "labels" and verdict.outcome == "better"
    }
    baseline = next(loss for loss in analysis.losses if loss.baseline)
    if not (better and analysis.tuned and analysis.complete):
        return baseline
    chosen = max(better, key=lambda label: abs(better[label]))
    return next(loss for loss in analysis.losses if loss.label == chosen)


def recipe(analysis: Analysis) -> str:
    """Why a loss is the one to use, and two lines of Python that use it."""
    from infoloss import parse
    from infoloss.study.own_losses import is_own

    loss = best(analysis)
    if loss.baseline:
        why = f"No loss was shown to predict better labels than {loss.label}"
        if not (analysis.complete and analysis.tuned):
            why = "No verdict yet" if not analysis.complete else "Untuned, so no verdict on rank"
        why = f"{why}; the baseline stays:"
    else:
        why = f"{loss.label} predicts better labels than {analysis.baseline}:"
    if is_own(loss.expression):
        module, _, function = loss.expression.partition("#")[0].partition(":")
        return f"{why}\n\n    from {module} import {function}  # {function}(logits, target)"
    bound, note = "", "  # loss(logits, target)"
    if names := sorted(parse(loss.expression).unbound):
        bound = f".bind({', '.join(f'{name}={name}' for name in names)})"
        note = f"  # {' and '.join(names)} of the classes in your training labels; loss(logits, target)"
    return f'{why}\n\n    import infoloss as il\n    loss = il.parse("{_shortest(loss)}"){bound}{note}'


def _shortest(loss: LossResult) -> str:
    """The loss as the user wrote it, where that is an expression, or with every parameter."""
    from infoloss import parse

    try:
        same = str(parse(loss.label)) == loss.expression
    except ValueError:
        same = False
    return loss.label if same else loss.expression
