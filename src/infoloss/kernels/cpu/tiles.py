"""Short rows, and rows whose classes do not lie side by side: a tile of rows at a time, class by class.

The same moments and the same gradient as in :mod:`infoloss.kernels.cpu.rows`, with the loops the other way
round: a tile of rows is brought into a buffer (classes, rows), and every loop that vectorises runs over the
rows of the tile.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from infoloss.kernels.cpu.arithmetic import REORDERED, capped, exp, inlined, lowest
from infoloss.kernels.cpu.labels import label_element, label_sums
from infoloss.kernels.cpu.layout import (
    CENTRE,
    CLASSES,
    EXP,
    EXP_LOGIT,
    EXP_SQUARE,
    LABEL,
    LABEL_EXP,
    LABEL_LOG_EXP,
    LABEL_SQUARE,
    MAXIMUM,
    OFFSET,
    PEAK,
    SCALE,
    SMALLEST_NORM,
    SQUARE,
    SUM,
    counts,
    leave_out,
)

__all__ = ["gradient", "moments"]

WIDEST = 256
"""Rows of a tile at most, and the number of elements that a tile should not exceed by much."""
ELEMENTS = 1 << 13
CHUNKS = 64


# -- a tile x (classes, rows): loops over its rows, which vectorise ---------------------------------
# A tile is always computed whole; of its last rows, nothing is kept where there are fewer.


@inlined(fastmath=REORDERED | {"nnan"})
def _maxima(x, m):
    m[:] = -np.inf
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            m[t] = max(m[t], x[j, t])


@inlined()
def _first(x, m, first):
    """The first class of the maximum, 0 where it is nan."""
    first[:] = 0
    for i in range(x.shape[0]):
        j = np.uint64(x.shape[0] - 1 - i)
        for t in range(x.shape[1]):
            first[t] = np.int64(j) if x[j, t] == m[t] else first[t]


@inlined(fastmath=REORDERED)
def _exp_sum(x, m, s):
    zero = x.dtype.type(0)
    low = lowest(zero)
    s[:] = 0
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            u = x[j, t] - m[t]
            e = exp(low if u < low else u)
            s[t] += np.float64(zero if u < low else e)


@inlined(fastmath=REORDERED)
def _exp_sums(x, m, s, w, q):
    """Σ e^u, Σ u e^u, Σ e^2u."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    for sums in (s, w, q):
        sums[:] = 0
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            u = x[j, t] - m[t]
            v = low if u < low else u
            e = zero if u < low else exp(v)
            s[t] += np.float64(e)
            w[t] += np.float64(v * e)
            q[t] += np.float64(e * e)


@inlined(fastmath=REORDERED)
def _power_sums(x, a, s, q, count):
    """Σ z, Σ z² with z = a + x, and the number of unmasked classes."""
    gone_at = x.dtype.type(-np.inf)
    s[:] = 0
    q[:] = 0
    count[:] = x.shape[0]
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            gone = x[j, t] == gone_at
            z = 0.0 if gone else a[t] + np.float64(x[j, t])
            s[t] += z
            q[t] += z * z
            count[t] -= 1.0 if gone else 0.0


@inlined(fastmath=REORDERED)
def _exp_elements(x, g, m, c0):
    """g_j = c0 e, all that most losses need."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            u = x[j, t] - m[t]
            e = exp(low if u < low else u)
            g[j, t] = zero if u < low else c0[t] * e


@inlined(fastmath=REORDERED)
def _elements(x, g, a, m, c0, c1, c2, d, k):
    """g_j = e (c0 + c1 u + c2 e) + d + k z, 0 where masked."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    gone_at = x.dtype.type(-np.inf)
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            u = x[j, t] - m[t]
            v = low if u < low else u
            e = zero if u < low else exp(v)
            value = e * (c0[t] + c1[t] * v + c2[t] * e) + d[t] + k[t] * (a[t] + x[j, t])
            g[j, t] = zero if x[j, t] == gone_at else value


@inlined(fastmath=REORDERED)
def _cap(x, cap):
    """κ(z) in place of z."""
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            x[j, t] = capped(x[j, t], cap)


@inlined(fastmath=REORDERED)
def _through_cap(x, cap, g):
    """g_j times κ'(z_j) = 1 − (κ(z_j) / κ_max)²."""
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    gone_at = x.dtype.type(-np.inf)
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            r = x[j, t] / cap
            g[j, t] = zero if x[j, t] == gone_at else g[j, t] * (one - r * r)


@inlined(fastmath=REORDERED)
def _view(x, s, c, shift, v):
    """v_j = s (x_j − c) + shift_j."""
    gone_at = x.dtype.type(-np.inf)
    for j in range(x.shape[0]):
        more = shift[j] if len(shift) else x.dtype.type(0)
        for t in range(x.shape[1]):
            value = s[t] * (x[j, t] - c[t]) + more
            v[j, t] = gone_at if x[j, t] == gone_at else value


@inlined(fastmath=REORDERED)
def _unview(x, s, c, g, through):
    """g to the gradient of the logits before scale and shift, and Σ g_j (x_j − c) of before."""
    gone_at = x.dtype.type(-np.inf)
    through[:] = 0
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            centred = np.float64(0) if x[j, t] == gone_at else np.float64(x[j, t]) - np.float64(c[t])
            through[t] += np.float64(g[j, t]) * centred
            g[j, t] = s[t] * g[j, t]


@inlined(fastmath=REORDERED)
def _add_powers(x, a, d, k, sums):
    """Add Σ (d + k z) over the unmasked classes."""
    gone_at = x.dtype.type(-np.inf)
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            value = d[t] + k[t] * (a[t] + np.float64(x[j, t]))
            sums[t] += 0.0 if x[j, t] == gone_at else value


@inlined(fastmath=REORDERED)
def _add_multiple(x, factor, g):
    """g_j + factor·x_j where the class is not masked."""
    zero = x.dtype.type(0)
    gone_at = x.dtype.type(-np.inf)
    for j in range(x.shape[0]):
        for t in range(x.shape[1]):
            g[j, t] += zero if x[j, t] == gone_at else factor[t] * x[j, t]


@inlined()
def _label_elements(x, label, n, width, ignored, own):
    """own_t = x[y, t]; how many labels are ``ignored``, and 1 + t for the last one that is out of range."""
    gone = bad = 0
    classes = np.uint64(x.shape[0])
    for t in range(np.uint64(width)):
        y = label[np.uint64(n) + t]
        gone += y == ignored
        inside = np.uint64(y) < classes
        if not inside and y != ignored:
            bad = np.int64(t) + 1
        own[t] = x[np.uint64(y) if inside else np.uint64(0), t]
    return gone, bad


@inlined(fastmath=REORDERED)
def _any_empty(m):
    """Whether some row has every class masked."""
    found = 0
    for t in range(len(m)):
        found += m[t] == -np.inf
    return found > 0


@inlined()
def _soft_sums(x, soft, score, n, width, a, m, l1, l2, l3, l4):
    """Σ t u, Σ t z², Σ t e^u, Σ score e^u; the first −inf where t wants a masked class."""
    low = lowest(m[0])
    for t in range(width):
        l1[t] = l2[t] = l3[t] = l4[t] = 0
        wanted = False
        for j in range(x.shape[0]):
            u = x[j, t] - m[t]
            e = 0.0 if u < low else np.float64(exp(low if u < low else u))
            if x[j, t] == -np.inf:
                wanted |= soft[n + t, j] != 0
            else:
                z = a[t] + np.float64(x[j, t])
                l1[t] += soft[n + t, j] * np.float64(u)
                l2[t] += soft[n + t, j] * z * z
                l3[t] += soft[n + t, j] * e
            if score.shape[0]:
                l4[t] += score[n + t, j] * e
        if wanted:
            l1[t] = -np.inf


@inlined()
def _add_soft(x, soft, score, n, width, a, m, by_label, by_square, by_exp, by_score, g, anchor):
    """The soft target's share of the gradient, and of what goes through the centre."""
    low = lowest(m[0])
    for t in range(width):
        for j in range(x.shape[0]):
            if x[j, t] > -np.inf:
                u = x[j, t] - m[t]
                e = 0.0 if u < low else np.float64(exp(low if u < low else u))
                square = by_square[t] * (a[t] + np.float64(x[j, t]))
                pull = soft[n + t, j] * (by_label[t] + square + by_exp[t] * e)
                anchor[t] += soft[n + t, j] * square
                if score.shape[0]:
                    pull += by_score[t] * score[n + t, j] * e
                g[j, t] += x.dtype.type(pull)


# -- between tiles and memory -------------------------------------------------------------------


@inlined()
def _width(classes, inner):
    """Rows of a tile: a multiple of a vector's length."""
    return min(WIDEST, max(16, ELEMENTS // classes // 16 * 16), (inner + 15) // 16 * 16)


@inlined()
def _load(z, start, width, layout, cap, x):
    """x[j, t] = κ(z_j) of row t of the tile."""
    classes = np.uint64(layout[1])
    class_stride, row_stride = np.uint64(layout[4]), np.uint64(layout[5])
    at = np.uint64(start)
    if row_stride == 1:
        for j in range(classes):
            for t in range(np.uint64(width)):
                x[j, t] = z[at + j * class_stride + t]
    else:
        for t in range(np.uint64(width)):
            for j in range(classes):
                x[j, t] = z[at + t * row_stride + j * class_stride]
    if cap != 0:
        _cap(x, z.dtype.type(cap))


@inlined()
def _store(g, start, width, layout, x):
    """g_j of row t of the tile = x[j, t]."""
    classes = np.uint64(layout[1])
    class_stride, row_stride = np.uint64(layout[4]), np.uint64(layout[5])
    at = np.uint64(start)
    if row_stride == 1:
        for j in range(classes):
            for t in range(np.uint64(width)):
                g[at + j * class_stride + t] = x[j, t]
    else:
        for t in range(np.uint64(width)):
            for j in range(classes):
                g[at + t * row_stride + j * class_stride] = x[j, t]


@inlined()
def _keep(out, where, moment, n, width, values):
    if where[moment] >= 0:
        out[where[moment], n : n + width] = values[:width]


@inlined()
def _slopes(slopes, where, moment, n, width, factor, out):
    """The derivative in a moment of each row of the tile, times a factor."""
    if where[moment] >= 0:
        out[:width] = factor * slopes[where[moment], n : n + width]
    else:
        out[:] = 0


# -- rows -----------------------------------------------------------------------------------------


def moments(layout, given, out, peaks):
    """As :func:`infoloss.kernels.cpu.rows.moments`, for any strides and whole rows."""
    z, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where = given
    rows, classes, inner = layout[0], layout[1], layout[2]
    centred = len(shift) > 0 or len(scale) > 0 or tau != 0
    several = where[EXP_LOGIT] >= 0 or where[EXP_SQUARE] >= 0
    exps = several or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    log_floor = math.log(floor) if floor > 0 else 0.0
    widest = _width(classes, inner)
    each = (inner + widest - 1) // widest
    tiles = rows // inner * each
    chunks = min(tiles, CHUNKS)
    wrong = 0
    for chunk in prange(chunks):
        kappa = np.zeros((classes, widest), z.dtype)
        seen = np.zeros((classes if centred else 0, widest), z.dtype)
        m, c, s, own = (
            np.zeros(widest, z.dtype),
            np.zeros(widest, z.dtype),
            np.ones(widest, z.dtype),
            np.zeros(widest, z.dtype),
        )
        a, e1, w1, q1 = np.zeros(widest), np.zeros(widest), np.zeros(widest), np.zeros(widest)
        s1, s2, count = np.zeros(widest), np.zeros(widest), np.zeros(widest)
        l1, l2, l3, l4 = np.zeros(widest), np.zeros(widest), np.zeros(widest), np.zeros(widest)
        first = np.zeros(widest, np.int64)
        for tile in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            b, i = tile // each, tile % each * widest
            width = min(widest, inner - i)
            n = b * inner + i
            gone = 0
            _load(z, b * layout[3] + i * layout[5], width, layout, cap, kappa)
            if centred:
                _maxima(kappa, c)
                for t in range(widest):
                    c[t] = z.dtype.type(0) if c[t] == -np.inf else c[t]
                if len(scale):
                    for t in range(width):
                        s[t] = scale[n + t]
                if tau != 0:
                    a[:] = 0
                    _power_sums(kappa, a, s1, s2, count)
                    for t in range(widest):
                        s[t] = 1 / (tau * math.sqrt(s2[t] + SMALLEST_NORM**2))
                for t in range(widest):
                    a[t] = np.float64(s[t]) * np.float64(c[t])
                _view(kappa, s, c, shift, seen)
            x = seen if centred else kappa
            _maxima(x, m)
            if _any_empty(m):
                for t in range(width):
                    if m[t] == -np.inf:  # every class is masked, or nan
                        for j in range(classes):
                            m[t] += x[j, t]
            if len(peaks):
                _first(x, m, first)
                peaks[n : n + width] = first[:width]
            _keep(out, where, MAXIMUM, n, width, m)
            _keep(out, where, CENTRE, n, width, c)
            _keep(out, where, OFFSET, n, width, a)
            _keep(out, where, SCALE, n, width, s)
            if where[PEAK] >= 0:
                for t in range(width):
                    out[where[PEAK], n + t] = a[t] + np.float64(m[t])
            for t in range(widest):
                m[t] = z.dtype.type(0) if m[t] == -np.inf else m[t]
            if several:
                _exp_sums(x, m, e1, w1, q1)
            elif exps:
                _exp_sum(x, m, e1)
            _keep(out, where, EXP, n, width, e1)
            _keep(out, where, EXP_LOGIT, n, width, w1)
            _keep(out, where, EXP_SQUARE, n, width, q1)
            if powers:
                _power_sums(x, a, s1, s2, count)
                _keep(out, where, SUM, n, width, s1)
                _keep(out, where, SQUARE, n, width, s2)
                _keep(out, where, CLASSES, n, width, count)
            if len(label):
                gone, bad = _label_elements(x, label, n, width, ignored, own)
                if bad:
                    wrong = max(wrong, rows - (n + bad - 1))
                    continue
                label_sums(own, m, a, l1, l2, l3)
                for t in range(widest):
                    l4[t] = (e1[t] - l3[t]) * log_floor
            if soft.shape[0]:
                _soft_sums(x, soft, score, n, width, a, m, l1, l2, l3, l4)
            if len(label) or soft.shape[0]:
                _keep(out, where, LABEL, n, width, l1)
                _keep(out, where, LABEL_SQUARE, n, width, l2)
                _keep(out, where, LABEL_EXP, n, width, l3)
                _keep(out, where, LABEL_LOG_EXP, n, width, l4)
            if len(kept) or gone:
                for t in range(width):
                    if not counts(n + t, label, ignored, kept):
                        leave_out(out, where, n + t, classes)
    return wrong


def gradient(layout, given, packed, peaks, slopes, factor, g, g_layout, g_scale):
    """As :func:`infoloss.kernels.cpu.rows.gradient`."""
    z, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where = given
    rows, classes, inner = layout[0], layout[1], layout[2]
    scaled = len(scale) > 0 or tau != 0
    centred = len(shift) > 0 or scaled
    log_floor = math.log(floor) if floor > 0 and len(label) else 0.0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0
    only_exp = where[EXP_LOGIT] < 0 and where[EXP_SQUARE] < 0 and not powers
    kind = z.dtype
    widest = _width(classes, inner)
    each = (inner + widest - 1) // widest
    tiles = rows // inner * each
    chunks = min(tiles, CHUNKS)
    for chunk in prange(chunks):
        kappa = np.zeros((classes, widest), kind)
        seen = np.zeros((classes if centred else 0, widest), kind)
        out = np.zeros((classes, widest), kind)
        m, c, s, own = (
            np.zeros(widest, kind),
            np.zeros(widest, kind),
            np.ones(widest, kind),
            np.zeros(widest, kind),
        )
        f0, f1, f2 = np.zeros(widest, kind), np.zeros(widest, kind), np.zeros(widest, kind)
        fd, fk, fa = np.zeros(widest, kind), np.zeros(widest, kind), np.zeros(widest, kind)
        a, c0, c1, c2 = np.zeros(widest), np.zeros(widest), np.zeros(widest), np.zeros(widest)
        d, k, by_label, by_square = np.zeros(widest), np.zeros(widest), np.zeros(widest), np.zeros(widest)
        by_exp, by_score, by_peak = np.zeros(widest), np.zeros(widest), np.zeros(widest)
        through, anchor, value = np.zeros(widest), np.zeros(widest), np.zeros(widest)
        for tile in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            b, i = tile // each, tile % each * widest
            width = min(widest, inner - i)
            n = b * inner + i
            gone = 0
            _load(z, b * layout[3] + i * layout[5], width, layout, cap, kappa)
            m[:width] = packed[where[MAXIMUM], n : n + width]
            if centred:
                c[:width] = packed[where[CENTRE], n : n + width]
                if len(scale):
                    s[:width] = scale[n : n + width]
                if tau != 0:
                    s[:width] = packed[where[SCALE], n : n + width]
                for t in range(widest):
                    a[t] = np.float64(s[t]) * np.float64(c[t])
                    fa[t] = a[t]
                _view(kappa, s, c, shift, seen)
            x = seen if centred else kappa
            _slopes(slopes, where, EXP, n, width, factor, c0)
            _slopes(slopes, where, EXP_LOGIT, n, width, factor, c1)
            _slopes(slopes, where, EXP_SQUARE, n, width, 2 * factor, c2)
            _slopes(slopes, where, SUM, n, width, factor, d)
            _slopes(slopes, where, SQUARE, n, width, 2 * factor, k)
            _slopes(slopes, where, LABEL, n, width, factor, by_label)
            _slopes(slopes, where, LABEL_SQUARE, n, width, 2 * factor, by_square)
            _slopes(slopes, where, LABEL_EXP, n, width, factor, by_exp)
            _slopes(slopes, where, LABEL_LOG_EXP, n, width, factor, by_score)
            _slopes(slopes, where, PEAK, n, width, factor, by_peak)
            _slopes(slopes, where, OFFSET, n, width, factor, anchor)
            for t in range(widest):
                c0[t] += c1[t] + by_score[t] * log_floor
                by_exp[t] -= by_score[t] * log_floor
                anchor[t] += by_peak[t]
                f0[t], f1[t], f2[t], fd[t], fk[t] = c0[t], c1[t], c2[t], d[t], k[t]
            if only_exp:
                _exp_elements(x, out, m, f0)
            else:
                _elements(x, out, fa, m, f0, f1, f2, fd, fk)
            if len(label):
                gone, _ = _label_elements(x, label, n, width, ignored, own)
                label_element(own, m, a, c0, c1, c2, d, k, by_label, by_square, by_exp, value)
                for t in range(np.uint64(width)):
                    y = np.uint64(label[np.uint64(n) + t])
                    out[y if y < np.uint64(classes) else np.uint64(0), t] = value[t]
                if centred:
                    for t in range(width):
                        if own[t] > -np.inf:
                            anchor[t] += by_square[t] * (a[t] + np.float64(own[t]))
            if soft.shape[0]:
                _add_soft(x, soft, score, n, width, a, m, by_label, by_square, by_exp, by_score, out, anchor)
            if len(peaks):
                for t in range(width):
                    out[peaks[n + t], t] += z.dtype.type(by_peak[t])
            if scaled:
                if powers:
                    _add_powers(x, a, d, k, anchor)
                _unview(kappa, s, c, out, through)
                for t in range(widest):
                    through[t] += anchor[t] * np.float64(c[t])
                    f0[t] = -through[t] * np.float64(s[t]) ** 3 * tau**2  # of x_j in ∂s/∂x_j
                if tau != 0:
                    _add_multiple(kappa, f0, out)
            if cap != 0:
                _through_cap(kappa, z.dtype.type(cap), out)
            if gone or len(kept) or _any_empty(m):
                for t in range(width):
                    if m[t] == -np.inf or not counts(n + t, label, ignored, kept):
                        through[t] = 0
                        for j in range(classes):
                            out[j, t] = 0
            if len(g_scale):
                g_scale[n : n + width] = through[:width]
            _store(g, g_layout[3] * b + i * g_layout[5], width, g_layout, out)
