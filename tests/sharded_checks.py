"""Logits whose classes are spread over ranks: what every rank does, each check against one rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import problems
import pytest
import torch
import torch.distributed as dist
from cases import CASES, Case
from torch import Tensor

import infoloss as il

Check = Callable[["Here"], None]
ROWS = 5
SIZES = {2: [6, 1], 4: [2, 3, 0, 4]}
"""Classes of each rank, by the number of ranks: uneven, and one rank without any."""


class Here:
    """This rank: its share of the classes, and the problem that every rank can see whole."""

    def __init__(self, rank: int, sizes: list[int]) -> None:
        self.rank, self.world, self.sizes = rank, len(sizes), sizes
        self.classes = sum(sizes)
        self.shard = il.ClassShard.of(sizes[rank])
        self.columns = slice(self.shard.start, self.shard.stop)
        self.z = torch.tensor(problems.rows(1, ROWS, self.classes, spread=3.0))
        self.y = torch.tensor(problems.labels(2, ROWS, self.classes))
        self.t = torch.tensor(problems.distributions(3, ROWS, self.classes))
        self.y[0], self.y[1] = self.classes - 1, -100
        self.z[0, :2], self.t[0, :2] = -torch.inf, 0  # all classes of the first of four ranks
        self.z[2, 0] = self.z[2, -1] = 9.0  # a tie between shards
        self.z[3, int(self.y[3])] += 40
        self.weight = torch.linspace(0.5, 2, self.classes, dtype=torch.float64)
        self.sample_weight = torch.linspace(1, 3, ROWS, dtype=torch.float64)

    def own(self, whole: Tensor) -> Tensor:
        """This rank's columns."""
        return whole[:, self.columns].clone()

    def agree(self, term: Any, target: Tensor | None, *, z: Tensor | None = None, **options: Any) -> None:
        """Value and gradient of the shard against the same call on the whole."""
        z = self.z if z is None else z
        soft = target is not None and target.is_floating_point()
        results = []
        for group in (None, self.shard):
            x = (z.clone() if group is None else self.own(z)).requires_grad_()
            t = self.own(target) if soft and group is not None else target  # type: ignore[arg-type]
            value = term(x, t, group=group, **options)
            factors = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
            (gradient,) = torch.autograd.grad((value * factors).sum(), x)
            results.append((value.detach(), gradient if group else gradient[:, self.columns]))
        torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


# -- every loss -----------------------------------------------------------------------------------


def every_option(case: Case) -> Check:
    def check(here: Here) -> None:
        term = case.term(here.classes)
        here.agree(term, here.y, reduction="none")
        here.agree(term, here.y, weight=here.weight, sample_weight=here.sample_weight)
        if case.soft != "none":
            here.agree(term, here.y, label_smoothing=0.1, reduction="sum")
            here.agree(term, here.y, label_smoothing=0.1, weight=here.weight)
            here.agree(term, here.t, reduction="none")
            here.agree(term, here.t, weight=here.weight, label_smoothing=0.1, ignore_index=here.classes - 2)

    return check


# -- what sharding could break --------------------------------------------------------------------


def several_views(here: Here) -> None:
    counts = problems.counts(here.classes)
    counts[0] = 0  # masks a class, in every statistic
    term = il.balanced_softmax(counts=counts) + 0.1 * il.entropy() + 0.2 * il.max_suppression()
    y = here.y.clamp(min=1)
    here.agree(term, y)
    here.agree(term.scaled(0.5).soft_capped(7.0), y)
    here.agree((il.min_ent() + il.logit_penalty().normalized(0.2)).scaled(0.5).shifted(counts + 1), y)


def dense_logits(here: Here) -> None:
    z = torch.tensor(problems.rows(5, 2 * here.classes, 3)).reshape(2, here.classes, 3)
    y = torch.tensor(problems.labels(5, 6, here.classes)).reshape(2, 3)
    here.agree(il.min_ent() + 0.1 * il.max_suppression(), y, z=z, reduction="none")
    here.agree(il.min_ent(), z.softmax(1), z=z)


def ties_of_the_maximum(here: Here) -> None:
    z = torch.zeros(1, here.classes, dtype=torch.float64)
    x = here.own(z).requires_grad_()
    (gradient,) = torch.autograd.grad(il.statistic("max_logit")(x, group=here.shard), x)
    expected = torch.nn.functional.one_hot(torch.tensor([0]), here.classes).double()
    torch.testing.assert_close(gradient, here.own(expected))


def parts_and_accuracy(here: Here) -> None:
    term = il.cross_entropy() + 0.1 * il.entropy()
    y = here.z.argmax(1)
    y[1], y[3] = -100, (y[3] + 1) % here.classes
    for target in (y, here.t):
        own = target if target.ndim == 1 else here.own(target)
        ours = term.parts(here.own(here.z), own, group=here.shard, sample_weight=here.sample_weight)
        whole = term.parts(here.z, target, sample_weight=here.sample_weight)
        assert ours._fields == whole._fields
        torch.testing.assert_close(tuple(ours), tuple(whole), rtol=1e-12, atol=1e-12)


def learnt_coefficients(here: Here) -> None:
    """A temperature and a weight, which every rank has, get the whole gradient on every rank."""
    found = []
    for group in (None, here.shard):
        s = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        rows = torch.linspace(0.5, 2, ROWS, dtype=torch.float64).requires_grad_()
        beta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        regularised = il.parse("min_ent + beta*entropy + 0.2*max_suppression")
        term = regularised.scaled(s) + il.parse("collision").scaled(rows)
        z = here.z if group is None else here.own(here.z)
        value = term(z, here.y, group=group, coefficients={"beta": beta})
        found.append(torch.autograd.grad(value, (s, rows, beta)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def a_criterion(here: Here) -> None:
    criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.1, learn=["beta"])
    value = criterion(here.own(here.z), here.y, group=here.shard)
    value.backward()
    assert criterion.beta.grad is not None
    whole = il.Criterion("cross_entropy + beta*entropy", beta=0.1, learn=["beta"])
    whole(here.z, here.y).backward()
    torch.testing.assert_close(criterion.beta.grad, whole.beta.grad)


def statistics_by_row(here: Here) -> None:
    needs = ("lse", "expected_logit", "target_logit", "max_logit", "classes")
    y = here.y.clamp(min=0)
    ours = il.row_statistics(here.own(here.z), y, needs=needs, group=here.shard)
    torch.testing.assert_close(ours, il.row_statistics(here.z, y, needs=needs), rtol=1e-12, atol=1e-12)


def single_and_half_precision(here: Here) -> None:
    """Sharded, the error is that of one rank, up to a few roundings."""
    term = il.squentropy() + 0.2 * il.entropy()
    for dtype in (torch.float32, torch.bfloat16):
        z = here.z.to(dtype)
        exact = term(z.double(), here.y, reduction="none")
        ours = term(here.own(z), here.y, reduction="none", group=here.shard)
        assert ours.dtype == torch.float32
        error = (ours.double() - exact).abs().max()
        budget = (term(z, here.y, reduction="none").double() - exact).abs().max()
        assert error <= 3 * budget + 4 * torch.finfo(torch.float32).eps * exact.abs().max()


def an_empty_batch(here: Here) -> None:
    z, y = here.z[:0], here.y[:0]
    here.agree(il.min_ent(), y, z=z)
    here.agree(il.max_suppression(), None, z=z)


def masked_labels_and_nan(here: Here) -> None:
    z = here.z.clone()
    z[4, here.classes - 1] = torch.nan
    y = here.y.clone()
    y[0] = 0  # masked
    value = il.min_ent()(here.own(z), y, reduction="none", group=here.shard)
    torch.testing.assert_close(value, il.min_ent()(z, y, reduction="none"), equal_nan=True)
    assert value[0] == torch.inf
    assert value[4].isnan()
    z = here.z.clone()
    z[2] = -torch.inf
    with pytest.raises(ValueError, match=r"every class of the row of logits\[2\] is masked"):
        il.min_ent()(here.own(z), here.y, group=here.shard)


def the_compiled_kernel(here: Here) -> None:
    """Each rank reads its columns with the kernel that fits them: the ranks may differ in it."""
    compiled = here.rank != 1 and il.kernels.available("cpu")
    with il.kernels.use("cpu" if compiled else "eager"):
        several_views(here)
        learnt_coefficients(here)
        here.agree(il.logit_norm(), here.t)
        here.agree(il.reverse_kl(), here.y)


def under_compilation(here: Here) -> None:
    if here.world > 2:  # the compiler takes seconds on every rank
        return
    term = il.min_ent() + 0.1 * il.max_suppression()
    compiled = torch.compile(lambda z, y: term(z, y, group=here.shard), backend="aot_eager", fullgraph=True)
    found = []
    for call in (compiled, lambda z, y: term(z, y, group=here.shard)):
        z = here.own(here.z).requires_grad_()
        value = call(z, here.y)
        found.append((value.detach(), *torch.autograd.grad(value, z)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


# -- what is refused ------------------------------------------------------------------------------


def first_order_only(here: Here) -> None:
    z = here.own(here.z).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return il.min_ent()(x, here.y, group=here.shard)

    with pytest.raises(RuntimeError, match="not with create_graph=True"):
        torch.autograd.grad(loss(z), z, create_graph=True)
    learnt = torch.tensor(0.5, dtype=z.dtype, requires_grad=True)
    scaled = il.min_ent().scaled(learnt)(z, here.y, group=here.shard)
    with pytest.raises(RuntimeError, match="not with is_grads_batched=True"):
        torch.autograd.grad(scaled, learnt, torch.ones(2, dtype=z.dtype), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"not with torch\.func"):
        torch.func.grad(loss)(here.own(here.z))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="not with forward-mode"):
        loss(torch.autograd.forward_ad.make_dual(here.own(here.z), torch.ones_like(z)))


def wrong_arguments(here: Here) -> None:
    z, shard, world = here.own(here.z), here.shard, dist.group.WORLD
    loss = il.cross_entropy()
    out_of_range = here.y.clone()
    out_of_range[4] = here.classes
    with pytest.raises(
        IndexError, match=rf"target\[4\] is {here.classes}, expected 0 ≤ label < {here.classes}"
    ):
        loss(z, out_of_range, group=shard)
    with pytest.raises(ValueError, match=rf"weight must have shape \({here.classes},\)"):
        loss(z, here.y, weight=here.weight[:-1], group=shard)
    with pytest.raises(ValueError, match=f"logits have {here.classes} classes, the shift is for 2"):
        il.balanced_softmax(counts=[1, 2])(z, here.y, group=shard)
    with pytest.raises(ValueError, match="target cannot be differentiated"):
        loss(z, here.own(here.t).requires_grad_(), group=shard)
    with pytest.raises(ValueError, match="the shard was made for"):
        loss(torch.zeros(ROWS, 1 + shard.stop - shard.start), here.y, group=shard)
    with pytest.raises(TypeError, match=r"group must be a torch\.distributed\.ProcessGroup"):
        loss(z, here.y, group="tp")
    with pytest.raises(ValueError, match="the ranks have different targets"):
        loss(z, (here.y + here.rank) % here.classes, group=shard)
    rows = 2 + here.rank
    with pytest.raises(ValueError, match=r"must differ in their classes \(axis 1\) only"):
        loss(torch.zeros(rows, 3), torch.zeros(rows, dtype=torch.int64), group=world)


def a_bare_group(here: Here) -> None:
    value = il.min_ent()(here.own(here.z), here.y, group=dist.group.WORLD)
    torch.testing.assert_close(value, il.min_ent()(here.z, here.y), rtol=1e-12, atol=1e-12)


# -- DTensors, denominators, models ---------------------------------------------------------------


def a_linear_head(here: Here) -> None:
    """docs/sharded.md: hidden states that every rank has, this rank's rows of the weight."""
    found = []
    for whole in (True, False):
        generator = torch.Generator().manual_seed(4)
        hidden = torch.randn(ROWS, 3, dtype=torch.float64, generator=generator).requires_grad_()
        weight = torch.randn(here.classes, 3, dtype=torch.float64, generator=generator)
        weight = (weight if whole else weight[here.columns]).requires_grad_()
        states, group = (hidden, None) if whole else (here.shard.copy(hidden), here.shard)
        value = (il.min_ent() + il.max_suppression())(states @ weight.T, here.y, group=group)
        of_hidden, of_weight = torch.autograd.grad(value, (hidden, weight))
        found.append((of_hidden, of_weight[here.columns] if whole else of_weight))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def fully_sharded(here: Here) -> None:
    """FSDP: every rank has rows of its own, and gathers the weight; labels may not be merged by mistake."""
    from torch.distributed.fsdp import fully_shard

    def model() -> Any:
        torch.manual_seed(5)
        body = torch.nn.Linear(3, 4, dtype=torch.float64)
        head = torch.nn.Linear(4, here.classes, dtype=torch.float64)
        return body, il.LinearCriterion(il.min_ent() + il.z_loss(), head)

    x = torch.tensor(problems.rows(6, 2 * here.world, 3))
    y = torch.tensor(problems.labels(6, 2 * here.world, here.classes))
    y[1] = -100
    body, criterion = model()
    expected = criterion(body(x), y)
    expected.backward()
    ours, sharded = model()
    fully_shard(ours)
    fully_shard(sharded)
    mine = slice(2 * here.rank, 2 * here.rank + 2)
    total = il.denominator(y[mine], group=dist.group.WORLD) / here.world  # FSDP averages gradients
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = sharded(ours(x[mine]), y[mine], denominator=total)
    value.backward()
    total_value = value.detach() / here.world
    dist.all_reduce(total_value)
    torch.testing.assert_close(total_value, expected.detach(), rtol=1e-12, atol=1e-12)
    for whole, part in ((body, ours), (criterion, sharded)):
        for p, q in zip(whole.parameters(), part.parameters(), strict=True):
            torch.testing.assert_close(q.grad.full_tensor(), p.grad, rtol=1e-12, atol=1e-12)  # type: ignore[attr-defined]
    sharded.reshard()
    with pytest.raises(ValueError, match=r"linear_weight is a DTensor .*linear_weight\.full_tensor\(\)"):
        il.min_ent().linear(torch.zeros(2, 4, dtype=torch.float64), sharded.head.weight, y[:2])


def dtensors(here: Here) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (here.world,))
    loss = il.min_ent() + 0.1 * il.max_suppression()
    z = distribute_tensor(here.z.clone(), mesh, [Shard(1)]).requires_grad_()
    y = distribute_tensor(here.y, mesh, [Replicate()])
    x = here.z.clone().requires_grad_()
    expected = loss(x, here.y)
    expected.backward()
    for target, group in ((y, None), (here.y, mesh.get_group()), (y, mesh.get_group())):
        z.grad = None
        value = loss(z, target, group=group)
        value.backward()
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(z.grad.full_tensor(), x.grad, rtol=1e-12, atol=1e-12)  # type: ignore[union-attr]
    t = distribute_tensor(here.t, mesh, [Shard(1)])
    torch.testing.assert_close(loss(z, t), loss(here.z, here.t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(il.z_loss()(z), il.z_loss()(here.z), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"pass group=.*logits\.full_tensor\(\)"):
        loss(z, here.y)
    with pytest.raises(ValueError, match=r"target is a DTensor with placements .*Shard\(dim=0\)"):
        loss(z, distribute_tensor(here.y, mesh, [Shard(0)]))
    for placement in (Shard(0), Replicate()):
        with pytest.raises(ValueError, match=r"counts as a shard of the classes only .*logits\.full_tensor"):
            loss(distribute_tensor(here.z, mesh, [placement]), y)
    with pytest.raises(ValueError, match=r"target is a DTensor and logits is not"):
        loss(here.z, y)


def denominators(here: Here) -> None:
    """The mean over the rows of all ranks, each of which has rows of its own and two micro-batches."""
    z = torch.tensor(problems.rows(8, 4 * here.world, here.classes))
    y = torch.tensor(problems.labels(8, 4 * here.world, here.classes))
    y[:3] = -100  # one rank has fewer rows that count
    s = torch.linspace(1, 2, len(y), dtype=torch.float64)
    for weight, options in ((here.weight, {}), (None, {"ignore_index": 0})):
        expected = il.min_ent()(z, y.clamp(min=0), weight=weight, sample_weight=s, **options)
        mine = slice(4 * here.rank, 4 * here.rank + 4)
        batches = [
            (a, b.clamp(min=0), c) for a, b, c in zip(*(of[mine].split(2) for of in (z, y, s)), strict=True)
        ]
        total = sum(
            il.denominator(b, weight=weight, sample_weight=c, group=dist.group.WORLD, **options)
            for _, b, c in batches
        )
        value = sum(
            il.min_ent()(a, b, weight=weight, sample_weight=c, denominator=total, **options)
            for a, b, c in batches
        )
        dist.all_reduce(value)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def the_examples(here: Here) -> None:
    """docs/sharded.md: the first two, one after the other."""
    text = (Path(__file__).parents[1] / "docs" / "sharded.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in text.split("```python\n")[1:3]:
        lines = [line for line in code.split("```")[0].splitlines() if "process_group()" not in line]
        exec("\n".join(lines), names)
    assert names["hidden"].grad is not None


SPECIAL: tuple[Check, ...] = (
    several_views,
    dense_logits,
    ties_of_the_maximum,
    parts_and_accuracy,
    learnt_coefficients,
    a_criterion,
    statistics_by_row,
    single_and_half_precision,
    an_empty_batch,
    masked_labels_and_nan,
    the_compiled_kernel,
    under_compilation,
    first_order_only,
    wrong_arguments,
    a_bare_group,
    a_linear_head,
    dtensors,
    denominators,
    fully_sharded,
    the_examples,
)
CHECKS: dict[str, Check] = {
    **{str(case): every_option(case) for case in CASES},
    **{check.__name__: check for check in SPECIAL},
}
