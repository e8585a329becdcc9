"""The convolutional network of the Keras comparison of cross entropy with KL divergence on CIFAR-10."""

from __future__ import annotations

from torch import nn

from infoloss.models.affine import Affine
from infoloss.models.images import InParts, image_shape
from infoloss.models.pooling import PooledReLU

__all__ = ["keras_cifar10"]


def keras_cifar10(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Two 3×3 convolutions without padding, each halved and dropped out by half, and 256 hidden units.

    The weights start as Keras's do: Glorot uniform, biases 0.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 10 pixels a side.

    Example:
        >>> model = keras_cifar10(input_shape=(3, 32, 32), classes=10)
        >>> sum(p.numel() for p in model.parameters())
        612042
    """
    channels, height, width = image_shape("keras_cifar10", input_shape, smallest=10)
    pixels = _after_two_halvings(height) * _after_two_halvings(width)
    model = nn.Sequential(
        InParts(
            *(nn.Conv2d(channels, 32, 3), PooledReLU(0.5)),
            *(nn.Conv2d(32, 64, 3), PooledReLU(0.5), nn.Flatten()),
        ),
        *(Affine(64 * pixels, 256), nn.ReLU(), nn.Linear(256, classes)),
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return model


def _after_two_halvings(side: int) -> int:
    return ((side - 2) // 2 - 2) // 2
