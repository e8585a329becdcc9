"""Long rows: classes that lie side by side, read block by block.

``moments`` reads each row once, with running sums that are rescaled when the maximum grows; ``gradient``
reads it again and writes, for each element,

    e (a + b u + c e) + d + k z   (+ the label's and the maximum's own shares)

with one set of coefficients a row. A block fits the first-level cache. Elements are float32 (float64 for
float64 logits), sums float64.

A view z' = s (κ(z) − c) + v (κ the soft cap, c the row's maximum, s a scale or 1/(τ‖z‖)) is applied to a
block as it is loaded. Few long rows are cut into parts of columns, whose moments the caller merges.
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
    start_of,
)

__all__ = ["BLOCK", "gradient", "moments"]

BLOCK = 2048
CHUNKS = 64
"""Pieces of work that threads share: more than one a thread, so that none waits long for another."""


# -- blocks: loops that vectorise -----------------------------------------------------------------


@njit(fastmath=REORDERED | {"nnan"})
def _maximum(x):
    """The largest element; nan is left to the sums, which keep it."""
    m = x.dtype.type(-np.inf)
    for j in range(len(x)):
        m = max(m, x[j])
    return m


@njit(fastmath=REORDERED)
def _exp_sum(x, m):
    zero = x.dtype.type(0)
    s = 0.0  # beside the largest element, 1, the others would be rounded away in float32
    low = lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else exp(v)
        s += np.float64(e)
    return s


@njit(fastmath=REORDERED)
def _exp_sums(x, m):
    """Σ e^u, Σ u e^u, Σ e^2u."""
    zero = x.dtype.type(0)
    s = w = q = 0.0
    low = lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else exp(v)
        s += np.float64(e)
        w += np.float64(v * e)
        q += np.float64(e * e)
    return s, w, q


@njit(fastmath=REORDERED)
def _power_sums(x, a):
    """Σ z, Σ z² with z = a + x, and the number of masked classes."""
    s = q = 0.0
    masked = 0
    gone_at = x.dtype.type(-np.inf)
    for j in range(len(x)):
        gone = x[j] == gone_at
        z = 0.0 if gone else a + np.float64(x[j])
        s += z
        q += z * z
        masked += gone
    return s, q, masked


@njit(fastmath=REORDERED)
def _soft_sums(x, t, score, a, m):
    """Σ t u, Σ t z², Σ t e^u, Σ score e^u over the unmasked classes, and whether t wants a masked one."""
    l1 = l2 = l3 = l4 = 0.0
    wanted = False
    low = lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
        if x[j] == -np.inf:
            wanted |= t[j] != 0
        else:
            z = a + np.float64(x[j])
            l1 += t[j] * np.float64(u)
            l2 += t[j] * z * z
            l3 += t[j] * e
        if len(score):
            l4 += score[j] * e
    return l1, l2, l3, l4, wanted


@njit(fastmath=REORDERED)
def _elements(x, g, a, m, c0, c1, c2, d, k):
    """g_j = e (c0 + c1 u + c2 e) + d + k z, 0 where masked."""
    zero = x.dtype.type(0)
    low = lowest(x[0])
    gone_at = x.dtype.type(-np.inf)
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else exp(v)
        value = e * (c0 + c1 * v + c2 * e) + d + k * (a + x[j])
        g[j] = zero if x[j] == gone_at else value


@njit(fastmath=REORDERED)
def _exp_elements(x, g, m, c0):
    """g_j = c0 e, all that most losses need."""
    zero = x.dtype.type(0)
    low = lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        e = exp(low if u < low else u)
        g[j] = zero if u < low else c0 * e


@njit(fastmath=REORDERED)
def _cap(z, cap, x):
    """x_j = κ(z_j)."""
    for j in range(len(z)):
        x[j] = capped(z[j], cap)


@njit(fastmath=REORDERED)
def _through_cap(x, cap, g):
    """g_j times κ'(z_j) = 1 − (κ(z_j) / κ_max)²."""
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    gone_at = x.dtype.type(-np.inf)
    for j in range(len(x)):
        r = x[j] / cap
        g[j] = zero if x[j] == gone_at else g[j] * (one - r * r)


@njit(fastmath=REORDERED)
def _viewed(z, shift, s, c, x):
    """x_j = s (z_j − c) + v_j."""
    gone_at = x.dtype.type(-np.inf)
    for j in range(len(z)):
        value = s * (z[j] - c)
        if len(shift):
            value += shift[j]
        x[j] = gone_at if z[j] == gone_at else value


@njit(fastmath=REORDERED)
def _unviewed(z, g, s, c):
    """g to the gradient of the logits before scale and shift, and Σ g_j (z_j − c) of before."""
    total = 0.0
    gone_at = z.dtype.type(-np.inf)
    for j in range(len(z)):
        centred = np.float64(0) if z[j] == gone_at else np.float64(z[j]) - np.float64(c)
        total += np.float64(g[j]) * centred
        g[j] = s * g[j]
    return total


@njit(fastmath=REORDERED)
def _add_multiple(z, factor, g):
    """g_j + factor·z_j where the class is not masked."""
    zero = z.dtype.type(0)
    gone_at = z.dtype.type(-np.inf)
    for j in range(len(z)):
        g[j] += zero if z[j] == gone_at else factor * z[j]


@njit
def _first(x, value):
    """The first place of a value that is there."""
    for j in range(len(x)):
        if x[j] == value:
            return j
    return 0


# -- rows -----------------------------------------------------------------------------------------


@njit
def _loaded(z, start, stop, cap, buffer):
    """The block of κ(z) between two places of the memory; in ``buffer`` if there is a cap."""
    block = z[start:stop]
    if cap == 0:
        return block
    x = buffer[: stop - start]
    _cap(block, z.dtype.type(cap), x)
    return x


@njit
def _centre(z, at, classes, viewed, cap):
    """The maximum of κ(z) for a view that needs one, else 0."""
    c = z.dtype.type(0)
    if viewed:
        c = _maximum(z[at : at + classes])
        if c == -np.inf:
            c = z.dtype.type(0)
        elif cap != 0:
            c = capped(c, z.dtype.type(cap))
    return c


@njit
def _row_scale(z, at, classes, tau, cap, buffer):
    """1 / (τ ‖κ(z)‖)."""
    squares = 0.0
    for b in range(0, classes, BLOCK):
        x = _loaded(z, at + b, at + min(b + BLOCK, classes), cap, buffer)
        squares += _power_sums(x, 0.0)[1]
    return 1 / (tau * math.sqrt(squares + SMALLEST_NORM**2))


def moments(z, layout, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where, out, peaks):
    """Moments of rows or parts of rows; returns N − n for the first row n whose label is out of range, or 0.

    Args:
        z: (…,) the memory that holds the logits.
        layout: rows, classes, inner, outer stride, class stride (1), inner stride, parts of a row.
        label: (N,) or empty; rows labelled ``ignored`` count for nothing.
        soft, score: (N, C) a soft target and ln max(target, floor), or empty.
        kept: (N,) or empty.
        shift, scale, tau, cap: the view; shift (C,) and scale (N,) or empty, tau and cap 0 for none.
        where: the row of ``out`` for each moment, or −1.
        out: (K, parts·N).
        peaks: (parts·N,) the class of the maximum, or empty.
    """
    rows, all_classes, parts = layout[0], layout[1], layout[6]
    viewed = len(shift) > 0 or len(scale) > 0 or tau != 0
    one = z.dtype.type(1)
    several = where[EXP_LOGIT] >= 0 or where[EXP_SQUARE] >= 0
    exps = several or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    work = rows * parts
    chunks = min(work, CHUNKS)
    wrong = 0
    for chunk in prange(chunks):
        cap_buffer = np.empty(BLOCK, z.dtype)
        buffer = np.empty(BLOCK, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            n, part = i // parts, i % parts
            o = part * rows + n
            y = label[n] if len(label) else -1
            if len(label) and y != ignored and (y < 0 or y >= all_classes):
                wrong = max(wrong, rows - n)
                continue
            if not counts(n, label, ignored, kept):
                leave_out(out, where, o, all_classes)
                if len(peaks):
                    peaks[o] = 0
                continue
            first = all_classes * part // parts
            classes = all_classes * (part + 1) // parts - first
            y -= first
            at = start_of(n, layout) + first
            c = _centre(z, at, classes, viewed, cap)
            s = one
            if len(scale):
                s = z.dtype.type(scale[n])
            if tau != 0:
                s = z.dtype.type(_row_scale(z, at, classes, tau, cap, cap_buffer))
            a = np.float64(s) * np.float64(c)
            m = z.dtype.type(-np.inf)
            if len(peaks):
                peaks[o] = first  # where every class is masked
            e1 = w1 = q1 = s1 = s2 = l1 = l2 = l3 = l4 = 0.0
            masked = 0
            wanted = False
            if soft.shape[0]:  # the target's sums cannot be rescaled: the maximum first
                for b in range(0, classes, BLOCK):
                    x = _loaded(z, at + b, at + min(b + BLOCK, classes), cap, cap_buffer)
                    if viewed:
                        _viewed(x, shift[b : b + BLOCK], s, c, buffer)
                        x = buffer[: len(x)]
                    top = _maximum(x)
                    if top > m:
                        m = top
                        if len(peaks):
                            peaks[o] = first + b + _first(x, m)
            for b in range(0, classes, BLOCK):
                x = _loaded(z, at + b, at + min(b + BLOCK, classes), cap, cap_buffer)
                if viewed:
                    _viewed(x, shift[b : b + BLOCK], s, c, buffer)
                    x = buffer[: len(x)]
                top = _maximum(x)
                if top > m:
                    d = np.float64(m) - np.float64(top)
                    if d > -np.inf:
                        f = math.exp(d)
                        w1 = f * (w1 + d * e1)
                        e1 *= f
                        q1 *= f * f
                    m = top
                    if len(peaks):
                        peaks[o] = first + b + _first(x, m)
                centre = m if m > -np.inf else z.dtype.type(0)
                if several:
                    e, w, q = _exp_sums(x, centre)
                    e1 += e
                    w1 += w
                    q1 += q
                elif exps:
                    e1 += _exp_sum(x, centre)
                if powers:
                    p1, p2, gone = _power_sums(x, a)
                    s1 += p1
                    s2 += p2
                    masked += gone
                if soft.shape[0]:
                    t = soft[n, b : b + BLOCK]
                    r = score[n, b : b + BLOCK] if score.shape[0] else t[:0]
                    o1, o2, o3, o4, gone_wanted = _soft_sums(x, t, r, a, centre)
                    l1 += o1
                    l2 += o2
                    l3 += o3
                    l4 += o4
                    wanted |= gone_wanted
            if len(label):
                if 0 <= y < classes:
                    x_y = z[at + y]
                    if cap != 0:
                        x_y = capped(x_y, z.dtype.type(cap))
                    if viewed and x_y > -np.inf:
                        x_y = s * (x_y - c)
                        if len(shift):
                            x_y += shift[y]
                    if x_y == -np.inf:
                        wanted = True
                    else:
                        u = x_y - m
                        l1 = np.float64(u)
                        l2 = (a + np.float64(x_y)) ** 2
                        low = lowest(u)
                        l3 = 0.0 if u < low else np.float64(exp(low if u < low else u))
                l4 = (e1 - l3) * math.log(floor) if floor > 0 else 0.0
            put(out, where, o, MAXIMUM, np.float64(m))
            put(out, where, o, CLASSES, classes - masked)
            put(out, where, o, EXP, e1)
            put(out, where, o, EXP_LOGIT, w1)
            put(out, where, o, EXP_SQUARE, q1)
            put(out, where, o, SUM, s1)
            put(out, where, o, SQUARE, s2)
            put(out, where, o, LABEL, -np.inf if wanted else l1)
            put(out, where, o, LABEL_SQUARE, l2)
            put(out, where, o, LABEL_EXP, l3)
            put(out, where, o, LABEL_LOG_EXP, l4)
            put(out, where, o, PEAK, a + np.float64(m))
            put(out, where, o, CENTRE, np.float64(c))
            put(out, where, o, OFFSET, a)
            put(out, where, o, SCALE, np.float64(s))
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
    """The gradient of the logits, and of a scale, from coefficients per row and moment.

    Args:
        z … where: as for :func:`moments`.
        packed, peaks: (K, N) and (N,), what :func:`moments` found, merged.
        slopes, factor: (K, N) times a number, the derivatives in the moments.
        g, g_layout: the memory for the gradient, and its strides as those of z.
        g_scale: (parts·N,) for the derivative in the scale, or empty.
    """
    rows, all_classes, parts = layout[0], layout[1], layout[6]
    viewed = len(shift) > 0 or len(scale) > 0 or tau != 0
    kind = z.dtype.type
    log_floor = math.log(floor) if floor > 0 else 0.0
    work = rows * parts
    chunks = min(work, CHUNKS)
    for chunk in prange(chunks):
        cap_buffer = np.empty(BLOCK, z.dtype)
        buffer = np.empty(BLOCK, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            n, part = i // parts, i % parts
            first = all_classes * part // parts
            classes = all_classes * (part + 1) // parts - first
            at = start_of(n, layout) + first
            to = start_of(n, g_layout) + first
            m = kind(packed[where[MAXIMUM], n])
            if not counts(n, label, ignored, kept) or m == -np.inf:
                g[to : to + classes] = 0
                if len(g_scale):
                    g_scale[part * rows + n] = 0
                continue
            y = label[n] - first if len(label) else -1
            c, s = kind(0), kind(1)
            if viewed:
                c = kind(packed[where[CENTRE], n])
                if len(scale):
                    s = kind(scale[n])
                if tau != 0:
                    s = kind(packed[where[SCALE], n])
            a = np.float64(s) * np.float64(c)
            c1 = factor * slope(slopes, where, EXP_LOGIT, n)
            c2 = factor * 2 * slope(slopes, where, EXP_SQUARE, n)
            d = factor * slope(slopes, where, SUM, n)
            k = factor * 2 * slope(slopes, where, SQUARE, n)
            by_label = factor * slope(slopes, where, LABEL, n)
            by_square = factor * 2 * slope(slopes, where, LABEL_SQUARE, n)
            by_exp = factor * slope(slopes, where, LABEL_EXP, n)
            by_score = factor * slope(slopes, where, LABEL_LOG_EXP, n)
            by_peak = factor * slope(slopes, where, PEAK, n)
            c0 = factor * slope(slopes, where, EXP, n) + c1
            if len(label):
                c0 += by_score * log_floor
                by_exp -= by_score * log_floor
            only_exp = c1 == 0 and c2 == 0 and d == 0 and k == 0
            through = 0.0
            anchor = 0.0
            for b in range(0, classes, BLOCK):
                before = _loaded(z, at + b, at + min(b + BLOCK, classes), cap, cap_buffer)
                x = before
                if viewed:
                    _viewed(x, shift[b : b + BLOCK], s, c, buffer)
                    x = buffer[: len(x)]
                out = g[to + b : to + b + len(x)]
                own = kind(0)
                if b <= y < b + len(x):  # before x, which may lie in the same memory, is overwritten
                    j = y - b
                    if x[j] > -np.inf:
                        u = x[j] - m
                        low = lowest(u)
                        e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
                        z_y = a + np.float64(x[j])
                        anchor += by_square * z_y
                        # q_y − 1 cancels: the label's entry in one float64 expression
                        own_exp = e * (c0 + c1 * np.float64(u) + c2 * e + by_exp)
                        own = kind(own_exp + d + k * z_y + by_label + by_square * z_y)
                if only_exp:
                    _exp_elements(x, out, m, kind(c0))
                else:
                    _elements(x, out, kind(a), m, kind(c0), kind(c1), kind(c2), kind(d), kind(k))
                if soft.shape[0]:
                    t = soft[n, b : b + BLOCK]
                    for j in range(len(x)):
                        u = x[j] - m
                        low = lowest(u)
                        if x[j] > -np.inf:
                            e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
                            z_j = a + np.float64(x[j])
                            square = by_square * z_j
                            more = t[j] * (by_label + square + by_exp * e)
                            anchor += t[j] * square
                            if score.shape[0]:
                                more += by_score * score[n, b + j] * e
                            out[j] += kind(more)
                if b <= y < b + len(x):
                    out[y - b] = own
                if len(peaks) and b <= peaks[n] - first < b + len(x):
                    out[peaks[n] - first - b] += kind(by_peak)
                if viewed:
                    if d != 0 or k != 0:
                        for j in range(len(x)):
                            if x[j] > -np.inf:
                                anchor += d + k * (a + np.float64(x[j]))
                    through += _unviewed(before, out, s, c)
                if cap != 0 and tau == 0:
                    _through_cap(before, kind(cap), out)
            on_scale = through + (anchor + by_peak + factor * slope(slopes, where, OFFSET, n)) * np.float64(c)
            if len(g_scale):
                g_scale[part * rows + n] = on_scale
            if tau != 0:  # s = 1 / (τ‖x‖), so that ∂s/∂x_j = −s³ τ² x_j
                multiple = kind(-on_scale * np.float64(s) ** 3 * tau**2)
                for b in range(0, classes, BLOCK):
                    before = _loaded(z, at + b, at + min(b + BLOCK, classes), cap, cap_buffer)
                    out = g[to + b : to + b + len(before)]
                    _add_multiple(before, multiple, out)
                    if cap != 0:
                        _through_cap(before, kind(cap), out)
