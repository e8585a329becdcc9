"""The value of a term and its derivatives in the moments, row by row, from the term's program.

An interpreter of :class:`infoloss.kernels.program.Program`, one instruction at a time over a few hundred
rows; then the instructions backwards. One compiled function serves every term.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from infoloss.kernels.cpu.arithmetic import log, unmanaged
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


@unmanaged()
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
            x[i] = log(a[i])
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
            x[i] = 0.0 if a[i] == 0 else a[i] * log(a[i])


@unmanaged()
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
                gb[i] += g[i] * x[i] * log(a[i])
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
            ga[i] += g[i] * (log(a[i]) + 1)


@unmanaged()
def _values_of_rows(start, x, g, nothing, program, moments, spared, labels, value, slopes):
    """The rows from ``start`` on that x has place for; their part of what :func:`values` returns.

    Args:
        x, g: (instructions, rows) for the values, and zeros for the derivatives.
        nothing: (rows,) False, for the rows without a derivative.
        program … slopes: as for :func:`values`.
    """
    instructions, number, parameters = program
    label, ignored, kept, label_row = labels
    code, left, right, active = instructions[0], instructions[1], instructions[2], instructions[3]
    rows, (steps, width) = moments.shape[1], x.shape
    for i in range(steps):
        if code[i] == CONSTANT:
            x[i] = number[i]
        elif code[i] == PARAMETER:
            x[i] = parameters[left[i]]
        elif code[i] == MOMENT:
            for t in range(width):
                x[i, t] = moments[left[i], start + t]
            if left[i] == label_row:
                for t in range(width):
                    x[i, t] = 0.0 if x[i, t] == -np.inf else x[i, t]
        else:
            _forward(code[i], x[left[i]], x[right[i]], x[i])
    total, counted, empty = 0.0, 0, 0
    for t in range(width):
        n = start + t
        result = x[steps - 1, t]
        if not counts(n, label, ignored, kept):
            result = 0.0
            nothing[t] = True
        else:
            counted += 1
            if moments[0, n] == -np.inf:
                empty = max(empty, rows - n)
            if label_row >= 0 and moments[label_row, n] == -np.inf:
                result = np.inf
                nothing[t] = True
        total += result
        if len(value):
            value[n] = result
    g[steps - 1] = 1
    for i in range(steps - 1, -1, -1):
        if active[i] and code[i] > MOMENT:
            _backward(code[i], x[left[i]], x[right[i]], x[i], g[i], g[left[i]], g[right[i]])
    for k in range(len(spared)):  # every moment has been read
        if not spared[k]:
            slopes[k, start : start + width] = 0
    for i in range(steps):
        if code[i] == MOMENT and not spared[left[i]]:
            for t in range(width):
                slopes[left[i], start + t] = 0.0 if nothing[t] else g[i, t]
    return total, counted, empty


def values(program, moments, spared, labels, value, slopes):
    """The value of each row, and its derivatives in the moments.

    Args:
        program: its instructions, the last of which is the value; their numbers; its parameters (P,).
        moments: (K, N) as the kernel packed them; the first is −inf where every class of the row is masked.
        spared: (K,) moments in which no derivative is asked for.
        labels: (N,) or empty; the ignored one, whose rows have value 0; which rows are kept, (N,) or empty:
            the others have value 0 too; which of the moments is −inf where the label is masked, or −1: the
            value is then inf.
        value: (N,) to be written, or empty.
        slopes: (K, N) to be written but for the rows spared; it may be ``moments``.

    Returns:
        Σ value, the number of rows that count, and N − n for the first of them that is wholly masked, or 0.
    """
    rows, steps = moments.shape[1], len(program[1])
    chunks = (rows + ROWS - 1) // ROWS
    totals, numbers = np.zeros(chunks), np.zeros(chunks, np.int64)
    empty = 0
    for chunk in prange(chunks):
        start = chunk * ROWS
        width = min(ROWS, rows - start)
        totals[chunk], numbers[chunk], masked = _values_of_rows(
            start,
            np.empty((steps, width)),
            np.zeros((steps, width)),
            np.zeros(width, np.bool_),
            program,
            moments,
            spared,
            labels,
            value,
            slopes,
        )
        empty = max(empty, masked)
    return totals.sum(), numbers.sum(), empty
