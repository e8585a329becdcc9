"""What models of images share: the check of their input's shape, and the weights that they start from."""

from __future__ import annotations

from torch import nn

__all__ = ["he_normal", "image_shape"]


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
