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


def rows_step(layout, given, sizes, program, spared, divisor, g, g_layout):
    """Σ value, the rows that count, and the first wrong row as the three functions count it.

    Args:
        layout, given: as for ``rows.moments``.
        sizes: how many moments, whether the maxima's classes are wanted, the row of label_logit or −1.
        program, spared: as for ``programs.values``.
        divisor: of the gradient; nan where it is that of the mean over the rows that count.
        g, g_layout: the memory for the gradient, and its strides.
    """
    return _step(_rows_moments, _rows_gradient, layout, given, sizes, program, spared, divisor, g, g_layout)


def tiles_step(layout, given, sizes, program, spared, divisor, g, g_layout):
    """As :func:`rows_step`, in tiles."""
    return _step(_tiles_moments, _tiles_gradient, layout, given, sizes, program, spared, divisor, g, g_layout)


@inlined()
def _step(moments, gradient, layout, given, sizes, program, spared, divisor, g, g_layout):
    _, label, ignored, _, _, kept, _, _, _, _, _, _ = given
    n = layout[0]
    out, nothing = np.empty((sizes[0], n)), np.empty(0)
    peaks = np.empty(n if sizes[1] else 0, np.int64)
    wrong = moments(layout, given, out, peaks)
    if wrong:
        return 0.0, 0, wrong
    labels = (label, ignored, kept, sizes[2])
    total, counted, empty = _values(program, out, spared, labels, nothing, out)
    if not empty:
        d = float(counted) if math.isnan(divisor) else divisor
        factor = 1 / d if d != 0 else 0.0
        gradient(layout, given, out, peaks, out, factor, g, g_layout, nothing)
    return total, counted, empty
