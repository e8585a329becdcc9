"""The CPU kernel compiled once for all processes of the suite: a minute or two in a fresh clone.

Two processes that need a function at the same time would both compile it, and most need the same ones.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, wait
from itertools import product

import torch

import infoloss as il

NARROW, WIDE = 10, 40
"""Classes of logits that are read in tiles, and row by row."""
SMALL, LARGE = 100, 20_000
"""Rows for one thread, and for several."""


def compile_for(dtype: torch.dtype, classes: int, rows: int) -> None:
    """What logits of this type and these sizes need, onto the disk."""
    torch.set_num_threads(1 if rows == SMALL else 2)
    z, y = torch.zeros(rows, classes, dtype=dtype), torch.zeros(rows, dtype=torch.int64)
    with il.kernels.use("cpu"):
        for reduction in ("mean", "none"):  # in one function, if there are few rows, and one by one
            il.min_ent()(z.requires_grad_(), y, reduction=reduction).sum().backward()


def compile_all(processes: int) -> None:
    """Every function that is slow to compile; what takes longest comes first."""
    if not importlib.util.find_spec("numba"):
        return
    work = [*product((torch.float32, torch.float64), (NARROW, WIDE), (SMALL,))]
    work += [*product((torch.float32,), (NARROW, WIDE), (LARGE,))]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        wait([pool.submit(compile_for, *each) for each in work])  # what fails here fails in the tests too
