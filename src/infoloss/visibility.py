"""Whether the numbers of tensors may be looked at by Python here, and what kind of tracing is under way."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["transforms_active", "values_visible"]


def transforms_active() -> bool:
    """Whether a ``torch.func`` transform (vmap, grad, jvp …) is under way."""
    return bool(torch._C._are_functorch_transforms_active())


def values_visible(*tensors: Tensor | None) -> bool:
    """Whether the numbers may be looked at: on the CPU, outside compilation and ``torch.func``."""
    if torch.compiler.is_compiling() or transforms_active():
        return False
    return all(
        t is None or (t.device.type == "cpu" and type(t) in (Tensor, torch.nn.Parameter)) for t in tensors
    )
