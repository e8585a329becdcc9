"""The CPU kernel: moments of rows, values of terms, and gradients over the columns, compiled with Numba.

Functions shared by every loss, each in a serial and a parallel variant: ``rows`` (with the loops of
``stretch``) and ``tiles`` read logits in the two ways that vectorise, ``labels`` reads no more than the
label's own, ``values`` computes terms from the moments. ``steps`` does all of it for a small batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infoloss.kernels.cpu import labels, programs, rows, steps, tiles
from infoloss.kernels.cpu.arithmetic import compiled

__all__ = ["FUNCTIONS", "STEPS"]

LOOPS: dict[str, Callable[..., Any]] = {
    "rows.moments": rows.moments,
    "rows.gradient": rows.gradient,
    "tiles.moments": tiles.moments,
    "tiles.gradient": tiles.gradient,
    "labels.moments": labels.moments,
    "labels.add_gradient": labels.add_gradient,
    "values": programs.values,
}
FUNCTIONS: dict[tuple[str, bool], Any] = {
    (name, parallel): compiled(loop, parallel=parallel, error_model="numpy")
    for name, loop in LOOPS.items()
    for parallel in (False, True)
}
"""The compiled loops, by name and by whether several threads work on them."""
STEPS: dict[str, Any] = {
    "rows": compiled(steps.rows_step, error_model="numpy"),
    "tiles": compiled(steps.tiles_step, error_model="numpy"),
}
"""All of a small batch, in one thread."""
