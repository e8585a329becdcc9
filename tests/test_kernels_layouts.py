"""What the CPU kernel reads: layouts, types, views and sizes, and the ways a call can take to it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import problems
import pytest
import torch
from agreement import value_and_gradient
from torch import Tensor

import infoloss as il
from infoloss.direct.host import Work

pytest.importorskip("numba")
from infoloss.kernels import host

EVERY = (
    il.squentropy()
    + il.entropy()
    + il.max_suppression()
    + il.statistic("target_probability")
    + il.statistic("collision")
    - il.statistic("expected_log_target", floor=1e-3)
)
"""Every moment that hard labels have."""
NARROW, WIDE = 7, host.NARROW + 5  # classes: read in tiles, read row by row


def same(term: il.Term, z: Tensor, y: Tensor, **options: Any) -> None:
    """The CPU kernel and eager agree on the plain way and, with a weight of 1 a row, on the general one."""
    general = {"sample_weight": torch.ones(z.shape[:1] + z.shape[2:], dtype=torch.float64)}
    expected = value_and_gradient(term, z, y, "eager", **options)
    for more in ({}, general):
        found = value_and_gradient(term, z, y, "cpu", **options, **more)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-12)


def logits(rows: int, classes: int) -> Tensor:
    return torch.tensor(problems.rows(1, rows, classes, spread=3.0))


LAYOUTS: dict[str, Callable[[int], Tensor]] = {
    "rows": lambda c: logits(131, c),
    "rows of a wider array": lambda c: logits(131, 2 * c)[:, c:],
    "every second class": lambda c: logits(131, 2 * c)[:, ::2],
    "every second row": lambda c: logits(262, c)[::2],
    "columns": lambda c: logits(c, 131).T,
    "planes": lambda c: logits(3 * c, 131).reshape(3, c, 131),
    "planes of two dimensions": lambda c: logits(2 * c, 13 * 9).reshape(2, c, 13, 9),
    "classes last": lambda c: logits(2 * 65, c).reshape(2, 65, c).movedim(-1, 1),
    "the same row again": lambda c: logits(1, c).expand(131, c),
    "one row": lambda c: logits(1, c),
    "one class": lambda _: logits(131, 1),
}


@pytest.mark.parametrize("classes", [NARROW, WIDE])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, classes: int) -> None:
    z = LAYOUTS[name](classes)
    shape = z.shape[:1] + z.shape[2:]
    y = torch.tensor(problems.labels(2, math.prod(shape), z.shape[1])).reshape(shape)
    y.view(-1)[::5] = -100
    if z.shape[1] > 1:
        same(EVERY, z, y)
        same(il.cross_entropy().shifted(torch.rand(z.shape[1])), z, y)
    same(il.min_ent(), z, y)


@pytest.mark.parametrize("name", LAYOUTS)
def test_logits_are_read_where_they_lie(name: str) -> None:
    z = LAYOUTS[name](WIDE)
    z = z[:, :, None] if z.ndim == 2 else z.flatten(2)
    memory, layout = host.memory(z)
    outer, classes, inner = z.shape
    assert memory.ctypes.data == z.data_ptr()
    assert layout[0] == outer * inner
    for b, c, s in ((0, 0, 0), (outer - 1, classes - 1, inner - 1)):
        n = b * inner + s
        at = n // layout[2] * layout[3] + c * layout[4] + n % layout[2] * layout[5]
        assert memory[at] == float(z[b, c, s])


VIEWS: dict[str, Callable[[il.Term], il.Term]] = {
    "cap": lambda t: t.soft_capped(2.0),
    "cap, scale": lambda t: t.scaled(0.5).soft_capped(2.0),
    "cap, norm": lambda t: t.normalized(0.3).soft_capped(2.0),
    "cap, shift": lambda t: t.shifted(SHIFT).soft_capped(2.0),
    "cap, scale, shift": lambda t: t.shifted(SHIFT).scaled(0.5).soft_capped(2.0),
    "norm, shift": lambda t: t.shifted(SHIFT).normalized(0.3),
    "shift, cap": lambda t: t.soft_capped(2.0).shifted(SHIFT),  # not in the kernel: eager
}
SHIFT = torch.linspace(-1, 1, NARROW).tolist()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide:  # the same classes, row by row
        monkeypatch.setattr(host, "NARROW", 0)
    z, y = logits(131, NARROW), torch.tensor(problems.labels(2, 131, NARROW))
    z[0, 1] = -torch.inf
    y[0], y[3] = 2, -100
    same(VIEWS[name](EVERY), z, y)
    same(VIEWS[name](il.min_ent()), z, torch.softmax(logits(131, NARROW), 1) * (z > -torch.inf))


def test_the_capped_logits() -> None:
    """Relative error below 3e-7 in float32, from where tanh is linear to where it is 1."""
    z = torch.cat([-torch.logspace(-30, 3, 20001), torch.logspace(-30, 3, 20001)])
    rows = torch.stack([z, torch.full_like(z, -torch.inf)], 1)  # one unmasked class: the statistic is κ(z)
    with il.kernels.use("cpu"):
        found = il.statistic("target_logit").soft_capped(30.0)(
            rows, torch.zeros(len(z), dtype=torch.int64), reduction="none"
        )
    exact = 30 * np.tanh(z.double().numpy() / 30)
    assert np.abs(found.double().numpy() / exact - 1).max() < 3e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(37, NARROW), (37, WIDE), (3, NARROW, 19), (1, NARROW, 50)], ids=str)
def test_half_types_are_read_in_float32(
    dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "HALF", 64)  # several blocks
    z = logits(math.prod(shape) // shape[1], shape[1]).movedim(-1, 0).reshape(shape[1], shape[0], -1)
    z = z.movedim(0, 1).reshape(shape).to(dtype)
    y = torch.randint(shape[1], shape[:1] + shape[2:])
    for term in (EVERY, il.logit_norm(), il.balanced_softmax(counts=range(1, shape[1] + 1))):
        found = value_and_gradient(term, z, y, "cpu")
        expected = value_and_gradient(term, z.float(), y, "cpu")
        assert found[0].dtype == torch.float32
        assert found[1].dtype == dtype
        torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(found[1], expected[1].to(dtype))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_long_rows_are_cut(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PART", 100)
    z, y = logits(rows, 1009), torch.tensor(problems.labels(2, rows, 1009))
    z[0, :300] = -torch.inf  # a part without a class
    y[0] = 1008
    assert host.memory(z)[1][6] == 8 // rows
    same(EVERY, z, y)
    same(EVERY, z, torch.full_like(y, -100))
    same(il.max_suppression() + il.cross_entropy(), torch.zeros_like(z), y)  # ties: the first of all
    with pytest.raises(IndexError, match=r"target\[0\] is 1009, expected 0 ≤ label < 1009"):
        same(EVERY, z, torch.full_like(y, 1009))


def test_threads_change_no_bit_of_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PART", 1 << 14)
    z, y = logits(2, 1 << 16).float(), torch.tensor([5, 60000])
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(value_and_gradient(EVERY, z, y, "cpu"))
        finally:
            torch.set_num_threads(1)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


# -- the plain way --------------------------------------------------------------------------------

Z, Y = logits(50, NARROW).float(), torch.tensor(problems.labels(2, 50, NARROW))


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """The plain calls that are made."""
    made = []
    do = Work.__init__

    def counted(work: Work, *args: Any, **options: Any) -> None:
        do(work, *args, **options)
        made.append(work)

    monkeypatch.setattr(Work, "__init__", counted)
    return made


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"denominator": 7.0}]
)
@pytest.mark.parametrize("small", [True, False])
def test_plain_calls_are_the_general_ones(
    options: dict[str, Any], small: bool, works: list[Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, gradients times a factor, and a second backward pass; small batches in one compiled call."""
    monkeypatch.setattr("infoloss.direct.host.SMALL", Z.numel() if small else Z.numel() - 1)
    y = Y.clone()
    y[::7] = 3  # to be ignored: a label that is a class
    for term in (il.min_ent(), il.pc_softmax(prior=[1 / NARROW] * NARROW), il.entropy()):
        found = []
        for kernel in ("cpu", "eager"):
            z = Z.clone().requires_grad_()
            with il.kernels.use(kernel):
                value = term(z, y, ignore_index=3, **options)
                (3 * value).backward(retain_graph=True)
                value.backward()
            found.append((value.detach(), z.grad))
        torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert works
    assert {work.small is not None for work in works} <= {small, False}


def test_what_is_not_plain_goes_the_general_way(works: list[Work]) -> None:
    half, soft = Z.bfloat16(), torch.softmax(Z, 1)
    temperature = torch.tensor(0.5, requires_grad=True)
    with il.kernels.use("cpu"):
        il.min_ent()(half, Y)
        il.min_ent()(Z, soft)
        il.min_ent()(Z, Y.int())
        il.min_ent()(Z, Y, weight=torch.ones(NARROW))
        il.min_ent().scaled(temperature)(Z, Y)
        il.balanced_softmax(counts=[0, *range(1, NARROW)])(Z, Y.clamp(min=1))
        il.parse("cross_entropy + beta*entropy")(Z, Y, coefficients={"beta": temperature})
    assert not works


def test_errors_name_row_and_value() -> None:
    with il.kernels.use("cpu"):
        wrong = Y.clone()
        wrong[4] = NARROW
        for term in (il.min_ent(), il.pc_softmax(prior=[1 / NARROW] * NARROW), il.entropy()):
            with pytest.raises(IndexError, match=rf"target\[4\] is {NARROW}, expected 0 ≤ label < {NARROW}"):
                term(Z, wrong)
        masked = Z.clone()
        masked[2] = -torch.inf
        with pytest.raises(ValueError, match=r"every class of the row of logits\[2\] is masked"):
            il.min_ent()(masked, Y)
        with pytest.raises(ValueError, match="reads the target"):
            il.min_ent()(Z)
        with pytest.raises(ValueError, match="no value for beta"):
            il.parse("cross_entropy + beta*entropy")(Z, Y)


def test_a_masked_label_is_infinite_and_has_no_gradient() -> None:
    z = Z.clone()
    z[0, int(Y[0])] = -torch.inf
    value, gradient = value_and_gradient(il.min_ent(), z, Y, "cpu")
    assert value.isinf().tolist() == [True] + [False] * 49
    assert not gradient[0].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("classes", [NARROW, WIDE])
def test_a_row_of_nan_is_not_masked(classes: int) -> None:
    z = logits(3, classes)
    z[1] = torch.nan
    z[1, 2] = -torch.inf
    for term in (il.min_ent(), EVERY):
        value, gradient = value_and_gradient(term, z, torch.tensor([0, 1, 2]), "cpu")
        assert value.isnan().tolist() == [False, True, False]
        assert gradient[1, :2].isnan().all()


def test_logits_changed_before_the_backward_pass() -> None:
    z = Z.clone().requires_grad_()
    x = z * 1
    with il.kernels.use("cpu"):
        value = il.min_ent()(x, Y)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_gradients_in_a_batch() -> None:
    """``is_grads_batched`` maps the backward pass, which compiled code cannot see into."""
    z = Z[:4].double().requires_grad_()
    with il.kernels.use("cpu"):
        rows = il.min_ent()(z, Y[:4], reduction="none")
        (each,) = torch.autograd.grad(rows, z, torch.eye(4, dtype=torch.float64), is_grads_batched=True)
        (whole,) = torch.autograd.grad(il.min_ent()(z, Y[:4], reduction="sum"), z)
    torch.testing.assert_close(each.sum(0), whole)
    assert each[0, 1].abs().sum() == 0


def test_a_forward_pass_keeps_a_few_numbers_a_row(works: list[Work]) -> None:
    z = logits(997, 257).float().requires_grad_()
    with il.kernels.use("cpu"):
        value = EVERY(z, torch.zeros(997, dtype=torch.int64))
    (work,) = works
    kept = [work.packed, work.value, work.slopes, *(a for _, (_, arrays), _ in work.passes for a in arrays)]
    own = [a for a in kept if isinstance(a, np.ndarray) and a.size and a.ctypes.data != z.data_ptr()]
    assert sum(a.nbytes for a in own) < z.numel() * 4 / 4
    value.backward()
    assert value.grad_fn.work is None  # and lets go of it


def test_without_a_gradient_nothing_is_recorded() -> None:
    with il.kernels.use("cpu"), torch.no_grad():
        assert not il.min_ent()(Z.clone().requires_grad_(), Y).requires_grad


# -- compiled graphs and exported programs --------------------------------------------------------


def operators(function: Callable[..., Tensor], *inputs: Tensor) -> list[str]:
    """Our operators in the graph that torch.compile makes."""
    names: list[str] = []

    def backend(graph: Any, _: Any) -> Any:
        names.extend(str(n.target) for n in graph.graph.nodes if "infoloss" in str(n.target))
        return graph.forward

    torch._dynamo.reset()
    torch.compile(function, fullgraph=True, backend=backend)(*inputs)
    return names


LARGE = logits(131, 257)
LABELS = torch.tensor(problems.labels(2, 131, 257))


@pytest.mark.parametrize(
    "term", [EVERY, il.balanced_softmax(counts=range(1, 258)), il.logit_norm(), il.min_ent().soft_capped(3.0)]
)
def test_the_kernel_stays_under_compile(term: il.Term) -> None:
    assert "infoloss.reduce.default" in operators(lambda z, y: term(z, y), LARGE, LABELS)
    assert not operators(lambda z, y: term(z, y), LARGE[:4], LABELS[:4])  # a small batch is traced
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda z, y: term(z, y, label_smoothing=0.0), fullgraph=True, backend="aot_eager"
    )
    found = []
    for function in (compiled, term):
        z = LARGE.clone().requires_grad_()
        value = function(z, LABELS)
        value.backward()
        found.append((value.detach(), z.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-13)


def test_a_learnt_temperature_under_compile() -> None:
    found = []
    for compile_it in (True, False):
        temperature = torch.linspace(0.5, 2, 131, dtype=torch.float64, requires_grad=True)

        def loss(z: Tensor, t: Tensor) -> Tensor:
            return il.statistic("lse").scaled(t)(z)

        torch._dynamo.reset()
        run = torch.compile(loss, fullgraph=True, backend="aot_eager") if compile_it else loss
        run(LARGE, temperature).backward()
        found.append(temperature.grad)
    torch.testing.assert_close(found[0], found[1])


def test_transforms_under_compile_are_traced() -> None:
    def gradient(z: Tensor) -> Tensor:
        return torch.func.grad(lambda x: il.min_ent()(x, LABELS))(z)

    assert not operators(gradient, LARGE)
    torch._dynamo.reset()
    found = torch.compile(gradient, fullgraph=True, backend="aot_eager")(LARGE)
    torch.testing.assert_close(found, gradient(LARGE))


def test_a_label_out_of_range_under_compile() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda z, y: il.min_ent()(z, y), fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match="label is out of range, expected 0 ≤ label < 257"):
        compiled(LARGE, LABELS + 200)


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.criterion = il.Criterion("min_ent")

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.criterion(z, y)  # type: ignore[no-any-return]


def test_exported_programs_are_plain_pytorch() -> None:
    program = torch.export.export(Module(), (LARGE, LABELS))
    assert "infoloss" not in str(program.graph)
    torch.testing.assert_close(program.module()(LARGE, LABELS), il.min_ent()(LARGE, LABELS))


# -- where the kernel runs ------------------------------------------------------------------------

ELSEWHERE = """
import warnings, torch, infoloss as il
{before}
torch.set_num_threads(2)
z, y = torch.randn(4000, 257), torch.zeros(4000, dtype=torch.int64)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with il.kernels.use("cpu"):
        value = il.min_ent()(z, y)
with il.kernels.use("eager"):
    torch.testing.assert_close(value, il.min_ent()(z, y))
{after}
"""


def elsewhere(before: str, after: str, **environment: str) -> None:
    script = ELSEWHERE.format(before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_where_no_cache_can_be_written() -> None:
    elsewhere(
        "from numba.core import caching; caching.CacheImpl._locator_classes = []",
        "assert [str(w.message) for w in caught if 'anew in every process' in str(w.message)].__len__() == 1",
    )


def test_without_openmp_the_serial_variants_run() -> None:
    elsewhere(
        "",
        "from infoloss.kernels import threads; assert not threads.parallel(z.numel())",
        NUMBA_THREADING_LAYER="workqueue",
    )


def test_serial_and_parallel_variants_are_kept_apart_on_the_disk() -> None:
    """By module and qualified name alone; else what is read from the disk is what was compiled first."""
    kept = [(f.py_func.__module__, f.py_func.__qualname__) for f in host.FUNCTIONS.values()]
    assert len(set(kept)) == len(kept)


BITS = """
import hashlib, torch, infoloss as il
torch.set_num_threads(1)
z, y = torch.linspace(-4, 4, 3840).sin().reshape(192, 20).requires_grad_(), torch.arange(192) % 20
with il.kernels.use("cpu"):
    il.squentropy()(z, y).backward()
print(hashlib.sha256(z.grad.numpy().tobytes()).hexdigest())
"""


def test_what_is_compiled_anew_and_what_is_read_from_the_disk_have_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert found[0] == found[1] != ""
