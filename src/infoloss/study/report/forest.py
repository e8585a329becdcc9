"""The forest plot: paired differences with their intervals, over the margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from .svg import Panel, Scale, bottom_axis, group, line, marked, marker, path, rectangle, text
from .wording import GROUPS, Metric, abbreviated, metric, number

if TYPE_CHECKING:
    from infoloss.study.inference import Verdict

WIDTH, ROW, LEVEL = 352.0, 36.0, 26.5
"""Of a panel, of its rows, and where in a row its marks stand."""

_OUTCOME_SHAPES = {"better": "up", "worse": "down", "equivalent": "square", "undecided": "circle"}


def forest(verdicts: Sequence[Verdict], margin: float) -> Panel:
    """Paired differences from the baseline of one question; right of zero is better, whatever the metric."""
    shown = metric(verdicts[0].metric)
    top, side = 40.0, 14.0
    bottom = top + ROW * len(verdicts)
    low, high = _extent(verdicts, margin)
    scale = Scale(low, high, side, WIDTH - side)
    if shown.lower_is_better:
        scale = Scale(low, high, WIDTH - side, side)
    body = group(
        text(GROUPS.get(verdicts[0].question, verdicts[0].question), 0, 14, "title"),
        text(_difference_of(shown), 0, 31, "axis"),
        _margin_band(scale, margin, top, bottom),
        bottom_axis(scale, top, bottom, count=4, signed=True),
        line(scale(0.0), top, scale(0.0), bottom, "zero"),
        *(
            _difference(
                verdict, scale, top + ROW * index, shown, abbreviated([verdict.loss], 38)[verdict.loss]
            )
            for index, verdict in enumerate(verdicts)
        ),
        text("◂ worse", side, bottom + 33, "axis"),
        text("better ▸", WIDTH - side, bottom + 33, "axis", text_anchor="end"),
    )
    spoken = "; ".join(f"{verdict.loss}: {verdict.outcome}" for verdict in verdicts)
    return Panel(WIDTH, bottom + 40, body, f"Paired differences in {shown.name}: {spoken}")


def _difference_of(shown: Metric) -> str:
    unit = f", {shown.difference_unit}" if shown.difference_unit else ""
    return f"difference in {shown.name}{unit}"


def _extent(verdicts: Sequence[Verdict], margin: float) -> tuple[float, float]:
    """The shown range: all intervals, unless one lies so far out that it would flatten the others."""
    ends = np.array([(*verdict.adjusted_interval, verdict.difference) for verdict in verdicts], dtype=float)
    ends = np.where(np.isfinite(ends), ends, ends[:, 2:])  # no interval from one seed
    ends = ends[np.isfinite(ends).all(axis=1)]
    reach = np.abs(ends).max(axis=1) if len(ends) else np.zeros(1)
    band = 1.3 * margin if math.isfinite(margin) else 0.0
    limit = max(5.0 * float(np.median(reach)), 3.0 * band)
    near = ends[reach <= limit] if limit > 0 else ends
    low = min(-band, float(near.min()) if near.size else 0.0)
    high = max(band, float(near.max()) if near.size else 0.0)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _margin_band(scale: Scale, margin: float, top: float, bottom: float) -> Markup:
    if not math.isfinite(margin):
        return Markup("")
    ends = sorted((scale(-margin), scale(margin)))
    return rectangle(ends[0], top, ends[1] - ends[0], bottom - top, "band")


def _difference(verdict: Verdict, scale: Scale, top: float, shown: Metric, label: str) -> Markup:
    """One row: the label above, the adjusted interval thin, the 95 % interval thick, the outcome's mark."""
    said = verdict.sentence
    name = row_name(label, top)
    level = top + LEVEL
    mark = text(verdict.outcome, WIDTH, top + 12, "outcome", text_anchor="end")
    if not math.isfinite(verdict.difference):
        none = text("no difference", 0, level + 4, "small")
        return marked(said, name, mark, none, class_=verdict.outcome)
    left, right = sorted((scale.start, scale.stop))
    at = scale(verdict.difference)
    if not left <= at <= right:
        arrow = _beyond(verdict.difference, at, (left, right), level, shown)
        return marked(said, name, mark, arrow, class_=verdict.outcome)
    return marked(
        said,
        name,
        mark,
        _clipped(verdict.adjusted_interval, scale, level, "adjusted"),
        _clipped(verdict.interval, scale, level, "unadjusted"),
        marker(
            _OUTCOME_SHAPES[verdict.outcome],
            at,
            level,
            5,
            "hollow" if verdict.outcome == "undecided" else "filled",
        ),
        class_=verdict.outcome,
    )


def row_name(label: str, top: float) -> Markup:
    """The name of a row, on clean paper above the row's marks: words cover no line that is read."""
    return group(
        rectangle(0, top, WIDTH, ROW, "hit"),
        rectangle(0, top, WIDTH, 17, "paper"),
        text(label, 0, top + 12, "label"),
    )


def _clipped(bounds: tuple[float, float], scale: Scale, level: float, class_: str) -> Markup:
    if not all(map(math.isfinite, bounds)):
        return Markup("")
    left, right = sorted((scale.start, scale.stop))
    x1, x2 = (min(max(at, left), right) for at in sorted(map(scale, bounds)))
    return line(x1, level, x2, level, class_)


def _beyond(value: float, at: float, ends: tuple[float, float], level: float, shown: Metric) -> Markup:
    """An arrow at the edge with the number, for a difference outside the shown range."""
    inward, tip = (1.0, ends[0]) if at < ends[0] else (-1.0, ends[1])
    words = number(value, shown.digits, signed=True)
    return group(
        line(tip, level, tip + inward * 16, level, "arrow"),
        path([(tip + inward * 5, level - 4), (tip, level), (tip + inward * 5, level + 4)], "arrow curve"),
        text(words, tip + inward * 22, level + 4, "small", text_anchor="start" if inward > 0 else "end"),
    )
