"""A small batch in one call: moments, values, and the gradient of their sum or mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["step_of"]


def step_of(moments: Any, values: Any, gradient: Any) -> Callable[..., Any]:
    """The three compiled functions as one, with their arguments in a row."""

    def step(
        z,
        layout,
        label,
        ignored,
        soft,
        score,
        kept,
        shift,
        scale,
        tau,
        cap,
        floor,
        where,
        sizes,
        instructions,
        number,
        parameters,
        divisor,
        g,
        g_layout,
    ):
        """Σ value, the rows that count, and the first wrong row as the three functions count it.

        ``sizes``: how many moments, whether the maxima's classes are wanted, the row of label_logit or −1.
        ``divisor`` is nan where the gradient is that of the mean over the rows that count.
        """
        rows = layout[0]
        out, value, slopes = np.empty((sizes[0], rows)), np.empty(rows), np.empty((sizes[0], rows))
        peaks = np.empty(rows if sizes[1] else 0, np.int64)
        given = (z, layout, label, ignored, soft, score, kept, shift, scale, tau, cap, floor, where)
        wrong = moments(*given, out, peaks)
        if wrong:
            return 0.0, 0, wrong
        rest = (label, sizes[2], ignored, kept, value, slopes)
        total, counted, empty = values(instructions, number, parameters, out, 0, *rest)
        if not empty:
            d = float(counted) if math.isnan(divisor) else divisor
            factor = 1 / d if d != 0 else 0.0
            gradient(*given, out, peaks, slopes, factor, g, g_layout, value[:0])
        return total, counted, empty

    return step
