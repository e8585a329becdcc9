"""Metrics that a user adds to a finished study: computed from the stored predictions, always exploratory.

FOLDER/metrics/<name>.json     where the metric is from, and its value for each run
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infoloss.evaluation import METRICS
from infoloss.study.store import StoreError, replace_file

if TYPE_CHECKING:
    from infoloss.study.archive import FolderArchive

__all__ = ["AddedMetric", "Function", "add_metric", "read_metrics"]

Function = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]

_FOLDER = "metrics"


@dataclass(frozen=True)
class AddedMetric:
    """A metric that was chosen after the test rows had been read: its source, and its value by run."""

    name: str
    source: str
    sha256: str
    values: Mapping[str, float]

    @property
    def note(self) -> str:
        return (
            f"{self.name} was added after the test rows had been read, from {self.source}: exploratory, "
            "part of no verdict"
        )


def add_metric(archive: FolderArchive, name: str, function: Function, *, source: str) -> AddedMetric:
    """Scores every finished run of a study with a function, and keeps the values beside the records.

    Args:
        archive: of the study's folder.
        name: of the metric; letters, digits and underscores.
        function: of log-probabilities (n, C), labels (n,) and decisions (n,), as the run's loss means them;
            returns a number.
        source: where the function is from, for the report.

    Returns:
        The metric; an earlier one of this name is replaced.

    Raises:
        ValueError: a name that is taken or cannot be a file's, or a value that is not a number.
    """
    from infoloss.study.fingerprint import fingerprint
    from infoloss.study.scored import predicted
    from infoloss.study.store import predictions

    if name in METRICS or not re.fullmatch(r"\w+", name):
        why = "is a metric of infoloss" if name in METRICS else "is no name of letters, digits, underscores"
        raise ValueError(f"{name!r} {why}; choose another name for the metric")
    values = {}
    for record in archive.records:
        if record["role"] == "tuning" or record["status"] != "done":
            continue
        run = predicted(predictions(archive.folder, record["id"]), record["loss"], record["bindings"] or {})
        value = function(run.log_probabilities, run.target, run.decision)
        values[record["id"]] = _number(name, value, f"{record['label']}, seed {record['seed']}")
    found = AddedMetric(name, source, fingerprint(function).sha256, values)
    _write(archive.folder, found)
    return found


def _number(name: str, value: Any, run: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} of {run} is {value!r}; expected a number")
    return number


def _write(folder: Path, metric: AddedMetric) -> None:
    # JSON has no infinities: repr and float carry them.
    written = {**asdict(metric), "values": {id: repr(value) for id, value in metric.values.items()}}
    (folder / _FOLDER).mkdir(exist_ok=True)
    replace_file(folder / _FOLDER / f"{metric.name}.json", json.dumps(written, indent=1).encode())


def read_metrics(folder: Path) -> tuple[AddedMetric, ...]:
    """The metrics that were added to the study in a folder.

    Raises:
        StoreError: a file that is damaged.
    """
    found = []
    for path in sorted((folder / _FOLDER).glob("*.json")):
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            values = {id: float(value) for id, value in written.pop("values").items()}
            found.append(AddedMetric(**written, values=values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged ({error}); remove it and score again") from None
    return tuple(found)
