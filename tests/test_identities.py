"""What the losses are to each other: equalities hidden behind names, limits, laws of information."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq
from torch import Tensor

import infoloss as il

N, C = 11, 5
Z = torch.tensor(problems.rows(0, N, C))
Y = torch.tensor(problems.labels(0, N, C))
T = torch.tensor(problems.distributions(0, N, C))


def gradient(term: Any, z: Tensor, target: Tensor, **options: Any) -> Tensor:
    z = z.clone().requires_grad_()
    (result,) = torch.autograd.grad(term(z, target, **options), z)
    return result


def same(left: Any, right: Any, target: Tensor = Y) -> None:
    """Equal per row and in gradient, up to rounding."""
    torch.testing.assert_close(
        left(Z, target, reduction="none"), right(Z, target, reduction="none"), rtol=1e-12, atol=1e-13
    )
    torch.testing.assert_close(gradient(left, Z, target), gradient(right, Z, target), rtol=1e-11, atol=1e-13)


# Cross entropy and KL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_kl_and_cross_entropy_have_bit_identical_gradients_on_one_hot_labels(
    dtype: torch.dtype, spread: float
) -> None:
    z = torch.tensor(problems.rows(1, 50, C, spread=spread)).to(dtype)
    y = torch.tensor(problems.labels(1, 50, C))
    for target in (y, F.one_hot(y, C).to(dtype)):
        assert torch.equal(gradient(il.kl(), z, target), gradient(il.cross_entropy(), z, target))
        assert torch.equal(il.kl()(z, target), il.cross_entropy()(z, target))


def test_kl_and_cross_entropy_of_soft_labels_differ_by_the_target_s_entropy() -> None:
    difference = il.cross_entropy()(Z, T, reduction="none") - il.kl()(Z, T, reduction="none")
    torch.testing.assert_close(difference, torch.special.entr(T).sum(1), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient(il.kl(), Z, T), gradient(il.cross_entropy(), Z, T))


def test_entropy_is_the_cross_entropy_of_a_prediction_with_itself() -> None:
    q = Z.softmax(1)
    torch.testing.assert_close(il.entropy()(Z, Y), il.cross_entropy()(Z, q), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(il.kl()(Z, q), torch.zeros((), dtype=Z.dtype), rtol=0, atol=1e-14)
    torch.testing.assert_close(il.reverse_kl()(Z, q), torch.zeros((), dtype=Z.dtype), rtol=0, atol=1e-14)


# MIN-ENT and MIX-ENT


@pytest.mark.parametrize(("w1", "w2", "floor"), [(0.2832, 0.3740, 1e-6), (0.1, 1.0, 1e-4), (2.0, 0.3, 0.05)])
def test_mix_ent_is_symmetric_cross_entropy_is_cross_entropy_and_mae(
    w1: float, w2: float, floor: float
) -> None:
    mix = il.mix_ent(w1=w1, w2=w2, floor=floor)
    same(mix, il.symmetric_cross_entropy(alpha=w1, beta=w2, floor=floor))
    with pytest.warns(UserWarning, match="two losses"):
        same(mix, w1 * il.cross_entropy() + (w2 * -math.log(floor) / 2) * il.mae())


def test_mix_ent_s_floor_and_weight_are_one_degree_of_freedom() -> None:
    same(il.mix_ent(w2=0.3, floor=1e-6), il.mix_ent(w2=0.6, floor=1e-3))


def test_reverse_cross_entropy_is_entropy_and_reverse_kl() -> None:
    for target in (Y, T):
        same(il.reverse_cross_entropy(), il.reverse_kl() + il.entropy(), target)


def test_min_ent_is_soft_bootstrapping() -> None:
    for target in (Y, T):
        same(il.min_ent(w1=0.95, w2=0.05), il.soft_bootstrap(beta=0.95), target)
        same(il.min_ent(w1=0.3, w2=0.7), il.soft_bootstrap(beta=0.3), target)


def test_min_ent_is_the_opposite_of_the_confidence_penalty() -> None:
    same(il.min_ent(w1=1.0, w2=-0.1), il.cross_entropy() + il.confidence_penalty(beta=0.1))
    same(il.min_ent(w1=1.1933, w2=0.1298), 1.1933 * il.cross_entropy() + 0.1298 * il.entropy())


def label_slope(ratio: float, p: np.ndarray[Any, Any], classes: int) -> Tensor:
    """∂/∂z_y of MIN-ENT at label probability p, the rest on one rival class and hardly any on the others."""
    z = torch.full((len(p), classes), -60.0, dtype=torch.float64)
    z[:, 0], z[:, 1] = torch.tensor(np.log(p)), torch.tensor(np.log1p(-p))
    y = torch.zeros(len(p), dtype=torch.long)
    return gradient(il.min_ent(w1=1.0, w2=ratio), z, y, reduction="sum")[:, 0]


def test_sign_ratio_of_min_ent() -> None:
    """The label's logit is pushed up at every p iff w2/w1 ≤ x, ln x = 1 + 1/x; worst at p = 1/(1+x)."""
    x = brentq(lambda x: math.log(x) - 1 - 1 / x, 2, 5)
    assert round(x, 3) == 3.591
    assert round(1 / (1 + x), 3) == 0.218
    p = np.linspace(0.001, 0.999, 999)
    for classes in (2, 7):
        assert (label_slope(3.591, p, classes) < 0).all()
        assert (label_slope(x * (1 - 1e-6), np.array([1 / (1 + x)]), classes) < 0).all()
        assert (label_slope(x * (1 + 1e-6), np.array([1 / (1 + x)]), classes) > 0).all()
        wrong = p[(label_slope(3.6, p, classes) > 0).numpy()]
        assert 0.2 < wrong.min() <= wrong.max() < 0.24


def test_no_row_turns_the_sign_below_the_ratio() -> None:
    """Two classes are the worst case: random rows of many classes keep the sign as well."""
    z = torch.tensor(problems.rows(2, 20_000, 6, spread=4.0))
    slope = gradient(il.min_ent(w1=1.0, w2=3.591), z, torch.zeros(len(z), dtype=torch.long), reduction="sum")
    assert (slope[:, 0] <= 0).all()


# Priors

PRIOR = torch.tensor(problems.prior(C))
COUNTS = torch.tensor(problems.counts(C))


def test_pc_softmax_is_balanced_softmax_and_a_constant() -> None:
    pc, balanced = il.pc_softmax(prior=PRIOR), il.balanced_softmax(counts=COUNTS)
    difference = pc(Z, Y, reduction="none") - balanced(Z, Y, reduction="none")
    torch.testing.assert_close(difference, PRIOR.log()[Y], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient(pc, Z, Y), gradient(balanced, Z, Y), rtol=1e-12, atol=1e-14)


def test_balanced_softmax_is_logit_adjustment_with_tau_one_and_a_shifted_cross_entropy() -> None:
    balanced = il.balanced_softmax(counts=COUNTS)
    same(balanced, il.logit_adjusted(prior=PRIOR))
    same(balanced, il.balanced_softmax(counts=17 * COUNTS))
    same(balanced, il.cross_entropy().shifted(COUNTS.log()))
    same(balanced, il.cross_entropy().shifted(COUNTS, log=True))


def test_a_zero_count_masks_the_class() -> None:
    counts = COUNTS.clone()
    counts[2] = 0
    without = [0, 1, 3, 4]
    y = torch.tensor([0, 1, 3, 4, 4, 3, 1, 0, 0, 1, 3])
    balanced = il.balanced_softmax(counts=counts)
    names = torch.tensor([0, 1, -1, 2, 3])[y]
    torch.testing.assert_close(
        balanced(Z, y), il.balanced_softmax(counts=counts[without])(Z[:, without], names), rtol=1e-13, atol=0
    )
    assert (gradient(balanced, Z, y)[:, 2] == 0).all()
    assert (balanced.probabilities(Z)[:, 2] == 0).all()
    assert balanced(Z, torch.full((N,), 2)) == torch.inf


# Limits

CE = il.cross_entropy()
UNIFORM = [1 / C] * C


@pytest.mark.parametrize(
    "term",
    [
        il.cross_entropy(label_smoothing=0.0),
        il.min_ent(w1=1.0, w2=0.0),
        il.mix_ent(w1=1.0, w2=0.0),
        il.symmetric_cross_entropy(alpha=1.0, beta=0.0),
        il.squentropy(alpha=0.0),
        il.poly1(epsilon=0.0),
        il.focal(gamma=0.0),
        il.soft_bootstrap(beta=1.0),
        il.logit_adjusted(prior=PRIOR, tau=0.0),
        il.logit_adjusted(prior=UNIFORM, tau=3.0),
        il.balanced_softmax(counts=torch.full((C,), 9)),
        il.pc_softmax(prior=UNIFORM) + math.log(C),
        il.cross_entropy() + 0.0 * il.entropy(),
        il.cross_entropy() + il.confidence_penalty(beta=0.0),
        il.cross_entropy() + il.z_loss(weight=0.0),
        il.cross_entropy() + il.logit_penalty(beta=0.0),
        il.cross_entropy() + il.max_suppression(alpha=0.0),
        il.cross_entropy().shifted([0.0] * C),
        il.cross_entropy().shifted([3.0] * C),
        il.cross_entropy().scaled(1.0),
        il.parse("lse - target_logit"),
    ],
    ids=str,
)
def test_weight_zero_gives_cross_entropy(term: Any) -> None:
    same(term, CE)


@pytest.mark.parametrize(
    ("term", "limit"),
    [
        (il.generalized_cross_entropy(q=1e-9), CE),
        (il.generalized_cross_entropy(q=1.0), 0.5 * il.mae()),
        (il.taylor(order=1), 0.5 * il.mae()),
        (il.taylor(order=400), CE),
        (il.jensen_shannon(weight=1e-9), CE),
        (il.cross_entropy().soft_capped(1e9), CE),
    ],
    ids=str,
)
def test_limits(term: Any, limit: Any) -> None:
    """By value and gradient, to the distance of the parameter from its limit."""
    z = Z.clamp(-1, 1)  # q_y ≥ .03, so that the series of order 400 has converged
    for reading in (lambda f: f(z, Y, reduction="none"), lambda f: gradient(f, z, Y)):
        torch.testing.assert_close(reading(term), reading(limit), rtol=1e-5, atol=1e-6)


def test_jensen_shannon_nears_the_absolute_error_slowly() -> None:
    """π → 1: (1 − p) + ((1 − p) + p ln p)/(−ln(1 − π)), so half the absolute error only logarithmically."""
    p = Z.softmax(1)[torch.arange(N), Y]
    expected = (1 - p) + ((1 - p) + p * p.log()) / -math.log(1e-6)
    ours = il.jensen_shannon(weight=1 - 1e-6)(Z, Y, reduction="none")
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


# Smoothing, squares, powers


def test_smoothing_of_the_constructor_is_smoothing_of_the_call() -> None:
    smooth = il.cross_entropy(label_smoothing=0.1)
    torch.testing.assert_close(smooth(Z, Y), CE(Z, Y, label_smoothing=0.1), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(
        smooth(Z, Y), F.cross_entropy(Z, Y, label_smoothing=0.1), rtol=1e-13, atol=1e-14
    )


def test_max_suppression_is_label_smoothing_where_the_label_leads() -> None:
    lead = Z + 20 * F.one_hot(Y, C)
    both = CE + il.max_suppression(alpha=0.1)
    torch.testing.assert_close(both(lead, Y), il.cross_entropy(label_smoothing=0.1)(lead, Y))


def test_squentropy_is_cross_entropy_and_the_others_squares() -> None:
    others = Z.masked_fill(F.one_hot(Y, C).bool(), 0)
    squares = il.squentropy(alpha=0.3)(Z, Y) - CE(Z, Y)
    torch.testing.assert_close(squares, 0.3 * others.square().sum(1).mean() / (C - 1))


def test_rescaled_square_with_ones_is_the_square_loss() -> None:
    square = (Z - F.one_hot(Y, C)).square().mean()
    torch.testing.assert_close(il.rescaled_square(k=1.0, M=1.0)(Z, Y), square)


def test_brier_is_the_squared_distance_of_the_probabilities() -> None:
    for target, t in ((Y, F.one_hot(Y, C)), (T, T)):
        torch.testing.assert_close(il.brier()(Z, target), (Z.softmax(1) - t).square().sum(1).mean())
    same(il.brier(), il.parse("collision - 2*target_probability + 1"))


def test_focal_flsd_switches_at_a_fifth() -> None:
    p = Z.softmax(1)[torch.arange(N), Y]
    five, three = (il.focal(gamma=g)(Z, Y, reduction="none") for g in (5.0, 3.0))
    torch.testing.assert_close(il.focal_flsd()(Z, Y, reduction="none"), torch.where(p < 0.2, five, three))
    assert (p < 0.2).any()
    assert (p >= 0.2).any()


def test_normalized_cross_entropy_sums_to_one_over_labels() -> None:
    total = sum(il.normalized_cross_entropy()(Z, torch.full((N,), c), reduction="none") for c in range(C))
    torch.testing.assert_close(total, torch.ones(N, dtype=Z.dtype))


def test_logit_norm_looks_at_the_direction_only() -> None:
    loss = il.logit_norm(tau=0.5)
    torch.testing.assert_close(loss(Z, Y), loss(7 * Z, Y), rtol=1e-12, atol=1e-13)
    unit = Z / (0.5 * Z.norm(dim=1, keepdim=True))
    torch.testing.assert_close(loss(Z, Y), CE(unit, Y), rtol=1e-12, atol=1e-13)


def test_views_are_transformations_of_the_logits() -> None:
    v = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    mixed = il.min_ent() + il.z_loss(weight=0.1)
    for view, z in (
        (mixed.shifted(v), Z + v),
        (mixed.scaled(0.5), 0.5 * Z),
        (mixed.normalized(0.2), Z / (0.2 * Z.norm(dim=1, keepdim=True))),
        (mixed.soft_capped(3.0), 3 * torch.tanh(Z / 3)),
        (mixed.scaled(0.5).shifted(v), 0.5 * (Z + v)),  # the outer view is applied first
        (mixed.shifted(v).scaled(0.5), 0.5 * Z + v),
    ):
        torch.testing.assert_close(view(Z, Y), mixed(z, Y), rtol=1e-12, atol=1e-13)


def test_terms_keep_their_own_views_in_a_sum() -> None:
    both = il.balanced_softmax(counts=COUNTS) + 0.1 * il.entropy()
    shifted = Z + COUNTS.log()
    torch.testing.assert_close(both(Z, Y), CE(shifted, Y) + 0.1 * il.entropy()(Z, Y), rtol=1e-12, atol=1e-13)


# Laws of information, on any logits

finite = st.floats(-50, 50, width=64)
logits = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 7)), elements=finite)


def entropies(z: Tensor) -> Tensor:
    return il.entropy()(z, torch.zeros(len(z), dtype=torch.long), reduction="none")


@given(logits)
def test_renyi_two_is_below_shannon_is_below_uniform(values: np.ndarray[Any, Any]) -> None:
    z = torch.tensor(values)
    renyi = -il.row_statistics(z, needs=("collision",))["collision"].log()
    shannon = entropies(z)
    assert (renyi <= shannon + 1e-12).all()
    assert (shannon <= math.log(z.shape[1]) + 1e-12).all()
    assert (shannon >= 0).all()


@given(logits)
def test_chain_rule_of_entropy(values: np.ndarray[Any, Any]) -> None:
    """H(class) = H(group) + Σ P(group) H(class | group); masks condition on a group."""
    z = torch.tensor(values)
    parts = [torch.arange(z.shape[1]) % 2 == g for g in (0, 1)]
    groups = torch.stack([z.masked_fill(~part, -torch.inf).logsumexp(1) for part in parts], 1)
    within = torch.stack([entropies(z.masked_fill(~part, -torch.inf)) for part in parts], 1)
    chained = entropies(groups) + (groups.softmax(1) * within).sum(1)
    torch.testing.assert_close(entropies(z), chained, rtol=1e-9, atol=1e-11)


@given(logits, st.integers(0, 2**32 - 1))
def test_data_processing(values: np.ndarray[Any, Any], seed: int) -> None:
    """Telling fewer classes apart never increases the divergence."""
    z = torch.tensor(values)
    t = torch.tensor(np.random.default_rng(seed).dirichlet(np.full(z.shape[1], 0.5), len(z)))
    merged_z = torch.cat([z[:, :2].logsumexp(1, keepdim=True), z[:, 2:]], 1)
    merged_t = torch.cat([t[:, :2].sum(1, keepdim=True), t[:, 2:]], 1)
    fine, coarse = (il.kl()(*pair, reduction="none") for pair in ((z, t), (merged_z, merged_t)))
    assert (coarse <= fine + 1e-11).all()
    assert (coarse >= -1e-12).all()


@given(logits, st.floats(1e-3, 1.0))
def test_bounded_losses_stay_in_their_bounds(values: np.ndarray[Any, Any], q: float) -> None:
    z = torch.tensor(values)
    y = torch.zeros(len(z), dtype=torch.long)
    for term, upper in (
        (il.mae(), 2.0),
        (il.brier(), 2.0),
        (il.normalized_cross_entropy(), 1.0),
        (il.generalized_cross_entropy(q=q), 1 / q),
        (il.jensen_shannon(), 2.0),  # (H(π) / −(1−π) ln(1−π)) at π = ½
    ):
        value = term(z, y, reduction="none")
        assert (value >= 0).all()
        assert (value <= upper * (1 + 1e-12)).all()
