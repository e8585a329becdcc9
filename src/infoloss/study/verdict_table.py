"""The verdicts as a table: for the terminal and the notebook."""

from __future__ import annotations

from html import escape

from infoloss.study.analysis import Analysis
from infoloss.study.inference import Verdict

__all__ = ["VerdictTable"]

_HEADS = {
    "labels": "labels",
    "probabilities": "probabilities",
    "probabilities after temperature scaling": "after temperature scaling",
}


class VerdictTable:
    """A loss a row, a question a column; the headline above, what the intervals are below.

    Example:
        >>> from types import SimpleNamespace
        >>> study = SimpleNamespace(title="Two losses on coins", headline=(), verdicts=(), baseline="mae")
        >>> print(VerdictTable(study))
        Two losses on coins
        (no verdict: there is nothing to compare mae with)
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis

    @property
    def rows(self) -> list[list[str]]:
        """The heads, then a row for each loss."""
        verdicts = self._analysis.verdicts
        asked = list(dict.fromkeys((verdict.question, verdict.metric) for verdict in verdicts))
        given = {(verdict.loss, verdict.question): verdict for verdict in verdicts}
        heads = [f"{_HEADS.get(question, question)} ({_named(metric)})" for question, metric in asked]
        losses = dict.fromkeys(verdict.loss for verdict in verdicts)
        return [
            ["loss", *heads],
            *([loss, *(_cell(given.get((loss, question))) for question, _ in asked)] for loss in losses),
        ]

    @property
    def _explained(self) -> str:
        return (
            f"Differences from {self._analysis.baseline}, with 95 % intervals; verdicts are adjusted for all "
            "of them together (Holm)."
        )

    def __str__(self) -> str:
        title = self._analysis.title
        if not self._analysis.verdicts:
            why = f"(no verdict: there is nothing to compare {self._analysis.baseline} with)"
            return "\n".join([title, *(self._analysis.headline or (why,))])
        rows = self.rows
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "  ".join("─" * width for width in widths))
        return "\n".join(
            [title, "", *(line.rstrip() for line in lines), "", self._explained, *self._analysis.headline]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self._analysis.verdicts:
            return f"<p>{escape(str(self))}</p>"
        heads, *rows = self.rows
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in self._analysis.headline)
        return (
            f"<table><caption>{escape(self._analysis.title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table><p>{escape(self._explained)}</p><ul>{said}</ul>"
        )


def _cell(verdict: Verdict | None) -> str:
    """``"better +0.61 [+0.24, +0.98]"``."""
    if verdict is None:
        return "no run"
    if verdict.identical:
        return "equivalent (identical)"
    low, high = verdict.interval
    outcome = f"{verdict.outcome}, negligible" if verdict.negligible else verdict.outcome
    return f"{outcome} {verdict.difference:+.2g} [{low:+.2g}, {high:+.2g}]"


def _named(metric: str) -> str:
    return "NLL, nats" if metric.startswith("nll") else f"{metric.replace('_', ' ')}, points"
