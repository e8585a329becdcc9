"""A data set: raw features, coded labels, its rule for splitting, and what was done to it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from infoloss.data import splits
from infoloss.data.alterations import Alteration
from infoloss.data.inputs import Inputs
from infoloss.data.memory import mapped_file
from infoloss.data.splits import PARTS, Split, SplitRule
from infoloss.data.texts import TokenTexts

__all__ = ["Arrays", "Dataset"]


@dataclass(frozen=True, eq=False)
class Arrays:
    """What a model reads, for all rows; index with `split.train`, `split.validation`, `split.test`."""

    features: np.ndarray  # (N, *input_shape) float32; of images perhaps uint8, of tokens int32
    target: np.ndarray  # (N,) int64, with the wrong labels of training rows, if any
    sample_weight: np.ndarray | None  # (N,) float32
    feature_names: tuple[str, ...]  # F of them for a table, else none

    @property
    def file(self) -> Path | None:
        """Where the features lie, if they are a memory map; other processes can map them too."""
        return mapped_file(self.features)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Something to classify. Made by `load` and `from_arrays`.

    Example:
        >>> from infoloss.data import load
        >>> wine = load("wine")
        >>> wine.classes, len(wine.target)
        (('class_0', 'class_1', 'class_2'), 178)
        >>> split = wine.split(seed=0)
        >>> arrays = wine.arrays(split)
        >>> arrays.features[split.train].shape
        (107, 13)
    """

    name: str
    features: Inputs
    target: np.ndarray  # (N,) int64 codes
    classes: tuple[str, ...]
    rule: SplitRule
    sample_weight: np.ndarray | None
    notes: tuple[str, ...]
    source: str
    alteration: Alteration = field(default_factory=Alteration)

    @property
    def resampled(self) -> bool:
        """Does every seed draw its own test rows? False for official splits, test files and time order."""
        return self.rule.resampled

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what a model reads of one row: (F,) of a table, (C, H, W) of images, (L,) of token ids."""
        return self.features.input_shape

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are, 0 (padding) included; None where rows are numbers."""
        return self.features.vocabulary if isinstance(self.features, TokenTexts) else None

    @cached_property
    def sha256(self) -> str:
        """Of everything a run can read: features, names, labels, groups, order, parts, weights, noise."""
        names = [self.features.names, self.classes, self.features.categories]
        digest = hashlib.sha256(json.dumps(names).encode())
        for block in self.features.canonical():
            digest.update(block.tobytes())
        others = self.target, self.rule.groups, self.rule.order, self.rule.assignment, self.sample_weight
        for role, values in zip(["target", "groups", "order", "assignment", "weight"], others, strict=True):
            if values is not None:
                digest.update(role.encode() + np.ascontiguousarray(values + 0.0, "<f8").tobytes())
        if altered := self.alteration.described():
            digest.update(json.dumps(altered).encode())
        return digest.hexdigest()

    def split(self, seed: int) -> Split:
        """The rows of one seed; the same for every loss, deterministic in the data set and the seed.

        Stratified by class with at least one row of each in every part, unless the data fix the test rows.
        """
        drawn = splits.split(self.rule, self.target, seed)
        return self.alteration.rows(drawn, self.target, len(self.classes))

    def labels(self, split: Split) -> np.ndarray:
        """(N,) what training is told: `target`, but where the labels of training rows were made wrong."""
        return self.alteration.labels(split, self.target, len(self.classes))

    def arrays(self, split: Split) -> Arrays:
        """Encoded with numbers from the training rows only: see `encoded` of tables, images and texts."""
        weight = None if self.sample_weight is None else self.sample_weight.astype(np.float32)
        encoded = self.features.encoded(split.train)
        return Arrays(encoded, self.labels(split), weight, self.features.encoded_names)

    def split_notes(self, split: Split) -> tuple[str, ...]:
        """What a reader should know of one split: rows on both sides, classes that a part lacks."""
        return (*self._repeated(split), *self._lacking(split))

    def _repeated(self, split: Split) -> tuple[str, ...]:
        keys = self._row_keys
        seen = np.isin(keys[split.test], keys[split.train])
        if not seen.any():
            return ()
        both = keys ^ (self.target.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        same = np.isin(both[split.test], both[split.train])
        count, total = int(seen.sum()), len(seen)
        said = f"{count} of {total} test rows ({count / total:.1%}) have the features of a training row"
        other = int((seen & ~same).sum())
        return (said + (f", {other} of them only with another label" if other else ""),)

    def _lacking(self, split: Split) -> tuple[str, ...]:
        said = []
        for part in PARTS[1:]:
            present = np.bincount(self.target[getattr(split, part)], minlength=len(self.classes))
            absent = [name for name, count in zip(self.classes, present, strict=True) if not count]
            if absent:
                said.append(f"no {part} row of class {', '.join(map(repr, absent[:8]))}")
        return tuple(said)

    @cached_property
    def _row_keys(self) -> np.ndarray:
        return self.features.row_keys()
