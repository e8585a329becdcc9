"""Just enough SVG: elements, scales, axes, and panels that stand inline, alone, or on a sheet.

Drawn by hand, since inline figures must follow the page's light or dark colours through CSS variables,
which a rendered chart cannot.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

NAMESPACE = "http://www.w3.org/2000/svg"


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An escaped element; ``class_`` gives class, ``stroke_width`` gives stroke-width, None is left out.

    >>> print(element("text", "a < b", x=1.0, class_="label"))
    <text x="1" class="label">a &lt; b</text>
    """
    written = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(coordinate(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(escape(child) for child in children)
    return (
        Markup(f"<{name}{''.join(written)}>{inner}</{name}>")
        if children
        else Markup(f"<{name}{''.join(written)}/>")
    )


def coordinate(value: object) -> str:
    """Two decimals are a hundredth of a pixel."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")


def group(*children: Markup, **attributes: object) -> Markup:
    return element("g", *children, **attributes)


def marked(words: str, *children: Markup, **attributes: object) -> Markup:
    """What belongs together, with what it says when it is pointed at."""
    return group(*children, element("title", words), **attributes)


def text(words: str, x: float, y: float, class_: str = "tick", **attributes: object) -> Markup:
    return element("text", words, x=x, y=y, class_=class_, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str, **attributes: object) -> Markup:
    return element(
        "rect", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), class_=class_, **attributes
    )


def path(points: Sequence[tuple[float, float]], class_: str, **attributes: object) -> Markup:
    """An open polyline through the points."""
    moves = "L".join(f"{coordinate(float(x))},{coordinate(float(y))}" for x, y in points)
    return element("path", d=f"M{moves}", class_=class_, **attributes)


_SHAPES = {
    "circle": "M{r},0A{r},{r} 0 1 1 -{r},0A{r},{r} 0 1 1 {r},0Z",
    "square": "M-{s},-{s}H{s}V{s}H-{s}Z",
    "up": "M0,-{t}L{t},{s}H-{t}Z",
    "down": "M0,{t}L{t},-{s}H-{t}Z",
    "diamond": "M0,-{t}L{t},0L0,{t}L-{t},0Z",
}
SHAPES = tuple(_SHAPES)


def marker(shape: str, x: float, y: float, radius: float, class_: str) -> Markup:
    sizes = {"r": radius, "s": radius * 0.86, "t": radius * 1.25}
    drawn = _SHAPES[shape].format(**{key: coordinate(float(size)) for key, size in sizes.items()})
    return element(
        "path", d=drawn, transform=f"translate({coordinate(float(x))},{coordinate(float(y))})", class_=class_
    )


def text_width(words: str, size: float = 12.0) -> float:
    """A system sans font's width, roughly; used only to keep labels apart."""
    return 0.56 * size * len(words)


@dataclass(frozen=True)
class Scale:
    """Values low … high onto pixels start … stop, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values within the scale.

        >>> Scale(0.0, 1.0, 0.0, 100.0).ticks(5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> Scale(0.05, 3.0, 0.0, 100.0, logarithmic=True).ticks()
        [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
        """
        if self.logarithmic:
            return self._decades(count)
        step = _round_step((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _decades(self, count: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1,)):
            values = [float(f"{digit}e{power}") for power in powers for digit in digits]
            inside = [value for value in values if self.low <= value <= self.high * (1 + 1e-9)]
            if len(inside) <= 2 * count:
                break
        return inside


def _round_step(rough: float) -> float:
    """The 1, 2 or 5 times a power of ten that is nearest in ratio."""
    power = 10.0 ** math.floor(math.log10(rough))
    return min(
        (power * digit for digit in (1.0, 2.0, 5.0, 10.0)), key=lambda step: abs(math.log(step / rough))
    )


def tick_label(value: float, ticks: Sequence[float], *, signed: bool = False) -> str:
    """As many decimals as tell the ticks apart."""
    step = min((abs(b - a) for a, b in itertools.pairwise(ticks)), default=abs(value) or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    shown = f"{value:+.{decimals}f}" if signed and value else f"{value:.{decimals}f}"
    return shown.replace("-", "−")


def bottom_axis(
    scale: Scale, top: float, bottom: float, *, count: int = 5, signed: bool = False, whole: bool = False
) -> Markup:
    """Grid lines with their numbers underneath, whole ones where there is nothing between them."""
    ticks = [tick for tick in scale.ticks(count) if not whole or tick == round(tick)]
    return group(
        *(line(scale(tick), top, scale(tick), bottom, "grid") for tick in ticks),
        *(
            text(tick_label(tick, ticks, signed=signed), scale(tick), bottom + 15, text_anchor="middle")
            for tick in ticks
        ),
    )


def left_axis(scale: Scale, left: float, right: float, *, count: int = 5) -> Markup:
    """Grid lines with their numbers to the left."""
    ticks = scale.ticks(count)
    labels = (
        [f"{tick:g}" for tick in ticks] if scale.logarithmic else [tick_label(tick, ticks) for tick in ticks]
    )
    return group(
        *(line(left, scale(tick), right, scale(tick), "grid") for tick in ticks),
        *(
            text(label, left - 7, scale(tick) + 4, text_anchor="end")
            for tick, label in zip(ticks, labels, strict=True)
        ),
    )


@dataclass(frozen=True)
class Panel:
    """A drawing of a fixed natural size, with the sentence a screen reader speaks.

    On a narrow page the names at its right are cut off, so that `shown` of its width are left, and the
    `legend` (drawings and names) stands below in their place.
    """

    width: float
    height: float
    body: Markup
    description: str
    legend: tuple[tuple[Markup, str], ...] = ()
    shown: float = 1.0

    def inline(self) -> Markup:
        """For a page that carries the style sheet."""
        return self._element(self.body, class_="drawing", style=f"max-width:{coordinate(self.width)}px")

    def alone(self, style: str) -> str:
        """A file of its own: light colours written out, since many SVG readers know no CSS variables."""
        background = element("rect", width="100%", height="100%", class_="paper")
        sheet = Markup("<style>" + resolved(style) + "</style>")
        drawn = self._element(sheet, background, self.body, width=self.width, height=self.height)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawn}\n'

    def _element(self, *children: Markup, **attributes: object) -> Markup:
        return element(
            "svg",
            *children,
            xmlns=NAMESPACE,
            viewBox=f"0 0 {coordinate(self.width)} {coordinate(self.height)}",
            role="img",
            aria_label=self.description,
            **attributes,
        )


def sheet(panels: Sequence[Panel], columns: int, *, gap: float = 24.0, description: str = "") -> Panel:
    """Panels of one size side by side, for the file of a figure that the page shows as separate drawings."""
    columns = min(columns, len(panels))
    width, height = max(panel.width for panel in panels), max(panel.height for panel in panels)
    placed = [
        group(panel.body, transform=f"translate({coordinate(x)},{coordinate(y)})")
        for index, panel in enumerate(panels)
        for x, y in [(gap + (index % columns) * (width + gap), gap + (index // columns) * (height + gap))]
    ]
    rows = math.ceil(len(panels) / columns)
    return Panel(
        gap + columns * (width + gap),
        gap + rows * (height + gap),
        group(*placed),
        description or panels[0].description,
    )


def resolved(style: str) -> str:
    """The style sheet's light half with each ``var(--name)`` replaced by its value."""
    light = style.split("@media", 1)[0]
    values = dict(re.findall(r"(--[\w-]+)\s*:\s*([^;}]+)", light))
    plain = re.sub(r":root\s*\{[^}]*\}", "", light)
    return re.sub(r"var\((--[\w-]+)\)", lambda match: values[match.group(1)].strip(), plain).strip()
