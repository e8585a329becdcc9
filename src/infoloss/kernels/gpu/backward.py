"""The gradient of logits on a GPU, and of the scale they are read through, from slopes in the moments."""

from __future__ import annotations

import triton
import triton.language as tl

from infoloss.kernels.gpu.reading import (
    CENTRE,
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
    SQUARE,
    SUM,
    capped,
    exp,
    get,
    label_of,
    log_floor,
    rows_of,
    slope_of,
    starts_of,
    tile_of,
    total_of,
    viewed,
)

__all__ = ["gradient"]


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
    before = capped(raw.to(REAL), CAP)
    x = before
    if VIEWED:
        x = viewed(x, column[None, :], s[:, None], c[:, None], shift, end, REAL)
    u = x - middle[:, None]
    e = exp(u)
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
        through += total_of(value * tl.where(before == MASKED, 0.0, before - c[:, None]))
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
    n, inside, counted = rows_of(kept, rows, R)
    starts = starts_of(z, n, inner, outer_stride, inner_stride)
    goals = starts_of(g, n, inner, outer_stride_g, inner_stride_g)
    s = tl.full((R,), 1.0, REAL)
    if SCALED:
        s = tl.load(scale + n, mask=inside, other=1.0).to(REAL)
    c = tl.zeros((R,), REAL)
    if VIEWED:
        c = get(packed, WHERE[CENTRE], n, inside, rows).to(REAL)
    a = s.to(tl.float64) * c.to(tl.float64)
    m = get(packed, WHERE[MAXIMUM], n, inside, rows).to(REAL)
    middle = tl.where(m == MASKED, 0.0, m)
    written = counted & (m != MASKED)

    by = tl.full((R,), 1.0, tl.float64)
    if factor is not None:
        by *= tl.load(factor)
    b1 = slope_of(slope, WHERE[EXP_LOGIT], n, inside, rows, written, by)
    b0 = slope_of(slope, WHERE[EXP], n, inside, rows, written, by) + b1
    b2 = 2 * slope_of(slope, WHERE[EXP_SQUARE], n, inside, rows, written, by)
    d = slope_of(slope, WHERE[SUM], n, inside, rows, written, by)
    k = 2 * slope_of(slope, WHERE[SQUARE], n, inside, rows, written, by)
    on_label = slope_of(slope, WHERE[LABEL], n, inside, rows, written, by)
    on_square = 2 * slope_of(slope, WHERE[LABEL_SQUARE], n, inside, rows, written, by)
    on_exp = slope_of(slope, WHERE[LABEL_EXP], n, inside, rows, written, by)
    on_log_exp = slope_of(slope, WHERE[LABEL_LOG_EXP], n, inside, rows, written, by)
    on_peak = slope_of(slope, WHERE[PEAK], n, inside, rows, written, by)
    if LOG_FLOOR:
        b0 += on_log_exp * log_floor(floor)
        on_exp -= on_log_exp * log_floor(floor)
    begin = tl.program_id(1) * span
    end = tl.minimum(begin + span, classes)
    through = tl.zeros((R,), tl.float64)
    anchor = on_peak + slope_of(slope, WHERE[OFFSET], n, inside, rows, written, by)
    anchor = tl.where((tl.program_id(1) == 0) & (first == 0), anchor, 0.0)
    own = tl.zeros((R,), tl.float64)
    y = tl.full((R,), -1, tl.int32)
    if HARD:
        # q_y − 1 cancels: the label's entry in one float64 expression
        y, x_y = label_of(
            label, starts, n, inside, counted, class_stride, s, c, shift, classes, first, total,
            VIEWED, REAL, CAP,
        )  # fmt: skip
        e_y = exp(x_y - middle).to(tl.float64)
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
    ahead = tile_of(starts, kept, counted, begin, whole, class_stride, R, BLOCK, True)
    for start in tl.range(begin, whole, BLOCK):
        raw = ahead
        ahead = tile_of(
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
        raw = tile_of(starts, kept, counted, whole, end, class_stride, R, BLOCK, True)
        through, anchor = _spread(
            raw, goals, inside, counted, n, whole, end, class_stride_g, soft, shift, floor, classes, first,
            s, c, a, middle, b0, b1, b2, d, k, on_label, on_square, on_exp, on_log_exp, on_peak,
            y, own, peak, through, anchor,
            WHERE, HARD, VIEWED, SCALED, ON_SCALE, PEAKS, REAL, CAP, R, BLOCK, True,
        )  # fmt: skip
    if ON_SCALE:
        sum_ = tl.where(written, through + anchor * c.to(tl.float64), 0.0)
        tl.store(scale_slope + tl.program_id(1).to(tl.int64) * rows + n, sum_, mask=inside)
