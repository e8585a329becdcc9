"""The store: one folder a run, which appears whole or not at all, known by what went into it.

    FOLDER/study.json                      the design
    FOLDER/runs/<id>/record.json           what was run, how it went
    FOLDER/runs/<id>/predictions.safetensors
    FOLDER/set-aside/<id>-<n>/             records that were damaged, or failed and were tried again

Anyone may read at any time; one process writes, under a lock of the operating system. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infoloss.study.canonical import sha256

__all__ = [
    "COSTS",
    "Damage",
    "Store",
    "StoreError",
    "comparable",
    "predictions",
    "read_design",
    "records",
    "replace_file",
]

COSTS = ("seconds", "step_milliseconds", "peak_memory_mib")
"""The fields of a record that a repetition of the run may change."""

_RECORD, _PREDICTIONS, _DESIGN, _LOCK = "record.json", "predictions.safetensors", "study.json", ".lock"


class StoreError(RuntimeError):
    """The folder cannot be used as asked."""


@dataclass(frozen=True)
class Damage:
    """A run's folder that cannot be trusted, and why."""

    id: str
    reason: str


def records(folder: Path) -> tuple[dict[str, dict[str, Any]], tuple[Damage, ...]]:
    """All sound records by id, and what is damaged; predictions are checked against their hash.

    Reading is safe while a study runs.
    """
    sound, damaged = {}, []
    for path in sorted((folder / "runs").glob("[0-9a-f]*")):
        try:
            sound[path.name] = _verified(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(Damage(path.name, f"{type(error).__name__}: {error}"))
    return sound, tuple(damaged)


def _verified(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((path / _RECORD).read_text(encoding="utf-8"))
    body = {key: value for key, value in record.items() if key != "checksum"}
    if sha256(body) != record["checksum"]:
        raise ValueError("record.json does not match its checksum")
    if not record["id"] == path.name == sha256(record["config"])[: len(path.name)]:
        raise ValueError("the folder's name is not the hash of the record's configuration")
    expected = record["predictions_sha256"]
    if expected is not None and sha256((path / _PREDICTIONS).read_bytes()) != expected:
        raise ValueError("predictions.safetensors does not match its hash")
    return record


def comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without what may differ between two identical runs."""
    dropped = (*COSTS, "checksum")
    return {key: value for key, value in record.items() if key not in dropped}


def predictions(folder: Path, id: str) -> dict[str, np.ndarray]:
    """Arrays of a run: validation_logits, validation_target; of a final run also test_…."""
    from safetensors.numpy import load

    return dict(load((folder / "runs" / id / _PREDICTIONS).read_bytes()))


def read_design(folder: Path) -> dict[str, Any] | None:
    """What ``study.json`` holds; None where there is none.

    Raises:
        StoreError: the file is not JSON.
    """
    path = folder / _DESIGN
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged ({error}); remove it and run the study's command again"
        ) from None
    return found


class Store:
    """The writing side of a folder; only inside ``with Store.opened(folder)``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Store.opened(Path(folder)) as store:
        ...     store.write({"id": sha256({"seed": 1})[:32], "config": {"seed": 1}}, None)
        ...     len(records(Path(folder))[0])
        1
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._runs = folder / "runs"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Store]:
        """The store of a folder, made if need be, and locked for this process.

        Raises:
            StoreError: another process writes to it, or it cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / _LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"another process is running a study in {folder}; wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from None
        try:
            store = cls(folder)
            store._sweep()
            yield store
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Removes what a killed process left half-written: safe, since the lock is ours."""
        for left in self._runs.glob(".tmp-*"):
            shutil.rmtree(left)

    def write(self, record: Mapping[str, Any], arrays: bytes | None) -> None:
        """Adds a run: its record, and its predictions as safetensors bytes (None where it has none)."""
        body = {**record, "predictions_sha256": None if arrays is None else sha256(arrays)}
        body["checksum"] = sha256(body)
        text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)
        draft = self._runs / f".tmp-{record['id']}"
        with _writing(self.folder):
            draft.mkdir()
            if arrays is not None:
                _write(draft / _PREDICTIONS, arrays)
            _write(draft / _RECORD, text.encode())
            _sync(draft)
            os.replace(draft, self._runs / record["id"])
            _sync(self._runs)

    def set_aside(self, id: str) -> Path:
        """Moves a run out of the way, so that it is run again; nothing is deleted."""
        aside = self.folder / "set-aside"
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.glob(f"{id}-*"))
        os.replace(self._runs / id, aside / f"{id}-{number}")
        return aside / f"{id}-{number}"

    def write_design(self, design: Mapping[str, Any]) -> None:
        """Replaces ``study.json`` in one step."""
        text = json.dumps(design, indent=1, ensure_ascii=False, allow_nan=False)
        replace_file(self.folder / _DESIGN, text.encode())


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file in one step: a reader sees the old content or the new, never a part.

    Raises:
        StoreError: it cannot be written.
    """
    draft = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    with _writing(path.parent):
        try:
            _write(draft, content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes renames in a folder durable, where the system can open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
