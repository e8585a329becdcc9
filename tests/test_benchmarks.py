"""The benchmarks run, on tiny problems, so that they cannot rot; what they measure here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["kernels", "streaming"])
def test_pairs_of_shapes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    out = tmp_path / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", "--pairs=1", "--processes=1"]
    done = subprocess.run([*command, f"--out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert len(done.stdout.splitlines()) == 1 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)


def test_training(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    command = [sys.executable, "-m", "benchmarks.training", "--small", "--processes=2", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert [line["way"] for line in lines] == ["infoloss, float32", "infoloss, bfloat16", "PyTorch"]
    assert len(done.stdout.splitlines()) == 1 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)


@pytest.mark.parametrize("blocks", [[], ["--blocks"]], ids=["peers", "blocks"])
def test_linear(tmp_path: Path, blocks: list[str]) -> None:
    pytest.importorskip("numba")
    out = tmp_path / "linear.json"
    command = [sys.executable, "-m", "benchmarks.linear", "--small", "--pairs=1", "--processes=1", *blocks]
    done = subprocess.run([*command, f"--out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(done.stdout.splitlines()) == 1 + len(found["time"]) + len(found["memory"])
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in found["time"])
    assert all(line["ratio"] > 0 for line in found["memory"])
