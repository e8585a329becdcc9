"""Plain calls on the CPU: the passes over the logits and the program, one compiled call or two each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infoloss.batch import class_planes, row_shape
from infoloss.direct.call import Call, over_classes
from infoloss.direct.plan import Pass
from infoloss.kernels import fused
from infoloss.kernels.inputs import Inputs, overwritten
from infoloss.kernels.memory import unwritten
from infoloss.visibility import batched

__all__ = ["RefusedError", "Value", "Work"]

SMALL = 1 << 14
"""Logits up to which the gradient is computed beside the value; it is kept until the backward pass."""


class RefusedError(Exception):
    """A label out of range, or a row wholly masked: the general way says so."""


class Work:
    """The passes over some logits, and what they have found."""

    __slots__ = (
        "call",
        "dtype",
        "host",
        "number",
        "packed",
        "passes",
        "shape",
        "slopes",
        "small",
        "total",
        "value",
    )

    def __init__(self, call: Call, logits: Tensor, *, differentiable: bool) -> None:
        plan, target, host = call.plan, call.target, call.plan.host
        self.call, self.host, self.shape, self.dtype = call, host, logits.shape, logits.dtype
        z = logits.detach() if logits.ndim == 2 else class_planes(logits.detach())
        memory, layout = host.memory(z)
        label = host.NO_LABELS if target is None else target.reshape(-1).numpy()
        alike = (self.dtype, layout[1])
        self.small: Tensor | None = None  # the gradient, if it has been computed already
        if differentiable and plan.alone and layout[0] * layout[1] <= SMALL and call.reduction != "none":
            constant = plan.passes[0].constant.get(alike) or _constants(plan.passes[0], z, call)
            self._step((layout, (memory, label, call.ignored, *constant)), torch.empty_like(z))
            return
        self.packed = np.empty((plan.moments, layout[0]))
        self.passes: list[tuple[slice, Any, Any]] = []
        for one in plan.passes:
            own = host.whole(layout) if one.views else layout
            constant = one.constant.get(alike) or _constants(one, z, call)
            given = (own, (memory, label, call.ignored, *constant))
            peaks, wrong = None, 0
            if one.label_only:
                host.read_labels(given, self.packed[one.rows])
            else:
                peaks, wrong = host.read(given, one.names, self.packed[one.rows])
            if wrong:
                raise RefusedError
            self.passes.append((one.rows, given, peaks))
        # beside its derivative a moment is needed no more, but for labels that are read alone
        self.slopes = self.packed if plan.alone else np.empty_like(self.packed)
        self.value, self.total, self.number, wrong = host.values(
            plan.program,
            self._parameters(),
            self.packed,
            self.slopes,
            plan.spared,
            plan.label_row,
            given,
            by_row=call.reduction == "none",
        )
        if wrong:
            raise RefusedError

    def _step(self, given: Any, g: Tensor) -> None:
        plan, divisor = self.call.plan, self.call.divisor
        numbers = self._parameters()
        self.total, self.number, wrong = self.host.step(
            given, plan.sizes, plan.spared, plan.program, numbers, math.nan if divisor is None else divisor, g
        )
        if wrong:
            raise RefusedError
        self.small = g

    def _parameters(self) -> Any:
        return np.array(self.call.parameters()) if self.call.plan.program.parameters else self.host.NO_NUMBERS

    @property
    def divisor(self) -> float:
        return float(self.number) if self.call.divisor is None else self.call.divisor

    def result(self) -> Tensor:
        """The value of each row, or their sum over the divisor; 0 where that is 0."""
        if self.call.reduction == "none":
            return torch.from_numpy(self.value).to(self.dtype).reshape(row_shape(self.shape))
        return torch.scalar_tensor(self.total / self.divisor if self.divisor else 0.0, dtype=self.dtype)

    def gradient(self, logits: Tensor, slope: Tensor | float) -> Tensor:
        """The gradient of the logits from that of the result: of each row's value, or a number."""
        if self.small is not None:
            by = float(slope)
            g = self.small if by == 1 else self.small.mul_(by)
            return g.view(logits.shape)
        slopes, factor = self.slopes, 1.0
        if isinstance(slope, Tensor) and self.call.reduction == "none":
            slopes = slopes * slope.detach().reshape(-1).numpy()
        else:
            factor = float(slope) / self.divisor if self.divisor else 0.0
        z = class_planes(logits.detach())
        *others, last = (one for one in self.passes if one[-1] is not None)
        over = self.call.overwrite and not last[1][1][self.host.TAU]  # for a norm they are read again
        whole: Any = None
        for rows, given, peaks in (*others, last):
            g = overwritten(z) if over and given is last[1] else unwritten(z)
            self.host.spread(given, self.packed[rows], peaks, slopes[rows], factor, g, self.host.NO_NUMBERS)
            whole = g if whole is None else g.add_(whole)
        for rows, given, _ in self.passes[len(others) + 1 :]:
            self.host.add_label_gradient(given, self.packed[rows], slopes[rows], factor, whole)
        return whole.view(logits.shape)  # type: ignore[no-any-return]


class Value(torch.autograd.Function):
    """The result of a call, differentiable in the logits; higher derivatives are the general way's."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor | None, call: Call) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.call, ctx.work = call, Work(call, logits, differentiable=True)
        return ctx.work.result()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, _ = ctx.saved_tensors  # raises where one of them has been changed in place
        if torch.is_grad_enabled():
            return ctx.call.differentiable_gradient(logits, grad), None, None
        if batched(grad):  # compiled code cannot see into it; a row's value depends on its own logits alone
            one = torch.ones(grad.shape, dtype=grad.dtype)
            call = ctx.call._replace(overwrite=False)  # the product has memory of its own
            whole = Work(call, logits, differentiable=False).gradient(logits, one)
            return whole * over_classes(grad, logits), None, None
        work = ctx.work or Work(ctx.call, logits, differentiable=True)
        ctx.work = None  # let go of what it holds
        return work.gradient(logits, grad), None, None


def _constants(one: Pass, z: Tensor, call: Call) -> tuple[Any, ...]:
    """What the kernel reads besides logits and labels, kept where it is the same in every call."""
    planes = z[:, :, None] if z.ndim == 2 else z
    inputs = Inputs(planes, None, None, None, None, one.floor, one.names)
    inputs = fused.seen_through("cpu", inputs, one.views, call.coefficients)
    host = call.plan.host
    found: tuple[Any, ...] = host.arrays(inputs)[1][host.CONSTANT :]
    if inputs.scale is None:
        one.constant[z.dtype, planes.shape[1]] = found
    return found
