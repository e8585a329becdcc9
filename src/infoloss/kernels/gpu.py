"""The GPU kernel: moments of rows, and their gradient over the columns, compiled with Triton.

The loops of :mod:`infoloss.kernels.cpu` for a GPU. A program reads a few rows tile by tile, each tile
centred at the largest element so far; sums about another centre are moved by the rule that also merges
partials (:func:`_rescaled`). Where rows are few, several programs share the columns of a row and
:func:`merge` adds up what they found. :func:`gradient` reads the rows again and writes, for each element,

    e (a + b u + c e) + d + k z   (+ the label's and the maximum's own shares)

and may write it over what it has read: nobody but a column's own program uses its logit, and that program
reads the label's before it writes.

Elements are float32 (float64 for float64 logits), whatever they are stored as, and so are the sums that each
column of a tile keeps over the tiles: of exponentials without the largest elements, which are counted apart
(beside their ones the others would be rounded away), of logits about one of the row's. What is kept of a row
is float64, and so are a soft target's sums.

A view z' = s(z − c) + v (c the row's maximum) is applied to a tile as it is loaded.

The columns need not be all classes of a row: they are those from ``first`` on of ``total``. Where a linear
head makes its logits a few classes at a time, :func:`moments` goes on from what it left of the classes
before.

The columns of a row that fill whole tiles are read without asking of each whether it exists: there, memory
is what takes the time, and little else may.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

__all__ = ["PARTS", "gradient", "merge", "moments"]

PARTS = 14
"""Numbers that :func:`moments` keeps of a part of a row."""

MAXIMUM = tl.constexpr(0)
CLASSES = tl.constexpr(1)
EXP = tl.constexpr(2)
EXP_LOGIT = tl.constexpr(3)
EXP_SQUARE = tl.constexpr(4)
SUM = tl.constexpr(5)
SQUARE = tl.constexpr(6)
LABEL = tl.constexpr(7)
LABEL_SQUARE = tl.constexpr(8)
LABEL_EXP = tl.constexpr(9)
LABEL_LOG_EXP = tl.constexpr(10)
PEAK = tl.constexpr(11)
CENTRE = tl.constexpr(12)
OFFSET = tl.constexpr(13)
SCALE = tl.constexpr(14)

MASKED = tl.constexpr(float("-inf"))
FAR = tl.constexpr(-1000.0)  # e to this is 0
NEAR = tl.constexpr(0.01)
BEYOND = tl.constexpr(2**31 - 1)  # no column has this number
LOG2_E = tl.constexpr(1.4426950408889634)
PTX = tl.constexpr(torch.version.hip is None and os.environ.get("TRITON_INTERPRET") != "1")


# -- reading --------------------------------------------------------------------------------------


@triton.jit
def _rows(kept, rows, R: tl.constexpr):
    """The rows of this program, which of them exist, and which of those count."""
    n = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)
    inside = n < rows
    counted = inside
    if kept is not None:
        counted = inside & (tl.load(kept + n, mask=inside, other=0) != 0)
    return n, inside, counted


@triton.jit
def _starts(of, n, inner, outer_stride, inner_stride):
    """Where the rows begin: row n = (b, s) of (B, C, S)."""
    return of + (n // inner) * outer_stride + (n % inner) * inner_stride


@triton.jit
def _exp(x):
    """e^x; in float32 by one instruction, which knows no denormal numbers, where tl.exp takes five."""
    if PTX and x.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * LOG2_E], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp(x)


@triton.jit
def _capped(x, CAP: tl.constexpr):
    """cap·tanh(x / cap), x where CAP is 0; a masked class stays masked."""
    if CAP == 0:
        return x
    r = tl.where(x == MASKED, 0.0, x) / CAP
    square = r * r
    # a series near 0, where 1 − e^(−2|r|) would cancel
    near = r * (1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * (62 / 2835)))))
    e = tl.exp(-2 * tl.abs(r))
    far = (1 - e) / (1 + e)
    value = tl.where(square < NEAR, near, tl.where(r < 0, -far, far))
    return tl.where(x == MASKED, MASKED, (value * CAP).to(x.dtype))


@triton.jit
def _tile(
    starts, kept, counted, start, end, class_stride, R: tl.constexpr, BLOCK: tl.constexpr, TAIL: tl.constexpr
):
    """Some columns as they are stored, zeros in rows that do not count, masked from column ``end`` on."""
    column = start + tl.arange(0, BLOCK)
    at = starts[:, None] + column.to(tl.int64)[None, :] * class_stride
    if TAIL:
        within = (column < end)[None, :]
        x = tl.load(at, mask=counted[:, None] & within, other=MASKED)
        if kept is not None:
            x = tl.where(within & ~counted[:, None], 0.0, x)
    elif R == 1 and kept is None:
        x = tl.load(at)
    else:
        x = tl.load(at, mask=counted[:, None], other=0.0)
    return x


@triton.jit
def _viewed(x, column, s, c, shift, classes, REAL: tl.constexpr):
    """s (x − c) + v; x, s and c of shapes that broadcast, v that of the column."""
    value = s * (x - c)
    if shift is not None:
        value += tl.load(shift + column, mask=column < classes, other=0.0).to(REAL)
    return tl.where(x == MASKED, MASKED, value)


@triton.jit
def _centre(
    starts,
    kept,
    counted,
    classes,
    class_stride,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest capped element of each row, 0 where every class is masked."""
    c = tl.full((R,), MASKED, REAL)
    for start in tl.range(0, classes, BLOCK):
        x = _tile(starts, kept, counted, start, classes, class_stride, R, BLOCK, True)
        c = tl.maximum(c, tl.max(_capped(x.to(REAL), CAP), 1))
    return tl.where(c == MASKED, 0.0, c)


@triton.jit
def _label(
    label,
    starts,
    n,
    inside,
    counted,
    class_stride,
    s,
    c,
    shift,
    classes,
    first,
    total,
    VIEWED: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
):
    """The label's column in each row, −1 where it is not among these, and its element x_y.

    The element is nan where the label is none of the ``total`` classes.
    """
    y = tl.load(label + n, mask=inside, other=0)
    valid = (y >= 0) & (y < total)
    here = valid & (y >= first) & (y < first + classes)
    y = tl.where(here, y - first, -1).to(tl.int32)
    x = tl.load(starts + y.to(tl.int64) * class_stride, mask=counted & here, other=0.0).to(REAL)
    x = _capped(x, CAP)
    if VIEWED:
        x = _viewed(x, tl.where(here, y, 0), s, c, shift, classes, REAL)
    return y, tl.where(valid, x, float("nan"))


@triton.jit
def _get(of, ROW: tl.constexpr, n, inside, rows):
    """A row of packed numbers, zeros where there is none."""
    found = tl.zeros(n.shape, tl.float64)
    if ROW >= 0:
        found = tl.load(of + tl.full(n.shape, ROW, tl.int64) * rows + n, mask=inside, other=0.0)
    return found


@triton.jit
def _slope(of, ROW: tl.constexpr, n, inside, rows, written, by):
    """A row of derivatives times ``by``, zeros in rows whose gradient is zero."""
    return tl.where(written, by * _get(of, ROW, n, inside, rows), 0.0)


@triton.jit
def _put(out, ROW: tl.constexpr, n, inside, rows, value):
    if ROW >= 0:
        tl.store(out + tl.full(n.shape, ROW, tl.int64) * rows + n, value.to(tl.float64), mask=inside)


# -- sums -----------------------------------------------------------------------------------------


@triton.jit
def _rescaled(m, e1, w1, q1, t0, l1, l3, l4, centre):
    """Sums centred at m, of the same elements centred at ``centre``: what lets parts of a row merge."""
    d = tl.where(m == MASKED, 0.0, m.to(tl.float64) - centre.to(tl.float64))
    f = tl.exp(d.to(m.dtype)).to(tl.float64)
    return f * e1, f * (w1 + d * e1), f * f * q1, l1 + d * t0, f * l3, f * l4


@triton.jit
def _total(value):
    """The sum of each row of a tile, added up in float64."""
    return tl.sum(value.to(tl.float64), 1)


@triton.jit
def _finish(
    out,
    n,
    inside,
    counted,
    rows,
    classes,
    label,
    starts,
    class_stride,
    floor,
    shift,
    s,
    c,
    a,
    m,
    count,
    e1,
    w1,
    q1,
    s1,
    s2,
    l1,
    l2,
    l3,
    l4,
    wanted,
    WHERE: tl.constexpr,
    VIEWED: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
):
    """The moments of whole rows from their sums."""
    if label is not None:
        _, x = _label(
            label, starts, n, inside, counted, class_stride, s, c, shift, classes, 0, classes,
            VIEWED, REAL, CAP,
        )  # fmt: skip
        wanted = (x == MASKED).to(tl.int32)
        l1 = (x - m).to(tl.float64)
        l2 = (a + x.to(tl.float64)) * (a + x.to(tl.float64))
        l2 = tl.where(x == MASKED, 0.0, l2)
        l3 = tl.where(x == MASKED, 0.0, _exp(x - m)).to(tl.float64)
        if WHERE[LABEL_LOG_EXP] >= 0:
            l4 = (e1 - l3) * _log_floor(floor)
    _put(out, WHERE[MAXIMUM], n, inside, rows, m)
    _put(out, WHERE[CLASSES], n, inside, rows, count)
    _put(out, WHERE[EXP], n, inside, rows, e1)
    _put(out, WHERE[EXP_LOGIT], n, inside, rows, w1)
    _put(out, WHERE[EXP_SQUARE], n, inside, rows, q1)
    _put(out, WHERE[SUM], n, inside, rows, s1)
    _put(out, WHERE[SQUARE], n, inside, rows, s2)
    _put(out, WHERE[LABEL], n, inside, rows, tl.where(wanted > 0, MASKED, l1))
    _put(out, WHERE[LABEL_SQUARE], n, inside, rows, l2)
    _put(out, WHERE[LABEL_EXP], n, inside, rows, l3)
    _put(out, WHERE[LABEL_LOG_EXP], n, inside, rows, l4)
    _put(out, WHERE[PEAK], n, inside, rows, a + m.to(tl.float64))
    _put(out, WHERE[CENTRE], n, inside, rows, c)
    _put(out, WHERE[OFFSET], n, inside, rows, a)
    _put(out, WHERE[SCALE], n, inside, rows, s)


@triton.jit
def _log_floor(floor):
    """ln of the smallest target probability of a hard label, 0 where there is none."""
    f = tl.load(floor)
    return tl.where(f > 0, tl.log(tl.where(f > 0, f, 1.0)), 0.0)


@triton.jit
def _add(
    raw,
    counted,
    n,
    start,
    end,
    soft,
    shift,
    floor,
    classes,
    first,
    s,
    c,
    a,
    anchor,
    m,
    ones,
    e0,
    w0,
    q0,
    ve,
    vw,
    vq,
    v1,
    v2,
    count,
    peak,
    wanted,
    vt,
    y1,
    y2,
    y3,
    y4,
    WHERE: tl.constexpr,
    EXPS: tl.constexpr,
    POWERS: tl.constexpr,
    COUNT: tl.constexpr,
    VIEWED: tl.constexpr,
    PEAKS: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One more tile.

    Of exponentials, sums are kept for every column of a tile (v…), about the largest element so far;
    how many elements are as large, each 1, is kept apart, and so is what was as large before (e0 …).
    The sums of a soft target are y1 … and that of its probabilities vt.
    """
    column = start + tl.arange(0, BLOCK)
    x = _capped(raw.to(REAL), CAP)
    if VIEWED:
        x = _viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
    top = tl.max(x, 1)
    if PEAKS:
        at = tl.min(tl.where(x == top[:, None], first + column[None, :], BEYOND), 1)
        peak = tl.where(top > m, at, peak)  # not ≥: of ties the lowest index
    if tl.max((top > m).to(tl.int32), 0) > 0:
        new = tl.maximum(m, top)
        d = tl.where(m == MASKED, 0.0, m - new)
        f = tl.where(m == MASKED, 0.0, _exp(d))
        d2, f2 = d.to(tl.float64), f.to(tl.float64)
        fewer = tl.where(top > m, ones, 0.0)
        ones -= fewer
        w0 = f2 * (w0 + d2 * (e0 + fewer))
        e0 = f2 * (e0 + fewer)
        q0 = f2 * f2 * (q0 + fewer)
        if WHERE[EXP_LOGIT] >= 0:
            vw = f[:, None] * (vw + d[:, None] * ve)
        if EXPS:
            ve = f[:, None] * ve
        if WHERE[EXP_SQUARE] >= 0:
            vq = (f * f)[:, None] * vq
        if soft is not None:
            y3 = f2[:, None] * y3
            y4 = f2[:, None] * y4
        m = new
    u = x - tl.where(m == MASKED, 0.0, m)[:, None]
    if EXPS or soft is not None:
        e = _exp(u)
        rest = e
        if tl.max((top == m).to(tl.int32), 0) > 0:
            largest = u == 0
            ones += tl.sum(tl.where(largest, 1.0, 0.0), 1).to(tl.float64)
            rest = tl.where(largest, 0.0, e)
        ve += rest
        if WHERE[EXP_LOGIT] >= 0:
            vw += tl.maximum(u, FAR, propagate_nan=tl.PropagateNan.ALL) * e  # −∞·0 would be nan
        if WHERE[EXP_SQUARE] >= 0:
            vq += rest * rest
    if COUNT:
        y = x - anchor[:, None]
        count += BLOCK
        if tl.min(tl.min(x, 1), 0) == MASKED:
            gone = x == MASKED
            y = tl.where(gone, 0.0, y)
            count -= tl.sum(tl.where(gone, 1.0, 0.0), 1).to(tl.float64)
        if POWERS:
            v1 += y
            v2 += y * y
    if soft is not None:
        gone = x == MASKED
        t = tl.load(
            soft + n[:, None] * classes + column[None, :],
            mask=counted[:, None] & (column < end)[None, :],
            other=0.0,
        ).to(REAL)
        wanted = tl.maximum(wanted, tl.max((gone & (t != 0)).to(tl.int32), 1))
        if WHERE[LABEL_LOG_EXP] >= 0:
            score = tl.log(tl.maximum(t, tl.load(floor).to(REAL)))
            y4 += tl.where(gone, 0.0, score * e).to(tl.float64)
        t = t.to(tl.float64)  # one that wants a masked class only has to say so
        wide = tl.where(gone, 0.0, x.to(tl.float64))
        vt += t
        y1 += t * wide
        if WHERE[LABEL_SQUARE] >= 0:
            wide = tl.where(gone, 0.0, a[:, None] + wide)
            y2 += t * wide * wide
        if WHERE[LABEL_EXP] >= 0:
            y3 += t * e.to(tl.float64)
    return m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4


# -- kernels --------------------------------------------------------------------------------------


@triton.jit
def moments(
    z,  # (B, C, S), its strides below
    label,  # (N,) or None
    soft,  # (N, C), contiguous, or None
    kept,  # (N,) or None
    shift,  # (C,) or None
    scale,  # (N,) or None
    centres,  # (N,), where a part of a row cannot know it, or None
    floor,  # () or None
    out,  # (K, N); (PARTS, parts, N) where PARTIAL: the sums so far, which these columns are added to
    peaks,  # (N,), the columns of the maxima, or None
    picked,  # (N,), where PARTIAL: the label's elements; or None
    rows,
    classes,
    first,
    total,
    inner,
    outer_stride,
    class_stride,
    inner_stride,
    span,  # columns of a part
    WHERE: tl.constexpr,
    PARTIAL: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
):
    VIEWED: tl.constexpr = (shift is not None) or (scale is not None)
    HARD_EXP: tl.constexpr = (label is not None) and WHERE[LABEL_LOG_EXP] >= 0
    EXPS: tl.constexpr = WHERE[EXP] >= 0 or WHERE[EXP_LOGIT] >= 0 or WHERE[EXP_SQUARE] >= 0 or HARD_EXP
    POWERS: tl.constexpr = WHERE[SUM] >= 0 or WHERE[SQUARE] >= 0
    COUNT: tl.constexpr = POWERS or WHERE[CLASSES] >= 0
    PEAKS: tl.constexpr = WHERE[PEAK] >= 0
    n, inside, counted = _rows(kept, rows, R)
    starts = _starts(z, n, inner, outer_stride, inner_stride)
    s = tl.full((R,), 1.0, REAL)
    if scale is not None:
        s = tl.load(scale + n, mask=inside, other=1.0).to(REAL)
    c = tl.zeros((R,), REAL)
    if VIEWED:
        if PARTIAL:
            c = tl.load(centres + n, mask=inside, other=0.0).to(REAL)
        else:
            c = _centre(starts, kept, counted, classes, class_stride, REAL, CAP, R, BLOCK)
    a = s.to(tl.float64) * c.to(tl.float64)

    m = tl.full((R,), MASKED, REAL)
    peak = tl.zeros((R,), tl.int32)
    wanted = tl.zeros((R,), tl.int32)
    ones = tl.zeros((R,), tl.float64)
    e0 = tl.zeros((R,), tl.float64)
    w0 = tl.zeros((R,), tl.float64)
    q0 = tl.zeros((R,), tl.float64)
    t0 = tl.zeros((R,), tl.float64)
    l1 = tl.zeros((R,), tl.float64)
    l2 = tl.zeros((R,), tl.float64)
    l3 = tl.zeros((R,), tl.float64)
    l4 = tl.zeros((R,), tl.float64)
    ve = tl.zeros((R, BLOCK), REAL)
    vw = tl.zeros((R, BLOCK), REAL)
    vq = tl.zeros((R, BLOCK), REAL)
    count = tl.zeros((R,), tl.float64)
    v1 = tl.zeros((R, BLOCK), REAL)
    v2 = tl.zeros((R, BLOCK), REAL)
    vt = tl.zeros((R, BLOCK), tl.float64)
    y1 = tl.zeros((R, BLOCK), tl.float64)
    y2 = tl.zeros((R, BLOCK), tl.float64)
    y3 = tl.zeros((R, BLOCK), tl.float64)
    y4 = tl.zeros((R, BLOCK), tl.float64)

    begin = tl.program_id(1) * span
    end = tl.minimum(begin + span, classes)
    whole = begin + tl.maximum(end - begin, 0) // BLOCK * BLOCK
    anchor = tl.zeros((R,), REAL)
    if POWERS:  # near the elements, so that their squares keep their digits
        raw = _tile(starts, kept, counted, begin, end, class_stride, R, BLOCK, True)
        x = _capped(raw.to(REAL), CAP)
        if VIEWED:
            column = begin + tl.arange(0, BLOCK)
            x = _viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
        anchor = tl.max(x, 1)
        anchor = tl.where(anchor == MASKED, 0.0, anchor)
    ahead = _tile(starts, kept, counted, begin, whole, class_stride, R, BLOCK, True)
    for start in tl.range(begin, whole, BLOCK):
        raw = ahead  # the next one is on its way while this one is worked on
        ahead = _tile(
            starts, kept, counted, tl.minimum(start + BLOCK, whole - BLOCK), whole, class_stride,
            R, BLOCK, False,
        )  # fmt: skip
        m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4 = _add(
            raw, counted, n, start, end, soft, shift, floor, classes, first, s, c, a, anchor,
            m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4,
            WHERE, EXPS, POWERS, COUNT, VIEWED, PEAKS, REAL, CAP, BLOCK,
        )  # fmt: skip
    if whole < end:
        raw = _tile(starts, kept, counted, whole, end, class_stride, R, BLOCK, True)
        m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4 = _add(
            raw, counted, n, whole, end, soft, shift, floor, classes, first, s, c, a, anchor,
            m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4,
            WHERE, EXPS, POWERS, COUNT, VIEWED, PEAKS, REAL, CAP, BLOCK,
        )  # fmt: skip
    e1 = ones + e0
    w1 = w0
    q1 = ones + q0
    s1 = tl.zeros((R,), tl.float64)
    s2 = tl.zeros((R,), tl.float64)
    if EXPS:
        e1 += _total(ve)
    if WHERE[EXP_LOGIT] >= 0:
        w1 += _total(vw)
    if WHERE[EXP_SQUARE] >= 0:
        q1 += _total(vq)
    if POWERS:
        origin = a + anchor.to(tl.float64)
        s1 += _total(v1)
        s2 += _total(v2) + origin * (2 * s1 + count * origin)
        s1 += count * origin
    if soft is not None:
        t0 = tl.sum(vt, 1)
        l1 = tl.sum(y1, 1) - tl.where(m == MASKED, 0.0, m).to(tl.float64) * t0
        l2 = tl.sum(y2, 1)
        l3 = tl.sum(y3, 1)
        l4 = tl.sum(y4, 1)

    if PARTIAL:
        if picked is not None:
            y, _ = _label(
                label, starts, n, inside, counted, class_stride, s, c, None, classes, first, total,
                False, REAL, 0,
            )  # fmt: skip
            x = tl.load(starts + y.to(tl.int64) * class_stride, mask=counted & (y >= 0), other=0.0)
            tl.store(picked + n, x, mask=counted & (y >= begin) & (y < end))
        part = out + tl.program_id(1).to(tl.int64) * rows
        each = tl.num_programs(1).to(tl.int64) * rows
        old = _get(part, 0, n, inside, each).to(REAL)
        new = tl.maximum(old, m)
        _put(part, 0, n, inside, each, new)
        centre = tl.where(new == MASKED, 0.0, new)
        e1, w1, q1, l1, l3, l4 = _rescaled(m, e1, w1, q1, t0, l1, l3, l4, centre)
        old_e = _get(part, 2, n, inside, each)
        old_w = _get(part, 3, n, inside, each)
        old_q = _get(part, 4, n, inside, each)
        old_t = _get(part, 7, n, inside, each)
        old_1 = _get(part, 8, n, inside, each)
        old_3 = _get(part, 10, n, inside, each)
        old_4 = _get(part, 11, n, inside, each)
        old_e, old_w, old_q, old_1, old_3, old_4 = _rescaled(
            old, old_e, old_w, old_q, old_t, old_1, old_3, old_4, centre
        )
        if EXPS:
            _put(part, 2, n, inside, each, e1 + old_e)
        if WHERE[EXP_LOGIT] >= 0:
            _put(part, 3, n, inside, each, w1 + old_w)
        if WHERE[EXP_SQUARE] >= 0:
            _put(part, 4, n, inside, each, q1 + old_q)
        if COUNT:
            _put(part, 1, n, inside, each, count + _get(part, 1, n, inside, each))
        if POWERS:
            _put(part, 5, n, inside, each, s1 + _get(part, 5, n, inside, each))
            _put(part, 6, n, inside, each, s2 + _get(part, 6, n, inside, each))
        if soft is not None:
            _put(part, 7, n, inside, each, t0 + old_t)
            _put(part, 8, n, inside, each, l1 + old_1)
            _put(part, 9, n, inside, each, l2 + _get(part, 9, n, inside, each))
            _put(part, 10, n, inside, each, l3 + old_3)
            _put(part, 11, n, inside, each, l4 + old_4)
            wanted = tl.maximum(wanted, _get(part, 12, n, inside, each).to(tl.int32))
            _put(part, 12, n, inside, each, wanted)
        if PEAKS:
            peak = tl.where(m > old, peak, _get(part, 13, n, inside, each).to(tl.int32))
            _put(part, 13, n, inside, each, peak)
    else:
        if PEAKS:
            tl.store(peaks + n, peak, mask=inside)
        _finish(
            out, n, inside, counted, rows, classes, label, starts, class_stride, floor, shift, s, c, a,
            m, count, e1, w1, q1, s1, s2, l1, l2, l3, l4, wanted, WHERE, VIEWED, REAL, CAP,
        )  # fmt: skip


@triton.jit
def _parts(of, number: tl.constexpr, n, part, parts, inside, rows, other):
    """One number of all parts of each row, (R, P)."""
    at = of + (number * parts + part.to(tl.int64)[None, :]) * rows + n[:, None]
    return tl.load(at, mask=inside[:, None] & (part < parts)[None, :], other=other)


@triton.jit
def merge(
    found,  # (PARTS, parts, N)
    picked,  # (N,): the label's elements, as stored; or None
    label,
    kept,
    shift,
    scale,
    centres,
    floor,
    out,  # (K, N)
    peaks,
    rows,
    classes,
    parts,
    WHERE: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    R: tl.constexpr,
    P: tl.constexpr,
):
    """The moments of rows from those of their parts, as :func:`moments` leaves them where PARTIAL."""
    VIEWED: tl.constexpr = (shift is not None) or (scale is not None)
    n, inside, counted = _rows(kept, rows, R)
    s = tl.full((R,), 1.0, REAL)
    if scale is not None:
        s = tl.load(scale + n, mask=inside, other=1.0).to(REAL)
    c = tl.zeros((R,), REAL)
    if VIEWED:
        c = tl.load(centres + n, mask=inside, other=0.0).to(REAL)
    a = s.to(tl.float64) * c.to(tl.float64)

    starts = n if picked is None else picked + n  # whatever the label, this is its element
    part = tl.arange(0, P)
    m = _parts(found, 0, n, part, parts, inside, rows, MASKED)
    count = tl.sum(_parts(found, 1, n, part, parts, inside, rows, 0.0), 1)
    e1 = _parts(found, 2, n, part, parts, inside, rows, 0.0)
    w1 = _parts(found, 3, n, part, parts, inside, rows, 0.0)
    q1 = _parts(found, 4, n, part, parts, inside, rows, 0.0)
    s1 = tl.sum(_parts(found, 5, n, part, parts, inside, rows, 0.0), 1)
    s2 = tl.sum(_parts(found, 6, n, part, parts, inside, rows, 0.0), 1)
    t0 = _parts(found, 7, n, part, parts, inside, rows, 0.0)
    l1 = _parts(found, 8, n, part, parts, inside, rows, 0.0)
    l2 = tl.sum(_parts(found, 9, n, part, parts, inside, rows, 0.0), 1)
    l3 = _parts(found, 10, n, part, parts, inside, rows, 0.0)
    l4 = _parts(found, 11, n, part, parts, inside, rows, 0.0)
    wanted = tl.max(_parts(found, 12, n, part, parts, inside, rows, 0.0), 1).to(tl.int32)
    top = tl.max(m, 1)
    if peaks is not None:
        at = _parts(found, 13, n, part, parts, inside, rows, 0.0).to(tl.int32)
        tl.store(peaks + n, tl.min(tl.where(m == top[:, None], at, BEYOND), 1), mask=inside)
    centre = tl.where(top == MASKED, 0.0, top)
    e1, w1, q1, l1, l3, l4 = _rescaled(m, e1, w1, q1, t0, l1, l3, l4, centre[:, None])
    _finish(
        out, n, inside, counted, rows, classes, label, starts, 0, floor, shift, s, c, a,
        top.to(REAL), count, tl.sum(e1, 1), tl.sum(w1, 1), tl.sum(q1, 1), s1, s2, tl.sum(l1, 1), l2,
        tl.sum(l3, 1), tl.sum(l4, 1), wanted, WHERE, VIEWED, REAL, CAP,
    )  # fmt: skip


@triton.jit
def _spread(
    raw,
    goals,
    inside,
    counted,
    n,
    start,
    end,
    class_stride_g,
    soft,
    shift,
    floor,
    classes,
    first,
    s,
    c,
    a,
    middle,
    b0,
    b1,
    b2,
    d,
    k,
    on_label,
    on_square,
    on_exp,
    on_log_exp,
    on_peak,
    y,
    own,
    peak,
    through,
    anchor,
    WHERE: tl.constexpr,
    HARD: tl.constexpr,
    VIEWED: tl.constexpr,
    SCALED: tl.constexpr,
    ON_SCALE: tl.constexpr,
    PEAKS: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
    TAIL: tl.constexpr,
):
    """Write one tile of the gradient; what the tile adds to the scale's."""
    POWERS: tl.constexpr = WHERE[SUM] >= 0 or WHERE[SQUARE] >= 0
    column = start + tl.arange(0, BLOCK)
    before = _capped(raw.to(REAL), CAP)
    x = before
    if VIEWED:
        x = _viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
    u = x - middle[:, None]
    e = _exp(u)
    factor = tl.broadcast_to(b0.to(REAL)[:, None], e.shape)
    if WHERE[EXP_LOGIT] >= 0:
        near = tl.maximum(u, FAR, propagate_nan=tl.PropagateNan.ALL)  # −∞·0 would be nan
        factor += b1.to(REAL)[:, None] * near
    if WHERE[EXP_SQUARE] >= 0:
        factor += b2.to(REAL)[:, None] * e
    value = e * factor
    if POWERS:
        power = d.to(REAL)[:, None] + k.to(REAL)[:, None] * (a.to(REAL)[:, None] + x)
        value += tl.where(x == MASKED, 0.0, power)
    if soft is not None:
        t = tl.load(
            soft + n[:, None] * classes + column[None, :],
            mask=counted[:, None] & (column < end)[None, :],
            other=0.0,
        ).to(REAL)
        value += t * (on_label.to(REAL)[:, None] + on_exp.to(REAL)[:, None] * e)
        if WHERE[LABEL_SQUARE] >= 0:
            wide = tl.where(x == MASKED, 0.0, a[:, None] + x.to(tl.float64))
            pull = t.to(tl.float64) * on_square[:, None] * wide
            value += pull.to(REAL)
            if ON_SCALE:
                anchor += tl.sum(pull, 1)
        if WHERE[LABEL_LOG_EXP] >= 0:
            score = tl.log(tl.maximum(t, tl.load(floor).to(REAL)))
            value += on_log_exp.to(REAL)[:, None] * score * e
        value = tl.where(x == MASKED, 0.0, value)
    if HARD:  # noqa: SIM102 - known when it is compiled, the other when it runs
        if tl.max(((y >= start) & (y < start + BLOCK)).to(tl.int32), 0) > 0:
            value = tl.where(column[None, :] == y[:, None], own.to(REAL)[:, None], value)
    if PEAKS:
        value += tl.where(first + column[None, :] == peak[:, None], on_peak.to(REAL)[:, None], 0.0)
    if ON_SCALE:
        through += _total(value * tl.where(before == MASKED, 0.0, before - c[:, None]))
        if POWERS:
            wide = d[:, None] + k[:, None] * (a[:, None] + x.to(tl.float64))
            anchor += tl.sum(tl.where(x == MASKED, 0.0, wide), 1)
    if SCALED:
        value *= s[:, None]
    if CAP != 0:
        r = tl.where(x == MASKED, 0.0, before) / CAP
        value *= (1 - r * r).to(REAL)
    at = goals[:, None] + column.to(tl.int64)[None, :] * class_stride_g
    value = value.to(goals.dtype.element_ty)
    if TAIL:
        tl.store(at, value, mask=inside[:, None] & (column < end)[None, :])
    elif R == 1:
        tl.store(at, value)
    else:
        tl.store(at, value, mask=inside[:, None])
    return through, anchor


@triton.jit
def gradient(
    z,
    label,
    soft,
    kept,
    shift,
    scale,
    floor,
    packed,  # (K, N), what :func:`moments` gave
    peaks,
    slope,  # (K, N), the derivatives in the moments
    factor,  # () of all of them, or None
    g,  # (B, C, S), its strides below
    scale_slope,  # (parts, N), or None
    rows,
    classes,
    first,
    total,
    inner,
    outer_stride,
    class_stride,
    inner_stride,
    outer_stride_g,
    class_stride_g,
    inner_stride_g,
    span,
    WHERE: tl.constexpr,
    REAL: tl.constexpr,
    CAP: tl.constexpr,
    R: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient in the logits, and in the scale what each part of a row has to say."""
    VIEWED: tl.constexpr = (shift is not None) or (scale is not None)
    SCALED: tl.constexpr = scale is not None
    HARD: tl.constexpr = label is not None
    LOG_FLOOR: tl.constexpr = HARD and WHERE[LABEL_LOG_EXP] >= 0
    ON_SCALE: tl.constexpr = scale_slope is not None
    PEAKS: tl.constexpr = WHERE[PEAK] >= 0
    n, inside, counted = _rows(kept, rows, R)
    starts = _starts(z, n, inner, outer_stride, inner_stride)
    goals = _starts(g, n, inner, outer_stride_g, inner_stride_g)
    s = tl.full((R,), 1.0, REAL)
    if SCALED:
        s = tl.load(scale + n, mask=inside, other=1.0).to(REAL)
    c = tl.zeros((R,), REAL)
    if VIEWED:
        c = _get(packed, WHERE[CENTRE], n, inside, rows).to(REAL)
    a = s.to(tl.float64) * c.to(tl.float64)
    m = _get(packed, WHERE[MAXIMUM], n, inside, rows).to(REAL)
    middle = tl.where(m == MASKED, 0.0, m)
    written = counted & (m != MASKED)

    by = tl.full((R,), 1.0, tl.float64)
    if factor is not None:
        by *= tl.load(factor)
    b1 = _slope(slope, WHERE[EXP_LOGIT], n, inside, rows, written, by)
    b0 = _slope(slope, WHERE[EXP], n, inside, rows, written, by) + b1
    b2 = 2 * _slope(slope, WHERE[EXP_SQUARE], n, inside, rows, written, by)
    d = _slope(slope, WHERE[SUM], n, inside, rows, written, by)
    k = 2 * _slope(slope, WHERE[SQUARE], n, inside, rows, written, by)
    on_label = _slope(slope, WHERE[LABEL], n, inside, rows, written, by)
    on_square = 2 * _slope(slope, WHERE[LABEL_SQUARE], n, inside, rows, written, by)
    on_exp = _slope(slope, WHERE[LABEL_EXP], n, inside, rows, written, by)
    on_log_exp = _slope(slope, WHERE[LABEL_LOG_EXP], n, inside, rows, written, by)
    on_peak = _slope(slope, WHERE[PEAK], n, inside, rows, written, by)
    if LOG_FLOOR:
        b0 += on_log_exp * _log_floor(floor)
        on_exp -= on_log_exp * _log_floor(floor)
    begin = tl.program_id(1) * span
    end = tl.minimum(begin + span, classes)
    through = tl.zeros((R,), tl.float64)
    anchor = on_peak + _slope(slope, WHERE[OFFSET], n, inside, rows, written, by)
    anchor = tl.where((tl.program_id(1) == 0) & (first == 0), anchor, 0.0)
    own = tl.zeros((R,), tl.float64)
    y = tl.full((R,), -1, tl.int32)
    if HARD:
        # q_y − 1 cancels: the label's entry in one float64 expression
        y, x_y = _label(
            label, starts, n, inside, counted, class_stride, s, c, shift, classes, first, total,
            VIEWED, REAL, CAP,
        )  # fmt: skip
        e_y = _exp(x_y - middle).to(tl.float64)
        u_y = (x_y - middle).to(tl.float64)
        z_y = a + x_y.to(tl.float64)
        own = e_y * (b0 + b1 * u_y + b2 * e_y + on_exp) + d + k * z_y + on_label + on_square * z_y
        own = tl.where((x_y == MASKED) | ~written, 0.0, own)
        anchor += tl.where((y >= begin) & (y < end) & (x_y != MASKED), on_square * z_y, 0.0)
        # a label out of range: no gradient that could pass for one
        b0 = tl.where(written & (x_y != x_y), float("nan"), b0)
    peak = tl.full((R,), -1, tl.int32)
    if PEAKS:
        peak = tl.load(peaks + n, mask=inside, other=-1)

    tl.debug_barrier()  # every thread has the label's logit, which one of them may now write over
    whole = begin + tl.maximum(end - begin, 0) // BLOCK * BLOCK
    ahead = _tile(starts, kept, counted, begin, whole, class_stride, R, BLOCK, True)
    for start in tl.range(begin, whole, BLOCK):
        raw = ahead
        ahead = _tile(
            starts, kept, counted, tl.minimum(start + BLOCK, whole - BLOCK), whole, class_stride,
            R, BLOCK, False,
        )  # fmt: skip
        through, anchor = _spread(
            raw, goals, inside, counted, n, start, end, class_stride_g, soft, shift, floor, classes, first,
            s, c, a, middle, b0, b1, b2, d, k, on_label, on_square, on_exp, on_log_exp, on_peak,
            y, own, peak, through, anchor,
            WHERE, HARD, VIEWED, SCALED, ON_SCALE, PEAKS, REAL, CAP, R, BLOCK, False,
        )  # fmt: skip
    if whole < end:
        raw = _tile(starts, kept, counted, whole, end, class_stride, R, BLOCK, True)
        through, anchor = _spread(
            raw, goals, inside, counted, n, whole, end, class_stride_g, soft, shift, floor, classes, first,
            s, c, a, middle, b0, b1, b2, d, k, on_label, on_square, on_exp, on_log_exp, on_peak,
            y, own, peak, through, anchor,
            WHERE, HARD, VIEWED, SCALED, ON_SCALE, PEAKS, REAL, CAP, R, BLOCK, True,
        )  # fmt: skip
    if ON_SCALE:
        sum_ = tl.where(written, through + anchor * c.to(tl.float64), 0.0)
        tl.store(scale_slope + tl.program_id(1).to(tl.int64) * rows + n, sum_, mask=inside)
