"""Engines: where runs are done. Serially in this process, or in worker processes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

from infoloss.study.process import WorkerDied, WorkerProcess, environment, gpus
from infoloss.study.runs import Arrays, Job, Outcome, Perform, Told, attempted, failed, paced, performed
from infoloss.study.threads import one_thread

__all__ = ["Engine", "Feed", "RunProgress", "Serial", "Workers", "cores"]


class Feed(Protocol):
    """Where an engine gets a job's arrays; jobs with the same key have the same ones."""

    def arrays(self, job: Job) -> Arrays: ...
    def arrays_key(self, job: Job) -> str: ...


RunProgress = Callable[[Job, int, int], None]
"""Called in the caller's thread, at most once a second a run, with its epoch and how many there are."""


class Engine(Protocol):
    """Does jobs, and yields each with its outcome in whatever order they finish."""

    def outcomes(
        self, jobs: Iterable[Job], feed: Feed, progress: RunProgress | None = None
    ) -> Iterator[tuple[Job, Outcome]]: ...
    def close(self) -> None: ...


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Serial:
    """One run after the other in this process, on one thread: the same numbers as in a worker."""

    def __init__(self, perform: Perform = performed) -> None:
        self._perform = perform

    def close(self) -> None:
        """Nothing is held."""

    def outcomes(
        self, jobs: Iterable[Job], feed: Feed, progress: RunProgress | None = None
    ) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            told = None if progress is None else paced(partial(progress, job))
            with one_thread():
                outcome = attempted(self._perform, job.config, feed.arrays(job), told)
            yield job, outcome


class Workers:
    """Worker processes, one thread each.

    Each is a fresh interpreter that reads jobs from a pipe and writes bytes back: it does not import the
    caller's main module, and it ends when the pipe does, however the parent ended. A run whose worker dies is
    given to a new worker once; then it has failed.

    They stay between two calls of ``outcomes``, until ``close`` or the end of a ``with``.

    Args:
        count: how many; as many as this machine has cores or GPUs for unless given.
        device: "cuda" gives each worker GPUs of its own, in turn.
        devices_per_run: how many cores or GPUs a run takes.
    """

    def __init__(self, count: int | None = None, *, device: str = "cpu", devices_per_run: int = 1) -> None:
        self._gpus = gpus() if device == "cuda" else []
        self._devices_per_run = devices_per_run
        self.count = count or max(1, (len(self._gpus) or cores()) // devices_per_run)
        self._alive: dict[int, WorkerProcess] = {}
        self._holds: dict[int, str] = {}
        self._stopping = threading.Event()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers of the living workers."""
        return tuple(worker.pid for worker in list(self._alive.values()))

    def outcomes(
        self, jobs: Iterable[Job], feed: Feed, progress: RunProgress | None = None
    ) -> Iterator[tuple[Job, Outcome]]:
        waiting, lock, done = iter(jobs), threading.Lock(), queue.Queue[Any]()

        def next_job() -> Job | None:
            with lock:
                return None if self._stopping.is_set() else next(waiting, None)

        self._stopping.clear()
        threads = [
            threading.Thread(target=self._serve, args=(slot, next_job, feed, done), daemon=True)
            for slot in range(self.count)
        ]
        for thread in threads:
            thread.start()
        active = len(threads)
        try:
            while active:
                try:
                    # A wait without end cannot be interrupted by Ctrl-C on every system.
                    item = done.get(timeout=0.5)
                except queue.Empty:
                    continue
                if item is None:
                    active -= 1
                elif isinstance(item, BaseException):
                    raise item
                elif len(item) == 3:
                    if progress is not None:
                        progress(*item)
                else:
                    yield item
        finally:
            # A thread may be starting a worker just now: close until none is left.
            while any(thread.is_alive() for thread in threads):
                if active:
                    self.close()
                for thread in threads:
                    thread.join(timeout=0.1)

    def close(self) -> None:
        """Ends the worker processes at once."""
        self._stopping.set()
        for slot in list(self._alive):
            self._alive[slot].close()
            self._alive.pop(slot, None)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _serve(
        self, slot: int, next_job: Callable[[], Job | None], feed: Feed, done: queue.Queue[Any]
    ) -> None:
        """One worker's share, on a thread of the parent; ends with None in ``done``."""
        try:
            while (job := next_job()) is not None:
                outcome = self._done_by_worker(slot, job, feed, lambda *at, job=job: done.put((job, *at)))
                if outcome is not None:
                    done.put((job, outcome))
        except BaseException as error:
            done.put(error)
        finally:
            done.put(None)

    def _done_by_worker(self, slot: int, job: Job, feed: Feed, told: Told) -> Outcome | None:
        """None where the engine is stopping."""
        code: int | None = None
        for _ in range(2):
            if self._stopping.is_set():
                return None
            if slot not in self._alive:
                self._alive[slot] = WorkerProcess(environment(self._gpus_of(slot)))
                self._holds.pop(slot, None)
            worker = self._alive[slot]
            try:
                return worker.outcome(job.config, self._arrays(slot, job, feed), told)
            except WorkerDied:
                code = worker.close()
                self._alive.pop(slot, None)
        if self._stopping.is_set():
            return None
        return failed(f"its worker process died twice (exit code {code}): killed, or out of memory")

    def _arrays(self, slot: int, job: Job, feed: Feed) -> bytes:
        """What the worker must be sent: nothing where it holds the arrays already."""
        from safetensors.numpy import save

        key = feed.arrays_key(job)
        if self._holds.get(slot) == key:
            return b""
        self._holds[slot] = key
        return bytes(save(dict(feed.arrays(job))))

    def _gpus_of(self, slot: int) -> list[str]:
        first, count = slot * self._devices_per_run, len(self._gpus)
        return [self._gpus[at % count] for at in range(first, first + self._devices_per_run)] if count else []
