"""Short rows, and rows whose classes do not lie side by side: a tile of rows at a time, class by class.

The same moments and the same gradient as in :mod:`infoloss.kernels.cpu.rows`, with the loops the other way
round: a tile of rows is brought into a buffer (classes, rows), and every loop that vectorises runs over the
rows of the tile.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from infoloss.kernels.cpu.arithmetic import REORDERED, capped, exp, lowest
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
    put,
    slope,
)

__all__ = ["gradient", "moments"]

WIDEST = 128
"""Rows of a tile at most, and the number of elements that a tile should not exceed by much."""
ELEMENTS = 1 << 13


# -- loops over the rows of a tile, which vectorise ------------------------------------------------


@njit(fastmath=REORDERED | {"nnan"})
def _rise(x, m):
    for t in range(len(x)):
        m[t] = max(m[t], x[t])


@njit(fastmath=REORDERED)
def _add_exp(x, m, s):
    zero = x.dtype.type(0)
    low = lowest(x[0])
    for t in range(len(x)):
        u = x[t] - m[t]
        e = exp(low if u < low else u)
        s[t] += np.float64(zero if u < low else e)


@njit(fastmath=REORDERED)
def _add_exps(x, m, s, w, q):
    zero = x.dtype.type(0)
    low = lowest(x[0])
    for t in range(len(x)):
        u = x[t] - m[t]
        v = low if u < low else u
        e = zero if u < low else exp(v)
        s[t] += np.float64(e)
        w[t] += np.float64(v * e)
        q[t] += np.float64(e * e)


@njit(fastmath=REORDERED)
def _add_powers(x, a, s, q, masked):
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        gone = x[t] == gone_at
        z = 0.0 if gone else a[t] + np.float64(x[t])
        s[t] += z
        q[t] += z * z
        masked[t] += 1.0 if gone else 0.0


@njit(fastmath=REORDERED)
def _exp_elements(x, g, m, c0):
    zero = x.dtype.type(0)
    low = lowest(x[0])
    for t in range(len(x)):
        u = x[t] - m[t]
        e = exp(low if u < low else u)
        g[t] = zero if u < low else c0[t] * e


@njit(fastmath=REORDERED)
def _elements(x, g, a, m, c0, c1, c2, d, k):
    zero = x.dtype.type(0)
    low = lowest(x[0])
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        u = x[t] - m[t]
        v = low if u < low else u
        e = zero if u < low else exp(v)
        value = e * (c0[t] + c1[t] * v + c2[t] * e) + d[t] + k[t] * (a[t] + x[t])
        g[t] = zero if x[t] == gone_at else value


@njit(fastmath=REORDERED)
def _cap(x, cap):
    for t in range(len(x)):
        x[t] = capped(x[t], cap)


@njit(fastmath=REORDERED)
def _view(x, v, s, c, shift):
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        value = s[t] * (x[t] - c[t]) + shift
        v[t] = gone_at if x[t] == gone_at else value


@njit(fastmath=REORDERED)
def _unview(x, g, s, c, through):
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        centred = np.float64(0) if x[t] == gone_at else np.float64(x[t]) - np.float64(c[t])
        through[t] += np.float64(g[t]) * centred
        g[t] = s[t] * g[t]


@njit(fastmath=REORDERED)
def _add_multiple(x, factor, g):
    zero = x.dtype.type(0)
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        g[t] += zero if x[t] == gone_at else factor[t] * x[t]


@njit(fastmath=REORDERED)
def _through_cap(x, cap, g):
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    gone_at = x.dtype.type(-np.inf)
    for t in range(len(x)):
        r = x[t] / cap
        g[t] = zero if x[t] == gone_at else g[t] * (one - r * r)


# -- tiles ----------------------------------------------------------------------------------------


@njit
def _width(classes):
    """Rows of a tile: a multiple of a vector's length."""
    return min(WIDEST, max(16, ELEMENTS // classes // 16 * 16))


@njit
def _load(z, start, layout, cap, x):
    """x[c, t] = κ(z) of row t of the tile."""
    classes, class_stride, row_stride = layout[1], layout[4], layout[5]
    width = x.shape[1]
    if row_stride == 1:
        for c in range(classes):
            at = start + c * class_stride
            x[c] = z[at : at + width]
    else:
        for t in range(width):
            at = start + t * row_stride
            for c in range(classes):
                x[c, t] = z[at + c * class_stride]
    if cap != 0:
        for c in range(classes):
            _cap(x[c], z.dtype.type(cap))


@njit
def _store(g, start, layout, x):
    """g of row t of the tile = x[c, t]."""
    classes, class_stride, row_stride = layout[1], layout[4], layout[5]
    width = x.shape[1]
    if row_stride == 1:
        for c in range(classes):
            at = start + c * class_stride
            g[at : at + width] = x[c]
    else:
        for t in range(width):
            at = start + t * row_stride
            for c in range(classes):
                g[at + c * class_stride] = x[c, t]


@njit
def _row_views(x, n, viewed, scale, tau, s, c):
    """The scale s and the centre c of each row of κ(z)."""
    s[:] = 1
    c[:] = 0
    width = x.shape[1]
    if viewed:
        c[:] = -np.inf
        for j in range(x.shape[0]):
            _rise(x[j], c)
        for t in range(width):
            if c[t] == -np.inf:
                c[t] = 0
    if len(scale):
        for t in range(width):
            s[t] = scale[n + t]
    if tau != 0:
        nothing, sums, squares, masked = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
        for j in range(x.shape[0]):
            _add_powers(x[j], nothing, sums, squares, masked)
        for t in range(width):
            s[t] = 1 / (tau * math.sqrt(squares[t] + SMALLEST_NORM**2))


@njit
def _of_exp(slopes, where, n, labels, factor, log_floor):
    """What e^u is multiplied with in every element of row n, as far as it does not depend on u."""
    value = slope(slopes, where, EXP, n) + slope(slopes, where, EXP_LOGIT, n)
    if labels:
        value += slope(slopes, where, LABEL_LOG_EXP, n) * log_floor
    return factor * value


def moments(z, layout, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where, out, peaks):
    """As :func:`infoloss.kernels.cpu.rows.moments`, any strides; outer stride 0 where there is one tile row."""
    rows, classes, inner = layout[0], layout[1], layout[2]
    viewed = len(shift) > 0 or len(scale) > 0 or tau != 0
    several = where[EXP_LOGIT] >= 0 or where[EXP_SQUARE] >= 0
    exps = several or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    log_floor = math.log(floor) if floor > 0 else 0.0
    widest = _width(classes)
    each = (inner + widest - 1) // widest
    tiles = rows // inner * each
    wrong = 0
    for chunk in prange(min(tiles, 64)):
        chunks = min(tiles, 64)
        kappa_memory = np.empty((classes, widest), z.dtype)
        view_memory = np.empty((classes if viewed else 0, widest), z.dtype)
        sums = np.empty((6, widest))
        tops = np.empty((3, widest), z.dtype)
        for tile in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            b, i = tile // each, tile % each * widest
            width = min(widest, inner - i)
            n = b * inner + i
            kappa = kappa_memory[:, :width]
            _load(z, b * layout[3] + i * layout[5], layout, cap, kappa)
            s, c, m = tops[0, :width], tops[1, :width], tops[2, :width]
            _row_views(kappa, n, viewed, scale, tau, s, c)
            x = kappa
            if viewed:
                x = view_memory[:, :width]
                for j in range(classes):
                    _view(kappa[j], x[j], s, c, shift[j] if len(shift) else z.dtype.type(0))
            a = sums[0, :width]
            for t in range(width):
                a[t] = np.float64(s[t]) * np.float64(c[t])
            m[:] = -np.inf
            for j in range(classes):
                _rise(x[j], m)
            if len(peaks):
                for t in range(width):
                    peaks[n + t] = 0
                    for j in range(classes):
                        if x[j, t] == m[t]:
                            peaks[n + t] = j
                            break
            for t in range(width):
                put(out, where, n + t, MAXIMUM, np.float64(m[t]))
                put(out, where, n + t, PEAK, a[t] + np.float64(m[t]))
                put(out, where, n + t, CENTRE, np.float64(c[t]))
                put(out, where, n + t, OFFSET, a[t])
                put(out, where, n + t, SCALE, np.float64(s[t]))
                if m[t] == -np.inf:
                    m[t] = 0
            sums[1:] = 0
            e1, w1, q1 = sums[1, :width], sums[2, :width], sums[3, :width]
            if several:
                for j in range(classes):
                    _add_exps(x[j], m, e1, w1, q1)
            elif exps:
                for j in range(classes):
                    _add_exp(x[j], m, e1)
            for t in range(width):
                put(out, where, n + t, EXP, e1[t])
                put(out, where, n + t, EXP_LOGIT, w1[t])
                put(out, where, n + t, EXP_SQUARE, q1[t])
            if powers:
                sums[2:] = 0
                s1, s2, masked = sums[2, :width], sums[3, :width], sums[4, :width]
                for j in range(classes):
                    _add_powers(x[j], a, s1, s2, masked)
                for t in range(width):
                    put(out, where, n + t, SUM, s1[t])
                    put(out, where, n + t, SQUARE, s2[t])
                    put(out, where, n + t, CLASSES, classes - masked[t])
            for t in range(width):
                r = n + t
                y = label[r] if len(label) else -1
                if len(label) and y != ignored and (y < 0 or y >= classes):
                    wrong = max(wrong, rows - r)
                    continue
                if not counts(r, label, ignored, kept):
                    leave_out(out, where, r, classes)
                    continue
                l1 = l2 = l3 = l4 = 0.0
                wanted = False
                low = lowest(m[t])
                if len(label):
                    if x[y, t] == -np.inf:
                        wanted = True
                    else:
                        u = x[y, t] - m[t]
                        l1 = np.float64(u)
                        l2 = (a[t] + np.float64(x[y, t])) ** 2
                        l3 = 0.0 if u < low else np.float64(exp(low if u < low else u))
                    l4 = (e1[t] - l3) * log_floor
                if soft.shape[0]:
                    for j in range(classes):
                        u = x[j, t] - m[t]
                        e = 0.0 if u < low else np.float64(exp(low if u < low else u))
                        if x[j, t] == -np.inf:
                            wanted |= soft[r, j] != 0
                        else:
                            z_j = a[t] + np.float64(x[j, t])
                            l1 += soft[r, j] * np.float64(u)
                            l2 += soft[r, j] * z_j * z_j
                            l3 += soft[r, j] * e
                        if score.shape[0]:
                            l4 += score[r, j] * e
                put(out, where, r, LABEL, -np.inf if wanted else l1)
                put(out, where, r, LABEL_SQUARE, l2)
                put(out, where, r, LABEL_EXP, l3)
                put(out, where, r, LABEL_LOG_EXP, l4)
    return wrong


def gradient(
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
    packed,
    peaks,
    slopes,
    factor,
    g,
    g_layout,
    g_scale,
):
    """As :func:`infoloss.kernels.cpu.rows.gradient`."""
    rows, classes, inner = layout[0], layout[1], layout[2]
    viewed = len(shift) > 0 or len(scale) > 0 or tau != 0
    kind = z.dtype.type
    log_floor = math.log(floor) if floor > 0 else 0.0
    widest = _width(classes)
    each = (inner + widest - 1) // widest
    tiles = rows // inner * each
    for chunk in prange(min(tiles, 64)):
        chunks = min(tiles, 64)
        kappa_memory = np.empty((classes, widest), z.dtype)
        view_memory = np.empty((classes if viewed else 0, widest), z.dtype)
        gradient_memory = np.empty((classes, widest), z.dtype)
        per_row = np.empty((10, widest), z.dtype)
        wide = np.empty((2, widest))
        for tile in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            b, i = tile // each, tile % each * widest
            width = min(widest, inner - i)
            n = b * inner + i
            kappa, out = kappa_memory[:, :width], gradient_memory[:, :width]
            _load(z, b * layout[3] + i * layout[5], layout, cap, kappa)
            m, c, s, a = per_row[0, :width], per_row[1, :width], per_row[2, :width], per_row[3, :width]
            c0, c1, c2 = per_row[4, :width], per_row[5, :width], per_row[6, :width]
            d, k, multiple = per_row[7, :width], per_row[8, :width], per_row[9, :width]
            through, anchor = wide[0, :width], wide[1, :width]
            only_exp = True
            for t in range(width):
                r = n + t
                m[t] = packed[where[MAXIMUM], r]
                c[t], s[t] = 0, 1
                if viewed:
                    c[t] = packed[where[CENTRE], r]
                    if len(scale):
                        s[t] = scale[r]
                    if tau != 0:
                        s[t] = packed[where[SCALE], r]
                a[t] = s[t] * c[t]
                c0[t] = _of_exp(slopes, where, r, len(label), factor, log_floor)
                c1[t] = factor * slope(slopes, where, EXP_LOGIT, r)
                c2[t] = factor * 2 * slope(slopes, where, EXP_SQUARE, r)
                d[t] = factor * slope(slopes, where, SUM, r)
                k[t] = factor * 2 * slope(slopes, where, SQUARE, r)
                through[t] = anchor[t] = 0
                only_exp = only_exp and c1[t] == 0 and c2[t] == 0 and d[t] == 0 and k[t] == 0
            x = kappa
            if viewed:
                x = view_memory[:, :width]
                for j in range(classes):
                    _view(kappa[j], x[j], s, c, shift[j] if len(shift) else kind(0))
            if only_exp:
                for j in range(classes):
                    _exp_elements(x[j], out[j], m, c0)
            else:
                for j in range(classes):
                    _elements(x[j], out[j], a, m, c0, c1, c2, d, k)
            for t in range(width):
                r = n + t
                if not counts(r, label, ignored, kept) or m[t] == -np.inf:
                    continue
                offset = np.float64(s[t]) * np.float64(c[t])
                low = lowest(m[t])
                by_label = factor * slope(slopes, where, LABEL, r)
                by_square = factor * 2 * slope(slopes, where, LABEL_SQUARE, r)
                by_exp = factor * slope(slopes, where, LABEL_EXP, r)
                by_score = factor * slope(slopes, where, LABEL_LOG_EXP, r)
                by_sum = factor * slope(slopes, where, SUM, r)
                by_square_sum = factor * 2 * slope(slopes, where, SQUARE, r)
                if len(label) and x[label[r], t] > -np.inf:
                    y = label[r]
                    u = x[y, t] - m[t]
                    e = 0.0 if u < low else np.float64(exp(low if u < low else u))
                    z_y = offset + np.float64(x[y, t])
                    anchor[t] += by_square * z_y
                    # q_y − 1 cancels: the label's entry in one float64 expression
                    by_e = _of_exp(slopes, where, r, len(label), factor, log_floor) + by_exp - by_score * log_floor
                    by_e += factor * slope(slopes, where, EXP_LOGIT, r) * np.float64(u)
                    by_e += factor * 2 * slope(slopes, where, EXP_SQUARE, r) * e
                    out[y, t] = kind(e * by_e + by_sum + (by_square_sum + by_square) * z_y + by_label)
                if soft.shape[0]:
                    for j in range(classes):
                        if x[j, t] > -np.inf:
                            u = x[j, t] - m[t]
                            e = 0.0 if u < low else np.float64(exp(low if u < low else u))
                            square = by_square * (offset + np.float64(x[j, t]))
                            more = soft[r, j] * (by_label + square + by_exp * e)
                            anchor[t] += soft[r, j] * square
                            if score.shape[0]:
                                more += by_score * score[r, j] * e
                            out[j, t] += kind(more)
                if len(peaks):
                    out[peaks[r], t] += kind(factor * slope(slopes, where, PEAK, r))
                if viewed and not only_exp:
                    for j in range(classes):
                        if x[j, t] > -np.inf:
                            z_j = offset + np.float64(x[j, t])
                            anchor[t] += by_sum + by_square_sum * z_j
            if viewed:
                for j in range(classes):
                    _unview(kappa[j], out[j], s, c, through)
                for t in range(width):
                    r = n + t
                    more = slope(slopes, where, PEAK, r) + slope(slopes, where, OFFSET, r)
                    through[t] += (anchor[t] + factor * more) * np.float64(c[t])
                    multiple[t] = -through[t] * np.float64(s[t]) ** 3 * tau**2  # of x_j in ∂s/∂x_j
                if tau != 0:
                    for j in range(classes):
                        _add_multiple(kappa[j], multiple, out[j])
            if cap != 0:
                for j in range(classes):
                    _through_cap(kappa[j], kind(cap), out[j])
            for t in range(width):
                r = n + t
                gone = not counts(r, label, ignored, kept) or m[t] == -np.inf
                if gone:
                    for j in range(classes):
                        out[j, t] = 0
                if len(g_scale):
                    g_scale[r] = 0.0 if gone else through[t]
            _store(g, g_layout[3] * b + i * g_layout[5], g_layout, out)
