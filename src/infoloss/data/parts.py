"""Parts of a split that the data come with: how files, folders and columns call them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from infoloss.data.splits import PARTS

__all__ = ["part", "title", "used"]

_NAMES = {
    "train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2, "testing": 2,
}  # fmt: skip


def part(name: str) -> str | None:
    """The part that a name means, or None.

    Example:
        >>> part("Val"), part("cats")
        ('validation', None)
    """
    number = _NAMES.get(name.strip().lower())
    return None if number is None else PARTS[number]


def used(found: Collection[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What each part that was found serves as, and a note where it serves as another.

    Without test rows, the validation rows are the test rows, as is usual with ImageNet: validation rows are
    then drawn from the training rows.

    Raises:
        ValueError: no training rows, or nothing beside them.

    Example:
        >>> used({"train", "validation"})[0]
        {'train': 'train', 'validation': 'test'}
    """
    if "train" not in found or len(found) < 2:
        there = ", ".join(name for name in PARTS if name in found)
        raise ValueError(f"the parts are {there or 'none'}; expected train and test, perhaps validation")
    if "test" in found:
        return {name: name for name in PARTS if name in found}, ()
    said = "there are no test rows: the given validation rows test, others are drawn from the training rows"
    return {"train": "train", "validation": "test"}, (said,)


def title(path: Path) -> str:
    """What the data of a file are called: by its name, or by its folder where the name only tells the part.

    Example:
        >>> title(Path("wine.tsv.gz")), title(Path("banking77/train.csv"))
        ('wine', 'banking77')
    """
    name = Path(path.name.removesuffix(".gz")).stem
    return path.resolve().parent.name or name if part(name) else name
