"""A study as one tidy table: a run a row, a variable a column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infoloss.study.archive import Archive, Record, archive
from infoloss.study.store import COSTS, replace_file

if TYPE_CHECKING:
    import polars as pl

__all__ = ["export", "run_table"]

_COPIED = ("data", "role", "label", "loss", "seed", "learning_rate", "status", "error")


def run_table(study: Path | str) -> pl.DataFrame:
    """All runs of a study: what each was, its validation scores, test scores and costs.

    Test scores are those of the report (accuracies are fractions, NLL in nats), empty for tuning runs, which
    see no test row. Metrics that were added later stand among them.

    Args:
        study: the folder, or a packed study.

    Raises:
        StoreError: there is no study.
    """
    import polars as pl

    source = archive(Path(study))
    ordered = sorted(source.records, key=lambda run: (run["role"], run["label"], run["seed"], run["id"]))
    types = {"error": pl.String, "learning_rate": pl.Float64, "best_epoch": pl.Int64}
    types |= dict.fromkeys(COSTS, pl.Float64)
    rows = [_row(source, record) for record in ordered]
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


def export(study: Path | str, path: Path | str) -> Path:
    """Writes ``run_table`` to a file, as Parquet or CSV by the ending of its name.

    Raises:
        ValueError: another ending.
        StoreError: there is no study, or the file cannot be written.
    """
    from io import BytesIO

    path, content = Path(path), BytesIO()
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{path}: expected a name that ends in .parquet or .csv")
    table = run_table(study)
    if path.suffix == ".csv":
        table.write_csv(content)
    else:
        table.write_parquet(content, compression="zstd")
    replace_file(path, content.getvalue())
    return path


def _row(source: Archive, record: Record) -> dict[str, Any]:
    tested = record["role"] != "tuning" and record["status"] == "done"
    weight_decay = (record["config"].get("training") or {}).get("weight_decay")
    return {
        **{key: record[key] for key in _COPIED},
        "weight_decay": weight_decay,
        **{f"validation_{name}": value for name, value in record["validation"].items()},
        **(source.scored(record).scores if tested else {}),
        "epochs": record["epochs"],
        "best_epoch": record["best_epoch"],
        **{key: record[key] for key in COSTS},
        "id": record["id"],
    }
