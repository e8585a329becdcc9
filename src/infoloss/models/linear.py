"""The linear classifier."""

from __future__ import annotations

from torch import nn

__all__ = ["linear"]


def linear(*, features: int, classes: int) -> nn.Module:
    """One affine map, z = Wx + b: (N, F) to (N, C).

    Example:
        >>> linear(features=4, classes=3)
        Linear(in_features=4, out_features=3, bias=True)
    """
    return nn.Linear(features, classes)
