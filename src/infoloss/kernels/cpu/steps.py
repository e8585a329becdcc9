"""A small batch in one call: moments, values, and the gradient of their sum or mean."""

from __future__ import annotations

import math

import numpy as np

from infoloss.kernels.cpu import programs, rows, tiles
from infoloss.kernels.cpu.arithmetic import inlined

__all__ = ["rows_step", "tiles_step"]

_values = inlined()(programs.values)
_rows_moments = inlined()(rows.moments)
_rows_gradient = inlined()(rows.gradient)
_tiles_moments = inlined()(tiles.moments)
_tiles_gradient = inlined()(tiles.gradient)


def rows_step(
    z,
    layout,
    label,
    ignored,
    soft,
    score,
    kept,
    shift,
    scale,
    tau,
    cap,
    floor,
    where,
    sizes,
    spared,
    instructions,
    number,
    parameters,
    divisor,
    g,
    g_layout,
):
    """Σ value, the rows that count, and the first wrong row as the three functions count it.

    Args:
        z … where: as for ``rows.moments``.
        sizes: how many moments, whether the maxima's classes are wanted, the row of label_logit or −1.
        spared, instructions, number, parameters: as for ``programs.values``.
        divisor: of the gradient; nan where it is that of the mean over the rows that count.
        g, g_layout: the memory for the gradient, and its strides.
    """
    n = layout[0]
    given = (z, layout, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where)
    out, nothing = np.empty((sizes[0], n)), np.empty(0)
    peaks = np.empty(n if sizes[1] else 0, np.int64)
    wrong = _rows_moments(*given, out, peaks)
    if wrong:
        return 0.0, 0, wrong
    labels = (label, sizes[2], ignored, kept)
    total, counted, empty = _values(instructions, number, parameters, out, spared, *labels, nothing, out)
    if not empty:
        _rows_gradient(*given, out, peaks, out, _factor(divisor, counted), g, g_layout, nothing)
    return total, counted, empty


def tiles_step(
    z,
    layout,
    label,
    ignored,
    soft,
    score,
    kept,
    shift,
    scale,
    tau,
    cap,
    floor,
    where,
    sizes,
    spared,
    instructions,
    number,
    parameters,
    divisor,
    g,
    g_layout,
):
    """As :func:`rows_step`, in tiles."""
    n = layout[0]
    given = (z, layout, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where)
    out, nothing = np.empty((sizes[0], n)), np.empty(0)
    peaks = np.empty(n if sizes[1] else 0, np.int64)
    wrong = _tiles_moments(*given, out, peaks)
    if wrong:
        return 0.0, 0, wrong
    labels = (label, sizes[2], ignored, kept)
    total, counted, empty = _values(instructions, number, parameters, out, spared, *labels, nothing, out)
    if not empty:
        _tiles_gradient(*given, out, peaks, out, _factor(divisor, counted), g, g_layout, nothing)
    return total, counted, empty


@inlined()
def _factor(divisor, counted):
    d = float(counted) if math.isnan(divisor) else divisor
    return 1 / d if d != 0 else 0.0
