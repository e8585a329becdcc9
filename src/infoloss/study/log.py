"""Finished runs where TensorBoard and MLflow show them: written from the records, each run once.

tensorboard:DIR    DIR/<study>/<role>/<loss>/seed-<seed>-<hash>, a TensorBoard run a training run
mlflow:URI         an experiment a study, an MLflow run a training run
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from infoloss.study.archive import Archive, FolderArchive, Record, archive
from infoloss.study.canonical import sha256
from infoloss.study.design import Design
from infoloss.study.members import holds, members
from infoloss.study.store import COSTS, read_record

__all__ = ["FolderLog", "Log", "LogError", "Logged", "log", "opened"]

Parameter = str | int | float | bool


class LogError(RuntimeError):
    """The runs cannot be logged there."""


@dataclass(frozen=True)
class Logged:
    """A training run as it is logged.

    ``curve`` has the scores of each epoch by its number; ``metrics`` are those at the end: validation at the
    best epoch, test, and cost. What is not finite is left out.
    """

    study: str
    study_sha256: str
    record: Record
    parameters: Mapping[str, Parameter]
    curve: Mapping[int, Mapping[str, float]]
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, design: Design, record: Record, scores: Mapping[str, float]) -> Logged:
        """
        Args:
            design: of the study.
            record: of a run of the role "tuning" or "final".
            scores: of its test rows; empty where it saw none.
        """
        at_best = {f"best_epoch/validation_{key}": value for key, value in record["validation"].items()}
        test = {f"test/{key}": value for key, value in scores.items()}
        cost = {f"cost/{key}": record[key] for key in COSTS}
        return cls(
            study=design.name,
            study_sha256=sha256(design.fixed),
            record=record,
            parameters=_parameters(record),
            curve={
                int(entry["epoch"]): _finite({key: entry[key] for key in entry if key != "epoch"})
                for entry in record["curve"]
            },
            metrics=_finite({**at_best, **test, **cost, "best_epoch/epoch": record["best_epoch"]}),
        )

    @property
    def place(self) -> str:
        """``"final/focal/seed-3-1f2e3d4c"``; the hash tells learning rates and trials apart."""
        loss = "".join(c if c.isalnum() or c in "-_.+=()" else "-" for c in self.record["label"])
        return f"{self.record['role']}/{loss}/seed-{self.record['seed']}-{self.record['id'][:8]}"


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if value is not None and math.isfinite(value)}


def _parameters(record: Record) -> dict[str, Parameter]:
    config = record["config"]
    nested = {
        f"{section}.{key}": value
        for section in ("model", "training")
        for key, value in (config.get(section) or {}).items()
    }
    named = {"loss": record["label"], "expression": record["loss"]}
    plain = {key: record[key] for key in ("data", "role", "seed", "learning_rate", "status")}
    given = {**named, **plain, **nested}
    return {
        key: value if isinstance(value, str | int | float | bool) else str(value)
        for key, value in given.items()
        if value is not None
    }


class Log(Protocol):
    """Where runs are logged."""

    def has(self, run: Logged) -> bool: ...
    def write(self, run: Logged) -> None: ...


def opened(target: str) -> Log:
    """The log at ``tensorboard:DIR`` or ``mlflow:URI``.

    Raises:
        ValueError: another form.
        LogError: the package is not installed, or MLflow cannot be reached.
    """
    kinds: dict[str, type[TensorBoard | MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
    kind, _, place = target.partition(":")
    if kind not in kinds or not place:
        raise ValueError(f"{target!r}: expected tensorboard:DIR or mlflow:URI")
    return kinds[kind](place)


def log(study: Path | str, to: str | Log) -> int:
    """Logs the training runs of a study that are not there yet; also while the study runs.

    Args:
        study: the folder, or a packed study; of one data set or of several.
        to: "tensorboard:DIR", "mlflow:URI", or what ``opened`` gave.

    Returns:
        How many runs were written.

    Raises:
        ValueError, LogError: as ``opened``.
        StoreError: there is no study.
    """
    path, place = Path(study), opened(to) if isinstance(to, str) else to
    sources = list(members(path).archives.values()) if holds(path) else [archive(path)]
    return sum(_written(source, record, place) for source in sources for record in source.records)


class FolderLog:
    """Logs the runs of a study in a folder one by one, as they end.

    Args:
        folder: of the study.
        to: where they are logged.
    """

    def __init__(self, folder: Path, to: Log) -> None:
        self._source, self._to = FolderArchive(folder), to

    def write(self, id: str) -> None:
        """Logs a run."""
        _written(self._source, read_record(self._source.folder, id), self._to)


def _written(source: Archive, record: Record, to: Log) -> bool:
    """Whether the run was new; reference lines are no training."""
    if record["role"] == "reference" or to.has(Logged.of(source.design, record, {})):
        return False
    tested = record["role"] == "final" and record["status"] == "done"
    scores = source.scored(record).scores if tested else {}
    to.write(Logged.of(source.design, record, scores))
    return True


class TensorBoard:
    """A folder that ``tensorboard --logdir`` shows.

    Raises:
        LogError: TensorBoard is not installed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise LogError("TensorBoard is not installed: pip install 'infoloss[log]'") from error
        self._writer: Any = SummaryWriter

    def has(self, run: Logged) -> bool:
        return self._place(run).exists()

    def write(self, run: Logged) -> None:
        with tempfile.TemporaryDirectory() as draft:
            inside = Path(draft) / "run"
            with self._writer(inside) as writer:
                for epoch, scores in run.curve.items():
                    for name, value in scores.items():
                        writer.add_scalar(name, value, epoch)
                # A name of its own would make a second run of them.
                last = max(run.curve, default=0)
                writer.add_hparams(dict(run.parameters), dict(run.metrics), run_name=".", global_step=last)
            place = self._place(run)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(inside, place)

    def _place(self, run: Logged) -> Path:
        return self._folder / run.study / run.place


class MLflow:
    """A tracking server or database of MLflow.

    Raises:
        LogError: MLflow is not installed, or cannot be reached.
    """

    MOST_AT_ONCE = 500
    """Metrics in a request; servers take 1,000."""

    def __init__(self, uri: str) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise LogError("MLflow is not installed: pip install 'infoloss[log]'") from error
        self._uri = uri
        with self._told():
            self._client = MlflowClient(tracking_uri=uri)
        self._experiment, self._logged = cache(self._made), cache(self._ids)

    def has(self, run: Logged) -> bool:
        with self._told():
            return run.record["id"] in self._logged(self._experiment(run.study, run.study_sha256))

    def write(self, run: Logged) -> None:
        from mlflow.entities import Metric, Param, RunTag

        record, now = run.record, time.time_ns() // 1_000_000
        tags = {key: str(record[key]) for key in ("role", "status", "error") if record[key] is not None}
        tags |= {"infoloss.study": run.study_sha256, "infoloss.versions": str(record["versions"])}
        last = max(run.curve, default=0)
        metrics = [
            Metric(name, value, now, epoch)
            for epoch, scores in run.curve.items()
            for name, value in scores.items()
        ] + [Metric(name, value, now, last) for name, value in run.metrics.items()]
        with self._told():
            experiment = self._experiment(run.study, run.study_sha256)
            began = now - round(1000 * (record["seconds"] or 0))
            made = self._client.create_run(experiment, began, run_name=run.place).info.run_id
            parameters = [Param(key, str(value)) for key, value in run.parameters.items()]
            self._client.log_batch(made, params=parameters, tags=[RunTag(*tag) for tag in tags.items()])
            for start in range(0, len(metrics), self.MOST_AT_ONCE):
                self._client.log_batch(made, metrics[start : start + self.MOST_AT_ONCE])
            # Last: a run that was cut short has no id, and is written again.
            self._client.set_tag(made, "infoloss.id", record["id"])
            self._client.set_terminated(made, "FINISHED" if record["status"] == "done" else "FAILED", now)
            self._logged(experiment).add(record["id"])

    def _made(self, study: str, hash: str) -> str:
        """The experiment of a study, made where there is none."""
        found = self._client.get_experiment_by_name(study)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(study, tags={"infoloss.study": hash}))

    def _ids(self, experiment: str) -> set[str]:
        """The runs that are there."""
        ids: set[str] = set()
        token = None
        while True:
            page = self._client.search_runs([experiment], page_token=token)
            ids |= {run.data.tags.get("infoloss.id", "") for run in page}
            token = page.token
            if not token:
                return ids

    @contextmanager
    def _told(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise LogError(f"MLflow at {self._uri}: {error}") from error
