"""Moments of a linear head's logits, made a few classes at a time for all rows: on a GPU, for many rows.

Blocks of rows (:mod:`infoloss.kernels.linear`) add each block's part to the gradient of the whole weight,
in memory, and keep it in float32 for half types. Tiles of classes finish the gradient of their part of the
weight at once, in one matrix product over all rows, and add only to that of the hidden states. The price is
a fourth product, since the backward pass makes the logits again; where the weight is large, it is the
smaller one, and what is kept beside the gradients is a tile and the hidden states' gradient in float32.

Logits and sums are float32 for half types; gradients of logits are rounded to the half type for the matrix
products, which add up in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infoloss.kernels.inputs import Inputs
from infoloss.kernels.linear import Head, narrowed, refuse_more

__all__ = ["packed_moments"]

TILE = 1 << 25
"""Logits in a tile."""
CLASSES = 256
"""Classes in a tile at least, so that the matrix products stay large."""


def packed_moments(head: Head, inputs: Inputs) -> Tensor:
    """The moments in the order of their names, (K, N), differentiable in head, hidden states and scale.

    Args:
        head: its logits are what is read.
        inputs: with a stand-in for the logits, and hard labels or no target.
    """
    return PackedHead.apply(  # type: ignore[no-any-return, no-untyped-call]
        head, inputs, head.hidden, head.weight, head.bias, inputs.scale
    )


class Tiles:
    """The tiles of a head, one after the other in the same memory."""

    def __init__(self, head: Head, inputs: Inputs) -> None:
        self.head, self.inputs = head, inputs
        self.hidden = head.states(slice(0, len(head)))
        classes = len(head.weight)
        self.width = min(classes, max(CLASSES, TILE // len(head)))
        self.memory = self.hidden.new_empty(len(head) * self.width, dtype=head.dtype)

    def __iter__(self) -> Iterator[tuple[slice, Head, Inputs]]:
        """Which classes, their part of the head, and their logits as a kernel reads them."""
        n, total = len(self.head), len(self.head.weight)
        for start in range(0, total, self.width):
            tile = slice(start, min(start + self.width, total))
            bias = None if self.head.bias is None else self.head.bias[tile]
            part = replace(self.head, weight=self.head.weight[tile], bias=bias)
            z = part.logits(self.hidden, self.memory[: n * len(part.weight)].view(n, -1))
            shift = None if self.inputs.shift is None else self.inputs.shift[tile]
            yield tile, part, replace(self.inputs, z=z[:, :, None], shift=shift, first=start, total=total)


class PackedHead(torch.autograd.Function):
    """The moments, and from their derivatives those in hidden states, weight, bias and scale."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        inputs: Inputs,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> Tensor:
        from infoloss.kernels import device

        sums = None
        with torch.autocast(hidden.device.type, enabled=False):
            for _, _, piece in Tiles(head, inputs):
                sums = sums or device.Sums(piece)
                sums.add(piece)
        assert sums is not None
        packed, peaks = sums.merged(inputs)
        tensors = (inputs.target, inputs.kept, inputs.shift)
        ctx.save_for_backward(hidden, weight, bias, scale, head.rows, packed, peaks, *tensors)
        ctx.inputs = replace(inputs, target=None, kept=None, shift=None, scale=None)
        return packed

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        from infoloss.kernels import device

        refuse_more(slope)
        hidden, weight, bias, scale, rows, packed, peaks, target, kept, shift = ctx.saved_tensors
        inputs = replace(ctx.inputs, target=target, kept=kept, shift=shift, scale=scale)
        of_hidden, of_weight, of_bias, of_scale = ctx.needs_input_grad[2:]
        slope = slope.contiguous()
        with torch.autocast(hidden.device.type, enabled=False):
            tiles = Tiles(Head(hidden, weight, bias, rows), inputs)
            half = tiles.memory.new_empty(len(tiles.memory), dtype=weight.dtype) if _direct(weight) else None
            on_hidden = torch.zeros_like(tiles.hidden, dtype=tiles.memory.dtype) if of_hidden else None
            on_weight = torch.empty_like(weight, memory_format=torch.contiguous_format) if of_weight else None
            on_bias = None if bias is None or not of_bias else torch.empty_like(bias)
            on_scale = packed.new_zeros(len(tiles.head)) if of_scale else None
            for tile, part, piece in tiles:
                n, classes = len(piece), len(part.weight)
                g = piece.z[:, :, 0] if half is None else half[: n * classes].view(n, classes)
                _, more = device.gradient(piece, packed, peaks, slope, of_scale, goal=g[:, :, None])
                if on_scale is not None and more is not None:
                    on_scale += more
                if on_bias is not None:
                    on_bias[tile] = g.sum(0, dtype=tiles.memory.dtype)
                g, factor = (g, 1.0) if g.dtype == weight.dtype else narrowed(g, weight.dtype)
                if on_hidden is not None:
                    _add_product(on_hidden, g, part.weight, factor)
                if on_weight is not None:
                    _product(on_weight[tile], g.T, tiles.hidden, factor)
        if on_hidden is not None:
            on_hidden = on_hidden.to(hidden.dtype)
            if rows is not None:
                on_hidden = torch.zeros_like(hidden).index_copy_(0, rows, on_hidden)
        return None, None, on_hidden, on_weight, on_bias, on_scale


def _direct(weight: Tensor) -> bool:
    """Whether the gradient of the logits can be written as the matrix products read it.

    Not in float16, for which it is scaled once it is known.
    """
    return weight.dtype == torch.bfloat16


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: Tensor | float) -> None:
    """total += a b / factor, added up in the dtype of ``total``."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif not a.is_cuda:
        total.add_(a.to(total.dtype) @ b.to(total.dtype) / factor)
    elif isinstance(factor, Tensor):
        total.add_(torch.mm(a, b, out_dtype=total.dtype) / factor)
    else:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)


def _product(out: Tensor, a: Tensor, b: Tensor, factor: Tensor | float) -> None:
    """out = a b / factor, rounded once."""
    if isinstance(factor, Tensor) and a.is_cuda:
        out.copy_(torch.mm(a, b, out_dtype=torch.float32) / factor)
    elif isinstance(factor, Tensor) or (out.dtype.itemsize < 4 and not a.is_cuda):
        out.copy_(a.float() @ b.float() / factor)
    else:
        torch.mm(a, b, out=out)
