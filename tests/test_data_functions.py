"""Data from a function of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from infoloss.data import from_arrays, load

MODULE = """
import numpy as np
import polars as pl
from infoloss.data import from_arrays

X = np.random.default_rng(0).normal(size=(60, 3))
y = np.arange(60) % 3

def pair():
    return X, y

def mapping():
    return {"X": X, "y": y, "groups": np.arange(60) // 2, "name": "mine"}

def frame():
    return pl.DataFrame({"a": X[:, 0], "class": y})

def dataset():
    return from_arrays(X, y, name="made")

def wrong():
    return [1, 2, 3]
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_for_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_data_for_tests", raising=False)


def test_what_a_function_may_return() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    pair = load("own_data_for_tests:pair")
    assert pair.sha256 == from_arrays(X, y).sha256
    assert (pair.name, pair.source) == ("pair", "own_data_for_tests:pair")
    mapping = load("own_data_for_tests:mapping")
    assert mapping.sha256 == from_arrays(X, y, groups=np.arange(60) // 2).sha256
    assert mapping.name == "mine"
    assert load("own_data_for_tests:frame").features.names == ("a",)
    assert load("own_data_for_tests:dataset").name == "made"


def test_mistakes() -> None:
    with pytest.raises(TypeError, match=r"own_data_for_tests:wrong returns list; expected \(X, y\), a frame"):
        load("own_data_for_tests:wrong")
    with pytest.raises(ValueError, match="has no 'par'; did you mean 'pair'"):
        load("own_data_for_tests:par")
    with pytest.raises(ValueError, match="is a function, which says everything itself; it takes no option"):
        load("own_data_for_tests:pair", target="y")
