"""What the CPU kernel reads: layouts, types, views and sizes, and the ways a call can take to it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
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


def test_an_imaginary_part_of_a_conjugate() -> None:
    """Its memory has the other sign."""
    z = torch.view_as_complex(torch.stack([Z, 2 * Z], -1)).conj().imag
    assert z.is_neg()
    for options in ({}, {"weight": torch.ones(NARROW)}):
        with il.kernels.use("cpu"):
            found = il.min_ent()(z, Y, **options)
        torch.testing.assert_close(found, il.min_ent()(-2 * Z, Y, **options))


@pytest.mark.parametrize("kernel", ["cpu", "eager"])
def test_temperatures_of_another_number_of_rows(kernel: str) -> None:
    with (
        il.kernels.use(kernel),
        pytest.raises(ValueError, match=r"one value a row \(50\), got shape \(49,\)"),
    ):
        il.min_ent().scaled(torch.ones(49))(Z, Y)


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


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("term", ["min_ent", "max_suppression + pc_softmax", "logit_norm"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_in_a_batch(reduction: str, term: str, weighted: bool) -> None:
    """``is_grads_batched`` and ``vmap`` map the backward pass, which compiled code cannot see into."""
    z, y = Z[:4].double().requires_grad_(), Y[:4]
    loss = il.parse(term)
    loss = loss.bind(prior=[1 / NARROW] * NARROW) if loss.unbound else loss
    weight = torch.linspace(0.5, 1.5, NARROW).double() if weighted else None
    seeds = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 3], [-1, 0, 1, 2]], dtype=torch.float64)
    seeds = seeds if reduction == "none" else seeds.sum(1)
    with il.kernels.use("cpu"):
        value = loss(z, y, weight=weight, reduction=reduction)

    def gradient(seed: Tensor, **options: bool) -> Tensor:
        return torch.autograd.grad(value, z, seed, retain_graph=True, **options)[0]

    expected = torch.stack([gradient(seed) for seed in seeds])
    torch.testing.assert_close(gradient(seeds, is_grads_batched=True), expected)
    torch.testing.assert_close(torch.func.vmap(gradient)(seeds), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside PyTorch's forward mode
def test_a_gradient_that_has_a_derivative(weighted: bool) -> None:
    """Forward mode through the backward pass alone: the gradient is linear in what it is weighted with."""
    z, y = Z[:4].double().requires_grad_(), Y[:4]
    sample_weight = torch.full((4,), 0.5).double() if weighted else None
    with il.kernels.use("cpu"):
        value = il.min_ent()(z, y, sample_weight=sample_weight, reduction="none")
    seed, direction = torch.tensor([[1.0, 2, 3, 4], [0, 1, -1, 2]], dtype=torch.float64)
    (expected,) = torch.autograd.grad(value, z, direction, retain_graph=True)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(seed, direction)
        (found,) = torch.autograd.grad(value, z, dual, retain_graph=True)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(found).tangent, expected)


def test_another_number_of_classes_than_a_shift_has() -> None:
    """Not read beyond the shift's memory, whatever the calls before were."""
    term = il.balanced_softmax(counts=range(1, NARROW + 1))
    with il.kernels.use("cpu"):
        term(Z, Y)
        for classes in (NARROW - 1, NARROW + 1, WIDE):
            with pytest.raises(ValueError, match=f"logits have {classes} classes, the shift is for {NARROW}"):
                term(torch.zeros(2, classes), torch.tensor([0, 1]))


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


def elsewhere(script: str, **environment: str) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,  # it may have to compile, on a busy machine
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_OPENMP = """
import torch, infoloss as il
torch.set_num_threads(2)
z, y = torch.randn(4000, 257), torch.zeros(4000, dtype=torch.int64)
with il.kernels.use("cpu"):
    value = il.min_ent()(z, y)
with il.kernels.use("eager"):
    torch.testing.assert_close(value, il.min_ent()(z, y))
from infoloss.kernels import threads
assert not threads.parallel(z.numel())
"""


def test_without_openmp_the_serial_variants_run() -> None:
    elsewhere(WITHOUT_OPENMP, NUMBA_THREADING_LAYER="workqueue")


def test_serial_and_parallel_variants_are_kept_apart_on_the_disk() -> None:
    """By module and qualified name alone; else what is read from the disk is what was compiled first."""
    kept = [(f.py_func.__module__, f.py_func.__qualname__) for f in host.FUNCTIONS.values()]
    assert len(set(kept)) == len(kept)


BITS = """
import hashlib, warnings, torch, infoloss as il
{before}
torch.set_num_threads(1)
z, y = torch.linspace(-4, 4, 3840).sin().reshape(192, 20).requires_grad_(), torch.arange(192) % 20
with warnings.catch_warnings(record=True) as caught, il.kernels.use("cpu"):
    warnings.simplefilter("always")
    rows = il.squentropy()(z, y, reduction="none")
rows.sum().backward()
said = sum("anew in every process" in str(one.message) for one in caught)
from infoloss.kernels.host import FUNCTIONS
read = sum(sum(function.stats.cache_hits.values()) for function in FUNCTIONS.values())
print(said, read, hashlib.sha256(rows.detach().numpy().tobytes() + z.grad.numpy().tobytes()).hexdigest())
"""
NO_PLACE = "from numba.core import caching; caching.CacheImpl._locator_classes = []"


def test_without_a_cache_and_from_the_disk_the_bits_are_the_same() -> None:
    """Functions that share loops, which are compiled into each: one warning where no cache can be written."""
    anew = elsewhere(BITS.format(before=NO_PLACE)).split()
    _, again = (elsewhere(BITS.format(before="")).split() for _ in range(2))  # the first may have compiled
    assert (anew[:2], again[:2]) == (["1", "0"], ["0", "3"])  # moments, values, gradient
    assert again[2] == anew[2]
