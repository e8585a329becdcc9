"""Moments from a compiled kernel, differentiable: one operation forward, one back, for every loss.

First derivatives come from the kernel's ``gradient``. Whenever more is asked for (a double backward,
gradients in a batch, forward mode, ``torch.func``), the eager form computes the same moments, so that
derivatives of any order are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infoloss.kernels import class_tiles, eager, operators
from infoloss.kernels.inputs import Inputs, module, overwritable
from infoloss.kernels.linear import Head
from infoloss.statistics import Moments
from infoloss.views import SMALLEST_NORM, Normalized, Scaled, Shifted, SoftCapped, View, check_scale
from infoloss.visibility import batched, values_visible

__all__ = ["CONSTANT", "NORMS", "left_by", "reduce", "seen_through", "supports"]


NORMS = ("cpu",)
"""The kernels that compute a norm themselves, from ``tau``; the others get a scale, from a pass before."""


def supports(views: tuple[View, ...]) -> bool:
    """Whether a kernel can apply these views as it reads: at most one cap, then one scale, then one shift."""
    kinds = [type(view) for view in views]
    if kinds[:1] == [SoftCapped]:
        kinds = kinds[1:]
    if kinds[:1] in ([Scaled], [Normalized]):
        kinds = kinds[1:]
    return kinds in ([], [Shifted])


def seen_through(
    kernel: str, inputs: Inputs, views: tuple[View, ...], coefficients: Mapping[str, Tensor | float]
) -> Inputs:
    """The inputs seen through views that :func:`supports` accepts, and the names that those leave."""
    z = inputs.z
    for view in views:
        if isinstance(view, SoftCapped):
            inputs = replace(inputs, cap=view.cap)
        elif isinstance(view, Shifted):
            shift = view.shift(z.movedim(1, -1)).to(z.dtype if z.dtype.itemsize >= 4 else torch.float32)
            inputs = replace(inputs, shift=shift)
        elif isinstance(view, Scaled):
            inputs = replace(inputs, scale=_per_row(view.factor.resolve(coefficients), z))
        elif isinstance(view, Normalized) and kernel in NORMS:
            inputs = replace(inputs, tau=view.tau)
        elif isinstance(view, Normalized):
            again = replace(inputs, target=None, names=("maximum", "logit_square_sum"))
            squares = _packed(kernel, again)["logit_square_sum"]
            inputs = replace(inputs, scale=1 / (view.tau * torch.sqrt(squares + SMALLEST_NORM**2)))
    return replace(inputs, names=tuple(dict.fromkeys((*inputs.names, *left_by(views)))))


def left_by(views: tuple[View, ...]) -> tuple[str, ...]:
    """The further moments that views leave."""
    kinds = {type(view) for view in views}
    centred = ("centre", "offset") if kinds & {Shifted, Scaled, Normalized} else ()
    return (*centred, *(("scale",) if Normalized in kinds else ()))


def reduce(
    kernel: str,
    logits: Tensor,
    target: Tensor | None,
    views: tuple[View, ...],
    needs: Collection[str],
    *,
    floor: float = 0.0,
    kept: Tensor | None = None,
    coefficients: Mapping[str, Tensor | float] | None = None,
    overwrite: bool = False,
    head: Head | None = None,
) -> Moments:
    """The moments of :func:`infoloss.kernels.eager.reduce`, for views that :func:`supports` accepts.

    With ``overwrite`` the gradient is written over the logits where they are
    :func:`~infoloss.kernels.inputs.overwritable` and none is read again, as they are for a norm. With a
    ``head`` the logits are the head's, and those given stand for them.
    """
    z = logits
    normalized = any(isinstance(view, Normalized) for view in views)
    if normalized and kernel not in NORMS and z.dtype.itemsize < 4:
        z = z.float()  # read twice: its two gradients are added before they are rounded
    wanted = [name for name in dict.fromkeys(["maximum", *needs]) if name not in CONSTANT]
    if target is not None and "label_logit" not in wanted:
        wanted.append("label_logit")  # it tells whether the label is masked
    over = overwrite and not normalized and not torch.compiler.is_compiling() and overwritable(z)
    inputs = Inputs(z, None, target, kept, None, floor, tuple(wanted), overwrite=over)
    moments = _packed(kernel, seen_through(kernel, inputs, views, coefficients or {}), head)
    offset = moments.pop("offset", None)
    if offset is not None:
        moments["maximum"] = moments["maximum"] + offset
    for name in ("centre", "scale"):
        moments.pop(name, None)
    if target is not None:
        _finish_label(moments, target, needs)
    return moments


CONSTANT = ("label_entropy", "label_square_sum")  # of the target alone


def _per_row(factor: Tensor | float, z: Tensor) -> Tensor:
    """A factor per batch or per row as float64 (N,) beside z."""
    if not isinstance(factor, Tensor):
        factor = torch.full((), factor, dtype=torch.float64, device=z.device)
    rows = z.shape[0] * z.shape[2]
    check_scale(factor, rows)
    return factor.to(z.device, torch.float64).expand(rows)


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
    if not values_visible(masked) or masked.any():
        m["label_masked"] = masked
        m["label_logit"] = torch.where(masked, 0, m["label_logit"])
    if "label_logit" not in needs:
        del m["label_logit"]


def _packed(kernel: str, inputs: Inputs, head: Head | None = None) -> Moments:
    if head is not None:
        values = class_tiles.packed_moments(head, inputs)
    elif torch.compiler.is_compiling():
        values = operators.moments(kernel, inputs)
    else:
        values = Packed.apply(kernel, inputs.z, inputs.scale, inputs)  # type: ignore[no-untyped-call]
    return dict(zip(inputs.names, values.unbind(0), strict=True))


class Packed(torch.autograd.Function):
    """Moments by name as rows of one tensor (K, N); differentiable in z and the scale."""

    @staticmethod
    def forward(ctx: Any, kernel: str, z: Tensor, scale: Tensor | None, inputs: Inputs) -> Tensor:
        packed, besides = module(kernel).moments(inputs)
        ctx.save_for_backward(z, scale, inputs.target, inputs.kept, inputs.shift, packed, besides)
        ctx.kernel = module(kernel)
        ctx.inputs = replace(inputs, z=None, scale=None, target=None, kept=None, shift=None)  # type: ignore[arg-type]
        return packed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        z, scale, target, kept, shift, packed, besides = ctx.saved_tensors
        inputs = replace(ctx.inputs, z=z, scale=scale, target=target, kept=kept, shift=shift)
        further = torch.is_grad_enabled()
        if not further and not batched(grad):
            found = ctx.kernel.gradient(inputs, packed, besides, grad, ctx.needs_input_grad[2])
            return None, *found, None
        # create_graph=True or is_grads_batched=True: PyTorch's own derivatives of the eager form, of aliases,
        # so that the scale's own dependence on z is left to the graph outside
        with torch.enable_grad():
            x, y = z.view_as(z), None if scale is None else scale.view_as(scale)
            of = [v for v in (x, y) if v is not None and v.requires_grad]
            again = _eager_packed(replace(inputs, z=x, scale=y))
        parts = iter(torch.autograd.grad(again, of, grad, create_graph=further, allow_unused=True))
        gz = next(parts) if z.requires_grad else None
        gs = next(parts) if scale is not None and scale.requires_grad else None
        return None, gz, gs, None


def _eager_packed(inputs: Inputs) -> Tensor:
    """The rows of :class:`Packed` from differentiable operations."""
    rows, kept, scale, shift = eager.class_rows(inputs.z), inputs.kept, inputs.scale, inputs.shift
    if kept is not None:
        rows = torch.where(kept[:, None], rows, 0)
    masked = rows == -torch.inf
    if inputs.cap:
        rows = inputs.cap * torch.tanh(rows.masked_fill(masked, 0) / inputs.cap)
        rows = rows.masked_fill(masked, -torch.inf)
    if inputs.tau:
        square_sum = rows.masked_fill(masked, 0).to(torch.float64).square().sum(-1)
        scale = 1 / (inputs.tau * torch.sqrt(square_sum + SMALLEST_NORM**2))
    centre = rows.new_zeros(len(rows), dtype=torch.float64)
    if inputs.viewed:
        top = rows.detach().amax(-1)
        top = top.masked_fill(top == -torch.inf, 0)
        centre = top.to(torch.float64)
        rows = (rows - top[:, None]).masked_fill(masked, 0)
        rows = rows if scale is None else rows * scale.to(rows.dtype)[:, None]
        rows = (rows if shift is None else rows + shift).masked_fill(masked, -torch.inf)
    offset = centre if scale is None else centre * scale
    m = eager.anchored_moments(rows, offset, inputs.target, inputs.names, inputs.floor)
    m["maximum"] = m["maximum"].detach() - offset.detach()
    m["centre"], m["offset"] = centre, offset
    m["scale"] = torch.ones_like(centre) if scale is None else scale
    if "label_masked" in m:
        m["label_logit"] = torch.where(m["label_masked"], -torch.inf, m["label_logit"])
    return torch.stack([m[name].to(torch.float64) for name in inputs.names])
