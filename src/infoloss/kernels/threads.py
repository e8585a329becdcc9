"""Whether the CPU kernel may use several threads here.

Numba's OpenMP layer dies in a forked child, and its own "workqueue" layer aborts the process when two
Python threads call it at once: there the serial variants run.
"""

from __future__ import annotations

import os
import threading

import numba
import torch
from numba import njit, prange

__all__ = ["parallel"]

PARALLEL_FROM = 1 << 16
"""Elements from which threads save more than starting them costs (benchmarks/thresholds.py)."""

_lock = threading.Lock()
_safe: bool | None = None  # unknown until the threading layer is known


def _serial_from_now_on() -> None:
    global _safe
    _safe = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial_from_now_on)


def parallel(elements: int) -> bool:
    """Whether to run the parallel variant on so many elements; sets its number of threads if so."""
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if elements < PARALLEL_FROM or threads == 1 or not _layer_is_safe():
        return False
    numba.set_num_threads(threads)
    return True


def _layer_is_safe() -> bool:
    global _safe
    if _safe is None:
        with _lock:
            if _safe is None:
                _first_region(2)  # the layer is chosen by the first parallel region
                _safe = numba.threading_layer() in ("omp", "tbb")  # type: ignore[attr-defined]
    return _safe


@njit(parallel=True)
def _first_region(n):
    total = 0
    for i in prange(n):
        total += i
    return total
