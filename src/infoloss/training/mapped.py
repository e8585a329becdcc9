"""Rows that stay in a file: read when a batch asks for them, and shared by all processes that read it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["MappedRows", "mapped"]


class MappedRows:
    """Some rows of an array in memory that is mapped; what training asks of a tensor of rows, and no more.

    Args:
        values: (M, …), all rows.
        rows: (N,) which of them.
        device: where batches go.
    """

    def __init__(self, values: Tensor, rows: Tensor, device: torch.device) -> None:
        self._values, self._rows, self._device = values, rows, device

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self._rows), *self._values.shape[1:]

    @property
    def ndim(self) -> int:
        return self._values.ndim

    def __len__(self) -> int:
        return len(self._rows)

    def numel(self) -> int:
        return prod(self.shape)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        chosen = self._rows[index if isinstance(index, slice) else index.cpu()]
        return self._values[chosen].to(self._device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Blocks of so many rows, each read when its turn comes."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def mapped(file: Path | str, rows: np.ndarray, device: torch.device) -> MappedRows:
    """Rows of an array in a file that NumPy wrote (.npy).

    Args:
        file: where the array lies.
        rows: (N,) which rows of it.
        device: where batches go.
    """
    # "c" keeps PyTorch from warning of memory that cannot be written; nothing is written.
    values = torch.from_numpy(np.load(file, mmap_mode="c"))
    return MappedRows(values, torch.from_numpy(rows), device)
