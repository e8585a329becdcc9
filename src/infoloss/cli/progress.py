"""Progress with time left: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from infoloss.study.compare import Progress

__all__ = ["Lines", "duration", "shown"]

Show = Callable[["Progress"], None]

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def shown(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Show]:
    """What a study calls after every run; nothing is shown where ``quiet``."""
    stream = stream or sys.stderr
    if quiet:
        yield lambda progress: None
    elif stream.isatty():
        with _bar(stream) as show:
            yield show
    else:
        yield Lines(stream)


class Lines:
    """A line when a stage begins, when it ends, and every 15 seconds between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage, self._last = "", -SECONDS_BETWEEN_LINES

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        due = now - self._last >= SECONDS_BETWEEN_LINES or progress.done == progress.total
        if not due and progress.stage == self._stage:
            return
        self._stage, self._last = progress.stage, now
        print(f"{progress.stage}: {_counted(progress)}", file=self._stream, flush=True)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>8}"), BarColumn(), TextColumn("{task.fields[count]}"))
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("", total=None, count="")

        def show(progress: Progress) -> None:
            bars.update(
                task,
                description=progress.stage,
                completed=progress.done,
                total=progress.total,
                count=_counted(progress),
            )

        yield show


def _counted(progress: Progress) -> str:
    count = f"{progress.done} of {progress.total} runs"
    left = progress.seconds_left
    return count if left is None or progress.done == progress.total else f"{count}, {duration(left)} left"


def duration(seconds: float) -> str:
    """
    >>> duration(0.4), duration(48), duration(200), duration(5400)
    ('1 s', '48 s', '3 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
