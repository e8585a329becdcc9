"""Folders of tables: the data sets of one study over many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infoloss.data.columns import codes, missing
from infoloss.data.dataset import Dataset
from infoloss.data.names import counted, unknown
from infoloss.data.parts import title
from infoloss.data.sources import load
from infoloss.data.splits import PARTS
from infoloss.data.tables import SUFFIXES, read_column

__all__ = ["Collection", "Member", "collection"]


@dataclass(frozen=True)
class Member:
    """A table that can be learnt from, by what its target says."""

    name: str
    path: Path
    rows: int
    classes: int


@dataclass(frozen=True, eq=False)
class Collection:
    """Tables of a folder; `left_out` says of each of the others why."""

    folder: Path
    target: str
    members: tuple[Member, ...]
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Dataset]:
        """The data sets, each read when its turn comes."""
        return (self[member.name] for member in self.members)

    def __getitem__(self, name: str) -> Dataset:
        """The data set of a member."""
        for member in self.members:
            if member.name == name:
                return load(member.path, target=self.target)
        raise unknown("table", name, [member.name for member in self.members])


def collection(
    folder: str | Path,
    *,
    target: str = "target",
    min_rows: int = 1,
    max_rows: int | None = None,
    min_classes: int = 2,
) -> Collection:
    """The tables of a folder, as the Penn Machine Learning Benchmarks (PMLB) lay them out: NAME.tsv.gz.

    Tables in which a class has fewer rows than a split has parts are left out.

    Args:
        folder: of tables (.csv, .tsv, also .gz; .parquet).
        target: the column to predict, the same in all tables; tables without it are left out.
        min_rows, max_rows: of a table.
        min_classes: of a table.

    Raises:
        ValueError: no such folder, or no table is left in it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, rows in (("small", 4), ("large", 40)):
        ...     lines = [f"{i / 2},{'ab'[i % 2]}" for i in range(rows)]
        ...     _ = (folder / f"{name}.csv").write_text("\\n".join(["x,target", *lines]))
        >>> found = collection(folder)
        >>> [(member.name, member.rows) for member in found.members], dict(found.left_out)
        ([('large', 40)], {'small': "class 'a' has 2 rows; a split needs 3"})
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    members, left_out = [], {}
    for path in sorted(each for each in root.iterdir() if each.name.lower().endswith(SUFFIXES)):
        name = title(path)
        try:
            rows, classes = _size(path, target)
            _check(rows, classes, bounds=(min_rows, max_rows), min_classes=min_classes)
        except ValueError as error:
            left_out[name] = str(error)
        else:
            members.append(Member(name, path, rows, classes))
    if not members:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise ValueError(f"{root} holds no table to learn from{f' ({reasons})' if reasons else ''}")
    return Collection(root, target, tuple(members), left_out)


def _size(path: Path, target: str) -> tuple[int, int]:
    """Rows and classes; raises where a class is too small to be split."""
    labels = read_column(path, target)
    absent = int(missing(labels).sum())
    if absent:
        raise ValueError(f"{counted(absent, 'row')} without a label")
    found, names = codes(labels)
    sizes = np.bincount(found)
    if sizes.min() < len(PARTS):
        smallest = names[int(sizes.argmin())]
        raise ValueError(
            f"class {smallest!r} has {counted(int(sizes.min()), 'row')}; a split needs {len(PARTS)}"
        )
    return len(found), len(names)


def _check(rows: int, classes: int, *, bounds: tuple[int, int | None], min_classes: int) -> None:
    least, most = bounds
    if rows < least:
        raise ValueError(f"{counted(rows, 'row')}, fewer than {least}")
    if most is not None and rows > most:
        raise ValueError(f"{rows} rows, more than {most}")
    if classes < min_classes:
        raise ValueError(f"{counted(classes, 'class')}, fewer than {min_classes}")
