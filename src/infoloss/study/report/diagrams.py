"""The figures of one loss each: reliability diagrams and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from .svg import Panel, Scale, group, line, marked, marker, path, rectangle, text, text_width
from .wording import abbreviated, number

if TYPE_CHECKING:
    from infoloss.evaluation import Reliability
    from infoloss.study.analysis import LossResult


_WHEN = {"before": "as they come", "after": "after temperature scaling"}


def reliability(loss: LossResult, label: str) -> Panel | None:
    """Accuracy against confidence, before and after temperature scaling, over what noise alone would give."""
    series = [
        (bins, class_, mark)
        for bins, class_, mark in (
            (loss.reliability, "before", "hollow"),
            (loss.reliability_scaled, "after", "filled"),
        )
        if bins is not None
    ]
    if not series:
        return None
    width, side, left, top = 236.0, 186.0, 40.0, 24.0
    across, up = Scale(0.0, 1.0, left, left + side), Scale(0.0, 1.0, top + side, top)
    repeats = max(len(loss.seeds), 1)
    body = group(
        text(label, 0, 13, "title"),
        *(_noise(_filled(bins, repeats), repeats, across, up, class_) for bins, class_, _ in series),
        line(across(0), up(0), across(1), up(1), "diagonal"),
        rectangle(left, top, side, side, "frame"),
        *(text(f"{at:g}", across(at), top + side + 13, text_anchor="middle") for at in (0.0, 0.5, 1.0)),
        *(text(f"{at:g}", left - 5, up(at) + 4, text_anchor="end") for at in (0.0, 0.5, 1.0)),
        *(_bins(_filled(bins, repeats), across, up, class_, mark) for bins, class_, mark in series),
        text("confidence", across(0.5), top + side + 27, "axis", text_anchor="middle"),
        _upward("accuracy", left - 29, up(0.5)),
        *_errors(loss, left, top + side + 48),
    )
    return Panel(width, top + side + 72, body, f"Reliability diagram of {loss.label}. {_spoken(loss)}")


def _upward(words: str, x: float, y: float) -> Markup:
    """The name of an upright axis."""
    return text(words, x, y, "axis", text_anchor="middle", transform=f"rotate(-90 {x:.1f} {y:.1f})")


def _filled(bins: Reliability, repeats: int) -> list[tuple[float, float, int]]:
    """Confidence, accuracy and count of the bins that hold at least one row a test set, by confidence."""
    rows = zip(bins.confidence, bins.accuracy, bins.count, strict=True)
    kept = [(float(confidence), float(accuracy), int(n)) for confidence, accuracy, n in rows if n >= repeats]
    return sorted(kept)


def _bins(
    points: Sequence[tuple[float, float, int]], across: Scale, up: Scale, class_: str, mark: str
) -> Markup:
    """A point a bin, its area the share of examples in it."""
    largest = max((count for *_, count in points), default=1)
    placed = [(across(confidence), up(accuracy), count) for confidence, accuracy, count in points]
    return group(
        path([(x, y) for x, y, _ in placed], "leader") if placed else Markup(""),
        *(
            marked(
                f"{_WHEN[class_]}\nconfidence {number(confidence, 3)}, accuracy {number(accuracy, 3)}\n"
                f"{count} test predictions",
                marker("circle", x, y, 1.6 + 4.4 * math.sqrt(count / largest), mark),
                marker("circle", x, y, 8, "hit"),
            )
            for (x, y, _), (confidence, accuracy, count) in zip(placed, points, strict=True)
        ),
        class_=class_,
    )


def _noise(
    points: Sequence[tuple[float, float, int]], repeats: int, across: Scale, up: Scale, class_: str
) -> Markup:
    """Where 95 % of one test set's bins would lie if every confidence were right (binomial)."""
    bands = []
    for confidence, _, count in points:
        half = 1.96 * math.sqrt(max(confidence * (1 - confidence), 0.0) * repeats / count)
        bands.append((across(confidence), up(min(confidence + half, 1.0)), up(max(confidence - half, 0.0))))
    if len(bands) < 2:
        return Markup("")
    outline = [(x, high) for x, high, _ in bands] + [(x, low) for x, _, low in reversed(bands)]
    return path(outline, f"noise noise-{class_}")


def _errors(loss: LossResult, left: float, y: float) -> list[Markup]:
    floor = f", noise floor {_percent(loss, 'ece_noise_floor')}" if "ece_noise_floor" in loss.scores else ""
    lines = (("ece", "before", "hollow", floor), ("ece_scaled", "after", "filled", " after scaling"))
    return [
        group(
            marker("circle", left + 4, y - 4 + 17 * place, 3.6, mark),
            text(f"ECE {_percent(loss, key)}{suffix}", left + 13, y + 17 * place, "small"),
            class_=class_,
        )
        for place, (key, class_, mark, suffix) in enumerate(lines)
        if key in loss.scores
    ]


def _percent(loss: LossResult, key: str) -> str:
    values = loss.scores[key]
    return (
        f"{number(float(values[np.isfinite(values)].mean()) * 100, 1)} %"
        if np.isfinite(values).any()
        else "–"
    )


def _spoken(loss: LossResult) -> str:
    names = {"ece": "ECE", "ece_scaled": "after temperature scaling", "ece_noise_floor": "noise floor"}
    return ", ".join(f"{name} {_percent(loss, key)}" for key, name in names.items() if key in loss.scores)


def confusion(loss: LossResult, classes: Sequence[str], label: str) -> Panel | None:
    """Rows are true classes; the diagonal is grey, errors are coloured by their share of the row."""
    if loss.confusion is None:
        return None
    counts = np.asarray(loss.confusion, dtype=float)  # (C, C)
    size = len(counts)
    cell = min(30.0, 300.0 / size)
    names = list(abbreviated(list(classes), 9).values())
    left, top = 26.0 + 6.2 * max(map(len, names)), 42.0 + 6.2 * max(map(len, names))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    worst = max(float((share - np.diag(np.diag(share))).max()), 1e-9)
    cells = [
        marked(
            f"true {classes[i]}, predicted {classes[j]}\n{counts[i, j]:.0f} of {counts[i].sum():.0f}, "
            f"{share[i, j] * 100:.1f} % of the true class",
            *_confusion_cell(
                counts[i, j], share[i, j], worst, i == j, (left + cell * j, top + cell * i, cell)
            ),
        )
        for i in range(size)
        for j in range(size)
        if counts[i, j] > 0
    ]
    body = group(
        text(label, 0, 13, "title"),
        *cells,
        rectangle(left, top, cell * size, cell * size, "frame"),
        *(
            text(name, left - 5, top + cell * (i + 0.5) + 4, text_anchor="end")
            for i, name in enumerate(names)
        ),
        *(_column_name(name, left + cell * (j + 0.5), top - 6) for j, name in enumerate(names)),
        text("predicted", left + cell * size / 2, 30, "axis", text_anchor="middle"),
        _upward("true", 10, top + cell * size / 2),
    )
    wrong = counts.sum() - np.trace(counts)
    spoken = f"Confusion matrix of {loss.label}: {wrong:.0f} errors of {counts.sum():.0f} test predictions"
    width = max(left + cell * size + 6, text_width(label, 13.0))
    return Panel(width, top + cell * size + 8, body, spoken)


def _column_name(name: str, x: float, y: float) -> Markup:
    if len(name) <= 2:
        return text(name, x, y, text_anchor="middle")
    return text(name, x + 4, y, transform=f"rotate(-90 {x + 4:.1f} {y:.1f})")


def _confusion_cell(
    count: float, share: float, worst: float, right: bool, place: tuple[float, float, float]
) -> list[Markup]:
    x, y, cell = place
    opacity = 0.12 + 0.28 * share if right else 0.12 + 0.78 * share / worst
    parts = [rectangle(x, y, cell, cell, "right" if right else "wrong", opacity=round(opacity, 2))]
    if cell >= 22:
        strong = not right and opacity > 0.55
        words = f"{count:.0f}" if count < 10000 else f"{count / 1000:.0f}k"
        class_ = "count pale" if strong else "count"
        parts.append(text(words, x + cell / 2, y + cell / 2 + 3.5, class_, text_anchor="middle"))
    return parts
