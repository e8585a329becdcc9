"""A data set with fewer training rows, imbalance or wrong labels among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from infoloss.data.alterations import Alteration
from infoloss.data.archives import read_archive
from infoloss.data.columns import array
from infoloss.data.dataset import Dataset
from infoloss.data.names import counted, unknown

__all__ = ["altered"]


def altered(
    data: Dataset,
    *,
    train_rows: int | None = None,
    imbalance: float = 1.0,
    profile: str = "long_tail",
    label_noise: float = 0.0,
    noisy_labels: Any = None,
) -> Dataset:
    """The data set with fewer rows, of all classes or some, or wrong labels, among its training rows alone.

    Validation and test rows stay as they are. What is drawn depends on the seed of the split alone, so that
    it is the same for every loss.

    Args:
        data: as it is.
        train_rows: how many training rows stay, each class in its share.
        imbalance: rows of the largest class over rows of the smallest; see `alterations.kept_rows`.
        profile: "long_tail" or "step".
        label_noise: share of the training rows that get one of the other classes, each as likely.
        noisy_labels: labels that the training rows have instead of their own: an array, or the path of an
            .npz, with ":" and the name of the array where it holds several. For all rows, or for all but the
            given test rows. Labels are names of classes, or else positions among them.

    Raises:
        ValueError: a number out of range, or labels that do not fit the data.

    Example:
        >>> from infoloss.data import load
        >>> digits = altered(load("digits"), imbalance=10)
        >>> np.bincount(digits.target[digits.split(0).train])
        array([107,  85,  65,  51,  39,  30,  23,  18,  14,  11])
    """
    if train_rows is not None and train_rows > (most := len(data.split(0).train)):
        raise ValueError(f"train_rows={train_rows!r}; a split has {counted(most, 'training row')}")
    name, given = "an array", None
    if noisy_labels is not None:
        labels = noisy_labels
        if isinstance(noisy_labels, str | Path):
            name, labels = _read(str(noisy_labels))
        given = _spread(_codes(array(labels), data.classes, name), data, name)
    found = Alteration(imbalance, profile, label_noise, given, name if given is not None else "", train_rows)
    return replace(data, alteration=found, notes=(*data.notes, *found.notes(data.target)))


def _read(source: str) -> tuple[str, np.ndarray]:
    """What messages call the labels, and the labels."""
    head, mark, name = source.rpartition(":")
    path = Path(source)
    if mark and head.lower().endswith(".npz"):
        path = Path(head)
    else:
        name = ""
    arrays = read_archive(path)
    if not name and len(arrays) != 1:
        raise ValueError(f"{path} holds {', '.join(arrays)}; name one of them, as in {path}:NAME")
    name = name or next(iter(arrays))
    if name not in arrays:
        raise unknown(f"array in {path}", name, arrays)
    return f"{path.name}:{name}", arrays[name]


def _codes(labels: np.ndarray, classes: tuple[str, ...], source: str) -> np.ndarray:
    """Codes of labels that are names, or numbers that are names or else positions."""
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"{source} has shape {labels.shape} and type {labels.dtype}; expected (N,) whole numbers or text"
        )
    names = [str(each) for each in labels.tolist()]
    place = {name: position for position, name in enumerate(classes)}
    if labels.dtype.kind != "U" and not set(names) <= set(place):
        place = {str(position): position for position in range(len(classes))}
    wrong = next((name for name in names if name not in place), None)
    if wrong is not None:
        listed = ", ".join(map(repr, classes[:20]))
        raise ValueError(f"{source} holds the label {wrong!r}; the classes are {listed}")
    return np.array([place[name] for name in names], np.int64)


def _spread(given: np.ndarray, data: Dataset, source: str) -> np.ndarray:
    """(N,) of labels of all rows, or of all but the given test rows, which get −1."""
    rows = len(data.target)
    if len(given) == rows:
        return given
    test = np.empty(0, np.int64) if data.resampled else data.split(0).test
    if len(given) != rows - len(test):
        without = f", or {rows - len(test)} without the test rows" if len(test) else ""
        raise ValueError(f"{source} has {counted(len(given), 'label')}; expected {rows}{without}")
    found = np.full(rows, -1)
    found[np.setdiff1d(np.arange(rows), test)] = given
    return found
