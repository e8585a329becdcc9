"""The loss and its gradient without a graph are those of a call and ``backward()``, to the last bit."""

from __future__ import annotations

import pytest
import torch

import infoloss as il

N, C = 37, 11
TERMS = ("cross_entropy", "min_ent", "squentropy", "logit_norm(tau=0.5)", "mae", "brier + 0.1*entropy")
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "denominator": {"denominator": 5.0},
    "label smoothing": {"label_smoothing": 0.1},
    "class weights": {"weight": torch.linspace(0.5, 2, C)},
    "row weights": {"sample_weight": torch.linspace(0, 1, N)},
}


def usual(loss, logits, target, **options):
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target, **options)
    value.backward()
    return value.detach(), z.grad


def case(dtype=torch.float32, classes=C):
    g = torch.Generator().manual_seed(3)
    logits = (3 * torch.randn(N, classes, generator=g)).to(dtype)
    target = torch.randint(0, classes, (N,), generator=g)
    target[5] = -100
    return logits, target


@pytest.mark.parametrize("kernel", ["eager", "cpu"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("term", TERMS)
def test_it_is_the_call_and_its_backward_pass(term, options, kernel):
    loss, (logits, target) = il.parse(term), case()
    with il.kernels.use(kernel):
        found, expected = (of(loss, logits, target, **options) for of in (type(loss).value_and_grad, usual))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("classes", [C, 600])
def test_other_types_and_sizes(dtype, classes):
    logits, target = case(dtype, classes)
    with il.kernels.use("cpu"):
        value, gradient = il.min_ent().value_and_grad(logits, target)
        expected = usual(il.min_ent(), logits, target)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])
    assert gradient.dtype == dtype


def test_soft_targets_and_planes_and_no_target():
    logits = torch.randn(2, 4, 3)
    soft = torch.rand(2, 4, 3).softmax(1)
    for target in (soft, torch.randint(0, 4, (2, 3))):
        found = il.cross_entropy().value_and_grad(logits, target)
        assert all(map(torch.equal, found, usual(il.cross_entropy(), logits, target)))
    assert all(map(torch.equal, il.entropy().value_and_grad(logits), usual(il.entropy(), logits, None)))


def test_the_model_gets_its_gradients_even_where_none_are_recorded():
    model, target = torch.nn.Linear(4, 3), torch.tensor([0, 2, 1])
    logits = model(torch.randn(3, 4))
    il.squentropy()(logits, target).backward(retain_graph=True)
    expected = model.weight.grad.clone()
    model.zero_grad()
    with torch.no_grad():
        _, gradient = il.squentropy().value_and_grad(logits, target, weight=torch.ones(3))
    logits.backward(gradient)
    torch.testing.assert_close(model.weight.grad, expected)


def test_coefficients_are_taken_and_learnt_ones_refused():
    logits, target = case()
    criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.3)
    expected = usual(criterion.term, logits, target, coefficients={"beta": torch.tensor(0.3)})
    assert all(map(torch.equal, criterion.value_and_grad(logits, target), expected))
    learning = il.Criterion("cross_entropy + beta*entropy", beta=0.3, learn=("beta",))
    with pytest.raises(ValueError, match="beta would get no gradient"):
        learning.value_and_grad(logits, target)


def test_wrong_input_is_named():
    logits, target = case()
    with pytest.raises(ValueError, match="reduction='none'; expected 'mean' or 'sum'"):
        il.focal().value_and_grad(logits, target, reduction="none")
    with pytest.raises(IndexError, match="11"):
        il.focal().value_and_grad(logits, target.clamp(min=11))
    with pytest.raises(TypeError, match="weights"):
        il.focal().value_and_grad(logits, target, weights=torch.ones(C))
