"""Features of all rows, raw, and what a model reads: imputed, encoded, standardised on training rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from infoloss.data.columns import Categorical, Column

__all__ = ["MAX_CATEGORIES", "Features", "from_columns", "from_matrix", "listing"]

MAX_CATEGORIES = 50
"""Categories of one column with an indicator of their own; the rarer ones share one."""

_BLOCK = 256  # columns worked on at a time: bounds the float64 copies
_ID_NAME = re.compile(r"(^|[_\s.\-])((?i:id|idx|index|uuid|guid|rowid))$|[a-z](Id|ID|Idx|Index)$")


@dataclass(frozen=True, eq=False)
class Features:
    """Raw features: a matrix of numbers (nan = missing) and categorical columns."""

    numeric: np.ndarray  # (N, P) float32 or float64
    numeric_names: tuple[str, ...]
    categorical: tuple[Categorical, ...] = ()
    categorical_names: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.numeric)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the raw columns: the numbers first, then the categories."""
        return self.numeric_names + self.categorical_names

    @property
    def categories(self) -> tuple[tuple[str, ...], ...]:
        """Names of the categories of every categorical column."""
        return tuple(column.categories for column in self.categorical)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(F,), the columns of `encoded`."""
        return (len(self.encoded_names),)

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """Names of the columns of `encoded`, one per column."""
        indicators = (
            _indicators(n, c) for n, c in zip(self.categorical_names, self.categorical, strict=True)
        )
        return self.numeric_names + tuple(name for names in indicators for name in names)

    def encoded(self, train: np.ndarray) -> np.ndarray:
        """What a model reads, (N, F) float32; every number it depends on comes from the training rows.

        Numbers: missing → median, then (x − mean) / standard deviation; 0 where the training rows hold one
        value only. Categories: indicators 0/1, `missing` one of them; a column with more than
        `MAX_CATEGORIES` gives the most frequent their own and the others a shared one. A category that no
        training row has gives a row of zeros. F does not depend on `train`.
        """
        wide = [_standardised(block, train) for block in self._blocks()]
        wide += [_one_hot(column, train) for column in self.categorical]
        return np.concatenate(wide, axis=1) if wide else np.empty((self.rows, 0), np.float32)

    def without(self, names: set[str]) -> Features:
        """The same without the named columns."""
        if not names:
            return self
        kept = np.array([name not in names for name in self.numeric_names], bool)
        pairs = [
            (n, c) for n, c in zip(self.categorical_names, self.categorical, strict=True) if n not in names
        ]
        return replace(
            self,
            numeric=self.numeric[:, kept],
            numeric_names=tuple(n for n in self.numeric_names if n not in names),
            categorical=tuple(c for _, c in pairs),
            categorical_names=tuple(n for n, _ in pairs),
        )

    def infinite(self) -> tuple[int, str] | None:
        """Row and column of the first infinite number, if there is one."""
        for start, block in enumerate(self._blocks()):
            found = np.argwhere(np.isinf(block))
            if len(found):
                row, position = found[0]
                return int(row), self.numeric_names[start * _BLOCK + int(position)]
        return None

    def constant(self) -> set[str]:
        """Columns with a single value in all rows, or none."""
        names = []
        for block in self._blocks():
            known = ~np.isnan(block)
            low = np.where(known, block, np.inf).min(axis=0)
            high = np.where(known, block, -np.inf).max(axis=0)
            names += list(low >= high)
        found = {name for name, same in zip(self.numeric_names, names, strict=True) if same}
        return found | {
            name
            for name, column in zip(self.categorical_names, self.categorical, strict=True)
            if len(np.unique(column.codes)) < 2
        }

    def identifiers(self) -> set[str]:
        """Columns that name rows instead of describing them.

        Numbers: whole, all distinct, and consecutive or called `…id`, `…index`. Text: more than 20 distinct
        values, and more distinct values than half the rows that have one.
        """
        found = {name for j, name in enumerate(self.numeric_names) if _counts_rows(self.numeric[:, j], name)}
        for name, column in zip(self.categorical_names, self.categorical, strict=True):
            known = column.codes[column.codes >= 0]
            distinct = len(np.unique(known))
            if distinct > 20 and distinct > len(known) / 2:
                found.add(name)
        return found

    def notes(self) -> tuple[str, ...]:
        """What `encoded` does to these columns, in words."""
        empty = self.missing_counts()
        said = []
        numbers = [f"{name} ({empty[name]})" for name in self.numeric_names if name in empty]
        texts = [f"{name} ({empty[name]})" for name in self.categorical_names if name in empty]
        if numbers:
            said.append(f"missing numbers replaced by the median of the training rows: {listing(numbers)}")
        if texts:
            said.append(f"missing categories are a category of their own: {listing(texts)}")
        if self.categorical:
            columns = [
                f"{name} ({len(column.categories)})"
                for name, column in zip(self.categorical_names, self.categorical, strict=True)
            ]
            said.append(f"one indicator per category: {listing(columns)}")
            many = [
                name
                for name, column in zip(self.categorical_names, self.categorical, strict=True)
                if len(column.categories) > MAX_CATEGORIES
            ]
            if many:
                said.append(
                    f"all but the {MAX_CATEGORIES} most frequent categories share one: {listing(many)}"
                )
        return tuple(said)

    def missing_counts(self) -> dict[str, int]:
        """Column → number of missing values, where there are any."""
        counts = [int(count) for block in self._blocks() for count in np.isnan(block).sum(axis=0)]
        counts += [int((column.codes < 0).sum()) for column in self.categorical]
        return {name: count for name, count in zip(self.names, counts, strict=True) if count}

    def row_keys(self) -> np.ndarray:
        """(N,) uint64: equal for rows with equal features, different otherwise (but for 1 pair in 2⁶⁴)."""
        keys = np.zeros(self.rows, np.uint64)
        number = 0
        for block in self.canonical():
            for values in np.ascontiguousarray(block.T).view(np.uint64):
                number += 1
                keys += _mixed(values + np.uint64(number * 0x9E3779B97F4A7C15 % 2**64))
        return keys

    def canonical(self) -> Iterator[np.ndarray]:
        """Blocks (N, ·) float64 with one nan and one zero, categories as codes: equal data, equal bytes."""
        for block in self._blocks():
            yield np.where(np.isnan(block), np.nan, block) + 0.0
        for column in self.categorical:
            yield column.codes[:, None].astype("<f8")

    def _blocks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.numeric.shape[1], _BLOCK):
            yield self.numeric[:, start : start + _BLOCK].astype("<f8")


def from_columns(columns: Mapping[str, Column]) -> Features:
    """Features of named columns of one length."""
    numbers = {name: values for name, values in columns.items() if isinstance(values, np.ndarray)}
    texts = {name: values for name, values in columns.items() if isinstance(values, Categorical)}
    rows = len(next(iter(columns.values()))) if columns else 0
    matrix = np.column_stack(list(numbers.values())) if numbers else np.empty((rows, 0))
    return Features(matrix, tuple(numbers), tuple(texts.values()), tuple(texts))


def from_matrix(matrix: np.ndarray, names: tuple[str, ...] | None = None) -> Features:
    """Features of a matrix (N, P) of numbers, called x0, x1, … unless named."""
    exact = matrix.dtype in (np.float32, np.float16, np.uint8, np.int8, np.uint16, np.int16, np.bool_)
    names = names or tuple(f"x{j}" for j in range(matrix.shape[1]))
    return Features(matrix.astype(np.float32 if exact else np.float64), names)


def listing(names: list[str]) -> str:
    """At most eight names, and how many more."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _standardised(block: np.ndarray, train: np.ndarray) -> np.ndarray:
    gaps = np.isnan(block)
    for j in np.flatnonzero(gaps.any(axis=0)):
        known = block[train, j][~gaps[train, j]]
        block[gaps[:, j], j] = np.median(known) if len(known) else 0.0
    reference = block[train]
    low, high = reference.min(axis=0), reference.max(axis=0)
    # In units of the largest magnitude: squares of 1e200 would overflow.
    unit = np.maximum(np.abs(low), np.abs(high))
    unit[unit == 0] = 1.0
    scaled = reference / unit
    deviation = scaled.std(axis=0)
    single = (low == high) | (deviation == 0)
    z = (block / unit - scaled.mean(axis=0)) / np.where(single, 1.0, deviation)
    return np.where(single, 0.0, z).astype(np.float32)


def _one_hot(column: Categorical, train: np.ndarray) -> np.ndarray:
    """(N, K) indicators: kept categories in their order, then `other`, then `missing`, where they exist."""
    size = len(column.categories)
    counts = np.bincount(column.codes[train] + 1, minlength=size + 1)[1:]
    kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_CATEGORIES])
    width = len(_indicators("", column))
    place = np.full(size + 1, len(kept))  # place[-1] serves code −1
    place[kept] = np.arange(len(kept))
    place[-1] = width - 1
    position = place[column.codes]
    indicators = np.zeros((len(column), width), np.float32)
    indicators[np.arange(len(column)), position] = 1.0
    indicators[:, ~indicators[train].any(axis=0)] = 0.0
    return indicators


def _indicators(name: str, column: Categorical) -> list[str]:
    size = len(column.categories)
    if size > MAX_CATEGORIES:
        found = [f"{name}=({rank + 1})" for rank in range(MAX_CATEGORIES)] + [f"{name}=other"]
    else:
        found = [f"{name}={category}" for category in column.categories]
    return found + ([f"{name}=missing"] if (column.codes < 0).any() else [])


def _counts_rows(values: np.ndarray, name: str) -> bool:
    if len(values) < 20 or np.isnan(values).any() or not np.array_equal(values, np.floor(values)):
        return False
    if len(np.unique(values)) < len(values):
        return False
    consecutive = values.max() - values.min() == len(values) - 1
    return bool(consecutive or _ID_NAME.search(name))


def _mixed(bits: np.ndarray) -> np.ndarray:
    # The finaliser of splitmix64 (Steele, Lea & Flood 2014).
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))
