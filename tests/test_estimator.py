"""The scikit-learn classifier: scikit-learn's own checks, the losses' own rules, and the imports it costs."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import infoloss as il


@pytest.mark.parametrize(
    "check",
    [check for _, check in estimator_checks_generator(il.LossClassifier(hidden=(32,)))],
    ids=lambda check: getattr(check, "func", check).__name__,
)
def test_scikit_learns_checks(check):
    check(il.LossClassifier(hidden=(32,)))


def uneven():
    X, y = make_blobs([300, 60, 30], centers=np.eye(3, 4) * 2, random_state=0)
    return X, np.array(["a", "b", "c"])[y]


def test_probabilities_and_decisions_are_those_of_the_loss():
    """Balanced softmax decides by argmax z, and its probabilities are softmax(z + ln prior)."""
    X, y = uneven()
    model = il.LossClassifier("balanced_softmax", epochs=20, random_state=0).fit(X, y)
    with torch.no_grad():
        z = model.model_(torch.from_numpy(X)).numpy()
    prior = np.array([300, 60, 30]) / 390
    e = prior * np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(X), e / e.sum(1, keepdims=True), rtol=1e-9)
    assert (model.predict(X) == np.array(["a", "b", "c"])[z.argmax(1)]).all()
    assert (model.predict(X) != model.classes_[model.predict_proba(X).argmax(1)]).any()
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)), rtol=1e-9)


def test_weights_count_in_the_prior():
    X, y = uneven()
    weight = np.where(y == "a", 0.2, 1.0)
    model = il.LossClassifier("balanced_softmax", epochs=1).fit(X, y, sample_weight=weight)
    with torch.no_grad():
        z = model.model_(torch.from_numpy(X)).numpy()
    shift = model.predict_log_proba(X) - z  # ln prior, and a number a row
    expected = np.log([0.2 * 300 / 60, 60 / 30])
    np.testing.assert_allclose(shift[:, :2] - shift[:, 1:], np.tile(expected, (len(X), 1)), atol=1e-9)


def test_it_is_searched_over_in_a_pipeline():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), il.LossClassifier(epochs=60, random_state=0))
    losses = ["cross_entropy", il.squentropy(), "cross_entropy + 0.1*entropy"]
    search = GridSearchCV(pipeline, {"lossclassifier__loss": losses}, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    assert search.best_params_["lossclassifier__loss"] in losses


def test_a_random_state_fixes_everything():
    X, y = load_iris(return_X_y=True)
    model = il.LossClassifier(epochs=3, random_state=4)
    first, again = model.fit(X, y).predict_proba(X), clone(model).fit(X, y).predict_proba(X)
    assert (first == again).all()
    assert (first != model.set_params(random_state=5).fit(X, y).predict_proba(X)).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_features_precision_is_the_models(dtype):
    X, y = load_iris(return_X_y=True)
    model = il.LossClassifier(epochs=2).fit(X.astype(dtype), y)
    assert model.predict_proba(X.astype(dtype)).dtype == dtype


def test_it_pickles_with_its_loss():
    X, y = load_iris(return_X_y=True)
    model = il.LossClassifier(il.min_ent(), epochs=2).fit(X, y)
    assert (pickle.loads(pickle.dumps(model)).predict_proba(X) == model.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("entropy", "regulariser alone; add it to a loss"),
        ("cross_entropy + beta*entropy", "no value for beta"),
        ("focl", "did you mean 'focal'"),
    ],
)
def test_losses_that_cannot_be_trained_are_named(loss, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        il.LossClassifier(loss).fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of 1 or more, got 0"),
        ({"batch_size": 0.5}, "batch_size must be a whole number"),
        ({"hidden": 64}, r"hidden must be widths of 1 or more, as in \(256,\), got 64"),
        ({"hidden": (8, 0)}, r"hidden must be widths of 1 or more.* got \(8, 0\)"),
        ({"learning_rate": 0.0}, "learning_rate must be a number > 0, got 0.0"),
    ],
)
def test_options_that_cannot_train_are_named(options, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        il.LossClassifier(**options).fit(X, y)


def test_a_single_class_is_named():
    with pytest.raises(ValueError, match=r"got 1 class: 1\.0$"):
        il.LossClassifier().fit(np.ones((4, 2)), np.ones(4))


def test_a_divergence_is_an_error():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"diverged at learning_rate=1e\+30"):
        il.LossClassifier("squentropy", learning_rate=1e30, hidden=(8, 8)).fit(X, y)


def test_the_package_loads_scikit_learn_only_when_asked():
    script = (
        "import sys, infoloss as il; assert 'sklearn' not in sys.modules; il.LossClassifier;"
        "assert 'sklearn' in sys.modules; assert 'pydantic' not in sys.modules;"
        "print(dir(il).count('LossClassifier'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
