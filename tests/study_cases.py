"""Small studies that the tests of the study share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from infoloss.data import Dataset, from_arrays
from infoloss.study.plan import Plan
from infoloss.study.store import comparable, predictions, records

LOSSES = ("squentropy", "min_ent")


def blobs(rows: int = 120, counts: tuple[int, ...] = (1, 1, 1), seed: int = 0) -> Dataset:
    """Overlapping Gaussian classes with class sizes in these proportions."""
    generator = np.random.default_rng(seed)
    share = np.repeat(np.arange(len(counts)), counts)
    target = share[np.arange(rows) % len(share)]
    centres = 1.5 * np.eye(len(counts), 4)
    return from_arrays(centres[target] + generator.normal(size=(rows, 4)), target, name="blobs")


def small_plan(**options: object) -> Plan:
    """Three losses, two seeds, four learning rates on one tuning seed, three epochs."""
    training = {"epochs": 3, "batch_size": 16}
    given = {
        "losses": list(LOSSES),
        "seeds": 2,
        "model": {"name": "mlp", "hidden": [8]},
        "training": training,
        "tuning": {"seeds": 1},
        **options,
    }
    given["training"] = {**training, **given["training"]}
    return Plan.of(**given)


def contents(folder: Path) -> dict[str, tuple[object, object]]:
    """Every run's record without its costs, and its predictions as bytes."""
    found, damaged = records(folder)
    assert not damaged
    return {
        id: (
            comparable(record),
            {name: array.tobytes() for name, array in predictions(folder, id).items()}
            if record["predictions_sha256"]
            else None,
        )
        for id, record in found.items()
    }
