"""``infoloss score``, ``export`` and ``pack``: what the stored predictions of a study can still tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infoloss.cli.complaints import InputError, reading

if TYPE_CHECKING:
    from infoloss.study.design import Arm
    from infoloss.study.findings import Findings

__all__ = ["export", "pack", "score"]


def score(folder: Path, /, *, metric: str, name: str | None = None) -> None:
    """Score the stored predictions of a study with a metric of your own; nothing is trained.

    The test rows have been read already, so that the metric is exploratory: it is shown, in reports too, and
    decides nothing.

    Args:
        folder: Of the study.
        metric: "module:function", called with log-probabilities (n, C), labels (n,) and decisions (n,) of a
            run, as its loss means them; returns a number. The module may lie in the current directory.
        name: Of the metric [default: the function's].
    """
    from infoloss.cli.conformance import located
    from infoloss.cli.results import print_lines, print_table
    from infoloss.study.added_metrics import add_metric
    from infoloss.study.archive import FolderArchive
    from infoloss.study.findings import Findings

    _refuse_no_study(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a packed study, which has no logits; give the folder of the study")
    if ":" not in metric:
        raise InputError(f"--metric: {metric!r}: expected module:function")
    function = located(metric)
    name = name or str(getattr(function, "__name__", "metric"))
    try:
        add_metric(FolderArchive(folder), name, function, source=metric)
    except ValueError as error:
        raise InputError(str(error)) from error
    findings = Findings(FolderArchive(folder))
    heads = ["loss", "n", f"{name}\nmean ± sd", "difference from\nthe baseline", "95 % interval"]
    print_table(heads, [_row(findings, arm, name) for arm in findings.design.arms])
    print_lines(
        f"\nExploratory: {name} was added after the test rows had been read. The intervals are of paired "
        f"differences, not adjusted for their number, and no verdict. infoloss report {folder} shows it too.",
        sys.stdout,
    )


def _row(findings: Findings, arm: Arm, name: str) -> list[str]:
    import numpy as np

    from infoloss.study.inference import estimate

    runs = findings.scored[arm].values()
    values = np.array([run.scores[name] for run in runs if name in run.scores])
    mean = f"{values.mean():.4g}" if len(values) else "no run"
    spread = f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
    evidence = None if arm == findings.design.baseline else findings.paired_scores(arm, name)
    if evidence is None:
        return [arm.label, str(len(values)), mean + spread, "", ""]
    found = estimate(evidence)
    low, high = found.interval(0.95)
    interval = f"{low:+.3g} to {high:+.3g}"
    return [arm.label, str(len(values)), mean + spread, f"{found.difference:+.3g}", interval]


def export(study: Path, table: Path, /) -> None:
    """Write all runs of a study as one tidy table: a run a row; scores, settings and costs its columns.

    Args:
        study: The folder, or a packed study.
        table: The file, .parquet or .csv.
    """
    from infoloss.study.export import export as exported

    _refuse_no_study(study)
    with reading():
        path = exported(study, table)
    print(path)


def pack(study: Path, file: Path, /) -> None:
    """Pack a study into one small Parquet file, which infoloss report takes for the folder.

    Args:
        study: The folder; of several data sets, the folder of the whole.
        file: The file, .parquet.
    """
    from infoloss.study.members import holds
    from infoloss.study.pack import pack as packed

    if not holds(study):
        _refuse_no_study(study)
    if file.suffix != ".parquet":
        raise InputError(f"{file}: expected a name that ends in .parquet")
    path = packed(study, file)
    print(f"{path}: {path.stat().st_size / 1024:,.0f} KiB; infoloss report {path} gives the report")


def _refuse_no_study(path: Path) -> None:
    if not path.is_file() and not (path / "study.json").is_file():
        raise InputError(f"{path} holds no study: there is no study.json")
