"""Runs on a Ray cluster: placed by their cores and GPUs, and started again where their machine is lost."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infoloss.study.engines import Feed, RunProgress
from infoloss.study.runs import Arrays, Job, Outcome, attempted, devices_per_run, failed, performed
from infoloss.study.threads import one_thread

__all__ = ["Cluster", "ClusterError"]

STARTS = 4
"""Of a run at most: machines may go again and again, but a run may also be what ends them."""

SECONDS_TO_ANSWER = 10.0


class ClusterError(RuntimeError):
    """There is no such cluster, or it cannot do the runs."""


class Cluster:
    """The machines of a Ray cluster that runs already.

    A run takes a core for each of its processes, and a GPU too where the study trains on them; Ray finds the
    place. Runs whose machine or worker process is lost start again wherever there is room. Records are those
    of ``Workers``. Every machine must have this version of infoloss, and find modules of the user's own and
    data files under the same paths as this one.

    Args:
        address: "HOST:PORT"; "auto" is the cluster that this machine belongs to, or that of RAY_ADDRESS.
        count: how many runs are given out at once; what the cluster has room for unless given. A cluster that
            grows with what is asked of it wants a number.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str = "auto", *, count: int | None = None) -> None:
        self._ray, self.count = _ray(), count
        self._joined = not self._ray.is_initialized()
        if self._joined:
            _join(self._ray, address)

    def outcomes(
        self, jobs: Iterable[Job], feed: Feed, progress: RunProgress | None = None
    ) -> Iterator[tuple[Job, Outcome]]:
        """``progress`` is not called: how far a run is stays on its machine."""
        waiting, started = iter(jobs), _Started(self._ray, feed)
        following = next(waiting, None)
        try:
            while following is not None or started.count:
                while following is not None and started.count < self._room(following, idle=not started.count):
                    started.start(following)
                    following = next(waiting, None)
                yield from started.finished()
        finally:
            started.cancel()

    def close(self) -> None:
        """Leaves the cluster, which ends what this process started there."""
        if self._joined:
            self._ray.shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _room(self, job: Job, *, idle: bool) -> int:
        """How many runs like this one the cluster can do at once."""
        if self.count is not None:
            return self.count
        wanted = _wanted(job)
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(min(int(has.get(kind, 0) / amount) for kind, amount in wanted.items()) for has in machines)
        if idle and room == 0:
            listed = " and ".join(f"{amount} {kind}" for kind, amount in wanted.items())
            raise ClusterError(
                f"no machine of the Ray cluster has the {listed} that a run of {job.label} takes"
            )
        return room


@dataclass(frozen=True, eq=False)
class _Attempt:
    job: Job
    number: int


class _Started:
    """The runs that were given out, and the arrays that the last one had."""

    def __init__(self, ray: Any, feed: Feed) -> None:
        self._ray, self._feed = ray, feed
        self._task = ray.remote(max_retries=0)(_performed)
        self._attempts: dict[Any, _Attempt] = {}
        self._key: str | None = None
        self._arrays: Any = None

    @property
    def count(self) -> int:
        return len(self._attempts)

    def start(self, job: Job, number: int = 1) -> None:
        wanted = _wanted(job)
        task = self._task.options(num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0), name=job.label)
        self._attempts[task.remote(job.config, self._of(job), _path())] = _Attempt(job, number)

    def finished(self) -> Iterator[tuple[Job, Outcome]]:
        """What is finished after a short while; what was lost is started again."""
        # A wait without end would not see machines that join.
        done, _ = self._ray.wait(list(self._attempts), num_returns=1, timeout=1.0)
        for task in done:
            attempt = self._attempts.pop(task)
            outcome = self._outcome(task, attempt)
            if outcome is None:
                self.start(attempt.job, attempt.number + 1)
            else:
                yield attempt.job, outcome

    def cancel(self) -> None:
        """Ends what is under way; leaving the cluster did so too, and Ray would start another one."""
        while self._attempts and self._ray.is_initialized():
            self._ray.cancel(self._attempts.popitem()[0], force=True)

    def _outcome(self, task: Any, attempt: _Attempt) -> Outcome | None:
        """None where the run is to start again."""
        errors = self._ray.exceptions
        try:
            return Outcome(*self._ray.get(task))
        except errors.RayTaskError as error:
            raise ClusterError(f"a machine of the Ray cluster cannot do a run: {error.cause!r}") from error
        except errors.RayError as error:
            if attempt.number < STARTS:
                return None
            return failed(f"its worker or machine was lost {STARTS} times: {type(error).__name__}")

    def _of(self, job: Job) -> Any:
        """The job's arrays in the cluster's store; consecutive runs share them."""
        key = self._feed.arrays_key(job)
        if key != self._key:
            self._key, self._arrays = key, self._ray.put(dict(self._feed.arrays(job)))
        return self._arrays


def _performed(config: Mapping[str, Any], arrays: Arrays, path: Sequence[str]) -> tuple[Any, bytes | None]:
    """A run, on one of the cluster's machines."""
    from infoloss.training.memory import keep_freed_memory

    sys.path += [place for place in path if place not in sys.path]
    keep_freed_memory()
    with one_thread():
        outcome = attempted(performed, config, arrays)
    return outcome.fields, outcome.predictions


def _wanted(job: Job) -> dict[str, int]:
    """What a run takes, by Ray's names."""
    count = devices_per_run(job.config)
    return {"CPU": count, "GPU": count} if job.config.get("device") == "cuda" else {"CPU": count}


def _path() -> list[str]:
    """Where this process finds modules, the working directory included."""
    return [os.path.abspath(place) for place in (*sys.path, "")]


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("Ray is not installed: pip install 'infoloss[ray]'") from error
    return ray


def _join(ray: Any, address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}; ray start --head starts one") from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray tries for minutes, and then ends the process."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
