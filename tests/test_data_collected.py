"""Folders of tables as the data sets of one study."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infoloss.data import collection, load


def table(rows: int, classes: int, *, target: str = "target") -> pl.DataFrame:
    numbers = np.random.default_rng(rows).normal(size=(rows, 2))
    return pl.DataFrame({target: np.arange(rows) % classes, "a": numbers[:, 0], "b": numbers[:, 1]})


@pytest.fixture
def folder(tmp_path):
    """Tables as PMLB has them, the target in whatever place, and some that cannot be used."""
    for name, frame in {
        "few": table(30, 2),
        "many_0.4H": table(300, 3),
        "wide": table(60, 5).select("a", "target", "b"),
        "other": table(30, 2, target="class"),
        "tiny": table(7, 3),
        "numbers": pl.DataFrame({"target": np.linspace(0, 1, 90), "a": np.linspace(0, 1, 90)}),
    }.items():
        text = frame.write_csv(separator="\t")
        (tmp_path / f"{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
    table(40, 2).write_parquet(tmp_path / "parquet.parquet")
    (tmp_path / "gap.csv").write_text("target,a\n" + "1,2\n,3\n" * 9)
    (tmp_path / "readme.md").write_text("words")
    return tmp_path


def test_members_and_what_is_left_out(folder):
    found = collection(folder)
    assert [(member.name, member.rows, member.classes) for member in found.members] == [
        ("few", 30, 2),
        ("many_0.4H", 300, 3),
        ("parquet", 40, 2),
        ("wide", 60, 5),
    ]
    assert dict(found.left_out) == {
        "gap": "9 rows without a label",
        "numbers": "class '0' has 1 row; a split needs 3",
        "other": "no column 'target'",
        "tiny": "class '1' has 2 rows; a split needs 3",
    }


def test_bounds(folder):
    found = collection(folder, max_rows=100, min_rows=35, min_classes=3)
    assert [member.name for member in found.members] == ["wide"]
    assert found.left_out["many_0.4H"] == "300 rows, more than 100"
    assert found.left_out["few"] == "30 rows, fewer than 35"
    assert found.left_out["parquet"] == "2 classes, fewer than 3"


def test_each_is_the_table_itself(folder):
    found = collection(folder)
    assert len(found) == 4
    for member, data in zip(found.members, found, strict=True):
        assert data.name == member.name
        assert data.sha256 == load(member.path, target="target").sha256 == found[member.name].sha256
        assert (len(data.target), len(data.classes)) == (member.rows, member.classes)
    assert found["wide"].features.names == ("a", "b")
    with pytest.raises(ValueError, match=r"no table 'wid'; did you mean 'wide'\?"):
        found["wid"]


def test_another_target(folder):
    assert [member.name for member in collection(folder, target="class").members] == ["other"]


def test_nothing_to_learn_from(folder):
    with pytest.raises(ValueError, match=r"holds no table to learn from \(few: no column 'y'; gap: "):
        collection(folder, target="y")
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        collection("nowhere")


@pytest.mark.data
def test_pmlb():
    path = Path(os.environ.get("INFOLOSS_DATA", "nowhere")) / "pmlb"
    if not path.is_dir():
        pytest.skip("INFOLOSS_DATA holds no pmlb")
    found = collection(path, max_rows=500)
    assert len(found) > 50
    for member, data in zip(found.members, found, strict=True):
        assert (len(data.target), len(data.classes)) == (member.rows, member.classes)
