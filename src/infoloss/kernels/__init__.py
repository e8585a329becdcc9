"""Kernels: from rows of logits to their moments. Every kernel agrees with :mod:`infoloss.kernels.eager`.

The choice is automatic, by device, dtype, size and what PyTorch is doing (compiling, transforming);
it never depends on a measurement at run time, so that reruns are bit-identical. :func:`use` forces one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

import torch
from torch import Tensor

from infoloss.kernels import eager, fused
from infoloss.kernels.eager import class_rows, label_moments, viewed
from infoloss.kernels.linear import Head
from infoloss.statistics import Moments
from infoloss.views import View
from infoloss.visibility import transforms_active, untraced

__all__ = ["KERNELS", "available", "chosen", "class_rows", "label_moments", "reduce", "use", "viewed"]

KERNELS = {
    "eager": "plain PyTorch, on every device",
    "cpu": "Numba, float16 to float64 on the CPU (extra: cpu)",
    "gpu": "Triton, float16 to float64 on a GPU",
}
REQUIREMENTS = {"cpu": ("numba", "pip install 'infoloss[cpu]'"), "gpu": ("triton", "pip install triton")}
INSTALLED = {
    name: name not in REQUIREMENTS or find_spec(REQUIREMENTS[name][0]) is not None for name in KERNELS
}
SMALLEST = 16384
"""Elements from which the CPU kernel is ahead of eager (benchmarks/thresholds.py)."""

_forced: ContextVar[str | None] = ContextVar("infoloss_kernel", default=None)


def available(name: str) -> bool:
    """Whether the packages of a kernel are installed."""
    return INSTALLED.get(name, False)


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
        package, command = REQUIREMENTS[name]
        raise ValueError(f"the kernel {name!r} needs {package}: {command}")
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
    overwrite: bool = False,
    head: Head | None = None,
) -> Moments:
    """The moments of each row, as :func:`infoloss.kernels.eager.reduce`, from the kernel that fits.

    With ``overwrite`` nothing else reads the logits: a compiled kernel may write their gradient over them.
    With a ``head`` the logits only stand for the head's, for the kernel "gpu".
    """
    name = chosen(logits, target)
    if name != "eager" and fused.supports(views):
        return fused.reduce(
            name,
            logits,
            target,
            views,
            needs,
            floor=floor,
            kept=kept,
            coefficients=coefficients,
            overwrite=overwrite,
            head=head,
        )
    return eager.reduce(logits, target, views, needs, floor=floor, kept=kept, coefficients=coefficients)


def chosen(logits: Tensor, target: Tensor | None) -> str:
    """The kernel for this work; eager for transforms, forward mode, and programs that are exported."""
    if torch.compiler.is_compiling():
        return _kept(logits, target)
    if not untraced(logits, target) or logits.numel() == 0 or logits.is_neg():
        return "eager"  # is_neg: the memory has the other sign (an imaginary part of a conjugate)
    forced, device = _forced.get(), logits.device.type
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    if forced == "eager" or forward_mode or (target is not None and target.requires_grad):
        return "eager"
    if device == "cuda":
        return "gpu" if forced in (None, "gpu") and available("gpu") else "eager"
    if device != "cpu":
        return "eager"
    if forced == "gpu":
        return "gpu" if os.environ.get("TRITON_INTERPRET") == "1" else "eager"
    return "cpu" if forced == "cpu" or (logits.numel() >= SMALLEST and available("cpu")) else "eager"


def _kept(logits: Tensor, target: Tensor | None) -> str:
    """The kernel that stands as an operator in a compiled graph; :func:`use` is not read there."""
    if torch.compiler.is_exporting() or transforms_active() or (target is not None and target.requires_grad):
        return "eager"
    if logits.device.type == "cuda" and INSTALLED["gpu"]:
        return "gpu"
    large = logits.device.type == "cpu" and logits.numel() >= SMALLEST
    return "cpu" if large and INSTALLED["cpu"] else "eager"
