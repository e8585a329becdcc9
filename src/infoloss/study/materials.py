"""What the runs of a study on a data set are made of: their configurations and their arrays."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from infoloss.data import Dataset, Split
from infoloss.study.design import Arm, Design
from infoloss.study.own_losses import term_of
from infoloss.study.references import names
from infoloss.study.runs import KERNEL, PROTOCOL, Arrays, Job

__all__ = ["Materials"]


class Materials:
    """The jobs of a design, and the arrays of each.

    Args:
        dataset: what is learnt from.
        design: made for this data set.
    """

    def __init__(self, dataset: Dataset, design: Design) -> None:
        self.dataset, self.design = dataset, design
        self.split = lru_cache(maxsize=None)(dataset.split)
        self._parts = lru_cache(maxsize=2)(self._uncached_parts)

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the reference lines."""
        return names(self.design.data)

    def training(self, role: str, arm: Arm, seed: int, learning_rate: float | None) -> Job:
        """A training of role "tuning" or "final"."""
        design = self.design
        config = {
            **self._common(role, seed),
            "precision": design.training["precision"],
            "loss": arm.expression,
            "bindings": self._bindings(arm, seed),
            "model": design.model,
            "learning_rate": learning_rate,
            "training": design.training,
            "metric": design.metric,
            "kernel": KERNEL,
            "device": design.device,
        }
        return Job(config, arm.label, self.dataset.name)

    def reference(self, name: str, seed: int) -> Job:
        """A reference line on the split of a seed."""
        return Job({**self._common("reference", seed), "model": {"name": name}}, name, self.dataset.name)

    def arrays(self, job: Job) -> Arrays:
        """The arrays of a job; those of a tuning run hold no test row at all."""
        parts = self._parts(job.seed)
        if job.role != "tuning":
            return parts
        return {name: array for name, array in parts.items() if not name.startswith("test_")}

    def arrays_key(self, job: Job) -> str:
        """Jobs with the same key have the same arrays, whichever study they are of."""
        split, test = self.split(job.seed).sha256, "" if job.role == "tuning" else " with test"
        return f"{self.dataset.sha256} {self._alteration} {job.seed} {split}{test}"

    def _common(self, role: str, seed: int) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "role": role,
            "seed": seed,
            "data_sha256": self.dataset.sha256,
            "split_sha256": self.split(seed).sha256,
            "classes": len(self.dataset.classes),
            "precision": "float32",
            "source": None,
            **self._alteration,
        }

    @property
    def _alteration(self) -> dict[str, Any]:
        """Written where there is one: the identities of all other runs are as they were."""
        found = self.dataset.alteration.described()
        return {"alteration": found} if found else {}

    def _bindings(self, arm: Arm, seed: int) -> dict[str, list[float]]:
        """Class counts and prior of the training rows (by weight, if any), where the loss wants them."""
        wanted = term_of(arm.expression).unbound
        if not wanted:
            return {}
        split, weight = self.split(seed), self.dataset.sample_weight
        rows = split.train
        counts = np.bincount(
            self.dataset.labels(split)[rows],
            None if weight is None else weight[rows],
            minlength=len(self.dataset.classes),
        ).astype(float)
        values = {"counts": counts.tolist(), "prior": (counts / counts.sum()).tolist()}
        return {name: values[name] for name in sorted(wanted)}

    def _uncached_parts(self, seed: int) -> dict[str, np.ndarray]:
        split: Split = self.split(seed)
        arrays = self.dataset.arrays(split)
        parts: dict[str, np.ndarray] = {"test_rows": split.test}
        if arrays.file is not None:
            parts["file"] = np.frombuffer(os.fsencode(arrays.file.resolve()), np.uint8)
        for part in ("train", "validation", "test"):
            rows = getattr(split, part)
            if arrays.file is None:
                parts[f"{part}_features"] = arrays.features[rows]
            else:
                parts[f"{part}_rows"] = rows
            parts[f"{part}_target"] = arrays.target[rows]
        if arrays.sample_weight is not None:
            parts["train_weight"] = arrays.sample_weight[split.train]
        return parts
