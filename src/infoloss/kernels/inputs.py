"""What a compiled kernel is given, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from infoloss.kernels.memory import unwritten

__all__ = ["ORDER", "Inputs", "Kernel", "module", "overwritable", "overwritten"]


ORDER = (
    "maximum",
    "classes",
    "exp_sum",
    "exp_logit_sum",
    "exp_square_sum",
    "logit_sum",
    "logit_square_sum",
    "label_logit",
    "label_logit_square",
    "label_exp",
    "label_log_exp",
    "peak",
    "centre",
    "offset",
    "scale",
)
"""Moments by number, as compiled code knows them: where[i] is the row of the packed moments that holds
ORDER[i], or −1. The last three tell how a view read the row: the centre c, s·c, and s."""


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
    tau: float = 0.0  # the scale is 1/(τ‖κ(z)‖); 0: it is not
    cap: float = 0.0  # κ(z) = cap·tanh(z/cap); 0: z
    ignored: int | None = None  # rows with this label count for nothing
    overwrite: bool = False  # the gradient may be written over z
    first: int = (
        0  # which of all classes the columns of z are: those from here on (target and shift likewise,
    )
    total: int | None = None  # but hard labels count all classes) of so many; None: they are all

    def __len__(self) -> int:
        return self.z.shape[0] * self.z.shape[2]

    @property
    def classes(self) -> int:
        """All classes of a row."""
        return self.z.shape[1] if self.total is None else self.total

    @property
    def viewed(self) -> bool:
        """Whether a view is applied for which each row is centred first."""
        return self.scale is not None or self.shift is not None or self.tau != 0

    @property
    def label(self) -> Tensor | None:
        """Hard labels (N,)."""
        return self.target if self.target is not None and self.target.ndim == 1 else None

    @property
    def soft(self) -> Tensor | None:
        """A soft target (N, C)."""
        return self.target if self.target is not None and self.target.ndim == 2 else None

    def goal(self) -> Tensor:
        """Where the gradient of z is to be written: memory of its own, or that of z."""
        return overwritten(self.z) if self.overwrite else unwritten(self.z)

    def of_rows(self, z: Tensor, rows: slice) -> Inputs:
        """The same of some rows, whose logits are z."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return replace(self, z=z, scale=cut(self.scale), target=cut(self.target), kept=cut(self.kept))


def overwritable(z: Tensor) -> bool:
    """Whether a gradient may take the memory of z: an operation's result, each element in its own place.

    Not of a leaf, nor of a view of one, whose values are somebody's; nor where hooks on saved tensors keep
    PyTorch from noticing that one has been written over.
    """
    origin = z if z._base is None else z._base
    return (
        torch.is_grad_enabled()
        and z.requires_grad
        and not origin.is_leaf
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
        and _apart(z)
    )


def _apart(z: Tensor) -> bool:
    """Whether no two elements of z share memory: each stride steps over all that smaller strides reach."""
    reach = 0
    for stride, size in sorted(zip(z.stride(), z.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return False
            reach += (size - 1) * stride
    return True


def overwritten(z: Tensor) -> Tensor:
    """The memory of z for what is about to be written over it, which PyTorch is told."""
    torch.autograd.graph.increment_version(z)
    return z.detach()


class Kernel(Protocol):
    """A module with these functions (an instance of this protocol): what one compiled kernel can do.

    Logits come in any layout and any dtype.
    """

    def moments(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """The moments in the order of their names, (K, N) float64, and what ``gradient`` asks for besides.

        "maximum" is that of the row as it is seen, less the "offset" s·c; "label_logit" is −inf where the
        target wants a masked class. A view that centres leaves "centre" c and "offset", and a norm "scale".
        """

    def gradient(
        self, inputs: Inputs, packed: Tensor, besides: Tensor | None, slope: Tensor, with_scale: bool
    ) -> tuple[Tensor, Tensor | None]:
        """From the derivatives in the moments, (K, N), those in z and, where asked for, in the scale (N,)."""


def module(kernel: str) -> Kernel:
    """The functions of a kernel by name, its packages imported on first use."""
    if kernel == "gpu":
        from infoloss.kernels import device

        return device
    from infoloss.kernels import host

    return host
