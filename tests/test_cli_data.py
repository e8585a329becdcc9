"""``infoloss data``: the list of known sets, and what is said of one, of a folder, of a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infoloss.cli import main
from infoloss.data import KNOWN


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOLOSS_DATA", str(tmp_path / "data"))


def test_the_list_names_source_terms_and_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data/MNIST/raw"
    folder.mkdir(parents=True)
    for which in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{which}-{kind}-ubyte").write_bytes(b"")
    assert main(["data"]) == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line}
    assert set(KNOWN) <= set(lines)
    assert "MNIST, LeCun, Cortes & Burges 1998 (commonly given as CC BY-SA 3.0)" in lines["mnist"]
    assert lines["mnist"].endswith(" MNIST/raw")
    assert lines["cifar10"].endswith("is downloaded when asked for")
    assert lines["digits"].endswith("comes with scikit-learn")


def test_one_is_described_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "wine", "--imbalance", "4", "--split", "0.5/0.25/0.25"]) == 0
    out = capsys.readouterr().out
    assert "178; with seed 0 " in out
    assert "3: class_0 (59), class_1 (71), class_2 (48)" in out
    assert "- imbalance 4 (long tail)" in out


def test_a_folder_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = np.random.default_rng(0).normal(size=20)
    for name in ("one", "two"):
        lines = [f"{number},{label}" for number, label in zip(numbers, "ab" * 10, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,kind", *lines]))
    assert main(["data", str(tmp_path), "--target", "kind"]) == 0
    out = capsys.readouterr().out
    assert "2 tables" in out
    assert main(["data", str(tmp_path)]) == 2
    assert "holds no table to learn from (one: no column 'target'" in capsys.readouterr().err


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnits"]) == 2
    assert "did you mean 'mnist'?" in capsys.readouterr().err
    assert main(["data", "digits", "--label-noise", "2"]) == 2
    assert "--label-noise: 2.0: should be less than 1" in capsys.readouterr().err
