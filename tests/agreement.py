"""A compiled kernel against the eager one, which the oracles hold."""

from __future__ import annotations

from typing import Any

import problems
import torch
from cases import Case
from torch import Tensor

import infoloss as il


def value_and_gradient(term: Any, z: Tensor, target: Tensor | None, kernel: str, **options: Any) -> Any:
    """Row values, and the gradient of their sum with unequal weights."""
    z = z.clone().requires_grad_()
    with il.kernels.use(kernel):
        rows = term(z, target, reduction="none", **options)
        (
            rows
            * torch.linspace(0.5, 1.5, rows.numel(), dtype=rows.dtype, device=rows.device).reshape(rows.shape)
        ).sum().backward()
    return rows.detach(), z.grad


def problem(rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits with a masked class and a confident row, labels with one to ignore, soft targets."""
    z = torch.tensor(problems.rows(1, rows, classes, spread=3.0), dtype=dtype)
    y = torch.tensor(problems.labels(2, rows, classes))
    t = torch.tensor(problems.distributions(3, rows, classes), dtype=dtype)
    y[0], y[1] = classes - 1, -100
    z[0, 1], t[0, 1] = -torch.inf, 0
    z[2, int(y[2])] += 40
    return z, y, t


def agree(case: Case, term: Any, rows: int, classes: int, kernel: str, device: str = "cpu") -> None:
    """In float64 with every kind of target: the same up to the order of summation."""
    z, y, t = (tensor.to(device) for tensor in problem(rows, classes, torch.float64))
    targets: list[tuple[Tensor, dict[str, Any]]] = [
        (y, {}),
        (y, {"weight": torch.rand(classes, device=device) + 0.5}),
    ]
    if case.soft != "none":
        targets += [(y, {"label_smoothing": 0.1}), (t, {})]
    for target, options in targets:
        value, gradient = value_and_gradient(term, z, target, kernel, **options)
        expected, expected_gradient = value_and_gradient(term, z, target, "eager", **options)
        torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


def as_good_as_eager(term: Any, z: Tensor, target: Tensor, kernel: str) -> None:
    """Within three times eager's own error of the float64 value in z's dtype, and a few ulp."""
    exact = value_and_gradient(term, z.double(), target, "eager")
    ours, eager = (value_and_gradient(term, z, target, name) for name in (kernel, "eager"))
    for mine, other, truth in zip(ours, eager, exact, strict=True):
        ulp = torch.finfo(mine.dtype).eps * truth.abs().max()
        error, budget = (mine.double() - truth).abs().max(), (other.double() - truth).abs().max()
        assert error <= 3 * budget + 4 * ulp
