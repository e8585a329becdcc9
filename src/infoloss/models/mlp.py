"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from infoloss.models.affine import Affine

__all__ = ["mlp"]


def mlp(
    *,
    classes: int,
    input_shape: tuple[int, ...],
    hidden: Sequence[int] = (256,),
    batch_norm: bool = False,
) -> nn.Module:
    """Affine maps with ReLU between them: (N, F) to (N, C); an image is read as one long row.

    Args:
        classes: number C of logits.
        input_shape: of a row.
        hidden: widths of the hidden layers, in order.
        batch_norm: whether batch normalisation stands before every affine map, as in the tabular study of
            squentropy (Hui, Belkin, Wright, arXiv 2302.03952: ``hidden=(256, 256, 256)``).

    Raises:
        ValueError: a width that is not positive.

    Example:
        >>> [tuple(p.shape) for p in mlp(input_shape=(4,), classes=3, hidden=(5,)).parameters()]
        [(5, 4), (5,), (3, 5), (3,)]
    """
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden must hold positive widths, got {list(hidden)}")
    widths = (prod(input_shape), *hidden)
    layers: list[nn.Module] = [nn.Flatten()] if len(input_shape) > 1 else []
    for width, next_width in pairwise(widths):
        layers += [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [Affine(width, next_width), nn.ReLU()]
    layers += [nn.BatchNorm1d(widths[-1])] if batch_norm else []
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
