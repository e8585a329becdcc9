"""A whole study in one small Parquet file, from which the same verdicts follow: what goes into git.

One row a run: its record as JSON, and of runs that were tested the scores and, for each test row, label,
decision, confidence and NLL, before and after temperature scaling. Logits and trained weights stay behind,
and so do the last digits of learning curves. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infoloss.study.added_metrics import AddedMetric
from infoloss.study.archive import Archive, Record, archive
from infoloss.study.design import Design
from infoloss.study.members import holds, members
from infoloss.study.scored import Scored
from infoloss.study.store import Damage, StoreError, replace_file

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FORMAT", "PackedArchive", "pack", "packed"]

FORMAT = 2
"""Raised by hand when a column changes its meaning."""
DIGITS = 4
"""Of a number in a learning curve."""


def pack(study: Path | str, path: Path | str) -> Path:
    """Packs a study into a Parquet file; ``analyse`` and ``infoloss report`` take it for the folder.

    Args:
        study: the folder, or a packed study; of one data set or of several.
        path: of the file.

    Returns:
        The path.

    Raises:
        StoreError: there is no study, it has no run, or the file cannot be written.
    """
    from io import BytesIO

    import polars as pl

    source, path = Path(study), Path(path)
    rows = list(_rows_of_all(source) if holds(source) else _rows(archive(source), str(study)))
    frame = pl.DataFrame(rows, schema=_schema(rows), orient="row")
    content = BytesIO()
    frame.write_parquet(content, compression="zstd", compression_level=19)
    replace_file(path, content.getvalue())
    return path


def _rows_of_all(study: Path) -> Iterator[dict[str, Any]]:
    """Those of each data set; what it is called, and where its report goes, stand with its design."""
    found = members(study)
    for name, source in found.archives.items():
        member = {"name": name, "folder": found.folders[name], "command": found.command}
        yield from _rows(source, f"{study}: {name}", {"member": member})


def _rows(source: Archive, what: str, others: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    if not source.records:
        raise StoreError(f"{what} has no run yet: there is nothing to pack")
    metrics = [asdict(metric) for metric in source.metrics]
    study = {"format": FORMAT, "design": source.design.to_json(), "metrics": metrics, **(others or {})}
    text = json.dumps(study)
    # Runs of a seed share their test rows: side by side they compress best.
    for record in sorted(source.records, key=lambda each: (each["role"], each["seed"], each["id"])):
        yield {**_row(source, record), "study": text}


def _row(source: Archive, record: Record) -> dict[str, Any]:
    curve = [{name: _short(value) for name, value in entry.items()} for entry in record["curve"]]
    told = {
        "record": json.dumps({**record, "curve": curve}, ensure_ascii=False, allow_nan=False),
        "role": record["role"],
        "loss": record["label"],
        "seed": record["seed"],
        "status": record["status"],
    }
    if record["role"] == "tuning" or record["status"] != "done":
        return told
    run = source.scored(record)
    told |= {"scores": run.scores, "classes": run.classes, "validation_rows": run.validation_rows}
    # Reference lines are never in a verdict: their scores are all that a report shows.
    return told if record["role"] == "reference" else told | _per_example(run)


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def _per_example(run: Scored) -> dict[str, np.ndarray | None]:
    return {
        "test_rows": run.rows,
        "target": run.target,
        "decision": run.decision,
        "correct": run.decision == run.target,
        "likeliest_correct": run.likeliest,
        "confidence": run.confidence,
        "confidence_scaled": run.confidence_scaled,
        "nll": run.nll,
        "nll_scaled": run.nll_scaled,
    }


def _schema(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """NLLs are kept as they are judged, in float32, so that verdicts are the same to the last digit."""
    import polars as pl

    scores = dict.fromkeys(name for row in rows for name in row.get("scores", ()))
    return {
        "record": pl.String,
        "role": pl.String,
        "loss": pl.String,
        "seed": pl.Int64,
        "status": pl.String,
        "scores": pl.Struct(dict.fromkeys(scores, pl.Float64)),
        "classes": pl.Int64,
        "validation_rows": pl.Int64,
        "test_rows": pl.List(pl.Int64),
        "target": pl.List(pl.UInt32),
        "decision": pl.List(pl.UInt32),
        "correct": pl.List(pl.Boolean),
        "likeliest_correct": pl.List(pl.Boolean),
        "confidence": pl.List(pl.Float32),
        "confidence_scaled": pl.List(pl.Float32),
        "nll": pl.List(pl.Float32),
        "nll_scaled": pl.List(pl.Float32),
        "study": pl.String,
    }


def packed(path: Path) -> tuple[PackedArchive, ...]:
    """The archives in a file: one, or one for each data set.

    Raises:
        StoreError: the file is no packed study, or one of another format.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(path)
        found = tuple(map(PackedArchive, frame.partition_by("study", maintain_order=True)))
        if not found:
            raise ValueError("it has no row")
    except (pl.exceptions.PolarsError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no packed study: {error}") from None
    return found


class PackedArchive:
    """The archive that the rows of a packed study are.

    ``member`` has the name and the folder of a data set of several, and the command of the whole.
    """

    damaged: tuple[Damage, ...] = ()

    def __init__(self, frame: pl.DataFrame) -> None:
        study = json.loads(frame["study"][0])
        if study["format"] != FORMAT:
            raise ValueError(f"its format is {study['format']}, and this infoloss reads {FORMAT}")
        self.design = Design.from_json(study["design"])
        self.metrics = tuple(AddedMetric(**metric) for metric in study["metrics"])
        self.member: dict[str, str] | None = study.get("member")
        self.records: tuple[Record, ...] = tuple(map(json.loads, frame["record"]))
        self._places = {record["id"]: place for place, record in enumerate(self.records)}
        self._frame = frame

    def scored(self, record: Record) -> Scored:
        """The scores of a finished run; one of a reference line has no rows."""
        place = self._places[record["id"]]

        def array(column: str) -> np.ndarray:
            kept = self._frame[column][place]
            return np.empty(0) if kept is None else kept.to_numpy()

        scores = self._frame["scores"][place]
        return Scored(
            scores={name: value for name, value in scores.items() if value is not None},
            classes=self._frame["classes"][place],
            validation_rows=self._frame["validation_rows"][place],
            rows=None if self._frame["test_rows"][place] is None else array("test_rows"),
            target=array("target"),
            decision=array("decision"),
            nll=array("nll").astype(np.float64),
            nll_scaled=array("nll_scaled").astype(np.float64),
            confidence=array("confidence"),
            confidence_scaled=array("confidence_scaled"),
            likeliest=array("likeliest_correct"),
        )
