"""The value of a term and its derivatives in the moments, row by row, on a GPU.

The interpreter of :mod:`infoloss.kernels.cpu.programs` in Triton: one instruction at a time over a block of
rows, each with memory of its own for every instruction; then the instructions backwards.
"""

from __future__ import annotations

import triton
import triton.language as tl

from infoloss.kernels.program import Code

__all__ = ["values"]

CONSTANT = tl.constexpr(int(Code.CONSTANT))
PARAMETER = tl.constexpr(int(Code.PARAMETER))
MOMENT = tl.constexpr(int(Code.MOMENT))
ADD = tl.constexpr(int(Code.ADD))
SUBTRACT = tl.constexpr(int(Code.SUBTRACT))
MULTIPLY = tl.constexpr(int(Code.MULTIPLY))
DIVIDE = tl.constexpr(int(Code.DIVIDE))
POWER = tl.constexpr(int(Code.POWER))
NEGATE = tl.constexpr(int(Code.NEGATE))
EXP = tl.constexpr(int(Code.EXP))
LOG = tl.constexpr(int(Code.LOG))
EXPM1 = tl.constexpr(int(Code.EXPM1))
LOG1P = tl.constexpr(int(Code.LOG1P))
SQRT = tl.constexpr(int(Code.SQRT))
ABS = tl.constexpr(int(Code.ABS))
MINIMUM = tl.constexpr(int(Code.MINIMUM))
MAXIMUM = tl.constexpr(int(Code.MAXIMUM))
STEP = tl.constexpr(int(Code.STEP))
XLOGX = tl.constexpr(int(Code.XLOGX))

MASKED = tl.constexpr(float("-inf"))


@triton.jit
def _expm1(a):
    """e^a − 1 with all its digits: the errors of w = e^a and of ln w cancel."""
    w = tl.exp(a)
    small = (w - 1) * a / tl.log(w)
    return tl.where(w == 1, a, tl.where((w - 1 == -1) | (w == float("inf")), w - 1, small))


@triton.jit
def _log1p(a):
    """ln(1 + a) with all its digits, likewise."""
    w = 1 + a
    return tl.where(w == 1, a, tl.where(w == float("inf"), w, tl.log(w) * (a / (w - 1))))


@triton.jit
def _power(a, b):
    """a^b; of a negative number nan unless b is whole."""
    size = tl.exp(b * tl.log(tl.abs(a)))
    odd = tl.floor(b / 2) * 2 != b
    of_negative = tl.where(tl.floor(b) == b, tl.where(odd, -size, size), float("nan"))
    return tl.where(b == 0, 1.0, tl.where(a < 0, of_negative, size))


@triton.jit
def _forward(code, a, b):
    x = a
    if code == ADD:
        x = a + b
    elif code == SUBTRACT:
        x = a - b
    elif code == MULTIPLY:
        x = a * b
    elif code == DIVIDE:
        x = a / b
    elif code == POWER:
        x = _power(a, b)
    elif code == NEGATE:
        x = -a
    elif code == EXP:
        x = tl.exp(a)
    elif code == LOG:
        x = tl.log(a)
    elif code == EXPM1:
        x = _expm1(a)
    elif code == LOG1P:
        x = _log1p(a)
    elif code == SQRT:
        x = tl.sqrt(a)
    elif code == ABS:
        x = tl.abs(a)
    elif code == MINIMUM:
        x = tl.where((a < b) | (a != a), a, b)
    elif code == MAXIMUM:
        x = tl.where((a > b) | (a != a), a, b)
    elif code == STEP:
        x = tl.where(a >= 0, 1.0, 0.0).to(a.dtype)
    elif code == XLOGX:
        x = tl.where(a == 0, 0.0, a * tl.log(tl.where(a == 0, 1.0, a)))
    return x


@triton.jit
def _backward(code, a, b, x, g):
    """What the derivative g in x means for a and b; conventions as PyTorch's."""
    ga = tl.zeros_like(g)
    gb = tl.zeros_like(g)
    if code == ADD:
        ga = g
        gb = g
    elif code == SUBTRACT:
        ga = g
        gb = -g
    elif code == MULTIPLY:
        ga = g * b
        gb = g * a
    elif code == DIVIDE:
        ga = g / b
        gb = -g * x / b
    elif code == POWER:
        ga = tl.where(b == 0, 0.0, g * b * _power(a, b - 1))
        gb = tl.where((a == 0) & (b >= 0), 0.0, g * x * tl.log(a))
    elif code == NEGATE:
        ga = -g
    elif code == EXP:
        ga = g * x
    elif code == LOG:
        ga = g / a
    elif code == EXPM1:
        ga = g * (x + 1)
    elif code == LOG1P:
        ga = g / (1 + a)
    elif code == SQRT:
        ga = g / (2 * x)
    elif code == ABS:
        ga = tl.where(a == 0, 0.0, tl.where(a < 0, -g, g))
    elif (code == MINIMUM) | (code == MAXIMUM):
        share = tl.where(a == b, 0.5, tl.where((a < b) == (code == MINIMUM), 1.0, 0.0))
        ga = g * share
        gb = g * (1 - share)
    elif code == XLOGX:
        ga = g * (tl.log(a) + 1)
    return ga, gb


@triton.jit
def values(
    instructions,  # (4, steps)
    number,  # (steps,)
    parameters,  # (P,), or None
    spared,  # (K,): in which moments no derivative is asked for
    packed,  # (K, N); the first is −inf where every class of the row is masked
    label,  # (N,) or None
    kept,  # (N,) or None
    x,  # (steps, N): memory
    g,  # (steps, N): memory
    slopes,  # (K, N), zeros; the derivatives in the moments
    value,  # (N,) or None
    sums,  # (programs, 3): Σ value, how many rows count, and how many labels of them are out of range
    rows,
    steps,
    classes,
    label_row,  # which of the moments is −inf where the label is masked, or −1; the value is then inf
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < rows
    counted = inside
    if kept is not None:
        counted = inside & (tl.load(kept + n, mask=inside, other=0) != 0)
    each = tl.zeros((BLOCK,), tl.int64) + rows
    for i in range(steps):
        code = tl.load(instructions + i)
        left = tl.load(instructions + steps + i)
        v = tl.zeros((BLOCK,), tl.float64)
        if code == CONSTANT:
            v += tl.load(number + i)
        elif code == PARAMETER:
            if parameters is not None:
                v += tl.load(parameters + left)
        elif code == MOMENT:
            v = tl.load(packed + left * each + n, mask=inside, other=0.0)
            v = tl.where((left == label_row) & (v == MASKED), 0.0, v)
        else:
            right = tl.load(instructions + 2 * steps + i)
            a = tl.load(x + left * each + n, mask=inside, other=1.0)
            b = tl.load(x + right * each + n, mask=inside, other=1.0)
            v = _forward(code, a, b)
        tl.store(x + i * each + n, v, mask=inside)
        tl.store(g + i * each + n, tl.zeros((BLOCK,), tl.float64), mask=inside)
        tl.debug_barrier()  # another thread may be the one that reads it
    masked = tl.zeros((BLOCK,), tl.int1)
    if label_row >= 0:
        masked = tl.load(packed + label_row * each + n, mask=inside, other=0.0) == MASKED
    result = tl.load(x + (steps - 1) * each + n, mask=inside, other=0.0)
    result = tl.where(masked, float("inf"), result)
    result = tl.where(tl.load(packed + n, mask=inside, other=0.0) == MASKED, float("nan"), result)
    result = tl.where(counted, result, 0.0)
    wrong = tl.zeros((BLOCK,), tl.float64)
    if label is not None:
        y = tl.load(label + n, mask=inside, other=0)
        wrong = tl.where(counted & ((y < 0) | (y >= classes)), 1.0, 0.0).to(tl.float64)
    if value is not None:
        tl.store(value + n, result, mask=inside)
    at = sums + 3 * tl.program_id(0)
    tl.store(at, tl.sum(result, 0))
    tl.store(at + 1, tl.sum(tl.where(counted, 1.0, 0.0).to(tl.float64), 0))
    tl.store(at + 2, tl.sum(wrong, 0))

    one = tl.where(counted & (masked == 0), 1.0, 0.0).to(tl.float64)  # other rows have no derivative
    tl.store(g + (steps - 1) * each + n, one, mask=inside)
    tl.debug_barrier()
    for back in range(steps):
        i = steps - 1 - back
        code = tl.load(instructions + i)
        left = tl.load(instructions + steps + i)
        if tl.load(instructions + 3 * steps + i) != 0:
            d = tl.load(g + i * each + n, mask=inside, other=0.0)
            if code == MOMENT:
                if tl.load(spared + left) == 0:
                    tl.store(slopes + left * each + n, tl.where(one != 0, d, 0.0), mask=inside)
            else:
                right = tl.load(instructions + 2 * steps + i)
                a = tl.load(x + left * each + n, mask=inside, other=1.0)
                b = tl.load(x + right * each + n, mask=inside, other=1.0)
                ga, gb = _backward(code, a, b, tl.load(x + i * each + n, mask=inside, other=1.0), d)
                old = tl.load(g + left * each + n, mask=inside, other=0.0)
                tl.store(g + left * each + n, old + ga, mask=inside)
                tl.debug_barrier()
                old = tl.load(g + right * each + n, mask=inside, other=0.0)  # left may be right
                tl.store(g + right * each + n, old + gb, mask=inside)
                tl.debug_barrier()
