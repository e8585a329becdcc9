"""``infoloss compare`` and ``infoloss demo``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from infoloss.cli.collections import CollectionStudy
from infoloss.cli.complaints import InputError, reading
from infoloss.cli.doctor import lacking
from infoloss.cli.log import logging
from infoloss.cli.options import (
    DataOptions,
    JudgingOptions,
    LossOptions,
    TrainingOptions,
    TuningOptions,
    plan,
    seconds,
)
from infoloss.cli.progress import Form, shown
from infoloss.cli.rerun import command
from infoloss.cli.results import print_verdicts, recipe

if TYPE_CHECKING:
    from infoloss.data import Dataset
    from infoloss.study.analysis import Analysis
    from infoloss.study.design import Design
    from infoloss.study.engines import Engine
    from infoloss.study.plan import Plan
    from infoloss.study.session import Report

__all__ = ["compare", "demo"]

INTERRUPTED = 130
_FILES = (".csv", ".tsv", ".gz", ".parquet", ".npz", ".zip", ".txt", ".toml")


# ruff: noqa: RUF009 - these functions make dataclass fields


def running(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


RUNNING = Group("Running", sort_key=6)


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True)
class Running:
    """Where, how long, and how much is said."""

    out: Path | None = running("Folder of the study [default: a name from data and study].")
    engine: Literal["processes", "ray"] = running("Processes of this machine, or a Ray cluster.", "processes")
    address: str | None = running("Of the Ray cluster, HOST:PORT [default: the one this machine belongs to].")
    jobs: int | None = running(
        "Runs at once; 1 runs in this process [default: one a core, or what the cluster has room for]."
    )
    time_limit: str | None = running("No run begins after this time, as in 30m or 1h30m; resume later.")
    retry_failed: Annotated[bool, Parameter(negative=())] = running("Run failed runs again.", False)
    shard: str | None = running("The I-th of N slices of the runs, as 2/4; other processes do the others.")
    progress: Form = running(
        "How progress is shown: auto is a bar on a terminal and lines elsewhere; json an object a line.",
        "auto",
    )
    log: str | None = running("Log every run as it ends: tensorboard:DIR or mlflow:URI (extra: log).")
    quiet: Annotated[bool, Parameter(negative=())] = running("No progress, as --progress none.", False)

    @property
    def form(self) -> Form:
        return "none" if self.quiet else self.progress

    @contextmanager
    def told(self, folder: Path) -> Iterator[Report]:
        """What is told of every run: shown, and logged where that is asked for."""
        with (
            shown(self.form) as show,
            logging(show, folder, self.log, rest=self.shard is None) as report,
        ):
            yield report

    @contextmanager
    def workers(self) -> Iterator[int | Engine | None]:
        """What does the runs; a cluster is left at the end."""
        if self.engine == "processes":
            yield self.jobs
            return
        from infoloss.study.cluster import Cluster

        with Cluster(self.address or "auto", count=self.jobs) as cluster:
            yield cluster

    def check(self) -> None:
        """Raises InputError where options are wrong, or do not go together."""
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--jobs: {self.jobs}: expected 1 or more")
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address: {self.address}: is for --engine ray")


def compare(
    *data: str,
    loss: LossOptions | None = None,
    judging: JudgingOptions | None = None,
    table: DataOptions | None = None,
    training: TrainingOptions | None = None,
    tuning: TuningOptions | None = None,
    run: Running | None = None,
    dry_run: Annotated[bool, Parameter(group=RUNNING, negative=())] = False,
) -> int:
    """Train every loss on your data with paired seeds, and judge it against the baseline.

    The same command again resumes; more losses or seeds extend the study.

    Args:
        data: A known set (infoloss data lists them), a table (.csv, .tsv, also .gz; .parquet), arrays (.npz),
            a folder or .zip of images, texts (.txt), module:function, or a study file (.toml)
            [default: digits]. Several of them: a study of each, and what they say together.
        dry_run: Show runs, estimated time and the minimum detectable effect; train nothing.
    """
    run = run or Running()
    asked = _plan(data, loss, judging, table, training, tuning)
    study = CollectionStudy(asked, run) if asked.collection else Study(asked, run)
    return study.forecast() if dry_run else study.carried_out()


def demo(*, run: Running | None = None) -> int:
    """Compare eight losses on scikit-learn's digits, and say where the report is."""
    return Study(plan(()), run or Running()).carried_out()


def _plan(data: tuple[str, ...], loss: LossOptions | None, *others: Any) -> Plan:
    last = loss.losses[-1] if loss and loss.losses else ""
    if not data and last.lower().endswith(_FILES):
        raise InputError(
            f"{last} is among the losses; the data come first: infoloss compare {last} --losses …"
        )
    return plan(data, loss, *others)


class Study:
    """A plan with its data, ready to be carried out.

    Args:
        plan: as asked for.
        run: where, how long, and how much is said.
    """

    def __init__(self, plan: Plan, run: Running) -> None:
        from infoloss.study.design import settled

        self.plan, self.run = plan, run
        self.limit = None if run.time_limit is None else seconds(run.time_limit)
        run.check()
        with reading():
            self.data: Dataset = plan.data.dataset()
            self.design: Design = settled(plan, self.data)
        if run.engine == "processes" and (why := lacking(self.design.device)):
            raise InputError(f"--device: {self.design.device}: {why}; see infoloss doctor")
        self.folder = run.out or Path(self.design.name)
        self.command = command()

    def forecast(self) -> int:
        """Says what would be run, how long it takes, and what could be detected."""
        from infoloss.cli.forecasts import forecast_text
        from infoloss.study.forecast import forecast

        found = forecast(self.design, self.data, self.folder, workers=self.run.jobs)
        print(f"{forecast_text(found)}\nfolder: {self.folder}")
        return 0

    def carried_out(self) -> int:
        """Runs what is missing, writes the report and says what was found."""
        try:
            analysis = self._analysis()
        except KeyboardInterrupt:
            print(
                f"\ninfoloss: interrupted; {self.folder} keeps what is done. {self._go_on}", file=sys.stderr
            )
            return INTERRUPTED
        if self.run.shard is not None:
            print(self._sliced(analysis))
            return 0
        from infoloss.study.report import render

        print_verdicts(analysis, render(analysis, self.folder))
        print(f"\n{recipe(analysis)}")
        if not analysis.complete:
            print(f"\nThe time limit ended this before the study was done. {self._go_on}")
        return 0

    def _sliced(self, analysis: Analysis) -> str:
        done = f"Slice {self.run.shard} of {self.folder} is done"
        if analysis.complete:
            return f"{done}, and so are the others. infoloss report {self.folder} writes the report."
        return f"{done} as far as it can be. When the other slices are too, go on:\n    {self.command}"

    @property
    def _go_on(self) -> str:
        return f"To go on:\n    {self.command}"

    def _analysis(self) -> Analysis:
        from infoloss.study.compare import run

        with self.run.told(self.folder) as progress, self.run.workers() as workers:
            return run(
                self.plan,
                self.data,
                self.folder,
                progress,
                workers=workers,
                time_limit=self.limit,
                retry_failed=self.run.retry_failed,
                shard=self.run.shard,
                command=self.command,
            )
