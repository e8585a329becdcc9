"""Augmentation: random changes of a batch of images, from random numbers that seed and step alone decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from infoloss.training.pixels import fractions

__all__ = ["AUGMENTATIONS", "Augmentation", "Augmented", "augmentation", "augmented", "random_numbers"]

Transform = Callable[[Tensor, float, np.random.Generator], Tensor]
"""From (n, channels, H, W) images, the augmentation's number, and random numbers, to as many images."""


def crop(images: Tensor, padding: float, random: np.random.Generator) -> Tensor:
    """A window of the images' size, out of images with so many black pixels more on each side."""
    return _window(F.pad(images, (int(padding),) * 4), images.shape, random)


def reflect_crop(images: Tensor, padding: float, random: np.random.Generator) -> Tensor:
    """As ``crop``, with the image reflected at its edges instead of black pixels."""
    return _window(F.pad(images, (int(padding),) * 4, mode="reflect"), images.shape, random)


def _window(padded: Tensor, shape: Sequence[int], random: np.random.Generator) -> Tensor:
    n, _, height, width = shape
    room = padded.shape[2] - height + 1
    top, left = (_tensor(random.integers(0, room, n), padded) for _ in range(2))
    rows = top[:, None] + torch.arange(height, device=padded.device)  # (n, H)
    columns = left[:, None] + torch.arange(width, device=padded.device)  # (n, W)
    image = torch.arange(n, device=padded.device)[:, None, None]
    return padded.movedim(1, 3)[image, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def flip(images: Tensor, probability: float, random: np.random.Generator) -> Tensor:
    """Left and right exchanged, with this probability."""
    flipped = _tensor(random.random(len(images)) < probability, images)
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def rotation(images: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """A turn about the centre by an angle that is uniform in ± degrees; bilinear, black outside."""
    angle = np.radians(random.uniform(-degrees, degrees, len(images)))
    height, width = images.shape[2:]
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).reshape(-1, 3, 3)
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    return _warped(images, centre @ turn @ np.linalg.inv(centre))


def perspective(images: Tensor, distortion: float, random: np.random.Generator) -> Tensor:
    """Half of the images seen from aside: each corner moves inwards by up to distortion · half of a side.

    As torchvision's RandomPerspective with this ``distortion_scale``: p = .5, bilinear, black outside.
    """
    height, width = images.shape[2:]
    chosen = np.flatnonzero(random.random(len(images)) < 0.5)
    most = np.array([int(distortion * (width // 2)), int(distortion * (height // 2))])
    inwards = random.integers(0, most + 1, (len(chosen), 4, 2))
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    moved = corners + inwards * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    index = _tensor(chosen, images)
    return images.index_copy(0, index, _warped(images[index], _homography(moved, corners)))


def cutout(images: Tensor, side: float, random: np.random.Generator) -> Tensor:
    """A square of this side takes the batch's mean colour; its centre is any pixel, so it may stick out.

    Source: DeVries and Taylor (arXiv 1708.04552).
    """
    n, _, *sides = images.shape
    inside = []
    for length in sides:
        start = random.integers(0, length, n) - int(side) // 2
        steps = np.arange(length) - start[:, None]
        inside.append(_tensor((steps >= 0) & (steps < int(side)), images))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (n, 1, H, W)
    return torch.where(square, images.mean((0, 2, 3), keepdim=True), images)


@dataclass(frozen=True)
class Kind:
    """A transform, its usual number, and the bounds of that number: above 0, at most ``most``."""

    transform: Transform | None
    usual: float
    most: float = float("inf")
    whole: bool = False


AUGMENTATIONS: Mapping[str, Kind] = {
    "crop": Kind(crop, 4, whole=True),
    "reflect_crop": Kind(reflect_crop, 4, whole=True),
    "flip": Kind(flip, 0.5, most=1),
    "rotation": Kind(rotation, 10, most=180),
    "perspective": Kind(perspective, 0.5, most=1),
    "cutout": Kind(cutout, 8, whole=True),
    "mixup": Kind(None, 0.2),
}
"""Each has one number: pixels of padding, a probability, degrees, a distortion, a side, mixup's α."""


@dataclass(frozen=True)
class Augmentation:
    """One of ``AUGMENTATIONS`` with its number; as text, ``"rotation=10"``."""

    name: str
    amount: float

    def __str__(self) -> str:
        return f"{self.name}={self.amount:g}"


def augmentation(text: str) -> Augmentation:
    """The augmentation that a text names, with its usual number where it gives none.

    Raises:
        ValueError: no such augmentation, or a number out of its bounds.

    Example:
        >>> str(augmentation("rotation=15")), str(augmentation("crop"))
        ('rotation=15', 'crop=4')
    """
    name, equals, number = text.partition("=")
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}; expected one of {', '.join(AUGMENTATIONS)}")
    kind = AUGMENTATIONS[name]
    try:
        amount = float(number) if equals else kind.usual
    except ValueError:
        raise ValueError(f"{text!r}: expected a number after the equals sign") from None
    bound = "" if kind.most == float("inf") else f", at most {kind.most:g}"
    if not 0 < amount < float("inf") or amount > kind.most or (kind.whole and amount != int(amount)):
        sort = "whole number" if kind.whole else "number"
        raise ValueError(f"{text!r}: expected a {sort} above 0{bound}, as in {name}={kind.usual:g}")
    return Augmentation(name, amount)


def random_numbers(seed: int, step: int) -> np.random.Generator:
    """Numbers of a stream of its own for each seed and step: the same whatever was drawn before."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], np.uint64)))


@dataclass(frozen=True, eq=False)
class Augmented:
    """A batch after augmentation.

    With mixup, row i is ``share`` of itself and 1 − ``share`` of row ``partner[i]``, and so is its loss.
    """

    features: Tensor
    partner: Tensor | None = None
    share: float = 1.0


def augmented(
    features: Tensor, augmentations: Sequence[Augmentation], random: np.random.Generator
) -> Augmented:
    """The batch after these augmentations in their order; mixup comes last wherever it stands.

    Args:
        features: (n, …); images (n, channels, H, W) for all but mixup, uint8 ones as fractions of 255 after.
        augmentations: what is done.
        random: of this step.

    Raises:
        ValueError: an augmentation of images, and rows that are none.
    """
    features = fractions(features)
    alpha = None
    for each in augmentations:
        transform = AUGMENTATIONS[each.name].transform
        if transform is None:
            alpha = each.amount
            continue
        if features.ndim != 4:
            raise ValueError(
                f"{each.name} is for images, and the rows have shape {tuple(features.shape[1:])}"
            )
        features = transform(features, each.amount, random)
    if alpha is None:
        return Augmented(features)
    share = random.beta(alpha, alpha)
    partner = _tensor(random.permutation(len(features)), features)
    return Augmented(torch.lerp(features[partner], features, share), partner, share)


def _homography(origin: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(n, 3, 3) maps that take four points (n, 4, 2) to four others (4, 2), exactly."""
    n = len(origin)
    x, y = origin[..., 0], origin[..., 1]  # (n, 4)
    u, v = np.broadcast_to(image[:, 0], x.shape), np.broadcast_to(image[:, 1], x.shape)
    one, zero = np.ones_like(x), np.zeros_like(x)
    across = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], 2)
    down = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], 2)
    solved = np.linalg.solve(np.concatenate([across, down], 1), np.concatenate([u, v], 1)[..., None])
    return np.concatenate([solved[..., 0], np.ones((n, 1))], 1).reshape(n, 3, 3)


def _warped(images: Tensor, maps: np.ndarray) -> Tensor:
    """Images whose pixel at (x, y) is the old one's at map · (x, y, 1); pixel i has its centre at i + ½."""
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width] + 0.5
    places = np.stack([x, y, np.ones_like(x)], 2).reshape(-1, 3) @ maps.transpose(0, 2, 1)  # (n, HW, 3)
    grid = places[..., :2] / places[..., 2:] * np.array([2 / width, 2 / height]) - 1
    shaped = _tensor(grid.astype(np.float32).reshape(-1, height, width, 2), images)
    return F.grid_sample(images, shaped, mode="bilinear", padding_mode="zeros", align_corners=False)


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
