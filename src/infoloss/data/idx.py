"""The idx format of MNIST and its relatives."""

from __future__ import annotations

import numpy as np

__all__ = ["idx_array"]


def idx_array(content: bytes, *, place: str) -> np.ndarray:
    """The array of bytes that an idx file holds.

    Two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as four bytes (the
    highest first), then the numbers.

    Args:
        content: of the file, not compressed.
        place: what messages call it.

    Raises:
        ValueError: another format or type, or fewer or more numbers than the dimensions say.

    Example:
        >>> idx_array(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), place="labels")
        array([7, 8, 9], dtype=uint8)
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8:
        raise ValueError(
            f"{place} begins with {content[:4].hex(' ')}; expected an idx file of unsigned bytes"
        )
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">i4").tolist())
    numbers = np.frombuffer(content, np.uint8, offset=min(start, len(content)))
    if len(numbers) != np.prod(shape):
        raise ValueError(f"{place} holds {len(numbers)} numbers; expected {' × '.join(map(str, shape))}")
    return numbers.reshape(shape)
