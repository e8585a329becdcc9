"""Fewer rows, imbalance, wrong labels: on training rows alone, by the seed alone, part of the identity."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from infoloss.data import Dataset, altered, from_arrays, load
from infoloss.data.alterations import kept_rows

RNG = np.random.default_rng(0)
ROWS, CLASSES = 500, 5
X = RNG.normal(size=(ROWS, 3))
Y = RNG.permutation(np.arange(ROWS) % CLASSES)


@pytest.fixture(scope="module")
def even() -> Dataset:
    return from_arrays(X, Y)


def test_the_long_tail_is_the_formula():
    for factor in (2, 10, 100, 50):
        expected = [int(5000 * factor ** (-c / 9) + 1e-9) for c in range(10)]
        assert kept_rows(np.full(10, 5000), factor, "long_tail").tolist() == expected
        assert expected[0] == 5000
        assert expected[-1] == 5000 // factor
    assert kept_rows(np.array([500, 500, 500]), 10_000, "long_tail").tolist() == [500, 5, 1]


def test_steps():
    assert kept_rows(np.full(5, 100), 10, "step").tolist() == [100, 100, 100, 10, 10]
    assert kept_rows(np.array([100, 3, 100, 3]), 10, "step").tolist() == [100, 3, 10, 3]


@pytest.mark.parametrize("profile", ["long_tail", "step"])
def test_only_training_rows_are_left_out(even, profile):
    data = altered(even, imbalance=20, profile=profile)
    before, after = even.split(3), data.split(3)
    assert (after.test == before.test).all()
    assert (after.validation == before.validation).all()
    assert set(after.train) < set(before.train)
    assert (np.diff(after.train) > 0).all()
    found = np.bincount(Y[after.train], minlength=CLASSES)
    assert found.tolist() == kept_rows(np.full(CLASSES, 60), 20, profile).tolist()
    assert after.sha256 != before.sha256
    assert data.split(3).sha256 == after.sha256
    assert (data.labels(after) == Y).all()


def test_who_is_left_out_depends_on_the_seed_and_nothing_else(even):
    parts = ["train"] * 300 + ["validation"] * 100 + ["test"] * 100
    data = altered(from_arrays(X, Y, split=parts), imbalance=10)
    assert set(data.split(0).train) != set(data.split(1).train)
    again = altered(
        from_arrays(X * 2, Y, split=["train"] * 300 + ["val"] * 100 + ["test"] * 100), imbalance=10
    )
    assert (again.split(1).train == data.split(1).train).all()
    chosen = np.bincount(np.concatenate([data.split(seed).train for seed in range(300)]), minlength=ROWS)
    last = (Y == CLASSES - 1) & (np.arange(ROWS) < 300)
    # each of n rows is kept with probability k / n: binomial counts over the seeds
    rows = [data.split(seed).train for seed in range(2)]
    share = (Y[rows[0]] == CLASSES - 1).sum() / last.sum()
    spread = np.sqrt(300 * share * (1 - share))
    assert (abs(chosen[last] - 300 * share) < 5 * spread).all()


@pytest.mark.parametrize("rows", [5, 6, 77, 299, 300])
def test_so_many_training_rows_of_each_class_its_share(rows):
    sizes = np.array([300, 100, 60, 30, 10])  # of 500, 60 % of which train
    data = from_arrays(X, np.repeat(np.arange(CLASSES), sizes))
    few = altered(data, train_rows=rows)
    before, after = data.split(4), few.split(4)
    assert len(after.train) == rows
    assert set(after.train) <= set(before.train)
    assert (np.diff(after.train) > 0).all()
    assert (after.test == before.test).all()
    assert (after.validation == before.validation).all()
    found = np.bincount(data.target[after.train], minlength=CLASSES)
    assert found.min() >= 1
    # Of no class is one row more in than its share allows, while another still lacks its own.
    kept = np.bincount(data.target[before.train], minlength=CLASSES)
    assert ((found - 1) / kept).max() <= (found / kept).min()
    assert few.split(4).sha256 == after.sha256
    if rows < 200:
        assert set(few.split(5).train) != set(after.train)


def test_every_training_row_stays_as_often_as_the_others(even):
    parts = ["train"] * 300 + ["validation"] * 100 + ["test"] * 100
    data = altered(from_arrays(X, Y, split=parts), train_rows=90)
    chosen = np.bincount(np.concatenate([data.split(seed).train for seed in range(300)]), minlength=ROWS)
    spread = np.sqrt(300 * 0.3 * 0.7)
    assert (abs(chosen[:300] - 300 * 0.3) < 5 * spread).all()
    assert not chosen[300:].any()


def test_fewer_rows_come_before_imbalance_and_wrong_labels(even):
    data = altered(even, train_rows=100, imbalance=10, label_noise=0.5)
    split = data.split(0)
    assert set(split.train) < set(altered(even, train_rows=100).split(0).train)
    found = np.bincount(Y[split.train], minlength=CLASSES)
    assert found.tolist() == kept_rows(np.full(CLASSES, 20), 10, "long_tail").tolist()
    assert (data.labels(split) != Y).sum() == round(0.5 * len(split.train))
    assert "of the training rows of a split, 100 are learnt from, drawn by its seed" in data.notes


def test_labels_are_replaced_by_other_classes_alike(even):
    data = altered(even, label_noise=0.3)
    split = data.split(2)
    labels = data.labels(split)
    wrong = labels != Y
    assert set(np.flatnonzero(wrong)) <= set(split.train)
    assert wrong.sum() == round(0.3 * len(split.train))
    assert (data.arrays(split).target == labels).all()
    assert (data.target == Y).all()
    assert split.sha256 == even.split(2).sha256
    many = [data.labels(data.split(seed)) for seed in range(40)]
    table = np.zeros((CLASSES, CLASSES))
    for each in many:
        np.add.at(table, (Y[each != Y], each[each != Y]), 1)
    assert (np.diag(table) == 0).all()
    others = table[~np.eye(CLASSES, dtype=bool)]
    assert (abs(others - others.mean()) < 5 * np.sqrt(others.mean())).all()
    assert (data.labels(data.split(3)) != labels).any()


def test_wrong_labels_after_imbalance(even):
    data = altered(even, imbalance=10, label_noise=0.5)
    split = data.split(0)
    wrong = np.flatnonzero(data.labels(split) != Y)
    assert set(wrong) <= set(split.train)
    assert len(wrong) == round(0.5 * len(split.train))


def test_given_labels(even, tmp_path):
    given = (Y + 1) % CLASSES
    data = altered(even, noisy_labels=given)
    split = data.split(0)
    labels = data.labels(split)
    assert (labels[split.train] == given[split.train]).all()
    kept = np.setdiff1d(np.arange(ROWS), split.train)
    assert (labels[kept] == Y[kept]).all()
    np.savez(tmp_path / "human.npz", worse=given, other=Y)
    again = altered(even, noisy_labels=f"{tmp_path}/human.npz:worse")
    assert (again.labels(split) == labels).all()
    assert "training labels from human.npz:worse (1 of them differ)" in again.notes
    np.savez(tmp_path / "one.npz", worse=given)
    assert (altered(even, noisy_labels=tmp_path / "one.npz").labels(split) == labels).all()


def test_given_labels_for_all_but_the_test_rows():
    rows = np.arange(ROWS) % 5 == 2
    data = from_arrays(X, np.array(list("edcba"))[Y], split=np.where(rows, "test", "train"))
    names = np.array(list("abcde"))[Y]
    found = altered(data, noisy_labels=names[~rows])
    split = found.split(0)
    labels = found.labels(split)
    assert (np.array(found.classes)[labels[split.train]] == names[split.train]).all()
    assert (labels[split.test] == data.target[split.test]).all()
    assert altered(data, noisy_labels=(4 - Y)[~rows]).sha256 != found.sha256  # other name, other labels
    positions = altered(data, noisy_labels=np.searchsorted(list("abcde"), names)[~rows])
    assert (positions.labels(split) == labels).all()


def test_the_identity_knows_it(even):
    found = {
        altered(even, **options).sha256
        for options in (
            {},
            {"imbalance": 10},
            {"imbalance": 10, "profile": "step"},
            {"imbalance": 20},
            {"label_noise": 0.1},
            {"noisy_labels": Y},
            {"noisy_labels": 4 - Y},
            {"train_rows": 100},
            {"train_rows": 99},
        )
    }
    assert len(found) == 9
    assert altered(even, imbalance=1, label_noise=0).sha256 == even.sha256


WRONG = {
    "no row": ({"train_rows": 0}, r"train_rows=0; expected 1 or more"),
    "too many rows": ({"train_rows": 301}, r"train_rows=301; a split has 300 training rows"),
    "factor": ({"imbalance": 0.5}, r"imbalance=0\.5; expected a number of 1 or more"),
    "profile": (
        {"imbalance": 2, "profile": "steps"},
        r"no profile of imbalance 'steps'; did you mean 'step'\?",
    ),
    "noise": ({"label_noise": 1.0}, r"label_noise=1\.0; expected a share"),
    "both": ({"label_noise": 0.1, "noisy_labels": Y}, "both say which labels are wrong; give one"),
    "length": ({"noisy_labels": Y[:7]}, r"an array has 7 labels; expected 500"),
    "class": (
        {"noisy_labels": Y + 1},
        r"an array holds the label '5'; the classes are '0', '1', '2', '3', '4'",
    ),
    "numbers": ({"noisy_labels": Y * 1.0}, r"expected \(N,\) whole numbers or text"),
    "file": ({"noisy_labels": "none.npz:a"}, r"none\.npz: no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_is_wrong(even, case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        altered(even, **options)


def test_which_array_of_an_archive(even, tmp_path):
    np.savez(tmp_path / "two.npz", worse=Y, other=Y)
    with pytest.raises(ValueError, match=r"two\.npz holds worse, other; name one of them"):
        altered(even, noisy_labels=tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"no array in .*two\.npz 'worst'; did you mean 'worse'\?"):
        altered(even, noisy_labels=f"{tmp_path}/two.npz:worst")


@pytest.mark.data
def test_human_labels_of_cifar10():
    folder = Path(os.environ.get("INFOLOSS_DATA", "nowhere")) / "cifar-10-batches-bin"
    path = folder / "cifar10n_human_labels.npz"
    if not path.is_file():
        pytest.skip("INFOLOSS_DATA holds no cifar10n_human_labels.npz")
    clean = load("cifar10")
    for name, published in {"aggre_label": 9.03, "worse_label": 40.21, "random_label1": 17.23}.items():
        data = altered(clean, noisy_labels=f"{path}:{name}")
        split = data.split(0)
        wrong = (data.labels(split) != data.target)[split.train].mean()
        assert abs(100 * wrong - published) < 0.5
