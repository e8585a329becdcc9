"""One column of a table: float64 numbers with nan for missing, or categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Categorical", "Column", "array", "categorical", "codes", "column", "joined", "missing", "numbers"]


@dataclass(frozen=True, eq=False)
class Categorical:
    """Codes (N,) int64 into sorted category names; −1 where the value is missing."""

    codes: np.ndarray
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)


Column = np.ndarray | Categorical


def array(values: Any) -> np.ndarray:
    """A NumPy array of arrays, tensors (also on a device, also with a gradient), series or lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if "bfloat16" in str(getattr(values, "dtype", "")):  # NumPy has no bfloat16
            values = values.float()
        return np.asarray(values.numpy())
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise TypeError("sparse matrices are not supported; pass a dense array (X.toarray())")
    return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)


def column(values: np.ndarray, name: str) -> Column:
    """Numbers of numbers, booleans and dates (seconds since 1970); categories of all else."""
    kind = values.dtype.kind
    if kind in "fiub":
        return values.astype(np.float64)
    if kind in "mM":
        seconds = values.astype("datetime64[us]" if kind == "M" else "timedelta64[us]")
        return np.where(np.isnat(values), np.nan, seconds.astype(np.int64) / 1e6)
    if kind in "US":
        return categorical(values.astype(str).tolist())
    if kind != "O":
        raise TypeError(f"column {name!r} has type {values.dtype}; expected numbers, text or dates")
    entries = [None if _absent(entry) else entry for entry in values.tolist()]
    if all(entry is None or isinstance(entry, (bool, int, float, np.number, np.bool_)) for entry in entries):
        return np.array([np.nan if entry is None else float(entry) for entry in entries])
    return categorical([None if entry is None else str(entry) for entry in entries])


def categorical(entries: Sequence[str | None]) -> Categorical:
    """Categories in sorted order.

    Example:
        >>> categorical(["b", None, "a"]).codes
        array([ 1, -1,  0])
    """
    names = sorted({entry for entry in entries if entry is not None})
    code = {name: position for position, name in enumerate(names)}
    found = (-1 if entry is None else code[entry] for entry in entries)
    return Categorical(np.fromiter(found, np.int64, len(entries)), tuple(names))


def codes(values: Column) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes (N,) int64 and names of a column's distinct values, in their order; no value may be missing."""
    if isinstance(values, Categorical):
        used, found = np.unique(values.codes, return_inverse=True)
        return found.astype(np.int64), tuple(values.categories[code] for code in used)
    used, found = np.unique(values, return_inverse=True)
    return found.astype(np.int64), tuple(_number(value) for value in used)


def missing(values: Column) -> np.ndarray:
    """Boolean (N,): where the value is missing."""
    found = values.codes < 0 if isinstance(values, Categorical) else np.isnan(values)
    return np.asarray(found)


def joined(first: Column, second: Column, name: str) -> Column:
    """The rows of both."""
    if isinstance(first, Categorical) and isinstance(second, Categorical):
        return categorical(_entries(first) + _entries(second))
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    raise ValueError(f"{name!r} holds text on one side and numbers on the other")


def numbers(values: Categorical) -> tuple[np.ndarray, str] | None:
    """Numbers of a column with a little stray text, which becomes missing; and the most frequent stray.

    None unless at least 95 % of the values, and more than 20 distinct ones, are numbers.
    """
    parsed = np.array([*map(_parsed, values.categories), np.nan])  # code −1 is the last
    found = parsed[values.codes]
    known = values.codes >= 0
    stray = known & np.isnan(found)
    if stray.sum() > known.sum() / 20 or np.count_nonzero(~np.isnan(parsed)) <= 20:
        return None
    return found, values.categories[np.bincount(values.codes[stray]).argmax()]


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _entries(values: Categorical) -> list[str | None]:
    names = [*values.categories, None]  # code −1 is the last
    return [names[code] for code in values.codes]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _absent(entry: object) -> bool:
    # pandas.NA and NaT are known by name: pandas itself is not required, and NA != NA is not a bool.
    return entry is None or type(entry).__name__ in ("NAType", "NaTType") or bool(entry != entry)
