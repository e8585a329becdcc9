"""Tables in files: text (comma, semicolon or tab separated, plain or gzipped) and Parquet."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infoloss.data.columns import Categorical, Column, column, joined

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MISSING", "SUFFIXES", "Table", "read_column", "read_table"]

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "#N/A")
"""Fields that are read as missing."""

_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length by name, and notes on how they were read."""

    columns: Mapping[str, Column]
    notes: tuple[str, ...] = ()


def read_table(path: str | Path, *, test: str | Path | None = None) -> tuple[Table, int]:
    """A table with a header line, and its number of rows; those of `test` follow, if given.

    Of a text file, a column whose fields are all numbers (or missing) holds numbers, one of ISO dates holds
    seconds since 1970, any other holds categories. Fields in `MISSING` are missing. Columns of a Parquet file
    are what they are; one of lists of numbers (embeddings) gives a column for each place.

    Raises:
        ValueError: the file is missing, empty, ragged or repeats a column name; a column of the first file
            is not in the test file.
    """
    if _is_parquet(path) or (test is not None and _is_parquet(test)):
        return _typed_table(Path(path), test if test is None else Path(test))
    frame, notes = _fields(Path(path))
    rows = frame.height
    if test is not None:
        frame, said = _joined(frame, Path(test), Path(path))
        notes += said
    table = _table(frame)
    return Table(table.columns, notes + table.notes), rows


def read_column(path: str | Path, name: str) -> Column:
    """One column of a table.

    Raises:
        ValueError: as `read_table`, or no such column.
    """
    path = Path(path)
    if _is_parquet(path):
        columns = _of_one_file(path).columns
    else:
        frame, _ = _fields(path)
        columns = _table(frame.select(column for column in frame.columns if column == name)).columns
    if name not in columns:
        raise ValueError(f"no column {name!r}")
    return columns[name]


def _table(frame: pl.DataFrame) -> Table:
    """Of text fields."""
    columns = {}
    notes: tuple[str, ...] = ()
    for series in frame.get_columns():
        columns[series.name], said = _column(series)
        notes += said
    return Table(columns, notes)


def _is_parquet(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".parquet"


def _typed_table(path: Path, test: Path | None) -> tuple[Table, int]:
    """A table at least one file of which is Parquet: types are found file by file."""
    table = _of_one_file(path)
    rows = len(next(iter(table.columns.values())))
    if test is None:
        return table, rows
    other = _of_one_file(test)
    notes = table.notes + other.notes + _compared(list(table.columns), list(other.columns), test, path)
    columns = {name: joined(values, other.columns[name], name) for name, values in table.columns.items()}
    return Table(columns, notes), rows


def _of_one_file(path: Path) -> Table:
    if not _is_parquet(path):
        frame, notes = _fields(path)
        table = _table(frame)
        return Table(table.columns, notes + table.notes)
    pl = _polars()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"{path} is no Parquet file: {error}") from None
    if not (frame.height and frame.width):
        raise ValueError(f"{path} is empty; expected columns and rows")
    frame = frame.with_columns(pl.selectors.decimal().cast(pl.Float64))
    columns: dict[str, Column] = {}
    for series in frame.get_columns():
        columns |= _typed_columns(series)
    return Table(columns)


def _typed_columns(series: pl.Series) -> dict[str, Column]:
    """The column; one for each place of a column of lists (embeddings)."""
    name = series.name
    if not series.dtype.is_nested():
        return {name: column(series.to_numpy(), name)}
    wide = f"column {name!r} has type {series.dtype}; expected numbers, text, dates or lists of one length"
    try:
        lists = np.array(series.to_list(), np.float64)
    except (TypeError, ValueError):
        raise ValueError(wide) from None
    if lists.ndim != 2:
        raise ValueError(wide)
    return {f"{name}[{place}]": values for place, values in enumerate(lists.T)}


def _fields(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """All fields as text."""
    pl = _polars()
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    separator, notes = _separator(path)
    frame, said = _read(path, separator)
    notes += said
    # Blank lines, and the one at the end.
    frame = frame.filter(~pl.all_horizontal(pl.all().fill_null("").str.strip_chars() == ""))
    if not frame.height:
        raise ValueError(f"{path} is empty; expected a header line and rows")
    header = [(field or "").strip().removeprefix("\ufeff") for field in frame.row(0)]
    header = [name or f"column {position + 1}" for position, name in enumerate(header)]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise ValueError(f"{path} has more than one column {min(twice)!r}; expected distinct names")
    frame = frame[1:]
    frame.columns = header
    if not frame.height:
        raise ValueError(f"{path} has a header line but no rows")
    if separator == ";":
        frame, said = _with_decimal_points(frame)
        notes += said
    return frame, notes


def _read(path: Path, separator: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """All lines, the header too, and what was found of their encoding."""
    pl = _polars()
    options: dict[str, Any] = {"has_header": False, "infer_schema": False, "separator": separator}
    content = _of_utf16(path)
    notes = () if content is None else (f"{path.name} is UTF-16",)
    try:
        try:
            return pl.read_csv(path if content is None else content, **options), notes
        except pl.exceptions.ComputeError as error:
            if "utf-8" not in str(error).lower():
                raise
            said = f"{path.name} is not UTF-8; read as Latin-1"
            return pl.read_csv(path, encoding="latin-1", **options), (said,)
    except pl.exceptions.NoDataError:
        raise ValueError(f"{path} is empty; expected a header line and rows") from None
    except pl.exceptions.ComputeError as error:
        raise ValueError(f"{path} is no table: {_ragged(path, separator) or error}") from None


def _of_utf16(path: Path) -> bytes | None:
    """The text as UTF-8 where a byte order mark says UTF-16, as spreadsheets write it; else None."""
    with path.open("rb") as file:
        if file.read(2) not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return None
    try:
        return path.read_bytes().decode("utf-16").encode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no table: it begins as UTF-16, but {error}") from None


def _with_decimal_points(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Where semicolons separate, commas may stand in numbers: columns of such numbers get points."""
    import polars as pl

    found = []
    for series in frame.get_columns():
        text = series.str.strip_chars()
        text = text.set(text.is_in(list(MISSING)), None)
        points = text.str.replace(",", ".", literal=True)
        all_numbers = points.cast(pl.Float64, strict=False).null_count() == text.null_count()
        if all_numbers and text.str.contains(",", literal=True).any():
            found.append(points)
    names = ", ".join(series.name for series in found)
    return frame.with_columns(found), (f"decimal commas in: {names}",) if found else ()


def _polars() -> Any:
    try:
        import polars
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading tables needs polars: pip install 'infoloss[study]'") from None
    return polars


def _separator(path: Path) -> tuple[str, tuple[str, ...]]:
    import gzip

    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        line = file.readline().decode("latin-1")
    usual = "\t" if ".tsv" in path.name.lower() else ","
    counts = {mark: line.count(mark) for mark in (usual, ",", ";", "\t")}
    if counts[usual]:
        return usual, ()
    best = max(counts, key=lambda mark: counts[mark])
    if not counts[best]:
        return usual, ()
    return best, (f"{path.name} is separated by {best!r}",)


def _ragged(path: Path, separator: str) -> str:
    """Where a line has another number of fields than the header; empty if nowhere."""
    import csv
    import gzip

    # any encoding will do to count fields
    with (
        gzip.open(path, "rt", encoding="latin-1")
        if path.suffix == ".gz"
        else path.open(encoding="latin-1") as file
    ):
        lines = csv.reader(file, delimiter=separator)
        expected = len(next(lines))
        for fields in lines:
            if fields and len(fields) != expected:
                return f"line {lines.line_num} has {len(fields)} fields, the header {expected}"
    return ""


def _joined(frame: pl.DataFrame, test: Path, first: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    import polars as pl

    other, notes = _fields(test)
    notes += _compared(frame.columns, other.columns, test, first)
    return pl.concat([frame, other.select(frame.columns)]), notes


def _compared(names: list[str], others: list[str], test: Path, first: Path) -> tuple[str, ...]:
    """Notes on columns that are not used; raises where the test table lacks one."""
    absent = [name for name in names if name not in others]
    if absent:
        raise ValueError(f"{test} lacks column {absent[0]!r} of {first}; it has {', '.join(others[:20])}")
    extra = [name for name in others if name not in names]
    if not extra:
        return ()
    return (f"columns of {test.name} that {first.name} lacks are not used: {', '.join(extra[:8])}",)


def _column(series: pl.Series) -> tuple[Column, tuple[str, ...]]:
    import polars as pl

    name = series.name
    text = series.str.strip_chars()
    text = text.set(text.is_in(list(MISSING)), None)
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() == text.null_count():
        return np.array(numbers.fill_null(float("nan")).to_numpy(), np.float64), ()
    for style in _DATES:
        dates = text.str.to_datetime(style, strict=False)
        if dates.null_count() == text.null_count():
            seconds = dates.dt.epoch("s").cast(pl.Float64).fill_null(float("nan"))
            return np.array(seconds.to_numpy()), (f"column {name!r} holds dates, read as seconds since 1970",)
    categories = text.drop_nulls().unique().sort()
    found = text.cast(pl.Enum(categories)).to_physical().cast(pl.Int64).fill_null(-1)
    return Categorical(np.array(found.to_numpy()), tuple(categories.to_list())), ()
