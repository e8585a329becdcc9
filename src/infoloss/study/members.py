"""The data sets of a study over several: which there are, and the archive of each, in a folder or packed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoloss.study.archive import Archive, FolderArchive
from infoloss.study.store import StoreError, read_design, replace_file

__all__ = ["Members", "holds", "members", "read_register", "write_register"]

_FILE = "collection.json"


@dataclass(frozen=True, eq=False)
class Members:
    """The archives of the data sets by name, the folder of each in the whole, and the whole's command."""

    archives: Mapping[str, Archive]
    folders: Mapping[str, str]
    command: str


def holds(path: Path) -> bool:
    """Whether there is a study over several data sets: a folder, or a packed one."""
    if path.is_file():
        from infoloss.study.pack import packed

        return packed(path)[0].member is not None
    return (path / _FILE).is_file()


def members(path: Path) -> Members:
    """What is kept of a study over several data sets; those that were not begun are left out.

    Raises:
        StoreError: there is none.
    """
    if path.is_file():
        return _packed(path)
    written = read_register(path)
    if not written["folders"]:
        raise StoreError(f"{path} holds no study over several data sets: there is no {_FILE}")
    begun = {name: place for name, place in written["folders"].items() if read_design(path / place)}
    archives = {name: FolderArchive(path / place) for name, place in begun.items()}
    return Members(archives, begun, written["command"])


def _packed(path: Path) -> Members:
    from infoloss.study.pack import packed

    found = {each.member["name"]: each for each in packed(path) if each.member is not None}
    if not found:
        raise StoreError(f"{path} holds no study over several data sets, but of one")
    places = {name: each.member["folder"] for name, each in found.items() if each.member is not None}
    command = next(each.member["command"] for each in found.values() if each.member is not None)
    return Members(found, places, command)


def read_register(root: Path) -> dict[str, Any]:
    """The folders of the data sets by name, and the command; empty where there is no study.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((root / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"folders": {}, "command": ""}
    except ValueError as error:
        raise StoreError(
            f"{root / _FILE} is damaged ({error}); remove it and run the command again"
        ) from None
    return found


def write_register(root: Path, written: Mapping[str, Any]) -> None:
    """Replaces the register of the folder, which is made where it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    replace_file(root / _FILE, json.dumps(written, indent=1, ensure_ascii=False).encode())
