"""The value of a term and its derivatives in the moments, row by row, from the term's program.

An interpreter of :class:`infoloss.kernels.program.Program`, one instruction at a time over a few hundred
rows; then the instructions backwards. One compiled function serves every term.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from infoloss.kernels.cpu.layout import counts
from infoloss.kernels.program import Code

__all__ = ["values"]

ROWS = 256
"""Rows that an instruction works on."""

CONSTANT, PARAMETER, MOMENT = int(Code.CONSTANT), int(Code.PARAMETER), int(Code.MOMENT)
ADD, SUBTRACT, MULTIPLY, DIVIDE = int(Code.ADD), int(Code.SUBTRACT), int(Code.MULTIPLY), int(Code.DIVIDE)
POWER, NEGATE, EXP, LOG, EXPM1 = (
    int(Code.POWER),
    int(Code.NEGATE),
    int(Code.EXP),
    int(Code.LOG),
    int(Code.EXPM1),
)
LOG1P, SQRT, ABS, MINIMUM, MAXIMUM = (
    int(Code.LOG1P),
    int(Code.SQRT),
    int(Code.ABS),
    int(Code.MINIMUM),
    int(Code.MAXIMUM),
)
STEP, XLOGX = int(Code.STEP), int(Code.XLOGX)


@njit(error_model="numpy")
def _forward(code, a, b, x):
    n = len(x)
    if code == ADD:
        for i in range(n):
            x[i] = a[i] + b[i]
    elif code == SUBTRACT:
        for i in range(n):
            x[i] = a[i] - b[i]
    elif code == MULTIPLY:
        for i in range(n):
            x[i] = a[i] * b[i]
    elif code == DIVIDE:
        for i in range(n):
            x[i] = a[i] / b[i]
    elif code == POWER:
        for i in range(n):
            x[i] = a[i] ** b[i]
    elif code == NEGATE:
        for i in range(n):
            x[i] = -a[i]
    elif code == EXP:
        for i in range(n):
            x[i] = math.exp(a[i])
    elif code == LOG:
        for i in range(n):
            x[i] = np.log(a[i])
    elif code == EXPM1:
        for i in range(n):
            x[i] = math.expm1(a[i])
    elif code == LOG1P:
        for i in range(n):
            x[i] = np.log1p(a[i])
    elif code == SQRT:
        for i in range(n):
            x[i] = np.sqrt(a[i])
    elif code == ABS:
        for i in range(n):
            x[i] = abs(a[i])
    elif code == MINIMUM:
        for i in range(n):
            x[i] = np.minimum(a[i], b[i])
    elif code == MAXIMUM:
        for i in range(n):
            x[i] = np.maximum(a[i], b[i])
    elif code == STEP:
        for i in range(n):
            x[i] = 1.0 if a[i] >= 0 else 0.0
    elif code == XLOGX:
        for i in range(n):
            x[i] = 0.0 if a[i] == 0 else a[i] * np.log(a[i])


@njit(error_model="numpy")
def _backward(code, a, b, x, g, ga, gb):
    """Add to ga and gb what the derivative g in x means for a and b; conventions as PyTorch's."""
    n = len(x)
    if code == ADD:
        for i in range(n):
            ga[i] += g[i]
            gb[i] += g[i]
    elif code == SUBTRACT:
        for i in range(n):
            ga[i] += g[i]
            gb[i] -= g[i]
    elif code == MULTIPLY:
        for i in range(n):
            ga[i] += g[i] * b[i]
            gb[i] += g[i] * a[i]
    elif code == DIVIDE:
        for i in range(n):
            ga[i] += g[i] / b[i]
            gb[i] -= g[i] * x[i] / b[i]
    elif code == POWER:
        for i in range(n):
            if b[i] != 0:
                ga[i] += g[i] * b[i] * a[i] ** (b[i] - 1)
            if not (a[i] == 0 and b[i] >= 0):
                gb[i] += g[i] * x[i] * np.log(a[i])
    elif code == NEGATE:
        for i in range(n):
            ga[i] -= g[i]
    elif code == EXP:
        for i in range(n):
            ga[i] += g[i] * x[i]
    elif code == LOG:
        for i in range(n):
            ga[i] += g[i] / a[i]
    elif code == EXPM1:
        for i in range(n):
            ga[i] += g[i] * (x[i] + 1)
    elif code == LOG1P:
        for i in range(n):
            ga[i] += g[i] / (1 + a[i])
    elif code == SQRT:
        for i in range(n):
            ga[i] += g[i] / (2 * x[i])
    elif code == ABS:
        for i in range(n):
            ga[i] += g[i] * np.sign(a[i])
    elif code in (MINIMUM, MAXIMUM):
        for i in range(n):
            share = 0.5 if a[i] == b[i] else (1.0 if (a[i] < b[i]) == (code == MINIMUM) else 0.0)
            ga[i] += g[i] * share
            gb[i] += g[i] * (1 - share)
    elif code == XLOGX:
        for i in range(n):
            ga[i] += g[i] * (np.log(a[i]) + 1)


def values(
    code,
    left,
    right,
    number,
    active,
    parameters,
    moments,
    maximum,
    label,
    label_row,
    ignored,
    kept,
    value,
    slopes,
):
    """The value of each row, and its derivatives in the moments.

    Args:
        code, left, right, number, active: the program; the last instruction is the value.
        parameters: (P,).
        moments: (K, N) as the kernel packed them.
        maximum: which of them is −inf where every class of the row is masked.
        label: (N,) or empty; a row labelled ``ignored`` has value 0, and so has one that is not ``kept``.
        label_row: which of the moments is −inf where the label is masked, or −1; the value is then inf.
        value: (N,), slopes: (K, N), to be written.

    Returns:
        Σ value, the number of rows that count, and N − n for the first of them that is wholly masked, or 0.
    """
    rows = moments.shape[1]
    steps = len(code)
    chunks = (rows + ROWS - 1) // ROWS
    totals, numbers = np.zeros(chunks), np.zeros(chunks, np.int64)
    empty = 0
    for chunk in prange(chunks):
        start = chunk * ROWS
        width = min(ROWS, rows - start)
        x = np.empty((steps, width))
        g = np.zeros((steps, width))
        for i in range(steps):
            if code[i] == CONSTANT:
                x[i] = number[i]
            elif code[i] == PARAMETER:
                x[i] = parameters[left[i]]
            elif code[i] == MOMENT:
                x[i] = moments[left[i], start : start + width]
                if left[i] == label_row:
                    for t in range(width):
                        if x[i, t] == -np.inf:
                            x[i, t] = 0
            else:
                _forward(code[i], x[left[i]], x[right[i]], x[i])
        g[steps - 1] = 1
        for i in range(steps - 1, -1, -1):
            if active[i] and code[i] > MOMENT:
                _backward(code[i], x[left[i]], x[right[i]], x[i], g[i], g[left[i]], g[right[i]])
        slopes[:, start : start + width] = 0
        for i in range(steps):
            if code[i] == MOMENT:
                for t in range(width):
                    slopes[left[i], start + t] += g[i, t]
        for t in range(width):
            n = start + t
            if not counts(n, label, ignored, kept):
                value[n] = 0
                slopes[:, n] = 0
                continue
            numbers[chunk] += 1
            value[n] = x[steps - 1, t]
            if moments[maximum, n] == -np.inf:
                empty = max(empty, rows - n)
            if label_row >= 0 and moments[label_row, n] == -np.inf:
                value[n] = np.inf
                slopes[:, n] = 0
            totals[chunk] += value[n]
    return totals.sum(), numbers.sum(), empty
