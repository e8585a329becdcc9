"""Fresh memory for what is as large as the logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["unwritten"]

LARGE = 1 << 22
"""Bytes from which NumPy asks Linux for large pages."""
LINE = 64
"""Bytes of a cache line, at whose beginning PyTorch's memory begins too."""


def unwritten(like: Tensor) -> Tensor:
    """Memory for a tensor like another, without values.

    Large memory is NumPy's, since PyTorch leaves it in pages of 4 KiB. The first touch of each costs more
    than the arithmetic that fills it: copying into fresh memory takes much less time with large pages.
    """
    size = like.numel() * like.itemsize
    if not like.is_cpu or size < LARGE:
        return torch.empty_like(like)
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    flat = torch.from_numpy(memory[start : start + size]).view(like.dtype)
    return flat.as_strided(like.shape, torch.empty_like(like, device="meta").stride())
