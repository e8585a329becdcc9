"""Before a study: its runs, how long they take here, and the smallest difference that it could show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infoloss.data import Dataset
from infoloss.study.design import Design
from infoloss.study.materials import Materials
from infoloss.study.runs import Arrays, Job

__all__ = ["Forecast", "forecast"]

TRIAL_EPOCHS = 3
TRIAL_ROWS = 4096
"""Training rows of a trial at most: an epoch of a large set of images takes minutes."""

QUESTIONS = 3


@dataclass(frozen=True)
class Forecast:
    """What a study will do.

    ``runs`` and ``missing`` count by kind ("tuning", "training", "reference lines"); ``seconds`` is for what
    is missing, ``timed`` says what that rests on. ``effect`` is the true difference that a verdict finds with
    80 % power, in standard deviations of the paired difference between seeds; infinite with a single seed.
    """

    design: Design
    runs: Mapping[str, int]
    missing: Mapping[str, int]
    workers: int
    seconds: float
    timed: str
    effect: float

    @property
    def comparisons(self) -> int:
        return QUESTIONS * (len(self.design.arms) - 1)


def forecast(design: Design, data: Dataset, folder: Path, *, workers: int | None = None) -> Forecast:
    """The forecast of a design in its folder: what is there already is not run again.

    The time comes from the folder's records, or from short trials, which are not kept and see no test row.

    Raises:
        DesignError: the folder holds another study.
    """
    from infoloss.study.engines import cores
    from infoloss.study.store import read_design, records

    old = read_design(folder)
    if old is not None:
        design = design.extended(Design.from_json(old))
    found = list(records(folder)[0].values()) if old is not None else []
    counts = _counts(design)
    done = _done(design, found)
    missing = {kind: max(0, count - done[kind]) for kind, count in counts.items()}
    costs, timed = _costs(Materials(data, design), found, [kind for kind, count in missing.items() if count])
    workers = workers or cores()
    return Forecast(
        design=design,
        runs=counts,
        missing=missing,
        workers=workers,
        seconds=sum(costs[kind] * count for kind, count in missing.items() if count) / workers,
        timed=timed,
        effect=_effect(design),
    )


def _counts(design: Design) -> dict[str, int]:
    from infoloss.study.references import names

    arms, seeds = len(design.arms), len(design.seeds)
    settings = len(design.learning_rates) + design.trials if design.tuned else 0
    finals = 2 if design.trials else 1  # with the best trial, and with the best of the grid
    tuning = arms * len(design.tuning_seeds) * settings
    lines = len(names(design.data))
    return {"tuning": tuning, "training": arms * seeds * finals, "reference lines": lines * seeds}


_ROLES = {"tuning": "tuning", "training": "final", "reference lines": "reference"}


def _done(design: Design, found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    losses = {arm.expression for arm in design.arms}
    wanted = {"tuning": design.tuning_seeds, "final": design.seeds, "reference": design.seeds}
    roles = [
        record["role"]
        for record in found
        if record["seed"] in wanted[record["role"]]
        and (record["role"] == "reference" or record["loss"] in losses or record.get("trial"))
    ]
    return {kind: roles.count(role) for kind, role in _ROLES.items()}


def _costs(
    materials: Materials, found: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> tuple[dict[str, float], str]:
    """Seconds of a run of each kind, and where that is from."""
    costs, sources = {}, []
    for kind in kinds:
        known = [
            record["seconds"]
            for record in found
            if record["role"] == _ROLES[kind] and record["seconds"] is not None
        ]
        if not known:
            continue
        costs[kind] = sum(known) / len(known)
        sources.append("the runs that are done")
    if "training" in kinds and "training" not in costs and "tuning" in costs:
        costs["training"] = costs["tuning"]
    if missing := [kind for kind in kinds if kind not in costs]:
        costs |= dict(_trials(materials, missing))
        sources.append("short trials, kept nowhere")
    return costs, " and ".join(dict.fromkeys(sources)) or "nothing"


def _trials(materials: Materials, kinds: Sequence[str]) -> Iterator[tuple[str, float]]:
    if {"tuning", "training"} & set(kinds):
        each = _training_seconds(materials)
        yield from ((kind, each) for kind in ("tuning", "training"))
    if "reference lines" in kinds:
        seconds = [
            _seconds(materials.reference(name, materials.design.seeds[0]), materials)
            for name in materials.references
        ]
        yield "reference lines", sum(seconds) / len(seconds)


def _training_seconds(materials: Materials) -> float:
    """Of a whole training, from few epochs of the baseline on few rows; the first trial only warms up."""
    design = materials.design
    short = replace(
        design, training={**design.training, "epochs": min(TRIAL_EPOCHS, design.training["epochs"])}
    )
    trial = Materials(materials.dataset, short)
    job = trial.training("tuning", design.baseline, design.seeds[0], design.learning_rates[0])
    share = min(1.0, TRIAL_ROWS / len(trial.split(job.seed).train))
    _seconds(job, trial, share)
    epochs: int = design.training["epochs"]
    return _seconds(job, trial, share) / share * epochs / int(short.training["epochs"])


def _seconds(job: Job, materials: Materials, share: float = 1.0) -> float:
    """How long a run takes on a share of its rows; its validation rows stand in for test rows."""
    from infoloss.study.engines import Serial

    [(_, outcome)] = Serial().outcomes([job], _WithoutTest(materials, share))
    if outcome.fields["seconds"] is None:
        raise RuntimeError(f"a trial of {job.label} failed: {outcome.fields['error']}")
    return float(outcome.fields["seconds"])


class _WithoutTest:
    """A feed of a share of the rows, whose test rows are the validation rows."""

    def __init__(self, materials: Materials, share: float) -> None:
        self._materials, self._share = materials, share

    def arrays(self, job: Job) -> Arrays:
        parts = {
            name: array if name == "file" else self._few(array)
            for name, array in self._materials.arrays(job).items()
            if not name.startswith("test_")
        }
        shown = {
            name.replace("validation_", "test_"): array
            for name, array in parts.items()
            if name.startswith("validation_")
        }
        return {**parts, **shown, "test_rows": self._few(self._materials.split(job.seed).validation)}

    def _few(self, array: np.ndarray) -> np.ndarray:
        """Rows from the whole length of the array, lest classes that stand together be missed."""
        few = max(1, round(self._share * len(array)))
        chosen: np.ndarray = array[np.linspace(0, len(array) - 1, few).astype(int)]
        return chosen

    def arrays_key(self, job: Job) -> str:
        return self._materials.arrays_key(job)


def _effect(design: Design) -> float:
    from infoloss.study.inference import minimum_detectable_effect

    comparisons = QUESTIONS * (len(design.arms) - 1)
    return minimum_detectable_effect(1.0, len(design.seeds), comparisons=max(1, comparisons))
