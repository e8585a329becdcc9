"""``infoloss log``, and ``--log`` of ``infoloss compare``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infoloss.cli.complaints import InputError, reading

if TYPE_CHECKING:
    from infoloss.study.log import FolderLog, Log
    from infoloss.study.session import Progress, Report

__all__ = ["log", "logging"]


def log(study: Path, target: str, /) -> None:
    """Log the training runs of a study to TensorBoard or MLflow; those that are there already are left alone.

    Args:
        study: The folder, or a packed study; also while the study runs.
        target: tensorboard:DIR, or mlflow:URI, as in mlflow:sqlite:///mlflow.db.
    """
    from infoloss.data.names import counted
    from infoloss.study.log import log as logged
    from infoloss.study.members import holds

    if not study.is_file() and not holds(study) and not (study / "study.json").is_file():
        raise InputError(f"{study} holds no study: there is no study.json")
    with reading():
        count = logged(study, target)
    print(f"{target}: {counted(count, 'new run')}")


@contextmanager
def logging(show: Report, folder: Path, target: str | None, *, rest: bool = True) -> Iterator[Report]:
    """Progress that also logs every run as it ends, and in the end what else is in the folder.

    Args:
        show: told first.
        folder: of the study, of one data set or of several.
        target: where runs are logged; nowhere if None.
        rest: whether to log in the end what earlier sittings did.

    Raises:
        InputError: no such kind of target.
        LogError: it cannot be reached.
    """
    if target is None:
        yield show
        return
    from infoloss.study.log import opened

    with reading():
        to = opened(target)
    told = _Logging(show, folder, to)
    yield told
    if rest:
        told.rest()


class _Logging:
    """Where a run cannot be logged, that is said once, and the study goes on."""

    def __init__(self, show: Report, folder: Path, to: Log) -> None:
        self._show, self._folder, self._to = show, folder, to
        self._logs: dict[str, FolderLog] = {}
        self._fails = False

    def __call__(self, progress: Progress) -> None:
        self._show(progress)
        if progress.run is not None:
            id = progress.run.id
            self._try(lambda: self._log(progress.data).write(id))

    def rest(self) -> None:
        """Logs what else is in the folder."""
        from infoloss.study.log import log as logged

        self._try(lambda: logged(self._folder, self._to))

    def _try(self, write: Callable[[], object]) -> None:
        if self._fails:
            return
        try:
            write()
        except Exception as error:  # whatever befalls the log, the study goes on
            self._fails = True
            again = f"infoloss log {self._folder} … makes up for it"
            print(f"infoloss: runs are not logged any more: {error}; {again}", file=sys.stderr)

    def _log(self, data: str) -> FolderLog:
        from infoloss.study.collection import member_folder
        from infoloss.study.log import FolderLog

        if data not in self._logs:
            place = self._folder / member_folder(data) if data else self._folder
            self._logs[data] = FolderLog(place, self._to)
        return self._logs[data]
