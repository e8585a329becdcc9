"""The benchmarks run, on tiny problems, so that they cannot rot; what they measure here means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studies import LOSSES, STUDIES
from benchmarks.studies_table import write_tables

ROOT = Path(__file__).parent.parent


def test_kernels(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    out = tmp_path / "kernels.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.kernels",
        "--small",
        "--rounds=1",
        "--processes=1",
        f"--out={out}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert len(done.stdout.splitlines()) == 2 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)


def test_training(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    command = [sys.executable, "-m", "benchmarks.training", "--small", "--processes=2", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert [line["way"] for line in lines] == ["infoloss, float32", "infoloss, bfloat16", "PyTorch"]
    assert len(done.stdout.splitlines()) == 2 + len(lines)
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


def test_studies(tmp_path: Path) -> None:
    """The plans of the committed studies fit their data, here tiny ones in the same places."""
    rows = [f"{row % 7}\t{row % 3}" for row in range(30)]
    texts = [f"where is my card {row},class {row % 3}" for row in range(30)]
    files = {
        "pmlb/one.tsv": ["x\ttarget", *rows],
        "pmlb/two.tsv": ["x\ttarget", *rows[:21]],
        "pmlb/contraceptive.tsv": ["x\ttarget", *rows],
        "text/banking77/train.csv": ["text,category", *texts],
        "text/banking77/test.csv": ["text,category", *texts[:9]],
    }
    for name, lines in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("\n".join(lines))
    command = [sys.executable, "-m", "benchmarks.studies", "tables", "banking77", "--dry-run"]
    environment = {**os.environ, "INFOLOSS_DATA": str(tmp_path)}
    done = subprocess.run(
        [*command, f"--folder={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert [line.split(",")[0] for line in said] == ["data: two", "data: one", "data: banking77"]
    assert "training: 30 runs, 30 to do" in done.stdout
    assert "training: 60 runs, 60 to do" in done.stdout


def test_the_study_of_images() -> None:
    plan = STUDIES["fashion"](Path("anywhere"))
    assert plan.data.train_rows == 10_000
    assert [loss.expression for loss in plan.losses] == list(LOSSES)


def test_the_tables_of_a_kept_study(tmp_path: Path) -> None:
    document = tmp_path / "studies.md"
    document.write_text("Before.\n<!-- banking77: begin -->\nold\n<!-- banking77: end -->\nAfter.\n")
    write_tables(document, ["banking77", "not kept"], ROOT / "results" / "studies")
    text = document.read_text()
    assert text.startswith("Before.\n<!-- banking77: begin -->\n\n")
    assert text.endswith("\n\n<!-- banking77: end -->\nAfter.\n")
    assert "old" not in text
    lines = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert lines == list(LOSSES)
