"""Memory of one piece of work: its peak, and what becomes of it when it is freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import cache
from pathlib import Path

import torch

__all__ = ["keep_freed_memory", "peak_memory", "reset_peak_memory"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed_memory() -> None:
    """Lets this process keep what it frees for what it allocates next, where the C library is GNU's.

    By default it gives large blocks back to the system, which fills them with zeros, page by page, when they
    are wanted again: in every step of a training.
    """
    library = _gnu_library()
    if library is not None:
        for parameter, value in _KEEP.items():
            library.mallopt(parameter, value)


_KEEP = {-4: 0, -1: 2**31 - 1}
"""M_MMAP_MAX: no block is a mapping of its own. M_TRIM_THRESHOLD: nor is the end of the heap given back."""


@cache
def _gnu_library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def reset_peak_memory(device: torch.device) -> None:
    """Starts the high-water mark anew, where the system can (CUDA, Linux); gives back what was kept."""
    library = _gnu_library()
    if library is not None:
        library.malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        # "5" resets the peak resident set size: proc_pid_clear_refs(5). Some containers forbid it.
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")


def peak_memory(device: torch.device) -> float:
    """High-water mark in MiB: allocated device memory on CUDA, else the resident set of the whole process.

    Without /proc it is the maximum since the process began.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 2**10
    return _resident_maximum()


def _resident_maximum() -> float:
    if sys.platform == "win32":
        return float("nan")
    import resource

    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum / (2**20 if sys.platform == "darwin" else 2**10)
