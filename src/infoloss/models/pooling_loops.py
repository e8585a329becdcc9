"""The loops of ``PooledReLU``, compiled with Numba: images (N, H, W, C), as integers that hold their bits.

Positive floating-point numbers have the order of their bits, and ReLU leaves no others, so that whole numbers
are compared, which are as wide as the images' (Numba has no bfloat16).
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from infoloss.kernels.cpu.arithmetic import compiled, unmanaged

__all__ = ["pooled", "spread"]


def scaled(bits, scale):
    """The bits of scale · x, rounded to nearest, ties to even."""
    raise TypeError


@overload(scaled, jit_options={"forceinline": True})
def _(bits, scale):
    if bits == types.int32:
        return lambda bits, scale: np.float32(np.int32(bits).view(np.float32) * scale).view(np.int32)

    def of_bfloat16(bits, scale):
        x = np.int32(np.int32(bits) << np.int32(16)).view(np.float32)
        y = np.float32(x * scale).view(np.uint32)
        half = np.uint32(0x7FFF) + ((y >> np.uint32(16)) & np.uint32(1))
        return np.int16((y + half) >> np.uint32(16))

    return of_bfloat16


def ordered(bits):
    """The bits themselves; those of any NaN become the largest number, which is a NaN too."""
    raise TypeError


@overload(ordered, jit_options={"forceinline": True})
def _(bits):
    if bits == types.int32:
        infinity, largest = np.int32(0x7F800000), np.int32(0x7FFFFFFF)
    else:
        infinity, largest = np.int16(0x7F80), np.int16(0x7FFF)
    return lambda bits: largest if bits & largest > infinity else bits


@unmanaged()
def _pooled_row(top, bottom, levels, threshold, scale, y, chosen):
    zero = y.dtype.type(0)
    for j in range(y.shape[0]):
        for k in range(y.shape[1]):
            best, place = zero, 0
            v = ordered(top[2 * j, k])
            place = 1 if v > best else place
            best = max(best, v)
            v = ordered(top[2 * j + 1, k])
            place = 2 if v > best else place
            best = max(best, v)
            v = ordered(bottom[2 * j, k])
            place = 3 if v > best else place
            best = max(best, v)
            v = ordered(bottom[2 * j + 1, k])
            place = 4 if v > best else place
            best = max(best, v)
            if levels is not None:
                kept = levels[j, k] >= threshold
                place = place if kept else 0
                best = scaled(best if kept else zero, scale)
            y[j, k] = best
            chosen[j, k] = place


def _pooled(x, levels, threshold, scale, y, chosen):
    """Writes y, and which of the four pixels it comes from: 1 to 4, row by row, or 0 for none.

    Args:
        x: (N, H, W, C).
        levels: (N, H/2, W/2, C) random numbers; those below ``threshold`` drop theirs. None drops none.
        threshold: an integer.
        scale: of what is kept; None without ``levels``.
        y: (N, H/2, W/2, C), written.
        chosen: (N, H/2, W/2, C), written.
    """
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            its_levels = None if levels is None else levels[n, i]
            top, bottom = x[n, 2 * i], x[n, 2 * i + 1]
            _pooled_row(top, bottom, its_levels, threshold, scale, y[n, i], chosen[n, i])


@unmanaged()
def _spread_pixel(g, chosen, scale, a, b, c, d):
    zero = g.dtype.type(0)
    # Two loops: numbers of two widths in one do not vectorise.
    for k in range(g.shape[0]):
        a[k] = g[k] if scale is None else scaled(g[k], scale)
    for k in range(g.shape[0]):
        v, place = a[k], g.dtype.type(chosen[k])
        a[k] = v if place == 1 else zero
        b[k] = v if place == 2 else zero
        c[k] = v if place == 3 else zero
        d[k] = v if place == 4 else zero


def _spread(g, chosen, scale, x):
    """Writes scale · g where it comes from and 0 into the three other pixels of its four.

    Args:
        g: (N, H/2, W/2, C).
        chosen: (N, H/2, W/2, C), as ``pooled`` wrote it.
        scale: None leaves g as it is.
        x: (N, H, W, C), written; an odd last row or column is not.
    """
    n, height, width, _ = g.shape
    for i in range(n):
        for j in range(height):
            for k in range(width):
                _spread_pixel(
                    g[i, j, k],
                    chosen[i, j, k],
                    scale,
                    x[i, 2 * j, 2 * k],
                    x[i, 2 * j, 2 * k + 1],
                    x[i, 2 * j + 1, 2 * k],
                    x[i, 2 * j + 1, 2 * k + 1],
                )


pooled = compiled(_pooled, error_model="numpy", _nrt=False)
spread = compiled(_spread, error_model="numpy", _nrt=False)
