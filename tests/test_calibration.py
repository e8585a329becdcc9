"""Calibration against loops, closed forms, Monte Carlo by another road, and SciPy's minimiser."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import log_softmax

from infoloss.evaluation import (
    expected_calibration_error,
    fit_temperature,
    noise_floor,
    reliability,
    scores,
    tempered,
)


def calibrated(rows, seed=0, sharpness=1.5):
    """Log-probabilities from which the labels are drawn: perfectly calibrated."""
    rng = np.random.default_rng(seed)
    log_p = log_softmax(rng.normal(size=(rows, 4)) * sharpness, axis=1)
    target = (rng.random((rows, 1)) > np.exp(log_p).cumsum(axis=1)).sum(axis=1)
    return log_p, np.minimum(target, 3)


def two_classes(confidence):
    p = np.asarray(confidence, float)
    with np.errstate(divide="ignore"):
        return np.log(np.column_stack([p, 1 - p]))


def looped_error(log_p, target, bins=15):
    """Guo et al., equation 3, with intervals ((m − 1)/M, m/M] spelt out."""
    error = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, row in enumerate(np.exp(log_p)) if (m - 1) / bins < row.max() <= m / bins]
        if inside:
            accuracy = np.mean([log_p[i].argmax() == target[i] for i in inside])
            confidence = np.mean([np.exp(log_p[i]).max() for i in inside])
            error += len(inside) / len(log_p) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_is_that_of_the_definition(bins):
    log_p, target = calibrated(500)
    sharp = tempered(log_p, 0.5)
    assert expected_calibration_error(sharp, target, bins) == pytest.approx(looped_error(sharp, target, bins))


def test_certain_predictions_lie_in_the_last_bin():
    found = reliability(two_classes([1.0, 1.0, 0.97]), [0, 1, 0])
    assert found.count.tolist() == [0] * 14 + [3]
    assert found.accuracy[14] == pytest.approx(2 / 3)
    assert found.error == pytest.approx(2.97 / 3 - 2 / 3)


def test_bin_edges_belong_below():
    # 0.6 = 9/15 in the ninth bin (index 8), anything above in the tenth.
    found = reliability(np.log([[0.5, 0.5], [0.5001, 0.4999]]), [0, 0], bins=2)
    assert found.count.tolist() == [1, 1]


def test_all_right_and_certain_is_no_error():
    assert expected_calibration_error(two_classes(np.ones(10)), np.zeros(10, int)) == 0
    assert noise_floor(two_classes(np.ones(10))) == 0


def test_noise_floor_closed_form_for_equal_confidences():
    # One bin: the error is |k/n − c|, k binomial; its mean absolute deviation by the probabilities of k.
    n, c = 40, 0.7
    k = np.arange(n + 1)
    expected = np.abs(k / n - c) @ stats.binom.pmf(k, n, c)
    deviation = math.sqrt((k / n - c) ** 2 @ stats.binom.pmf(k, n, c))
    found = noise_floor(two_classes(np.full(n, c)), simulations=4000)
    assert abs(found - expected) < 4 * deviation / math.sqrt(4000)


def test_noise_floor_is_what_calibrated_models_show():
    errors = [expected_calibration_error(*calibrated(400, seed)) for seed in range(60)]
    floors = [noise_floor(calibrated(400, seed)[0]) for seed in range(60)]
    standard_error = np.std(errors) / math.sqrt(60)
    assert abs(np.mean(errors) - np.mean(floors)) < 4 * standard_error
    assert noise_floor(calibrated(400)[0]) == noise_floor(calibrated(400)[0])


def test_noise_floor_shrinks_with_the_root_of_the_rows():
    few, many = noise_floor(calibrated(500)[0]), noise_floor(calibrated(50_000)[0])
    assert few / many == pytest.approx(10, rel=0.2)


def test_tempering():
    log_p, _ = calibrated(20)
    np.testing.assert_allclose(np.exp(tempered(log_p, 1.0)), np.exp(log_p))
    p = np.exp(log_p) ** (1 / 0.3)
    np.testing.assert_allclose(np.exp(tempered(log_p, 0.3)), p / p.sum(axis=1, keepdims=True))


def objective(log_p, target):
    """Mean loss with one uniform pseudo-row, written as label smoothing."""
    n, C = log_p.shape
    wanted = np.full((n, C), 1 / (n + 1) / C)
    wanted[np.arange(n), target] += n / (n + 1)
    return lambda log_t: -(wanted * log_softmax(log_p / math.exp(log_t), axis=1)).sum(axis=1).mean()


@pytest.mark.parametrize("scale", [0.05, 0.4, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("rows", [12, 400])
def test_temperature_is_where_scipy_finds_it(scale, rows):
    log_p, target = calibrated(rows)
    log_p = tempered(log_p, scale)
    value = objective(log_p, target)
    best = optimize.minimize_scalar(value, bracket=(-1.0, 1.0), tol=1e-12)
    assert fit_temperature(log_p, target) == pytest.approx(math.exp(best.x), rel=1e-6)


def test_temperature_undoes_a_temperature():
    log_p, target = calibrated(20_000)
    for applied in (0.25, 1.0, 4.0):
        # Standard error of the estimate at 20,000 rows is under 1 %.
        assert fit_temperature(tempered(log_p, applied), target) == pytest.approx(1 / applied, rel=0.04)


def test_temperature_closed_form_for_two_classes():
    # All rows say p; a share a is right. β log(p/(1−p)) = log(a'/(1−a')), a' = (n a + ½)/(n + 1).
    p, n, right = 0.95, 200, 150
    target = np.r_[np.zeros(right, int), np.ones(n - right, int)]
    share = (right + 0.5) / (n + 1)
    beta = math.log(share / (1 - share)) / math.log(p / (1 - p))
    assert fit_temperature(two_classes(np.full(n, p)), target) == pytest.approx(1 / beta, rel=1e-9)


def test_few_validation_rows_without_an_error_do_not_ask_for_certainty():
    # Plainly, T → 0 is optimal here; then one wrong test row would cost log_odds / T.
    log_p = two_classes(np.full(30, 0.99))
    assert fit_temperature(log_p, np.zeros(30, int)) == pytest.approx(math.log(99) / math.log(30.5 / 0.5))


def test_bounds_and_flat_rows():
    assert fit_temperature(np.full((9, 3), -math.log(3)), [0, 1, 2] * 3) == 1.0
    assert fit_temperature(two_classes(np.full(50, 0.9)), np.ones(50, int)) == pytest.approx(
        100.0
    )  # worse than chance
    assert fit_temperature(two_classes(np.full(500, 0.501)), np.zeros(500, int)) == pytest.approx(0.01)


def test_masked_classes_and_impossible_labels():
    log_p, target = calibrated(300)
    masked = np.column_stack([log_p, np.full(300, -np.inf)])
    assert fit_temperature(masked, target) == pytest.approx(fit_temperature(log_p, target), rel=1e-9)
    impossible = np.vstack([masked, masked[:2]])
    labels = np.r_[target, 4, 4]
    assert fit_temperature(impossible, labels) == pytest.approx(fit_temperature(log_p, target), rel=1e-9)
    assert fit_temperature(masked[:2], [4, 4]) == 1.0


def test_saturated_predictions():
    # The smaller probability vanishes beside the larger one; its logarithm does not.
    z = np.zeros((100, 2))
    z[:, 0] = 150.0
    target = np.r_[np.zeros(90, int), np.ones(10, int)]
    share = 90.5 / 101
    expected = 150 / math.log(share / (1 - share))
    assert fit_temperature(log_softmax(z, axis=1), target) == pytest.approx(expected, rel=1e-9)
    assert scores(log_softmax(z, axis=1), target, np.zeros(100, int))["nll"] == pytest.approx(15.0)
