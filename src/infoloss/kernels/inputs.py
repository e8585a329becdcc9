"""What a compiled kernel is given, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

__all__ = ["Inputs", "Kernel", "module"]


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

    def __len__(self) -> int:
        return self.z.shape[0] * self.z.shape[2]

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

    def of_rows(self, z: Tensor, rows: slice) -> Inputs:
        """The same of some rows, whose logits are z."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return replace(self, z=z, scale=cut(self.scale), target=cut(self.target), kept=cut(self.kept))


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
