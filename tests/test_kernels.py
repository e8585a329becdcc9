"""The compiled CPU kernel against the eager one, which the oracles hold."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import problems
import pytest
import torch
from agreement import agree, as_good_as_eager, problem, value_and_gradient
from cases import CASES, Case
from torch import Tensor

import infoloss as il

pytest.importorskip("numba")
from infoloss.kernels import fused, threads
from infoloss.kernels.cpu import rows

# A prime number of rows; columns within a block, a block and a bit, and two blocks and a bit.
SHAPES = [(7, 5), (5, rows.BLOCK + 3), (3, 2 * rows.BLOCK + 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_eager_in_float64(case: Case, shape: tuple[int, int]) -> None:
    agree(case, case.term(shape[1]), *shape, "cpu")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_eager_through_a_scale_and_a_norm(case: Case) -> None:
    for view in (lambda term: term.scaled(0.5), lambda term: term.normalized(0.3)):
        agree(case, view(case.term(5)), 7, 5, "cpu")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_is_as_good_as_eager(case: Case) -> None:
    rows, classes = 11, 1009
    z = torch.tensor(problems.rows(1, rows, classes, spread=3.0), dtype=torch.float32)
    as_good_as_eager(case.term(classes), z, torch.tensor(problems.labels(2, rows, classes)), "cpu")


def test_a_learnt_temperature_has_its_gradient() -> None:
    z, y, _ = problem(7, 5, torch.float64)
    for classes in (5, rows.BLOCK + 3):
        z, y, _ = problem(7, classes, torch.float64)
        found = []
        for kernel in ("cpu", "eager"):
            temperature = torch.linspace(0.5, 2.0, 7, dtype=torch.float64).requires_grad_()
            term = (il.squentropy() + il.max_suppression() + il.entropy()).scaled(temperature)
            with il.kernels.use(kernel):
                term(z, y, reduction="sum").backward()
            found.append(temperature.grad)
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("term", ["min_ent", "squentropy", "focal", "logit_norm", "brier"])
def test_higher_derivatives(term: str) -> None:
    z = torch.tensor(problems.rows(1, 3, 4)).requires_grad_()
    y = torch.tensor([0, 3, 1])
    loss = il.parse(term)

    def third(kernel: str) -> Tensor:
        with il.kernels.use(kernel):
            (first,) = torch.autograd.grad(loss(z, y), z, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), z, create_graph=True)
            return torch.autograd.grad(second.square().sum(), z)[0]

    torch.testing.assert_close(third("cpu"), third("eager"), rtol=1e-9, atol=1e-12)
    with il.kernels.use("cpu"):
        assert torch.autograd.gradcheck(lambda x: loss(x, y), z)
        assert torch.autograd.gradgradcheck(lambda x: loss(x, y), z)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # inside PyTorch's jvp
def test_transforms_run_the_eager_form() -> None:
    z, y = torch.tensor(problems.rows(1, 3, 4)), torch.tensor([0, 3, 1])
    loss = il.min_ent()
    with il.kernels.use("cpu"):
        each = torch.func.vmap(torch.func.grad(loss))(z, y)
        whole = torch.func.hessian(lambda x: loss(x, y))(z)
        _, tangent = torch.func.jvp(lambda x: loss(x, y), (z,), (torch.ones_like(z) * z,))
    with il.kernels.use("eager"):
        torch.testing.assert_close(each, torch.func.vmap(torch.func.grad(loss))(z, y))
        torch.testing.assert_close(whole, torch.func.hessian(lambda x: loss(x, y))(z))
    z.requires_grad_()
    loss(z, y).backward()
    torch.testing.assert_close(tangent, (z.grad * z).sum())


def test_dense_and_strided_logits() -> None:
    dense = torch.tensor(problems.rows(1, 2 * 3 * 5, 4)).reshape(2, 3, 5, 4).permute(0, 3, 1, 2)
    labels = torch.tensor(problems.labels(2, 2 * 3 * 5, 4)).reshape(2, 3, 5)
    wide = torch.tensor(problems.rows(1, 7, 10))[:, ::2]
    for z, y in ((dense, labels), (wide, torch.tensor(problems.labels(2, 7, 5)))):
        for ours, eager in zip(
            value_and_gradient(il.min_ent(), z, y, "cpu"),
            value_and_gradient(il.min_ent(), z, y, "eager"),
            strict=True,
        ):
            torch.testing.assert_close(ours, eager, rtol=1e-11, atol=1e-12)


def test_a_small_batch_of_strided_logits() -> None:
    """Value and gradient in one call; the gradient is not strided as they are."""
    wide, y = torch.tensor(problems.rows(1, 7, 100)), torch.tensor(problems.labels(2, 7, 50))
    found = []
    for kernel in ("cpu", "eager"):
        z = wide.clone().requires_grad_()
        with il.kernels.use(kernel):
            found.append(torch.autograd.grad(il.min_ent()(z[:, ::2], y), z)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)


def test_nan_stays_nan_and_other_rows_stay_clean() -> None:
    z = torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [0.5, 0.5]])
    value, gradient = value_and_gradient(il.min_ent(), z, torch.tensor([0, 0, 1]), "cpu")
    assert value.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]


def test_threads_change_nothing() -> None:
    """Rows are computed one by one, whoever computes them."""
    z, y = torch.tensor(problems.rows(1, 401, 257)).float(), torch.tensor(problems.labels(2, 401, 257))
    one = value_and_gradient(il.squentropy(), z, y, "cpu")
    torch.set_num_threads(2)
    try:
        assert threads.parallel(z.numel())
        two = value_and_gradient(il.squentropy(), z, y, "cpu")
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_three_python_threads_at_once() -> None:
    z, y = torch.tensor(problems.rows(1, 401, 257)).float(), torch.tensor(problems.labels(2, 401, 257))
    expected, _ = value_and_gradient(il.squentropy(), z, y, "cpu")
    found: list[Tensor] = []

    def work() -> None:
        torch.set_num_threads(2)
        found.append(value_and_gradient(il.squentropy(), z, y, "cpu")[0])

    workers = [threading.Thread(target=work) for _ in range(3)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(1)
    assert len(found) == 3
    assert all(torch.equal(one, expected) for one in found)


AFTER_A_FORK = """
import os, torch, infoloss as il
torch.set_num_threads(2)
z, y = torch.randn(401, 257), torch.zeros(401, dtype=torch.int64)
expected = il.min_ent()(z, y)  # the threads are running now
child = os.fork()
if child == 0:
    from infoloss.kernels import threads
    torch.set_num_threads(1)  # PyTorch's own threads do not survive a fork either
    value = il.min_ent()(z, y)
    os._exit(0 if torch.equal(value, expected) and not threads._layer_is_safe() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_after_a_fork() -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_A_FORK], timeout=900, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_exponential() -> None:
    """Relative error below 1e-7 wherever e^u is a normal float32; 0 for −inf and below, nan for nan."""
    u = np.linspace(-87.0, 0.0, 1_000_003, dtype=np.float32)
    z = np.concatenate([u, np.zeros_like(u)]).reshape(2, -1).T  # rows (u, 0): the maximum is 0
    moments = fused.reduce(
        "cpu",
        torch.tensor(np.ascontiguousarray(z))[:, :, None],
        torch.zeros(len(u), dtype=torch.int64),
        (),
        ("label_exp",),
    )
    error = moments["label_exp"].numpy() / np.exp(u.astype(np.float64)) - 1
    assert np.abs(error).max() < 1e-7
    low = torch.tensor([[-torch.inf, 0.0], [-200.0, 0.0], [torch.nan, 0.0]])[:, :, None]
    sums = fused.reduce("cpu", low, None, (), ("exp_sum",))["exp_sum"]
    assert sums[:2].tolist() == [1.0, 1.0]
    assert sums[2].isnan()


def test_a_kernel_that_is_not_there() -> None:
    with (
        pytest.raises(ValueError, match="unknown kernel 'gpus'; known: eager, cpu, gpu"),
        il.kernels.use("gpus"),
    ):
        pass
