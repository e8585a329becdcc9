"""Readers of the official files of known sets of images; each takes ``image_size`` and ``split``."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from infoloss.data.assembly import dataset
from infoloss.data.cifar import cifar_records
from infoloss.data.columns import Categorical, categorical
from infoloss.data.dataset import Dataset
from infoloss.data.idx import idx_array
from infoloss.data.image_files import IMAGE_SIZE, decoded, resized
from infoloss.data.images import images
from infoloss.data.memory import filled
from infoloss.data.roles import Roles
from infoloss.data.trees import Tree, tree

__all__ = ["read_cifar10", "read_cifar100", "read_idx", "read_omniglot"]


def read_idx(
    path: Path, *, prefix: str, test: str, names: Sequence[str], first: int = 0, **options: Any
) -> Dataset:
    """A set in idx files; labels count from `first`."""
    files = tree(path)
    arrays = [
        idx_array(_content(files, f"{which}-{kind}-ubyte", path), place=f"{path}/{which}-{kind}-ubyte")
        for which in (prefix + "train", prefix + test)
        for kind in ("images-idx3", "labels-idx1")
    ]
    pictures = [array[:, None] for array in arrays[::2]]
    if prefix:  # EMNIST's images are stored column by column
        pictures = [each.swapaxes(2, 3) for each in pictures]
    labels = [array.astype(np.int64) - first for array in arrays[1::2]]
    return _parted(path, pictures, labels, names, **options)


def read_cifar10(path: Path, **options: Any) -> Dataset:
    """CIFAR-10 from data_batch_1.bin … and test_batch.bin."""
    files = tree(path)
    names = _content(files, "batches.meta.txt", path).decode().split()
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
    records = [_records(files, name, path, labels=1) for name in (*batches, "test_batch.bin")]
    pictures = np.concatenate([pixels for _, pixels in records[:-1]]), records[-1][1]
    labels = np.concatenate([found[:, 0] for found, _ in records[:-1]]), records[-1][0][:, 0]
    return _parted(path, pictures, labels, names, **options)


def read_cifar100(path: Path, *, coarse: bool = False, **options: Any) -> Dataset:
    """CIFAR-100 from train.bin and test.bin, with its fine or its coarse labels."""
    files = tree(path)
    names = _content(files, f"{'coarse' if coarse else 'fine'}_label_names.txt", path).decode().split()
    records = [_records(files, name, path, labels=2) for name in ("train.bin", "test.bin")]
    labels = [found[:, 0 if coarse else 1] for found, _ in records]
    return _parted(path, [pixels for _, pixels in records], labels, names, **options)


def read_omniglot(path: Path, *, image_size: int | None = None, split: str | None = None) -> Dataset:
    """One part of Omniglot, from ALPHABET/CHARACTER/*.png: a class a character."""
    files = tree(path)
    names = [name for name in files.files if name.lower().endswith(".png")]
    labels = ["/".join(name.split("/")[-3:-1]) for name in names]
    side = IMAGE_SIZE if image_size is None else image_size
    pixels, depth = decoded(files, names, size=side, place=str(path))
    inputs, notes = images(pixels)
    notes += (
        *depth,
        f"images are resized to {side} × {side} pixels",
    )
    roles = Roles(target=categorical(labels), target_name="the character", fractions=split)
    return dataset(path.name, inputs, roles, source=path.name, notes=notes)


def _records(files: Tree, name: str, path: Path, *, labels: int) -> tuple[np.ndarray, np.ndarray]:
    return cifar_records(_content(files, name, path), labels=labels, place=f"{path}/{name}")


def _content(files: Tree, name: str, path: Path) -> bytes:
    """Of the file of that name in whatever folder, plain or gzipped."""
    by_name = {each.rsplit("/", 1)[-1]: each for each in files.files}
    if name in by_name:
        return files.read(by_name[name])
    if f"{name}.gz" not in by_name:
        raise ValueError(f"{path} lacks the file {name}")
    try:
        return gzip.decompress(files.read(by_name[f"{name}.gz"]))
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: {name}.gz is damaged: {error}") from None


def _parted(
    path: Path,
    pictures: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    image_size: int | None = None,
    split: str | None = None,
) -> Dataset:
    """Training rows, then test rows; classes in their official order."""
    for which, each, known in zip(("training", "test"), pictures, labels, strict=True):
        if len(each) != len(known):
            raise ValueError(f"{path}: {len(each)} {which} images and {len(known)} labels")
    target = np.concatenate(labels).astype(np.int64)
    if target.min() < 0 or target.max() >= len(names):
        wrong = target.min() if target.min() < 0 else target.max()
        raise ValueError(f"{path}: the label {wrong} lies outside the {len(names)} classes")
    rows = [len(each) for each in pictures]
    inputs, notes = images(_joined(pictures, image_size))
    if image_size is not None:
        notes += (f"images are resized to {image_size} × {image_size} pixels",)
    roles = Roles(
        target=Categorical(target, tuple(names)),
        target_name="the label",
        parts=categorical(["train"] * rows[0] + ["test"] * rows[1]),
        fractions=split,
    )
    return dataset(path.name, inputs, roles, source=path.name, notes=notes)


def _joined(pictures: Sequence[np.ndarray], size: int | None) -> np.ndarray:
    """All images at so many pixels a side (None: their own), perhaps as a memory map."""
    sides = pictures[0].shape[2:] if size is None else (size, size)
    digest = sha256(repr(sides).encode())
    for each in pictures:
        digest.update(each.tobytes())

    def fill(values: np.ndarray) -> None:
        start = 0
        for each in pictures:
            values[start : start + len(each)] = each if size is None else resized(each, size)
            start += len(each)

    shape = (sum(map(len, pictures)), pictures[0].shape[1], *sides)
    return filled(shape, fill, key=digest.hexdigest()[:32])
