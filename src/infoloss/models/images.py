"""What models of images share: the check of their input's shape, initial weights, and work in parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["InParts", "he_normal", "image_shape"]

IMAGES_AT_ONCE = 50
"""Of a batch: each layer finds in the cache what the one before wrote (32 pixels a side, 32 channels)."""


def image_shape(model: str, input_shape: tuple[int, ...], *, smallest: int) -> tuple[int, int, int]:
    """(channels, H, W).

    Raises:
        ValueError: not the shape of an image, or a side below ``smallest``.

    Example:
        >>> image_shape("vgg5", (13,), smallest=16)
        Traceback (most recent call last):
        ...
        ValueError: the model vgg5 reads images (channels, height, width), got rows of shape (13,)
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"the model {model} reads images (channels, height, width), got rows of shape {input_shape}"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ValueError(
            f"the model {model} reads images of {smallest} pixels or more a side, got {height} × {width}"
        )
    return channels, height, width


def he_normal(module: nn.Module) -> nn.Module:
    """Draws the convolutions' weights from N(0, 2 / (k² · out channels)), with biases 0: He et al. 2015."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


class InParts(nn.Sequential):
    """Layers that treat every row alone, over a part of the batch at a time: (N, …) to (N, …).

    On one thread of a CPU, convolutions and pooling are faster on images from the cache than from memory.
    The function is the same; sums over the batch, in weights' gradients, round in another order.

    Example:
        >>> layers = nn.Linear(3, 2), nn.ReLU()
        >>> x = torch.randn(120, 3)
        >>> bool((InParts(*layers)(x) == nn.Sequential(*layers)(x)).all())
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = -(-len(x) // IMAGES_AT_ONCE)
        if parts < 2 or x.device.type != "cpu" or torch.get_num_threads() > 1:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        return torch.cat(list(map(super().forward, x.tensor_split(parts))))
