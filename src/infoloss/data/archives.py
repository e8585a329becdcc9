"""Data sets from archives of NumPy arrays (.npz)."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from infoloss.data.arrays import from_arrays
from infoloss.data.dataset import Dataset
from infoloss.data.parts import part, title, used

__all__ = ["INPUTS", "LABELS", "from_archive", "read_archive"]

_BESIDE = ("groups", "order", "sample_weight")

INPUTS = ("x", "data", "images", "features", "embeddings", "inputs")
LABELS = ("y", "label", "labels", "target", "targets")

Pair = tuple[np.ndarray, np.ndarray]


def from_archive(path: Path, *, split: str | None = None) -> Dataset:
    """A data set from the arrays of an archive.

    Args:
        path: .npz with X and y, or with X_train, y_train, X_test, y_test and perhaps X_val, y_val; the part
            may come first, and the arrays may be called as in `INPUTS` and `LABELS`, in any case. Beside X
            and y there may be groups, order and sample_weight.
        split: fractions, as in `load`.

    Raises:
        ValueError: arrays that are missing or do not fit together.
    """
    arrays = read_archive(path)
    pairs, others = _pairs(arrays, path)
    notes: tuple[str, ...] = ()
    if None in pairs:
        X, y = pairs[None]
        roles: dict[str, Any] = {name: arrays[name] for name in _BESIDE if name in others}
        made = from_arrays(X, y, name=title(path), split=split, **roles)
    elif len(pairs) == 1:
        [(X, y)] = pairs.values()
        roles = {}
        made = from_arrays(X, y, name=title(path), split=split)
    else:
        if split is not None:
            raise ValueError(f"split={split!r}, but {path} says itself which rows train and test")
        roles = {}
        made, notes = _of_parts({name: pair for name, pair in pairs.items() if name is not None}, path)
    ignored = [name for name in others if name not in roles]
    if ignored:
        notes += (f"arrays of {path.name} that are not used: {', '.join(ignored[:8])}",)
    return replace(made, source=path.name, notes=(*notes, *made.notes))


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive by name.

    Raises:
        ValueError: no archive, or one with objects in it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no archive of arrays; expected what numpy.savez writes")
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except ValueError:
        raise ValueError(f"{path} holds Python objects; expected arrays of numbers or text") from None


def _of_parts(pairs: dict[str, Pair], path: Path) -> tuple[Dataset, tuple[str, ...]]:
    roles, notes = used(pairs)
    shapes = {name: X.shape[1:] for name, (X, _) in pairs.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise ValueError(f"{path}: a row has shape {told}; expected the same")
    X = np.concatenate([pairs[name][0] for name in roles])
    y = np.concatenate([_flat(pairs[name][1]) for name in roles])
    parts = np.repeat(list(roles.values()), [len(pairs[name][0]) for name in roles])
    return from_arrays(X, y, name=title(path), split=parts), notes


def _flat(labels: np.ndarray) -> np.ndarray:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _pairs(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str | None, Pair], list[str]]:
    """(inputs, labels) by part, None for the whole; and the names of all other arrays."""
    found: dict[tuple[str | None, str], str] = {}
    others = []
    for name in arrays:
        key = _meaning(name) if arrays[name].ndim else None
        if key is None:
            others.append(name)
        elif key in found:
            raise ValueError(f"{path}: {found[key]!r} and {name!r} mean the same; expected one of them")
        else:
            found[key] = name
    parts = list(dict.fromkeys(key[0] for key in found))
    if not parts or (None in parts and len(parts) > 1):
        raise ValueError(
            f"{path} holds {', '.join(arrays)}; expected X and y, or X_train, y_train, X_test, y_test"
        )
    pairs: dict[str | None, Pair] = {}
    for of in parts:
        for kind in ("X", "y"):
            if (of, kind) not in found:
                raise ValueError(f"{path} holds {', '.join(arrays)}, but no {kind} of {of or 'its rows'}")
        X, y = (arrays[found[of, kind]] for kind in ("X", "y"))
        if len(X) != len(y):
            raise ValueError(f"{path}: {len(X)} rows and {len(y)} labels of {of or 'its rows'}")
        pairs[of] = X, y
    return pairs, others


def _meaning(name: str) -> tuple[str | None, str] | None:
    """Part and kind ("X", "y") of an array, or None."""
    words = re.split(r"[_\-. ]+", name.lower())
    parts = [word for word in words if part(word)]
    rest = "_".join(word for word in words if not part(word))
    kind = "X" if rest in INPUTS or not rest else "y" if rest in LABELS else None
    if kind is None or len(parts) > 1:
        return None
    return (part(parts[0]) if parts else None), kind
