"""A worker process, from the parent's end: jobs go in by its standard input, outcomes come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from infoloss.study.frames import read_frame, write_frame
from infoloss.study.runs import Outcome, Told

__all__ = ["WorkerDied", "WorkerProcess", "environment", "gpus"]

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from infoloss.study.worker import main; main()"
)


class WorkerDied(Exception):  # noqa: N818
    """The process ended before it answered."""


class WorkerProcess:
    """A fresh interpreter that does runs, and ends when its parent does.

    Args:
        environment: variables of the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # A process group of its own keeps the terminal's Ctrl-C away: the parent ends its workers itself.
        apart: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {"creationflags": 0x200}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **apart,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def outcome(self, config: Mapping[str, Any], arrays: bytes, told: Told | None = None) -> Outcome:
        """The outcome of a run; waits for it.

        Args:
            config: of a ``Job``.
            arrays: as safetensors; without a byte, those of the run before.
            told: how far the run is, while it is waited for.

        Raises:
            WorkerDied: the pipe broke.
        """
        try:
            return self._answer(json.dumps(config).encode(), arrays, told)
        except (EOFError, OSError) as error:
            raise WorkerDied from error

    def _answer(self, config: bytes, arrays: bytes, told: Told | None) -> Outcome:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        write_frame(to, config)
        write_frame(to, arrays)
        to.flush()
        while "epoch" in (fields := json.loads(read_frame(back))):
            if told is not None:
                told(fields["epoch"], fields["epochs"])
        return Outcome(fields, read_frame(back) or None)

    def close(self) -> int:
        """Ends the process and returns its exit code."""
        self._process.kill()
        with self._process:
            return self._process.wait()


def environment(visible: Sequence[str] = ()) -> dict[str, str]:
    """This process's variables for a worker of one thread that sees these GPUs; all, where none is given."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **one, **({"CUDA_VISIBLE_DEVICES": ",".join(visible)} if visible else {})}


def gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES has for them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named if named != [""] else [str(index) for index in range(torch.cuda.device_count())]
