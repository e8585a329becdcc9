"""Rows that are arrays of one shape with channels first: images, as bytes or as numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Images", "channels_first", "images"]

_BLOCK = 256  # rows worked on at a time: bounds the copies
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Images:
    """Images or other arrays of one shape. Bytes stay bytes: float32 would take four times the memory."""

    values: np.ndarray  # (N, C, d1, …) uint8, perhaps a memory map, or float32

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        return ()

    @property
    def encoded_names(self) -> tuple[str, ...]:
        return ()

    def encoded(self, train: np.ndarray) -> np.ndarray:
        """(N, C, d1, …): the values as they are. Training scales them, batch by batch."""
        return self.values

    def canonical(self) -> Iterator[np.ndarray]:
        yield np.array(self.values.shape, "<i8")
        for block in self._blocks():
            yield block if self._bytes else block.astype("<f4") + np.float32(0)

    def row_keys(self) -> np.ndarray:
        keys = (
            hashlib.blake2b(row.tobytes(), digest_size=8).digest()
            for block in self._blocks()
            for row in (block if self._bytes else block + np.float32(0))
        )
        return np.frombuffer(b"".join(keys), "<u8").astype(np.uint64)

    def notes(self) -> tuple[str, ...]:
        shape = " × ".join(map(str, self.input_shape))
        return (f"each row is an array of {shape} {'bytes' if self._bytes else 'numbers'}, channels first",)

    @property
    def _bytes(self) -> bool:
        return self.values.dtype == np.uint8

    def _blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.rows, _BLOCK):
            yield np.ascontiguousarray(self.values[start : start + _BLOCK])


def images(values: np.ndarray) -> tuple[Images, tuple[str, ...]]:
    """Images of (N, H, W), (N, C, H, W), (N, H, W, C) … numbers, and notes.

    Raises:
        ValueError: a number that is not finite, or the same number everywhere.
    """
    values, notes = channels_first(values)
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
    low, high = values.min(), values.max()  # nan, if there is one
    if not np.isfinite([low, high]).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        raise ValueError(
            f"X holds {values[place]} at {place}; expected finite numbers in rows of shape "
            f"{values.shape[1:]} (in a matrix (N, P), nan is imputed)"
        )
    if low == high:
        raise ValueError(f"X holds nothing but {low}: there is nothing to learn from")
    return Images(values), notes


def channels_first(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, C, d1, …) of rows without channels or with channels last, and a note where they were moved.

    (N, H, W) has one channel. Of (N, a, b, c) the last axis is taken for the channels where it has 1, 3 or 4
    entries and the second has not.

    Example:
        >>> channels_first(np.zeros((5, 8, 8)))[0].shape, channels_first(np.zeros((5, 8, 8, 3)))[0].shape
        ((5, 1, 8, 8), (5, 3, 8, 8))
    """
    if values.ndim == 3:
        return values[:, None], ()
    if values.ndim == 4 and values.shape[-1] in _CHANNELS and values.shape[1] not in _CHANNELS:
        return np.moveaxis(values, -1, 1), ("the last axis holds the channels; it is moved to the front",)
    return values, ()
