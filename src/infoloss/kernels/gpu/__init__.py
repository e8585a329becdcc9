"""The GPU kernel: moments of rows, and their gradient over the columns, compiled with Triton.

The loops of :mod:`infoloss.kernels.cpu` for a GPU. A program reads a few rows tile by tile, each tile
centred at the largest element so far; sums about another centre are moved by the rule that also merges
partials (``forward._rescaled``). Where rows are few, several programs share the columns of a row and
:func:`merge` adds up what they found. :func:`gradient` reads the rows again and writes, for each element,

    e (a + b u + c e) + d + k z   (+ the label's and the maximum's own shares)

and may write it over what it has read: nobody but a column's own program uses its logit, and that program
reads the label's before it writes.

Elements are float32 (float64 for float64 logits), whatever they are stored as, and so are the sums that each
column of a tile keeps over the tiles: of exponentials without the largest elements, which are counted apart
(beside their ones the others would be rounded away), of logits about one of the row's. What is kept of a row
is float64, and so are a soft target's sums.

A view z' = s(z − c) + v (c the row's maximum) is applied to a tile as it is loaded.

The columns need not be all classes of a row: they are those from ``first`` on of ``total``. Where a linear
head makes its logits a few classes at a time, :func:`moments` goes on from what it left of the classes
before.

The columns of a row that fill whole tiles are read without asking of each whether it exists: there, memory
is what takes the time, and little else may.
"""

from __future__ import annotations

from infoloss.kernels.gpu.backward import gradient
from infoloss.kernels.gpu.forward import PARTS, merge, moments
from infoloss.kernels.gpu.programs import values

__all__ = ["PARTS", "gradient", "merge", "moments", "values"]
