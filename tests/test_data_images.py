"""Rows that are arrays: their values, identity, and errors."""

from __future__ import annotations

import numpy as np
import pytest

from infoloss.data import from_arrays
from infoloss.data.images import channels_first

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (60, 3, 5, 4), dtype=np.uint8)
Y = np.arange(60) % 3


def test_values_are_kept_as_they_are():
    data = from_arrays(BYTES, Y)
    arrays = data.arrays(data.split(0))
    assert data.input_shape == (3, 5, 4)
    assert arrays.features is BYTES
    assert arrays.feature_names == ()
    floats = from_arrays(BYTES / 7.0, Y)
    found = floats.arrays(floats.split(0)).features
    assert found.dtype == np.float32
    assert (found == (BYTES / 7.0).astype(np.float32)).all()


def test_identity_knows_numbers_shape_and_order():
    data = from_arrays(BYTES, Y)
    assert from_arrays(np.asfortranarray(BYTES), Y).sha256 == data.sha256
    assert from_arrays(BYTES.reshape(60, 3, 4, 5), Y).sha256 != data.sha256
    other = BYTES.copy()
    other[59, 2, 4, 3] ^= 1
    assert from_arrays(other, Y).sha256 != data.sha256
    assert from_arrays(BYTES.astype(np.float64), Y).sha256 == from_arrays(BYTES.astype(np.int32), Y).sha256


def test_the_split_is_that_of_a_table_with_these_labels():
    assert from_arrays(BYTES, Y).split(4).sha256 == from_arrays(BYTES.reshape(60, -1), Y).split(4).sha256


def test_channels_are_found():
    last = np.moveaxis(BYTES, 1, -1)
    data = from_arrays(last, Y)
    assert data.sha256 == from_arrays(BYTES, Y).sha256
    assert "the last axis holds the channels; it is moved to the front" in data.notes
    assert channels_first(np.zeros((2, 3, 6, 3)))[0].shape == (2, 3, 6, 3)
    assert from_arrays(BYTES[:, 0], Y).input_shape == (1, 5, 4)
    assert from_arrays(BYTES[..., None], Y).input_shape == (3, 5, 4, 1)


def test_repeated_rows_are_counted_on_both_sides():
    data = from_arrays(np.concatenate([BYTES[:30], BYTES[:30]]), Y, split=["train"] * 30 + ["test"] * 30)
    assert data.split_notes(data.split(0)) != ()
    first = data.split(0)
    seen = sum(row - 30 in set(first.train.tolist()) for row in first.test.tolist())
    assert f"{seen} of 30 test rows" in data.split_notes(first)[0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_placed(wrong):
    values = BYTES.astype(float)
    values[4, 1, 0, 2] = wrong
    with pytest.raises(ValueError, match=r"X holds (nan|inf) at \(4, 1, 0, 2\); expected finite numbers"):
        from_arrays(values, Y)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="X holds nothing but 7"):
        from_arrays(np.full_like(BYTES, 7), Y)


def test_test_rows_need_the_same_shape():
    with pytest.raises(ValueError, match=r"a row of X has shape \(3, 5, 4\), of the test X \(3, 4, 5\)"):
        from_arrays(BYTES, Y, test=(BYTES.reshape(60, 3, 4, 5), Y))
