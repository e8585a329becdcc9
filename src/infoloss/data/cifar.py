"""The binary form of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import numpy as np

__all__ = ["cifar_records"]

_PIXELS = 3 * 32 * 32


def cifar_records(content: bytes, *, labels: int, place: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, labels) label bytes and (n, 3, 32, 32) pixels of a file: image by image, the labels first.

    Args:
        content: of the file.
        labels: label bytes of an image: 1 in CIFAR-10, 2 (coarse, fine) in CIFAR-100.
        place: what messages call it.

    Raises:
        ValueError: a size that is no whole number of images.
    """
    width = labels + _PIXELS
    if not content or len(content) % width:
        raise ValueError(f"{place} has {len(content)} bytes; expected a multiple of {width}, an image each")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    return records[:, :labels], records[:, labels:].reshape(-1, 3, 32, 32)
