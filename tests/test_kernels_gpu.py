"""The GPU kernel: interpreted on the CPU, compiled for GPUs that need not be there, run on one that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import agree, as_good_as_eager, problem, value_and_gradient
from cases import CASES, FIRST
from hypothesis import given
from hypothesis import strategies as st

import infoloss as il

pytest.importorskip("triton")
import triton
from triton.backends.compiler import GPUTarget

from infoloss import kernels
from infoloss.direct.plan import make_plan
from infoloss.kernels import device, fused, gpu
from infoloss.kernels.inputs import Inputs, overwritable

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["interpreted_gpu_kernel", "interpreted_class_tiles"])
def test_under_the_interpreter(name: str) -> None:
    """In a process of its own: Triton reads the environment when it is imported."""
    file = Path(__file__).with_name(f"{name}.py")
    # NumPy says what IEEE arithmetic does silently: 0·inf is nan
    command = [sys.executable, "-m", "pytest", str(file), "-q", "-x", "-W", "ignore::RuntimeWarning"]
    command += ["-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@given(st.integers(1, 10**7), st.integers(1, 10**6), st.integers(1, 200))
def test_a_plan_covers_every_element_once(rows: int, classes: int, multiprocessors: int) -> None:
    plan = device.plan(rows, classes, multiprocessors, 1024)
    assert (plan.grid[0] - 1) * plan.rows < rows <= plan.grid[0] * plan.rows
    assert (plan.parts - 1) * plan.span < classes <= plan.parts * plan.span
    assert plan.span % plan.block == 0
    assert plan.rows * plan.block <= 1024
    assert plan.parts <= device.PARTS


def test_few_long_rows_are_cut_and_many_are_not() -> None:
    assert device.plan(8192, 128256, 132, 1024).parts == 1
    assert device.plan(4, 128256, 132, 1024).parts == 63  # two tiles each
    assert device.plan(1, 10**7, 132, 1024).parts <= device.PARTS


# -- compiled for a GPU that need not be there ----------------------------------------------------


class Hopper:
    """What Triton's launcher asks a driver, of a GPU that is not there."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class Compiled:
    """A kernel whose launches end when it has been compiled."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.made: list[str] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(**given: Any) -> None:
            self.made.append(self.kernel.warmup(grid=grid, **given).asm["ptx"])

        return launch


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Compiled]:
    """Every launch compiles for a GPU with 132 multiprocessors, anew, and leaves the results as they are."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Hopper())
    monkeypatch.setattr(device, "_multiprocessors", lambda _: 132)
    kernels = {name: Compiled(getattr(gpu, name)) for name in ("moments", "merge", "gradient")}
    for name, kernel in kernels.items():
        monkeypatch.setattr(gpu, name, kernel)
    return kernels


EVERY = ("exp_sum", "exp_logit_sum", "exp_square_sum", "logit_sum", "logit_square_sum", "classes", "peak")
LABEL = ("label_logit", "label_logit_square", "label_exp", "label_log_exp")


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((512, 1000), torch.float32, "soft"),
        ((512, 128256), torch.bfloat16, "hard"),
        ((2, 128256), torch.bfloat16, "hard"),
        ((2, 128256), torch.float16, "soft"),
        ((3, 5), torch.float64, "hard"),
        ((3, 128256), torch.float64, "soft"),
        ((1, 1), torch.float32, "hard"),  # Triton makes constants of arguments that are 1
    ],
    ids=str,
)
def test_compiles(
    shape: tuple[int, int], dtype: torch.dtype, kind: str, compiled: dict[str, Compiled]
) -> None:
    """Every moment, bare and through a cap, a scale that has a gradient and a shift, with rows to ignore."""
    rows, classes = shape
    z = torch.zeros(rows, classes, 1, dtype=dtype).requires_grad_()
    target = torch.zeros(rows, dtype=torch.int64) if kind == "hard" else torch.zeros(rows, classes)
    factor = torch.ones(rows, dtype=torch.float64).requires_grad_()
    viewed = il.cross_entropy().shifted([1.0] * classes).scaled(factor).soft_capped(30.0)
    (views, _), *_ = viewed.readings()
    assert fused.supports(views)
    for through in ((), views):
        kept = torch.ones(rows, dtype=torch.bool)
        moments = fused.reduce("gpu", z, target, through, EVERY + LABEL, floor=1e-3, kept=kept)
        torch.stack([moment for moment in moments.values() if moment.requires_grad]).sum().backward()
    assert len(compiled["moments"].made) == len(compiled["gradient"].made) == 2
    assert len(compiled["merge"].made) == (
        2 if device.plan(rows, classes, 132, device.MOMENTS).parts > 1 else 0
    )


def test_the_interpreter_of_programs_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Hopper())
    kernel = Compiled(gpu.values)
    monkeypatch.setattr(gpu, "values", kernel)
    plan = make_plan(il.parse("focal"), False)
    assert plan is not None
    y = torch.zeros(300, dtype=torch.int64)
    inputs = Inputs(torch.zeros(300, 5, 1), None, y, y == 0, None, 0.0, plan.passes[0].names)
    packed = torch.zeros(plan.moments, 300, dtype=torch.float64)
    numbers = [1.0] * len(plan.program.parameters)
    device.values(plan.program, numbers, plan.spared, plan.label_row, inputs, packed, by_row=True)
    assert len(kernel.made) == 1


def test_bfloat16_rows_move_16_bytes_at_a_time(compiled: dict[str, Compiled]) -> None:
    z = torch.zeros(512, 128256, 1, dtype=torch.bfloat16).requires_grad_()
    moments = fused.reduce("gpu", z, torch.zeros(512, dtype=torch.int64), (), ("exp_sum", "label_logit"))
    moments["exp_sum"].sum().backward()
    assert "ld.global.v4.b32" in compiled["moments"].made[0]
    assert "st.global.v4.b32" in compiled["gradient"].made[0]


def test_no_thread_writes_before_all_have_read_the_label(compiled: dict[str, Compiled]) -> None:
    """The gradient may be written over the logits."""
    z = torch.zeros(512, 128256, 1, dtype=torch.bfloat16).requires_grad_()
    moments = fused.reduce("gpu", z, torch.zeros(512, dtype=torch.int64), (), ("exp_sum", "label_logit"))
    moments["label_logit"].sum().backward()
    before, barrier, after = compiled["gradient"].made[0].partition("bar.sync")
    assert barrier
    assert "st.global" not in before
    assert "st.global" in after


# -- on a GPU -------------------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("shape", [(257, 10), (67, 1000), (3, 128256)], ids=str)
def test_agrees_with_eager_on_a_gpu(shape: tuple[int, int]) -> None:
    for case in FIRST:
        agree(case, case.term(shape[1]), *shape, "gpu", "cuda")
        agree(case, case.term(shape[1]).scaled(0.5), *shape, "gpu", "cuda")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(4099, 10), (517, 1000), (37, 128256), (2, 262144)], ids=str)
def test_smaller_types_are_as_good_as_eager_on_a_gpu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    rows, classes = shape
    z = (3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))).to("cuda", dtype)
    y = torch.arange(rows, device="cuda") * 7 % classes
    for case in CASES:
        as_good_as_eager(case.term(classes), z, y, "gpu")


@pytest.mark.gpu
@on_gpu
def test_dense_logits_and_a_learnt_temperature_on_a_gpu() -> None:
    z, y, _ = problem(64, 21, torch.float64)
    dense, labels = z.reshape(4, 4, 4, 21).movedim(3, 1).cuda(), y.reshape(4, 4, 4).cuda()
    temperature = torch.tensor(0.7, dtype=torch.float64, device="cuda").requires_grad_()
    term = (il.squentropy() + il.entropy() + il.max_suppression()).scaled(temperature)
    found = []
    for kernel in ("gpu", "eager"):
        temperature.grad = None
        found.append((*value_and_gradient(term, dense, labels, kernel), temperature.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("shape", [(4099, 10), (517, 1000), (37, 128256), (2, 262144)], ids=str)
def test_a_gradient_over_the_logits_is_the_same_on_a_gpu(shape: tuple[int, int]) -> None:
    """Bit by bit, that of a temperature too: no thread reads the label's logit after another has written."""
    leaf = torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_()
    y = torch.arange(shape[0], device="cuda") * 7 % shape[1]
    temperature = torch.linspace(0.5, 2.0, shape[0], dtype=torch.float64, device="cuda").requires_grad_()
    term = (il.squentropy() + il.entropy() + il.max_suppression()).scaled(temperature)
    for loss, learnt in ((il.min_ent(), ()), (term, (temperature,))):
        found = []
        for overwrite in (False, *[True] * 5):
            z = leaf * 1
            value = loss(z, y, overwrite_logits=overwrite)
            found.append(torch.autograd.grad(value, (z, *learnt)))
            assert (found[-1][0].data_ptr() == z.data_ptr()) == overwrite
        for again in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))


@pytest.mark.gpu
@on_gpu
def test_reruns_are_bit_identical_and_the_choice_is_automatic() -> None:
    z = torch.randn(33, 32000, device="cuda", dtype=torch.bfloat16)
    y = torch.arange(33, device="cuda")
    first, second = (value_and_gradient(il.min_ent(), z, y, "gpu") for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert kernels.chosen(z, y) == "gpu"


@pytest.mark.gpu
@on_gpu
def test_nothing_waits_for_the_gpu() -> None:
    z = torch.randn(33, 1000, device="cuda", requires_grad=True)
    y = torch.arange(33, device="cuda")
    term = il.min_ent()
    term(z, y).backward()  # compiled now
    torch.cuda.set_sync_debug_mode("error")
    try:
        term(z, y).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_benchmark_says_what_it_needs() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: the benchmark would run for minutes")
    command = [sys.executable, "-m", "benchmarks.gpu", "--rows=4", "--classes=10", "--dtype=float32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1
    assert "needs a GPU" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*command, "--dtype=int8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 2
    assert "bfloat16" in done.stderr


def benchmark(out: Path, *options: str, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", *options, f"--out={out}"]
    given = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=given)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(out.read_text())
    lines = (*result["bandwidth"], *result["logits"], *result["hidden"])
    for line in lines:
        assert 0 < line["lower"] <= line["median"] <= line["upper"]
        assert line["work"] in done.stdout
    assert len(done.stdout.splitlines()) == 4 + len(lines)  # the conditions, a line above each table
    return result


def test_the_benchmark_runs_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: it would be measured")
    result = benchmark(tmp_path / "gpu.json", "--small", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    per_token = "log-probability, entropy"
    with_terms = "cross_entropy + 0.1*entropy + z_loss"
    assert {line["work"] for line in result["hidden"]} == {"cross_entropy", with_terms, per_token}
    assert all(line["ours_bytes"] is None for line in result["logits"])


def test_the_benchmark_writes_over_the_logits_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu import Head

    buffer = torch.zeros(3, 4)
    logits = Head.apply(torch.zeros((), requires_grad=True), buffer)
    assert overwritable(logits)
    assert logits.data_ptr() == buffer.data_ptr()


@pytest.mark.gpu
@on_gpu
def test_the_benchmark_on_a_gpu(tmp_path: Path) -> None:
    sizes = ("--rows=512", "--classes=16384", "--features=32", "--pairs=2")  # no smaller than the allocator's
    result = benchmark(tmp_path / "gpu.json", *sizes)
    over, whole = (
        next(line for line in result["logits"] if line["work"] == name)["ours_bytes"]
        for name in ("min_ent, over the logits", "min_ent")
    )
    assert whole >= 2 * 512 * 16384
    assert over < whole / 4
