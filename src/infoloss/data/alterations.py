"""What is done to training rows on purpose: fewer of them, wrong labels. Nothing else is touched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from infoloss.data.names import unknown
from infoloss.data.splits import Split, drawn_keys, split_of

__all__ = ["PROFILES", "Alteration", "kept_rows"]

PROFILES = ("long_tail", "step")

_THINNED, _CHOSEN, _REPLACED, _DRAWN = 0x1B41, 0x2C52, 0x3D63, 0x4E74
"""Streams of random numbers: what is thinned out, which labels are wrong, what they become, what stays."""


@dataclass(frozen=True, eq=False)
class Alteration:
    """Fewer rows, imbalance, wrong labels, in this order, drawn by the seed alone: the same for every loss.

    Args:
        imbalance: rows of the largest class over rows of the smallest; 1 leaves all.
        profile: "long_tail" or "step"; see `kept_rows`.
        label_noise: share of the training rows that get one of the other classes, each as likely.
        noisy: (N,) labels that the training rows have instead of their own, as codes; −1 where there is none.
        noisy_name: where those are from.
        train_rows: how many training rows stay, each class in its share; None leaves all.
    """

    imbalance: float = 1.0
    profile: str = "long_tail"
    label_noise: float = 0.0
    noisy: np.ndarray | None = None  # (N,) int64
    noisy_name: str = ""
    train_rows: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.imbalance < float("inf"):
            raise ValueError(f"imbalance={self.imbalance!r}; expected a number of 1 or more")
        if self.profile not in PROFILES:
            raise unknown("profile of imbalance", self.profile, PROFILES)
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"label_noise={self.label_noise!r}; expected a share, 0 ≤ label_noise < 1")
        if self.train_rows is not None and self.train_rows < 1:
            raise ValueError(f"train_rows={self.train_rows!r}; expected 1 or more")
        if self.label_noise and self.noisy is not None:
            raise ValueError("label_noise and noisy_labels both say which labels are wrong; give one")

    def rows(self, split: Split, target: np.ndarray, classes: int) -> Split:
        """The split with fewer training rows, where these or imbalance are asked for."""
        train = split.train
        if self.train_rows is not None:
            train = _few(train, split.seed, target, self.train_rows)
        if self.imbalance != 1:
            kept = kept_rows(np.bincount(target[train], minlength=classes), self.imbalance, self.profile)
            train = train[_ranks(train, split.seed, target, _THINNED) < kept[target[train]]]
        if train is split.train:
            return split
        return split_of(train, split.validation, split.test, split.seed)

    def labels(self, split: Split, target: np.ndarray, classes: int) -> np.ndarray:
        """(N,) labels; those of the training rows may be wrong."""
        if self.noisy is None and not self.label_noise:
            return target
        found = target.copy()
        if self.noisy is not None:
            found[split.train] = self.noisy[split.train]
            return found
        keys = drawn_keys(len(target), split.seed, _CHOSEN)[split.train]
        wrong = split.train[np.argsort(keys, kind="stable")[: round(self.label_noise * len(keys))]]
        steps = drawn_keys(len(target), split.seed, _REPLACED)[wrong] % np.uint64(classes - 1)
        found[wrong] = (found[wrong] + 1 + steps.astype(np.int64)) % classes
        return found

    def described(self) -> dict[str, Any]:
        """What is not as it was, for identities and records."""
        found: dict[str, Any] = {}
        if self.train_rows is not None:
            found["train_rows"] = self.train_rows
        if self.imbalance != 1:
            found |= {"imbalance": float(self.imbalance), "profile": self.profile}
        if self.label_noise:
            found["label_noise"] = float(self.label_noise)
        if self.noisy is not None:
            digest = hashlib.sha256(self.noisy.astype("<i8").tobytes()).hexdigest()
            found["noisy_labels"] = {"name": self.noisy_name, "sha256": digest}
        return found

    def notes(self, target: np.ndarray) -> tuple[str, ...]:
        """The same in words."""
        said = []
        if self.train_rows is not None:
            said.append(
                f"of the training rows of a split, {self.train_rows} are learnt from, drawn by its seed"
            )
        if self.imbalance != 1:
            said.append(
                f"imbalance {self.imbalance:g} ({self.profile.replace('_', ' ')}): training rows are "
                "left out, more of the later classes; no validation or test rows are"
            )
        if self.label_noise:
            said.append(f"{self.label_noise:.3g} of the training labels are replaced by other classes")
        if self.noisy is not None:
            given = self.noisy >= 0
            differ = float((self.noisy != target)[given].mean())
            said.append(f"training labels from {self.noisy_name} ({differ:.3g} of them differ)")
        return tuple(said)


def _few(train: np.ndarray, seed: int, target: np.ndarray, rows: int) -> np.ndarray:
    """So many training rows, of each class its share; one of each at least, where there are as many."""
    labels = target[train]
    share = _ranks(train, seed, target, _DRAWN) / np.bincount(labels)[labels]  # 0 for the first of a class
    keys = drawn_keys(len(target), seed, _DRAWN)[train]
    kept: np.ndarray = np.sort(train[np.lexsort((keys, share))[:rows]])
    return kept


def _ranks(train: np.ndarray, seed: int, target: np.ndarray, stream: int) -> np.ndarray:
    """(n,) places of training rows within their classes, in random order."""
    labels = target[train]
    order = np.lexsort((drawn_keys(len(target), seed, stream)[train], labels))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return rank


def kept_rows(counts: np.ndarray, imbalance: float, profile: str) -> np.ndarray:
    """(K,) training rows that each class keeps.

    "long_tail": n_c = n_max · IF^(−c / (K − 1)), the classes in their order; "step": n_max in the first
    half of the classes and n_max / IF in the others. Rounded down, at least 1, at most what the class has.

    Args:
        counts: (K,) rows of each class; n_max is the largest.
        imbalance: IF.
        profile: one of `PROFILES`.

    Source: Cui et al. (arXiv 1901.05555); Buda et al. (arXiv 1710.05381).

    Example:
        >>> kept_rows(np.array([500, 500, 500]), 100, "long_tail")
        array([500,  50,   5])
    """
    place = np.arange(len(counts))
    if profile == "long_tail":
        share = imbalance ** (-place / (len(counts) - 1))
    else:
        share = np.where(place < (len(counts) + 1) // 2, 1.0, 1 / imbalance)
    # A power such as 100^(−1/2) may miss a whole number by an ulp.
    wanted = np.floor(counts.max() * share + 1e-9).astype(np.int64)
    kept: np.ndarray = np.minimum(np.maximum(wanted, 1), counts)
    return kept
