"""Bytes of many images: in memory, or in a file that all processes map."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["LARGEST_IN_MEMORY", "cache_folder", "filled", "mapped_file"]

LARGEST_IN_MEMORY = 256 * 2**20
"""Bytes; larger arrays are memory maps."""


def cache_folder() -> Path:
    """Where memory maps and downloads are kept: `INFOLOSS_CACHE`, else the user's cache folder."""
    given = os.environ.get("INFOLOSS_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("infoloss"))


def filled(shape: tuple[int, ...], fill: Callable[[np.ndarray], None], *, key: str) -> np.ndarray:
    """A uint8 array of this shape with what `fill` writes into it.

    Beyond `LARGEST_IN_MEMORY` it is a read-only memory map of a file in the cache folder, named by the key,
    that is written once: whole, or not at all.
    """
    if int(np.prod(shape, dtype=np.int64)) <= LARGEST_IN_MEMORY:
        values = np.empty(shape, np.uint8)
        fill(values)
        return values
    path = cache_folder() / "images" / f"{key}.npy"
    if not path.exists():
        _written(path, shape, fill)
    return np.lib.format.open_memmap(path, mode="r")


def mapped_file(values: np.ndarray) -> Path | None:
    """The file that holds all of these values and nothing else, where they are such a memory map."""
    part_of_another = isinstance(values.base, np.ndarray)
    if not isinstance(values, np.memmap) or part_of_another or values.filename is None:
        return None
    return Path(values.filename)


def _written(path: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        values = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        fill(values)
        values.flush()
        del values
        unfinished.replace(path)
