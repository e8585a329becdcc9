"""What do looks cost? Error rates and seeds of studies that add seeds until they are decided.

    python benchmarks/sequential.py            # counts (some minutes on one core), and the table of them
    python benchmarks/sequential.py --table    # the table of docs/inference.md from the stored counts

Studies are drawn as by error_rates_generator, with the most seeds, and judged on their first ones at each
look. The counts are in results/sequential.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from error_rates import SOURCES
from error_rates_generator import Design, drawn_evidence

from infoloss.study.inference import Cell, Paired, Verdict, alpha_at, judge, schedule

ROOT = Path(__file__).resolve().parent.parent
LOOKS = schedule(5, 40)
ALPHA = 0.05
BEGIN, END = "<!-- looks: begin -->", "<!-- looks: end -->"
TRUTHS = {"none": 0.0, "margin": 1.0, "twice the margin": 2.0}

Rule = Callable[[int], float | None]
RULES: dict[str, Rule] = {
    "looks, error rate spent": lambda seeds: alpha_at(LOOKS, seeds),
    "looks at 5 % each": lambda seeds: ALPHA,
    "one look at the end": lambda seeds: ALPHA if seeds == LOOKS[-1] else None,
}
"""The error rate at a number of seeds; None where the study is not judged there."""


@dataclass(frozen=True)
class Condition:
    """A source of differences, how test rows are drawn, and the true difference in margins."""

    source: str
    resampled: bool
    truth: str

    @property
    def key(self) -> str:
        return f"{self.source} | {'resampled' if self.resampled else 'fixed'} | {self.truth}"


def conditions() -> Iterator[Condition]:
    for source in SOURCES:
        for resampled in (True, False):
            for truth in TRUTHS:
                yield Condition(source, resampled, truth)


def first_seeds(evidence: Paired, seeds: int) -> Paired:
    """The study as it stood after so many seeds."""
    assert evidence.examples is not None
    assert evidence.contributions is not None
    return replace(
        evidence,
        differences=evidence.differences[:seeds],
        examples=evidence.examples[:seeds],
        contributions=evidence.contributions[:seeds],
    )


def stopped(evidence: Paired, margin: float, metric: str, rule: Rule) -> tuple[Verdict, int]:
    """The verdict with which the study ends, and its seeds."""
    for seeds in LOOKS:
        alpha = rule(seeds)
        if alpha is None:
            continue
        cell = Cell("question", metric, "loss", first_seeds(evidence, seeds), margin, higher_is_better=True)
        [verdict] = judge([cell], alpha=alpha)
        if verdict.outcome != "undecided" or seeds == LOOKS[-1]:
            return verdict, seeds
    raise AssertionError("the last look ends every study")


def measured(condition: Condition, repetitions: int) -> dict[str, dict[str, float]]:
    """Counts of outcomes and the mean number of seeds, by rule."""
    source, margin = SOURCES[condition.source]
    shift = source.shift(TRUTHS[condition.truth] * margin)
    generator = np.random.default_rng(zlib.crc32(condition.key.encode()))
    design = Design(1797, LOOKS[-1], condition.resampled)
    found: dict[str, dict[str, float]] = {
        name: dict.fromkeys(("n", "better", "worse", "equivalent", "undecided", "seeds"), 0) for name in RULES
    }
    for _ in range(repetitions):
        evidence = drawn_evidence(source, design, shift, generator)
        for name, rule in RULES.items():
            verdict, seeds = stopped(evidence, margin, source.metric, rule)
            found[name]["n"] += 1
            found[name][verdict.outcome] += 1
            found[name]["seeds"] += seeds
    return found


def run(path: Path, repetitions: int) -> None:
    """Measures what is missing; each condition is stored when it is done."""
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rates": {}}
    for condition in conditions():
        if condition.key in stored["rates"]:
            continue
        stored["rates"][condition.key] = measured(condition, repetitions)
        stored["environment"] = {
            platform.system(): platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("infoloss", "numpy", "scipy")},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored, indent=1) + "\n")
        print(condition.key, flush=True)


def table(stored: dict[str, Any]) -> str:
    """One line a rule and condition: error rates without a difference and at the margin, power, seeds."""
    heads = ["source", "test sets", "rule", "false better or worse, %", "false equivalent, %"]
    heads += ["found, %", "seeds, no difference", "seeds, difference"]
    lines = [heads, ["---"] * len(heads)]
    for source in SOURCES:
        for split in ("resampled", "fixed"):
            none, margin, twice = (stored["rates"][f"{source} | {split} | {truth}"] for truth in TRUTHS)
            for rule in RULES:
                lines.append(
                    [
                        source,
                        split,
                        f"**{rule}**" if rule == next(iter(RULES)) else rule,
                        _percent(none[rule]["better"] + none[rule]["worse"], none[rule]["n"]),
                        _percent(margin[rule]["equivalent"], margin[rule]["n"]),
                        _percent(twice[rule]["better"], twice[rule]["n"]),
                        f"{none[rule]['seeds'] / none[rule]['n']:.0f}",
                        f"{twice[rule]['seeds'] / twice[rule]['n']:.0f}",
                    ]
                )
    n = int(min(rates["n"] for each in stored["rates"].values() for rates in each.values()))
    versions = ", ".join(f"{name} {number}" for name, number in stored["environment"].items())
    words = (
        f"Studies of 1797 rows judged at {', '.join(map(str, LOOKS))} seeds, {n} of each kind (Monte-Carlo "
        f"standard error {100 * (0.05 * 0.95 / n) ** 0.5:.1f} points at 5 %). *False equivalent*: the true "
        "difference is the margin. *Found*: judged better where it is twice the margin."
    )
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{words}\n\n{rows}\n\nWritten by `python benchmarks/sequential.py`; {versions}."


def _percent(count: float, n: float) -> str:
    return f"{100 * count / n:.1f}"


def write_table(document: Path, stored: dict[str, Any]) -> None:
    """Replaces what stands between the markers."""
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n\n{table(stored)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "sequential.json")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "inference.md")
    parser.add_argument("--table", action="store_true", help="write the table only")
    options = parser.parse_args()
    if not options.table:
        run(options.results, options.repetitions)
    write_table(options.document, json.loads(options.results.read_text()))


if __name__ == "__main__":
    main()
