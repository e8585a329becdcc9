"""The gradient in the memory of the logits: where it may be, the same bits, and what raises afterwards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import problems
import pytest
import torch
from agreement import problem
from cases import CASES, Case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import infoloss as il

pytest.importorskip("numba")
from infoloss.kernels import host
from infoloss.kernels.cpu import rows
from infoloss.kernels.inputs import overwritable
from infoloss.rows import passes_of

SHAPES = [(7, 5), (3, 2 * rows.BLOCK + 1)]
"""In tiles; in rows of two blocks and a bit."""
INPLACE = "modified by an inplace operation"


@pytest.fixture(autouse=True)
def cpu_kernel() -> Any:
    with il.kernels.use("cpu"):
        yield


def logits_gradient(
    term: il.Term, leaf: Tensor, target: Tensor | None, overwrite: bool, **options: Any
) -> tuple[Tensor, Tensor, bool]:
    """Row values, the gradient of their sum with unequal weights, and whether it is where the logits were."""
    z = leaf.detach().clone().requires_grad_() * 1
    values = term(z, target, reduction="none", overwrite_logits=overwrite, **options)
    by = torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).reshape(values.shape)
    (g,) = torch.autograd.grad(values, z, by)
    return values.detach(), g, g.untyped_storage().data_ptr() == z.untyped_storage().data_ptr()


def same(term: il.Term, leaf: Tensor, target: Tensor | None, **options: Any) -> bool:
    """Whether the gradient takes the logits' memory; values and gradient are the same, bit by bit."""
    ordinary = logits_gradient(term, leaf, target, overwrite=False, **options)
    value, g, over = logits_gradient(term, leaf, target, overwrite=True, **options)
    assert not ordinary[2]
    assert torch.equal(value, ordinary[0])
    assert torch.equal(g, ordinary[1])
    return over


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_loss_has_the_same_gradient(case: Case, shape: tuple[int, int], dtype: torch.dtype) -> None:
    z, y, t = problem(*shape, dtype)
    term = case.term(shape[1])
    same(term, z, y)
    if case.soft != "none":
        same(term, z, t.float() if dtype == torch.bfloat16 else t)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_pass_over_the_logits_is_written_over(shape: tuple[int, int]) -> None:
    z, y, t = problem(*shape, torch.float32)
    counts = torch.arange(1.0, shape[1] + 1)
    one = il.squentropy() + il.max_suppression() + il.z_loss()
    for term in (
        one,
        one.shifted(counts).scaled(0.5),
        one.soft_capped(2.0),
        il.balanced_softmax(counts=counts),
    ):
        assert same(term, z, y)
        assert same(term, z, y, sample_weight=torch.rand(shape[0]))
    assert same(il.min_ent(), z, t)
    assert same(il.min_ent(), z, y, weight=counts, label_smoothing=0.1)
    assert same(il.min_ent(), z.half(), y)


def test_several_passes_are_written_over_where_the_call_is_plain() -> None:
    z, y, _ = problem(*SHAPES[1], torch.float32)
    prior = torch.softmax(torch.linspace(0, 1, z.shape[1], dtype=torch.float64), 0)
    term = il.pc_softmax(prior=prior) + il.entropy().scaled(0.5) + il.z_loss().scaled(2.0)
    assert len(passes_of(term.readings(), smoothing=False)) == 4  # one of them of the label alone
    assert same(term, z, y)
    assert not same(term, z, y, sample_weight=torch.rand(len(z)))


def test_a_norm_reads_the_logits_again() -> None:
    for shape in SHAPES:
        z, y, _ = problem(*shape, torch.float32)
        assert not same(il.logit_norm(), z, y)
        assert not same(il.logit_norm(), z, y, sample_weight=torch.rand(shape[0]))
        assert not same(il.cross_entropy() + il.entropy().normalized(0.3), z, y)


def test_any_layout() -> None:
    dense = torch.tensor(problems.rows(1, 2 * 3 * 5, 4)).reshape(2, 3, 5, 4).permute(0, 3, 1, 2)
    labels = torch.tensor(problems.labels(2, 2 * 3 * 5, 4)).reshape(2, 3, 5)
    assert same(il.min_ent(), dense, labels)
    assert same(il.min_ent(), dense.contiguous(), labels)
    cut = torch.tensor(problems.rows(1, 2, 2 * host.PART + 1)).float()
    assert same(il.squentropy() + il.max_suppression(), cut, torch.tensor([3, host.PART + 5]))
    leaf = torch.tensor(problems.rows(1, 7, 10)).requires_grad_()
    target = torch.tensor(problems.labels(2, 7, 5))
    found = []
    for overwrite in (False, True):
        il.min_ent()(1 * leaf[:, ::2], target, overwrite_logits=overwrite).backward()
        wide = leaf * 1
        il.min_ent()(wide[:, 1::2], target, reduction="sum", overwrite_logits=overwrite).backward()
        found.append(leaf.grad)
        leaf.grad = None
    assert torch.equal(found[0], found[1])


class Largest(TorchDispatchMode):
    """The bytes of the largest storage that an operation returns and did not get."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for one in tree_leaves(found):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in known:
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return found


@pytest.mark.parametrize("options", [{}, {"weight": torch.ones(1009)}], ids=["plain", "general"])
def test_the_backward_pass_makes_nothing_of_the_logits_size(options: dict[str, Tensor]) -> None:
    made = {}
    for overwrite in (False, True):
        z = torch.zeros(67, 1009, requires_grad=True).mul(1)
        value = il.min_ent()(z, torch.zeros(67, dtype=torch.int64), overwrite_logits=overwrite, **options)
        with Largest() as largest:
            torch.autograd.grad(value, z)
        made[overwrite] = largest.bytes / z.nbytes
    assert made[False] >= 1
    assert made[True] < 0.1


@pytest.mark.parametrize("options", [{}, {"sample_weight": torch.ones(67)}], ids=["plain", "general"])
def test_what_needs_the_logits_afterwards_raises(options: dict[str, Tensor]) -> None:
    leaf, y = torch.randn(67, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    loss = il.min_ent()
    value = loss(leaf * 1, y, overwrite_logits=True, **options)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=INPLACE):
        value.backward()

    z = leaf * 1
    twice = z.square().sum()  # is differentiated after the loss, which came later
    with pytest.raises(RuntimeError, match=INPLACE):
        (loss(z, y, overwrite_logits=True, **options) + twice).backward()
    z = leaf.exp()  # whose derivative is itself
    with pytest.raises(RuntimeError, match=INPLACE):
        loss(z, y, overwrite_logits=True, **options).backward()
    first, second = (leaf * 1).split([30, 37])  # one tensor to PyTorch
    value = loss(first, y[:30], overwrite_logits=True) + loss(second, y[30:], overwrite_logits=True)
    with pytest.raises(RuntimeError, match="modified inplace"):
        value.backward()


def test_what_needs_the_logits_before_is_right() -> None:
    found = []
    for overwrite in (False, True):
        leaf = torch.linspace(-1, 1, 67 * 1009).reshape(67, 1009).requires_grad_()
        z = leaf * 1
        value = il.min_ent()(z, torch.zeros(67, dtype=torch.int64), overwrite_logits=overwrite)
        z.retain_grad()
        (value + z.square().mean()).backward()  # the square is differentiated first
        found.append((leaf.grad, z.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_leaves_are_left_alone() -> None:
    leaf, y = torch.randn(67, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    before = leaf.detach().clone()
    for z in (leaf, leaf[:, ::2], leaf.view(67, 1009), leaf.reshape(67 * 1009).unflatten(0, (67, 1009))):
        value = il.min_ent()(z, y, overwrite_logits=True)
        value.backward(retain_graph=True)
        value.backward()
        assert torch.equal(leaf, before)


def test_elements_that_share_memory_are_left_alone() -> None:
    row, y = torch.randn(1, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    z = (row * 1).expand(67, 1009)
    il.min_ent()(z, y, overwrite_logits=True).backward()
    (expected,) = torch.autograd.grad(il.min_ent()(row.expand(67, 1009), y), row)
    assert torch.equal(row.grad, expected)
    whole = torch.zeros(4000, requires_grad=True) * 1
    assert overwritable(whole.as_strided((3, 5), (7, 1)))
    assert overwritable(whole.as_strided((3, 5, 2), (1, 6, 3)))
    assert not overwritable(whole.as_strided((3, 5), (4, 1)))
    assert not overwritable(whole.as_strided((3, 5, 2), (1, 6, 2)))


def test_without_the_version_counter_there_is_no_writing_over() -> None:
    """Hooks on saved tensors take the place of PyTorch's check."""
    leaf, y = torch.randn(67, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        value = il.min_ent()(leaf * 1, y, overwrite_logits=True)
    (first,) = torch.autograd.grad(value, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(value, leaf)
    assert torch.equal(first, second)


def test_higher_derivatives_have_memory_of_their_own() -> None:
    leaf, y = (
        torch.randn(67, 101, dtype=torch.float64, requires_grad=True),
        torch.zeros(67, dtype=torch.int64),
    )
    found = []
    for overwrite in (False, True):
        z = leaf * 1
        value = il.min_ent()(z, y, overwrite_logits=overwrite)
        (first,) = torch.autograd.grad(value, z, create_graph=True)
        found.append((first.detach(), *torch.autograd.grad(first.square().sum(), leaf)))
        assert torch.equal(z, leaf)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside PyTorch's jvp
def test_elsewhere_it_changes_nothing() -> None:
    leaf, y = torch.randn(67, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    loss = il.min_ent()
    (expected,) = torch.autograd.grad(loss(leaf, y), leaf)

    def overwriting(x: Tensor) -> Tensor:
        return loss(x * 1, y, overwrite_logits=True)

    compiled = torch.compile(overwriting, backend="aot_eager", fullgraph=True)
    with il.kernels.use("eager"):
        eager = torch.autograd.grad(overwriting(leaf), leaf)[0]
    for g in (torch.autograd.grad(compiled(leaf), leaf)[0], torch.func.grad(overwriting)(leaf), eager):
        torch.testing.assert_close(g, expected)
    with torch.no_grad():
        z = leaf * 1
        assert loss(z, y, overwrite_logits=True) == loss(leaf, y)
        assert torch.equal(z, leaf)


def test_the_parts_and_a_criterion_take_it_too() -> None:
    leaf, y = torch.randn(67, 1009, requires_grad=True), torch.zeros(67, dtype=torch.int64)
    criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.1)
    for ask in (criterion, lambda *args, **options: criterion.parts(*args, **options).loss):
        z = leaf * 1
        (g,) = torch.autograd.grad(ask(z, y, overwrite_logits=True), z)
        assert g.data_ptr() == z.data_ptr()


def test_the_page() -> None:
    """The example of docs/kernels.md writes over the logits that it makes."""
    page = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text(encoding="utf-8")
    (block,) = (
        b for b in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "overw" in b
    )
    names: dict[str, Any] = {}
    exec(block, names)
    z = names["head"](names["hidden"])
    names["loss"](z, names["target"], overwrite_logits=True).backward()
    assert z._version == 1
