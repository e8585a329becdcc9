"""Scores against scikit-learn and formulas by hand; contributions against the scores they add up to."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn import metrics

from infoloss.evaluation import METRICS, confusion, contributions, per_class_recall, scores


def predictions(rows=300, classes=4, seed=0, absent=()):
    """Informative but imperfect log-probabilities; decisions that sometimes differ from their argmax."""
    rng = np.random.default_rng(seed)
    present = np.setdiff1d(np.arange(classes), absent)
    target = rng.choice(present, rows)
    z = rng.normal(size=(rows, classes)) * 1.5
    z[np.arange(rows), target] += 1.0
    log_p = log_softmax(z, axis=1)
    decision = (z + np.linspace(0, 1, classes)).argmax(axis=1)
    return log_p, target, decision


@pytest.mark.parametrize("classes", [2, 4, 11])
def test_scores_are_scikit_learns(classes):
    log_p, target, decision = predictions(classes=classes)
    p = np.exp(log_p)
    found = scores(log_p, target, decision)
    one_hot = np.eye(classes)[target]
    area = metrics.roc_auc_score(target, p[:, 1]) if classes == 2 else metrics.roc_auc_score(
        target, p, multi_class="ovr", average="macro"
    )  # fmt: skip
    expected = {
        "accuracy": metrics.accuracy_score(target, decision),
        "balanced_accuracy": metrics.balanced_accuracy_score(target, decision),
        "macro_f1": metrics.f1_score(target, decision, average="macro"),
        "roc_auc": area,
        "nll": metrics.log_loss(target, p, labels=range(classes)),
        "brier": ((p - one_hot) ** 2).sum(axis=1).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_binary_brier_is_twice_that_of_one_class():
    log_p, target, decision = predictions(classes=2)
    half = metrics.brier_score_loss(target, np.exp(log_p[:, 1]))
    assert scores(log_p, target, decision)["brier"] == pytest.approx(2 * half, rel=1e-12)


def test_confusion_and_recall_are_scikit_learns():
    _, target, decision = predictions()
    expected = metrics.confusion_matrix(target, decision)
    np.testing.assert_array_equal(confusion(target, decision, 4), expected)
    np.testing.assert_allclose(
        per_class_recall(target, decision, ("a", "b", "c", "d")),
        metrics.recall_score(target, decision, average=None),
    )


def test_ties_of_the_ranking_count_half():
    # Class 1 has p ∈ {.5, .9}, class 0 has p ∈ {.5, .2}: pairs .5>.2, .5=.5, .9>.2, .9>.5 → 3.5 / 4.
    p = np.array([0.5, 0.9, 0.5, 0.2])
    log_p = np.log(np.column_stack([1 - p, p]))
    found = scores(log_p, [1, 1, 0, 0], [1, 1, 0, 0])["roc_auc"]
    assert found == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_class_without_test_rows_leaves_the_others_scores(classes):
    log_p, target, decision = predictions(classes=classes, absent=(0,))
    found = scores(log_p, target, decision, validation=(log_p, target))
    assert np.isfinite(list(found.values())).all()
    recalls = [(decision[target == c] == c).mean() for c in range(1, classes)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    areas = (
        [metrics.roc_auc_score(target == c, log_p[:, c]) for c in range(1, classes)] if classes > 2 else [0.5]
    )
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    labels = np.union1d(target, decision)
    assert found["macro_f1"] == pytest.approx(
        metrics.f1_score(target, decision, average="macro", labels=labels, zero_division=0)
    )
    assert per_class_recall(target, decision, classes)[0] == 0


def test_single_row():
    found = scores(np.log([[0.25, 0.75]]), [1], [1], validation=(np.log([[0.25, 0.75]]), [1]))
    assert found["nll"] == pytest.approx(np.log(4 / 3))
    assert found["brier"] == pytest.approx(2 / 16)
    assert np.isfinite(list(found.values())).all()


def test_label_of_probability_zero_costs_infinitely():
    log_p = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    found = scores(log_p, [0, 1], [0, 0], validation=(log_p, np.array([0, 1])))
    assert found["nll"] == found["nll_scaled"] == np.inf
    assert found["brier"] == 1.0  # (0 + 2) / 2
    assert not np.isnan(list(found.values())).any()


def test_scaled_scores_are_scores_of_the_tempered_predictions():
    log_p, target, decision = predictions()
    held, held_target, _ = predictions(seed=1)
    found = scores(log_p, target, decision, validation=(held, held_target))
    assert tuple(found) == METRICS
    tempered = log_softmax(log_p / found["temperature"], axis=1)
    again = scores(tempered, target, decision)
    for name in ("nll", "brier", "ece"):
        assert found[f"{name}_scaled"] == pytest.approx(again[name], rel=1e-12)
    assert "temperature" not in again


@pytest.mark.parametrize("absent", [(), (2,)])
def test_contributions_average_to_their_score(absent):
    log_p, target, decision = predictions(absent=absent)
    held = predictions(seed=1)[:2]
    found = scores(log_p, target, decision, validation=held)
    for metric in ("accuracy", "balanced_accuracy", "nll", "nll_scaled", "brier", "brier_scaled"):
        each = contributions(log_p, target, decision, metric, validation=held)
        assert each.shape == (300,)
        assert each.mean() == pytest.approx(found[metric], rel=1e-12), metric


def test_contribution_reads_its_own_row_only():
    log_p, target, decision = predictions()
    changed = log_p.copy()
    changed[3] = log_softmax(np.arange(4.0))
    for metric in ("nll", "brier"):
        before = contributions(log_p, target, decision, metric)
        after = contributions(changed, target, decision, metric)
        assert np.flatnonzero(before != after).tolist() == [3]


def test_tensors_are_arrays():
    log_p, target, decision = predictions()
    tensors = torch.tensor(log_p, requires_grad=True), torch.tensor(target), torch.tensor(decision)
    assert scores(*tensors) == scores(log_p, target, decision)


LOG_P, TARGET, DECISION = predictions(rows=5)
NAN = LOG_P.copy()
NAN[2, 1] = np.nan
ERRORS = {
    "logits": ((LOG_P + 1, TARGET, DECISION), r"row 0 .* sum to 2.718; expected 1 \(pass log_softmax"),
    "nan": ((NAN, TARGET, DECISION), r"log_probabilities is nan in row 2"),
    "shape": ((LOG_P[:, 0], TARGET, DECISION), r"shape \(5,\); expected \(rows, classes ≥ 2\)"),
    "no rows": ((LOG_P[:0], TARGET[:0], DECISION[:0]), r"rows ≥ 1"),
    "length": ((LOG_P, TARGET[:4], DECISION), r"target has shape \(4,\); expected \(5,\)"),
    "range": ((LOG_P, [0, 1, 4, 0, 0], DECISION), r"target is 4 in row 2; expected a class in 0 … 3"),
    "decision": ((LOG_P, TARGET, [0, 1, -1, 0, 0]), r"decision is -1 in row 2"),
    "fraction": ((LOG_P, TARGET, [0, 1, 0.5, 0, 0]), r"decision is 0.5 in row 2"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    arguments, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        scores(*arguments)


def test_metric_without_contributions():
    with pytest.raises(ValueError, match=r"metric='acuracy' is no mean over rows; did you mean 'accuracy'\?"):
        contributions(LOG_P, TARGET, DECISION, "acuracy")
    with pytest.raises(ValueError, match=r"metric='nll_scaled' needs validation"):
        contributions(LOG_P, TARGET, DECISION, "nll_scaled")
