"""What is kept of a study, wherever it is kept: in a store's folder, or packed into one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from infoloss.study.added_metrics import AddedMetric, read_metrics
from infoloss.study.design import Design
from infoloss.study.scored import Scored, predicted, scored
from infoloss.study.store import Damage, StoreError, predictions, read_design, records

__all__ = ["Archive", "FolderArchive", "Record", "archive"]

Record = Mapping[str, Any]


class Archive(Protocol):
    """A study's design and records, the scored predictions of its finished runs, and metrics added later."""

    @property
    def design(self) -> Design: ...
    @property
    def records(self) -> tuple[Record, ...]: ...
    @property
    def damaged(self) -> tuple[Damage, ...]: ...
    @property
    def metrics(self) -> tuple[AddedMetric, ...]: ...
    def scored(self, record: Record) -> Scored: ...


class FolderArchive:
    """The archive that a store's folder is.

    Raises:
        StoreError: the folder holds no study.
    """

    def __init__(self, folder: Path) -> None:
        written = read_design(folder)
        if written is None:
            raise StoreError(f"{folder} holds no study: there is no study.json")
        found, self.damaged = records(folder)
        self.folder, self.design, self.records = folder, Design.from_json(written), tuple(found.values())
        self.metrics = read_metrics(folder)

    def scored(self, record: Record) -> Scored:
        """The scores of a finished run, those of added metrics among them."""
        arrays = predictions(self.folder, record["id"])
        found = scored(predicted(arrays, record["loss"], record["bindings"] or {}))
        added = {
            metric.name: metric.values[record["id"]]
            for metric in self.metrics
            if record["id"] in metric.values
        }
        return replace(found, scores={**found.scores, **added})


def archive(path: Path) -> Archive:
    """The archive at a path: a folder, or a packed study.

    Raises:
        StoreError: there is none, or several data sets are packed into the file.
    """
    if path.is_file():
        from infoloss.study.pack import packed

        first, *others = packed(path)
        if first.member is not None:
            raise StoreError(f"{path} holds a study over {len(others) + 1} data sets; expected one data set")
        return first
    return FolderArchive(path)
