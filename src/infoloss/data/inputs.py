"""What the rows of a data set are, whatever they are: the part that tables, images and texts share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

__all__ = ["Inputs"]


class Inputs(Protocol):
    """Rows that a model can read."""

    @property
    def rows(self) -> int:
        """How many."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what a model reads of one row; the same for every split."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the raw columns, where there are any."""

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        """Names of the categories of every categorical column."""

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """Names of what a model reads of one row, where it has names."""

    def encoded(self, train: np.ndarray) -> np.ndarray:
        """What a model reads, (N, *input_shape); what it depends on comes from the training rows."""

    def canonical(self) -> Iterator[np.ndarray]:
        """Blocks of numbers: equal data, equal bytes."""

    def row_keys(self) -> np.ndarray:
        """(N,) uint64, equal for equal rows, different otherwise (but for 1 pair in 2⁶⁴)."""

    def notes(self) -> tuple[str, ...]:
        """What is done to the rows, in words."""
