"""Progress with time left: a bar on a terminal, now and then a line elsewhere, or a JSON object a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from infoloss.study.compare import Finished, Progress

__all__ = ["Form", "Lines", "duration", "shown"]

Form = Literal["auto", "bar", "lines", "json", "none"]
Show = Callable[["Progress"], None]

SECONDS_BETWEEN_LINES = 15.0
SHOWN_AT_ONCE = 2
"""Of the runs under way."""


@contextmanager
def shown(form: Form = "auto", *, stream: TextIO | None = None) -> Iterator[Show]:
    """What a study calls of its progress; "auto" is a bar on a terminal and lines elsewhere."""
    stream = stream or sys.stderr
    if form == "auto":
        form = "bar" if stream.isatty() else "lines"
    if form == "none":
        yield lambda progress: None
    elif form == "json":
        yield lambda progress: print(json.dumps(asdict(progress)), file=stream, flush=True)
    elif form == "lines":
        yield Lines(stream)
    else:
        with _bar(stream) as show:
            yield show


class Lines:
    """A line when a stage begins, when it ends, every 15 seconds between, and for each failure."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._last = "", -SECONDS_BETWEEN_LINES

    def __call__(self, progress: Progress) -> None:
        if failure := _failure(progress):
            print(failure, file=self._stream, flush=True)
        now, stage = self._clock(), _stage(progress)
        due = now - self._last >= SECONDS_BETWEEN_LINES or progress.done == progress.total
        if not due and stage == self._stage:
            return
        self._stage, self._last = stage, now
        print(
            "; ".join([f"{stage}: {_counted(progress)}", *_epochs(progress)]), file=self._stream, flush=True
        )


@contextmanager
def _bar(stream: TextIO) -> Iterator[Show]:
    """A bar with the runs under way behind it, or the one that ended last; failures stay above it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>8}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TextColumn("{task.fields[run]}", markup=False, style="dim"),
    )
    console = Console(file=stream)
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, count="", run="")

        def show(progress: Progress) -> None:
            if failure := _failure(progress):
                console.print(failure, markup=False, highlight=False, style="red")
            bars.update(
                task,
                description=_stage(progress),
                completed=progress.done + sum(run.epoch / run.epochs for run in progress.under_way),
                total=progress.total,
                count=_counted(progress),
                run="; ".join(_epochs(progress)) or ("" if progress.run is None else _ended(progress.run)),
            )

        yield show


def _stage(progress: Progress) -> str:
    """``"tuning"``, of several data sets ``"wine (2 of 6): tuning"``."""
    if not progress.data:
        return progress.stage
    place = f" ({progress.data_set} of {progress.data_sets})" if progress.data_sets else ""
    return f"{progress.data}{place}: {progress.stage}"


def _counted(progress: Progress) -> str:
    count = f"{progress.done} of {progress.total} runs"
    if progress.failed:
        count = f"{count}, {progress.failed} failed"
    left = progress.seconds_left
    return count if left is None or progress.done == progress.total else f"{count}, {duration(left)} left"


def _ended(run: Finished) -> str:
    """``"focal, seed 3, learning rate 0.01, 1 s"``."""
    rate = [] if run.learning_rate is None else [f"learning rate {run.learning_rate:g}"]
    took = [] if run.seconds is None else [duration(run.seconds)]
    return ", ".join([run.loss, f"seed {run.seed}", *rate, *took])


def _epochs(progress: Progress) -> list[str]:
    """``["focal, seed 3: epoch 12/50", "mae, seed 3: epoch 9/50", "and 6 more"]``."""
    shown = [f"{run.loss}, seed {run.seed}: epoch {run.epoch}/{run.epochs}" for run in progress.under_way]
    return (
        shown
        if len(shown) <= SHOWN_AT_ONCE
        else [*shown[:SHOWN_AT_ONCE], f"and {len(shown) - SHOWN_AT_ONCE} more"]
    )


def _failure(progress: Progress) -> str:
    """What went wrong with the run that has just ended; empty where nothing did."""
    run = progress.run
    if run is None or run.status == "done":
        return ""
    return f"{run.status}: {_ended(run)}: {run.error}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.4), duration(48), duration(200), duration(5400)
    ('1 s', '48 s', '3 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
