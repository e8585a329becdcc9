"""The CPU kernel: moments of rows, and their gradient over the columns, compiled with Numba.

Two loops over rows, shared by every loss: ``moments`` reads each row once, block by block, with running
sums that are rescaled when the maximum grows; ``gradient`` reads it again and writes, for each element,

    e (a + b u + c e) + d + k z   (+ the label's and the maximum's own shares)

with one set of coefficients a row. A block fits the first-level cache; exponentials are a polynomial
that vectorises (relative error below 1e-7 down to e^−87, 0 below). Elements are float32 (float64 for
float64 logits), sums float64.

A view z' = s(z − c) + v (c the row's maximum) is applied to a block as it is loaded.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

__all__ = [
    "CENTRE",
    "ORDER",
    "parallel_gradient",
    "parallel_moments",
    "serial_gradient",
    "serial_moments",
]

BLOCK = 2048
ORDER = (
    "maximum",
    "classes",
    "exp_sum",
    "exp_logit_sum",
    "exp_square_sum",
    "logit_sum",
    "logit_square_sum",
    "label_logit",
    "label_logit_square",
    "label_exp",
    "label_log_exp",
    "peak",
)
"""Moments by number: where[i] is the row of the packed moments that holds ORDER[i], or −1."""
CENTRE = len(ORDER)
"""One more number for ``where``: the centre c that a view took off the row."""

MAXIMUM, CLASSES, EXP, EXP_LOGIT, EXP_SQUARE, SUM, SQUARE = range(7)
LABEL, LABEL_SQUARE, LABEL_EXP, LABEL_LOG_EXP, PEAK = range(7, 12)

REORDERED = {"reassoc", "contract", "nsz", "arcp"}  # never nnan or ninf: −inf masks, and nan must stay nan


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """``numba.njit`` with a disk cache; in memory, with one warning, where it cannot be written."""
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError as error:
        warnings.warn(f"infoloss compiles its CPU kernel anew in every process: {error}", stacklevel=2)
        return njit(**options)(function)


@intrinsic
def _bits_as_float(typingctx, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


def _lowest(x):
    """Where e^u is taken as 0: about the smallest normal number of the type."""
    raise TypeError


@overload(_lowest, inline="always")
def _(x):
    return (lambda x: np.float32(-87.0)) if x == types.float32 else (lambda x: -708.0)


def _exp(v):
    """e^v for lowest ≤ v ≤ 0."""
    raise TypeError


# not inlined by Numba (LLVM does): it must keep its own flags, or the rounding below is optimised away
@overload(_exp, jit_options={"fastmath": {"contract"}})
def _(v):
    if v != types.float32:
        return lambda v: math.exp(v)

    def exp32(v):
        # 2^n e^f with |f| ≤ ln(2)/2, e^f by Cephes' polynomial; adding 1.5·2^23 rounds to an integer
        big = np.float32(12582912.0)
        n = (v * np.float32(1.4426950408889634) + big) - big
        f = v - n * np.float32(0.693359375)
        f = f + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * f + np.float32(1.3981999507e-3)
        p = p * f + np.float32(8.3334519073e-3)
        p = p * f + np.float32(4.1665795894e-2)
        p = p * f + np.float32(1.6666665459e-1)
        p = p * f + np.float32(5.0000001201e-1)
        p = (p * f) * f + f + np.float32(1.0)
        return p * _bits_as_float((np.int32(n) + np.int32(127)) << np.int32(23))  # type: ignore[call-arg]

    return exp32


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
    low = _lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else _exp(v)
        s += np.float64(e)
    return s


@njit(fastmath=REORDERED)
def _exp_sums(x, m):
    """Σ e^u, Σ u e^u, Σ e^2u."""
    zero = x.dtype.type(0)
    s = w = q = 0.0
    low = _lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else _exp(v)
        s += np.float64(e)
        w += np.float64(v * e)
        q += np.float64(e * e)
    return s, w, q


@njit(fastmath=REORDERED)
def _power_sums(x, a):
    """Σ z, Σ z² with z = a + x, and the number of masked classes."""
    s = q = 0.0
    masked = 0
    lowest = x.dtype.type(-np.inf)
    for j in range(len(x)):
        gone = x[j] == lowest
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
    low = _lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        e = np.float64(0) if u < low else np.float64(_exp(low if u < low else u))
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
    low = _lowest(x[0])
    lowest = x.dtype.type(-np.inf)
    for j in range(len(x)):
        u = x[j] - m
        v = low if u < low else u
        e = zero if u < low else _exp(v)
        value = e * (c0 + c1 * v + c2 * e) + d + k * (a + x[j])
        g[j] = zero if x[j] == lowest else value


@njit(fastmath=REORDERED)
def _exp_elements(x, g, m, c0):
    """g_j = c0 e, all that most losses need."""
    zero = x.dtype.type(0)
    low = _lowest(x[0])
    for j in range(len(x)):
        u = x[j] - m
        e = _exp(low if u < low else u)
        g[j] = zero if u < low else c0 * e


@njit(fastmath=REORDERED)
def _viewed(row, shift, s, c, x):
    """x_j = s (z_j − c) + v_j."""
    lowest = x.dtype.type(-np.inf)
    for j in range(len(row)):
        value = s * (row[j] - c)
        if len(shift):
            value += shift[j]
        x[j] = lowest if row[j] == lowest else value


@njit(fastmath=REORDERED)
def _unviewed(row, g, s, c):
    """g to the gradient of the logits before the view, and Σ g_j (z_j − c) of before."""
    total = 0.0
    lowest = row.dtype.type(-np.inf)
    for j in range(len(row)):
        centred = np.float64(0) if row[j] == lowest else np.float64(row[j]) - np.float64(c)
        total += np.float64(g[j]) * centred
        g[j] = s * g[j]
    return total


# -- rows -----------------------------------------------------------------------------------------


@njit
def _centre(row, viewed):
    c = row.dtype.type(0)
    if viewed:
        c = _maximum(row)
        if c == -np.inf:
            c = row.dtype.type(0)
    return c


@njit
def _put(out, where, n, moment, value):
    if where[moment] >= 0:
        out[where[moment], n] = value


def _moments(z, label, soft, score, kept, shift, scale, floor, where, out):
    rows, classes = z.shape
    viewed = len(shift) > 0 or len(scale) > 0
    one = z.dtype.type(1)
    several = where[EXP_LOGIT] >= 0 or where[EXP_SQUARE] >= 0
    exps = several or where[EXP] >= 0 or where[LABEL_EXP] >= 0 or where[LABEL_LOG_EXP] >= 0
    powers = where[SUM] >= 0 or where[SQUARE] >= 0 or where[CLASSES] >= 0
    chunks = min(rows, 64)
    for chunk in prange(chunks):
        buffer = np.empty(BLOCK, z.dtype)
        for n in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            if len(kept) and not kept[n]:
                for i in range(out.shape[0]):
                    out[i, n] = 0
                _put(out, where, n, CLASSES, classes)
                _put(out, where, n, EXP, classes)
                _put(out, where, n, EXP_SQUARE, classes)
                _put(out, where, n, LABEL_EXP, 1)
                continue
            row = z[n]
            c = _centre(row, viewed)
            s = z.dtype.type(scale[n]) if len(scale) else one
            a = np.float64(s) * np.float64(c)
            m = z.dtype.type(-np.inf)
            e1 = w1 = q1 = s1 = s2 = l1 = l2 = l3 = l4 = 0.0
            masked = 0
            wanted = False
            if soft.shape[0]:  # the target's sums cannot be rescaled: the maximum first
                for b in range(0, classes, BLOCK):
                    x = row[b : b + BLOCK]
                    if viewed:
                        _viewed(x, shift[b : b + BLOCK], s, c, buffer)
                        x = buffer[: len(x)]
                    m = max(m, _maximum(x))
            for b in range(0, classes, BLOCK):
                x = row[b : b + BLOCK]
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
                y = label[n]
                x_y = row[y]
                if viewed:
                    one_class = shift[y : y + 1] if len(shift) else shift[:0]
                    _viewed(row[y : y + 1], one_class, s, c, buffer)
                    x_y = buffer[0]
                if x_y == -np.inf:
                    wanted = True
                else:
                    u = x_y - m
                    l1 = np.float64(u)
                    l2 = (a + np.float64(x_y)) ** 2
                    low = _lowest(u)
                    l3 = 0.0 if u < low else np.float64(_exp(low if u < low else u))
                l4 = (e1 - l3) * math.log(floor) if floor > 0 else 0.0
            _put(out, where, n, MAXIMUM, np.float64(m))
            _put(out, where, n, CLASSES, classes - masked)
            _put(out, where, n, EXP, e1)
            _put(out, where, n, EXP_LOGIT, w1)
            _put(out, where, n, EXP_SQUARE, q1)
            _put(out, where, n, SUM, s1)
            _put(out, where, n, SQUARE, s2)
            _put(out, where, n, LABEL, -np.inf if wanted else l1)
            _put(out, where, n, LABEL_SQUARE, l2)
            _put(out, where, n, LABEL_EXP, l3)
            _put(out, where, n, LABEL_LOG_EXP, l4)
            _put(out, where, n, PEAK, a + np.float64(m))
            _put(out, where, n, len(where) - 1, np.float64(c))


def _gradient(z, label, soft, score, kept, shift, scale, floor, maximum, centre, co, g, scale_gradient):
    rows, classes = z.shape
    viewed = len(shift) > 0 or len(scale) > 0
    kind = z.dtype.type
    chunks = min(rows, 64)
    for chunk in prange(chunks):
        buffer = np.empty(BLOCK, z.dtype)
        for n in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            row = z[n]
            m = kind(maximum[n])
            if (len(kept) and not kept[n]) or m == -np.inf:
                g[n, :] = 0
                if len(scale_gradient):
                    scale_gradient[n] = 0
                continue
            c = kind(centre[n])
            s = kind(scale[n]) if len(scale) else kind(1)
            a = np.float64(s) * np.float64(c)
            c0 = co[EXP, n] + co[EXP_LOGIT, n]
            if len(label) and floor > 0:
                c0 += co[LABEL_LOG_EXP, n] * math.log(floor)
            c1 = co[EXP_LOGIT, n]
            c2 = 2 * co[EXP_SQUARE, n]
            d = co[SUM, n]
            k = 2 * co[SQUARE, n]
            only_exp = c1 == 0 and c2 == 0 and d == 0 and k == 0
            through = 0.0
            anchor = 0.0
            found = co[PEAK, n] == 0
            for b in range(0, classes, BLOCK):
                before = row[b : b + BLOCK]
                x = before
                if viewed:
                    _viewed(x, shift[b : b + BLOCK], s, c, buffer)
                    x = buffer[: len(x)]
                out = g[n, b : b + BLOCK]
                if only_exp:
                    _exp_elements(x, out, m, kind(c0))
                else:
                    _elements(x, out, kind(a), m, kind(c0), kind(c1), kind(c2), kind(d), kind(k))
                if soft.shape[0]:
                    t = soft[n, b : b + BLOCK]
                    for j in range(len(x)):
                        u = x[j] - m
                        low = _lowest(u)
                        if x[j] > -np.inf:
                            e = np.float64(0) if u < low else np.float64(_exp(low if u < low else u))
                            more = t[j] * (
                                co[LABEL, n]
                                + 2 * co[LABEL_SQUARE, n] * (a + np.float64(x[j]))
                                + co[LABEL_EXP, n] * e
                            )
                            anchor += t[j] * 2 * co[LABEL_SQUARE, n] * (a + np.float64(x[j]))
                            if score.shape[0]:
                                more += co[LABEL_LOG_EXP, n] * score[n, b + j] * e
                            out[j] += kind(more)
                if len(label) and b <= label[n] < b + len(x):
                    j = label[n] - b
                    if x[j] > -np.inf:
                        u = x[j] - m
                        low = _lowest(u)
                        e = np.float64(0) if u < low else np.float64(_exp(low if u < low else u))
                        z_y = a + np.float64(x[j])
                        own = co[LABEL, n] + 2 * co[LABEL_SQUARE, n] * z_y
                        anchor += 2 * co[LABEL_SQUARE, n] * z_y
                        ce = co[LABEL_EXP, n]
                        if floor > 0:
                            ce -= co[LABEL_LOG_EXP, n] * math.log(floor)
                        # q_y − 1 cancels: the label's entry in one float64 expression
                        out[j] = kind(e * (c0 + c1 * np.float64(u) + c2 * e + ce) + d + k * z_y + own)
                if not found:
                    for j in range(len(x)):
                        if x[j] == m:
                            out[j] += kind(co[PEAK, n])
                            found = True
                            break
                if viewed:
                    through += _unviewed(before, out, s, c)
            if len(scale_gradient):
                if d != 0 or k != 0:
                    for b in range(0, classes, BLOCK):
                        before = row[b : b + BLOCK]
                        _viewed(before, shift[b : b + BLOCK], s, c, buffer)
                        for j in range(len(before)):
                            if buffer[j] > -np.inf:
                                anchor += d + k * (a + np.float64(buffer[j]))
                scale_gradient[n] = through + anchor * np.float64(c) + co[PEAK, n] * np.float64(c)


serial_moments = compiled(_moments, nogil=True)
parallel_moments = compiled(_moments, nogil=True, parallel=True)
serial_gradient = compiled(_gradient, nogil=True)
parallel_gradient = compiled(_gradient, nogil=True, parallel=True)
