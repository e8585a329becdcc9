"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["mlp"]


def mlp(*, features: int, classes: int, hidden: Sequence[int] = (256,)) -> nn.Module:
    """Affine maps with ReLU between them: (N, F) to (N, C).

    Args:
        features: width F of a row.
        classes: number C of logits.
        hidden: widths of the hidden layers, in order.

    Example:
        >>> [tuple(p.shape) for p in mlp(features=4, classes=3, hidden=(5,)).parameters()]
        [(5, 4), (5,), (3, 5), (3,)]
    """
    layers: list[nn.Module] = []
    for width, next_width in pairwise((features, *hidden)):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((features, *hidden)[-1], classes))
