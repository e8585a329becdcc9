"""What a call means: weights × ignored rows × smoothing × sample weights × denominator × reduction.

The traps that well-known libraries fall into are a test each; PyTorch's own are in test_departures.py too.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracles
import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import CASES, FIRST, HARD_ONLY, LOSSES, SOFT, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import infoloss as il

N, C = 4, 5  # few rows, so that the oracle's loops stay cheap; five classes, unequal to N
CLASS_WEIGHT = np.array([0.5, 2.0, 0.0, 1.5, 1.0])  # a class of weight 0 among them
SAMPLE_WEIGHT = np.array([1.0, 0.25, 3.0, 0.0])  # a row of weight 0
IGNORED = -100
LABELS = np.array([1, IGNORED, 3, 2])  # the last has class weight 0 and sample weight 0


def by_name(case: Case) -> str:
    return str(case)


def double(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def close(ours: Tensor, oracle: Any) -> None:
    torch.testing.assert_close(ours.detach(), double(np.real(oracle)), rtol=1e-11, atol=1e-12)


def gradient(term: Any, logits: Any, target: Tensor, **options: Any) -> Tensor:
    z = double(logits).requires_grad_()
    (result,) = torch.autograd.grad(term(z, target, **options), z)
    return result


OPTIONS: dict[str, Any] = {
    "weight": CLASS_WEIGHT,
    "sample_weight": SAMPLE_WEIGHT,
    "denominator": 7.5,
}
GRID = [
    {name: OPTIONS[name] for name, on in zip(OPTIONS, chosen, strict=True) if on}
    | {"label_smoothing": smoothing, "reduction": how}
    for chosen in itertools.product((False, True), repeat=3)
    for smoothing in (0.0, 0.2)
    for how in ("mean", "sum", "none")
    if not (chosen[2] and how != "mean")
]


def tensors(options: dict[str, Any]) -> dict[str, Any]:
    return {name: double(value) if np.ndim(value) else value for name, value in options.items()}


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_every_combination_with_labels(case: Case) -> None:
    z, term = problems.rows(0, N, C), case.term(C)
    for options in GRID:
        if options["label_smoothing"] and case.soft == "none":
            continue
        close(term(double(z), torch.tensor(LABELS), **tensors(options)), case.reduction(z, LABELS, **options))


@pytest.mark.parametrize("case", [c for c in FIRST if c.soft != "none"], ids=by_name)
def test_every_combination_with_probabilities(case: Case) -> None:
    z, t, term = problems.rows(1, N, C), problems.distributions(1, N, C), case.term(C)
    for options in GRID:
        close(term(double(z), double(t), **tensors(options)), case.reduction(z, t, **options))


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_gradient_with_everything_on(case: Case) -> None:
    z, term = problems.rows(2, N, C), case.term(C)
    options = {"weight": CLASS_WEIGHT, "sample_weight": SAMPLE_WEIGHT}
    if case.soft != "none":
        options["label_smoothing"] = 0.2
    ours = gradient(term, z, torch.tensor(LABELS), **tensors(options))
    close(ours, oracles.gradient(lambda moved: case.reduction(moved, LABELS, **options), z))
    assert (ours[1] == 0).all()  # the ignored row


@st.composite
def calls(draw: st.DrawFn) -> tuple[Case, Any, Any, dict[str, Any]]:
    """Any loss, logits with masks, labels or probabilities, and any options that fit them."""
    case = draw(st.sampled_from(CASES))
    n, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centre, spread = draw(st.sampled_from([0.0, -300.0])), draw(st.sampled_from([0.5, 2.0, 20.0]))
    z = rng.normal(centre, spread, (n, classes))
    soft = case.soft != "none" and draw(st.booleans())
    labels = rng.integers(0, classes, n)
    target = rng.dirichlet(np.full(classes, 0.5), n) if soft else labels.copy()
    options: dict[str, Any] = {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    if draw(st.booleans()):  # masks, two classes at least left, never one that the target wants
        for i in range(n):
            hidden = rng.permutation(np.delete(np.arange(classes), labels[i]))[: rng.integers(0, classes - 1)]
            z[i, hidden] = -np.inf
            if soft:
                target[i, hidden] = 0
                target[i] = target[i] / target[i].sum() if target[i].sum() > 0 else np.eye(classes)[labels[i]]
    if not soft and draw(st.booleans()):
        target[rng.random(n) < 0.4] = IGNORED
    if draw(st.booleans()):
        options["weight"] = rng.uniform(0, 3, classes) * (rng.random(classes) < 0.8)
    if draw(st.booleans()):
        options["sample_weight"] = rng.uniform(0, 3, n) * (rng.random(n) < 0.8)
    if case.soft != "none" and draw(st.booleans()):
        options["label_smoothing"] = draw(st.sampled_from([0.1, 1.0]))
    if options["reduction"] == "mean" and draw(st.booleans()):
        options["denominator"] = 3.5
    return case, z, target, options


@settings(max_examples=250)
@given(calls())
def test_any_call(call: tuple[Case, Any, Any, dict[str, Any]]) -> None:
    case, z, target, options = call
    term, t = case.term(z.shape[1]), torch.tensor(target)

    def oracle(logits: Any) -> Any:
        return np.sum(case.reduction(logits, target, **options))

    ours = term(double(z), t, **tensors(options))
    scale = max(1.0, float(np.abs(z[np.isfinite(z)]).max()) ** 2)  # squares of logits at −300 round at 1e-11
    torch.testing.assert_close(
        ours, double(np.real(case.reduction(z, target, **options))), rtol=1e-11, atol=1e-13 * scale
    )
    leaf = double(z).requires_grad_()
    (slope,) = torch.autograd.grad(term(leaf, t, **tensors(options)).sum(), leaf)
    torch.testing.assert_close(slope, double(oracles.gradient(oracle, z)), rtol=1e-9, atol=1e-13 * scale)


# Laws


@pytest.mark.parametrize("case", [*SOFT, *(c for c in CASES if c.kind == "regulariser")], ids=by_name)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_hot_is_index(case: Case, smoothing: float) -> None:
    z, y = double(problems.rows(3, N, C)), torch.tensor([4, 0, 1, 1])
    one_hot = F.one_hot(y, C).double()
    options: dict[str, Any] = {"weight": double(CLASS_WEIGHT), "label_smoothing": smoothing}
    for how in ("mean", "sum", "none"):
        soft, hard = (case.term(C)(z, t, reduction=how, **options) for t in (one_hot, y))
        torch.testing.assert_close(soft, hard, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", SOFT, ids=by_name)
def test_smoothing_is_a_smoothed_target(case: Case) -> None:
    z, y, term = double(problems.rows(4, N, C)), torch.tensor([4, 0, 1, 1]), case.term(C)
    smoothed = 0.7 * F.one_hot(y, C).double() + 0.3 / C
    torch.testing.assert_close(term(z, y, label_smoothing=0.3), term(z, smoothed), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_class_weight_multiplies_the_row(case: Case) -> None:
    z, y, w = double(problems.rows(5, N, C)), torch.tensor([4, 0, 1, 1]), double(CLASS_WEIGHT)
    plain, weighted = (case.term(C)(z, y, reduction="none", weight=v) for v in (None, w))
    torch.testing.assert_close(weighted, w[y] * plain, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax", "mae", "squentropy"])
def test_class_weights_are_unnormalised_targets(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    z, t, w = double(problems.rows(6, N, C)), double(problems.distributions(6, N, C)), double(CLASS_WEIGHT)
    term = case.term(C)
    weighted, unnormalised = term(z, t, weight=w), term(z, w * t)
    torch.testing.assert_close(weighted, unnormalised, rtol=1e-12, atol=1e-13)


def test_weights_and_smoothing_of_labels_are_pytorch_s() -> None:
    z, y, w = double(problems.rows(7, N, C)), torch.tensor([4, 0, IGNORED, 1]), double(CLASS_WEIGHT)
    for options in GRID:
        kept: dict[str, Any] = {k: options[k] for k in ("label_smoothing", "reduction")}
        if "weight" in options:
            kept["weight"] = w
        torch.testing.assert_close(
            il.cross_entropy()(z, y, **kept), F.cross_entropy(z, y, **kept), rtol=1e-12, atol=1e-13
        )


def test_smoothing_of_the_constructor_and_of_the_call_compose() -> None:
    z, y = problems.rows(8, N, C), np.array([4, 0, 1, 1])
    ours = il.cross_entropy(label_smoothing=0.1)(double(z), torch.tensor(y), label_smoothing=0.2)
    close(ours, oracles.reduction(oracles.cross_entropy, z, y, label_smoothing=1 - 0.9 * 0.8))


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_a_repeated_batch_has_the_same_mean_and_twice_the_sum(case: Case) -> None:
    """Some published losses hide a sum where they say mean."""
    z, y, term = double(problems.rows(9, N, C)), torch.tensor([4, 0, 1, 1]), case.term(C)
    twice = torch.cat([z, z]), torch.cat([y, y])
    torch.testing.assert_close(term(*twice), term(z, y), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(term(*twice, reduction="sum"), 2 * term(z, y, reduction="sum"))


def test_two_losses_share_one_set_of_weights() -> None:
    z, y, w = double(problems.rows(10, N, C)), torch.tensor([4, 0, 1, 1]), double(CLASS_WEIGHT)
    together = il.cross_entropy() + 0.1298 * il.entropy()
    parts = il.cross_entropy()(z, y, weight=w) + 0.1298 * il.entropy()(z, y, weight=w)
    torch.testing.assert_close(together(z, y, weight=w), parts)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_weights_can_be_learnt(case: Case) -> None:
    """Gradients of sample and class weights: of Σ s w_y ℓ / Σ s w_y, by hand."""
    z, y = double(problems.rows(28, N, C)), torch.tensor([4, 0, 1, 1])
    s, w = double([0.5, 2.0, 1.0, 3.0]).requires_grad_(), double([0.5, 2.0, 3.0, 1.5, 1.0]).requires_grad_()
    rows = case.term(C)(z, y, reduction="none").detach()
    ours = case.term(C)(z, y, sample_weight=s, weight=w)
    by_hand = (s * w[y] * rows).sum() / (s * w[y]).sum()
    torch.testing.assert_close(ours, by_hand)
    torch.testing.assert_close(torch.autograd.grad(ours, (s, w)), torch.autograd.grad(by_hand, (s, w)))


@pytest.mark.parametrize("case", SOFT, ids=by_name)
def test_a_computed_target_gets_its_gradient(case: Case) -> None:
    """Distillation: ∂/∂teacher by finite differences, through targets that stay distributions."""
    z, teacher = double(problems.rows(29, 2, 4)), double(problems.rows(30, 2, 4)).requires_grad_()
    w = double([0.5, 2.0, 3.0, 1.5])
    term = case.term(4)
    assert torch.autograd.gradcheck(lambda u: term(z, u.softmax(1)), teacher)
    assert torch.autograd.gradcheck(lambda u: term(z, u.softmax(1), weight=w, label_smoothing=0.1), teacher)


# Traps


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_every_row_ignored_gives_zero(case: Case) -> None:
    z, y, term = problems.rows(11, N, C), torch.full((N,), IGNORED), case.term(C)
    for how in ("mean", "sum"):
        assert term(double(z), y, reduction=how) == 0
    assert torch.equal(gradient(term, z, y), torch.zeros(N, C, dtype=torch.float64))


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_every_weight_zero_gives_zero(case: Case) -> None:
    z, y, term = problems.rows(11, N, C), torch.tensor([4, 0, 1, 1]), case.term(C)
    for options in ({"weight": torch.zeros(C)}, {"sample_weight": torch.zeros(N)}):
        assert term(double(z), y, **options) == 0
        assert torch.equal(gradient(term, z, y, **options), torch.zeros(N, C, dtype=torch.float64))


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_what_an_ignored_row_holds_leaves_no_trace(case: Case) -> None:
    z, y, term = problems.rows(12, N, C), torch.tensor([4, IGNORED, 1, IGNORED]), case.term(C)
    clean = term(double(z), y), gradient(term, z, y)
    z[1], z[3] = np.nan, -np.inf
    torch.testing.assert_close((term(double(z), y), gradient(term, z, y)), clean, rtol=0, atol=0)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_ignored_pixels_do_not_divide_the_mean(case: Case) -> None:
    z, y = problems.rows(13, 2 * 3 * 2, C), np.array([1, 4, IGNORED, 0, IGNORED, 2, 2, IGNORED, 3, 1, 0, 4])
    dense = double(z).reshape(2, 3, 2, C).movedim(-1, 1)
    ours = case.term(C)(dense, torch.tensor(y).reshape(2, 3, 2))
    values = [case.row(row, int(label)) for row, label in zip(z, y, strict=True) if label != IGNORED]
    close(ours, sum(values) / 9)


@pytest.mark.parametrize("index", [255, -1, 2])
def test_any_ignore_index(index: int) -> None:
    z, y = problems.rows(14, N, C), np.array([4, index, 1, index])
    for case in FIRST:
        ours = case.term(C)(double(z), torch.tensor(y), ignore_index=index)
        close(ours, case.reduction(z, y, ignore_index=index))


@pytest.mark.parametrize("case", SOFT, ids=by_name)
def test_ignore_index_of_a_one_hot_target(case: Case) -> None:
    z, y, term = double(problems.rows(15, N, C)), torch.tensor([4, 2, 1, 2]), case.term(C)
    one_hot = F.one_hot(y, C).double()
    torch.testing.assert_close(term(z, one_hot, ignore_index=2), term(z, y, ignore_index=2))
    torch.testing.assert_close(term(z, one_hot, ignore_index=-100), term(z, y, ignore_index=-100))


def test_ignored_label_with_smoothing_is_ignored_whole() -> None:
    z, y = problems.rows(16, N, C), np.array([4, IGNORED, 1, 0])
    ours = il.cross_entropy()(double(z), torch.tensor(y), label_smoothing=0.3, reduction="none")
    close(ours, oracles.reduction(oracles.cross_entropy, z, y, label_smoothing=0.3, reduction="none"))
    assert ours[1] == 0


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_micro_batches_add_up_with_a_denominator(case: Case) -> None:
    z, y = double(problems.rows(17, 7, C)), torch.tensor([1, IGNORED, IGNORED, 4, 0, 3, IGNORED])
    term, w = case.term(C), double(CLASS_WEIGHT)
    total = w[y[y != IGNORED]].sum()
    whole = term(z, y, weight=w)
    pieces = [slice(0, 3), slice(3, 7)]
    for denominator in (total, float(total)):
        added = sum(term(z[p], y[p], weight=w, denominator=denominator) for p in pieces)
        torch.testing.assert_close(added, whole, rtol=1e-13, atol=1e-14)
    mean_of_means = sum(term(z[p], y[p], weight=w) for p in pieces) / 2
    assert not torch.allclose(mean_of_means, whole)


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0), torch.tensor(0.0)])
def test_a_denominator_of_zero_is_a_batch_that_counts_for_nothing(zero: Any) -> None:
    z, y = problems.rows(31, N, C), torch.full((N,), IGNORED)
    assert il.min_ent()(double(z), y, denominator=zero) == 0
    assert torch.equal(gradient(il.min_ent(), z, y, denominator=zero), torch.zeros(N, C, dtype=torch.float64))


def test_sample_weight_two_is_the_row_twice() -> None:
    z, y = double(problems.rows(18, N, C)), torch.tensor([4, 0, 1, 1])
    repeats = torch.tensor([2, 1, 0, 3])
    for case in FIRST:
        weighted = case.term(C)(z, y, sample_weight=repeats.double())
        repeated = case.term(C)(z.repeat_interleave(repeats, 0), y.repeat_interleave(repeats))
        torch.testing.assert_close(weighted, repeated, rtol=1e-12, atol=1e-13)


def test_dense_sample_weight_has_one_number_a_pixel() -> None:
    z, y = double(problems.rows(19, 6, C)), torch.tensor([4, 0, 1, 1, 2, 3])
    s = double([0.5, 1.0, 2.0, 0.0, 1.0, 4.0])
    term = il.min_ent()
    flat = term(z, y, sample_weight=s)
    dense = term(z.reshape(2, 3, C).movedim(-1, 1), y.reshape(2, 3), sample_weight=s.reshape(2, 3))
    torch.testing.assert_close(dense, flat)
    with pytest.raises(ValueError, match=r"sample_weight.*\(2, 3\)"):
        term(z.reshape(2, 3, C).movedim(-1, 1), y.reshape(2, 3), sample_weight=s)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_a_row_of_weight_zero_with_a_masked_label_counts_for_nothing(case: Case) -> None:
    z, y, w = problems.rows(20, N, C), torch.tensor([4, 2, 1, 1]), double(CLASS_WEIGHT)
    z[1, 2] = -np.inf
    rows = [0, 2, 3]
    torch.testing.assert_close(
        case.term(C)(double(z), y, weight=w),
        case.term(C)(double(z[rows]), y[rows], weight=w),
        rtol=1e-13,
        atol=1e-14,
    )
    assert gradient(case.term(C), z, y, weight=w).isfinite().all()


@pytest.mark.parametrize("held", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("option", ["weight", "sample_weight"])
@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_what_a_row_of_weight_zero_holds_leaves_no_trace(case: Case, option: str, held: float) -> None:
    z, y = problems.rows(20, N, C), torch.tensor([4, 2, 1, 1])
    given = {option: double([1.0, 0.5, 0, 2, 1] if option == "weight" else [1.0, 0, 0.5, 2])}
    zero = given[option][y] == 0 if option == "weight" else given[option] == 0
    clean = case.term(C)(double(z), y, **given), gradient(case.term(C), z, y, **given)
    z[zero.numpy()] = held
    found = case.term(C)(double(z), y, **given), gradient(case.term(C), z, y, **given)
    torch.testing.assert_close(found, clean, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["eager", "cpu"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside PyTorch's jvp
def test_a_weight_of_zero_that_is_learnt_has_its_derivative(kernel: str) -> None:
    """Σ s r has the derivative r in s, at s = 0 too: where learning to weight examples begins."""
    if not il.kernels.available(kernel):
        pytest.skip("needs numba")
    z, y = double(problems.rows(20, N, C)).requires_grad_(), torch.tensor([4, 0, 1, 1])
    sample, each = torch.zeros(N, dtype=torch.float64), torch.zeros(C, dtype=torch.float64)
    with il.kernels.use(kernel):
        rows = il.min_ent()(z, y, reduction="none")
        for name, weight in (("sample_weight", sample), ("weight", each)):
            w = weight.clone().requires_grad_()
            value = il.min_ent()(z, y, reduction="sum", **{name: w})
            (slope,) = torch.autograd.grad(value, w, create_graph=True)
            expected = rows if name == "sample_weight" else torch.zeros_like(each).index_add(0, y, rows)
            torch.testing.assert_close(slope, expected)
            (mixed,) = torch.autograd.grad(slope.square().sum(), z, retain_graph=True)
            assert mixed.abs().sum() > 0
        _, along = torch.func.jvp(
            lambda s: il.min_ent()(z.detach(), y, sample_weight=s, reduction="sum"),
            (sample,),
            (torch.ones_like(sample),),
        )
    torch.testing.assert_close(along, rows.sum().detach())


def test_a_class_alone_costs_nothing() -> None:
    """With every other class masked too, and in the gradient."""
    z = torch.tensor([[1.5, -torch.inf, -torch.inf], [0.3, 0.2, 0.1]], dtype=torch.float64)
    for name in ("cross_entropy", "normalized_cross_entropy", "squentropy", "focal", "jensen_shannon"):
        term = getattr(il, name)()
        assert term(z, torch.tensor([0, 1]), reduction="none")[0] == 0
        assert not gradient(term, z.numpy(), torch.tensor([0, 1]))[0].any()


def test_logits_farther_apart_than_their_type_can_say() -> None:
    z = torch.tensor([[3e38, -3e38, 0.0]]).requires_grad_()
    value = il.min_ent()(z, torch.tensor([0]))
    assert value == 0
    assert torch.autograd.grad(value, z)[0].tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_smoothing_spreads_over_the_unmasked_classes(case: Case) -> None:
    if case.soft == "none":
        pytest.skip("reads one label only")
    z, y = problems.rows(21, N, C), np.array([4, 0, 1, 1])
    z[0, 1] = z[1, 3] = z[1, 4] = z[3, 0] = -np.inf
    ours = case.term(C)(double(z), torch.tensor(y), label_smoothing=0.3)
    assert ours.isfinite()
    close(ours, case.reduction(z, y, label_smoothing=0.3))


@pytest.mark.parametrize("name", ["balanced_softmax", "pc_softmax", "logit_adjusted"])
def test_smoothing_beside_a_zero_count(name: str) -> None:
    """A class without examples is masked: it takes no part in smoothing, however the target is written."""
    case = next(c for c in CASES if c.name == name)
    z, y, kept = double(problems.rows(32, N, 3)), torch.tensor([0, 2, 2, 0]), [0, 2]
    shares = double([0.4, 0.0, 0.6])
    term, without = (getattr(il, name)(**{case.per_class: v}) for v in (shares, shares[kept]))
    expected = without(z[:, kept], y // 2, label_smoothing=0.1)
    w = torch.ones(3)
    for target in (y, F.one_hot(y, 3).double()):
        for options in ({}, {"weight": w}):
            torch.testing.assert_close(term(z, target, label_smoothing=0.1, **options), expected)


@pytest.mark.parametrize("case", SOFT, ids=by_name)
def test_a_one_hot_target_beside_a_mask_is_finite(case: Case) -> None:
    z, y = problems.rows(22, N, C), np.array([4, 0, 1, 1])
    z[:, 3] = -np.inf
    t = F.one_hot(torch.tensor(y), C).double()
    close(case.term(C)(double(z), t), case.reduction(z, y))
    close(gradient(case.term(C), z, t), oracles.gradient(lambda moved: case.reduction(moved, y), z))


@pytest.mark.parametrize("case", LOSSES, ids=by_name)
def test_a_masked_label_costs_infinity(case: Case) -> None:
    z, y = problems.rows(23, N, C), torch.tensor([4, 0, 1, 1])
    z[2, 1] = -np.inf
    targets = [y] if case.soft == "none" else [y, F.one_hot(y, C).double(), double(np.full((N, C), 1 / C))]
    for target in targets:
        values = case.term(C)(double(z), target, reduction="none")
        assert values.isfinite().tolist() == [True, True, False, True]
        assert values[2] == torch.inf
    assert case.term(C)(double(z), y) == torch.inf


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "regulariser"], ids=by_name)
def test_a_masked_label_is_nothing_to_a_regulariser(case: Case) -> None:
    z, y = problems.rows(23, N, C), np.array([4, 0, 1, 1])
    z[2, 1] = -np.inf
    close(case.term(C)(double(z), torch.tensor(y)), case.reduction(z, y))


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_a_fully_masked_row_raises(case: Case) -> None:
    z, y = problems.rows(24, N, C), torch.tensor([4, 0, 1, 1])
    z[2] = -np.inf
    with pytest.raises(ValueError, match=r"row.*2.*masked"):
        case.term(C)(double(z), y)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
@pytest.mark.parametrize("label", [C, -1, -99, 10**9])
def test_a_label_out_of_range_names_row_and_value(case: Case, label: int) -> None:
    y = torch.tensor([4, 0, label, 1])
    with pytest.raises(IndexError, match=rf"\b2\b.*{label}|{label}.*\b2\b"):
        case.term(C)(double(problems.rows(25, N, C)), y)


def test_a_label_out_of_range_in_a_dense_target_names_its_place() -> None:
    z, y = torch.zeros(2, C, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long)
    y[1, 2, 0] = 77
    with pytest.raises(IndexError, match=r"1, 2, 0.*77"):
        il.cross_entropy()(z, y)


@pytest.mark.parametrize("case", HARD_ONLY, ids=by_name)
def test_losses_of_one_label_refuse_probabilities_by_name(case: Case) -> None:
    z, t = double(problems.rows(26, N, C)), double(problems.distributions(26, N, C))
    y = torch.tensor([4, 0, 1, 1])
    with pytest.raises(ValueError, match=case.name):
        case.term(C)(z, t)
    with pytest.raises(ValueError, match=case.name):
        case.term(C)(z, y, label_smoothing=0.1)
    with pytest.raises(ValueError, match=case.name):
        (il.entropy() + case.term(C))(z, t)


def test_focal_s_gradient_flows_through_its_factor() -> None:
    """Copies that detach (1 − p)^γ train differently."""
    z, y = problems.rows(27, N, C), np.array([4, 0, 1, 1])
    ours = gradient(il.focal(gamma=2.0), z, torch.tensor(y))
    close(ours, oracles.gradient(lambda moved: oracles.reduction(oracles.focal, moved, y), z))
    logits = double(z).requires_grad_()
    p = logits.softmax(1)[torch.arange(N), torch.tensor(y)]
    stopped = ((1 - p).detach() ** 2 * -p.log()).mean()
    assert not torch.allclose(ours, torch.autograd.grad(stopped, logits)[0], rtol=0.05)


def test_the_two_pc_softmaxes_are_apart() -> None:
    """Probability-corrected (training, Qin): decide by argmax z. Post-compensated is another decision."""
    prior = double([0.98, 0.01, 0.01])
    z = double([[2.0, 1.9, 0.0]])
    term = il.pc_softmax(prior=prior)
    assert term.decision(z).tolist() == [0]
    assert (z - prior.log()).argmax(1).tolist() == [1]
    torch.testing.assert_close(term.probabilities(z), (z + prior.log()).softmax(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "average"}, "reduction.*average"),
        ({"label_smoothing": 1.5}, "label_smoothing.*1.5"),
        ({"label_smoothing": -0.1}, "label_smoothing.*-0.1"),
        ({"weight": torch.ones(C + 1)}, "weight.*6"),
        ({"sample_weight": torch.ones(N + 1)}, "sample_weight.*5"),
        ({"denominator": torch.ones(N)}, r"denominator must be one number, got shape \(4,\)"),
    ],
)
def test_wrong_options_name_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        il.cross_entropy()(torch.zeros(N, C), torch.zeros(N, dtype=torch.long), **options)


@pytest.mark.parametrize(
    ("logits", "target", "error", "message"),
    [
        (torch.zeros(N, C, dtype=torch.long), torch.zeros(N).long(), TypeError, "logits.*int64"),
        (torch.zeros(N, C), torch.zeros(N, dtype=torch.bool), TypeError, "target.*bool"),
        (torch.zeros(N, C), torch.zeros(N + 1).long(), ValueError, r"target.*\(4,\).*\(5,\)"),
        (torch.zeros(N, C), torch.zeros(N, C + 1), ValueError, r"target.*\(4, 5\).*\(4, 6\)"),
        (torch.zeros(N, C), torch.zeros(N), ValueError, r"target.*\(4, 5\).*\(4,\)"),
        (torch.zeros(N, 0), torch.zeros(N).long(), ValueError, "class"),
        (torch.tensor(0.0), torch.tensor(0), ValueError, "class"),
        ([[0.0, 1.0]], torch.tensor([0]), TypeError, "logits must be a tensor, got list"),
        (torch.zeros(N, C), np.zeros(N, np.int64), TypeError, "target must be a tensor, got ndarray"),
    ],
)
def test_wrong_shapes_and_dtypes_say_what_was_expected(
    logits: Any, target: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        il.cross_entropy()(logits, target)
