"""Data sets from arrays, tensors and data frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from infoloss.data.assembly import dataset
from infoloss.data.columns import Column, array, categorical, column, joined
from infoloss.data.dataset import Dataset
from infoloss.data.features import from_matrix
from infoloss.data.images import images
from infoloss.data.inputs import Inputs
from infoloss.data.roles import Roles, picked
from infoloss.data.splits import FRACTIONS

__all__ = ["from_arrays"]


def from_arrays(
    X: Any,
    y: Any = None,
    *,
    name: str = "arrays",
    groups: Any = None,
    order: Any = None,
    sample_weight: Any = None,
    test: tuple[Any, Any] | None = None,
    split: Any = None,
) -> Dataset:
    """A data set from arrays, tensors or data frames (pandas, polars).

    Args:
        X: (N, P) numbers, nan for missing; (N, H, W), (N, C, H, W) or (N, H, W, C) images, whose bytes stay
            bytes; or a frame of named columns.
        y: (N,) labels: whole numbers, text or booleans; or the name of a column of the frame (default as in
            `load`).
        name: as the report should call it.
        groups, order, sample_weight: (N,) as in `load`, or names of columns of the frame.
        test: (X, y) of M test rows; the other arguments then have N + M entries, the test rows last.
        split: fractions "0.6/0.2/0.2", or (N,) names train/validation/test, or a column's name.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: lengths differ, or as `load`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> data = from_arrays(rng.normal(size=(60, 2)), ["no", "yes"] * 30, name="coin")
        >>> data.classes, data.split(0).test.size
        (('no', 'yes'), 12)
    """
    given = {"groups": groups, "order": order, "sample_weight": sample_weight}
    fractions = split if isinstance(split, str) and FRACTIONS.fullmatch(split) else None
    if fractions is None:
        given["parts"] = split
    named = {role: value for role, value in given.items() if isinstance(value, str)}
    vectors = {role: value for role, value in given.items() if value is not None and role not in named}
    features, columns, target_name, notes = _features(X, y, named, test)
    for role, values in vectors.items():
        columns[role] = _vector(values, role, features.rows)
    if test is not None:
        if "parts" in given and given["parts"] is not None:
            raise ValueError("split and test both say which rows test; give one")
        known = len(array(X)) if not hasattr(X, "columns") else len(X)
        columns["parts"] = categorical(["train"] * known + ["test"] * (features.rows - known))
    roles = Roles(target_name=target_name, fractions=fractions, **columns)
    return dataset(name, features, roles, source="arrays from Python", notes=notes)


def _features(
    X: Any, y: Any, named: dict[str, str], test: tuple[Any, Any] | None
) -> tuple[Inputs, dict[str, Column], str, tuple[str, ...]]:
    """Inputs, the columns that have a role, the target's name, notes; test rows last."""
    if hasattr(X, "columns"):
        return _from_frame(X, y, named, test)
    if named or y is None or isinstance(y, str):
        role, value = next(iter(named.items()), ("y", y))
        raise ValueError(f"{role}={value!r} names a column, but X is no data frame but a {type(X).__name__}")
    values = _numeric(X, "X")
    target = _vector(y, "y", len(values))
    if test is not None:
        other = _numeric(test[0], "the test X")
        if other.shape[1:] != values.shape[1:]:
            raise ValueError(f"a row of X has shape {values.shape[1:]}, of the test X {other.shape[1:]}")
        target = joined(target, _vector(test[1], "the test y", len(other)), "y")
        values = np.concatenate([values, other])
    inputs, notes = (from_matrix(values), ()) if values.ndim == 2 else images(values)
    return inputs, {"target": target}, str(getattr(y, "name", None) or "y"), notes


def _from_frame(
    X: Any, y: Any, named: dict[str, str], test: tuple[Any, Any] | None
) -> tuple[Inputs, dict[str, Column], str, tuple[str, ...]]:
    inside = y is None or isinstance(y, str)
    columns = _frame(X)
    labels = None if inside else _vector(y, "y", len(X))
    if test is not None:
        other = _frame(test[0])
        absent = [name for name in columns if name not in other]
        if absent:
            raise ValueError(f"the test X lacks column {absent[0]!r} of X")
        columns = {name: joined(values, other[name], name) for name, values in columns.items()}
        if labels is not None:
            labels = joined(labels, _vector(test[1], "the test y", len(test[0])), "y")
    features, chosen, target_name, notes = picked(columns, {**named, "target": y} if inside else named)
    if labels is None:
        return features, chosen, target_name, notes
    return features, {**chosen, "target": labels}, str(getattr(y, "name", None) or "y"), notes


def _frame(frame: Any) -> dict[str, Column]:
    names = [str(name) for name in frame.columns]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"X has more than one column {min(twice)!r}; expected distinct names")
    return {str(name): column(array(frame[name]), str(name)) for name in frame.columns}


def _numeric(X: Any, what: str) -> np.ndarray:
    """(N, …) numbers, with rows and features."""
    values = array(X)
    if values.ndim < 2:
        raise ValueError(f"{what} has shape {values.shape}; expected (rows, features)")
    if not values.size:
        raise ValueError(f"{what} has shape {values.shape}; expected rows and features")
    if values.dtype.kind == "O":  # numbers with None among them
        flat = [_numbers(entries, what) for entries in values.reshape(len(values), -1).T]
        values = np.stack(flat, axis=1).reshape(values.shape)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{what} has type {values.dtype}; expected numbers, or a data frame for text columns")
    return values


def _numbers(entries: np.ndarray, what: str) -> np.ndarray:
    values = column(entries, what)
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{what} holds text such as {values.categories[0]!r}; text needs a data frame")
    return values


def _vector(values: Any, what: str, rows: int) -> Column:
    entries = array(values)
    if entries.ndim == 2 and entries.shape[1] == 1:
        entries = entries[:, 0]
    if entries.ndim != 1:
        raise ValueError(f"{what} has shape {entries.shape}; expected ({rows},)")
    if len(entries) != rows:
        raise ValueError(f"{what} has {len(entries)} entries, X has {rows} rows; expected as many")
    if entries.dtype.kind == "b":
        entries = entries.astype(str)
    return column(entries, what)
