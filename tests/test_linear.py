"""A linear head in blocks against the unfused form, F.linear and then the term."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import CASES, Case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import infoloss as il
from infoloss.kernels import class_tiles, linear

TWO_LOSSES = pytest.mark.filterwarnings("ignore:.* adds two losses")  # two sets of moments are wanted
R, D, C = 11, 3, 7  # primes: no block divides the rows, and no two axes can be exchanged unseen


@pytest.fixture(autouse=True, params=[(1 << 26, 1 << 22), (4 * C, 2 * C), (C, 1)], ids=["one", "few", "rows"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """One block; blocks of up to four rows read two at a time, the last one shorter; single rows."""
    block, part = request.param
    monkeypatch.setattr(linear, "BLOCK", block)
    monkeypatch.setattr(linear, "PART", part)
    monkeypatch.setattr(linear, "TILE", 2 * D)  # of half-precision weights: two classes
    return block, part


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def head(seed: int = 0, rows: int = R) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, weight and bias, all to be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, D), (C, D), (C,)]
    return tuple(  # type: ignore[return-value]
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    )


def gradients(result: Tensor, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Of a weighted sum of the result, so that rows of a result without reduction differ."""
    weights = torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
    of = [t for t in tensors if t is not None and t.requires_grad]
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
    return torch.autograd.grad((result * weights).sum(), of, **options)


def agree(ours: Tensor, unfused: Tensor, tensors: tuple[Tensor | None, ...]) -> None:
    torch.testing.assert_close(ours, unfused, rtol=1e-11, atol=1e-12)
    for one, other in zip(gradients(ours, tensors), gradients(unfused, tensors), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def labels() -> Tensor:
    y = torch.tensor(problems.labels(2, R, C))
    y[3] = y[9] = -100
    return y


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_loss(case: Case) -> None:
    h, w, b = head()
    term = case.term(C)
    targets: list[Tensor] = [labels()]
    if case.soft != "none":
        targets.append(double(problems.distributions(3, R, C)))
    for target, how in itertools.product(targets, ("mean", "none")):
        ours = term.linear(h, w, target, linear_bias=b, reduction=how)
        agree(ours, term(F.linear(h, w, b), target, reduction=how), (h, w, b))


VIEWS = {
    "scaled": lambda term: term.scaled(0.5),
    "shifted": lambda term: term.shifted(list(range(C))),
    "masked": lambda term: term.shifted([*range(C - 1), float("-inf")]),
    "normalized": lambda term: term.normalized(0.3),
    "soft_capped": lambda term: term.soft_capped(2.0),
    "two": lambda term: term.soft_capped(2.0).scaled(3.0) + 0.5 * term,
}


@pytest.mark.parametrize("view", VIEWS)
@TWO_LOSSES
def test_every_view(view: str) -> None:
    h, w, b = head()
    y = labels() % (C - 1)  # the last class may be masked
    term = VIEWS[view](il.squentropy() + 0.1 * il.entropy() + il.max_suppression())
    agree(term.linear(h, w, y, linear_bias=b), term(F.linear(h, w, b), y), (h, w, b))


def test_a_class_masked_by_the_bias() -> None:
    h, w, _ = head()
    bias = torch.zeros(C, dtype=torch.float64)
    bias[2] = -torch.inf
    y = torch.where(labels() == 2, 0, labels())
    ours, unfused = (il.min_ent().linear(h, w, y, linear_bias=bias), il.min_ent()(F.linear(h, w, bias), y))
    agree(ours, unfused, (h, w))


WEIGHTS: dict[str, Tensor | None] = {
    "weight": double([0.5, 2.0, 0.0, 1.5, 1.0, 3.0, 1.0]),
    "sample_weight": torch.linspace(0, 2, R, dtype=torch.float64),
    "denominator": double(7.5),
}


@TWO_LOSSES
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_every_combination_of_options(reduction: str, soft: bool) -> None:
    """Class weight × sample weight × denominator × smoothing × ignored label × bias."""
    term = il.min_ent() + il.squentropy(alpha=0.5).scaled(0.5) * 0.1
    target = double(problems.distributions(3, R, C)) if soft else labels()
    for chosen in itertools.product((False, True), repeat=6):
        options: dict[str, Any] = {
            name: None if value is None else value.clone().requires_grad_()
            for (name, value), on in zip(WEIGHTS.items(), chosen[:3], strict=True)
            if on
        }
        if reduction != "mean" and "denominator" in options:
            continue
        smoothing, ignored, with_bias = chosen[3:]
        options |= {"label_smoothing": 0.2 if smoothing else 0.0, "reduction": reduction}
        options |= {"ignore_index": 1 if ignored else -100}
        h, w, b = head()
        y = target.where(target != -100, 1) if ignored and not soft else target
        bias = b if with_bias else None
        ours = term.linear(h, w, y, linear_bias=bias, **options)
        others = tuple(options.get(name) for name in WEIGHTS)
        agree(ours, term(F.linear(h, w, bias), y, **options), (h, w, bias, *others))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_shift(reduction: str) -> None:
    """Position t is predicted at t − shift; weights stand where their targets do."""
    h = torch.randn(2, 5, D, dtype=torch.float64).requires_grad_()
    _, w, b = head()
    y = torch.tensor(problems.labels(2, 10, C)).reshape(2, 5)
    y[0, 2], y[1, 0] = -100, 10**6  # what nobody predicts is not looked at
    t = double(problems.distributions(3, 10, C)).reshape(2, 5, C)
    s = torch.linspace(0.1, 2, 10, dtype=torch.float64).reshape(2, 5)
    term = il.min_ent()
    for shift, target in itertools.product((1, 2, 5), (y, t)):
        options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
        ours = term.linear(h, w, target, linear_bias=b, sample_weight=s, shift=shift, **options)
        logits = F.linear(h[:, : 5 - shift], w, b).movedim(-1, 1)
        kept = target[:, shift:] if target is y else target[:, shift:].movedim(-1, 1)
        unfused = term(logits, kept, sample_weight=s[:, shift:], **options)
        assert ours.shape == unfused.shape
        agree(ours, unfused, (h, w, b))


def test_states_of_any_layout() -> None:
    _, w, b = head()
    states = torch.randn(4, 2, D, 3, dtype=torch.float64)
    for h in (
        states[0, 0, :, 0],
        states[0, :, :, 0],
        states.transpose(2, 3),
        states[:, 0, :, 0].T.contiguous().T,
    ):
        h = h.requires_grad_() if h.is_leaf else h.detach().requires_grad_()
        y = torch.arange(h[..., 0].numel()).reshape(h.shape[:-1]) % C
        logits = F.linear(h, w, b)
        unfused = il.min_ent()(logits if h.ndim <= 2 else logits.movedim(-1, 1), y, reduction="none")
        agree(il.min_ent().linear(h, w, y, linear_bias=b, reduction="none"), unfused, (h, w, b))


def test_nothing_that_counts() -> None:
    h, w, b = head()
    y = torch.full((R,), -100)
    for how in ("mean", "sum", "none"):
        agree(
            il.min_ent().linear(h, w, y, linear_bias=b, reduction=how),
            il.min_ent()(F.linear(h, w, b), y, reduction=how),
            (h, w, b),
        )
    assert il.min_ent().linear(h[:0], w, y[:0]) == 0


def test_a_term_that_reads_no_target_and_one_that_reads_no_logit() -> None:
    h, w, b = head()
    agree(il.entropy().linear(h, w, linear_bias=b), il.entropy()(F.linear(h, w, b)), (h, w, b))
    value = il.statistic("classes").linear(h, w)
    assert value.item() == pytest.approx(C)
    assert all((g == 0).all() for g in gradients(value, (h, w)))


def test_coefficients_with_gradients() -> None:
    """Named, tensors in the tree, one a row; one computed from another."""
    h, w, b = head()
    y = labels()
    alpha = double(0.7).requires_grad_()
    beta = alpha.exp()
    temperature = torch.linspace(0.5, 2, R, dtype=torch.float64).requires_grad_()
    tree = (
        il.cross_entropy().scaled(temperature)
        + alpha * il.entropy().scaled(temperature)
        + il.z_loss(weight=beta)
    )
    term = tree + il.parse("gamma * confidence_penalty")
    for how in ("mean", "none"):
        options: dict[str, Any] = {"coefficients": {"gamma": beta * 2}, "reduction": how}
        ours = term.linear(h, w, y, linear_bias=b, **options)
        agree(ours, term(F.linear(h, w, b), y, **options), (h, w, b, alpha, temperature))


def test_parts() -> None:
    h, w, b = head()
    term = il.min_ent() + 0.1 * il.entropy() + 0.2 * il.entropy().scaled(0.5)
    for target in (labels(), double(problems.distributions(3, R, C))):
        for options in ({}, {"sample_weight": WEIGHTS["sample_weight"], "weight": WEIGHTS["weight"]}):
            ours = term.linear_parts(h, w, target, linear_bias=b, **options)
            unfused = term.parts(F.linear(h, w, b), target, **options)
            assert ours._fields == unfused._fields
            agree(ours.loss, unfused.loss, (h, w, b))
            for one, other in zip(ours[1:], unfused[1:], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
                assert not one.requires_grad


# Gradients: when, how often, of what


def test_backward_again_through_a_retained_graph() -> None:
    h, w, b = head()
    loss = il.min_ent().linear(h, w, labels(), linear_bias=b)
    first = torch.autograd.grad(3 * loss, (h, w, b), retain_graph=True)
    second = torch.autograd.grad(5 * loss, (h, w, b))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one / 3, other / 5)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, (h, w, b))


@pytest.mark.parametrize("changed", ["target", "weight", "sample_weight", "beta", "learnt"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_was_changed_before_the_backward_pass(reduction: str, changed: str) -> None:
    """It makes the logits again, and everything that is read beside them has to be what it was."""
    h, w, _ = head()
    y = labels()
    learnt = torch.tensor(0.1, dtype=h.dtype, requires_grad=True)
    given = {
        "target": y,
        "weight": torch.ones(len(w), dtype=h.dtype),
        "sample_weight": torch.ones(y.shape, dtype=h.dtype),
        "beta": torch.tensor(0.1, dtype=h.dtype),
        "learnt": learnt,
    }
    value = il.parse("cross_entropy + beta*entropy + learnt*z_loss").linear(
        h, w, y, weight=given["weight"], sample_weight=given["sample_weight"], reduction=reduction,
        coefficients={name: given[name] for name in ("beta", "learnt")},
    )  # fmt: skip
    with torch.no_grad():
        given[changed].fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)], ids=str)
def test_only_the_gradients_that_are_wanted(wanted: tuple[int, ...]) -> None:
    h, w, b = (t.detach().requires_grad_(i in wanted) for i, t in enumerate(head()))
    agree(
        il.min_ent().linear(h, w, labels(), linear_bias=b),
        il.min_ent()(F.linear(h, w, b), labels()),
        (h, w, b),
    )


def test_without_gradients() -> None:
    h, w, b = head()
    with torch.no_grad():
        value = il.min_ent().linear(h, w, labels(), linear_bias=b)
    assert not value.requires_grad
    torch.testing.assert_close(value, il.min_ent()(F.linear(h, w, b), labels()))


def test_a_head_that_shares_its_weight_with_the_states() -> None:
    """The embedding of tied language models: both gradients arrive at one tensor."""
    _, w, _ = head()
    y = torch.tensor([0, 4, 2])
    ours = il.min_ent().linear(w[[1, 2, 3]], w, y)
    agree(ours, il.min_ent()(w[[1, 2, 3]] @ w.T, y), (w,))


@pytest.mark.parametrize("how", ["mean", "none"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside PyTorch's jvp
def test_what_it_cannot_do_is_said(how: str) -> None:
    h, w, _ = head()
    y = labels()

    def loss(weight: Tensor) -> Tensor:
        return il.min_ent().linear(h, weight, y, reduction=how).sum()

    with pytest.raises(RuntimeError, match=r"first derivatives only .*; compute the logits"):
        torch.autograd.grad(loss(w), w, create_graph=True)
    with pytest.raises(RuntimeError, match=r"one gradient at a time .*; compute the logits"):
        torch.autograd.grad(loss(w), w, torch.ones(3), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"no torch\.func transform"):
        torch.func.grad(loss)(w)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        loss(torch.autograd.forward_ad.make_dual(w, w))


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # inside the compiler
def test_under_compile_the_graph_breaks_and_the_result_is_the_same() -> None:
    h, w, b = head()
    y = labels()
    torch.compiler.reset()
    compiled = torch.compile(lambda x: 2 * il.min_ent().linear(x * 1, w, y, linear_bias=b), backend="eager")
    agree(compiled(h), 2 * il.min_ent()(F.linear(h, w, b), y), (h, w, b))


# Precision and memory


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_precision(dtype: torch.dtype, reduction: str) -> None:
    """No worse than three times the unfused form in the same dtype, each against float64, and an ulp."""
    term = il.min_ent() + il.z_loss()
    half = tuple(t.detach().to(dtype).requires_grad_() for t in head(rows=R))
    exact = tuple(t.detach().double().requires_grad_() for t in half)
    y = labels()

    def values(h: Tensor, w: Tensor, b: Tensor, fused: bool) -> list[Tensor]:
        result = (
            term.linear(h, w, y, linear_bias=b, reduction=reduction)
            if fused
            else term(F.linear(h, w, b), y, reduction=reduction)
        )
        return [result, *gradients(result, (h, w, b))]

    results = (values(*half, fused=True), values(*half, fused=False), values(*exact, fused=False))
    for ours, unfused, truth in zip(*results, strict=True):
        assert ours.dtype == unfused.dtype
        error, budget = ((x.double() - truth).abs().max() for x in (ours, unfused))
        assert error <= 3 * budget + torch.finfo(ours.dtype).eps * truth.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_products_with_sums_in_float32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, with a product that stands for the GPU's: a float16 gradient must not underflow."""
    product = torch.mm

    def mm(
        a: Tensor, b: Tensor, *, out_dtype: torch.dtype | None = None, out: Tensor | None = None
    ) -> Tensor:
        assert a.dtype == b.dtype
        result = product(a.to(out_dtype), b.to(out_dtype)) if out_dtype else product(a, b)
        return result if out is None else out.copy_(result)

    half = tuple(t.detach().to(dtype).requires_grad_() for t in head())
    exact = tuple(t.detach().double().requires_grad_() for t in half)
    tiny = {"denominator": 1e7}  # gradients of 1e-8: below the smallest float16, before a loss scale of 1e7
    value = il.min_ent()(F.linear(*exact), labels(), **tiny)
    with monkeypatch.context() as patch:
        patch.setattr(linear.Head, "half_products", True)
        patch.setattr(torch, "mm", mm)
        ours = il.min_ent().linear(half[0], half[1], labels(), linear_bias=half[2], **tiny)
        found = torch.autograd.grad(1e7 * ours, half)
    torch.testing.assert_close(ours.double(), value, rtol=1e-5, atol=0.0)
    for one, other in zip(found, torch.autograd.grad(1e7 * value, exact), strict=True):
        error = (one.double() - other).abs().max()
        assert error <= 2 * torch.finfo(dtype).eps * other.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("tiles", [False, True], ids=["rows", "tiles"])
def test_on_a_gpu(dtype: torch.dtype, reduction: str, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiles:
        monkeypatch.setattr(linear, "BLOCK", 1)
        monkeypatch.setattr(class_tiles, "TILE", 0)
        monkeypatch.setattr(class_tiles, "CLASSES", 3)
    h, w, b = exact = tuple(t.detach().to(dtype).double().requires_grad_() for t in head())
    on = tuple(t.detach().to("cuda", dtype).requires_grad_() for t in exact)
    ours = il.min_ent().linear(on[0], on[1], labels().cuda(), linear_bias=on[2], reduction=reduction)
    value = il.min_ent()(F.linear(h, w, b), labels(), reduction=reduction)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double().cpu(), value, rtol=1e-5 if eps > 1e-6 else 1e-10, atol=1e-6)
    for one, other in zip(
        torch.autograd.grad(ours.sum(), on), torch.autograd.grad(value.sum(), exact), strict=True
    ):
        assert (one.double().cpu() - other).abs().max() <= 4 * eps * other.abs().max()


def test_autocast() -> None:
    h, w, b = (t.detach().float().requires_grad_() for t in head())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = il.min_ent().linear(h, w, labels(), linear_bias=b)
        unfused = il.min_ent()(F.linear(h, w, b), labels())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, unfused, rtol=0.02, atol=0.0)  # bfloat16 has eight bits
    for one, other in zip(gradients(ours, (h, w, b)), gradients(unfused, (h, w, b)), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.01)


class Sizes(TorchDispatchMode):
    """The largest number of elements of a tensor that an operation returned, stride-0 axes not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@TWO_LOSSES
@pytest.mark.parametrize("kernel", ["eager", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_logits_are_never_in_memory(
    kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not il.kernels.available(kernel):
        pytest.skip("needs numba")
    rows, classes = 64, 50
    monkeypatch.setattr(linear, "BLOCK", 8 * classes)
    h = torch.randn(rows, D, dtype=dtype).requires_grad_()
    w, b = torch.randn(classes, D, dtype=dtype).requires_grad_(), torch.zeros(classes, dtype=dtype)
    y = torch.arange(rows) % classes
    y[5] = -100
    term = il.min_ent() + il.balanced_softmax(counts=range(1, classes + 1)) * 0.5

    def largest(run: Any) -> int:
        with Sizes() as sizes, il.kernels.use(kernel):
            run()
        return sizes.largest

    bound = 8 * classes
    options = {"label_smoothing": 0.1, "weight": torch.ones(classes), "linear_bias": b}
    assert largest(lambda: term.linear(h, w, y, **options).backward()) <= bound
    assert largest(lambda: term.linear(h, w, y, reduction="none", **options).sum().backward()) <= bound
    assert largest(lambda: term.linear_parts(h, w, y, **options)) <= bound
    assert largest(lambda: sum(il.row_statistics_linear(h, w, y).values()).sum().backward()) <= bound
    assert largest(lambda: term(F.linear(h, w, b), y)) >= rows * classes  # what is to be avoided is seen


# Numbers per row


def test_row_statistics() -> None:
    h, w, b = head()
    names = ("log_probability", "entropy", "lse", "collision", "target_probability", "max_logit")
    y = labels()
    kept = y != -100
    for temperature in (None, 0.7, torch.linspace(0.5, 2, R, dtype=torch.float64).requires_grad_()):
        found = il.row_statistics_linear(h, w, y, needs=names, linear_bias=b, temperature=temperature)
        divisor = torch.as_tensor(1.0 if temperature is None else temperature, dtype=torch.float64)
        z = F.linear(h, w, b) / divisor.reshape(-1, 1)
        expected = il.row_statistics(z, y, needs=names[2:])
        log_q = torch.log_softmax(z, -1)
        expected["log_probability"] = torch.where(kept, log_q[range(R), y.clamp(min=0)], 0)
        expected["entropy"] = torch.where(kept, -(log_q.exp() * log_q).sum(-1), 0)
        assert list(found) == list(names)
        for name in names:
            tensors = (h, w, b, temperature if isinstance(temperature, Tensor) else None)
            agree(found[name], expected[name], tensors)


def test_log_probabilities_of_a_sequence() -> None:
    h = torch.randn(2, 4, D, dtype=torch.float64).requires_grad_()
    _, w, b = head()
    y = torch.tensor(problems.labels(2, 8, C)).reshape(2, 4)
    found = il.row_statistics_linear(h, w, y, linear_bias=b, shift=1)
    log_q = torch.log_softmax(F.linear(h[:, :-1], w, b), -1)
    agree(found["log_probability"], log_q.gather(-1, y[:, 1:, None]).squeeze(-1), (h, w, b))
    agree(found["entropy"], -(log_q.exp() * log_q).sum(-1), (h, w, b))


def test_a_masked_label_has_probability_0() -> None:
    h, w, _ = head()
    bias = torch.zeros(C, dtype=torch.float64)
    bias[0] = -torch.inf
    found = il.row_statistics_linear(h, w, torch.zeros(R, dtype=torch.int64), linear_bias=bias)
    assert (found["log_probability"] == -torch.inf).all()
    assert found["entropy"].isfinite().all()


# The module


@pytest.mark.parametrize("learn", [(), ("beta",)], ids=["scheduled", "learnt"])
def test_a_training_step_of_the_module(learn: tuple[str, ...]) -> None:
    def step(fused: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        body, layer = torch.nn.Linear(4, D).double(), torch.nn.Linear(D, C).double()
        x, y = torch.randn(R, 4, dtype=torch.float64), labels()
        make = il.LinearCriterion if fused else il.Criterion
        arguments = ("cross_entropy + beta * entropy", *((layer,) if fused else ()))
        criterion = make(*arguments, beta=0.3, learn=learn).double()
        modules = torch.nn.ModuleList([body, layer, criterion])
        optimiser = torch.optim.SGD(modules.parameters(), lr=0.5, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            hidden = body(x)
            criterion(hidden if fused else layer(hidden), y, label_smoothing=0.1).backward()
            optimiser.step()
        state = {**body.state_dict(), **{f"head.{k}": v for k, v in layer.state_dict().items()}}
        return {**state, "beta": criterion.beta.detach()}

    ours, unfused = step(fused=True), step(fused=False)
    for name in unfused:
        torch.testing.assert_close(ours[name], unfused[name], rtol=1e-9, atol=1e-12)


def test_the_module_at_test_time() -> None:
    layer = torch.nn.Linear(D, C)
    criterion = il.LinearCriterion("rescaled_square", layer)
    hidden = torch.randn(2, 5, D)
    logits = layer(hidden).movedim(-1, 1)
    assert torch.equal(criterion.decision(hidden), criterion.term.decision(logits))
    torch.testing.assert_close(
        criterion.probabilities(hidden), criterion.term.probabilities(logits).movedim(1, -1)
    )
    parts = criterion.parts(hidden, torch.zeros(2, 5, dtype=torch.int64))
    assert parts._fields == ("loss", "rescaled_square", "accuracy")
    assert {"head.weight", "head.bias"} == set(criterion.state_dict())
    assert repr(criterion).startswith("LinearCriterion(rescaled_square(")


# Complaints


class Adapted(torch.nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_complaints() -> None:
    h, w, b = head()
    y = labels()
    loss = il.min_ent()
    with pytest.raises(ValueError, match=r"hidden must have shape \(…, D\) and linear_weight \(C, D\)"):
        loss.linear(h, w.T, y)
    with pytest.raises(ValueError, match=r"linear_bias must have shape \(7,\), got \(3,\)"):
        loss.linear(h, w, y, linear_bias=b[:3])
    with pytest.raises(TypeError, match="one floating-point dtype, got hidden"):
        loss.linear(h.float(), w, y)
    with pytest.raises(ValueError, match=r"class indices must have shape \(11,\)"):
        loss.linear(h, w, y[:5])
    with pytest.raises(ValueError, match=r"output \(11, 7\), got \(11, 3\)"):
        loss.linear(h, w, torch.rand(R, 3))
    with pytest.raises(ValueError, match=r"target\.detach"):
        loss.linear(h, w, torch.rand(R, C).requires_grad_())
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(11,\)"):
        loss.linear(h, w, y, sample_weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"shift must be a whole number ≥ 0 .* got -1"):
        loss.linear(h, w, y, shift=-1)
    with pytest.raises(ValueError, match='reduction must be "none", "mean" or "sum"'):
        loss.linear(h, w, y, reduction="average")
    with pytest.raises(ValueError, match="has no value for beta"):
        il.parse("cross_entropy + beta*entropy").linear(h, w, y)
    with pytest.raises(ValueError, match="reads the target"):
        loss.linear(h, w)
    with pytest.raises(ValueError, match=r"one value a row \(11\), got shape \(2,\)"):
        loss.scaled(torch.ones(2)).linear(h, w, y)
    with pytest.raises(ValueError, match="class indices only"):
        il.focal().linear(h, w, y, label_smoothing=0.1)
    y[4] = C
    with pytest.raises(IndexError, match=r"target\[4\] is 7"):
        loss.linear(h, w, y)
    with pytest.raises(ValueError, match="unknown statistic 'entropies'"):
        il.row_statistics_linear(h, w, needs=("entropies",))
    with pytest.raises(ValueError, match="reads the target"):
        il.row_statistics_linear(h, w)
    with pytest.raises(ValueError, match="temperature is a number or has shape"):
        il.row_statistics_linear(h, w, labels(), temperature=torch.ones(2))
    with pytest.raises(TypeError, match=r"an nn\.Linear with its own forward, got Adapted"):
        il.LinearCriterion("min_ent", Adapted(D, C))


def slices() -> Iterator[tuple[int, int, int]]:
    yield from itertools.product((0, 1, 2, 7, 64), (1, 5), (1, 6, 1000))


def test_blocks_cover_every_row_once() -> None:
    for rows, classes, elements in slices():
        found = list(linear.blocks(rows, classes, elements))
        assert [i for one in found for i in range(one.start, one.stop)] == list(range(rows))
        assert found
        assert all((one.stop - one.start) * classes <= max(elements, classes) for one in found)


def test_the_page() -> None:
    """The examples of docs/linear.md run, one after the other."""
    page = (Path(__file__).parent.parent / "docs" / "linear.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["values"]["entropy"].shape == (3, 15)
    assert len(blocks) == 3
