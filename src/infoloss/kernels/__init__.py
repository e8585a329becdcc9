"""Kernels: from rows of logits to their moments. Every kernel agrees with :mod:`infoloss.kernels.eager`.

The choice is automatic, by device, dtype, size and what PyTorch is doing (compiling, transforming);
it never depends on a measurement at run time, so that reruns are bit-identical. :func:`use` forces one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from infoloss.kernels import eager
from infoloss.kernels.eager import class_rows, viewed
from infoloss.statistics import Moments
from infoloss.views import View
from infoloss.visibility import values_visible

__all__ = ["KERNELS", "available", "class_rows", "reduce", "use", "viewed"]

KERNELS = {
    "eager": "plain PyTorch, on every device",
    "cpu": "Numba, float32 and float64 on the CPU (extra: cpu)",
}
SMALLEST = 16384
"""Elements from which the CPU kernel is ahead of eager (set by benchmarks/kernels.py)."""

_forced: ContextVar[str | None] = ContextVar("infoloss_kernel", default=None)


@cache
def available(name: str) -> bool:
    """Whether the packages of a kernel are installed."""
    return name == "eager" or (name == "cpu" and find_spec("numba") is not None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Force a kernel in this context, where it can do what is asked; eager does the rest.

    >>> import torch, infoloss as il
    >>> with il.kernels.use("eager"):
    ...     float(il.entropy()(torch.zeros(1, 2, dtype=torch.float64)))
    0.6931471805599453

    Raises:
        ValueError: there is no such kernel, or its packages are not installed.
    """
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    if not available(name):
        raise ValueError(f"the kernel {name!r} needs numba: pip install 'infoloss[cpu]'")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


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
    """The moments of each row, as :func:`infoloss.kernels.eager.reduce`, from the kernel that fits."""
    if _compiled(logits, target, views):
        from infoloss.kernels import fused

        if fused.supports(views):
            return fused.reduce(
                logits, target, views, needs, floor=floor, kept=kept, coefficients=coefficients
            )
    return eager.reduce(logits, target, views, needs, floor=floor, kept=kept, coefficients=coefficients)


def _compiled(logits: Tensor, target: Tensor | None, views: tuple[View, ...]) -> bool:
    """Whether a compiled kernel is to do it; higher derivatives and transforms are eager's."""
    if not values_visible(logits, target) or logits.dtype.itemsize < 4 or len(logits) == 0:
        return False
    forced = _forced.get()
    if forced is None and (logits.numel() < SMALLEST or not available("cpu")):
        return False
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    soft_gradient = target is not None and target.requires_grad
    return forced != "eager" and not forward_mode and not soft_gradient
