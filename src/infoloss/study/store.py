"""The store: one folder a run, which appears whole or not at all, known by what went into it.

    FOLDER/study.json                      the design
    FOLDER/runs/<id>/record.json           what was run, how it went
    FOLDER/runs/<id>/predictions.safetensors
    FOLDER/set-aside/<id>-<n>/             records that were damaged, or failed and were tried again

Anyone may read at any time; one process writes, or one for each slice of the runs, under locks of the
operating system. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infoloss.study.canonical import sha256
from infoloss.study.slices import WHOLE, Slice

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "COSTS",
    "Damage",
    "Store",
    "StoreError",
    "comparable",
    "predictions",
    "read_design",
    "read_record",
    "records",
    "replace_file",
]

COSTS = ("seconds", "step_milliseconds", "peak_memory_mib")
"""The fields of a record that a repetition of the run may change."""

_RECORD, _PREDICTIONS, _DESIGN = "record.json", "predictions.safetensors", "study.json"
_LOCK, _GATE = ".lock", ".gate"
_SECONDS_AT_THE_GATE = 60.0


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
            sound[path.name] = read_record(folder, path.name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(Damage(path.name, f"{type(error).__name__}: {error}"))
    return sound, tuple(damaged)


def read_record(folder: Path, id: str) -> dict[str, Any]:
    """One run's record.

    Raises:
        OSError: there is none.
        ValueError: it or its predictions are damaged.
    """
    path = folder / "runs" / id
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

    def __init__(self, folder: Path, part: Slice = WHOLE) -> None:
        self.folder, self.part = folder, part
        self._runs = folder / "runs"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, part: Slice = WHOLE) -> Iterator[Store]:
        """The store of a folder, made if need be, and locked for this process.

        Args:
            folder: of the study.
            part: the slice of the runs that this process does; others may do other slices meanwhile.

        Raises:
            StoreError: another process writes to it, or it cannot be written.
        """
        store = cls(folder, part)
        try:
            store._runs.mkdir(parents=True, exist_ok=True)
            with store.gate():
                _refuse_others(folder, part)
                lock = _lock(folder, part)
                lock.acquire()
                store._sweep()
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from None
        try:
            yield store
        finally:
            lock.release()

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Held for a moment by whoever opens the store or changes what all slices share."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.folder / _GATE, timeout=_SECONDS_AT_THE_GATE):
                yield
        except Timeout:
            raise StoreError(
                f"another process has kept {self.folder / _GATE} for {_SECONDS_AT_THE_GATE:g} seconds; if it "
                "hangs, end it"
            ) from None

    def _sweep(self) -> None:
        """Removes what a killed process left half-written: safe, since lock and gate are ours."""
        for left in self._runs.glob(".tmp-*"):
            if self.part.holds(left.name.removeprefix(".tmp-")):
                shutil.rmtree(left)
        for draft in self.folder.glob(f".tmp-{_DESIGN}-*"):
            draft.unlink()

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
        """Replaces ``study.json`` in one step; where others do slices, inside ``gate``."""
        text = json.dumps(design, indent=1, ensure_ascii=False, allow_nan=False)
        replace_file(self.folder / _DESIGN, text.encode())


def _lock(folder: Path, part: Slice) -> FileLock:
    from filelock import FileLock

    suffix = "" if part.whole else f"-{part.index}-of-{part.count}"
    return FileLock(folder / f"{_LOCK}{suffix}", timeout=0)


def _refuse_others(folder: Path, part: Slice) -> None:
    """Refuses to open where a living process has runs in hand that would be ours too; inside the gate."""
    from filelock import Timeout

    found = (re.fullmatch(rf"{re.escape(_LOCK)}-(\d+)-of-(\d+)", path.name) for path in folder.iterdir())
    taken = (WHOLE, *(Slice(int(name[1]), int(name[2])) for name in found if name))
    for other in filter(part.overlaps, taken):
        try:
            with _lock(folder, other):
                pass
        except Timeout:
            what = "a study in" if other.whole else f"slice {other} of the study in"
            advice = "wait for it, or choose another folder"
            if other.count != part.count and not (other.whole or part.whole):
                advice = f"slices of {part.count} and of {other.count} would overlap; split all runs alike"
            raise StoreError(f"another process is running {what} {folder}; {advice}") from None


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
