"""What a model reads: imputed, encoded and standardised with numbers of the training rows alone."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from infoloss.data import from_arrays, load
from infoloss.data.columns import categorical, column, numbers
from infoloss.data.features import MAX_CATEGORIES, Features, from_columns, from_matrix


def mixed(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    number = rng.normal(3, 5, size=(rows, 2))
    number[rng.random((rows, 2)) < 0.2] = np.nan
    texts = rng.choice(["red", "green", "blue", None], rows, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    return number, texts


def test_encoding_is_that_of_a_scikit_learn_pipeline():
    number, texts = mixed()
    train = np.random.default_rng(1).permutation(200)[:120]
    found = from_columns(
        {"a": number[:, 0].copy(), "b": number[:, 1].copy(), "colour": categorical(texts)}
    ).encoded(train)

    table = np.column_stack([number.astype(object), [t or "missing" for t in texts]])
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    order = [["blue", "green", "red", "missing"]]
    text = OneHotEncoder(categories=order, handle_unknown="ignore", sparse_output=False)
    oracle = ColumnTransformer([("n", numeric, [0, 1]), ("t", text, [2])]).fit(table[train])
    np.testing.assert_allclose(found, oracle.transform(table).astype(float), rtol=1e-6, atol=1e-6)


def test_other_rows_change_nothing_for_training_rows():
    number, texts = mixed()
    train = np.arange(120)
    before = from_columns({"a": number[:, 0], "t": categorical(texts)}).encoded(train)
    changed = number[:, 0].copy()
    changed[120:] *= 1000
    after = from_columns({"a": changed, "t": categorical(texts[:120] + ["new"] * 80)}).encoded(train)
    assert (before[:120, 0] == after[:120, 0]).all()
    assert after[120:, 1:].sum() == 0  # a category that no training row has


def test_bare_matrix_is_standardised_like_scikit_learn():
    digits = load("digits")
    part = digits.split(0)
    from sklearn.datasets import load_digits

    X = load_digits().data
    X = X[:, (X[0] != X).any(axis=0)]
    expected = StandardScaler().fit(X[part.train]).transform(X)
    varied = X[part.train].std(axis=0) > 0
    found = digits.arrays(part).features
    np.testing.assert_allclose(found[:, varied], expected[:, varied], rtol=1e-5, atol=1e-6)
    assert (found[:, ~varied] == 0).all()


def test_wide_matrix_is_worked_in_blocks():
    X = np.random.default_rng(0).normal(2, 3, size=(30, 600))
    train = np.arange(20)
    expected = (X - X[train].mean(axis=0)) / X[train].std(axis=0)
    np.testing.assert_allclose(from_matrix(X).encoded(train), expected, rtol=1e-5, atol=1e-6)


def test_huge_and_tiny_numbers_stay_finite():
    z = np.random.default_rng(0).normal(size=50)
    found = from_matrix(np.column_stack([z * 1e300, z * 1e-300])).encoded(np.arange(50))
    expected = (z - z.mean()) / z.std()
    np.testing.assert_allclose(found, np.column_stack([expected, expected]), rtol=1e-5)


def test_number_missing_in_all_training_rows_gives_zero():
    X = np.column_stack([np.r_[np.full(10, np.nan), 1.0, 2.0], np.arange(12.0)])
    assert (from_matrix(X).encoded(np.arange(10))[:, 0] == 0).all()


def test_frequent_categories_keep_an_indicator_and_the_others_share_one():
    # Category k occurs 80 − k times: the first 50 are the most frequent.
    entries = [f"k{k:02d}" for k in range(80) for _ in range(80 - k)]
    features = from_columns({"c": categorical(entries)})
    found = features.encoded(np.arange(len(entries)))
    assert found.shape[1] == MAX_CATEGORIES + 1 == len(features.encoded_names)
    assert found.sum(axis=0).tolist() == [80 - k for k in range(50)] + [sum(80 - k for k in range(50, 80))]
    assert (found.sum(axis=1) == 1).all()


def test_frequent_means_frequent_in_the_training_rows():
    entries = [f"k{k:02d}" for k in range(60) for _ in range(2)] + ["k59"] * 5 + ["k00"] * 99
    found = from_columns({"c": categorical(entries)}).encoded(np.arange(125))
    # Ties go to the earlier name: k59 (7 rows) and k00 … k48 keep theirs, k00 is no more frequent than k48.
    assert found[:125].sum(axis=0).tolist() == [2] * 49 + [7, 20]
    shorter = from_columns({"c": categorical(entries)}).encoded(np.arange(2, 125))
    assert (shorter[:2, -1] == 1).all()  # k00 has no training row but counts as one of the others
    assert shorter[2:125].sum(axis=0).tolist() == [2] * 49 + [7, 18]


def test_width_and_names_do_not_depend_on_the_training_rows():
    number, texts = mixed()
    features = from_columns({"a": number[:, 0], "t": categorical(texts)})
    assert features.encoded_names == ("a", "t=blue", "t=green", "t=red", "t=missing")
    assert features.encoded(np.arange(3)).shape == features.encoded(np.arange(190)).shape == (200, 5)


def test_constant_and_identifying_columns():
    rng = np.random.default_rng(0)
    rows = 60
    features = from_columns(
        {
            "same": np.full(rows, 3.0),
            "empty": np.full(rows, np.nan),
            "one_and_gaps": np.where(rng.random(rows) < 0.5, 2.0, np.nan),
            "same_text": categorical(["x"] * rows),
            "text_or_missing": categorical(["x", None] * 30),
            "row": rng.permutation(rows) + 100.0,
            "patient_id": rng.permutation(rows) * 7.0,
            "PassengerId": rng.permutation(rows) * 3.0,
            "salary": rng.permutation(rows) * 50.0,
            "grid": rng.permutation(rows) * 2.0,
            "height": rng.normal(size=rows),
            "name": categorical([f"n{k}" for k in range(rows)]),
            "town": categorical([f"t{k % 10}" for k in range(rows)]),
        }
    )
    assert features.constant() == {"same", "empty", "one_and_gaps", "same_text"}
    assert features.identifiers() == {"row", "patient_id", "PassengerId", "name"}


def test_infinite_number_is_found_past_the_first_block():
    X = np.zeros((5, 300))
    X[3, 290] = -np.inf
    assert from_matrix(X).infinite() == (3, "x290")
    assert from_matrix(np.zeros((5, 300))).infinite() is None


def test_row_keys_agree_with_equality_of_rows():
    rng = np.random.default_rng(0)
    number = rng.integers(0, 3, size=(300, 3)).astype(float)
    number[number == 2] = np.nan
    number[number == 0] *= rng.choice([-1.0, 1.0], (number == 0).sum())  # 0.0 and −0.0 are equal
    texts = rng.choice(["u", "v"], 300).tolist()
    keys = Features(number, ("a", "b", "c"), (categorical(texts),), ("t",)).row_keys()
    rows = [
        (*(None if np.isnan(v) else v + 0.0 for v in row), t) for row, t in zip(number, texts, strict=True)
    ]
    equal = np.array([[a == b for b in rows] for a in rows])
    assert ((keys[:, None] == keys[None, :]) == equal).all()


def test_swapped_columns_are_another_row():
    keys = from_matrix(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])).row_keys()
    assert keys[0] == keys[2] != keys[1]


def test_duplicates_across_the_split_are_counted():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, size=(80, 2)).astype(float)
    y = rng.integers(0, 2, 80)
    data = from_arrays(X, y)
    part = data.split(0)
    seen = {tuple(row) for row in X[part.train]}
    both = {(*row, label) for row, label in zip(X[part.train].tolist(), y[part.train], strict=True)}
    repeated = [i for i in part.test if tuple(X[i]) in seen]
    other = [i for i in repeated if (*X[i].tolist(), y[i]) not in both]
    (said,) = data.split_notes(part)
    assert said.startswith(f"{len(repeated)} of 16 test rows")
    assert f"{len(other)} of them only with another label" in said


def test_sha256_sees_every_array_and_no_storage():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 9, (30, 2)), rng.integers(0, 2, 30)
    weight = rng.random(30)
    base = from_arrays(X, y).sha256
    assert base == from_arrays(X.astype(np.float32), y.astype(float)).sha256
    assert base == from_arrays(np.asfortranarray(X.astype(float)), y.tolist()).sha256
    changed = X.copy()
    changed[7, 1] += 1
    order = np.arange(30)
    variants = [
        from_arrays(changed, y),
        from_arrays(X, 1 - y),
        from_arrays(X, np.array(["no", "yes"])[y]),
        from_arrays(X, y, sample_weight=weight),
        from_arrays(X, y, groups=order // 2),
        from_arrays(X, y, order=order),
        from_arrays(X, y, split=["train"] * 20 + ["test"] * 10),
    ]
    assert len({base, *(variant.sha256 for variant in variants)}) == 8


def test_mostly_numbers_with_stray_text():
    entries = [str(k / 4) for k in range(98)] + ["unknown", "unknown", None]
    found = numbers(categorical(entries))
    assert found is not None
    np.testing.assert_array_equal(found[0], [k / 4 for k in range(98)] + [np.nan] * 3)
    assert found[1] == "unknown"
    assert numbers(categorical(entries + ["many"] * 10)) is None
    assert numbers(categorical(["1", "2", "3"] * 40 + ["3+"])) is None  # a scale, not a measurement


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([True, False]), [1.0, 0.0]),
        (np.array(["1970-01-02", "NaT"], "datetime64[D]"), [86400.0, np.nan]),
        (np.array([1, None, 2.5], object), [1.0, np.nan, 2.5]),
    ],
)
def test_columns_that_become_numbers(values, expected):
    np.testing.assert_array_equal(column(values, "a"), expected)
