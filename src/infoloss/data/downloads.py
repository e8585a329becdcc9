"""Files of known data sets: found where the user keeps data, or downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoloss.data.memory import cache_folder

__all__ = ["Download", "data_folder", "downloaded"]


@dataclass(frozen=True)
class Download:
    """A file: its name, its md5 as its publisher states it, and where it can be had."""

    name: str
    md5: str
    mirrors: tuple[str, ...]


def data_folder() -> Path:
    """Where data sets are looked for and kept: `INFOLOSS_DATA`, else a folder in the cache folder."""
    given = os.environ.get("INFOLOSS_DATA")
    return Path(given).expanduser() if given else cache_folder() / "data"


def downloaded(files: Sequence[Download], folder: Path) -> None:
    """Fetches what the folder lacks, each file from the first mirror that has it; .tar.gz are unpacked there.

    A file appears once it is whole and its md5 is right.

    Raises:
        OSError: no mirror gives the file; it says where the file may be put by hand.
    """
    try:
        import pooch
    except ModuleNotFoundError:
        raise ModuleNotFoundError("downloading data needs pooch: pip install 'infoloss[study]'") from None

    pooch.get_logger().setLevel("WARNING")
    for file in files:
        _fetched(pooch, file, folder)


def _fetched(pooch: Any, file: Download, folder: Path) -> None:
    from requests import RequestException

    failures = []
    for mirror in file.mirrors:
        bar = _Bar(file.name)
        try:
            pooch.retrieve(
                mirror,
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=30),
                processor=pooch.Untar(extract_dir=".") if file.name.endswith(".tar.gz") else None,
            )
        except (RequestException, ValueError, OSError) as error:
            failures.append(f"{mirror}: {error}")
        else:
            return
        finally:
            bar.close()
    raise OSError(
        f"{file.name} could not be downloaded; put it into {folder} by hand. Tried:\n  "
        + "\n  ".join(failures)
    )


class _Bar:
    """A progress bar on standard error, as pooch drives one."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self.total = 0
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(f"downloading {name}", total=None)

    def update(self, amount: int) -> None:
        if not self._progress.live.is_started:
            self._progress.start()
        self._progress.update(self._task, advance=amount, total=self.total or None)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()
