"""Moments from a compiled kernel, differentiable: one operation forward, one back, for every loss.

First derivatives come from the kernel's ``gradient``. Whenever more is asked for (a double backward,
forward mode, ``torch.func``), the eager form computes the same moments, so that derivatives of any
order are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from infoloss.kernels import cpu, eager
from infoloss.kernels.threads import parallel
from infoloss.statistics import Moments
from infoloss.views import SMALLEST_NORM, Normalized, Scaled, Shifted, View

__all__ = ["reduce", "supports"]


def supports(views: tuple[View, ...]) -> bool:
    """Whether the kernel can apply these views while it reads: at most one scale, then one shift."""
    kinds = tuple(type(view) for view in views)
    return kinds in ((), (Shifted,), (Scaled,), (Normalized,), (Scaled, Shifted), (Normalized, Shifted))


def reduce(
    logits: Tensor,
    target: Tensor | None,
    views: tuple[View, ...],
    needs: Collection[str],
    *,
    floor: float = 0.0,
    kept: Tensor | None = None,
    coefficients: Mapping[str, Tensor | float] | None = None,
) -> Moments:
    """The moments of :func:`infoloss.kernels.eager.reduce`, for views that :func:`supports` accepts."""
    z = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    shift, scale = None, None
    for view in views:
        if isinstance(view, Shifted):
            shift = view.shift(z).to(z.dtype)
        elif isinstance(view, Scaled):
            factor = torch.as_tensor(view.factor.resolve(coefficients or {}), dtype=torch.float64)
            scale = factor.expand(len(z))
        elif isinstance(view, Normalized):
            square_sum = _packed(z, None, kept, None, None, 0.0, ("logit_square_sum",))["logit_square_sum"]
            scale = 1 / (view.tau * torch.sqrt(square_sum + SMALLEST_NORM**2))
    wanted = [*dict.fromkeys(need for need in needs if need not in CONSTANT)]
    moments = _packed(z, target, kept, shift, scale, floor, tuple(wanted))
    if scale is not None or shift is not None:
        centre = moments.pop("centre")
        moments["maximum"] = moments["maximum"] + (centre if scale is None else scale * centre)
    if target is not None:
        _finish_label(moments, target, needs)
    return moments


CONSTANT = ("label_entropy", "label_square_sum")  # of the target alone


def _finish_label(m: Moments, target: Tensor, needs: Collection[str]) -> None:
    """The moments of the target alone, and the rows whose label is masked."""
    hard = target.ndim == 1
    if "label_entropy" in needs:
        zero = m["maximum"].new_zeros(len(target))
        m["label_entropy"] = zero if hard else -torch.xlogy(target, target).sum(-1, dtype=torch.float64)
    if "label_square_sum" in needs:
        one = m["maximum"].new_ones(len(target))
        m["label_square_sum"] = one if hard else target.square().sum(-1, dtype=torch.float64)
    masked = m["label_logit"].detach() == -torch.inf
    if masked.any():
        m["label_masked"] = masked
        m["label_logit"] = torch.where(masked, 0, m["label_logit"])
    if "label_logit" not in needs:
        del m["label_logit"]


def _packed(
    z: Tensor,
    target: Tensor | None,
    kept: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    floor: float,
    needs: tuple[str, ...],
) -> Moments:
    names = ["maximum", *(name for name in needs if name != "maximum")]
    if target is not None and "label_logit" not in names:
        names.append("label_logit")  # it tells whether the label is masked
    if shift is not None or scale is not None:
        names.append("centre")
    values = Packed.apply(z, scale, target, kept, shift, floor, tuple(names))  # type: ignore[no-untyped-call]
    return dict(zip(names, values.unbind(0), strict=True))


class Packed(torch.autograd.Function):
    """Moments by name as rows of one tensor (K, N); differentiable in z and the scale."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        scale: Tensor | None,
        target: Tensor | None,
        kept: Tensor | None,
        shift: Tensor | None,
        floor: float,
        names: tuple[str, ...],
    ) -> Tensor:
        packed = z.new_empty((len(names), len(z)), dtype=torch.float64)
        where = torch.full((len(cpu.ORDER) + 1,), -1)
        for i, name in enumerate(names):
            where[_number(name)] = i
        inputs = _arrays(z, target, kept, shift, scale, floor, names)
        run = cpu.parallel_moments if parallel(z.numel()) else cpu.serial_moments
        run(*inputs, floor, where.numpy(), packed.numpy())
        ctx.save_for_backward(z, scale, target, kept, shift, packed)
        ctx.floor, ctx.names = floor, names
        return packed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        z, scale, target, kept, shift, packed = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: PyTorch's own derivatives of the eager form
            # aliases, so that the scale's own dependence on z is left to the graph outside
            x, y = z.view_as(z), None if scale is None else scale.view_as(scale)
            again = _eager_packed(x, y, target, kept, shift, ctx.floor, ctx.names)
            of = [v for v in (x, y) if v is not None and v.requires_grad]
            found = iter(torch.autograd.grad(again, of, grad, create_graph=True, allow_unused=True))
            gz = next(found) if z.requires_grad else None
            gs = next(found) if scale is not None and scale.requires_grad else None
            return gz, gs, None, None, None, None, None
        co = z.new_zeros((len(cpu.ORDER), len(z)), dtype=torch.float64)
        for i, name in enumerate(ctx.names):
            if name not in ("maximum", "centre"):
                co[_number(name)] = grad[i]
        row = dict(zip(ctx.names, packed.unbind(0), strict=True))
        centre = row.get("centre", packed.new_zeros(len(z)))
        g = torch.empty_like(z, memory_format=torch.contiguous_format)
        gs = packed.new_empty(len(z) if ctx.needs_input_grad[1] else 0)
        inputs = _arrays(z, target, kept, shift, scale, ctx.floor, ctx.names)
        run = cpu.parallel_gradient if parallel(z.numel()) else cpu.serial_gradient
        run(*inputs, ctx.floor, row["maximum"].numpy(), centre.numpy(), co.numpy(), g.numpy(), gs.numpy())
        return g, gs if ctx.needs_input_grad[1] else None, None, None, None, None, None


def _number(name: str) -> int:
    return cpu.CENTRE if name == "centre" else cpu.ORDER.index(name)


def _arrays(
    z: Tensor,
    target: Tensor | None,
    kept: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    floor: float,
    names: tuple[str, ...],
) -> tuple[Any, ...]:
    """What both kernel functions take, absent tensors as empty arrays."""
    hard = target is not None and target.ndim == 1
    none = z.new_empty((0, 0))
    soft = target if target is not None and not hard else none
    score = torch.log(soft.clamp(min=floor)) if len(soft) and "label_log_exp" in names else none
    label = target if hard else torch.empty(0, dtype=torch.int64)
    present = [
        z.detach(),
        label,
        soft.detach(),
        score.detach(),
        torch.empty(0, dtype=torch.bool) if kept is None else kept,
        z.new_empty(0) if shift is None else shift,
        torch.empty(0, dtype=torch.float64) if scale is None else scale.detach().contiguous(),
    ]
    return tuple(tensor.numpy() for tensor in present)  # type: ignore[union-attr]


def _eager_packed(
    z: Tensor,
    scale: Tensor | None,
    target: Tensor | None,
    kept: Tensor | None,
    shift: Tensor | None,
    floor: float,
    names: tuple[str, ...],
) -> Tensor:
    """The rows of :class:`Packed` from differentiable operations."""
    rows = z if kept is None else torch.where(kept[:, None], z, 0)
    centre = torch.zeros(len(z), dtype=torch.float64)
    if scale is not None or shift is not None:
        top = rows.detach().amax(-1)
        top = top.masked_fill(top == -torch.inf, 0)
        centre = top.to(torch.float64)
        masked = rows == -torch.inf
        rows = (rows - top[:, None]).masked_fill(masked, 0)
        rows = rows if scale is None else rows * scale.to(z.dtype)[:, None]
        rows = (rows if shift is None else rows + shift).masked_fill(masked, -torch.inf)
    anchor = centre if scale is None else centre * scale
    m = eager.anchored_moments(rows, anchor, target, names, floor)
    m["maximum"] = m["maximum"].detach() - anchor.detach()
    m["centre"] = centre
    if "label_masked" in m:
        m["label_logit"] = torch.where(m["label_masked"], -torch.inf, m["label_logit"])
    return torch.stack([m[name].to(torch.float64) for name in names])
