"""A run over several processes of this machine, each with a device of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist

from infoloss.study.process import WorkerDied, WorkerProcess, environment, gpus
from infoloss.study.runs import Arrays, Outcome, Told, failed

__all__ = ["joined", "performed_together"]

_SECONDS_FOR_THE_CAUSE = 2.0


def performed_together(
    config: Mapping[str, Any], arrays: Arrays, count: int, told: Told | None = None
) -> Outcome:
    """Starts so many processes, which do the run together; the outcome of the first.

    Where one of them fails or dies the others are ended, and the run has failed.
    """
    from safetensors.numpy import save

    visible = gpus() if config["device"] == "cuda" else []
    if visible and len(visible) < count:
        return failed(f"the run is to have {count} GPUs, and {len(visible)} are visible")
    sent = bytes(save(dict(arrays)))
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, ThreadPoolExecutor(count) as pool:
        workers = [WorkerProcess(environment(visible[index : index + 1])) for index in range(count)]

        def outcome(index: int) -> Outcome:
            rank = {"index": index, "count": count, "meeting": str(Path(folder, "meeting"))}
            return workers[index].outcome({**config, "rank": rank}, sent, told if index == 0 else None)

        try:
            return _of_all([pool.submit(outcome, index) for index in range(count)])
        finally:
            for worker in workers:
                worker.close()


def _of_all(outcomes: Sequence[Future[Outcome]]) -> Outcome:
    """The first one's once all are there, or a failure as soon as there is one."""
    for each in as_completed(outcomes):
        if each.exception() is None and each.result().fields["status"] != "failed":
            continue
        # Of a process that died the others may hear first, as of a broken connection.
        if any(isinstance(found, WorkerDied) for found in _exceptions(outcomes)):
            return failed(f"one of its {len(outcomes)} processes died: killed, or out of memory")
        return each.result()
    return outcomes[0].result()


def _exceptions(outcomes: Sequence[Future[Outcome]]) -> list[BaseException | None]:
    finished, _ = wait(outcomes, _SECONDS_FOR_THE_CAUSE)
    return [each.exception() for each in finished]


@contextmanager
def joined(rank: Mapping[str, Any], device: str) -> Iterator[None]:
    """The process group of a run, from within one of its processes."""
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=dist.FileStore(rank["meeting"], rank["count"]),  # type: ignore[attr-defined]
        rank=rank["index"],
        world_size=rank["count"],
    )
    yield
    # Not after an exception: the others may never come, and the parent ends this process.
    dist.destroy_process_group()
