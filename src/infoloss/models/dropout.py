"""Dropout with masks from a fast generator: on a CPU PyTorch's own are most of a small network's dropout."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["Dropout"]

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """In training, each number becomes 0 with probability p, and 1 / (1 − p) times itself otherwise.

    On a CPU the masks come from 16 random bits a number, and p is rounded to a multiple of 2⁻¹⁶; elsewhere
    they are PyTorch's. The generator is seeded from PyTorch's when the module is made, so that models built
    with the same seed drop the same numbers, call by call, whatever else draws random numbers. It travels
    with copies and pickles.

    Args:
        p: in [0, 1).

    Raises:
        ValueError: p outside [0, 1).

    Example:
        >>> x = torch.ones(2, 1000)
        >>> y = Dropout(0.5)(x)
        >>> y.unique().tolist(), bool(400 < (y[0] == 0).sum() < 600)
        ([0.0, 2.0], True)
        >>> torch.equal(Dropout(0.5).eval()(x), x)
        True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must be in [0, 1), got {p}")
        self.p = p
        self._generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()).item())))
        dropped = min(round(p * _LEVELS), _LEVELS - 1)
        self.threshold = dropped - _LEVELS // 2
        self.scale = _LEVELS / (_LEVELS - dropped)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """0 or 1 / (1 − p), in the shape, type and memory order of x."""
        mask = torch.empty_like(x, requires_grad=False)
        # Written as numbers at once: a mask of booleans is slow to multiply with.
        flat = mask.as_strided((mask.numel(),), (1,))
        torch.ge(torch.from_numpy(self.levels(mask.numel())), self.threshold, out=flat)
        return mask.mul_(self.scale)

    def levels(self, count: int) -> np.ndarray:
        """(count,) the generator's next int16: numbers whose own is below ``threshold`` are dropped.

        The others are multiplied by ``scale``.
        """
        words = self._generator.integers(0, 1 << 64, -(-count // 4), dtype=np.uint64)
        return words.view(np.int16)[:count]

    def extra_repr(self) -> str:
        return f"p={self.p}"
