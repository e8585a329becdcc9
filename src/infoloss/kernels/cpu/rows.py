"""Classes that lie side by side: a block of rows at a time, several short ones or a stretch of a long one.

``moments`` reads each row once, with running sums that are rescaled when the maximum grows; ``gradient``
reads it again and writes, for each element,

    e (a + b u + c e) + d + k z   (+ the label's and the maximum's own shares)

with one set of coefficients a row. A block, :data:`BLOCK` elements, fits the first-level cache, and each step
is done for all its rows before the next: were one row finished before the next, keeping so many numbers at
once would cost as much as a hundred classes. Elements are float32 (float64 for float64 logits), sums float64.

A view z' = s (κ(z) − c) + v (κ the soft cap, c the row's maximum, s a scale or 1/(τ‖z‖)) is applied to a
block as it is loaded. Few long rows are cut into parts of columns, whose moments the caller merges.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from infoloss.kernels.cpu import stretch
from infoloss.kernels.cpu.arithmetic import capped, inlined, maximum, unmanaged
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
    start_of,
)

__all__ = ["BLOCK", "gradient", "moments"]

BLOCK = 2048
CHUNKS = 64
"""Pieces of work that threads share: more than one a thread, so that none waits long for another."""


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
        here = at + np.uint64(b)
        if cap == 0:
            squares += stretch.power_sums(z, here, n, 0.0)[1]
        else:
            stretch.kappa(z, here, n, cap, buffer, np.uint64(0))
            squares += stretch.power_sums(buffer, np.uint64(0), n, 0.0)[1]
    return 1 / (tau * math.sqrt(squares + SMALLEST_NORM**2))


# -- blocks -----------------------------------------------------------------------------------------


class Block(NamedTuple):
    """Memory for the rows of a block: which they are, their elements, and numbers of each."""

    row: Any  # (R,)
    at: Any  # (R,) where they begin in the logits
    to: Any  # (R,) where they begin in the gradient
    y: Any  # (R,) their labels
    kappa: Any  # (BLOCK,) κ(z)
    x: Any  # (BLOCK,) z'
    e: Any  # (BLOCK,) e^u
    short: Any  # (., R) of the elements' type
    long: Any  # (., R) float64


@inlined()
def _block(layout, dtype):
    r = _rows_of_block(layout)
    integers, places = np.zeros((2, r), np.int64), np.zeros((2, r), np.uint64)
    elements = np.empty((3, BLOCK), dtype)
    return Block(
        integers[0],
        places[0],
        places[1],
        integers[1],
        elements[0],
        elements[1],
        elements[2],
        np.zeros((5, r), dtype),
        np.zeros((16, r)),
    )


@unmanaged()
def _rows_of_block(layout):
    return max(1, BLOCK // layout[1])


@unmanaged()
def _blocks(layout):
    """How many blocks of rows there are, times the parts that rows are cut into."""
    r = _rows_of_block(layout)
    return (layout[0] + r - 1) // r * layout[6]


@unmanaged()
def _extent(i, layout):
    """The rows of a block, from and to; the part of them that it is, its first class and their number."""
    rows, classes, parts = layout[0], layout[1], layout[6]
    r = _rows_of_block(layout)
    part, start = i % parts, i // parts * r
    first = classes * part // parts
    return start, min(rows, start + r), part, first, classes * (part + 1) // parts - first


@unmanaged()
def _place(block, t, b, n, held):
    """Where the n classes from b on of row t are: in the block's own memory, or in the logits."""
    return np.uint64(t * n) if held else block.at[t] + np.uint64(b)


@unmanaged()
def _see(block, count, z, b, n, cap, held, c, s, shift, centred):
    """The n classes from b on of each row, as they are seen: κ(z) where it is held, and z'."""
    for t in range(count):
        at, to = block.at[t] + np.uint64(b), np.uint64(t * n)
        if held:
            stretch.kappa(z, at, n, cap, block.kappa, to)
        if held and centred:
            stretch.viewed(block.kappa, to, n, s[t], c[t], shift, b, block.x, to)
        elif centred:
            stretch.viewed(z, at, n, s[t], c[t], shift, b, block.x, to)


@unmanaged()
def _take_label(block, t, label, first, classes):
    """The label as a class of this part of the row; −1 where it is one of another part."""
    y = label[block.row[t]] - first
    block.y[t] = y if 0 <= y < classes else -1
    return block.y[t]


# -- moments ----------------------------------------------------------------------------------------


@unmanaged()
def _keep(out, where, moment, block, count, first, values):
    if where[moment] >= 0:
        for t in range(count):
            out[where[moment], first + block.row[t]] = values[t]


@unmanaged()
def _rise(m, top, e1, w1, q1):
    """The sums about a maximum, about a larger one."""
    d = np.float64(m) - np.float64(top)
    if d == -np.inf:  # there are none yet
        return e1, w1, q1
    f = math.exp(d)
    return f * e1, f * (w1 + d * e1), f * f * q1


@unmanaged()
def _moments_of_block(i, layout, given, out, peaks, block):
    """One block of :func:`moments`."""
    z, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where = given
    rows, all_classes = layout[0], layout[1]
    kind = z.dtype.type
    cap = kind(cap)
    held = cap != 0
    centred = len(shift) > 0 or len(scale) > 0 or tau != 0
    products, squares = where[EXP_LOGIT] >= 0, where[EXP_SQUARE] >= 0
    exps = products or squares or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    start, stop, part, first, classes = _extent(i, layout)
    count = wrong = 0
    for n in range(start, stop):
        if len(label) and label[n] != ignored and not 0 <= label[n] < all_classes:
            wrong = max(wrong, rows - n)
        elif counts(n, label, ignored, kept):
            block.row[count] = n
            block.at[count] = np.uint64(start_of(n, layout) + first)
            count += 1
        else:
            leave_out(out, where, part * rows + n, all_classes)
            if len(peaks):
                peaks[part * rows + n] = 0
    if wrong:
        return wrong

    c, s, m, about, own = block.short[0], block.short[1], block.short[2], block.short[3], block.short[4]
    a, e1, w1, q1 = block.long[0], block.long[1], block.long[2], block.long[3]
    s1, s2, seen, peak = block.long[4], block.long[5], block.long[6], block.long[7]
    l1, l2, l3, l4 = block.long[8], block.long[9], block.long[10], block.long[11]
    block.long[:] = 0
    for t in range(count):
        c[t], s[t], m[t] = kind(0), kind(1), kind(-np.inf)
        if centred:
            c[t] = _centre(z, block.at[t], classes, cap)
            if len(scale):
                s[t] = kind(scale[block.row[t]])
            if tau != 0:
                s[t] = kind(_row_scale(z, block.at[t], classes, tau, cap, block.kappa))
        a[t] = np.float64(s[t]) * np.float64(c[t])
        seen[t] = classes
        if len(peaks):
            peaks[part * rows + block.row[t]] = first  # where every class is masked

    x = block.x if centred else block.kappa if held else z
    in_block = centred or held
    # a target's sums cannot be rescaled: with a soft one, the maximum is found before them
    for turn in range(1 if soft.shape[0] else 0, -1, -1):
        for b in range(0, classes, BLOCK):
            n = min(BLOCK, classes - b)
            _see(block, count, z, b, n, cap, held, c, s, shift, centred)
            for t in range(count):
                at = _place(block, t, b, n, in_block)
                top = maximum(x, at, n)
                if top > m[t]:
                    e1[t], w1[t], q1[t] = _rise(m[t], top, e1[t], w1[t], q1[t])
                    m[t] = top
                    if len(peaks):
                        peaks[part * rows + block.row[t]] = first + b + stretch.first(x, at, n, top)
                about[t] = m[t] if m[t] > -np.inf else kind(0)
            if turn == 1:
                continue
            if exps:
                ahead = 0 if in_block else count * n
                for t in range(count):
                    at = _place(block, t, b, n, in_block)
                    stretch.exps(x, at, n, about[t], block.e, np.uint64(t * n), ahead)
                for t in range(count):
                    e1[t] += stretch.total(block.e, np.uint64(t * n), n)
            if products:
                for t in range(count):
                    at = _place(block, t, b, n, in_block)
                    w1[t] += stretch.sum_of_products(x, at, n, about[t], block.e, np.uint64(t * n))
            if squares:
                for t in range(count):
                    q1[t] += stretch.sum_of_squares(block.e, np.uint64(t * n), n)
            if powers:
                for t in range(count):
                    found = stretch.power_sums(x, _place(block, t, b, n, in_block), n, a[t])
                    s1[t] += found[0]
                    s2[t] += found[1]
                    seen[t] -= found[2]
            if soft.shape[0]:
                for t in range(count):
                    at = _place(block, t, b, n, in_block)
                    of_target = stretch.soft_sums(x, at, n, soft, score, block.row[t], b, a[t], about[t])
                    l1[t] += of_target[0]
                    l2[t] += of_target[1]
                    l3[t] += of_target[2]
                    l4[t] += of_target[3]
                    if of_target[4]:
                        l1[t] = -np.inf

    for t in range(count):
        if m[t] == -np.inf:  # every class is masked, or nan
            for j in range(np.uint64(classes)):
                m[t] += z[block.at[t] + j]
        about[t] = kind(0) if m[t] == -np.inf else m[t]
        peak[t] = a[t] + np.float64(m[t])
    if len(label):
        for t in range(count):
            y = _take_label(block, t, label, first, classes)
            own[t] = kind(-np.inf)
            if y >= 0:
                own[t] = z[block.at[t] + np.uint64(y)]
                if cap != 0:
                    own[t] = capped(own[t], cap)
                if centred and own[t] > -np.inf:
                    own[t] = s[t] * (own[t] - c[t]) + (shift[y] if len(shift) else kind(0))
        label_sums(own, about, a, l1, l2, l3)
        log_floor = math.log(floor) if floor > 0 else 0.0
        for t in range(count):
            if block.y[t] < 0:
                l1[t] = 0
            l4[t] = (e1[t] - l3[t]) * log_floor
    o = part * rows
    _keep(out, where, MAXIMUM, block, count, o, m)
    _keep(out, where, CLASSES, block, count, o, seen)
    _keep(out, where, EXP, block, count, o, e1)
    _keep(out, where, EXP_LOGIT, block, count, o, w1)
    _keep(out, where, EXP_SQUARE, block, count, o, q1)
    _keep(out, where, SUM, block, count, o, s1)
    _keep(out, where, SQUARE, block, count, o, s2)
    _keep(out, where, LABEL, block, count, o, l1)
    _keep(out, where, LABEL_SQUARE, block, count, o, l2)
    _keep(out, where, LABEL_EXP, block, count, o, l3)
    _keep(out, where, LABEL_LOG_EXP, block, count, o, l4)
    _keep(out, where, PEAK, block, count, o, peak)
    _keep(out, where, CENTRE, block, count, o, c)
    _keep(out, where, OFFSET, block, count, o, a)
    _keep(out, where, SCALE, block, count, o, s)
    return 0


def moments(layout, given, out, peaks):
    """Moments of rows or parts of rows; returns N − n for the first row n whose label is out of range, or 0.

    Args:
        layout: rows, classes, inner, outer stride, class stride (1), inner stride, parts of a row.
        given: what is read, in this order.

            - z: (…,) the memory that holds the logits.
            - label, ignored: (N,) or empty; rows with the label ``ignored`` count for nothing.
            - soft, score: (N, C) a soft target and ln max(target, floor), or empty.
            - kept: (N,) which rows count, or empty.
            - shift, scale, tau, cap: the view; shift (C,) and scale (N,) or empty, tau and cap 0 for none.
            - floor: of the target in its logarithm.
            - where: the row of ``out`` for each moment, or −1.
        out: (K, parts·N).
        peaks: (parts·N,) the class of the maximum, or empty.
    """
    z = given[0]
    work = _blocks(layout)
    chunks = min(work, CHUNKS)
    wrong = 0
    for chunk in prange(chunks):
        block = _block(layout, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            wrong = max(wrong, _moments_of_block(i, layout, given, out, peaks, block))
    return wrong


# -- gradient ---------------------------------------------------------------------------------------


@unmanaged()
def _slopes(slopes, where, moment, block, count, factor, out):
    """The derivative in a moment of each row, times a factor."""
    if where[moment] >= 0:
        for t in range(count):
            out[t] = factor * slopes[where[moment], block.row[t]]
    else:
        out[:] = 0


@unmanaged()
def _gradient_of_block(i, layout, given, packed, peaks, slopes, factor, g, g_layout, g_scale, over, block):
    """One block of :func:`gradient`."""
    z, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where = given
    rows = layout[0]
    kind = z.dtype.type
    cap = kind(cap)
    held = cap != 0 or over  # no loop vectorises that reads where it writes
    scaled = len(scale) > 0 or tau != 0
    centred = len(shift) > 0 or scaled
    powers = where[SUM] >= 0 or where[SQUARE] >= 0
    only_exp = where[EXP_LOGIT] < 0 and where[EXP_SQUARE] < 0 and not powers
    log_floor = math.log(floor) if floor > 0 and len(label) else 0.0
    start, stop, part, first, classes = _extent(i, layout)
    c, s, m, own = block.short[0], block.short[1], block.short[2], block.short[3]
    count = 0
    for n in range(start, stop):
        m[count] = kind(packed[where[MAXIMUM], n])
        to = np.uint64(start_of(n, g_layout) + first)
        if counts(n, label, ignored, kept) and m[count] != -np.inf:
            block.row[count] = n
            block.at[count] = np.uint64(start_of(n, layout) + first)
            block.to[count] = to
            count += 1
        else:
            for j in range(np.uint64(classes)):
                g[to + j] = 0
            if len(g_scale):
                g_scale[part * rows + n] = 0

    a, c0, c1, c2 = block.long[0], block.long[1], block.long[2], block.long[3]
    d, k, by_label, by_square = block.long[4], block.long[5], block.long[6], block.long[7]
    by_exp, by_score, by_peak = block.long[8], block.long[9], block.long[10]
    through, anchor, value = block.long[11], block.long[12], block.long[13]
    _slopes(slopes, where, EXP, block, count, factor, c0)
    _slopes(slopes, where, EXP_LOGIT, block, count, factor, c1)
    _slopes(slopes, where, EXP_SQUARE, block, count, 2 * factor, c2)
    _slopes(slopes, where, SUM, block, count, factor, d)
    _slopes(slopes, where, SQUARE, block, count, 2 * factor, k)
    _slopes(slopes, where, LABEL, block, count, factor, by_label)
    _slopes(slopes, where, LABEL_SQUARE, block, count, 2 * factor, by_square)
    _slopes(slopes, where, LABEL_EXP, block, count, factor, by_exp)
    _slopes(slopes, where, LABEL_LOG_EXP, block, count, factor, by_score)
    _slopes(slopes, where, PEAK, block, count, factor, by_peak)
    _slopes(slopes, where, OFFSET, block, count, factor, anchor)
    for t in range(count):
        c0[t] += c1[t] + by_score[t] * log_floor
        by_exp[t] -= by_score[t] * log_floor
        anchor[t] += by_peak[t]
        through[t] = 0
        c[t], s[t] = kind(0), kind(1)
        if centred:
            c[t] = kind(packed[where[CENTRE], block.row[t]])
            if len(scale):
                s[t] = kind(scale[block.row[t]])
            if tau != 0:
                s[t] = kind(packed[where[SCALE], block.row[t]])
        a[t] = np.float64(s[t]) * np.float64(c[t])
        if len(label):
            _take_label(block, t, label, first, classes)

    kappa = block.kappa if held else z
    x = block.x if centred else kappa
    in_block = centred or held
    for b in range(0, classes, BLOCK):
        n = min(BLOCK, classes - b)
        _see(block, count, z, b, n, cap, held, c, s, shift, centred)
        for t in range(count):
            at, to = _place(block, t, b, n, in_block), block.to[t] + np.uint64(b)
            if only_exp:
                stretch.exp_elements(x, at, n, m[t], kind(c0[t]), g, to)
            else:
                f0, f1, f2, fd, fk = kind(c0[t]), kind(c1[t]), kind(c2[t]), kind(d[t]), kind(k[t])
                stretch.elements(x, at, n, kind(a[t]), m[t], f0, f1, f2, fd, fk, g, to)
        if soft.shape[0]:
            for t in range(count):
                anchor[t] += stretch.add_soft(
                    x,
                    _place(block, t, b, n, in_block),
                    n,
                    soft,
                    score,
                    block.row[t],
                    b,
                    a[t],
                    m[t],
                    by_label[t],
                    by_square[t],
                    by_exp[t],
                    by_score[t],
                    g,
                    block.to[t] + np.uint64(b),
                )
        if len(label):
            for t in range(count):
                y = block.y[t] - b
                inside = 0 <= y < n
                own[t] = x[_place(block, t, b, n, in_block) + np.uint64(y)] if inside else kind(-np.inf)
            label_element(own, m, a, c0, c1, c2, d, k, by_label, by_square, by_exp, value)
            for t in range(count):
                if own[t] > -np.inf:
                    anchor[t] += by_square[t] * (a[t] + np.float64(own[t]))
                    g[block.to[t] + np.uint64(block.y[t])] = kind(value[t])
        if len(peaks):
            for t in range(count):
                top = peaks[block.row[t]] - first
                if b <= top < b + n:
                    g[block.to[t] + np.uint64(top)] += kind(by_peak[t])
        if scaled and powers:
            for t in range(count):
                s1, _, masked = stretch.power_sums(x, _place(block, t, b, n, in_block), n, a[t])
                anchor[t] += d[t] * (n - masked) + k[t] * s1
        if scaled:
            for t in range(count):
                at, to = _place(block, t, b, n, held), block.to[t] + np.uint64(b)
                through[t] += stretch.on_scale(kappa, at, n, c[t], g, to)
        if tau == 0:
            for t in range(count):
                at, to = _place(block, t, b, n, held), block.to[t] + np.uint64(b)
                if scaled:
                    stretch.unscale(kappa, at, n, s[t], kind(0), g, to)
                if cap != 0:
                    stretch.through_cap(kappa, at, n, cap, g, to)

    for t in range(count):
        through[t] += anchor[t] * np.float64(c[t])
        if len(g_scale):
            g_scale[part * rows + block.row[t]] = through[t]
    if tau != 0:  # s = 1 / (τ‖x‖), so that ∂s/∂x_j = −s³ τ² x_j
        for b in range(0, classes, BLOCK):
            n = min(BLOCK, classes - b)
            _see(block, count, z, b, n, cap, held, c, s, shift, False)
            for t in range(count):
                at, to = _place(block, t, b, n, held), block.to[t] + np.uint64(b)
                multiple = kind(-through[t] * np.float64(s[t]) ** 3 * tau**2)
                stretch.unscale(kappa, at, n, s[t], multiple, g, to)
                if cap != 0:
                    stretch.through_cap(kappa, at, n, cap, g, to)


def gradient(layout, given, packed, peaks, slopes, factor, g, g_layout, g_scale):
    """The gradient of the logits, and of a scale, from coefficients per row and moment.

    Args:
        layout, given: as for :func:`moments`.
        packed, peaks: (K, N) and (N,), what :func:`moments` found, merged.
        slopes, factor: (K, N) times a number, the derivatives in the moments.
        g, g_layout: the memory for the gradient, and its strides as those of z; z itself where tau is 0.
        g_scale: (parts·N,) for the derivative in the scale, or empty.
    """
    z = given[0]
    work = _blocks(layout)
    chunks = min(work, CHUNKS)
    over = z.ctypes.data == g.ctypes.data
    for chunk in prange(chunks):
        block = _block(layout, z.dtype)
        for i in range(work * chunk // chunks, work * (chunk + 1) // chunks):
            _gradient_of_block(
                i, layout, given, packed, peaks, slopes, factor, g, g_layout, g_scale, over, block
            )
