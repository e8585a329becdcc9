"""VGG networks: VGG-5 and Spinal-VGG of the EMNIST studies, and VGG-11 in its CIFAR form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from infoloss.models.affine import Affine
from infoloss.models.dropout import Dropout
from infoloss.models.images import he_normal, image_shape
from infoloss.models.pooling import PooledReLU

__all__ = ["spinal_vgg", "vgg5", "vgg11_bn"]

_VGG5 = ((64, 64), (128, 128), (256, 256, 256), (256, 256, 256))
_VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg5(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Ten convolutions in four blocks, then 512 hidden units between dropouts of a half.

    Source: the network "VGG-5" of Kabir et al., SpinalNet (arXiv 2007.03347), and of Oladipupo (arXiv
    2501.13709). Both count 28×28×1 images.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 16 pixels a side.

    Example:
        >>> model = vgg5(input_shape=(1, 28, 28), classes=26)
        >>> sum(p.numel() for p in model.parameters())
        3654362
    """
    channels, height, width = image_shape("vgg5", input_shape, smallest=16)
    features = _features(_VGG5, height, width)
    return nn.Sequential(
        *_convolutions(_VGG5, channels),
        *(nn.Flatten(), Dropout(0.5), Affine(features, 512), nn.BatchNorm1d(512), nn.ReLU()),
        *(Dropout(0.5), nn.Linear(512, classes)),
    )


def spinal_vgg(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """The convolutions of ``vgg5``, then a spine of four layers that read half of the features each.

    Source: Kabir et al., SpinalNet (arXiv 2007.03347).

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 16 pixels a side.

    Example:
        >>> model = spinal_vgg(input_shape=(1, 28, 28), classes=26)
        >>> sum(p.numel() for p in model.parameters())
        3637978
    """
    channels, height, width = image_shape("spinal_vgg", input_shape, smallest=16)
    features = _features(_VGG5, height, width)
    head = (Dropout(0.5), nn.Linear(512, classes))
    return nn.Sequential(*_convolutions(_VGG5, channels), nn.Flatten(), _Spine(features), *head)


class _Spine(nn.Module):
    """Four layers of 128 units; each reads one half of the features in turn, and the layer before it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.middle = middle = features // 2
        widths = (middle, *[middle + 128] * 3)
        self.layers = nn.ModuleList(
            nn.Sequential(Dropout(0.5), Affine(width, 128), nn.BatchNorm1d(128), nn.ReLU())
            for width in widths
        )

    def forward(self, features: Tensor) -> Tensor:
        halves = features[:, : self.middle], features[:, self.middle :]  # (N, F/2) each
        outputs: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            outputs.append(layer(torch.cat([halves[index % 2], *outputs[-1:]], 1)))
        return torch.cat(outputs, 1)  # (N, 512)


def vgg11_bn(*, classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """VGG-11 with batch normalisation in its CIFAR form: eight convolutions, and an affine map.

    Source: Simonyan and Zisserman (arXiv 1409.1556); the one affine map is usual for small images.

    Args:
        classes: number C of logits.
        input_shape: (channels, H, W).

    Raises:
        ValueError: rows that are not images, or images below 32 pixels a side.

    Example:
        >>> model = vgg11_bn(input_shape=(3, 32, 32), classes=10)
        >>> sum(p.numel() for p in model.parameters())
        9231114
    """
    channels, height, width = image_shape("vgg11_bn", input_shape, smallest=32)
    features = _features(_VGG11, height, width)
    return nn.Sequential(*_convolutions(_VGG11, channels), nn.Flatten(), nn.Linear(features, classes))


def _convolutions(blocks: Sequence[Sequence[int]], channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for block in blocks:
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(inplace=True)]
            channels = width
        layers[-1] = PooledReLU()
    return [he_normal(layer) for layer in layers]


def _features(blocks: Sequence[Sequence[int]], height: int, width: int) -> int:
    """How many numbers are left of an image that every block halves."""
    return blocks[-1][-1] * (height >> len(blocks)) * (width >> len(blocks))
