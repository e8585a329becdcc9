"""Which column plays which part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infoloss.data.columns import Categorical, Column, numbers
from infoloss.data.features import Features, from_columns
from infoloss.data.names import unknown

__all__ = ["TARGETS", "Roles", "picked"]

TARGETS = ("target", "class", "label", "y")
"""Columns that are the target unless another is named, in this order; else the last column."""


_WORDS = {
    "groups": "rows kept together by",
    "order": "test rows are the latest by",
    "sample_weight": "sample weights",
    "parts": "split given by",
}


@dataclass(frozen=True, eq=False)
class Roles:
    """Columns that are not features; `target_name` as messages should call the target."""

    target: Column
    target_name: str
    groups: Column | None = None
    order: Column | None = None
    sample_weight: Column | None = None
    parts: Column | None = None  # names of the parts: a split column, or made from a test file
    fractions: str | None = None


def picked(
    columns: Mapping[str, Column], names: Mapping[str, str | None], drop: Iterable[str] = ()
) -> tuple[Features, dict[str, Column], str, tuple[str, ...]]:
    """Features, the columns of the named roles, how messages should call the target, and notes.

    Args:
        columns: all columns of the table.
        names: role ("target", "groups", "order", "sample_weight", "parts") → column name, None for no such
            role; a missing "target" means that no column is the target, None that it is the default.
        drop: columns that are neither.
    """
    chosen = {role: name for role, name in names.items() if name is not None}
    target_name = ""
    if "target" in names:
        chosen["target"], target_name = _target(columns, chosen, set(drop))
    for name in (*chosen.values(), *drop):
        if name not in columns:
            raise unknown("column", name, columns)
    for role, name in chosen.items():
        others = [other for other, taken in chosen.items() if taken == name and other != role]
        if others or name in drop:
            raise ValueError(f"column {name!r} is both {role} and {others[0] if others else 'dropped'}")
    left_out = {*chosen.values(), *drop}
    features, notes = _features({name: values for name, values in columns.items() if name not in left_out})
    said = [
        f"{_WORDS.get(role, role)}: {target_name if role == 'target' else name}"
        for role, name in chosen.items()
    ]
    return features, {role: columns[name] for role, name in chosen.items()}, target_name, (*said, *notes)


def _features(columns: dict[str, Column]) -> tuple[Features, tuple[str, ...]]:
    notes = []
    for name, values in columns.items():
        found = numbers(values) if isinstance(values, Categorical) else None
        if found is not None:
            columns[name], stray = found
            notes.append(f"column {name!r} holds numbers; text in it, such as {stray!r}, is read as missing")
    return from_columns(columns), tuple(notes)


def _target(columns: Mapping[str, Column], chosen: Mapping[str, str], drop: set[str]) -> tuple[str, str]:
    if "target" in chosen:
        return chosen["target"], chosen["target"]
    free = [name for name in columns if name not in {*chosen.values(), *drop}]
    if not free:
        raise ValueError("no column is left to be the target")
    lower = {name.lower(): name for name in reversed(free)}
    for usual in TARGETS:
        if usual in lower:
            return lower[usual], lower[usual]
    why = f"the last column, taken as target since none is called {', '.join(TARGETS)}"
    return free[-1], f"{free[-1]} ({why})"
