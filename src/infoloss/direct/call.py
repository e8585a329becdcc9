"""A plain call: what is asked of the rows, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from infoloss import kernels
from infoloss.direct.plan import SMOOTHING, Plan

if TYPE_CHECKING:
    from infoloss.terms import Term

__all__ = ["Call", "over_classes"]


class Call(NamedTuple):
    """What is asked of the rows."""

    term: Term
    plan: Plan
    target: Tensor | None
    ignored: int
    smoothing: float
    reduction: str
    divisor: float | None  # None: the number of rows that count
    coefficients: Mapping[str, float]
    overwrite: bool  # whether the gradient may be written over the logits

    def parameters(self) -> list[float]:
        """The numbers that the program is given."""
        known = {**self.coefficients, SMOOTHING: self.smoothing}
        return [known[name] for name in self.plan.program.parameters]

    def differentiable_gradient(self, logits: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the logits from that of the result, the general way: differentiable in both."""
        z = logits.view_as(logits)
        with kernels.use("eager"):
            value = self.term(
                z,
                self.target,
                ignore_index=self.ignored,
                label_smoothing=self.smoothing,
                reduction=self.reduction,
                denominator=self.divisor if self.reduction == "mean" else None,
                coefficients=self.coefficients,
            )
        (g,) = torch.autograd.grad(value, z, grad, create_graph=True)
        return g


def over_classes(grad: Tensor, logits: Tensor) -> Tensor:
    """The gradient of a result or of row values, to be multiplied by something of the logits' shape."""
    return grad if grad.ndim == 0 or logits.ndim == 1 else grad.unsqueeze(1)
