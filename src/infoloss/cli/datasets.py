"""``infoloss data``: the known data sets, and what a data set is once it has been read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infoloss.cli.complaints import reading
from infoloss.cli.options import DataOptions, holds_tables, plan
from infoloss.cli.results import print_table

if TYPE_CHECKING:
    from infoloss.data import Collection, Dataset

__all__ = ["data"]

CLASSES_SHOWN = 12


def data(source: str | None = None, /, *, table: DataOptions | None = None) -> None:
    """List the known data sets, or describe one, or your own: what a study would learn from.

    Known sets are looked for below INFOLOSS_DATA, and downloaded to it where they are absent.

    Args:
        source: a known set, a table, arrays, a folder or .zip of images, texts; or a folder of tables.
    """
    from infoloss.data import collection

    if source is None:
        _list()
        return
    with reading():
        if holds_tables(Path(source)):
            _describe_collection(collection(source, target=(table and table.target) or "target"))
        else:
            _describe(plan((source,), table).data.dataset())


def _list() -> None:
    from infoloss.data import known_sets
    from infoloss.data.downloads import data_folder

    rows = [[each.name, each.source, each.place or "is downloaded when asked for"] for each in known_sets()]
    print_table(["name", "source (terms)", "where"], rows)
    print(f"\nThey are looked for and kept in {data_folder()}; INFOLOSS_DATA names another folder.")
    print("More: infoloss data NAME. Your own: infoloss data PATH")


def _describe(found: Dataset) -> None:
    import numpy as np

    split = found.split(0)
    counts = np.bincount(found.target)
    sizes = [f"{name} ({count})" for name, count in zip(found.classes, counts, strict=True)]
    more = f" and {len(sizes) - CLASSES_SHOWN} more" if len(sizes) > CLASSES_SHOWN else ""
    parts = f"{len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test rows"
    facts = {
        "name": found.name,
        "source": found.source,
        "rows": f"{len(found.target)}; with seed 0 {parts}",
        "test rows": "drawn anew for every seed" if found.resampled else "given",
        "a row": " × ".join(map(str, found.input_shape)) + (" token ids" if found.vocabulary else " numbers"),
        "classes": f"{len(sizes)}: {', '.join(sizes[:CLASSES_SHOWN])}{more}",
        "sha256": found.sha256,
    }
    for name, fact in facts.items():
        print(f"{name:<10} {fact}")
    for note in (*found.notes, *found.split_notes(split)):
        print(f"- {note}")


def _describe_collection(found: Collection) -> None:
    rows = [[member.name, str(member.rows), str(member.classes)] for member in found.members]
    print_table(["table", "rows", "classes"], rows)
    print(f"\n{len(found)} tables")
    for name, why in found.left_out.items():
        print(f"- left out: {name}: {why}")
