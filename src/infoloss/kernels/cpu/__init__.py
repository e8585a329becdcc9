"""The CPU kernel: moments of rows, values of terms, and gradients over the columns, compiled with Numba.

Three pairs of functions, shared by every loss, each in a serial and a parallel variant: ``rows`` and
``tiles`` read logits in the two ways that vectorise, ``values`` computes terms from the moments.
"""

from __future__ import annotations

from infoloss.kernels.cpu import programs, rows, tiles
from infoloss.kernels.cpu.arithmetic import compiled
from infoloss.kernels.cpu.layout import ORDER

__all__ = ["FUNCTIONS", "ORDER"]

FUNCTIONS = {
    (name, parallel): compiled(function, parallel=parallel, error_model="numpy")
    for name, function in {
        "rows.moments": rows.moments,
        "rows.gradient": rows.gradient,
        "tiles.moments": tiles.moments,
        "tiles.gradient": tiles.gradient,
        "values": programs.values,
    }.items()
    for parallel in (False, True)
}
"""By name, and whether several threads work on it."""
