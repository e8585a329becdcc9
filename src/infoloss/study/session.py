"""One sitting at a study: what is missing is run and stored, in an order that keeps losses paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from infoloss.study.design import Arm, Design
from infoloss.study.engines import Engine, Feed
from infoloss.study.runs import Job
from infoloss.study.store import Store, records
from infoloss.study.tuning import chosen

__all__ = ["Materials", "Progress", "Report", "Session"]


@dataclass(frozen=True)
class Progress:
    """How far a study is: runs done and planned, seconds left (None before the first), what is being done."""

    done: int
    total: int
    seconds_left: float | None
    stage: str


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
        progress: told after every run.
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
        self.deadline = self.started + time_limit if time_limit is not None else float("inf")
        self.records, damaged = records(store.folder)
        again = [damage.id for damage in damaged]
        if retry_failed:
            again += [id for id, record in self.records.items() if record["status"] == "failed"]
        for id in filter(store.part.holds, again):
            store.set_aside(id)
            self.records.pop(id, None)
        self.trained = 0

    def carry_out(self) -> None:
        """Tunes, then trains and computes the references.

        Of a slice, losses whose tuning other slices have not finished are left to a later sitting.
        """
        tuning = self._tuning_jobs() if self.design.tuned else []
        names = self.materials.references
        later = len(self.design.seeds) * (len(self.design.arms) + len(names)) // self.store.part.count
        if not self._do(tuning, "tuning", later):
            return
        if not self.store.part.whole:
            self.records |= records(self.store.folder)[0]
        rates = {arm: self._learning_rate(arm) for arm in self.design.arms}
        final = [
            self.materials.training("final", arm, seed, rate)
            for seed in self.design.seeds
            for arm, rate in rates.items()
            if rate is not None or not self.design.learning_rates
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

    def _learning_rate(self, arm: Arm) -> float | None:
        made = chosen(self.records.values(), self.design, arm)
        return made.learning_rate if made else None

    def _do(self, jobs: Sequence[Job], stage: str, later: int) -> bool:
        """Runs and stores what is missing; false where the time ran out first."""
        mine = self.store.part.holds
        missing = [job for job in jobs if mine(job.id) and job.id not in self.records]
        left = len(missing)
        before = sum(map(mine, self.records))
        total = before + left + later
        self._tell(before, total, stage)
        for job, outcome in self.engine.outcomes(self._in_time(missing), self.materials):
            record = outcome.record(job)
            self.store.write(record, outcome.predictions)
            self.records[job.id] = record
            left -= 1
            self.trained += 1
            self._tell(total - later - left, total, stage)
        return left == 0

    def _in_time(self, jobs: Sequence[Job]) -> Iterator[Job]:
        for job in jobs:
            if monotonic() > self.deadline:
                return
            yield job

    def _tell(self, done: int, total: int, stage: str) -> None:
        if self.progress is None:
            return
        each = (monotonic() - self.started) / self.trained if self.trained else None
        self.progress(Progress(done, total, None if each is None else each * (total - done), stage))
