"""Carrying out a study: what is missing is run and stored, in an order that keeps losses paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from infoloss.data import Dataset
from infoloss.study.analysis import Analysis, analyse
from infoloss.study.design import Arm, Design, settled
from infoloss.study.engines import Engine, Serial, Workers, cores
from infoloss.study.materials import Materials
from infoloss.study.plan import Plan
from infoloss.study.references import REFERENCES
from infoloss.study.runs import Job
from infoloss.study.store import Store, read_design, records
from infoloss.study.tuning import choice

__all__ = ["Progress", "run"]


@dataclass(frozen=True)
class Progress:
    """How far a study is: runs done and planned, seconds left (None before the first), and what is being done."""

    done: int
    total: int
    seconds_left: float | None
    stage: str


Report = Callable[[Progress], None]


def run(
    plan: Plan,
    dataset: Dataset | None = None,
    folder: Path | str | None = None,
    progress: Report | None = None,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
    retry_failed: bool = False,
    command: str = "",
) -> Analysis:
    """Does what is missing of a study, and analyses what is there.

    The same call again trains nothing; more losses or seeds train what is new. Losses and seeds that the folder
    already has stay in the study: what was tried is reported.

    Args:
        plan: as asked for.
        dataset: what is learnt from; the plan's own source unless given.
        folder: of the store; a name from data and design, in the working directory, unless given.
        progress: called after every run.
        workers: processes; one a core unless given, 1 runs in this process.
        time_limit: seconds after which no run is begun; the study stays incomplete and can be resumed.
        retry_failed: run again what failed for another reason than divergence.
        command: that reruns the study, for the report.

    Raises:
        PlanError: the plan does not fit the data.
        DesignError: the folder holds another study.
        StoreError: the folder is in use, or cannot be written.
    """
    if dataset is None:
        from infoloss.data import load

        options = plan.data.model_dump()
        dataset = load(options.pop("source"), **options)
    design = settled(plan, dataset)
    design = replace(design, command=command, notes=_notes(design, dataset))
    path = Path(design.name if folder is None else folder)
    with Store.opened(path) as store:
        design = opened(store, design)
        engine = _engine(workers, design.device)
        session = Session(store, engine, Materials(dataset, design), progress, time_limit, retry_failed)
        try:
            session.carry_out()
        finally:
            engine.close()
    return analyse(path)


def opened(store: Store, design: Design) -> Design:
    """The design, extended by what the folder already has, and written there."""
    old = read_design(store.folder)
    if old is not None:
        design = design.extended(Design.from_json(old))
    store.write_design(design.to_json())
    return design


def _engine(workers: int | None, device: str) -> Engine:
    if (workers or cores()) == 1:
        return Serial()
    return Workers(workers, device=device)


def _notes(design: Design, dataset: Dataset) -> tuple[str, ...]:
    first = design.seeds[0]
    split = dataset.split_notes(dataset.split(first))
    prefix = f"split of seed {first}: " if dataset.resampled else ""
    return (*design.notes, *(prefix + note for note in split))


class Session:
    """One sitting at a study: the store's records, and what is still to do.

    Args:
        store: opened.
        engine: does the runs.
        materials: makes them: ``design``, ``training``, ``reference``, ``arrays``.
        progress: told after every run.
        time_limit: seconds after which no run is begun.
        retry_failed: whether failed runs are run again.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        materials: Any,
        progress: Report | None = None,
        time_limit: float | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.store, self.engine, self.materials, self.progress = store, engine, materials, progress
        self.design: Design = materials.design
        self.started = monotonic()
        self.deadline = self.started + time_limit if time_limit is not None else float("inf")
        self.records, damaged = records(store.folder)
        for damage in damaged:
            store.set_aside(damage.id)
        if retry_failed:
            for id in [id for id, record in self.records.items() if record["status"] == "failed"]:
                store.set_aside(id)
                del self.records[id]
        self.trained = 0

    def carry_out(self) -> None:
        """Tunes, then trains and computes the references."""
        tuning = self._tuning_jobs() if self.design.tuned else []
        later = len(self.design.seeds) * (len(self.design.arms) + len(self._references))
        if not self._do(tuning, "tuning", later):
            return
        rates = {arm: self._learning_rate(arm) for arm in self.design.arms}
        final = [
            self.materials.training("final", arm, seed, rate)
            for seed in self.design.seeds
            for arm, rate in rates.items()
            if rate is not None or not self.design.learning_rates
        ]
        # References come last: a study that runs out of time rather lacks them than a loss.
        references = [
            self.materials.reference(name, seed) for seed in self.design.seeds for name in self._references
        ]
        self._do([*final, *references], "training", 0)

    @property
    def _references(self) -> Sequence[str]:
        return tuple(REFERENCES) if hasattr(self.materials, "reference") else ()

    def _tuning_jobs(self) -> list[Job]:
        return [
            self.materials.training("tuning", arm, seed, rate)
            for seed in self.design.tuning_seeds
            for arm in self.design.arms
            for rate in self.design.learning_rates
        ]

    def _learning_rate(self, arm: Arm) -> float | None:
        if not self.design.tuned:
            return next(iter(self.design.learning_rates), None)
        mine = [
            record
            for record in self.records.values()
            if record["role"] == "tuning"
            and record["loss"] == arm.expression
            and record["seed"] in self.design.tuning_seeds
        ]
        return choice(mine, grid=self.design.learning_rates, metric=self.design.metric).learning_rate

    def _do(self, jobs: Sequence[Job], stage: str, later: int) -> bool:
        """Runs and stores what is missing; false where the time ran out first."""
        missing = [job for job in jobs if job.id not in self.records]
        left = len(missing)
        before = len(self.records)
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
