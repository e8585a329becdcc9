"""A linear head whose classes are spread over ranks, in blocks of rows, against F.linear on one rank."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import problems
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from cases import CASES, Case
from sharded_checks import Check, Here
from torch import Tensor

import infoloss as il
from infoloss.kernels import linear

R, D = 7, 3
Tensors = tuple[Tensor, Tensor, Tensor]


def in_blocks(check: Check) -> Check:
    """Blocks of four rows that are read two at a time; half-precision weights two classes at a time."""

    @functools.wraps(check)
    def inside(here: Here) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear, "BLOCK", 4 * here.shard.largest)
            patch.setattr(linear, "PART", 2 * here.shard.largest)
            patch.setattr(linear, "TILE", 2 * D)
            check(here)

    return inside


def head(here: Here, *, own: bool = False, rows: int = R, dtype: torch.dtype = torch.float64) -> Tensors:
    """Hidden states, weight and bias, all to be differentiated; ``own``: of this rank's classes.

    The first two classes are masked: they are all that the first of four ranks has. In the third row,
    a class of the first shard that is left and the last of all share the maximum.
    """
    generator = torch.Generator().manual_seed(7)
    sizes = [(rows, D), (here.classes, D), (here.classes,)]
    h, w, b = (torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes)
    b[:2], b[2], b[-1] = -torch.inf, 5.0, 5.0
    if rows > 2:
        h[2] = 0.0
    if own:
        w, b = w[here.columns], b[here.columns]
    return h.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()


def labels(here: Here) -> Tensor:
    """Of unmasked classes, the last one among them; two rows are ignored."""
    y = torch.tensor(problems.labels(2, R, here.classes - 2)) + 2
    y[0], y[3], y[5] = here.classes - 1, -100, -100
    return y


def distributions(here: Here) -> Tensor:
    t = torch.tensor(problems.distributions(3, R, here.classes))
    t[:, :2] = 0
    return t


def own_part(here: Here, target: Tensor | None) -> Tensor | None:
    """What this rank is to be given of a target whose classes are the last axis."""
    soft = target is not None and target.is_floating_point()
    return target[..., here.columns].clone() if soft else target  # type: ignore[index]


def weighted(value: Tensor) -> Tensor:
    """A sum in which the rows of a result without reduction differ."""
    return (value * torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)).sum()


def same(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def same_parts(ours: Any, expected: Any) -> None:
    assert ours._fields == expected._fields
    same(tuple(ours[:-1]), tuple(expected[:-1]))
    torch.testing.assert_close(ours.accuracy, expected.accuracy)  # float32, added up over blocks


def same_gradients(here: Here, ours: Tensor, own: Tensors, expected: Tensor, whole: Tensors) -> None:
    """All of the hidden states' on every rank, this rank's rows of the weight's and the bias's."""
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
    found = torch.autograd.grad(weighted(ours), own, **options)
    h, w, b = torch.autograd.grad(weighted(expected), whole, **options)
    same(found, (h, w[here.columns], b[here.columns]))


def agree(here: Here, term: Any, target: Tensor | None, **options: Any) -> None:
    """Value and gradients of the shard in blocks against the logits of the whole head."""
    own, whole = head(here, own=True), head(here)
    h, w, b = own
    part = own_part(here, target)
    ours = term.linear(h, w, part, linear_bias=b, group=here.shard, **options)
    expected = term(F.linear(*whole), target, **options)
    same(ours, expected)
    same_gradients(here, ours, own, expected, whole)


def every_loss(case: Case) -> Check:
    @in_blocks
    def check(here: Here) -> None:
        term = case.term(here.classes)
        y = labels(here)
        agree(here, term, y, reduction="none", weight=here.weight)
        if case.soft != "none":
            agree(here, term, y, label_smoothing=0.1)
            agree(here, term, distributions(here), label_smoothing=0.1, weight=here.weight)

    return check


# -- what blocks and shards together could break --------------------------------------------------


@in_blocks
def options_of_a_head(here: Here) -> None:
    """For labels and probabilities and each reduction, two sets that have every option between them."""
    weights = {"weight": here.weight, "sample_weight": torch.linspace(0, 2, R, dtype=torch.float64)}
    term = il.min_ent() + 0.2 * il.max_suppression()
    for target, how in itertools.product((labels(here), distributions(here)), ("mean", "sum", "none")):
        denominator = {"denominator": 7.5} if how == "mean" else {}
        agree(here, term, target, reduction=how, label_smoothing=0.2, **denominator)
        ignored = target if target.ndim == 2 else target.where(target != -100, 2)
        agree(here, term, ignored, reduction=how, ignore_index=2, **weights)


@in_blocks
def priors_and_views(here: Here) -> None:
    counts = problems.counts(here.classes)
    counts[0] = 0
    term = il.balanced_softmax(counts=counts) + 0.1 * il.entropy() + 0.2 * il.max_suppression()
    y, t = labels(here), distributions(here)
    for target in (y, t):
        agree(here, term, target)
        agree(here, term.scaled(0.5).soft_capped(7.0), target, reduction="none")
        agree(here, (il.min_ent() + il.logit_penalty().normalized(0.2)).shifted(counts + 1), target)
    agree(here, il.logit_adjusted(prior=problems.prior(here.classes)), y, label_smoothing=0.1)
    agree(here, il.entropy(), None)


@in_blocks
def shifted_targets(here: Here) -> None:
    """Position t is predicted at t − shift."""
    term = il.min_ent()
    y = labels(here)[:6].reshape(2, 3)
    t = distributions(here)[:6].reshape(2, 3, -1)
    s = torch.linspace(0.1, 2, 6, dtype=torch.float64).reshape(2, 3)
    for shift, target, how in itertools.product((1, 2), (y, t), ("mean", "none")):
        own, whole = (head(here, own=mine, rows=6) for mine in (True, False))
        ours = term.linear(
            own[0].reshape(2, 3, D),
            own[1],
            own_part(here, target),
            linear_bias=own[2],
            sample_weight=s,
            shift=shift,
            reduction=how,
            group=here.shard,
        )
        h, w, b = whole
        logits = F.linear(h.reshape(2, 3, D)[:, : 3 - shift], w, b).movedim(-1, 1)
        kept = target[:, shift:] if target is y else target[:, shift:].movedim(-1, 1)
        expected = term(logits, kept, sample_weight=s[:, shift:], reduction=how)
        same(ours, expected)
        same_gradients(here, ours, own, expected, whole)


@in_blocks
def parts_of_a_head(here: Here) -> None:
    term = il.min_ent() + 0.1 * il.entropy() + 0.2 * il.entropy().scaled(0.5)
    for target in (labels(here), distributions(here)):
        own, whole = head(here, own=True), head(here)
        h, w, b = own
        part = own_part(here, target)
        ours = term.linear_parts(h, w, part, linear_bias=b, weight=here.weight, group=here.shard)
        expected = term.parts(F.linear(*whole), target, weight=here.weight)
        same_parts(ours, expected)
        same_gradients(here, ours.loss, own, expected.loss, whole)


@in_blocks
def learnt_coefficients_of_a_head(here: Here) -> None:
    """Temperatures, coefficients and weights per row get their whole gradient on every rank."""
    y = labels(here)
    for how in ("mean", "none"):
        found = []
        for fused in (True, False):
            alpha = torch.tensor(0.7, dtype=torch.float64).requires_grad_()
            rows = torch.linspace(0.5, 2, R, dtype=torch.float64).requires_grad_()
            s = torch.linspace(1, 3, R, dtype=torch.float64).requires_grad_()
            term = il.parse("min_ent + beta*entropy").scaled(alpha) + il.parse("collision").scaled(rows)
            options: dict[str, Any] = {"coefficients": {"beta": alpha.exp()}, "sample_weight": s}
            h, w, b = head(here, own=fused)
            if fused:
                options |= {"linear_bias": b, "group": here.shard}
                value = term.linear(h, w, y, reduction=how, **options)
            else:
                value = term(F.linear(h, w, b), y, reduction=how, **options)
            found.append(torch.autograd.grad(weighted(value), (alpha, rows, s, h)))
        same(*found)


@in_blocks
def numbers_by_row(here: Here) -> None:
    needs = ("log_probability", "entropy", "lse", "max_logit", "target_probability")
    t = distributions(here)
    for target in (labels(here).clamp(min=2), t / t.sum(-1, keepdim=True)):
        found = []
        for fused in (True, False):
            temperature = torch.linspace(0.5, 2, R, dtype=torch.float64).requires_grad_()
            h, w, b = head(here, own=fused)
            if fused:
                numbers = il.row_statistics_linear(
                    h,
                    w,
                    own_part(here, target),
                    needs=needs,
                    linear_bias=b,
                    temperature=temperature,
                    group=here.shard,
                )
            else:
                z = F.linear(h, w, b)[:, 2:] / temperature[:, None]  # without the masked classes
                t = (target if target.ndim == 2 else F.one_hot(target, here.classes).double())[:, 2:]
                log_q = z.log_softmax(-1)
                values = ((t * log_q).sum(-1), -(log_q.exp() * log_q).sum(-1), z.logsumexp(-1))
                top = z.gather(1, z.detach().argmax(1, keepdim=True))[:, 0]
                numbers = dict(zip(needs, (*values, top, (t * log_q.exp()).sum(-1)), strict=True))
            gradients = [
                torch.autograd.grad(weighted(n), (h, temperature), retain_graph=True)
                for n in numbers.values()
            ]
            found.append((numbers, gradients))
        same(*found)


@in_blocks
def a_criterion_of_a_head(here: Here) -> None:
    """A layer of this rank's classes; the coefficient that is learnt is everywhere the same."""

    def criterion(own: bool) -> tuple[Tensor, il.LinearCriterion]:
        h, w, b = head(here, own=own)
        layer = torch.nn.Linear(D, 1, dtype=torch.float64)  # an empty one would warn
        layer.weight, layer.bias = torch.nn.Parameter(w.detach()), torch.nn.Parameter(b.detach())
        return h, il.LinearCriterion("cross_entropy + beta*entropy", layer, beta=0.1, learn=["beta"]).double()

    y = labels(here)
    (h, ours), (states, whole) = criterion(own=True), criterion(own=False)
    ours(h, y, group=here.shard).backward()
    whole(states, y).backward()
    same((h.grad, ours.beta.grad), (states.grad, whole.beta.grad))
    same(ours.head.weight.grad, whole.head.weight.grad[here.columns])  # type: ignore[index]
    same_parts(ours.parts(h, y, group=here.shard), whole.parts(states, y))


@in_blocks
def when_gradients_are_wanted(here: Here) -> None:
    y = labels(here)
    term = il.min_ent() + il.max_suppression().normalized(0.2)
    for wanted in ((), (0,), (1,), (2,), (0, 2)):
        h, w, b = (x.detach().requires_grad_(i in wanted) for i, x in enumerate(head(here, own=True)))
        whole = head(here)
        expected = torch.autograd.grad(term(F.linear(*whole), y), whole)
        value = term.linear(h, w, y, linear_bias=b, group=here.shard)
        assert value.requires_grad == bool(wanted)
        for i in wanted:
            (gradient,) = torch.autograd.grad(
                value, (h, w, b)[i], retain_graph=True
            )  # the second time: again
            same(gradient, expected[i] if i == 0 else expected[i][here.columns])
    with torch.no_grad():
        h, w, b = head(here, own=True)
        assert not term.linear(h, w, y, linear_bias=b, group=here.shard).requires_grad


@in_blocks
def rows_that_do_not_count(here: Here) -> None:
    agree(here, il.min_ent(), torch.full((R,), -100))
    agree(here, il.min_ent(), torch.full((R,), -100), reduction="none")
    h, w, _ = head(here, own=True)
    assert il.min_ent().linear(h[:0], w, labels(here)[:0], group=here.shard) == 0


@in_blocks
def half_precision_of_a_head(here: Here) -> None:
    """No worse than three times one rank with the same dtype, each against float64, and an ulp."""
    term = il.min_ent() + il.z_loss()
    y = labels(here)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        own, whole = head(here, own=True, dtype=dtype), head(here, dtype=dtype)
        exact = tuple(x.detach().double().requires_grad_() for x in whole)
        found = []
        for (h, w, b), group in ((own, here.shard), (whole, None), (exact, None)):
            value = term.linear(h, w, y, linear_bias=b, group=group)
            gradients = torch.autograd.grad(value, (h, w, b))
            if group is None:
                gradients = (gradients[0], *(g[here.columns] for g in gradients[1:]))
            found.append((value.detach(), *gradients))
        for ours, one, truth in zip(*found, strict=True):
            assert ours.dtype == one.dtype
            if ours.numel():
                error, budget = ((x.double() - truth).abs().max() for x in (ours, one))
                assert error <= 3 * budget + torch.finfo(ours.dtype).eps * truth.abs().max()


@in_blocks
def compiled_kernels_of_a_head(here: Here) -> None:
    """Each rank reads its logits with the kernel that fits them: the ranks may differ in it."""
    compiled = here.rank != 1 and il.kernels.available("cpu")
    with il.kernels.use("cpu" if compiled else "eager"):
        agree(here, il.min_ent() + 0.2 * il.max_suppression(), labels(here), label_smoothing=0.1)
        agree(here, il.logit_norm(), distributions(here), reduction="none")


@in_blocks
def what_a_block_costs(here: Here) -> None:
    """Two all-reduces for each part that is read; one before the first block, one of the gradient."""
    calls, largest = [], 0

    def all_reduce(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        original(*arguments, **options)

    class Watched(linear.Head):
        def logits(self, h: Tensor, out: Tensor) -> Tensor:
            nonlocal largest
            largest = max(largest, out.numel())
            return super().logits(h, out)

    original = dist.all_reduce
    h, w, b = head(here, own=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", all_reduce)
        patch.setattr(linear, "Head", Watched)
        il.min_ent().linear(h, w, labels(here), linear_bias=b, group=here.shard).backward()
    parts = 3  # of the five rows that count: a block of three, read as two and one, and a block of two
    assert len(calls) == 1 + 2 * parts + 1
    assert largest == 3 * len(w)


def one_block_and_a_bare_group(here: Here) -> None:
    agree(here, il.min_ent() + il.max_suppression(), labels(here))
    h, w, b = head(here, own=True)
    value = il.min_ent().linear(h, w, labels(here), linear_bias=b, group=dist.group.WORLD)
    same(value, il.min_ent()(F.linear(*head(here)), labels(here)))


# -- what is refused ------------------------------------------------------------------------------


def first_order_of_a_head(here: Here) -> None:
    h, w, b = head(here, own=True)
    y = labels(here)

    def loss(states: Tensor, how: str = "mean") -> Tensor:
        return il.min_ent().linear(states, w, y, linear_bias=b, reduction=how, group=here.shard).sum()

    for how in ("mean", "none"):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(loss(h, how), h, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no torch\.func transform"):
        torch.func.grad(loss)(h.detach())
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode"):
        loss(torch.autograd.forward_ad.make_dual(h.detach(), torch.ones_like(h)))


def wrong_arguments_of_a_head(here: Here) -> None:
    (h, w, _), y, world = head(here, own=True), labels(here), dist.group.WORLD
    loss = functools.partial(il.min_ent().linear, h, w, group=here.shard)
    with pytest.raises(ValueError, match=r"linear_weight \(C, D\), got"):
        il.min_ent().linear(h[:, :-1], w, y, group=here.shard)
    with pytest.raises(ValueError, match=rf"linear_bias must have shape \({len(w)},\)"):
        loss(y, linear_bias=torch.zeros(len(w) + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"weight must have shape \({here.classes},\)"):
        loss(y, weight=here.weight[1:])
    for target in (y, own_part(here, distributions(here))):
        with pytest.raises(ValueError, match="weight cannot be differentiated"):
            loss(target, weight=here.weight.clone().requires_grad_())
    with pytest.raises(ValueError, match=r"probabilities has no gradient here"):
        loss(torch.rand(R, len(w), dtype=torch.float64).requires_grad_())
    with pytest.raises(ValueError, match=rf"the head's output \({R}, {len(w)}\)"):
        loss(torch.rand(R, len(w) + 1))
    out_of_range = y.clone()
    out_of_range[4] = here.classes
    with pytest.raises(IndexError, match=rf"target\[4\] is {here.classes}, expected 0 ≤ label <"):
        loss(out_of_range)
    with pytest.raises(ValueError, match=f"logits have {here.classes} classes, the shift is for 2"):
        il.balanced_softmax(counts=[1, 2]).linear(h, w, y, group=here.shard)
    with pytest.raises(ValueError, match="the shard was made for"):
        il.min_ent().linear(h, torch.zeros(len(w) + 1, D, dtype=torch.float64), y, group=here.shard)
    with pytest.raises(TypeError, match=r"group must be a torch\.distributed\.ProcessGroup"):
        il.min_ent().linear(h, w, y, group="tp")
    with pytest.raises(ValueError, match=r"must differ in their classes \(axis 0\) only"):
        il.min_ent().linear(h, torch.zeros(3, D + here.rank, dtype=torch.float64), y, group=world)


def ranks_with_rows_of_their_own(here: Here) -> None:
    """Labels that differ, or another number of rows: never merged, and no rank waits for another."""
    h, w, b = head(here, own=True)
    y = labels(here)
    loss = functools.partial(il.min_ent().linear, linear_bias=b, group=here.shard)
    with pytest.raises(ValueError, match="the ranks have different targets"):
        loss(h, w, (y + here.rank).clamp(2, here.classes - 1))
    fewer = y.clone()
    fewer[: 4 * here.rank] = -100
    with pytest.raises(ValueError, match="the ranks have different targets"):
        loss(h, w, fewer)
    rows = R - here.rank
    for target in (None, torch.rand(rows, len(w), dtype=torch.float64)):
        term = il.entropy() if target is None else il.min_ent()
        with pytest.raises(ValueError, match="the ranks have different targets"):
            term.linear(h[:rows], w, target, group=here.shard)


# -- DTensors -------------------------------------------------------------------------------------


def dtensors_of_a_head(here: Here) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (here.world,))
    if here.world == 4:  # the other axis has copies
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "classes"))
    copies = [Replicate()] * mesh.ndim
    sharded = [*copies[1:], Shard(0)]
    classes = mesh.get_group(mesh.ndim - 1)
    whole = head(here)
    y, t = labels(here), distributions(here)
    h, w, b = (
        distribute_tensor(x.detach(), mesh, p).requires_grad_()
        for x, p in zip(whole, (copies, sharded, sharded), strict=True)
    )
    plain = whole[0].detach().clone().requires_grad_()
    loss = il.min_ent() + 0.1 * il.max_suppression()
    for states, target, group in (
        (h, distribute_tensor(y, mesh, copies), None),
        (h, y, None),
        (h, y, classes),
        (plain, y, classes),
        (plain, distribute_tensor(y, mesh, copies), classes),
        (h, distribute_tensor(t, mesh, [*copies[1:], Shard(1)]), None),
    ):
        value = loss.linear(states, w, target, linear_bias=b, group=group)
        expected = loss(F.linear(*whole), t if target.is_floating_point() else y)
        same(value, expected)
        found = torch.autograd.grad(value, (states, w, b))
        full = tuple(g.full_tensor() if states is not plain or i else g for i, g in enumerate(found))  # type: ignore[attr-defined]
        same(full, torch.autograd.grad(expected, whole))

    with pytest.raises(ValueError, match=r"hidden is not known to be the same .*linear_weight\.full_tensor"):
        loss.linear(plain, w, y)
    with pytest.raises(ValueError, match=r"hidden is a DTensor .*Shard\(dim=0\).*linear_weight\.full_tensor"):
        loss.linear(distribute_tensor(plain.detach(), mesh, [*copies[1:], Shard(0)]), w, y)
    for placements in ([*copies[1:], Shard(1)], copies, [Shard(0)] * mesh.ndim):
        if placements != sharded:
            wrong = distribute_tensor(whole[1].detach(), mesh, placements)
            with pytest.raises(ValueError, match=r"only with Shard\(0\) .*linear_weight\.full_tensor"):
                loss.linear(h, wrong, y)
    with pytest.raises(ValueError, match=r"hidden is a DTensor and linear_weight is not"):
        loss.linear(h, whole[1], y)
    with pytest.raises(ValueError, match=r"target is a DTensor and linear_weight is not"):
        loss.linear(plain, whole[1], distribute_tensor(y, mesh, copies))
    for weight, group in ((w, None), (w.to_local(), classes)):
        with pytest.raises(ValueError, match=r"linear_bias is a DTensor .*linear_bias\.full_tensor"):
            loss.linear(
                h, weight, y, linear_bias=distribute_tensor(whole[2].detach(), mesh, copies), group=group
            )


SPECIAL: tuple[Check, ...] = (
    options_of_a_head,
    priors_and_views,
    shifted_targets,
    parts_of_a_head,
    learnt_coefficients_of_a_head,
    numbers_by_row,
    a_criterion_of_a_head,
    when_gradients_are_wanted,
    rows_that_do_not_count,
    half_precision_of_a_head,
    compiled_kernels_of_a_head,
    what_a_block_costs,
    one_block_and_a_bare_group,
    first_order_of_a_head,
    wrong_arguments_of_a_head,
    ranks_with_rows_of_their_own,
    dtensors_of_a_head,
)
CHECKS: dict[str, Check] = {
    **{f"head-{case}": every_loss(case) for case in CASES},
    **{check.__name__: check for check in SPECIAL},
}
