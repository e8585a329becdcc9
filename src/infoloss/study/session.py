"""One sitting at a study: what is missing is run and stored, in an order that keeps losses paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from infoloss.study.design import Arm, Design
from infoloss.study.engines import Engine, Feed
from infoloss.study.runs import Job
from infoloss.study.store import Store, records
from infoloss.study.trials import Trial, best_setting, next_trials, tried
from infoloss.study.tuning import chosen

__all__ = ["Finished", "Materials", "Progress", "Report", "Session", "UnderWay"]

SECONDS_BETWEEN = 1.0
"""At least, of what is told within runs."""

LEAST_WORKED = 0.05
"""Of a run, before the time left is estimated. The first epoch, or a first run within a second, does not
count: most of its time goes to starting workers and compiling."""


@dataclass(frozen=True)
class Finished:
    """A run that has come to its end, and what came of it.

    ``id`` names its record; ``loss`` is its label, or the name of a reference line; ``status`` is "done",
    "diverged" or "failed".
    """

    id: str
    loss: str
    role: str
    seed: int
    learning_rate: float | None
    status: str
    error: str | None
    seconds: float | None
    validation: Mapping[str, float | None]


@dataclass(frozen=True)
class UnderWay:
    """A run that is being done, and how many of its epochs have ended; of short runs nothing is heard."""

    loss: str
    role: str
    seed: int
    learning_rate: float | None
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Progress:
    """How far a study is: runs done and planned, seconds left (None at first), what is being done.

    ``run`` is the one that has just ended (None where a stage begins, and within runs), ``failed`` the number
    of runs that failed or diverged so far, ``under_way`` the runs that take longer than a second. Of several
    data sets ``data`` is the name of the one in work, the ``data_set``-th of ``data_sets`` (0 where their
    number is not known), and the other numbers are about it.
    """

    done: int
    total: int
    seconds_left: float | None
    stage: str
    run: Finished | None = None
    failed: int = 0
    data: str = ""
    data_set: int = 1
    data_sets: int = 1
    under_way: tuple[UnderWay, ...] = ()


Report = Callable[[Progress], None]


class Materials(Feed, Protocol):
    """What the runs of a design are made of."""

    @property
    def design(self) -> Design: ...
    @property
    def references(self) -> Sequence[str]: ...
    def training(self, role: str, arm: Arm, seed: int, learning_rate: float | None) -> Job: ...
    def reference(self, name: str, seed: int) -> Job: ...


class Session:
    """One sitting at a study: the store's records, and what is still to do.

    Args:
        store: opened.
        engine: does the runs.
        materials: what they are made of.
        progress: told after every run, and about once a second within long ones.
        time_limit: seconds after which no run is begun.
        retry_failed: whether failed runs are run again.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        materials: Materials,
        progress: Report | None = None,
        time_limit: float | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.store, self.engine, self.materials, self.progress = store, engine, materials, progress
        self.design = materials.design
        self.started = monotonic()
        self.first: tuple[float, float] | None = None  # when work was first seen to be done, and how much
        self.deadline = self.started + time_limit if time_limit is not None else float("inf")
        self.records, damaged = records(store.folder)
        again = [damage.id for damage in damaged]
        if retry_failed:
            again += [id for id, record in self.records.items() if record["status"] == "failed"]
        for id in filter(store.part.holds, again):
            store.set_aside(id)
            self.records.pop(id, None)
        self.trained = 0
        self.under_way: dict[str, UnderWay] = {}
        self.last_told = self.started
        self.complaint: Exception | None = None
        self.failed = sum(record["status"] != "done" for record in self.records.values())

    def carry_out(self) -> None:
        """Tunes by the grid, then by trials, then trains and computes the references.

        Of a slice, losses whose tuning other slices have not finished are left to a later sitting.
        """
        tuning = self._tuning_jobs() if self.design.tuned else []
        names = self.materials.references
        arms = len(self.design.arms) * (2 if self.design.trials else 1)
        later = len(self.design.seeds) * (arms + len(names)) // self.store.part.count
        later = max(0, later - sum(record["role"] != "tuning" for record in self.records.values()))
        trials = len(self.design.arms) * self.design.trials * len(self.design.tuning_seeds)
        if not self._do(tuning, "tuning", later + trials) or not self._try(trials, later):
            return
        if not self.store.part.whole:
            self.records |= records(self.store.folder)[0]
        settings = {arm: self._settings(arm) for arm in self.design.arms}
        final = [
            self._job("final", arm, seed, setting)
            for seed in self.design.seeds
            for arm, chosen in settings.items()
            for setting in chosen
        ]
        # References come last: a study that runs out of time rather lacks them than a loss.
        references = [self.materials.reference(name, seed) for seed in self.design.seeds for name in names]
        self._do([*final, *references], "training", 0)

    def _tuning_jobs(self) -> list[Job]:
        return [
            self.materials.training("tuning", arm, seed, rate)
            for seed in self.design.tuning_seeds
            for arm in self.design.arms
            for rate in self.design.learning_rates
        ]

    def _try(self, total: int, later: int) -> bool:
        """Round after round of trials; false where the time ran out first."""
        done = 0
        while True:
            found = {arm: next_trials(self.records.values(), self.design, arm) for arm in self.design.arms}
            jobs = [
                self._job("tuning", arm, seed, trial)
                for seed in self.design.tuning_seeds
                for arm, trials in found.items()
                for trial in trials
            ]
            if not jobs:
                return True
            done += len(jobs)
            if not self._do(jobs, "tuning", later + max(0, total - done)):
                return False

    def _settings(self, arm: Arm) -> list[Trial | float | None]:
        """What a loss is finally trained with: the best trial, and the best learning rate of the grid."""
        made = chosen(self.records.values(), self.design, arm)
        if made is None:
            return [] if self.design.learning_rates else [None]
        grid: list[Trial | float | None] = [] if made.learning_rate is None else [made.learning_rate]
        best = best_setting(self.records.values(), self.design, arm) if self.design.trials else None
        return grid if best is None or best.trial.number is None else [best.trial, *grid]

    def _job(self, role: str, arm: Arm, seed: int, setting: Trial | float | None) -> Job:
        if not isinstance(setting, Trial):
            return self.materials.training(role, arm, seed, setting)
        tuned = replace(arm, expression=setting.expression)
        return tried(self.materials.training(role, tuned, seed, setting.learning_rate), arm, setting)

    def _do(self, jobs: Sequence[Job], stage: str, later: int) -> bool:
        """Runs and stores what is missing; false where the time ran out first."""
        if not jobs:
            return True
        mine = self.store.part.holds
        missing = [job for job in jobs if mine(job.id) and job.id not in self.records]
        left = len(missing)
        before = sum(map(mine, self.records))
        total = before + left + later
        self._tell(before, total, stage)

        def within(job: Job, epoch: int, epochs: int) -> None:
            rate = job.config["learning_rate"]
            self.under_way[job.id] = UnderWay(job.label, job.role, job.seed, rate, epoch, epochs)
            self._worked()
            if monotonic() - self.last_told < SECONDS_BETWEEN:
                return
            try:
                self._tell(total - later - left, total, stage)
            except Exception as error:
                # Raised here it would be the run's, which has nothing to do with it.
                self.complaint = error

        for job, outcome in self.engine.outcomes(self._in_time(missing), self.materials, within):
            record = outcome.record(job)
            self.store.write(record, outcome.predictions)
            self.records[job.id] = record
            self.under_way.pop(job.id, None)
            if self.complaint is not None:
                raise self.complaint
            left -= 1
            self.trained += 1
            self.failed += record["status"] != "done"
            self._tell(total - later - left, total, stage, _finished(job, record))
        return left == 0

    def _in_time(self, jobs: Sequence[Job]) -> Iterator[Job]:
        for job in jobs:
            if monotonic() > self.deadline:
                return
            yield job

    def _tell(self, done: int, total: int, stage: str, run: Finished | None = None) -> None:
        if self.progress is None:
            return
        self.last_told = monotonic()
        under_way = tuple(self.under_way.values())
        (since, before), worked = self._worked()
        ahead = total - done - (worked - self.trained)
        each = (self.last_told - since) / (worked - before) if worked - before >= LEAST_WORKED else None
        left = 0.0 if worked and not ahead else None if each is None else each * ahead
        self.progress(Progress(done, total, left, stage, run, self.failed, under_way=under_way))

    def _worked(self) -> tuple[tuple[float, float], float]:
        """When time began to count and the runs done till then; the runs done, and parts of runs."""
        worked = self.trained + sum(each.epoch / each.epochs for each in self.under_way.values())
        if self.first is None and worked:
            self.first = monotonic(), worked
        return self.first or (self.started, 0.0), worked


def _finished(job: Job, record: Mapping[str, Any]) -> Finished:
    told = {key: record[key] for key in ("learning_rate", "status", "error", "seconds", "validation")}
    return Finished(id=job.id, loss=job.label, role=job.role, seed=job.seed, **told)
