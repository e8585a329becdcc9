"""Which rows train, choose and test: drawn per seed, stratified, or fixed by the data."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["FRACTIONS", "PARTS", "Split", "SplitRule", "drawn_keys", "fractions", "split_of"]

PARTS = ("train", "validation", "test")

FRACTIONS = re.compile(r"[\d.\s]+(/[\d.\s]+)+")
"""Text that gives fractions and names no column."""


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices (int64, ascending) of the three parts, the seed they were drawn with, and their sha256."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    seed: int
    sha256: str


@dataclass(frozen=True, eq=False)
class SplitRule:
    """How the rows of one data set are split.

    Args:
        shares: wanted fractions of train, validation, test; they sum to 1.
        groups: (N,) codes; rows of one group stay in one part.
        order: (N,) numbers; the latest rows test, the latest of the others validate.
        assignment: (N,) 0 train, 1 validation, 2 test, fixed by the data. Without a 1, the validation rows
            are drawn from the training rows.
    """

    shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    assignment: np.ndarray | None = None

    @property
    def resampled(self) -> bool:
        """Does every seed draw its own test rows?"""
        return self.order is None and self.assignment is None

    def parts(self, target: np.ndarray, seed: int) -> list[np.ndarray]:
        """Row indices of train, validation, test; the same for the same target, rule and seed."""
        if self.order is not None:
            return _latest(self.order, self.shares)
        if self.assignment is None:
            return self._drawn(np.arange(len(target)), target, self.shares, seed)
        fixed = [np.flatnonzero(self.assignment == part) for part in range(3)]
        if len(fixed[1]):
            return fixed
        pool = np.flatnonzero(self.assignment != 2)
        return [*self._drawn(pool, target, self.shares[:2], seed), fixed[2]]

    def _drawn(
        self, pool: np.ndarray, target: np.ndarray, shares: tuple[float, ...], seed: int
    ) -> list[np.ndarray]:
        wanted = np.array(shares) / sum(shares)
        if self.groups is None:
            part = _stratified(target[pool], wanted, _keys(len(pool), seed))
        else:
            part = _grouped(target[pool], self.groups[pool], wanted, seed)
        return [pool[part == number] for number in range(len(wanted))]


def fractions(text: str, parts: int = 3) -> tuple[float, ...]:
    """Fractions of the parts, from text such as "0.6/0.2/0.2" or "60/20/20".

    Example:
        >>> fractions("60/20/20")
        (0.6, 0.2, 0.2)
    """
    names = "/".join(PARTS[:parts])
    try:
        shares = [float(share) for share in text.split("/")]
    except ValueError:
        raise ValueError(f"split={text!r}; expected {parts} fractions {names}, like 0.6/0.2/0.2") from None
    if len(shares) != parts:
        raise ValueError(f"split={text!r} has {len(shares)} fractions; expected {parts}, {names}")
    total = 100.0 if abs(sum(shares) - 100) < 1e-6 else 1.0
    if min(shares) <= 0 or abs(sum(shares) - total) > 1e-6:
        raise ValueError(f"split={text!r}; expected positive fractions {names} that sum to 1 (or 100)")
    return tuple(share / total for share in shares)


def split(rule: SplitRule, target: np.ndarray, seed: int) -> Split:
    """The split of one seed."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r}; expected a whole number, 0 or more")
    train, validation, test = (part.astype(np.int64) for part in rule.parts(target, int(seed)))
    return split_of(train, validation, test, int(seed))


def split_of(train: np.ndarray, validation: np.ndarray, test: np.ndarray, seed: int) -> Split:
    """The split into these rows."""
    digest = hashlib.sha256()
    for part in (train, validation, test):
        digest.update(np.int64(len(part)).astype("<i8").tobytes() + part.astype("<i8").tobytes())
    return Split(train, validation, test, seed, digest.hexdigest())


def drawn_keys(rows: int, seed: int, stream: int) -> np.ndarray:
    """(rows,) random uint64, the same for the same seed and stream."""
    # Raw bits of a bit generator are stable over NumPy versions; those of Generator methods are not.
    return np.asarray(np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(rows))


def _keys(rows: int, seed: int) -> np.ndarray:
    return drawn_keys(rows, seed, 0x5B117)


def _stratified(target: np.ndarray, wanted: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n,) part of every row: each class in the wanted proportions, at least one row in each part."""
    part = np.empty(len(target), np.int64)
    order = np.lexsort((keys, target))
    edges = np.flatnonzero(np.diff(target[order], prepend=-1, append=-1))
    owed = np.zeros(len(wanted))  # what rounding took from each part so far
    for start, stop in pairwise(edges.tolist()):
        ideal = (stop - start) * wanted + owed
        counts = _apportioned(stop - start, ideal)
        owed = np.clip(ideal - counts, -1, 1)
        part[order[start:stop]] = np.repeat(np.arange(len(wanted)), counts)
    return part


def _apportioned(total: int, ideal: np.ndarray) -> np.ndarray:
    """Whole numbers near the ideal ones that sum to the total, each at least 1 if the total allows it."""
    counts = np.maximum(np.floor(ideal + 1e-9), min(1, total // len(ideal))).astype(int)
    while counts.sum() < total:
        counts[np.argmax(ideal - counts)] += 1
    while counts.sum() > total:
        spare = counts > min(1, total // len(ideal))
        counts[np.argmax(np.where(spare, counts - ideal, -np.inf))] -= 1
    return counts


def _grouped(target: np.ndarray, groups: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """(n,) part of every row: whole groups, classes near the wanted proportions.

    Groups come in random order, each to the part that lacks its classes most; the best of a few orders.
    """
    names, member = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), int(target.max()) + 1))
    np.add.at(table, (member, target), 1)  # rows of each class in each group
    attempts = 1 + min(7, 20_000 // len(names))
    best: tuple[tuple[int, float], np.ndarray] | None = None
    for keys in _keys(attempts * len(names), seed).reshape(attempts, -1):
        choice, rank = _greedy(table, wanted, np.argsort(keys, kind="stable"))
        if best is None or rank < best[0]:
            best = rank, choice
    assert best is not None
    return np.asarray(best[1][member])


def _greedy(table: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, tuple[int, float]]:
    total = table.sum(axis=0)
    goal = wanted[:, None] * np.maximum(total, 1e-9)  # (parts, C)
    held = np.zeros_like(goal)
    choice = np.empty(len(table), np.int64)
    for group in order:
        rows = table[group]
        # What Σ (held − goal)² / goal gains, less 2 Σ rows, which is the same for every part.
        change = (rows * (rows + 2 * held) / goal).sum(axis=1)
        choice[group] = np.argmin(change)
        held[choice[group]] += rows
    absent = int(((held == 0) & (total > 0)).sum())
    return choice, (absent, float(((held - goal) ** 2 / goal).sum()))


def _latest(order: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Rows by time: train first, then validation, test last; equal times stay in one part."""
    values, counts = np.unique(order, return_counts=True)
    ends = np.cumsum(counts)[:-1]  # rows up to each change of value
    first = _nearest(ends[:-1], shares[0] * len(order))
    last = first + 1 + _nearest(ends[first + 1 :], (shares[0] + shares[1]) * len(order))
    part = np.searchsorted(values[[first, last]], order, side="left")
    return [np.flatnonzero(part == number) for number in range(3)]


def _nearest(ends: np.ndarray, wanted: float) -> int:
    return int(np.argmin(np.abs(ends - wanted)))
