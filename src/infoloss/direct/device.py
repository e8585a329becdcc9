"""Plain calls on a GPU, where nothing waits for a number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infoloss.batch import class_planes, row_shape
from infoloss.direct.call import Call, over_classes
from infoloss.kernels import fused
from infoloss.kernels.inputs import Inputs
from infoloss.views import Normalized
from infoloss.visibility import batched

__all__ = ["on_device"]


def on_device(call: Call, logits: Tensor) -> Tensor | None:
    """The result of a call on a GPU; None where one pass is not enough."""
    plan = call.plan
    views = plan.passes[0].views
    if not plan.alone or any(isinstance(view, Normalized) for view in views):
        return None
    return DeviceValue.apply(logits, call.target, call)  # type: ignore[no-any-return, no-untyped-call]


class DeviceValue(torch.autograd.Function):
    """The result of a call, differentiable in the logits; higher derivatives are the general way's.

    A row without classes is nan, and a wrong label an error of the device.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor | None, call: Call) -> Tensor:
        from infoloss.kernels import device

        plan, one = call.plan, call.plan.passes[0]
        z = class_planes(logits.detach())
        label = None if target is None else target.reshape(-1)
        kept = None if label is None else label != call.ignored
        inputs = Inputs(z, None, label, kept, None, one.floor, one.names, overwrite=call.overwrite)
        inputs = fused.seen_through("gpu", inputs, one.views, call.coefficients)
        packed, peaks = device.moments(inputs)
        by_row = call.reduction == "none"
        found = device.values(
            plan.program, call.parameters(), plan.spared, plan.label_row, inputs, packed, by_row=by_row
        )
        if label is not None:
            torch._assert_async(found.wrong == 0)
        divisor = found.number.clamp(min=1) if call.divisor is None else call.divisor or math.inf
        seen = (inputs.kept, inputs.shift, inputs.scale)
        ctx.save_for_backward(logits, target, *seen, packed, peaks, found.slopes)
        ctx.call, ctx.divisor = call, divisor
        ctx.inputs = replace(inputs, z=None, target=None, kept=None, shift=None, scale=None)  # type: ignore[arg-type]
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if found.rows is not None:
            return found.rows.to(dtype).reshape(row_shape(logits.shape))
        total = torch.zeros_like(found.total) if call.divisor == 0 else found.total / divisor
        return total.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        from infoloss.kernels import device

        logits, target, kept, shift, scale, packed, peaks, slopes = ctx.saved_tensors
        call = ctx.call
        if torch.is_grad_enabled():
            return call.differentiable_gradient(logits, grad), None, None
        spread = grad if not batched(grad) else torch.ones(grad.shape, dtype=grad.dtype, device=grad.device)
        factor = None
        if call.reduction == "none":
            slopes = slopes * spread.reshape(-1)
        else:
            factor = spread.to(torch.float64) / ctx.divisor
        z = class_planes(logits.detach())
        label = None if target is None else target.reshape(-1)
        inputs = replace(ctx.inputs, z=z, target=label, kept=kept, shift=shift, scale=scale)
        if spread is not grad:
            inputs = replace(inputs, overwrite=False)
        g, _ = device.gradient(inputs, packed, peaks, slopes, False, factor=factor)
        g = g.view(logits.shape)
        if spread is not grad:
            g = g * over_classes(grad, logits)
        return g, None, None
