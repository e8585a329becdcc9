"""The GPU kernel under Triton's interpreter; test_kernels_gpu.py runs this in a process of its own.

``TRITON_INTERPRET=1`` must be set before Triton is imported. The interpreter runs one program after the
other with NumPy: the order of what a GPU does at once, and its exp, are not tested here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import problems
import pytest
import torch
from agreement import agree, as_good_as_eager, problem, value_and_gradient
from cases import CASES, FIRST, Case
from interpreter import language_exchanged_once  # noqa: F401 - used by every test
from torch import Tensor

import infoloss as il
from infoloss.kernels import device, eager, fused
from infoloss.kernels.gpu import reading
from infoloss.kernels.inputs import ORDER, Inputs

# How rows of 37 classes (prime: more than two tiles) are cut: (rows of a program, columns of a tile, parts).
CUTS = {"whole": (8, 64, 1), "tiles": (4, 16, 1), "parts": (2, 16, 3)}
ROWS, CLASSES = 7, 37
COUNTS = torch.arange(1.0, CLASSES + 1)
EVERY = il.squentropy() + il.entropy() + il.max_suppression()
"""Sums with and without exponentials, and the maximum."""


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> device.Plan:
    """Tiles so small that a few columns take several, and as many parts as asked for."""
    return small_tiles(monkeypatch, request.param)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> device.Plan:
    """Rows in three parts."""
    return small_tiles(monkeypatch, "parts")


def small_tiles(monkeypatch: pytest.MonkeyPatch, name: str) -> device.Plan:
    rows, columns, number = CUTS[name]
    monkeypatch.setattr(device, "COLUMNS", columns)
    monkeypatch.setattr(device, "MOMENTS", rows * columns)
    monkeypatch.setattr(device, "GRADIENT", rows * columns)
    monkeypatch.setattr(device, "PROGRAMS", 1 if number == 1 else 1000)
    found = device.plan(ROWS, CLASSES, 1, rows * columns)
    assert (found.rows, found.block, found.parts) == CUTS[name]
    return found


def compared(term: il.Term, z: Tensor, target: Tensor | None, **options: object) -> None:
    ours, eager = (value_and_gradient(term, z, target, kernel, **options) for kernel in ("gpu", "eager"))
    torch.testing.assert_close(ours[0], eager[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours[1], eager[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_eager_in_float64(case: Case) -> None:
    agree(case, case.term(5), ROWS, 5, "gpu")


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_tiles_and_parts_merge(case: Case, parts: device.Plan) -> None:
    z, y, t = problem(5, CLASSES, torch.float64)
    term = case.term(CLASSES)
    compared(term, z, y)
    compared(term.scaled(0.5), z, t if case.soft != "none" else y)


@pytest.mark.parametrize("case", FIRST, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_smaller_types_are_as_good_as_eager(case: Case, dtype: torch.dtype) -> None:
    z = torch.tensor(problems.rows(1, 5, 101, spread=3.0)).to(dtype)
    as_good_as_eager(case.term(101), z, torch.tensor(problems.labels(2, 5, 101)), "gpu")


def test_beside_a_large_offset_and_a_confident_label(parts: device.Plan) -> None:
    z = torch.tensor(problems.rows(1, ROWS, CLASSES), dtype=torch.float32) + 1e4
    y = torch.tensor(problems.labels(2, ROWS, CLASSES))
    z[torch.arange(ROWS), y] += 18.0  # ln Σ e^u is about 1e-7: less than an ulp of 1
    for term in (il.cross_entropy(), il.entropy(), il.squentropy(), il.cross_entropy().scaled(0.7)):
        as_good_as_eager(term, z, y, "gpu")
    value, gradient = value_and_gradient(il.cross_entropy(), z, y, "gpu")
    exact, slope = value_and_gradient(il.cross_entropy(), z.double(), y, "eager")
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=0)


def test_a_learnt_temperature_has_its_gradient(cut: device.Plan) -> None:
    z, y, t = problem(ROWS, CLASSES, torch.float64)
    shifted = il.balanced_softmax(counts=torch.arange(1.0, CLASSES + 1)) + il.entropy()
    for term, target in ((EVERY, y), (EVERY, t), (shifted, y), (shifted, t)):
        found = []
        for kernel in ("gpu", "eager"):
            temperature = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64).requires_grad_()
            with il.kernels.use(kernel):
                term.scaled(temperature)(z, target, reduction="sum").backward()
            found.append(temperature.grad)
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"denominator": 5.0},
    {"denominator": 0.0},
    {"label_smoothing": 0.1},
    {"ignore_index": 3},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_plain_calls(options: dict[str, object]) -> None:
    """By the term's program; :func:`test_agrees_with_eager_in_float64` does so for every loss."""
    z, y, _ = problem(5, 5, torch.float64)
    z[4, int(y[4])] = -torch.inf  # an infinite value without a gradient
    y[3] = 3
    y = y.clamp(min=0) if "ignore_index" in options else y
    found = []
    for kernel in ("gpu", "eager"):
        x = z.clone().requires_grad_()
        with il.kernels.use(kernel):
            value = il.min_ent()(x, y, **options)  # type: ignore[arg-type]
        by = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
        found.append((value.detach(), torch.autograd.grad(value, x, by)[0]))
        assert (type(value.grad_fn).__name__ == "DeviceValueBackward") == (kernel == "gpu")
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_plain_calls_again_batched_and_differentiated_twice() -> None:
    z, y, _ = problem(3, 3, torch.float64)
    x, loss = z.masked_fill(z == -torch.inf, 0).requires_grad_(), il.min_ent()
    with il.kernels.use("gpu"):
        for options in ({}, {"reduction": "none"}):
            value = loss(x, y, **options)
            seeds = torch.eye(max(1, value.numel()), dtype=torch.float64).reshape(-1, *value.shape)
            each = torch.stack([torch.autograd.grad(value, x, s, retain_graph=True)[0] for s in seeds])
            batched = torch.autograd.grad(value, x, seeds, is_grads_batched=True, retain_graph=True)[0]
            torch.testing.assert_close(batched, each)
            again = torch.autograd.grad(value, x, seeds[0], create_graph=True)[0]
            torch.testing.assert_close(again, each[0])
            assert torch.autograd.gradgradcheck(lambda x, o=options: loss(x, y, **o), x)


@pytest.mark.parametrize("exponent", [-1.0, 2.5, 3.0, 4.0])
def test_powers_of_negative_numbers(exponent: float) -> None:
    z = torch.tensor(problems.rows(1, 5, 4))
    y = torch.cat([z[:3].argmin(1), z[3:].argmax(1)])
    assert z.min() < 0 < z.max()
    found = []
    for kernel in ("gpu", "eager"):
        x = z.clone().requires_grad_()
        with il.kernels.use(kernel):
            value = (il.statistic("target_logit") ** exponent)(x, y, reduction="none")
        found.append((value.detach(), torch.autograd.grad(value.sum(), x)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12, equal_nan=True)


def test_gradients_in_a_batch() -> None:
    """Where the call is not plain, or takes several passes."""
    z, y, _ = problem(5, 4, torch.float64)
    x = z.masked_fill(z == -torch.inf, 0).requires_grad_()
    options = {"sample_weight": torch.linspace(0.5, 1.5, 5, dtype=torch.float64), "reduction": "none"}
    seeds = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(3, 5)
    for term in (il.min_ent(), il.logit_norm(), il.pc_softmax(prior=[0.25] * 4)):
        with il.kernels.use("gpu"):
            value = term(x, y, **options)  # type: ignore[arg-type]
        each = torch.stack([torch.autograd.grad(value, x, s, retain_graph=True)[0] for s in seeds])
        batched = torch.autograd.grad(value, x, seeds, is_grads_batched=True)[0]
        torch.testing.assert_close(batched, each)


def test_plain_calls_with_strided_labels_and_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(il.kernels.INSTALLED, "cpu", False)
    monkeypatch.setitem(sys.modules, "infoloss.kernels.host", None)  # what needs Numba is not imported
    z, y, _ = problem(5, 5, torch.float64)
    for labels in (torch.stack([y, y + 7], 1)[:, 0], torch.tensor([2]).expand(5)):
        assert labels.stride() != (1,)
        compared(il.min_ent(), z, labels)


def test_a_plain_call_with_a_label_out_of_range_is_an_error() -> None:
    z = torch.zeros(2, CLASSES)
    with il.kernels.use("gpu"), pytest.raises(RuntimeError):
        il.min_ent()(z, torch.tensor([0, CLASSES]))


VIEWS: dict[str, Callable[[il.Term], il.Term]] = {
    "cap": lambda term: term.soft_capped(2.0),
    "scale of a cap": lambda term: term.scaled(0.7).soft_capped(2.0),
    "shift of a cap": lambda term: term.shifted(COUNTS, log=True).soft_capped(2.0),
    "norm of a cap": lambda term: term.normalized(0.3).soft_capped(2.0),
    "shift of a scale of a cap": lambda term: term.shifted(COUNTS, log=True).scaled(0.7).soft_capped(2.0),
    "shift of a scale": lambda term: term.shifted(COUNTS, log=True).scaled(0.7),
    "shift of a norm": lambda term: term.shifted(COUNTS, log=True).normalized(0.3),
}
"""Every combination that the kernel applies itself."""


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, cut: device.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    z, y, t = problem(ROWS, CLASSES, torch.float64)  # up to 40: deep in the cap's flat part
    z[3] = torch.linspace(-1e-3, 1e-3, CLASSES)  # and at its straight one
    z[4, :20] = -torch.inf  # a whole tile and a whole part
    t = t.masked_fill(z == -torch.inf, 0)
    t /= t.sum(-1, keepdim=True)
    term = VIEWS[view](EVERY)
    expected = [value_and_gradient(term, z, target, "eager") for target in (y, t)]
    monkeypatch.setattr(eager, "reduce", None)  # nothing is left to it
    for target, (value, gradient) in zip((y, t), expected, strict=True):
        ours = value_and_gradient(term, z, target, "gpu")
        torch.testing.assert_close(ours[0], value, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(ours[1], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_cap_in_smaller_types(dtype: torch.dtype, cut: device.Plan) -> None:
    z = torch.tensor(problems.rows(1, ROWS, CLASSES, spread=5.0)).to(dtype)
    z[2] *= 1e-3  # where 1 − e^(−2|r|) would cancel
    y = torch.tensor(problems.labels(2, ROWS, CLASSES))
    for view in ("cap", "scale of a cap", "shift of a scale of a cap"):
        as_good_as_eager(VIEWS[view](EVERY), z, y, "gpu")


def test_a_learnt_temperature_of_a_cap_has_its_gradient(cut: device.Plan) -> None:
    z, y, t = problem(ROWS, CLASSES, torch.float64)
    for target in (y, t):
        found = []
        for kernel in ("gpu", "eager"):
            temperature = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64).requires_grad_()
            term = EVERY.shifted(COUNTS, log=True).scaled(temperature).soft_capped(2.0)
            with il.kernels.use(kernel):
                term(z, target, reduction="sum").backward()
            found.append(temperature.grad)
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_gradient_over_the_logits_is_the_same(dtype: torch.dtype, cut: device.Plan) -> None:
    leaf, y, t = problem(ROWS, CLASSES, dtype)
    dense = leaf.reshape(1, ROWS, CLASSES).movedim(2, 1)
    t = t.double()
    for view, of, target in (
        ("cap", leaf, t),
        ("shift of a scale of a cap", leaf, y),
        ("shift of a scale", dense, y[None]),
        ("norm of a cap", leaf, y),
    ):
        term = VIEWS[view](EVERY)
        found = []
        for overwrite in (False, True):
            z = of.clone().requires_grad_() * 1
            with il.kernels.use("gpu"):
                value = term(z, target, overwrite_logits=overwrite)
            found.append(torch.autograd.grad(value, z, retain_graph=True)[0])
        assert torch.equal(found[0], found[1])
        over = view != "norm of a cap"  # for which the logits are read twice
        assert (found[1].data_ptr() == z.data_ptr()) == over
        if over:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                torch.autograd.grad(value, z)


def test_a_learnt_temperature_beside_a_gradient_over_the_logits(cut: device.Plan) -> None:
    """It needs the label's logit from the one program that has it."""
    leaf, y, t = problem(ROWS, CLASSES, torch.float64)
    for target in (y, t):
        found = []
        for overwrite in (False, True):
            temperature = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64).requires_grad_()
            z = leaf.clone().requires_grad_() * 1
            with il.kernels.use("gpu"):
                EVERY.scaled(temperature)(z, target, overwrite_logits=overwrite).backward()
            found.append(temperature.grad)
        assert torch.equal(found[0], found[1])


def test_any_layout(cut: device.Plan) -> None:
    dense = torch.tensor(problems.rows(1, 6, CLASSES)).reshape(2, 3, CLASSES).movedim(2, 1)
    labels = torch.tensor(problems.labels(2, 6, CLASSES)).reshape(2, 3)
    compared(EVERY, dense, labels)
    compared(EVERY, dense.contiguous(), labels)
    wide = torch.tensor(problems.rows(1, 7, 2 * CLASSES))[:, ::2]
    compared(il.min_ent(), wide, torch.tensor(problems.labels(2, 7, CLASSES)))


def test_ignored_rows_leave_no_trace(cut: device.Plan) -> None:
    z, y, t = problem(ROWS, CLASSES, torch.float64)
    y[3] = -100
    z[1], z[3] = torch.nan, torch.inf
    term = EVERY.scaled(0.5)
    compared(term, z, y)
    _, gradient = value_and_gradient(term, z, y, "gpu")
    assert gradient[[1, 3]].eq(0).all()
    assert gradient.isfinite().all()
    t[[1, 3]] = torch.nan
    kept = torch.arange(ROWS) % 2 == 0
    compared(term, torch.where(kept[:, None], z, 0), torch.where(kept[:, None], t, 0))
    z = z.clone().requires_grad_()
    moments = fused.reduce("gpu", z[:, :, None], t, (), ("exp_sum", "logit_sum"), kept=kept)
    (moments["exp_sum"] + moments["logit_sum"]).sum().backward()
    assert z.grad is not None
    assert z.grad[~kept].eq(0).all()


def test_masked_classes_and_labels(cut: device.Plan) -> None:
    z, y, t = problem(ROWS, CLASSES, torch.float64)
    z[4, :20] = -torch.inf  # a whole tile and a whole part
    z[5, 17:] = -torch.inf
    z[6, int(y[6])] = -torch.inf
    t = t.masked_fill(z == -torch.inf, 0)
    t /= t.sum(-1, keepdim=True)
    for term in (EVERY.scaled(0.3), il.mix_ent(), il.brier()):
        compared(term, z, t if cut.rows == 4 else y)
    compared(il.min_ent(), z, t.roll(1, 0))  # soft targets that want masked classes
    with il.kernels.use("gpu"):
        assert il.cross_entropy()(z, y, reduction="none")[6] == torch.inf


def test_a_row_without_classes_has_no_gradient(parts: device.Plan) -> None:
    z = torch.full((1, CLASSES), -torch.inf).requires_grad_()
    moments = fused.reduce("gpu", z[:, :, None], None, (), ("exp_sum", "exp_logit_sum", "classes"))
    assert moments["maximum"].item() == -torch.inf
    assert [moments[name].item() for name in ("exp_sum", "exp_logit_sum", "classes")] == [0, 0, 0]
    moments["exp_sum"].sum().backward()
    assert z.grad is not None
    assert z.grad.eq(0).all()


@pytest.mark.parametrize("columns", [(3, 5), (3, 20), (20, 36), (15, 16)])
def test_ties_go_to_the_lowest_column(columns: tuple[int, int], cut: device.Plan) -> None:
    """Within a tile, over tiles and over parts."""
    z = torch.zeros(2, CLASSES, dtype=torch.float64)
    z[0, list(columns)] = 1.0
    _, gradient = value_and_gradient(il.parse("max_logit"), z, None, "gpu")
    assert gradient.nonzero().tolist() == [[0, columns[0]], [1, 0]]


def test_nan_stays_nan_and_other_rows_stay_clean(cut: device.Plan) -> None:
    z, y, _ = problem(ROWS, CLASSES, torch.float64)
    y[1] = 0
    z[2, 30] = torch.nan
    value, gradient = value_and_gradient(il.min_ent(), z, y, "gpu")
    assert value.isnan().nonzero().tolist() == [[2]]
    assert gradient.isnan().any(1).nonzero().tolist() == [[2]]


@pytest.mark.parametrize("label", [-1, CLASSES, 2**40])
def test_a_label_out_of_range_is_never_used(label: int, cut: device.Plan) -> None:
    """Neither of logits nor of a shift: so far away (2⁴⁰) there is no memory to read."""
    z = torch.zeros(2, CLASSES, 1, dtype=torch.float64).requires_grad_()
    (views, _), *_ = il.entropy().shifted(torch.zeros(CLASSES)).readings()
    needs = ("label_logit", "label_exp", "exp_sum")
    for through in ((), views):
        moments = fused.reduce("gpu", z, torch.tensor([0, label]), through, needs)
        assert moments["label_logit"].isnan().tolist() == [False, True]
        assert moments["label_exp"].isnan().tolist() == [False, True]
        assert moments["exp_sum"].tolist() == [CLASSES, CLASSES]
        for name in needs:  # nor is there a gradient that could pass for one
            (g,) = torch.autograd.grad(moments[name].sum(), z, retain_graph=True)
            assert g[0].isfinite().all()
            assert g[1].isnan().all()


@pytest.mark.parametrize("term", ["min_ent", "logit_norm"])
def test_higher_derivatives(term: str) -> None:
    z = torch.tensor(problems.rows(1, 3, 4)).requires_grad_()
    y, loss = torch.tensor([0, 3, 1]), il.parse(term)
    with il.kernels.use("gpu"):
        assert torch.autograd.gradgradcheck(lambda x: loss(x, y), z)


def test_one_row_one_class_and_no_row() -> None:
    for rows, classes in ((1, 1), (1, 5), (3, 1), (0, 4)):
        z = torch.tensor(problems.rows(1, rows, classes)).reshape(rows, classes)
        compared(il.min_ent(), z, torch.zeros(rows, dtype=torch.int64))
    compared(il.min_ent(), torch.ones(1, 1).double().expand(3, 5), torch.tensor([0, 1, 2]))


def test_half_types_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No float32 copy of the logits, and a gradient of their type."""
    seen: list[torch.dtype] = []

    def watched(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        seen.append(inputs.z.dtype)
        return moments(inputs)

    moments = device.moments
    monkeypatch.setattr(device, "moments", watched)
    z = torch.zeros(3, 4, dtype=torch.bfloat16)
    _, gradient = value_and_gradient(il.min_ent(), z, torch.tensor([0, 1, 2]), "gpu")
    assert seen == [torch.bfloat16]
    assert gradient.dtype == torch.bfloat16


def test_what_the_kernel_cannot_do_is_eagers() -> None:
    z, y = torch.tensor(problems.rows(1, 3, 4)), torch.tensor([0, 3, 1])
    compared(il.cross_entropy().soft_capped(2.0).scaled(0.5), z, y)  # a cap of what is scaled
    with il.kernels.use("gpu"):
        each = torch.func.vmap(torch.func.grad(il.min_ent()))(z, y)
    with il.kernels.use("eager"):
        torch.testing.assert_close(each, torch.func.vmap(torch.func.grad(il.min_ent()))(z, y))


def test_numbers_of_the_kernel_are_those_of_its_order() -> None:
    for number, name in enumerate(ORDER):
        constant = {
            "exp_sum": "EXP",
            "exp_logit_sum": "EXP_LOGIT",
            "exp_square_sum": "EXP_SQUARE",
            "logit_sum": "SUM",
            "logit_square_sum": "SQUARE",
            "label_logit": "LABEL",
            "label_logit_square": "LABEL_SQUARE",
        }.get(name, name.upper())
        assert getattr(reading, constant).value == number
