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
from numba.core import cgutils
from numba.extending import intrinsic, overload

__all__ = [
    "REORDERED",
    "capped",
    "compiled",
    "exp",
    "fetch",
    "inlined",
    "log",
    "lowest",
    "maximum",
    "unmanaged",
]

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
    # nobody calls them from Python or C, and code for that would be a copy of the function
    alone = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return decorate(error_model="numpy", forceinline=True, **alone, **options)  # type: ignore[no-any-return]


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


@intrinsic
def _float_as_bits(typingctx, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _bits_as_double(typingctx, x):
    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@unmanaged()
def log(x):
    """ln x in float64 with an error below one unit in the last place, in a loop that vectorises.

    FreeBSD's: x = 2^k (1 + f) with 1 + f between √½ and √2, ln(1 + f) from s = f / (2 + f).
    """
    tiny = x < 2.2250738585072014e-308  # subnormal
    bits = _float_as_bits(x * 18014398509481984.0 if tiny else x)  # type: ignore[call-arg]
    k = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
    f = _bits_as_double(bits - (k << np.int64(52))) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    odd = 1.818357216161805012e-01 + w * 1.479819860511658591e-01
    odd = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * odd))
    half = 0.5 * f * f
    n = np.float64(np.int32(k) - np.int32(54 if tiny else 0))
    low = s * (half + (even + odd)) + n * 1.90821492927058770002e-10
    y = n * 6.93147180369123816490e-01 - ((half - low) - f)
    y = x if x == np.inf else y
    y = -np.inf if x == 0.0 else y
    return y if x >= 0.0 else np.nan


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
def _fetch(typingctx, x, at):
    def codegen(context, builder, signature, arguments):
        integer, pointer = ir.IntType(32), ir.PointerType(ir.IntType(8))
        memory = context.make_array(x)(context, builder, arguments[0])
        element = builder.bitcast(builder.gep(memory.data, [arguments[1]]), pointer)
        of_type = ir.FunctionType(ir.VoidType(), [pointer, integer, integer, integer])
        function = cgutils.get_or_insert_function(builder.module, of_type, "llvm.prefetch.p0")
        for_reading, near, data = 0, 3, 1
        builder.call(function, [element, *map(integer, (for_reading, near, data))])
        return context.get_dummy_value()

    return types.void(x, at), codegen


@unmanaged()
def fetch(x, at, n):
    """Have n elements of x from ``at`` on brought into the cache, while something else is computed."""
    line = np.uint64(64 // x.itemsize)
    for j in range(at, at + np.uint64(n), line):
        _fetch(x, j)  # type: ignore[call-arg]


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
