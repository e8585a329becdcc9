"""Naive float64 references, written from the formulas of the papers with loops over classes.

Nothing here knows the package. One function per catalogue entry gives the value of ONE row: `z` are its
logits, `target` a label (int) or a vector of probabilities. Logits may be complex, so that `gradient`
differentiates by a complex step, which is exact to float64 (comparisons look at the real part).

`row` adds masks (a class whose logit is -inf is dropped before the formula sees it) and `reduction` adds the
semantics of the call: class weights, ignored rows, smoothing, sample weights, denominator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]
Loss = Callable[..., Any]


# Statistics of a row


def largest(z: Vector) -> Any:
    return max(z, key=lambda value: value.real)


def lse(z: Vector) -> Any:
    m = largest(z)
    return m + np.log(sum(np.exp(value - m) for value in z))


def log_softmax(z: Vector) -> list[Any]:
    m = largest(z)
    log_total = np.log(sum(np.exp(value - m) for value in z))
    return [(value - m) - log_total for value in z]


def softmax(z: Vector) -> list[Any]:
    return [np.exp(value) for value in log_softmax(z)]


def logit_sum(z: Vector) -> Any:
    return sum(z)


def logit_square_sum(z: Vector) -> Any:
    return sum(value * value for value in z)


def expected_logit(z: Vector) -> Any:
    return sum(q * value for q, value in zip(softmax(z), z, strict=True))


def collision(z: Vector) -> Any:
    return sum(q * q for q in softmax(z))


def max_logit(z: Vector) -> Any:
    return largest(z)


def target_logit(z: Vector, y: int) -> Any:
    return z[y]


def miss(z: Vector, y: int) -> Any:
    """1 − p as the sum of the other probabilities, which does not cancel."""
    return sum(q for j, q in enumerate(softmax(z)) if j != y)


# What a probability target means


def expected(loss: Loss) -> Loss:
    """A hard-label loss whose soft form is Σ_c t_c ℓ(z, c)."""

    @functools.wraps(loss)
    def value(z: Vector, target: Any, **parameters: Any) -> Any:
        if isinstance(target, int):
            return loss(z, target, **parameters)
        return sum(t * loss(z, c, **parameters) for c, t in enumerate(target) if t != 0)

    return value


def paper(loss: Loss) -> Loss:
    """A loss of two distributions; a label is its one-hot vector."""

    @functools.wraps(loss)
    def value(z: Vector, target: Any, **parameters: Any) -> Any:
        t = [float(c == target) for c in range(len(z))] if isinstance(target, int) else list(target)
        return loss(z, t, **parameters)

    return value


# Losses


@expected
def cross_entropy(z: Vector, y: int, *, label_smoothing: float = 0.0) -> Any:
    log_q = log_softmax(z)
    uniform = -sum(log_q) / len(z)
    return (1 - label_smoothing) * -log_q[y] + label_smoothing * uniform


@paper
def kl(z: Vector, t: list[float]) -> Any:
    return sum(t_j * (math.log(t_j) - log_q) for t_j, log_q in zip(t, log_softmax(z), strict=True) if t_j > 0)


@paper
def reverse_kl(z: Vector, t: list[float], *, floor: float = 1e-6) -> Any:
    return sum(
        np.exp(log_q) * (log_q - math.log(max(t_j, floor)))
        for t_j, log_q in zip(t, log_softmax(z), strict=True)
    )


@paper
def reverse_cross_entropy(z: Vector, t: list[float], *, floor: float = 1e-6) -> Any:
    return -sum(q * math.log(max(t_j, floor)) for t_j, q in zip(t, softmax(z), strict=True))


@expected
def min_ent(z: Vector, y: int, *, w1: float = 1.1933, w2: float = 0.1298) -> Any:
    return w1 * cross_entropy(z, y) + w2 * entropy(z)


def mix_ent(z: Vector, target: Any, *, w1: float = 0.2832, w2: float = 0.3740, floor: float = 1e-6) -> Any:
    return w1 * cross_entropy(z, target) + w2 * reverse_cross_entropy(z, target, floor=floor)


def symmetric_cross_entropy(
    z: Vector, target: Any, *, alpha: float = 0.1, beta: float = 1.0, floor: float = 1e-4
) -> Any:
    return alpha * cross_entropy(z, target) + beta * reverse_cross_entropy(z, target, floor=floor)


@expected
def squentropy(z: Vector, y: int, *, alpha: float = 1.0, centre: float = 0.0) -> Any:
    others = sum((z_j - centre) ** 2 for j, z_j in enumerate(z) if j != y)
    return cross_entropy(z, y) + alpha * others / (len(z) - 1)


def rescaling(classes: int) -> tuple[float, float]:
    """(k, M) of Hui and Belkin by the number of classes."""
    if classes <= 42:
        return 1.0, 1.0
    return (1.0, 15.0) if classes < 1000 else (15.0, 30.0)


@expected
def rescaled_square(z: Vector, y: int, *, k: float | None = None, M: float | None = None) -> Any:
    default_k, default_M = rescaling(len(z))
    k = default_k if k is None else k
    M = default_M if M is None else M
    return sum(k * (z_j - M) ** 2 if j == y else z_j**2 for j, z_j in enumerate(z)) / len(z)


@expected
def balanced_softmax(z: Vector, y: int, *, counts: Vector) -> Any:
    return cross_entropy(np.array([z_j + math.log(n) for z_j, n in zip(z, counts, strict=True)]), y)


@expected
def pc_softmax(z: Vector, y: int, *, prior: Vector) -> Any:
    m = largest(z)
    return (m + np.log(sum(prior_j * np.exp(z_j - m) for z_j, prior_j in zip(z, prior, strict=True)))) - z[y]


@expected
def logit_adjusted(z: Vector, y: int, *, prior: Vector, tau: float = 1.0) -> Any:
    return cross_entropy(np.array([z_j + tau * math.log(p) for z_j, p in zip(z, prior, strict=True)]), y)


def focal(z: Vector, y: int, *, gamma: float = 2.0) -> Any:
    return miss(z, y) ** gamma * -log_softmax(z)[y]


def focal_flsd(z: Vector, y: int) -> Any:
    gamma = 5 if softmax(z)[y].real < 0.2 else 3
    return miss(z, y) ** gamma * -log_softmax(z)[y]


@expected
def poly1(z: Vector, y: int, *, epsilon: float = 2.0) -> Any:
    return cross_entropy(z, y) + epsilon * miss(z, y)


def taylor(z: Vector, y: int, *, order: int = 2) -> Any:
    return sum(miss(z, y) ** k / k for k in range(1, order + 1))


def generalized_cross_entropy(z: Vector, y: int, *, q: float = 0.7) -> Any:
    return -np.expm1(q * log_softmax(z)[y]) / q


@expected
def mae(z: Vector, y: int) -> Any:
    return 2 * miss(z, y)


def jensen_shannon(z: Vector, y: int, *, weight: float = 0.5) -> Any:
    """π·KL(t‖m) + (1−π)·KL(q‖m) with m = π·t + (1−π)·q, scaled by −1/((1−π) ln(1−π))."""
    total = 0.0
    for j, q_j in enumerate(softmax(z)):
        t_j = float(j == y)
        m_j = weight * t_j + (1 - weight) * q_j
        total = total + (weight * t_j * np.log(t_j / m_j) if t_j > 0 else 0.0)
        total = total + (1 - weight) * q_j * np.log(q_j / m_j)
    return total / (-(1 - weight) * math.log(1 - weight))


@expected
def normalized_cross_entropy(z: Vector, y: int) -> Any:
    return cross_entropy(z, y) / sum(cross_entropy(z, c) for c in range(len(z)))


@paper
def brier(z: Vector, t: list[float]) -> Any:
    return sum((q - t_j) ** 2 for q, t_j in zip(softmax(z), t, strict=True))


@expected
def logit_norm(z: Vector, y: int, *, tau: float = 0.04) -> Any:
    return cross_entropy(z / (tau * np.sqrt(logit_square_sum(z))), y)


@paper
def soft_bootstrap(z: Vector, t: list[float], *, beta: float = 0.95) -> Any:
    """Reed: cross entropy against the blend of the target with the model's own prediction."""
    return -sum(
        (beta * t_j + (1 - beta) * np.exp(log_q)) * log_q
        for t_j, log_q in zip(t, log_softmax(z), strict=True)
    )


# Regularisers: the target counts for nothing but its total


def entropy(z: Vector, target: Any = 0) -> Any:
    return -sum(np.exp(log_q) * log_q for log_q in log_softmax(z))


def confidence_penalty(z: Vector, target: Any = 0, *, beta: float = 0.1) -> Any:
    return -beta * entropy(z)


def z_loss(z: Vector, target: Any = 0, *, weight: float = 1e-4) -> Any:
    return weight * lse(z) ** 2


def logit_penalty(z: Vector, target: Any = 0, *, beta: float) -> Any:
    return beta / 2 * logit_square_sum(z)


def max_suppression(z: Vector, target: Any = 0, *, alpha: float = 0.1) -> Any:
    return alpha * (largest(z) - logit_sum(z) / len(z))


# Semantics of the call


Parameters = Mapping[str, Any]


def row(
    loss: Loss, z: Vector, target: Any, parameters: Parameters | None = None, *, reads_target: bool = True
) -> Any:
    """One row; classes with a logit of -inf, a count or a prior of 0 are dropped before the formula."""
    parameters = dict(parameters or {})
    per_class = {name: value for name, value in parameters.items() if np.ndim(value) == 1}
    kept = [
        j
        for j in range(len(z))
        if np.real(z[j]) != -math.inf and all(value[j] > 0 for value in per_class.values())
    ]
    if not kept:
        return math.nan
    if isinstance(target, int):
        if target not in kept:
            if reads_target:
                return math.inf
            target = kept[0]
        target = kept.index(target)
    else:
        if reads_target and any(target[j] != 0 for j in range(len(z)) if j not in kept):
            return math.inf
        target = np.array([target[j] for j in kept])
    parameters |= {name: np.array([value[j] for j in kept]) for name, value in per_class.items()}
    return loss(np.array([z[j] for j in kept]), target, **parameters)


def smoothed(target: Any, z: Vector, label_smoothing: float) -> Vector:
    """(1−ε)·t + ε/n over the n unmasked classes."""
    open_classes = [np.real(z_j) != -math.inf for z_j in z]
    t = np.array([float(c == target) for c in range(len(z))]) if isinstance(target, int) else np.array(target)
    return (1 - label_smoothing) * t + label_smoothing * np.array(open_classes) / sum(open_classes)


def weighted_row(
    value: Callable[[Vector, Any], Any], z: Vector, target: Any, weight: Vector | None, label_smoothing: float
) -> tuple[Any, float]:
    """(r, ω): the row's value with class weights and smoothing, and what the row adds to the divisor."""
    ones = np.ones(len(z))
    w = ones if weight is None else weight
    omega = (
        float(w[target])
        if isinstance(target, int)
        else float(sum(w_c * t_c for w_c, t_c in zip(w, target, strict=True)))
    )
    if label_smoothing:
        target = smoothed(target, z, label_smoothing)
    if weight is None:
        return value(z, target), omega
    if isinstance(target, int):
        return w[target] * value(z, target), omega
    total = sum(w_c * t_c for w_c, t_c in zip(w, target, strict=True))
    if total == 0:
        return 0.0, omega
    return total * value(z, w * target / total), omega


def reduction(
    loss: Loss,
    logits: Vector,
    target: Any,
    parameters: Parameters | None = None,
    *,
    reads_target: bool = True,
    weight: Vector | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Vector | None = None,
    denominator: float | None = None,
    reduction: str = "mean",
) -> Any:
    """The call on rows (N, C) with labels (N,) or targets (N, C): Σ s r / Σ s ω, Σ s r, or every s r."""
    value = functools.partial(row, loss, parameters=parameters, reads_target=reads_target)
    values: list[Any] = []
    divisor = 0.0
    for i, z in enumerate(logits):
        t = int(target[i]) if np.ndim(target) == 1 else np.asarray(target[i])
        s = 1.0 if sample_weight is None else float(sample_weight[i])
        if isinstance(t, int) and t == ignore_index:
            values.append(0.0)
            continue
        r, omega = weighted_row(value, z, t, weight, label_smoothing)
        values.append(s * r)
        divisor += s * omega
    if reduction == "none":
        return np.array(values)
    if reduction == "sum":
        return sum(values)
    divisor = divisor if denominator is None else denominator
    return sum(values) / divisor if divisor != 0 else 0.0


def gradient(value: Callable[[Vector], Any], logits: Vector, step: float = 1e-30) -> Vector:
    """∂value/∂logits by complex steps; a masked entry has gradient 0."""
    result = np.zeros(logits.shape)
    for index in np.ndindex(*logits.shape):
        if logits[index] == -math.inf:
            continue
        moved = logits.astype(complex)
        moved[index] += 1j * step
        result[index] = np.imag(value(moved)) / step
    return result
