"""``infoloss compare`` on several data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infoloss.cli.complaints import reading
from infoloss.cli.options import seconds
from infoloss.cli.rerun import command

if TYPE_CHECKING:
    from infoloss.cli.comparison import Running
    from infoloss.study.collection import CollectionAnalysis
    from infoloss.study.plan import Plan

__all__ = ["CollectionStudy", "print_collection"]

INTERRUPTED = 130


class CollectionStudy:
    """A plan with its data sets, ready to be carried out.

    Args:
        plan: as asked for.
        run: where, how long, and how much is said.
    """

    def __init__(self, plan: Plan, run: Running) -> None:
        from infoloss.study.collection import collection_name, datasets

        self.plan, self.run = plan, run
        self.limit = None if run.time_limit is None else seconds(run.time_limit)
        run.check()
        with reading():
            self.sets = list(datasets(plan))
            name = collection_name(plan, self.sets)
        self.folder = run.out or Path(name)
        self.command = command()

    def forecast(self) -> int:
        """What would be run on each data set, how long it takes, and what could be detected."""
        from infoloss.cli.forecasts import forecast_text
        from infoloss.study.collection import member_design, member_folder
        from infoloss.study.forecast import forecast

        for dataset in self.sets:
            design = member_design(self.plan, dataset)
            place = self.folder / member_folder(dataset.name)
            print(f"{forecast_text(forecast(design, dataset, place, workers=self.run.jobs))}\n")
        print(f"folder: {self.folder}")
        return 0

    def carried_out(self) -> int:
        """Runs what is missing, writes all reports and says what was found."""
        from infoloss.study.collection import run_collection

        try:
            with self.run.told(self.folder) as progress, self.run.workers() as workers, reading():
                found = run_collection(
                    self.plan,
                    self.sets,
                    self.folder,
                    progress,
                    workers=workers,
                    time_limit=self.limit,
                    retry_failed=self.run.retry_failed,
                    shard=self.run.shard,
                    command=self.command,
                )
        except KeyboardInterrupt:
            kept = f"{self.folder} keeps what is done. To go on:\n    {self.command}"
            print(f"\ninfoloss: interrupted; {kept}", file=sys.stderr)
            return INTERRUPTED
        if self.run.shard is not None:
            rest = "" if found.complete else " as far as it can be"
            print(f"Slice {self.run.shard} of {self.folder} is done{rest}; infoloss report {self.folder}")
            return 0
        print_collection(found)
        if not found.complete:
            print(f"\nThe time limit ended this before the study was done. To go on:\n    {self.command}")
        return 0


def print_collection(found: CollectionAnalysis, out: Path | None = None) -> None:
    """Writes the reports of all data sets and of the whole, and prints the verdicts over data sets."""
    from infoloss.cli.results import print_lines, print_verdict_table
    from infoloss.study.report.collection import document, render_all, summary

    path = render_all(found, out or found.folder)
    whole = document(found)
    print_lines(f"\n{whole.title}\n", sys.stdout)
    print_verdict_table(summary(found), sys.stdout)
    for sentence in (*whole.warnings, *whole.headline):
        print_lines(f"- {sentence}", sys.stdout)
    print(f"\nReport: {path}")
