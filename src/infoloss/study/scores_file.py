"""A table of scores from elsewhere: one row a run, with its loss, its seed and its metrics."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BOUNDED", "KNOWN", "Run", "ScoresFile", "read_scores"]

BOUNDED = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "ece", "ece_scaled")
"""Metrics between 0 and 1, which are also written in percent."""

KNOWN = (*BOUNDED, "nll", "brier", "nll_scaled", "brier_scaled")
"""Metrics whose direction is known."""

_NO_METRIC = ("temperature", "ece_noise_floor")
"""Columns of infoloss's own scores.csv that say nothing of a loss being better."""


@dataclass(frozen=True)
class Run:
    """A row: bounded metrics as fractions, and nan where the cell is empty."""

    line: int
    dataset: str
    loss: str
    seed: int
    scores: dict[str, float]


@dataclass(frozen=True)
class ScoresFile:
    """The rows of a file, and what was assumed to read them."""

    path: Path
    sha256: str
    metrics: tuple[str, ...]
    runs: tuple[Run, ...]
    notes: tuple[str, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """In the order of their first rows; ("",) where the file names none."""
        return tuple(dict.fromkeys(run.dataset for run in self.runs))


def read_scores(path: Path | str, *, metric: str | None = None) -> ScoresFile:
    """Reads and checks a file of scores.

    Args:
        path: a table with comma, semicolon or tab between its columns: "loss", "seed", metrics and perhaps
            "dataset".
        metric: a column to read beside those of ``KNOWN``.

    Raises:
        ValueError: names line, column and value of what cannot be used, and what was expected.
        OSError: the file cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8: {error}") from None
    heads, rows = _cells(path, text)
    metrics, notes = _metrics(path, heads, metric)
    runs = tuple(_run(path, line, dict(zip(heads, row, strict=True)), metrics) for line, row in rows)
    _refuse_repeats(path, runs)
    notes += [
        f"line {run.line}: no {name} for {run.loss}, seed {run.seed}"
        for run in runs
        for name, value in run.scores.items()
        if math.isnan(value)
    ]
    runs, units = _fractions(path, runs)
    return ScoresFile(path, hashlib.sha256(content).hexdigest(), metrics, runs, (*units, *notes))


def _cells(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and the rows with their line numbers."""
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    if not rows:
        raise ValueError(f"{path} is empty; expected columns loss, seed and metrics")
    heads = [name.lower().replace(" ", "_").replace("-", "_") for name in rows[0][1]]
    for name in heads:
        if heads.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} stands there {heads.count(name)} times")
    for line, row in rows[1:]:
        if len(row) != len(heads):
            raise ValueError(f"{path}, line {line}: {len(row)} cells, but the header has {len(heads)}")
    if len(rows) == 1:
        raise ValueError(f"{path} holds a header and no run")
    return heads, rows[1:]


def _metrics(path: Path, heads: Sequence[str], asked: str | None) -> tuple[tuple[str, ...], list[str]]:
    from infoloss.data.names import unknown

    for required in ("loss", "seed"):
        if required not in heads:
            raise ValueError(f"{path}: {unknown('column', required, heads)}")
    others = [name for name in heads if name not in ("loss", "seed", "dataset", *_NO_METRIC)]
    if asked is not None and asked not in others:
        raise ValueError(f"{path}: {unknown('metric', asked, others)}")
    metrics = tuple(name for name in others if name in KNOWN or name == asked)
    unread = [name for name in others if name not in metrics]
    if not metrics:
        raise ValueError(
            f"{path}: none of its columns ({', '.join(others) or 'no others'}) is a known metric "
            f"({', '.join(KNOWN)}); name yours: --metric NAME --higher-is-better, or --lower-is-better"
        )
    return metrics, [f"columns left out: {', '.join(unread)}"] if unread else []


def _run(path: Path, line: int, row: dict[str, str], metrics: Sequence[str]) -> Run:
    place = f"{path}, line {line}"
    if not row["loss"]:
        raise ValueError(f"{place}: loss: the cell is empty; expected the name of a loss")
    try:
        seed = int(row["seed"])
    except ValueError:
        what = f"{row['seed']!r} is not a whole number" if row["seed"] else "the cell is empty"
        raise ValueError(f"{place}: seed: {what}; runs are paired by their seeds") from None
    if "dataset" in row and not row["dataset"]:
        raise ValueError(f"{place}: dataset: the cell is empty")
    scores = {name: _number(f"{place}: {name}", row[name]) for name in metrics}
    return Run(line, row.get("dataset", ""), row["loss"], seed, scores)


def _number(place: str, cell: str) -> float:
    if not cell:
        return math.nan
    percent = cell.endswith("%")
    try:
        return float(cell.removesuffix("%")) / (100.0 if percent else 1.0)
    except ValueError:
        raise ValueError(f"{place}: {cell!r} is not a number") from None


def _refuse_repeats(path: Path, runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, str, int], int] = {}
    for run in runs:
        key = run.dataset, run.loss, run.seed
        if key in seen:
            where = f" on {run.dataset}" if run.dataset else ""
            raise ValueError(
                f"{path}, lines {seen[key]} and {run.line}: {run.loss}, seed {run.seed}{where}, twice"
            )
        seen[key] = run.line


def _fractions(path: Path, runs: Sequence[Run]) -> tuple[tuple[Run, ...], list[str]]:
    """Bounded metrics as fractions, and what was assumed of their unit."""
    notes, percent = [], set()
    for name in (name for name in runs[0].scores if name in BOUNDED):
        values = {run.line: run.scores[name] for run in runs if not math.isnan(run.scores[name])}
        if not values:
            continue
        low, high = min(values, key=lambda line: values[line]), max(values, key=lambda line: values[line])
        if values[low] < 0 or values[high] > 100:
            wrong = low if values[low] < 0 else high
            raise ValueError(
                f"{path}, line {wrong}: {name}: {values[wrong]:g} is neither a fraction nor a percentage"
            )
        unit = "percent" if values[high] > 1 else "fractions"
        notes.append(f"{name}: {values[low]:g} to {values[high]:g}, taken as {unit}")
        if unit == "percent":
            percent.add(name)
            notes += list(_suspicious(name, values, low))
    return tuple(_scaled(run, percent) for run in runs), notes


def _suspicious(name: str, values: dict[int, float], low: int) -> Iterator[str]:
    few = sum(value <= 1 for value in values.values())
    if few:
        yield (
            f"{name}: {few} of {len(values)} values are at most 1 (line {low}: {values[low]:g}); "
            "if these are fractions, the file mixes units and the verdicts are wrong"
        )


def _scaled(run: Run, percent: set[str]) -> Run:
    scores = {name: value / 100 if name in percent else value for name, value in run.scores.items()}
    return Run(run.line, run.dataset, run.loss, run.seed, scores)
