"""Slices of a study: each parent does its own share of the runs of one store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

__all__ = ["WHOLE", "Slice"]


@dataclass(frozen=True)
class Slice:
    """The ``index``-th of ``count`` equal shares of all runs, counted from 1; every run is in exactly one.

    Example:
        >>> parts = [Slice.parse(f"{index}/3") for index in (1, 2, 3)]
        >>> [part.holds("0000000a" + 24 * "0") for part in parts]
        [False, True, False]
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"{self}: expected I/N with 1 ≤ I ≤ N, as in 2/4")

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Raises:
            ValueError: not of the form I/N.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found:
            raise ValueError(f"{text!r}: expected I/N with 1 ≤ I ≤ N, as in 2/4")
        return cls(int(found[1]), int(found[2]))

    def holds(self, id: str) -> bool:
        """Whether a run's id, a hash in hexadecimal digits, is in this share."""
        return int(id[:8], 16) % self.count == self.index - 1

    def overlaps(self, other: Slice) -> bool:
        """Whether a run may be in both."""
        return self.count != other.count or self.index == other.index

    @property
    def whole(self) -> bool:
        return self.count == 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Slice(1, 1)
