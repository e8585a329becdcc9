"""A model over three processes against one: tests/parallel_ranks.py is what the processes do."""

from __future__ import annotations

import functools
import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from parallel_ranks import CHECKS, RANKS, run


@functools.cache
def results() -> list[dict[str, str]]:
    """The failures of every check, by process; they are started once."""
    # one server imports torch, and the processes are forked from it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infoloss", "parallel_ranks"])
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=run, args=(rank, folder)) for rank in range(RANKS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(1500)
            process.kill()
        files = [Path(folder, f"{rank}.json") for rank in range(RANKS)]
        missing = [rank for rank, file in enumerate(files) if not file.exists()]
        assert not missing, f"processes {missing} ended early, exit codes {[p.exitcode for p in processes]}"
        return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("check", CHECKS)
def test_parallel(check: str) -> None:
    found = [result[check] for result in results()]
    assert found == [""] * RANKS, "\n".join(found)
