"""Images as numbers: fractions of white, and their mean and spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from infoloss.training.mapped import MappedRows

__all__ = ["IMAGENET", "Normalisation", "fractions", "normalisation"]

Normalisation = Mapping[str, Sequence[float]]
"""``{"mean": …, "std": …}``, a number a channel, of pixels between 0 and 1."""

IMAGENET: Normalisation = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What most weights that are had from elsewhere were trained with."""

_ROWS = 1024


def fractions(features: Tensor) -> Tensor:
    """uint8 as float32 between 0 and 1; other types as they are.

    Example:
        >>> fractions(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    return features / 255 if features.dtype == torch.uint8 else features


def normalisation(asked: str | Normalisation, train: Tensor | MappedRows) -> Normalisation | None:
    """The normalisation of a study: as given, by name, or with the training rows' mean and spread.

    Args:
        asked: "auto" (the training rows' for images, none for others), "none", "imagenet", or the numbers.
        train: (N, …) training rows.

    Returns:
        None where nothing is to be done.

    Raises:
        ValueError: numbers that are not one a channel, or rows that are no images.
    """
    images = train.ndim == 4
    if asked == "none" or (asked == "auto" and not images):
        return None
    if asked == "auto":
        return _of(train)
    found = IMAGENET if asked == "imagenet" else asked
    assert isinstance(found, Mapping)
    shape = tuple(train.shape[1:])
    for key in ("mean", "std"):
        if not images or len(found[key]) != shape[0]:
            raise ValueError(
                f"normalisation: {key} has {len(found[key])} numbers; expected images with as many channels, "
                f"got rows of shape {shape}"
            )
    return found


def _of(images: Tensor | MappedRows) -> Normalisation:
    """Mean and standard deviation of each channel, in float64; a channel without spread is not divided."""
    channels = images.shape[1]
    total, squares = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))
    centre = fractions(images[:1]).double().mean((0, 2, 3)).cpu()
    for block in images.split(_ROWS):
        # About a value of the data: squares of large numbers would lose the spread.
        away = fractions(block).double().cpu() - centre[:, None, None]
        total += away.sum((0, 2, 3))
        squares += away.square().sum((0, 2, 3))
    count = images.numel() / channels
    mean, variance = total / count, squares / count - (total / count) ** 2
    std = variance.clamp_min(0).sqrt()
    return {"mean": (centre + mean).tolist(), "std": torch.where(std > 0, std, 1.0).tolist()}
