"""Plain calls in compiled code: the loss of :mod:`infoloss.rows` without a PyTorch operation for each node.

A call is plain where the kernel can do all of it: float32 or float64 logits on the CPU, or any on a GPU if
one pass is enough; hard labels or none, no weights, a mean, sum or row values. The term's program
(:mod:`infoloss.kernels.program`) is evaluated beside its derivatives in the moments, so that forward and
backward pass are one compiled call or two each. Everything else, and every call on the CPU that would end in
an error, goes the general way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infoloss import kernels
from infoloss.batch import row_shape
from infoloss.direct.call import Call
from infoloss.direct.device import on_device
from infoloss.direct.host import RefusedError, Value, Work
from infoloss.direct.plan import PLANS, plan_of
from infoloss.kernels.inputs import overwritable

if TYPE_CHECKING:
    from infoloss.terms import Term

__all__ = ["PLANS", "reduced", "value_and_grad"]

MISSING: Any = object()
REAL = (torch.float32, torch.float64)


def reduced(
    term: Term,
    logits: Tensor,
    target: Tensor | None,
    *,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    denominator: Tensor | float | None,
    coefficients: Mapping[str, Tensor | float],
    overwrite_logits: bool,
) -> Tensor | None:
    """The call of :meth:`infoloss.Term.__call__`, or None where it is not plain."""
    if not _plain(logits, target):
        return None
    kernel = kernels.chosen(logits, target)
    over = overwrite_logits and overwritable(logits)
    options = (ignore_index, label_smoothing, reduction, denominator, coefficients, over)
    call = _call(term, logits, target, kernel, *options)
    if call is None:
        return None
    if kernel == "gpu":
        return on_device(call, logits)
    try:
        if logits.requires_grad and torch.is_grad_enabled():
            return Value.apply(logits, target, call)  # type: ignore[no-any-return, no-untyped-call]
        return Work(call, logits, differentiable=False).result()
    except RefusedError:
        return None


def value_and_grad(
    term: Term,
    logits: Tensor,
    target: Tensor | None,
    *,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    denominator: Tensor | float | None,
    coefficients: Mapping[str, Tensor | float],
) -> tuple[Tensor, Tensor] | None:
    """The call of :meth:`infoloss.Term.value_and_grad`, or None where it is not plain, or not on the CPU."""
    if not _plain(logits, target):
        return None
    kernel = kernels.chosen(logits, target)
    options = (ignore_index, label_smoothing, reduction, denominator, coefficients, False)
    call = None if kernel == "gpu" else _call(term, logits, target, kernel, *options)
    if call is None:
        return None
    try:
        work = Work(call, logits, differentiable=True)
        return work.result(), work.gradient(logits, 1.0)
    except RefusedError:
        return None


def _call(
    term: Term,
    logits: Tensor,
    target: Tensor | None,
    kernel: str,
    ignored: int,
    smoothing: float,
    reduction: str,
    denominator: Tensor | float | None,
    coefficients: Mapping[str, Tensor | float],
    over: bool,
) -> Call | None:
    """What is asked for, in numbers; None where it is not plain for this kernel."""
    if kernel == "eager" or (kernel == "cpu" and logits.dtype not in REAL):
        return None
    plans = term.__dict__.get(PLANS)
    plan = plans.get(smoothing > 0, MISSING) if plans else MISSING
    if plan is MISSING:
        plan = plan_of(term, smoothing > 0)
    if plan is None or (target is None and plan.has_loss) or not plan.unbound <= coefficients.keys():
        return None
    if not all(map(_constant, coefficients.values())) or not _constant(denominator):
        return None
    divisor = 1.0 if reduction == "sum" else None if denominator is None else float(denominator)
    if not 0 <= smoothing <= 1 or divisor != divisor:
        return None
    numbers = {name: float(value) for name, value in coefficients.items()}
    return Call(term, plan, target, ignored, smoothing, reduction, divisor, numbers, over)


def _plain(logits: Tensor, target: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or not isinstance(logits, Tensor):
        return False
    if not logits.is_floating_point() or logits.ndim == 0:
        return False
    if target is None:
        return True
    if not isinstance(target, Tensor) or target.dtype != torch.int64 or target.device != logits.device:
        return False
    if logits.ndim == 2:
        return target.ndim == 1 and len(target) == len(logits)
    return target.shape == row_shape(logits.shape)


def _constant(value: Tensor | float | None) -> bool:
    """Whether a coefficient is one number that needs no gradient."""
    if not isinstance(value, Tensor):
        return True
    return value.ndim == 0 and not value.requires_grad and value.device.type == "cpu"
