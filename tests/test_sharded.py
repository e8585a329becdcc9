"""Classes spread over 2 and 4 processes against one: tests/sharded_ranks.py is what the processes do."""

from __future__ import annotations

import functools
import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest
from sharded_checks import SIZES
from sharded_ranks import CHECKS, run


@functools.cache
def results(ranks: int) -> list[dict[str, str]]:
    """The failures of every check, by rank; the processes are started once."""
    # one server imports torch, and the ranks are forked from it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infoloss", "sharded_ranks"])
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=run, args=(i, SIZES[ranks], folder)) for i in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(1500)
            process.kill()
        files = [Path(folder, f"{rank}.json") for rank in range(ranks)]
        missing = [rank for rank, file in enumerate(files) if not file.exists()]
        assert not missing, f"ranks {missing} ended early, exit codes {[p.exitcode for p in processes]}"
        return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize("ranks", sorted(SIZES))
@pytest.mark.parametrize("check", CHECKS)
def test_sharded(check: str, ranks: int) -> None:
    found = [result[check] for result in results(ranks)]
    assert found == [""] * ranks, "\n".join(found)
