"""Engines: where runs are done. Serially in this process, or in worker processes."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch

from infoloss.study.frames import read_frame, write_frame
from infoloss.study.runs import Arrays, Job, Outcome, Perform, attempted, failed, performed
from infoloss.study.threads import one_thread

__all__ = ["Engine", "Feed", "Serial", "Workers", "cores"]


class Feed(Protocol):
    """Where an engine gets a job's arrays; jobs with the same key have the same ones."""

    def arrays(self, job: Job) -> Arrays: ...
    def arrays_key(self, job: Job) -> str: ...


class Engine(Protocol):
    """Does jobs, and yields each with its outcome in whatever order they finish."""

    def outcomes(self, jobs: Iterable[Job], feed: Feed) -> Iterator[tuple[Job, Outcome]]: ...
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

    def outcomes(self, jobs: Iterable[Job], feed: Feed) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            with one_thread():
                outcome = attempted(self._perform, job.config, feed.arrays(job))
            yield job, outcome


class Workers:
    """Worker processes, one thread each.

    Each is a fresh interpreter that reads jobs from a pipe and writes bytes back: it does not import the
    caller's main module, and it ends when the pipe does, however the parent ended. A run whose worker dies is
    given to a new worker once; then it has failed.

    They stay between two calls of ``outcomes``, until ``close`` or the end of a ``with``.

    Args:
        count: how many; the cores of this machine unless given.
        device: "cuda" gives each worker a GPU of its own, in turn.
    """

    def __init__(self, count: int | None = None, *, device: str = "cpu") -> None:
        self.count = count or (torch.cuda.device_count() if device == "cuda" else cores())
        self._device = device
        self._alive: dict[int, _Worker] = {}
        self._stopping = threading.Event()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process numbers of the living workers."""
        return tuple(worker.process.pid for worker in list(self._alive.values()))

    def outcomes(self, jobs: Iterable[Job], feed: Feed) -> Iterator[tuple[Job, Outcome]]:
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
                outcome = self._done_by_worker(slot, job, feed)
                if outcome is not None:
                    done.put((job, outcome))
        except BaseException as error:
            done.put(error)
        finally:
            done.put(None)

    def _done_by_worker(self, slot: int, job: Job, feed: Feed) -> Outcome | None:
        """None where the engine is stopping."""
        code: int | None = None
        for _ in range(2):
            if self._stopping.is_set():
                return None
            if slot not in self._alive:
                self._alive[slot] = _Worker(self._environment(slot))
            worker = self._alive[slot]
            try:
                return worker.outcome(job, feed)
            except _WorkerDied:
                code = worker.close()
                self._alive.pop(slot, None)
        if self._stopping.is_set():
            return None
        return failed(f"its worker process died twice (exit code {code}): killed, or out of memory")

    def _environment(self, slot: int) -> dict[str, str]:
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        if self._device == "cuda":
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            devices = visible if visible != [""] else [str(i) for i in range(torch.cuda.device_count())]
            one["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        return {**os.environ, **one}


_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from infoloss.study.worker import main; main()"
)


class _WorkerDied(Exception):  # noqa: N818
    pass


class _Worker:
    """The parent's end of a worker process."""

    def __init__(self, environment: dict[str, str]) -> None:
        # A process group of its own keeps the terminal's Ctrl-C away: the parent ends its workers itself.
        apart: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {"creationflags": 0x200}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **apart,
        )
        self._holds: str | None = None

    def outcome(self, job: Job, feed: Feed) -> Outcome:
        """Raises ``_WorkerDied`` where the pipe broke."""
        from safetensors.numpy import save

        key = feed.arrays_key(job)
        arrays = b"" if key == self._holds else save(dict(feed.arrays(job)))
        self._holds = key
        try:
            return self._answer(json.dumps(job.config).encode(), arrays)
        except (EOFError, OSError) as error:
            raise _WorkerDied from error

    def _answer(self, config: bytes, arrays: bytes) -> Outcome:
        to, back = self.process.stdin, self.process.stdout
        assert to is not None
        assert back is not None
        write_frame(to, config)
        write_frame(to, arrays)
        to.flush()
        fields = json.loads(read_frame(back))
        return Outcome(fields, read_frame(back) or None)

    def close(self) -> int:
        """Ends the process and returns its exit code."""
        self.process.kill()
        with self.process:
            return self.process.wait()
