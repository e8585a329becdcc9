"""The benchmarks run, on tiny problems, so that they cannot rot; what they measure here means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.studies import LOSSES, STUDIES
from benchmarks.studies_table import write_tables

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["kernels", "streaming"])
def test_rounds(name: str, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    out = tmp_path / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", "--rounds=1", "--processes=1"]
    done = subprocess.run([*command, f"--out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert len(done.stdout.splitlines()) == 2 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)


def test_training(tmp_path: Path) -> None:
    out = tmp_path / "training.json"
    command = [sys.executable, "-m", "benchmarks.training", "--small", "--processes=2", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = json.loads(out.read_text())["table"]
    assert [line["way"] for line in lines] == ["infoloss, float32", "infoloss, bfloat16", "PyTorch"]
    assert len(done.stdout.splitlines()) == 1 + len(lines)
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in lines)


def test_throughput(tmp_path: Path) -> None:
    out = tmp_path / "throughput.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--small", "--device=cpu", f"--out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["1", "2"]
    assert all(rate > 0 for rate in json.loads(out.read_text())["runs_an_hour"].values())


@pytest.mark.parametrize("blocks", [[], ["--blocks"]], ids=["peers", "blocks"])
def test_linear(tmp_path: Path, blocks: list[str]) -> None:
    pytest.importorskip("numba")
    out = tmp_path / "linear.json"
    command = [sys.executable, "-m", "benchmarks.linear", "--small", "--pairs=1", "--processes=1", *blocks]
    done = subprocess.run([*command, f"--out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(done.stdout.splitlines()) == 1 + len(found["time"]) + len(found["memory"])
    assert all(0 < line["lower"] <= line["median"] <= line["upper"] for line in found["time"])
    assert all(line["ratio"] > 0 for line in found["memory"])


def test_the_speed_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From records of every kind into both pages, and the same pages again from the same records."""
    from benchmarks import speed_table

    line = {"median": 0.5, "lower": 0.4, "upper": 12.0, "n": 3}
    kernels = {
        "conditions": {"threads": 2},
        "table": [
            {"shape": "4×3", "work": name, "against": "F.cross_entropy", **line}
            for name in ("min_ent", "brier")
        ],
        "same_work": {"min_ent": ["min_ent", "entropy"]},
        "first_call_s": {"compiled": [9.0, 8.0], "cached": [0.5, 0.4]},
    }
    memory = {"work": "a", "against": "b", "ratio": 0.1, "ours_mib": 1, "peer_mib": 10}
    linear = {"conditions": {}, "time": [{"work": "a", "against": "b", **line}], "memory": [memory]}
    measured = {"ours_ms": 1.0, "peer_ms": 2.0, "ours_bytes": 2**20, "peer_bytes": 2**22}
    on_gpu = {"work": "cross_entropy", "against": "Liger", **line, **measured}
    gpu = {
        "conditions": {"device": "G", "dtype": "bfloat16", "rows": 4, "classes": 3, "features": 2},
        "bandwidth": [{"work": "cross_entropy", **line, "bytes_per_second": 3e12}],
        "logits": [on_gpu],
        "hidden": [{**on_gpu, "work": "cross_entropy + z_loss"}],
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    for name, record in (("kernels", kernels), ("linear", linear), ("gpu", gpu)):
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(record))
    pages = [tmp_path / "README.md", tmp_path / "docs" / "kernels.md"]
    for page in pages:
        page.write_text(f"before\n{speed_table.BEGIN}\nold\n{speed_table.END}\nafter\n")
    monkeypatch.setattr(speed_table, "ROOT", tmp_path)
    for _ in range(2):
        speed_table.main()
        for page in pages:
            text = page.read_text()
            assert text.startswith("before\n")
            assert text.endswith("\nafter\n")
            assert "old" not in text
            assert (
                "| 4×3, 2 kinds of losses | F.cross_entropy | 0.50 to 0.50 (highest upper quartile 12,"
                in text
            )
            assert "| linear head, `a` | b | 0.10 of the memory (1 / 10 MiB) |" in text
            assert "| G, bfloat16, 4×3, cross_entropy | Liger | 0.50 [0.40, 12]; 1 / 4 MiB |" in text
    assert "`min_ent` also stands for `entropy`" in pages[1].read_text()
    assert "| cross_entropy | 0.50 [0.40, 12] | 3000 | 3 |" in pages[1].read_text()
    assert (
        "| hidden | cross_entropy + z_loss | Liger | 0.50 [0.40, 12] | 1.00 / 2.00 |" in pages[1].read_text()
    )


def test_thresholds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line, on a small problem."""
    pytest.importorskip("numba")
    from benchmarks import thresholds

    small = thresholds.problem(20, 60)
    monkeypatch.setattr(thresholds, "problem", lambda rows, classes: small)
    monkeypatch.setattr(sys, "argv", ["thresholds", "--rounds=1"])
    threads = torch.get_num_threads()
    thresholds.main()
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(list(thresholds.lines()))
    assert all(float(line.split("[")[0].split()[-1]) >= 0 for line in printed)


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
        timeout=900,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("data: ")]
    assert [line.split(",")[0] for line in said] == ["data: two", "data: one", "data: banking77"]
    assert "training: 60 runs, 60 to do" in done.stdout
    assert "training: 120 runs, 120 to do" in done.stdout


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
