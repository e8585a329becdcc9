"""Whether the numbers of tensors may be looked at by Python here, and what kind of tracing is under way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["batched", "differentiated", "transforms_active", "uncompiled", "values_visible"]

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """A function that ``torch.compile`` runs as it stands; the compiler is not imported for it."""

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]
        return function(*args, **kwargs)

    return outside


def transforms_active() -> bool:
    """Whether a ``torch.func`` transform (vmap, grad, jvp …) is under way."""
    return bool(torch._C._are_functorch_transforms_active())


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative in this tensor may be asked for."""
    return tensor.requires_grad or transforms_active() or torch.autograd.forward_ad._current_level >= 0


def batched(tensor: Tensor) -> bool:
    """Whether a backward pass follows this gradient in a way that compiled code cannot see.

    It maps over it (``is_grads_batched``, or ``torch.func.vmap`` of the pass), or differentiates in it.
    """
    known = torch._C._functorch
    if known.is_legacy_batchedtensor(tensor) or known.is_functorch_wrapped_tensor(tensor):
        return True
    return torch.autograd.forward_ad._current_level >= 0


def untraced(*tensors: Tensor | None) -> bool:
    """Whether these are plain tensors that nothing is tracing or transforming."""
    if torch.compiler.is_compiling() or transforms_active():
        return False
    return all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in tensors)


def values_visible(*tensors: Tensor | None) -> bool:
    """Whether the numbers may be looked at: on the CPU, outside compilation and ``torch.func``."""
    return untraced(*tensors) and all(t is None or t.device.type == "cpu" for t in tensors)
