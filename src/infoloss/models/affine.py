"""Affine maps whose large products oneDNN takes: MKL, PyTorch's own choice, is slow on other makers' CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from infoloss.visibility import untraced

__all__ = ["Affine"]

SMALLEST = 1 << 22
"""Multiplications from which a product pays for its way round PyTorch."""
_ONEDNN = (
    torch._C._has_mkldnn
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not part of PyTorch's public interface
)


class Affine(nn.Linear):
    """``nn.Linear``, x Wᵀ + b: (N, F) to (N, G).

    In float32, on a CPU with AVX-512, large products and those of their gradients are oneDNN's: more than
    twice as fast as MKL's on a Zen 5, with other rounding errors of the same size. PyTorch takes oneDNN by
    itself in bfloat16, and its convolutions in every type.

    Example:
        >>> Affine(4, 3)(torch.ones(2, 4)).shape
        torch.Size([2, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        return _affine(x, self.weight, self.bias)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    y: Tensor = _OneDNN.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _ONEDNN
        and untraced(x, weight)
        and x.ndim == 2
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and torch.autograd.forward_ad._current_level < 0
        and x.numel() * len(weight) >= SMALLEST
    )


class _OneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        # the operator that PyTorch's compiler makes of a linear layer
        y: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), bias, "none", [], "")
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _affine(gradient, weight.t()) if of_x else None,
            _affine(gradient.t(), x.t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _dense(x: Tensor) -> Tensor:
    """A matrix without gaps, of either order."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()
