"""Three studies of six losses, by this library's own engine: small tables, images, texts.

    python -m benchmarks.studies --dry-run    # runs and time
    python -m benchmarks.studies              # runs what is missing, packs it, writes the tables of the docs
    python -m benchmarks.studies --table      # the tables from the packed records alone
    python -m benchmarks.studies fashion      # one of them

The data lie below INFOLOSS_DATA: Fashion-MNIST as torchvision keeps it, the Penn Machine Learning Benchmarks
as pmlb/NAME.tsv.gz, Banking77 as text/banking77/train.csv and test.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.studies_table import write_tables
from benchmarks.training import processor
from infoloss.cli.forecasts import forecast_text
from infoloss.cli.progress import duration, shown
from infoloss.data import collection
from infoloss.data.downloads import data_folder
from infoloss.study.collection import datasets, member_design, member_folder, run_collection
from infoloss.study.compare import run
from infoloss.study.forecast import forecast
from infoloss.study.pack import pack
from infoloss.study.plan import Plan

ROOT = Path(__file__).resolve().parent.parent

LOSSES = (
    "cross_entropy",
    "cross_entropy(label_smoothing=0.1)",
    "squentropy",
    "rescaled_square",
    "min_ent",
    "focal",
)

MOST_ROWS, LEAST_CLASSES = 3200, 3
REPEATS = {
    "car_evaluation": "car",
    "cleveland_nominal": "cleveland",
    "contraceptive": "cmc",
    "dna": "splice",
    "prnn_fglass": "glass",
}
"""Tables that hold the same cases, with the same labels, as another one, which is kept."""


def tables(folder: Path) -> tuple[dict[str, str], ...]:
    """Every table of these sizes that can be split, each source once, the smallest first."""
    found = collection(folder / "pmlb", max_rows=MOST_ROWS, min_classes=LEAST_CLASSES)
    return tuple(
        {"source": str(member.path), "target": found.target}
        for member in sorted(found.members, key=lambda member: member.rows)
        if member.name not in REPEATS
    )


def tables_plan(folder: Path) -> Plan:
    return Plan.of(
        collection=tables(folder),
        losses=LOSSES,
        seeds=10,
        model={"name": "mlp", "hidden": [128]},
        training={"epochs": 100},
    )


def fashion_plan(folder: Path) -> Plan:
    return Plan.of(
        data={"source": "fashion_mnist", "split": "0.9/0.1", "train_rows": 10_000},
        losses=LOSSES,
        seeds=10,
        model={"name": "convnet", "widths": [16, 32]},
        training={"epochs": 10},
        tuning={"seeds": 1},
    )


def banking_plan(folder: Path) -> Plan:
    texts = folder / "text" / "banking77"
    return Plan.of(
        data={"source": str(texts / "train.csv"), "test": str(texts / "test.csv"), "text": "tokens"},
        losses=LOSSES,
        seeds=20,
        model="embedding_bag",
        training={"epochs": 20},
    )


STUDIES = {"tables": tables_plan, "fashion": fashion_plan, "banking77": banking_plan}
"""Names of the studies, and the plan of each for the folder of the data."""


def dry_run(name: str, plan: Plan, folder: Path, workers: int) -> None:
    """Says what would be run, and how long it takes."""
    seconds = 0.0
    for dataset in datasets(plan):
        place = folder / name / (member_folder(dataset.name) if plan.collection else "")
        found = forecast(member_design(plan, dataset), dataset, place, workers=workers)
        seconds += found.seconds
        print(f"{forecast_text(found)}\n", flush=True)
    print(f"{name}: about {duration(seconds)}", flush=True)


def carry_out(name: str, plan: Plan, folder: Path, workers: int) -> bool:
    """Runs what is missing; whether the study is complete then."""
    options: dict[str, Any] = {"workers": workers, "command": f"python -m benchmarks.studies {name}"}
    with shown() as progress:
        if plan.collection:
            return run_collection(plan, datasets(plan), folder / name, progress, **options).complete
        return run(plan, None, folder / name, progress, **options).complete


def keep(name: str, folder: Path, results: Path) -> None:
    """Packs a study, and notes the processor and the commit beside it."""
    results.mkdir(parents=True, exist_ok=True)
    pack(folder / name, results / f"{name}.parquet")
    described = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    about = {"processor": processor(), "commit": commit}
    (results / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)} [default: all]")
    parser.add_argument("--folder", type=Path, default=Path("infoloss-studies"), help="of the runs")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "results" / "studies", help="of packed studies"
    )
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "studies.md")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--dry-run", action="store_true", help="runs and time; train nothing")
    parser.add_argument("--table", action="store_true", help="write the tables only")
    options = parser.parse_args()
    names = options.studies or list(STUDIES)
    if unknown := set(names) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    for name in names if not options.table else ():
        plan = STUDIES[name](data_folder())
        if options.dry_run:
            dry_run(name, plan, options.folder, options.jobs)
        elif carry_out(name, plan, options.folder, options.jobs):
            keep(name, options.folder, options.results)
    if not options.dry_run:
        write_tables(options.document, names, options.results)


if __name__ == "__main__":
    main()
