"""The compiled kernels as operators of PyTorch, which ``torch.compile`` keeps as they are.

Outside a compiled graph :mod:`infoloss.kernels.fused` calls the kernels itself: a custom operator costs
more than a small batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infoloss.kernels.inputs import Inputs, module

__all__ = ["moments"]

Optional = Tensor | None


def moments(kernel: str, inputs: Inputs) -> Tensor:
    """The moments in the order of their names, (K, N) float64, differentiable in z and the scale."""
    packed, _ = _reduce(
        inputs.z,
        inputs.scale,
        inputs.target,
        inputs.kept,
        inputs.shift,
        inputs.floor,
        inputs.tau,
        inputs.cap,
        ",".join(inputs.names),
        kernel,
    )
    return packed  # type: ignore[no-any-return]


@torch.library.custom_op("infoloss::reduce", mutates_args=())
def _reduce(
    z: Tensor,
    scale: Optional,
    target: Optional,
    kept: Optional,
    shift: Optional,
    floor: float,
    tau: float,
    cap: float,
    names: str,
    kernel: str,
) -> tuple[Tensor, Tensor]:
    """Moments, and each row's class of the maximum (none unless "peak" is among them)."""
    inputs = Inputs(z, scale, target, kept, shift, floor, tuple(names.split(",")), tau, cap)
    packed, peaks = module(kernel).moments(inputs)
    return packed, z.new_empty(0, dtype=torch.int64) if peaks is None else peaks.long()


@_reduce.register_fake
def _(z: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    *_, names, _ = given
    wanted, rows = names.split(","), z.shape[0] * z.shape[2]
    packed = z.new_empty((len(wanted), rows), dtype=torch.float64)
    return packed, z.new_empty(rows if "peak" in wanted else 0, dtype=torch.int64)


@torch.library.custom_op("infoloss::spread", mutates_args=())
def _spread(
    z: Tensor,
    scale: Optional,
    target: Optional,
    kept: Optional,
    shift: Optional,
    packed: Tensor,
    peaks: Tensor,
    slope: Tensor,
    floor: float,
    tau: float,
    cap: float,
    names: str,
    kernel: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of z and of the scale from those of the moments."""
    inputs = Inputs(z, scale, target, kept, shift, floor, tuple(names.split(",")), tau, cap)
    besides = peaks if "peak" in inputs.names else None
    g, on_scale = module(kernel).gradient(inputs, packed, besides, slope, scale is not None)
    return g, packed.new_empty(0) if on_scale is None else on_scale


@_spread.register_fake
def _(z: Tensor, scale: Optional, *given: Any) -> tuple[Tensor, Tensor]:
    _, _, _, packed, *_ = given
    return torch.empty_like(z), packed.new_empty(packed.shape[1] if scale is not None else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.options = inputs[5:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, slope: Tensor | None, _: Tensor | None) -> Any:
    z, scale, target, kept, shift, packed, peaks = ctx.saved_tensors
    constant = (None,) * (3 + len(ctx.options))
    if slope is None:
        return None, None, *constant
    g, on_scale = _spread(z, scale, target, kept, shift, packed, peaks, slope, *ctx.options)
    return g, None if scale is None else on_scale, *constant


_reduce.register_autograd(_backward, setup_context=_save)
