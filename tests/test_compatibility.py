"""An older PyTorch is refused in one line, and the range is the one that is installed by."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import torch

from infoloss.compatibility import OLDEST_TORCH

SCRIPT = """
import sys, torch
for torch.__version__ in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "infoloss"]:
        del sys.modules[name]
    import infoloss.cli
"""


def imported_with(*versions: str) -> subprocess.CompletedProcess[str]:
    """In a fresh process, anew with each version."""
    command = [sys.executable, "-c", SCRIPT, *versions]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_older_torch_is_one_clear_error() -> None:
    done = imported_with("2.12.1+cu130")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: infoloss needs torch 2.13 or newer, found 2.12.1+cu130: pip install 'torch>=2.13'"
    )


def test_newer_ones_are_not_refused() -> None:
    done = imported_with("2.13.0a0+git1a2b3c", "2.100.1", "3.0.0")
    assert done.returncode == 0, done.stderr


def test_the_range_is_the_one_of_the_package_and_of_this_run() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    asked = next(each for each in project["project"]["dependencies"] if each.startswith("torch"))
    lower = re.search(r">=(\d+)\.(\d+)", asked)
    assert lower is not None
    assert (int(lower[1]), int(lower[2])) == OLDEST_TORCH
    assert tuple(int(number) for number in torch.__version__.split(".")[:2]) >= OLDEST_TORCH
