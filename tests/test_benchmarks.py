"""The benchmarks run, on tiny problems, so that they cannot rot; what they measure here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_kernels(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    out = tmp_path / "kernels.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.kernels",
        "--small",
        "--pairs=1",
        "--processes=1",
        f"--out={out}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert len(done.stdout.splitlines()) == 1 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)
