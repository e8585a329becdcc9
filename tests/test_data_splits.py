"""Splits: stratified, grouped, ordered, given; the same for the same seed everywhere."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoloss.data import from_arrays, load
from infoloss.data.splits import SplitRule, fractions, split


def parts(found):
    return found.train, found.validation, found.test


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_parts_cover_all_rows_once(digits):
    rows = np.concatenate(parts(digits.split(3)))
    assert sorted(rows) == list(range(1797))


def test_every_class_has_its_share_in_every_part(digits):
    for part, share in zip(parts(digits.split(0)), (0.6, 0.2, 0.2), strict=True):
        count = np.bincount(digits.target[part])
        ideal = np.bincount(digits.target) * share
        assert np.abs(count - ideal).max() <= 2  # rounding owed by one class is paid by the next
        assert abs(len(part) - 1797 * share) < 1.5


def test_sha256_is_of_lengths_and_indices(digits):
    found = digits.split(5)
    stated = hashlib.sha256()
    for part in parts(found):
        stated.update(len(part).to_bytes(8, "little") + b"".join(int(i).to_bytes(8, "little") for i in part))
    assert found.sha256 == stated.hexdigest()


def test_seed_alone_decides(digits):
    assert digits.split(1).sha256 == digits.split(1).sha256
    assert len({digits.split(seed).sha256 for seed in range(20)}) == 20


def test_split_and_data_hashes_do_not_depend_on_the_process():
    code = "from infoloss.data import load; d = load('wine'); print(d.sha256, d.split(7).sha256)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wine = load("wine")
    assert run.stdout.split() == [wine.sha256, wine.split(7).sha256]


def test_split_is_frozen_over_versions():
    # A store keeps runs by split: a change here makes every stored run unfindable, so it must be deliberate.
    found = split(SplitRule(), np.arange(12) % 2, seed=0)
    assert [part.tolist() for part in parts(found)] == [[0, 1, 3, 4, 7, 8, 10], [5, 6, 11], [2, 9]]


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=9),
    shares=st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.98, 0.01, 0.01), (1 / 3, 1 / 3, 1 / 3)]),
    seed=st.integers(0, 2**40),
)
def test_small_classes_reach_every_part(counts, shares, seed):
    target = np.repeat(np.arange(len(counts)), counts)
    found = split(SplitRule(shares), target, seed)
    tables = np.array([np.bincount(target[part], minlength=len(counts)) for part in parts(found)])
    assert tables.min() >= 1
    assert (tables.sum(axis=0) == counts).all()


def test_every_row_is_tested_at_its_share(digits):
    # 200 seeds: the times a row tests is binomial(200, 357/1797); 6 standard deviations bound all rows.
    times = np.zeros(1797)
    for seed in range(200):
        times[digits.split(seed).test] += 1
    share = len(digits.split(0).test) / 1797
    deviation = np.sqrt(200 * share * (1 - share))
    assert np.abs(times - 200 * share).max() < 6 * deviation
    assert 0.8 * deviation < times.std() < 1.2 * deviation


def grouped():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 12, 60))
    target = np.where(rng.random(len(groups)) < 0.8, groups % 3, rng.integers(0, 3, len(groups)))
    return rng.normal(size=(len(groups), 2)), target, groups


def test_no_group_lies_on_two_sides():
    X, y, groups = grouped()
    data = from_arrays(X, y, groups=groups)
    seen = set()
    for seed in range(10):
        sides = [set(groups[part]) for part in parts(data.split(seed))]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        seen.add(frozenset(sides[2]))
        for part, share in zip(parts(data.split(seed)), (0.6, 0.2, 0.2), strict=True):
            ideal = np.bincount(y) * share
            assert (
                np.abs(np.bincount(y[part]) - ideal).max() < 5.5
            )  # half of the largest group; random groups miss by 12
    assert len(seen) == 10


def test_group_with_given_test_rows():
    X, y, groups = grouped()
    sides = np.where(groups < 45, "train", "test")
    found = from_arrays(X, y, groups=groups, split=sides).split(0)
    assert set(found.test) == set(np.flatnonzero(groups >= 45))
    assert not set(groups[found.train]) & set(groups[found.validation])
    with pytest.raises(ValueError, match="group '0' has rows in several parts"):
        from_arrays(X, y, groups=groups, split=np.where(np.arange(len(y)) % 2, "train", "test"))


def test_class_in_too_few_groups():
    X, y, groups = grouped()
    y[groups < 2] = 3
    y[(groups >= 2) & (y == 3)] = 0
    with pytest.raises(ValueError, match="class '3' has 2 groups; the split needs 3 groups of every class"):
        from_arrays(X, y, groups=groups)


def test_order_puts_the_latest_rows_last():
    rng = np.random.default_rng(0)
    order = rng.integers(0, 30, 200)
    data = from_arrays(rng.normal(size=(200, 2)), rng.integers(0, 2, 200), order=order)
    found = data.split(0)
    assert order[found.train].max() < order[found.validation].min()
    assert order[found.validation].max() < order[found.test].min()
    largest = np.bincount(order).max()
    assert abs(len(found.test) - 40) <= largest / 2
    assert not data.resampled
    assert data.split(9).sha256 == found.sha256


def test_order_needs_three_times():
    with pytest.raises(ValueError, match="2 distinct values; three parts need at least 3"):
        from_arrays(np.eye(8), [0, 1] * 4, order=[0] * 4 + [1] * 4)


def test_class_only_in_late_rows_could_not_be_learnt():
    y = [0, 1] * 40 + [2] * 20
    with pytest.raises(ValueError, match="class '2' has 0 training rows; it could not be learnt"):
        from_arrays(np.random.default_rng(0).normal(size=(100, 2)), y, order=np.arange(100))


def test_class_without_test_rows_is_said():
    y = [2] * 10 + [0, 1] * 45
    data = from_arrays(np.random.default_rng(0).normal(size=(100, 2)), y, order=np.arange(100))
    said = data.split_notes(data.split(0))
    assert said == ("no validation row of class '2'", "no test row of class '2'")


def test_given_test_rows_stay_while_validation_is_drawn():
    X, y, _ = grouped()
    sides = np.where(np.arange(len(y)) < 250, "Train", "TEST")
    data = from_arrays(X, y, split=sides)
    first, second = data.split(0), data.split(1)
    assert not data.resampled
    assert set(first.test) == set(second.test) == set(range(250, len(y)))
    assert set(first.validation) != set(second.validation)
    assert abs(len(first.validation) - 250 / 4) < 2


def test_three_given_parts_are_taken_as_they_are():
    X, y, _ = grouped()
    sides = np.array(["train", "val", "test"])[np.arange(len(y)) % 3]
    found = from_arrays(X, y, split=sides).split(4)
    assert [list(part) for part in parts(found)] == [list(range(k, len(y), 3)) for k in range(3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.7/0.3", "has 2 fractions; expected 3"),
        ("0.7/0.5/0.2", "sum to 1"),
        ("1/0/0", "positive"),
        ("a/b/c", "like 0.6/0.2/0.2"),
    ],
)
def test_wrong_fractions(text, message):
    with pytest.raises(ValueError, match=message):
        fractions(text)


def test_class_with_too_few_rows():
    with pytest.raises(
        ValueError, match=r"class 'c' has 2 rows; the split needs 3 rows .*train, validation, test"
    ):
        from_arrays(np.random.default_rng(0).normal(size=(22, 2)), ["a", "b"] * 10 + ["c"] * 2)


@pytest.mark.parametrize("seed", [-1, 0.5, "1", True])
def test_wrong_seed(digits, seed):
    with pytest.raises(ValueError, match="whole number"):
        digits.split(seed)
