"""What a program of the GPU kernel reads and writes of its rows: tiles, views, labels, packed numbers."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

__all__ = [
    "BEYOND",
    "CENTRE",
    "CLASSES",
    "EXP",
    "EXP_LOGIT",
    "EXP_SQUARE",
    "FAR",
    "LABEL",
    "LABEL_EXP",
    "LABEL_LOG_EXP",
    "LABEL_SQUARE",
    "LOG2_E",
    "MASKED",
    "MAXIMUM",
    "NEAR",
    "OFFSET",
    "PEAK",
    "PTX",
    "SCALE",
    "SQUARE",
    "SUM",
    "capped",
    "centre_of",
    "exp",
    "get",
    "label_of",
    "log_floor",
    "put",
    "rows_of",
    "slope_of",
    "starts_of",
    "tile_of",
    "total_of",
    "viewed",
]

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


@triton.jit
def rows_of(kept, rows, R: tl.constexpr):
    """The rows of this program, which of them exist, and which of those count."""
    n = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64)
    inside = n < rows
    counted = inside
    if kept is not None:
        counted = inside & (tl.load(kept + n, mask=inside, other=0) != 0)
    return n, inside, counted


@triton.jit
def starts_of(of, n, inner, outer_stride, inner_stride):
    """Where the rows begin: row n = (b, s) of (B, C, S)."""
    return of + (n // inner) * outer_stride + (n % inner) * inner_stride


@triton.jit
def exp(x):
    """e^x; in float32 by one instruction, which knows no denormal numbers, where tl.exp takes five."""
    if PTX and x.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * LOG2_E], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp(x)


@triton.jit
def capped(x, CAP: tl.constexpr):
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
def tile_of(
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
def viewed(x, column, s, c, shift, classes, REAL: tl.constexpr):
    """s (x − c) + v; x, s and c of shapes that broadcast, v that of the column."""
    value = s * (x - c)
    if shift is not None:
        value += tl.load(shift + column, mask=column < classes, other=0.0).to(REAL)
    return tl.where(x == MASKED, MASKED, value)


@triton.jit
def centre_of(
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
        x = tile_of(starts, kept, counted, start, classes, class_stride, R, BLOCK, True)
        c = tl.maximum(c, tl.max(capped(x.to(REAL), CAP), 1))
    return tl.where(c == MASKED, 0.0, c)


@triton.jit
def label_of(
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
    x = capped(x, CAP)
    if VIEWED:
        x = viewed(x, tl.where(here, y, 0), s, c, shift, classes, REAL)
    return y, tl.where(valid, x, float("nan"))


@triton.jit
def get(of, ROW: tl.constexpr, n, inside, rows):
    """A row of packed numbers, zeros where there is none."""
    found = tl.zeros(n.shape, tl.float64)
    if ROW >= 0:
        found = tl.load(of + tl.full(n.shape, ROW, tl.int64) * rows + n, mask=inside, other=0.0)
    return found


@triton.jit
def slope_of(of, ROW: tl.constexpr, n, inside, rows, written, by):
    """A row of derivatives times ``by``, zeros in rows whose gradient is zero."""
    return tl.where(written, by * get(of, ROW, n, inside, rows), 0.0)


@triton.jit
def put(out, ROW: tl.constexpr, n, inside, rows, value):
    if ROW >= 0:
        tl.store(out + tl.full(n.shape, ROW, tl.int64) * rows + n, value.to(tl.float64), mask=inside)


@triton.jit
def log_floor(floor):
    """ln of the smallest target probability of a hard label, 0 where there is none."""
    f = tl.load(floor)
    return tl.where(f > 0, tl.log(tl.where(f > 0, f, 1.0)), 0.0)


@triton.jit
def total_of(value):
    """The sum of each row of a tile, added up in float64."""
    return tl.sum(value.to(tl.float64), 1)
