"""The label's own logit, for terms that read no more of a row through some view than that."""

from __future__ import annotations

import numpy as np
from numba import prange

from infoloss.kernels.cpu.layout import LABEL, LABEL_SQUARE, MAXIMUM, counts, put, slope, start_of

__all__ = ["add_gradient", "moments"]


def moments(z, layout, label, ignored, kept, where, out):
    """The moments about 0 of rows whose labels are in range; arguments as in ``rows.moments``."""
    for n in prange(layout[0]):
        z_y = 0.0
        if counts(n, label, ignored, kept):
            z_y = np.float64(z[start_of(n, layout) + label[n] * layout[4]])
        put(out, where, n, MAXIMUM, 0.0)
        put(out, where, n, LABEL, z_y)
        put(out, where, n, LABEL_SQUARE, 0.0 if z_y == -np.inf else z_y * z_y)


def add_gradient(layout, label, ignored, kept, where, packed, slopes, factor, g, g_layout):
    """Add the labels' gradients to g; arguments as in ``rows.gradient``."""
    for n in prange(layout[0]):
        z_y = packed[where[LABEL], n]
        if counts(n, label, ignored, kept) and z_y > -np.inf:
            own = slope(slopes, where, LABEL, n) + 2 * slope(slopes, where, LABEL_SQUARE, n) * z_y
            g[start_of(n, g_layout) + label[n] * g_layout[4]] += g.dtype.type(factor * own)
