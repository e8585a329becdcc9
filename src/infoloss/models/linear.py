"""The linear classifier."""

from __future__ import annotations

from math import prod

from torch import nn

__all__ = ["linear"]


def linear(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """One affine map, z = Wx + b: (N, F) to (N, C); an image is read as one long row.

    Example:
        >>> linear(input_shape=(4,), classes=3)
        Linear(in_features=4, out_features=3, bias=True)
    """
    head = nn.Linear(prod(input_shape), classes)
    return head if len(input_shape) == 1 else nn.Sequential(nn.Flatten(), head)
