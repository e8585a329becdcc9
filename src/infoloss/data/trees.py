"""Files below a folder or in a zip archive, read alike."""

from __future__ import annotations

import os
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Protocol

__all__ = ["FolderTree", "Tree", "ZipTree", "tree"]


class Tree(Protocol):
    """Files by their path from the root, with "/"."""

    @property
    def files(self) -> dict[str, tuple[int, int]]:
        """Path → size and a number that changes with the content (time of change, or checksum)."""

    def read(self, name: str) -> bytes:
        """The content of a file."""


class FolderTree:
    """Files below a folder; links are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, inner, names in os.walk(self.root, followlinks=True):
            inner.sort()
            for name in sorted(names):
                path = Path(folder, name)
                about = path.stat()
                found[path.relative_to(self.root).as_posix()] = (about.st_size, about.st_mtime_ns)
        return found

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


class ZipTree:
    """Files in a zip archive."""

    def __init__(self, root: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(root)
        except zipfile.BadZipFile:
            raise ValueError(f"{root} is no zip archive") from None

    @cached_property
    def files(self) -> dict[str, tuple[int, int]]:
        members = [member for member in self._archive.infolist() if not member.is_dir()]
        return {m.filename: (m.file_size, m.CRC) for m in sorted(members, key=lambda m: m.filename)}

    def read(self, name: str) -> bytes:
        return self._archive.read(name)


def tree(path: Path) -> Tree:
    """The files of a folder or a zip archive.

    Raises:
        ValueError: there is neither.
    """
    if path.is_dir():
        return FolderTree(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    return ZipTree(path)
