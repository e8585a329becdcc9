"""The label's own element of a row: its moments and its gradient.

``moments`` and ``add_gradient`` serve terms that read no more of a row through some view than that.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from infoloss.kernels.cpu.arithmetic import REORDERED, exp, lowest, unmanaged
from infoloss.kernels.cpu.layout import LABEL, LABEL_SQUARE, MAXIMUM, counts, put, slope, start_of

__all__ = ["add_gradient", "label_element", "label_sums", "moments"]


@unmanaged(fastmath=REORDERED)
def label_sums(x, m, a, l1, l2, l3):
    """u_y, z_y² and e^u_y; −inf, 0 and 0 where the class is masked."""
    low = lowest(x[0])
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        u = x[t] - m[t]
        e = exp(low if u < low else u)
        z = a[t] + np.float64(x[t])
        l1[t] = np.float64(u)
        l2[t] = 0.0 if x[t] == gone_at else z * z
        l3[t] = 0.0 if u < low else np.float64(e)


@unmanaged(fastmath=REORDERED)
def label_element(x, m, a, c0, c1, c2, d, k, by_label, by_square, by_exp, own):
    """The gradient of the label's element in one float64 expression, since q_y − 1 cancels."""
    low = lowest(x[0])
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        u = x[t] - m[t]
        e = np.float64(exp(low if u < low else u))
        e = 0.0 if u < low else e
        z = a[t] + np.float64(x[t])
        value = e * (c0[t] + c1[t] * np.float64(u) + c2[t] * e + by_exp[t])
        value += d[t] + (k[t] + by_square[t]) * z + by_label[t]
        own[t] = 0.0 if x[t] == gone_at else value


def moments(layout, given, out):
    """The moments about 0 of rows whose labels are in range; arguments as in ``rows.moments``."""
    z, label, ignored, _, _, kept, _, _, _, _, _, where = given
    for n in prange(layout[0]):
        z_y = 0.0
        if counts(n, label, ignored, kept):
            z_y = np.float64(z[start_of(n, layout) + label[n] * layout[4]])
        put(out, where, n, MAXIMUM, 0.0)
        put(out, where, n, LABEL, z_y)
        put(out, where, n, LABEL_SQUARE, 0.0 if z_y == -np.inf else z_y * z_y)


def add_gradient(layout, given, packed, slopes, factor, g, g_layout):
    """Add the labels' gradients to g; arguments as in ``rows.gradient``."""
    _, label, ignored, _, _, kept, _, _, _, _, _, where = given
    for n in prange(layout[0]):
        z_y = packed[where[LABEL], n]
        if counts(n, label, ignored, kept) and z_y > -np.inf:
            own = slope(slopes, where, LABEL, n) + 2 * slope(slopes, where, LABEL_SQUARE, n) * z_y
            g[start_of(n, g_layout) + label[n] * g_layout[4]] += g.dtype.type(factor * own)
