"""What the CPU kernel compiles with, and its elementary functions: an exponential and a tanh that vectorise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = ["REORDERED", "capped", "compiled", "exp", "lowest"]

REORDERED = {"reassoc", "contract", "nsz", "arcp"}  # never nnan or ninf: −inf masks, and nan must stay nan


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """``numba.njit`` with a disk cache; in memory, with one warning, where it cannot be written."""
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError as error:
        warnings.warn(f"infoloss compiles its CPU kernel anew in every process: {error}", stacklevel=2)
        return njit(nogil=True, **options)(function)


@intrinsic
def _bits_as_float(typingctx, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


def lowest(x):
    """Where e^u is taken as 0: about the smallest normal number of the type."""
    raise TypeError


@overload(lowest, inline="always")
def _(x):
    return (lambda x: np.float32(-87.0)) if x == types.float32 else (lambda x: -708.0)


def exp(v):
    """e^v for lowest ≤ v ≤ 0; in float32 with a relative error below 1e-7."""
    raise TypeError


# not inlined by Numba (LLVM does): it must keep its own flags, or the rounding below is optimised away
@overload(exp, jit_options={"fastmath": {"contract"}})
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


def capped(z, cap):
    """cap·tanh(z / cap); −inf, a masked class, stays −inf."""
    raise TypeError


@overload(capped, jit_options={"fastmath": {"contract"}})
def _(z, cap):
    if z != types.float32:
        return lambda z, cap: z if z == -np.inf else cap * math.tanh(z / cap)

    def capped32(z, cap):
        x = z / cap
        size = abs(x)
        # Cephes: an odd polynomial near 0, where 1 − e^(−2|x|) would cancel
        s = x * x
        p = np.float32(-5.70498872745e-3)
        p = p * s + np.float32(2.06390887954e-2)
        p = p * s + np.float32(-5.37397155531e-2)
        p = p * s + np.float32(1.33314422036e-1)
        p = p * s + np.float32(-3.33332819422e-1)
        near = p * s * x + x
        v = np.float32(-2.0) * size
        e = exp(np.float32(-87.0) if v < np.float32(-87.0) else v)
        far = (np.float32(1.0) - e) / (np.float32(1.0) + e)
        far = -far if x < np.float32(0.0) else far
        y = cap * (near if size < np.float32(0.625) else far)
        return z if z == -np.inf else y

    return capped32
