"""Calls of the CPU kernel, :mod:`infoloss.kernels.cpu`: a :class:`~infoloss.kernels.fused.Kernel`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infoloss.kernels import cpu
from infoloss.kernels.fused import Inputs
from infoloss.kernels.threads import parallel

__all__ = ["gradient", "moments", "planes"]


def planes(logits: Tensor) -> Tensor:
    """Rows (N, C, 1), float32 or float64."""
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1], 1)
    return rows.float() if rows.dtype.itemsize < 4 else rows


def moments(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Row by row, in one pass."""
    packed = inputs.z.new_empty((len(inputs.names), len(inputs)), dtype=torch.float64)
    where = torch.full((len(cpu.ORDER) + 1,), -1)
    for i, name in enumerate(inputs.names):
        where[_number(name)] = i
    run = cpu.parallel_moments if parallel(inputs.z.numel()) else cpu.serial_moments
    run(*_arrays(inputs), inputs.floor, where.numpy(), packed.numpy())
    return packed, None


def gradient(
    inputs: Inputs, packed: Tensor, besides: Tensor | None, slope: Tensor, with_scale: bool
) -> tuple[Tensor, Tensor | None]:
    """Row by row, in one pass."""
    co = slope.new_zeros((len(cpu.ORDER), len(inputs)))
    for i, name in enumerate(inputs.names):
        if name not in ("maximum", "centre"):
            co[_number(name)] = slope[i]
    row = dict(zip(inputs.names, packed.unbind(0), strict=True))
    centre = row.get("centre", packed.new_zeros(len(inputs)))
    g = torch.empty_like(inputs.z, memory_format=torch.contiguous_format)
    gs = packed.new_empty(len(inputs) if with_scale else 0)
    run = cpu.parallel_gradient if parallel(inputs.z.numel()) else cpu.serial_gradient
    run(
        *_arrays(inputs),
        inputs.floor,
        row["maximum"].numpy(),
        centre.numpy(),
        co.numpy(),
        g[:, :, 0].numpy(),
        gs.numpy(),
    )
    return g, gs if with_scale else None


def _number(name: str) -> int:
    return cpu.CENTRE if name == "centre" else cpu.ORDER.index(name)


def _arrays(inputs: Inputs) -> tuple[Any, ...]:
    """What both kernel functions take, absent tensors as empty arrays."""
    z = inputs.z[:, :, 0]
    none = z.new_empty((0, 0))
    soft = none if inputs.soft is None else inputs.soft
    wants_score = len(soft) and "label_log_exp" in inputs.names
    score = torch.log(soft.clamp(min=inputs.floor)) if wants_score else none
    present = [
        z,
        torch.empty(0, dtype=torch.int64) if inputs.label is None else inputs.label,
        soft,
        score,
        torch.empty(0, dtype=torch.bool) if inputs.kept is None else inputs.kept,
        z.new_empty(0) if inputs.shift is None else inputs.shift,
        torch.empty(0, dtype=torch.float64) if inputs.scale is None else inputs.scale.contiguous(),
    ]
    return tuple(tensor.detach().numpy() for tensor in present)
