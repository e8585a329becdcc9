"""Peak memory of one piece of work."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

__all__ = ["peak_memory", "reset_peak_memory"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Starts the high-water mark anew, where the system can (CUDA, Linux)."""
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
