"""What every rank of a process group does in tests/test_sharded.py."""

from __future__ import annotations

import json
import traceback
from datetime import timedelta
from pathlib import Path

import sharded_checks
import sharded_linear_checks
import torch
import torch.distributed as dist
from sharded_checks import Check, Here

CHECKS: dict[str, Check] = {**sharded_checks.CHECKS, **sharded_linear_checks.CHECKS}


def run(rank: int, sizes: list[int], folder: str) -> None:
    """Every check on this rank; what failed goes to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=len(sizes),
        timeout=timedelta(minutes=20),
    )
    here = Here(rank, sizes)
    results = dict.fromkeys(CHECKS, "not run: a check before it failed")  # the ranks may be out of step
    for name, check in CHECKS.items():
        try:
            check(here)
        except BaseException:  # pytest.fail is no Exception
            results[name] = traceback.format_exc()
            break
        results[name] = ""
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()
