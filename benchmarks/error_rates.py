"""How often is a verdict wrong? Coverage and false verdicts of the candidate intervals.

    python benchmarks/error_rates.py generator   # differences with known truth (half an hour on one core)
    python benchmarks/error_rates.py studies     # trained classifiers (half an hour on one core)
    python benchmarks/error_rates.py table       # writes the tables of docs/inference.md from the results

Both parts resume: the generator after each condition, the studies after each study. The studies' test scores
are kept in --store (some 20 MB, not for git), the counts in results/error_rates/.
"""

from __future__ import annotations

import argparse
import json
import platform
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from error_rates_generator import Design, Source, drawn_evidence
from error_rates_methods import METHODS
from error_rates_table import write_tables

from infoloss.study.inference import Paired

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (3, 5, 10, 20)
SLOW = {"crossed bootstrap": 10}  # judged on every tenth study only
LEVEL = 0.95

SOURCES = {
    "accuracy, 8 % uncertain rows": (Source("accuracy", hard=0.08, taste=2.0, seeds=0.5), 0.5),
    "accuracy, 3 % uncertain rows": (Source("accuracy", hard=0.03, taste=2.0, seeds=0.5), 0.5),
    "nll, seeds matter": (Source("nll", hard=1.0, taste=1.0, seeds=0.2), 0.1),
    "nll, seeds do not matter": (Source("nll", hard=1.0, taste=1.0, seeds=0.0), 0.1),
}


@dataclass
class Count:
    """What one method did in n studies."""

    n: int = 0
    covered: int = 0  # the 95 % interval holds the true difference
    nonzero: int = 0  # the 95 % interval excludes 0
    equivalent: int = 0  # the 90 % interval lies within ± margin
    half_widths: list[float] = field(default_factory=list)

    def add(
        self, interval: tuple[float, float], inner: tuple[float, float], true: float, margin: float
    ) -> None:
        self.n += 1
        self.covered += interval[0] <= true <= interval[1]
        self.nonzero += not interval[0] <= 0.0 <= interval[1]
        self.equivalent += -margin < inner[0] and inner[1] < margin
        self.half_widths.append((interval[1] - interval[0]) / 2)

    def record(self) -> dict[str, float]:
        counts = {name: int(value) for name, value in asdict(self).items() if name != "half_widths"}
        return {**counts, "half_width": float(f"{np.median(self.half_widths):.4g}")}


def counts(evidence: Iterable[Paired], true: float, margin: float) -> dict[str, dict[str, float]]:
    """Method -> counts over the studies."""
    found = {name: Count() for name in METHODS}
    for number, study in enumerate(evidence):
        for name, method in METHODS.items():
            if number % SLOW.get(name, 1) == 0:
                found[name].add(method(study, LEVEL), method(study, 2 * LEVEL - 1), true, margin)
    return {name: count.record() for name, count in found.items()}


def generated(name: str, design: Design, at_margin: bool, repetitions: int) -> dict[str, dict[str, float]]:
    """Counts for one condition of the generator; the random stream depends on the condition's name only."""
    source, margin = SOURCES[name]
    true = margin if at_margin else 0.0
    shift = source.shift(true)
    generator = np.random.default_rng(zlib.crc32(repr((name, design, at_margin)).encode()))
    studies = (drawn_evidence(source, design, shift, generator) for _ in range(repetitions))
    return counts(studies, true, margin)


def run_generator(results: Path, repetitions: int) -> None:
    for name, design, at_margin in _conditions():
        split = "resampled" if design.resampled else "fixed"
        key = f"{name} | {design.rows} | {split} | {design.seeds} | {'margin' if at_margin else 'zero'}"
        if key not in _read(results)["rates"]:
            _store(results, key, generated(name, design, at_margin, repetitions))


def _conditions() -> Iterator[tuple[str, Design, bool]]:
    for rows in (1797, 150):
        for resampled in (True, False):
            for name in SOURCES:
                for seeds in SEEDS:
                    for at_margin in (False, True):
                        yield name, Design(rows, seeds, resampled), at_margin


def run_studies(results: Path, store: Path) -> None:
    import torch
    from error_rates_studies import CONDITIONS, evidence, run, truth

    torch.set_num_threads(1)
    for condition in CONDITIONS:
        run(condition, store)
        for loss in condition.losses:
            for metric, margin in (("accuracy", 0.5), ("nll", 0.02)):
                true, error = truth(condition, store, loss, metric)
                for seeds in SEEDS:
                    key = f"{condition.name} | {loss} | {metric} | {seeds}"
                    if key in _read(results)["rates"]:
                        continue
                    studies = evidence(condition, store, loss, metric, seeds)
                    _store(results, key, {"truth": [true, error], **counts(studies, true, margin)})


def _read(path: Path) -> dict[str, dict[str, object]]:
    if not path.exists():
        return {"environment": {}, "rates": {}}
    found: dict[str, dict[str, object]] = json.loads(path.read_text())
    return found


def _store(path: Path, key: str, rates: Mapping[str, object]) -> None:
    found = _read(path)
    found["rates"][key] = rates
    packages = ("infoloss", "numpy", "scipy", "torch", "scikit-learn")
    machine = {platform.system(): platform.machine(), "python": platform.python_version()}
    found["environment"] = {**machine, **{name: version(name) for name in packages}}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found["rates"].items())
    unfinished.write_text(
        f'{{"environment": {json.dumps(found["environment"])},\n"rates": {{\n{lines}\n}}}}\n'
    )
    unfinished.replace(path)
    print(key, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("generator", "studies", "table"))
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "error_rates")
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "error_rates")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "inference.md")
    options = parser.parse_args()
    generator, studies = options.results / "generator.json", options.results / "studies.json"
    if options.part == "generator":
        run_generator(generator, options.repetitions)
    elif options.part == "studies":
        run_studies(studies, options.store)
    else:
        write_tables(options.document, _read(generator), _read(studies))


if __name__ == "__main__":
    main()
