"""Residual networks in their CIFAR forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from infoloss.models.images import he_normal, image_shape

__all__ = ["resnet18", "resnet20", "resnet32"]


def resnet20(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-20: three stages of three blocks with 16, 32 and 64 channels, shortcuts without parameters.

    Source: He et al. (arXiv 1512.03385), section 4.2: 0.27 million parameters.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 4 pixels a side.

    Example:
        >>> sum(p.numel() for p in resnet20(input_shape=(3, 32, 32), classes=10).parameters())
        269722
    """
    channels, _, _ = image_shape("resnet20", input_shape, smallest=4)
    return _resnet(channels, classes, widths=(16, 32, 64), depth=3, shortcut=_Padded)


def resnet32(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-32: as ``resnet20`` with five blocks a stage.

    Source: He et al. (arXiv 1512.03385), section 4.2: 0.46 million parameters.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 4 pixels a side.

    Example:
        >>> sum(p.numel() for p in resnet32(input_shape=(3, 32, 32), classes=10).parameters())
        464154
    """
    channels, _, _ = image_shape("resnet32", input_shape, smallest=4)
    return _resnet(channels, classes, widths=(16, 32, 64), depth=5, shortcut=_Padded)


def resnet18(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-18 that starts with a 3×3 convolution and no pooling, as is usual for small images.

    Source: He et al. (arXiv 1512.03385), table 1; the shortcuts that change the shape are projections.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 8 pixels a side.

    Example:
        >>> sum(p.numel() for p in resnet18(input_shape=(3, 32, 32), classes=10).parameters())
        11173962
    """
    channels, _, _ = image_shape("resnet18", input_shape, smallest=8)
    return _resnet(channels, classes, widths=(64, 128, 256, 512), depth=2, shortcut=_projected)


Shortcut = Callable[[int, int, int], nn.Module]
"""From channels before and after, and the stride."""


def _resnet(
    channels: int, classes: int, *, widths: Sequence[int], depth: int, shortcut: Shortcut
) -> nn.Module:
    before = widths[0]
    layers: list[nn.Module] = [_convolution(channels, before, 1), nn.BatchNorm2d(before)]
    layers += [nn.ReLU(inplace=True)]
    for stage, after in enumerate(widths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(_Block(before, after, stride, shortcut))
            before = after
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    return he_normal(nn.Sequential(*layers, *head))


def _convolution(before: int, after: int, stride: int) -> nn.Module:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


class _Block(nn.Module):
    """relu(shortcut(x) + f(x)), f two convolutions with batch normalisation."""

    def __init__(self, before: int, after: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(_convolution(before, after, stride), nn.BatchNorm2d(after), nn.ReLU(inplace=True)),
            *(_convolution(after, after, 1), nn.BatchNorm2d(after)),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.residual(x), inplace=True)


class _Padded(nn.Module):
    """Every second pixel, and zeros for the new channels, half of them on each side."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, new = stride, after - before
        self.sides = (new // 2, new - new // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.sides))


def _projected(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
