"""What the loops of the CPU kernel share: the moments by number, where a row lies, which rows count."""

from __future__ import annotations

from infoloss.kernels.cpu.arithmetic import unmanaged
from infoloss.views import SMALLEST_NORM

__all__ = [
    "CENTRE",
    "CLASSES",
    "EXP",
    "EXP_LOGIT",
    "EXP_SQUARE",
    "LABEL",
    "LABEL_EXP",
    "LABEL_LOG_EXP",
    "LABEL_SQUARE",
    "MAXIMUM",
    "OFFSET",
    "PEAK",
    "SCALE",
    "SMALLEST_NORM",
    "SQUARE",
    "SUM",
    "counts",
    "leave_out",
    "put",
    "slope",
    "start_of",
]

# the numbers of infoloss.kernels.inputs.ORDER
MAXIMUM, CLASSES, EXP, EXP_LOGIT, EXP_SQUARE, SUM, SQUARE = range(7)
LABEL, LABEL_SQUARE, LABEL_EXP, LABEL_LOG_EXP, PEAK = range(7, 12)
CENTRE, OFFSET, SCALE = range(12, 15)


@unmanaged()
def start_of(n, layout):
    """Where row n = b·inner + i begins."""
    if layout[2] == layout[0]:
        return n * layout[5]
    return (n // layout[2]) * layout[3] + (n % layout[2]) * layout[5]


@unmanaged()
def counts(n, label, ignored, kept):
    """Whether row n counts."""
    return not (len(kept) and not kept[n]) and not (len(label) and label[n] == ignored)


@unmanaged()
def put(out, where, n, moment, value):
    if where[moment] >= 0:
        out[where[moment], n] = value


@unmanaged()
def slope(slopes, where, moment, n):
    """The derivative in a moment of row n."""
    return slopes[where[moment], n] if where[moment] >= 0 else 0.0


@unmanaged()
def leave_out(out, where, n, classes):
    """The moments of a row of zeros with the label 0, for a row that does not count."""
    for i in range(out.shape[0]):
        out[i, n] = 0
    put(out, where, n, CLASSES, classes)
    put(out, where, n, EXP, classes)
    put(out, where, n, EXP_SQUARE, classes)
    put(out, where, n, LABEL_EXP, 1)
