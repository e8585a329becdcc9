"""The figures of all losses together: accuracy against calibration, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from .svg import (
    SHAPES,
    Panel,
    Scale,
    bottom_axis,
    element,
    group,
    left_axis,
    line,
    marked,
    marker,
    path,
    rectangle,
    text,
)
from .wording import abbreviated, number, seed_count

if TYPE_CHECKING:
    from infoloss.study.analysis import LossResult

_COLOURS = 8
_DASHES = ("", " dashed", " dotted")


def calibration(losses: Sequence[LossResult]) -> Panel | None:
    """Accuracy (across) against ECE (up), before and after temperature scaling; None without both scores."""
    drawn = [(index, loss) for index, loss in enumerate(losses) if _placed(loss)]
    if not drawn:
        return None
    width, height = 700.0, 390.0
    left, right, top, bottom = 52.0, 470.0, 22.0, height - 46.0
    ends = [
        mean + sign * _accuracy(loss)[1]
        for _, loss in drawn
        for sign in (-1, 1)
        for mean in [_accuracy(loss)[0]]
    ]
    across = Scale(*_roomy(min(ends), max(ends), 0.06), left, right)
    errors = ("ece", "ece_scaled", "ece_noise_floor")
    up = _error_scale(
        [_percent(loss, key) for _, loss in drawn for key in errors if key in loss.scores], bottom, top
    )
    names = abbreviated([loss.label for _, loss in drawn], 36)
    swatches = [
        (marker(_shape(index), 0, 0, 4.5, "filled"), index, names[loss.label]) for index, loss in drawn
    ]
    body = group(
        left_axis(up, left, right),
        bottom_axis(across, top, bottom, count=6),
        *(_calibration_point(loss, index, across, up) for index, loss in drawn),
        *_names_beside(swatches, right + 18, (top, bottom)),
        text("accuracy, %  ▸ better", (left + right) / 2, height - 10, "axis", text_anchor="middle"),
        text(f"ECE, %{' (log scale)' if up.logarithmic else ''}  ▾ better", 8, 12, "axis"),
    )
    spoken = "; ".join(
        f"{loss.label}: {number(_accuracy(loss)[0])} %, ECE {number(_percent(loss, 'ece'))} %"
        for _, loss in drawn
    )
    legend = tuple((_swatch(drawing, index), name) for drawing, index, name in swatches)
    spoken = f"Accuracy against calibration error: {spoken}"
    return Panel(width, height, body, spoken, legend, round((right + 8) / width, 3))


def _names_beside(
    swatches: Sequence[tuple[Markup, int, str]], x: float, ends: tuple[float, float]
) -> list[Markup]:
    """The losses in their order, each beside its mark: names at the points would cover other points."""
    top, bottom = ends
    gap = min(19.0, (bottom - top) / max(len(swatches), 1))
    return [
        group(
            group(drawing, transform=f"translate({x:g},{top + gap * (place + 0.5):.2f})"),
            text(name, x + 12, top + gap * (place + 0.5) + 4, "small"),
            class_=f"series-{_series(index)}",
        )
        for place, (drawing, index, name) in enumerate(swatches)
    ]


def _swatch(drawing: Markup, index: int) -> Markup:
    """A mark or a line for the legend below a narrow figure."""
    return element(
        "svg", drawing, viewBox="-9 -7 18 14", width=18, height=14, class_=f"swatch series-{_series(index)}"
    )


def _shape(index: int) -> str:
    """Shapes and colours take turns at different lengths: 40 losses look different."""
    return SHAPES[index % len(SHAPES)]


def _error_scale(values: Sequence[float], bottom: float, top: float) -> Scale:
    """From zero, or logarithmic where the worst would press all others onto the floor."""
    low, high = min(values), max(values)
    if low > 0 and high > 10 * low:
        return Scale(low / 1.3, high * 1.25, bottom, top, logarithmic=True)
    return Scale(0.0, max(high, 0.1) * 1.12, bottom, top)


def _placed(loss: LossResult) -> bool:
    return all(key in loss.scores and np.isfinite(loss.scores[key]).any() for key in ("accuracy", "ece"))


def _calibration_point(loss: LossResult, index: int, across: Scale, up: Scale) -> Markup:
    """Hollow as the probabilities come, filled after temperature scaling, ± 1 standard error across."""
    mean, error = _accuracy(loss)
    x, y = across(mean), up(_percent(loss, "ece"))
    shape = _shape(index)
    parts = [line(across(mean - error), y, across(mean + error), y, "range")]
    if "ece_noise_floor" in loss.scores:
        floor = up(_percent(loss, "ece_noise_floor"))
        parts.append(line(x - 11, floor, x + 11, floor, "floor"))
    if "ece_scaled" in loss.scores:
        scaled = up(_percent(loss, "ece_scaled"))
        parts += [line(x, y, x, scaled, "range"), marker(shape, x, scaled, 4.5, "filled")]
    parts += [marker(shape, x, y, 4.5, "hollow"), marker("circle", x, y, 13, "hit")]
    return marked(_calibration_words(loss), *parts, class_=f"series-{_series(index)}")


def _calibration_words(loss: LossResult) -> str:
    mean, error = _accuracy(loss)
    names = {"ece": "ECE", "ece_scaled": "ECE after temperature scaling", "ece_noise_floor": "noise floor"}
    errors = [f"{name} {number(_percent(loss, key))} %" for key, name in names.items() if key in loss.scores]
    accuracy = f"accuracy {number(mean)} %, standard error {number(error)}"
    return "\n".join([loss.label, accuracy, *errors, seed_count([len(loss.seeds)])])


def _accuracy(loss: LossResult) -> tuple[float, float]:
    """Mean and standard error over seeds, in %; one seed has no error."""
    values = loss.scores["accuracy"][np.isfinite(loss.scores["accuracy"])] * 100
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(
        values.size
    ) if values.size > 1 else 0.0


def _percent(loss: LossResult, key: str) -> float:
    values = loss.scores[key]
    finite = values[np.isfinite(values)]
    return float(finite.mean()) * 100 if finite.size else math.nan


def curves(losses: Sequence[LossResult], key: str, title: str) -> Panel | None:
    """One validation score over the epochs, means over seeds; a dot marks the mean best epoch."""
    drawn = [
        (index, loss, loss.curve["epoch"], _in_percent(loss.curve[key], key))
        for index, loss in enumerate(losses)
        if {"epoch", key} <= loss.curve.keys() and np.isfinite(loss.curve[key]).any()
    ]
    if not drawn:
        return None
    width, height = 530.0, 330.0
    left, right, top, bottom = 46.0, width - 165.0, 30.0, height - 42.0
    across = Scale(
        *_roomy(min(e.min() for *_, e, _ in drawn), max(e.max() for *_, e, _ in drawn), 0.0), left, right
    )
    low, high, logarithmic = _curve_range([values for *_, values in drawn], rising="accuracy" in key)
    up = Scale(low, high, bottom, top, logarithmic)
    frame = f"frame-{key}"
    names = abbreviated([loss.label for _, loss, *_ in drawn], 24)
    body = group(
        element("clipPath", rectangle(left, top, right - left, bottom - top, "frame"), id=frame),
        text(title, 0, 14, "title"),
        left_axis(up, left, right),
        bottom_axis(across, top, bottom, whole=True),
        group(
            *(
                _curve(loss, index, across, up, epochs, values, title)
                for index, loss, epochs, values in drawn
            ),
            clip_path=f"url(#{frame})",
        ),
        *(_best_epoch(loss, index, across, up, epochs, values) for index, loss, epochs, values in drawn),
        *_end_labels(
            [(index, names[loss.label], up(_last(values))) for index, loss, _, values in drawn],
            (right, top, bottom),
        ),
        text("epoch", (left + right) / 2, height - 8, "axis", text_anchor="middle"),
    )
    spoken = f"{title} over the epochs for {', '.join(loss.label for _, loss, *_ in drawn)}"
    legend = tuple(
        (_swatch(line(-9, 0, 9, 0, f"curve{_dash(index)}"), index), names[loss.label])
        for index, loss, *_ in drawn
    )
    return Panel(width, height, body, spoken, legend, round((right + 8) / width, 3))


def _in_percent(values: np.ndarray, key: str) -> np.ndarray:
    return values * 100 if "accuracy" in key else values


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _curve_range(curves: Sequence[np.ndarray], *, rising: bool) -> tuple[float, float, bool]:
    """The range after the first quarter of the epochs, so that the start does not flatten what matters."""
    late = np.concatenate([values[len(values) // 4 :] for values in curves])
    late = late[np.isfinite(late)]
    low, high = float(late.min()), float(late.max())
    if rising:
        low, high = _roomy(low, high, 0.05)
        return low, min(high, 100.5), False
    if low > 0 and high > 8 * low:
        return low * 0.9, high * 1.1, True
    return *_roomy(low, high, 0.06), False


def _curve(
    loss: LossResult,
    index: int,
    across: Scale,
    up: Scale,
    epochs: np.ndarray,
    values: np.ndarray,
    title: str,
) -> Markup:
    finite = np.isfinite(values)
    points = [(across(float(e)), up(float(v))) for e, v in zip(epochs[finite], values[finite], strict=True)]
    drawn = path(points, f"curve{_dash(index)}{' thick' if loss.baseline else ''}")
    digits = 2 if "%" in title else 4
    words = [f"{loss.label}: {title}"]
    if (best := _at_best_epoch(loss, epochs, values)) is not None:
        words.append(f"{number(best[1], digits)} at the mean best epoch, {number(best[0], 1)}")
    words.append(f"{number(_last(values), digits)} at the last, {epochs[finite][-1]:g}")
    words.append(seed_count([len(loss.seeds)]))
    return marked("\n".join(words), drawn, path(points, "trace"), class_=f"series-{_series(index)}")


def _best_epoch(
    loss: LossResult, index: int, across: Scale, up: Scale, epochs: np.ndarray, values: np.ndarray
) -> Markup:
    """The dot of a curve, whole also on the frame; none where the curve has left it."""
    best = _at_best_epoch(loss, epochs, values)
    if best is None or not up.low <= best[1] <= up.high:
        return Markup("")
    dot = marker("circle", across(best[0]), up(best[1]), 3.5, "filled quiet")
    return group(dot, class_=f"series-{_series(index)}")


def _at_best_epoch(loss: LossResult, epochs: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """The mean best epoch and the curve's value there."""
    best, finite = loss.cost.get("best_epoch", math.nan), np.isfinite(values)
    if not math.isfinite(best):
        return None
    return best, float(np.interp(best, epochs[finite], values[finite]))


def _dash(index: int) -> str:
    return _DASHES[(index // _COLOURS) % len(_DASHES)]


def _end_labels(ends: Sequence[tuple[int, str, float]], frame: tuple[float, float, float]) -> list[Markup]:
    """Names at the curves' ends, pushed apart, each tied to its curve."""
    right, top, bottom = frame
    gap = min(15.0, (bottom - top) / max(len(ends), 1))
    ordered = sorted(ends, key=lambda end: end[2])
    heights = [min(max(height, top), bottom) for *_, height in ordered]
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    floor = bottom
    for position in range(len(placed) - 1, -1, -1):
        placed[position] = min(placed[position], floor)
        floor = placed[position] - gap
    return [
        group(
            path([(right, start), (right + 10, y), (right + 14, y)], "leader"),
            text(name, right + 18, y + 4, "small"),
            class_=f"series-{_series(index)}",
        )
        for (index, name, _), start, y in zip(ordered, heights, placed, strict=True)
    ]


def _series(index: int) -> int:
    """The baseline comes first and is drawn in ink; the others take turns."""
    return 0 if index == 0 else (index - 1) % _COLOURS + 1


def _roomy(low: float, high: float, share: float) -> tuple[float, float]:
    room = share * (high - low)
    if high == low:
        room = abs(high) * 0.01 or 1.0
    return low - room, high + room
