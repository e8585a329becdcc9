"""Moments from a compiled kernel, differentiable: one operation forward, one back, for every loss.

First derivatives come from the kernel's ``gradient``. Whenever more is asked for (a double backward,
forward mode, ``torch.func``), the eager form computes the same moments, so that derivatives of any
order are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from infoloss.kernels import eager
from infoloss.statistics import Moments
from infoloss.views import SMALLEST_NORM, Normalized, Scaled, Shifted, View
from infoloss.visibility import values_visible

__all__ = ["Inputs", "Kernel", "reduce", "supports"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a kernel reads, and the names of the moments that it is to find."""

    z: Tensor  # (B, C, S): N = B·S rows
    scale: Tensor | None  # (N,), float64
    target: Tensor | None  # hard (N,), soft (N, C)
    kept: Tensor | None  # (N,)
    shift: Tensor | None  # (C,)
    floor: float
    names: tuple[str, ...]

    def __len__(self) -> int:
        return self.z.shape[0] * self.z.shape[2]

    @property
    def viewed(self) -> bool:
        """Whether a view is applied, for which each row is centred first."""
        return self.scale is not None or self.shift is not None

    @property
    def label(self) -> Tensor | None:
        """Hard labels (N,)."""
        return self.target if self.target is not None and self.target.ndim == 1 else None

    @property
    def soft(self) -> Tensor | None:
        """A soft target (N, C)."""
        return self.target if self.target is not None and self.target.ndim == 2 else None


class Kernel(Protocol):
    """A module with these functions (an instance of this protocol): what one compiled kernel can do."""

    def planes(self, logits: Tensor) -> Tensor:
        """Logits (B, C, S) in a layout and a dtype that the kernel reads."""

    def moments(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """The moments in the order of their names, (K, N) float64, and what ``gradient`` asks for besides.

        "maximum" is that of the row as it is seen, less the "centre" that a view took off it (times the
        scale); "label_logit" is −inf where the target wants a masked class.
        """

    def gradient(
        self, inputs: Inputs, packed: Tensor, besides: Tensor | None, slope: Tensor, with_scale: bool
    ) -> tuple[Tensor, Tensor | None]:
        """From the derivatives in the moments, (K, N), those in z and, where asked for, in the scale (N,)."""


def supports(views: tuple[View, ...]) -> bool:
    """Whether a kernel can apply these views while it reads: at most one scale, then one shift."""
    kinds = tuple(type(view) for view in views)
    return kinds in ((), (Shifted,), (Scaled,), (Normalized,), (Scaled, Shifted), (Normalized, Shifted))


def reduce(
    kernel: Kernel,
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
    z = kernel.planes(logits)
    if any(isinstance(view, Normalized) for view in views) and z.dtype.itemsize < 4:
        z = z.float()  # read twice: its two gradients are added before they are rounded
    shift, scale = None, None
    for view in views:
        if isinstance(view, Shifted):
            shift = view.shift(z.movedim(1, -1)).to(z.dtype if z.dtype.itemsize >= 4 else torch.float32)
        elif isinstance(view, Scaled):
            scale = _per_row(view.factor.resolve(coefficients or {}), z)
        elif isinstance(view, Normalized):
            squares = _packed(kernel, z, None, kept, None, None, 0.0, ("logit_square_sum",))
            scale = 1 / (view.tau * torch.sqrt(squares["logit_square_sum"] + SMALLEST_NORM**2))
    wanted = [*dict.fromkeys(need for need in needs if need not in CONSTANT)]
    moments = _packed(kernel, z, target, kept, shift, scale, floor, tuple(wanted))
    if scale is not None or shift is not None:
        centre = moments.pop("centre")
        moments["maximum"] = moments["maximum"] + (centre if scale is None else scale * centre)
    if target is not None:
        _finish_label(moments, target, needs)
    return moments


CONSTANT = ("label_entropy", "label_square_sum")  # of the target alone


def _per_row(factor: Tensor | float, z: Tensor) -> Tensor:
    """A factor per batch or per row as float64 (N,) beside z."""
    if not isinstance(factor, Tensor):
        factor = torch.full((), factor, dtype=torch.float64, device=z.device)
    return factor.to(z.device, torch.float64).expand(z.shape[0] * z.shape[2])


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


def _packed(
    kernel: Kernel,
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
    inputs = (z, scale, target, kept, shift, floor, tuple(names))
    values = Packed.apply(kernel, *inputs)  # type: ignore[no-untyped-call]
    return dict(zip(names, values.unbind(0), strict=True))


class Packed(torch.autograd.Function):
    """Moments by name as rows of one tensor (K, N); differentiable in z and the scale."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        z: Tensor,
        scale: Tensor | None,
        target: Tensor | None,
        kept: Tensor | None,
        shift: Tensor | None,
        floor: float,
        names: tuple[str, ...],
    ) -> Tensor:
        packed, besides = kernel.moments(Inputs(z, scale, target, kept, shift, floor, names))
        ctx.save_for_backward(z, scale, target, kept, shift, packed, besides)
        ctx.kernel, ctx.floor, ctx.names = kernel, floor, names
        return packed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        z, scale, target, kept, shift, packed, besides = ctx.saved_tensors
        constant = (None,) * 5
        if not torch.is_grad_enabled():
            inputs = Inputs(z, scale, target, kept, shift, ctx.floor, ctx.names)
            gradient = ctx.kernel.gradient
            return None, *gradient(inputs, packed, besides, grad, ctx.needs_input_grad[2]), *constant
        # create_graph=True: PyTorch's own derivatives of the eager form, of aliases, so that the scale's own
        # dependence on z is left to the graph outside
        x, y = z.view_as(z), None if scale is None else scale.view_as(scale)
        again = _eager_packed(Inputs(x, y, target, kept, shift, ctx.floor, ctx.names))
        of = [v for v in (x, y) if v is not None and v.requires_grad]
        found = iter(torch.autograd.grad(again, of, grad, create_graph=True, allow_unused=True))
        gz = next(found) if z.requires_grad else None
        gs = next(found) if scale is not None and scale.requires_grad else None
        return None, gz, gs, *constant


def _eager_packed(inputs: Inputs) -> Tensor:
    """The rows of :class:`Packed` from differentiable operations."""
    rows, kept, scale, shift = eager.class_rows(inputs.z), inputs.kept, inputs.scale, inputs.shift
    if kept is not None:
        rows = torch.where(kept[:, None], rows, 0)
    centre = rows.new_zeros(len(rows), dtype=torch.float64)
    if inputs.viewed:
        top = rows.detach().amax(-1)
        top = top.masked_fill(top == -torch.inf, 0)
        centre = top.to(torch.float64)
        masked = rows == -torch.inf
        rows = (rows - top[:, None]).masked_fill(masked, 0)
        rows = rows if scale is None else rows * scale.to(rows.dtype)[:, None]
        rows = (rows if shift is None else rows + shift).masked_fill(masked, -torch.inf)
    anchor = centre if scale is None else centre * scale
    m = eager.anchored_moments(rows, anchor, inputs.target, inputs.names, inputs.floor)
    m["maximum"] = m["maximum"].detach() - anchor.detach()
    m["centre"] = centre
    if "label_masked" in m:
        m["label_logit"] = torch.where(m["label_masked"], -torch.inf, m["label_logit"])
    return torch.stack([m[name].to(torch.float64) for name in inputs.names])
