"""What the CPU kernel compiles with, and elementary functions that vectorise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = ["REORDERED", "capped", "compiled", "exp", "inlined", "lowest", "maximum", "unmanaged"]

REORDERED = {"reassoc", "contract", "nsz", "arcp"}  # never nnan or ninf: −inf masks, and nan must stay nan


def compiled(function: Callable[..., Any], *, parallel: bool = False, **options: Any) -> Any:
    """``numba.njit`` with a disk cache; in memory, with one warning, where it cannot be written."""
    options["parallel"] = parallel
    if parallel:  # Numba's cache knows a function by its name, whatever options it is compiled with
        function = FunctionType(function.__code__, function.__globals__)
        function.__qualname__ += "_parallel"
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no place for the cache
        _warn_once()
        return njit(nogil=True, **options)(function)


@cache
def _warn_once() -> None:
    warnings.warn(
        "infoloss compiles its CPU kernel anew in every process, since Numba can write neither beside it nor "
        "in the user's cache; set NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=3,
    )


def inlined(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` for functions that others call: compiled into each of them.

    Were they called, it could be a copy that was optimised elsewhere, and the last bit of a result would
    depend on what has been compiled and what has been read from the disk.
    """
    decorate: Any = njit
    return decorate(error_model="numpy", forceinline=True, **options)  # type: ignore[no-any-return]


def unmanaged(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """:func:`inlined` for functions that allocate nothing, without counting references to their arrays.

    Two atomic operations for each array and branch would cost more than a row of a hundred classes.
    """
    return inlined(_nrt=False, **options)


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
@overload(exp, jit_options={"fastmath": {"contract"}, "forceinline": True})
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


@overload(capped, jit_options={"fastmath": {"contract"}, "forceinline": True})
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


@intrinsic
def _larger(typingctx, x, y):
    # with these flags LLVM keeps several running maxima, which vectorise
    def codegen(context, builder, signature, arguments):
        flags = ("nnan", "nsz")
        larger = builder.fcmp_ordered(">", *arguments, flags=flags)
        return builder.select(larger, *arguments, flags=flags)

    return x(x, x), codegen


def maximum(x, at, n):
    """The largest of n elements of x from ``at`` on; where one is nan, anything that is among them."""
    raise TypeError


@overload(maximum, jit_options={"forceinline": True})
def _(x, at, n):
    def largest(x, at, n):
        m = x.dtype.type(-np.inf)
        for j in range(np.uint64(n)):
            m = _larger(m, x[at + j])  # type: ignore[call-arg]
        return m

    return largest
