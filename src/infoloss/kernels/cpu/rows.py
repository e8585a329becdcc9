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
from numba import prange

from infoloss.kernels.cpu.arithmetic import REORDERED, capped, exp, lowest, maximum, unmanaged
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


# -- blocks of n elements of x from a place on: loops that vectorise --------------------------------
# Places are unsigned: a signed one might count from the end, and no such loop vectorises.


@unmanaged(fastmath=REORDERED)
def _exps(x, at, n, m, e):
    """e_j = e^u."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        e[j] = zero if u < low else exp(v)


# in loops of their own, since a loop with float64 in it takes shorter vectors


@unmanaged(fastmath=REORDERED)
def _sum(e, n):
    s = 0.0  # beside the largest element, 1, the others would be rounded away in float32
    for j in range(np.uint64(n)):
        s += np.float64(e[j])
    return s


@unmanaged(fastmath=REORDERED)
def _more_sums(x, at, n, m, e):
    """Σ u e^u, Σ e^2u."""
    w = q = 0.0
    low = lowest(x.dtype.type(0))
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        w += np.float64(v * e[j])
        q += np.float64(e[j] * e[j])
    return w, q


@unmanaged(fastmath=REORDERED)
def _power_sums(x, at, n, a):
    """Σ z, Σ z² with z = a + x, and the number of masked classes."""
    s = q = 0.0
    masked = 0
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        gone = x[at + j] == gone_at
        z = 0.0 if gone else a + np.float64(x[at + j])
        s += z
        q += z * z
        masked += gone
    return s, q, masked


@unmanaged(fastmath=REORDERED)
def _soft_sums(x, at, n, soft, score, row, b, a, m):
    """Σ t u, Σ t z², Σ t e^u, Σ score e^u over the unmasked classes, and whether t wants a masked one."""
    l1 = l2 = l3 = l4 = 0.0
    wanted = False
    low = lowest(x.dtype.type(0))
    for j in range(n):
        x_j = x[at + np.uint64(j)]
        u = x_j - m
        e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
        if x_j == -np.inf:
            wanted |= soft[row, b + j] != 0
        else:
            z = a + np.float64(x_j)
            l1 += soft[row, b + j] * np.float64(u)
            l2 += soft[row, b + j] * z * z
            l3 += soft[row, b + j] * e
        if score.shape[0]:
            l4 += score[row, b + j] * e
    return l1, l2, l3, l4, wanted


@unmanaged(fastmath=REORDERED)
def _elements(x, at, n, a, m, c0, c1, c2, d, k, g, to):
    """g_j = e (c0 + c1 u + c2 e) + d + k z, 0 where masked."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        e = zero if u < low else exp(v)
        value = e * (c0 + c1 * v + c2 * e) + d + k * (a + x[at + j])
        g[to + j] = zero if x[at + j] == gone_at else value


@unmanaged(fastmath=REORDERED)
def _exp_elements(x, at, n, m, c0, g, to):
    """g_j = c0 e, all that most losses need."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        e = exp(low if u < low else u)
        g[to + j] = zero if u < low else c0 * e


@unmanaged()
def _add_soft(x, at, n, soft, score, row, b, a, m, by_label, by_square, by_exp, by_score, g, to):
    """Add the soft target's share of the gradient; what of it goes through the centre."""
    anchor = 0.0
    low = lowest(x.dtype.type(0))
    for j in range(n):
        x_j = x[at + np.uint64(j)]
        if x_j > -np.inf:
            u = x_j - m
            e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
            t = soft[row, b + j]
            square = by_square * (a + np.float64(x_j))
            pull = t * (by_label + square + by_exp * e)
            anchor += t * square
            if score.shape[0]:
                pull += by_score * score[row, b + j] * e
            g[to + np.uint64(j)] += x.dtype.type(pull)
    return anchor


@unmanaged(fastmath=REORDERED)
def _kappa(z, at, n, cap, x):
    """x_j = κ(z_j), z_j where there is no cap."""
    if cap == 0:
        for j in range(np.uint64(n)):
            x[j] = z[at + j]
    else:
        for j in range(np.uint64(n)):
            x[j] = capped(z[at + j], cap)


@unmanaged(fastmath=REORDERED)
def _through_cap(x, n, cap, g, to):
    """g_j times κ'(z_j) = 1 − (κ(z_j) / κ_max)²."""
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        r = x[j] / cap
        g[to + j] = zero if x[j] == gone_at else g[to + j] * (one - r * r)


@unmanaged(fastmath=REORDERED)
def _view(x, n, s, c, shift, b, v):
    """v_j = s (x_j − c) + shift_j."""
    gone_at = x.dtype.type(-np.inf)
    if len(shift):
        first = np.uint64(b)
        for j in range(np.uint64(n)):
            value = s * (x[j] - c) + shift[first + j]
            v[j] = gone_at if x[j] == gone_at else value
    else:
        for j in range(np.uint64(n)):
            value = s * (x[j] - c)
            v[j] = gone_at if x[j] == gone_at else value


@unmanaged(fastmath=REORDERED)
def _unview(x, n, s, c, g, to):
    """g to the gradient of the logits before scale and shift, and Σ g_j (x_j − c) of before."""
    total = 0.0
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        centred = np.float64(0) if x[j] == gone_at else np.float64(x[j]) - np.float64(c)
        total += np.float64(g[to + j]) * centred
        g[to + j] = s * g[to + j]
    return total


@unmanaged(fastmath=REORDERED)
def _add_multiple(x, n, factor, g, to):
    """g_j + factor·x_j where the class is not masked."""
    zero = x.dtype.type(0)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        g[to + j] += zero if x[j] == gone_at else factor * x[j]


# -- rows -----------------------------------------------------------------------------------------


@unmanaged()
def _first(x, at, n, value):
    """The first place of a value that is there."""
    for j in range(n):
        if x[at + np.uint64(j)] == value:
            return j
    return 0


@unmanaged()
def _centre(z, at, classes, cap):
    """The maximum of κ(z), 0 where every class is masked."""
    c = maximum(z, at, classes)
    if c == -np.inf:
        return z.dtype.type(0)
    return capped(c, cap) if cap != 0 else c


@unmanaged()
def _row_scale(z, at, classes, tau, cap, buffer):
    """1 / (τ ‖κ(z)‖)."""
    squares = 0.0
    for b in range(0, classes, BLOCK):
        n = min(BLOCK, classes - b)
        _kappa(z, at + np.uint64(b), n, cap, buffer)
        squares += _power_sums(buffer, np.uint64(0), n, 0.0)[1]
    return 1 / (tau * math.sqrt(squares + SMALLEST_NORM**2))


@unmanaged()
def _sums(x, at, n, m, a, exps, several, powers, e):
    """Σ e^u, Σ u e^u, Σ e^2u, Σ z, Σ z² and the masked classes of a block, as far as they are asked for."""
    e1 = w1 = q1 = s1 = s2 = 0.0
    masked = 0
    if exps:
        _exps(x, at, n, m, e)
        e1 = _sum(e, n)
        if several:
            w1, q1 = _more_sums(x, at, n, m, e)
    if powers:
        s1, s2, masked = _power_sums(x, at, n, a)
    return e1, w1, q1, s1, s2, masked


@unmanaged()
def _moments_of_row(
    i,
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
    out,
    peaks,
    kappa,
    x,
    e,
):
    """One row, or part of a row, of :func:`moments`; whether its label is out of range."""
    rows, all_classes, parts = layout[0], layout[1], layout[6]
    kind = z.dtype.type
    zero, cap = np.uint64(0), kind(cap)
    centred = len(shift) > 0 or len(scale) > 0 or tau != 0
    plain = not centred and cap == 0
    several = where[EXP_LOGIT] >= 0 or where[EXP_SQUARE] >= 0
    exps = several or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    n, part, first, classes = i, 0, 0, all_classes
    if parts > 1:  # divisions are slow beside a short row
        n, part = i // parts, i % parts
        first = all_classes * part // parts
        classes = all_classes * (part + 1) // parts - first
    o = part * rows + n
    y = label[n] if len(label) else -1
    if len(label) and y != ignored and (y < 0 or y >= all_classes):
        return True
    if not counts(n, label, ignored, kept):
        leave_out(out, where, o, all_classes)
        if len(peaks):
            peaks[o] = 0
        return False
    y -= first
    at = np.uint64(start_of(n, layout) + first)
    c, s = kind(0), kind(1)
    if centred:
        c = _centre(z, at, classes, cap)
        if len(scale):
            s = kind(scale[n])
        if tau != 0:
            s = kind(_row_scale(z, at, classes, tau, cap, kappa))
    a = np.float64(s) * np.float64(c)
    m = kind(-np.inf)
    if len(peaks):
        peaks[o] = first  # where every class is masked
    e1 = w1 = q1 = s1 = s2 = l1 = l2 = l3 = l4 = 0.0
    masked = 0
    wanted = False
    # a target's sums cannot be rescaled: with a soft one, the maximum is found before them
    for turn in range(1 if soft.shape[0] else 0, -1, -1):
        for b in range(0, classes, BLOCK):
            length = min(BLOCK, classes - b)
            here = at + np.uint64(b)
            if plain:
                top = maximum(z, here, length)
            else:
                _kappa(z, here, length, cap, kappa)
                if centred:
                    _view(kappa, length, s, c, shift, b, x)
                else:
                    _kappa(kappa, zero, length, kind(0), x)
                top = maximum(x, zero, length)
            if top > m:
                d = np.float64(m) - np.float64(top)
                if d > -np.inf:
                    f = math.exp(d)
                    w1 = f * (w1 + d * e1)
                    e1 *= f
                    q1 *= f * f
                m = top
                if len(peaks):
                    there = _first(z, here, length, m) if plain else _first(x, zero, length, m)
                    peaks[o] = first + b + there
            if turn == 1:
                continue
            centre = m if m > -np.inf else kind(0)
            if plain:
                found = _sums(z, here, length, centre, a, exps, several, powers, e)
            else:
                found = _sums(x, zero, length, centre, a, exps, several, powers, e)
            e1 += found[0]
            w1 += found[1]
            q1 += found[2]
            s1 += found[3]
            s2 += found[4]
            masked += found[5]
            if soft.shape[0]:
                if plain:
                    _kappa(z, here, length, kind(0), x)
                more = _soft_sums(x, zero, length, soft, score, n, b, a, centre)
                l1 += more[0]
                l2 += more[1]
                l3 += more[2]
                l4 += more[3]
                wanted |= more[4]
    if m == -np.inf:  # every class is masked, or nan
        for j in range(np.uint64(classes)):
            m += z[at + j]
    if len(label):
        if 0 <= y < classes:
            x_y = z[at + np.uint64(y)]
            if cap != 0:
                x_y = capped(x_y, cap)
            if centred and x_y > -np.inf:
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
    return False


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
    work = layout[0] * layout[6]
    chunks = min(work, CHUNKS)
    wrong = 0
    for chunk in prange(chunks):
        kappa, x, e = np.empty(BLOCK, z.dtype), np.empty(BLOCK, z.dtype), np.empty(BLOCK, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            if _moments_of_row(
                i,
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
                out,
                peaks,
                kappa,
                x,
                e,
            ):
                wrong = max(wrong, layout[0] - i // layout[6])
    return wrong


@unmanaged()
def _gradient_of_row(
    i,
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
    over,
    kappa,
    x,
):
    """One row, or part of a row, of :func:`gradient`."""
    rows, all_classes, parts = layout[0], layout[1], layout[6]
    kind = z.dtype.type
    zero, cap = np.uint64(0), kind(cap)
    centred = len(shift) > 0 or len(scale) > 0 or tau != 0
    plain = not centred and cap == 0 and not over  # no loop vectorises that reads where it writes
    log_floor = math.log(floor) if floor > 0 and len(label) else 0.0
    n, part, first, classes = i, 0, 0, all_classes
    if parts > 1:
        n, part = i // parts, i % parts
        first = all_classes * part // parts
        classes = all_classes * (part + 1) // parts - first
    at = np.uint64(start_of(n, layout) + first)
    to = np.uint64(start_of(n, g_layout) + first)
    m = kind(packed[where[MAXIMUM], n])
    if not counts(n, label, ignored, kept) or m == -np.inf:
        for j in range(np.uint64(classes)):
            g[to + j] = 0
        if len(g_scale):
            g_scale[part * rows + n] = 0
        return
    y = label[n] - first if len(label) else -1
    c, s = kind(0), kind(1)
    if centred:
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
    by_score = factor * slope(slopes, where, LABEL_LOG_EXP, n)
    by_exp = factor * slope(slopes, where, LABEL_EXP, n) - by_score * log_floor
    by_peak = factor * slope(slopes, where, PEAK, n)
    c0 = factor * slope(slopes, where, EXP, n) + c1 + by_score * log_floor
    only_exp = c1 == 0 and c2 == 0 and d == 0 and k == 0
    through = anchor = 0.0
    for b in range(0, classes, BLOCK):
        length = min(BLOCK, classes - b)
        here, there = at + np.uint64(b), to + np.uint64(b)
        has_label = b <= y < b + length
        if plain:
            own = z[at + np.uint64(y)] if has_label else kind(0)
            if soft.shape[0]:
                _kappa(z, here, length, kind(0), x)
            if only_exp:
                _exp_elements(z, here, length, m, kind(c0), g, there)
            else:
                _elements(
                    z, here, length, kind(a), m, kind(c0), kind(c1), kind(c2), kind(d), kind(k), g, there
                )
        else:
            _kappa(z, here, length, cap, kappa)
            if centred:
                _view(kappa, length, s, c, shift, b, x)
            else:
                _kappa(kappa, zero, length, kind(0), x)
            own = x[np.uint64(y - b)] if has_label else kind(0)
            if only_exp:
                _exp_elements(x, zero, length, m, kind(c0), g, there)
            else:
                _elements(
                    x, zero, length, kind(a), m, kind(c0), kind(c1), kind(c2), kind(d), kind(k), g, there
                )
        if soft.shape[0]:
            anchor += _add_soft(
                x, zero, length, soft, score, n, b, a, m, by_label, by_square, by_exp, by_score, g, there
            )
        if has_label and own > -np.inf:
            u = own - m
            low = lowest(u)
            e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
            z_y = a + np.float64(own)
            anchor += by_square * z_y
            # q_y − 1 cancels: the label's entry in one float64 expression
            by_e = e * (c0 + c1 * np.float64(u) + c2 * e + by_exp)
            g[to + np.uint64(y)] = kind(by_e + d + k * z_y + by_label + by_square * z_y)
        if len(peaks) and b <= peaks[n] - first < b + length:
            g[to + np.uint64(peaks[n] - first)] += kind(by_peak)
        if centred:
            if d != 0 or k != 0:
                s1, _, masked = _power_sums(x, zero, length, a)
                anchor += d * (length - masked) + k * s1
            through += _unview(kappa, length, s, c, g, there)
        if cap != 0 and tau == 0:
            _through_cap(kappa, length, cap, g, there)
    on_scale = through + (anchor + by_peak + factor * slope(slopes, where, OFFSET, n)) * np.float64(c)
    if len(g_scale):
        g_scale[part * rows + n] = on_scale
    if tau != 0:  # s = 1 / (τ‖x‖), so that ∂s/∂x_j = −s³ τ² x_j
        multiple = kind(-on_scale * np.float64(s) ** 3 * tau**2)
        for b in range(0, classes, BLOCK):
            length = min(BLOCK, classes - b)
            there = to + np.uint64(b)
            _kappa(z, at + np.uint64(b), length, cap, kappa)
            _add_multiple(kappa, length, multiple, g, there)
            if cap != 0:
                _through_cap(kappa, length, cap, g, there)


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
        g, g_layout: the memory for the gradient, and its strides as those of z; z itself where tau is 0.
        g_scale: (parts·N,) for the derivative in the scale, or empty.
    """
    work = layout[0] * layout[6]
    chunks = min(work, CHUNKS)
    over = z.ctypes.data == g.ctypes.data
    for chunk in prange(chunks):
        kappa, x = np.empty(BLOCK, z.dtype), np.empty(BLOCK, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            _gradient_of_row(
                i,
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
                over,
                kappa,
                x,
            )
