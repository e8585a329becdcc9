"""The moments of rows on a GPU, whole or in parts that are merged."""

from __future__ import annotations

import triton
import triton.language as tl

from infoloss.kernels.gpu.reading import (
    BEYOND,
    CENTRE,
    CLASSES,
    EXP,
    EXP_LOGIT,
    EXP_SQUARE,
    FAR,
    LABEL,
    LABEL_EXP,
    LABEL_LOG_EXP,
    LABEL_SQUARE,
    MASKED,
    MAXIMUM,
    OFFSET,
    PEAK,
    SCALE,
    SQUARE,
    SUM,
    capped,
    centre_of,
    exp,
    get,
    label_of,
    log_floor,
    put,
    rows_of,
    starts_of,
    tile_of,
    total_of,
    viewed,
)

__all__ = ["PARTS", "merge", "moments"]

PARTS = 14
"""Numbers that :func:`moments` keeps of a part of a row."""


@triton.jit
def _rescaled(m, e1, w1, q1, t0, l1, l3, l4, centre):
    """Sums centred at m, of the same elements centred at ``centre``: what lets parts of a row merge."""
    d = tl.where(m == MASKED, 0.0, m.to(tl.float64) - centre.to(tl.float64))
    f = tl.exp(d.to(m.dtype)).to(tl.float64)
    return f * e1, f * (w1 + d * e1), f * f * q1, l1 + d * t0, f * l3, f * l4


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
        _, x = label_of(
            label, starts, n, inside, counted, class_stride, s, c, shift, classes, 0, classes,
            VIEWED, REAL, CAP,
        )  # fmt: skip
        wanted = (x == MASKED).to(tl.int32)
        l1 = (x - m).to(tl.float64)
        l2 = (a + x.to(tl.float64)) * (a + x.to(tl.float64))
        l2 = tl.where(x == MASKED, 0.0, l2)
        l3 = tl.where(x == MASKED, 0.0, exp(x - m)).to(tl.float64)
        if WHERE[LABEL_LOG_EXP] >= 0:
            l4 = (e1 - l3) * log_floor(floor)
    put(out, WHERE[MAXIMUM], n, inside, rows, m)
    put(out, WHERE[CLASSES], n, inside, rows, count)
    put(out, WHERE[EXP], n, inside, rows, e1)
    put(out, WHERE[EXP_LOGIT], n, inside, rows, w1)
    put(out, WHERE[EXP_SQUARE], n, inside, rows, q1)
    put(out, WHERE[SUM], n, inside, rows, s1)
    put(out, WHERE[SQUARE], n, inside, rows, s2)
    put(out, WHERE[LABEL], n, inside, rows, tl.where(wanted > 0, MASKED, l1))
    put(out, WHERE[LABEL_SQUARE], n, inside, rows, l2)
    put(out, WHERE[LABEL_EXP], n, inside, rows, l3)
    put(out, WHERE[LABEL_LOG_EXP], n, inside, rows, l4)
    put(out, WHERE[PEAK], n, inside, rows, a + m.to(tl.float64))
    put(out, WHERE[CENTRE], n, inside, rows, c)
    put(out, WHERE[OFFSET], n, inside, rows, a)
    put(out, WHERE[SCALE], n, inside, rows, s)


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
    x = capped(raw.to(REAL), CAP)
    if VIEWED:
        x = viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
    top = tl.max(x, 1)
    if PEAKS:
        at = tl.min(tl.where(x == top[:, None], first + column[None, :], BEYOND), 1)
        peak = tl.where(top > m, at, peak)  # not ≥: of ties the lowest index
    if tl.max((top > m).to(tl.int32), 0) > 0:
        new = tl.maximum(m, top)
        d = tl.where(m == MASKED, 0.0, m - new)
        f = tl.where(m == MASKED, 0.0, exp(d))
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
        e = exp(u)
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
    n, inside, counted = rows_of(kept, rows, R)
    starts = starts_of(z, n, inner, outer_stride, inner_stride)
    s = tl.full((R,), 1.0, REAL)
    if scale is not None:
        s = tl.load(scale + n, mask=inside, other=1.0).to(REAL)
    c = tl.zeros((R,), REAL)
    if VIEWED:
        if PARTIAL:
            c = tl.load(centres + n, mask=inside, other=0.0).to(REAL)
        else:
            c = centre_of(starts, kept, counted, classes, class_stride, REAL, CAP, R, BLOCK)
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
        raw = tile_of(starts, kept, counted, begin, end, class_stride, R, BLOCK, True)
        x = capped(raw.to(REAL), CAP)
        if VIEWED:
            column = begin + tl.arange(0, BLOCK)
            x = viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
        anchor = tl.max(x, 1)
        anchor = tl.where(anchor == MASKED, 0.0, anchor)
    ahead = tile_of(starts, kept, counted, begin, whole, class_stride, R, BLOCK, True)
    for start in tl.range(begin, whole, BLOCK):
        raw = ahead  # the next one is on its way while this one is worked on
        ahead = tile_of(
            starts, kept, counted, tl.minimum(start + BLOCK, whole - BLOCK), whole, class_stride,
            R, BLOCK, False,
        )  # fmt: skip
        m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4 = _add(
            raw, counted, n, start, end, soft, shift, floor, classes, first, s, c, a, anchor,
            m, ones, e0, w0, q0, ve, vw, vq, v1, v2, count, peak, wanted, vt, y1, y2, y3, y4,
            WHERE, EXPS, POWERS, COUNT, VIEWED, PEAKS, REAL, CAP, BLOCK,
        )  # fmt: skip
    if whole < end:
        raw = tile_of(starts, kept, counted, whole, end, class_stride, R, BLOCK, True)
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
        e1 += total_of(ve)
    if WHERE[EXP_LOGIT] >= 0:
        w1 += total_of(vw)
    if WHERE[EXP_SQUARE] >= 0:
        q1 += total_of(vq)
    if POWERS:
        origin = a + anchor.to(tl.float64)
        s1 += total_of(v1)
        s2 += total_of(v2) + origin * (2 * s1 + count * origin)
        s1 += count * origin
    if soft is not None:
        t0 = tl.sum(vt, 1)
        l1 = tl.sum(y1, 1) - tl.where(m == MASKED, 0.0, m).to(tl.float64) * t0
        l2 = tl.sum(y2, 1)
        l3 = tl.sum(y3, 1)
        l4 = tl.sum(y4, 1)

    if PARTIAL:
        if picked is not None:
            y, _ = label_of(
                label, starts, n, inside, counted, class_stride, s, c, None, classes, first, total,
                False, REAL, 0,
            )  # fmt: skip
            x = tl.load(starts + y.to(tl.int64) * class_stride, mask=counted & (y >= 0), other=0.0)
            tl.store(picked + n, x, mask=counted & (y >= begin) & (y < end))
        part = out + tl.program_id(1).to(tl.int64) * rows
        each = tl.num_programs(1).to(tl.int64) * rows
        old = get(part, 0, n, inside, each).to(REAL)
        new = tl.maximum(old, m)
        put(part, 0, n, inside, each, new)
        centre = tl.where(new == MASKED, 0.0, new)
        e1, w1, q1, l1, l3, l4 = _rescaled(m, e1, w1, q1, t0, l1, l3, l4, centre)
        old_e = get(part, 2, n, inside, each)
        old_w = get(part, 3, n, inside, each)
        old_q = get(part, 4, n, inside, each)
        old_t = get(part, 7, n, inside, each)
        old_1 = get(part, 8, n, inside, each)
        old_3 = get(part, 10, n, inside, each)
        old_4 = get(part, 11, n, inside, each)
        old_e, old_w, old_q, old_1, old_3, old_4 = _rescaled(
            old, old_e, old_w, old_q, old_t, old_1, old_3, old_4, centre
        )
        if EXPS:
            put(part, 2, n, inside, each, e1 + old_e)
        if WHERE[EXP_LOGIT] >= 0:
            put(part, 3, n, inside, each, w1 + old_w)
        if WHERE[EXP_SQUARE] >= 0:
            put(part, 4, n, inside, each, q1 + old_q)
        if COUNT:
            put(part, 1, n, inside, each, count + get(part, 1, n, inside, each))
        if POWERS:
            put(part, 5, n, inside, each, s1 + get(part, 5, n, inside, each))
            put(part, 6, n, inside, each, s2 + get(part, 6, n, inside, each))
        if soft is not None:
            put(part, 7, n, inside, each, t0 + old_t)
            put(part, 8, n, inside, each, l1 + old_1)
            put(part, 9, n, inside, each, l2 + get(part, 9, n, inside, each))
            put(part, 10, n, inside, each, l3 + old_3)
            put(part, 11, n, inside, each, l4 + old_4)
            wanted = tl.maximum(wanted, get(part, 12, n, inside, each).to(tl.int32))
            put(part, 12, n, inside, each, wanted)
        if PEAKS:
            peak = tl.where(m > old, peak, get(part, 13, n, inside, each).to(tl.int32))
            put(part, 13, n, inside, each, peak)
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
    n, inside, counted = rows_of(kept, rows, R)
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
