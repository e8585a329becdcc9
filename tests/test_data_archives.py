"""Archives of arrays: names of the arrays, given parts, what is not used, and errors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from infoloss.data import from_arrays, load

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.fixture
def archive(tmp_path):
    def write(name="data.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return write


@pytest.mark.parametrize("names", [("X", "y"), ("embeddings", "labels"), ("data", "TARGET"), ("x", "target")])
def test_inputs_and_labels(archive, names):
    data = load(archive(**dict(zip(names, (X, Y), strict=True))))
    assert data.sha256 == from_arrays(X, Y).sha256
    assert (data.name, data.source) == ("data", "data.npz")
    assert data.resampled


def test_beside_them(archive):
    groups, weight = np.arange(60) // 2, np.arange(60) % 5 + 1.0
    data = load(archive(X=X, y=Y, groups=groups, sample_weight=weight, extra=X))
    assert data.sha256 == from_arrays(X, Y, groups=groups, sample_weight=weight).sha256
    assert "arrays of data.npz that are not used: extra" in data.notes


PARTS = {"train": slice(0, 30), "val": slice(30, 45), "test": slice(45, 60)}
STYLES = {
    "{kind}_{part}": ("X", "y"),
    "{part}_{kind}": ("images", "labels"),
    "{part}.{kind}": ("x", "target"),
}


@pytest.mark.parametrize("style", STYLES)
def test_given_parts(archive, style):
    kinds = STYLES[style]
    arrays = {
        style.format(kind=kind, part=part): values[rows]
        for part, rows in PARTS.items()
        for kind, values in zip(kinds, (X, Y[:, None]), strict=True)
    }
    split = load(archive(**arrays)).split(5)
    assert split.train.tolist() == list(range(30))
    assert split.validation.tolist() == list(range(30, 45))
    assert split.test.tolist() == list(range(45, 60))


def test_without_test_rows_the_validation_rows_test(archive):
    data = load(archive(train_X=X[:40], train_y=Y[:40], val_X=X[40:], val_y=Y[40:]))
    split = data.split(0)
    assert split.test.tolist() == list(range(40, 60))
    assert len(split.validation) == 10
    assert data.notes[0].startswith("there are no test rows: the given validation rows test")


def test_images_and_text_labels(archive):
    images = RNG.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    data = load(archive(images=images, labels=np.array(["cat", "dog", "eel"])[Y]))
    assert data.input_shape == (3, 6, 6)
    assert data.classes == ("cat", "dog", "eel")


WRONG = {
    "no y": ({"X": X}, "holds X, but no y of its rows"),
    "no test y": ({"X_train": X, "y_train": Y, "X_test": X}, "but no y of test"),
    "lengths": ({"X": X, "y": Y[:5]}, "60 rows and 5 labels of its rows"),
    "twice": ({"X": X, "data": X, "y": Y}, "'X' and 'data' mean the same"),
    "both": ({"X": X, "y": Y, "X_test": X, "y_test": Y}, "expected X and y, or X_train"),
    "neither": ({"a": X}, "holds a; expected X and y"),
    "no train": (
        {"X_test": X, "y_test": Y, "X_val": X, "y_val": Y},
        "the parts are validation, test",
    ),
    "shapes": (
        {"X_train": X, "y_train": Y, "X_test": X[:, :2], "y_test": Y},
        r"a row has shape (4,) in train, (2,) in test; expected the same",
    ),
    "objects": ({"X": X, "y": np.array([1, None] * 30)}, "holds Python objects"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_is_wrong(archive, case):
    arrays, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        load(archive(**arrays))


def test_no_archive(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.npz is no archive of arrays"):
        load(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"b\.npz: no such file"):
        load(tmp_path / "b.npz")


def test_options_of_tables_are_refused(archive):
    with pytest.raises(ValueError, match=r"target='y': .*data.npz' is an archive of arrays; it takes split"):
        load(archive(X=X, y=Y), target="y")
    with pytest.raises(ValueError, match="says itself which rows train and test"):
        load(archive(X_train=X, y_train=Y, X_test=X, y_test=Y), split="0.6/0.2/0.2")
