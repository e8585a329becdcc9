"""The tables of docs/inference.md, written from the stored counts."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

SEEDS = (3, 5, 10, 20)
BEGIN, END = "<!-- error rates: begin -->", "<!-- error rates: end -->"
METHODS = (
    "crossed",
    "crossed, Satterthwaite",
    "seeds t",
    "examples t",
    "resampled t",
    "crossed bootstrap",
)
DEFAULT = METHODS[0]

Stored = dict[str, dict[str, Any]]


def write_tables(document: Path, generator: Stored, studies: Stored) -> None:
    """Replace what stands between the markers."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    tables = "\n\n".join(_tables(generator, studies))
    document.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def _tables(generator: Stored, studies: Stored) -> list[str]:
    parts = []
    if generator["rates"]:
        parts += [_methods(generator), _coverage(generator), _equivalence(generator)]
    if studies["rates"]:
        parts += [_studies(studies, same=True), _studies(studies, same=False)]
    environment = studies["environment"] or generator["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in environment.items())
    return [
        *parts,
        f"Written by `python benchmarks/error_rates.py table` from `results/error_rates/`; {versions}.",
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(count: float, n: float) -> str:
    return f"{100 * count / n:.1f}"


def _error(share: float, n: float) -> float:
    """The Monte-Carlo standard error of a share, in points."""
    return 100 * float((share * (1 - share) / n) ** 0.5)


def _methods(generator: Stored) -> str:
    """Lowest, mean and highest coverage over the conditions, and in how many it misses 93–97 %."""
    shares: dict[tuple[str, int], list[float]] = defaultdict(list)
    sizes: dict[str, set[int]] = defaultdict(set)
    for key, rates in generator["rates"].items():
        seeds = int(key.split(" | ")[3])
        for method in METHODS:
            shares[method, seeds].append(100 * rates[method]["covered"] / rates[method]["n"])
            sizes[method].add(rates[method]["n"])
    rows = []
    for method in METHODS:
        cells = []
        for seeds in SEEDS:
            found = shares[method, seeds]
            cells.append(
                f"{min(found):.1f} / {sum(found) / len(found):.1f} / {max(found):.1f}" if found else ""
            )
        every = [share for seeds in SEEDS for share in shares[method, seeds]]
        misses = [sum(share < 93 for share in every), sum(share > 97 for share in every)]
        name = f"**{method}**" if method == DEFAULT else method
        rows.append([name, *cells, *(f"{missed} of {len(every)}" for missed in misses)])
    n, slow = min(sizes[DEFAULT]), min(sizes["crossed bootstrap"])
    conditions = len(generator["rates"]) // len(SEEDS)
    caption = (
        f"**Generator: coverage of the 95 % interval, lowest / mean / highest over the conditions** "
        f"({conditions} conditions, {n} studies each, {slow} for the bootstrap; Monte-Carlo standard error "
        f"{_error(0.95, n):.1f} points, {_error(0.95, slow):.1f} for the bootstrap):"
    )
    return (
        caption
        + "\n\n"
        + _table(["method", *(f"{seeds} seeds" for seeds in SEEDS), "below 93", "above 97"], rows)
    )


def _coverage(generator: Stored) -> str:
    caption = (
        "**Generator: coverage of the default by condition**, true difference 0 / at the margin "
        "(100 − the first number is the rate of false better/worse before Holm):"
    )
    return caption + "\n\n" + _by_condition(generator, ("zero", "margin"), "covered")


def _equivalence(generator: Stored) -> str:
    caption = (
        "**Generator: false *equivalent* of the default**, in % of studies whose true difference is "
        "exactly the margin (.5 points, .1 nats; at most 5 wanted):"
    )
    return caption + "\n\n" + _by_condition(generator, ("margin",), "equivalent")


def _by_condition(generator: Stored, truths: tuple[str, ...], what: str) -> str:
    found: dict[tuple[str, ...], dict[tuple[str, str], str]] = defaultdict(dict)
    for key, rates in generator["rates"].items():
        name, size, split, seeds, truth = key.split(" | ")
        found[name, size, split][seeds, truth] = _percent(rates[DEFAULT][what], rates[DEFAULT]["n"])
    rows = [
        [*names, *(" / ".join(shares.get((str(seeds), truth), "") for truth in truths) for seeds in SEEDS)]
        for names, shares in found.items()
    ]
    return _table(["source", "rows", "test sets", *(f"{seeds} seeds" for seeds in SEEDS)], rows)


def _studies(studies: Stored, *, same: bool) -> str:
    """A/A studies (same) or studies with a true difference: coverage by method."""
    rows, sizes = [], set()
    for key, rates in studies["rates"].items():
        name, loss, metric, seeds = key.split(" | ")
        if (loss == "cross_entropy") != same:
            continue
        sizes.add(rates[DEFAULT]["n"])
        shown = [name.replace("-", ", "), metric, seeds, str(rates[DEFAULT]["n"])]
        if not same:
            true, error = rates["truth"]
            shown[1:1] = [loss]
            shown.insert(3, f"{true:.3f} ± {error:.3f}")
        what = "nonzero" if same else "covered"
        rows.append([*shown, *(_percent(rates[m][what], rates[m]["n"]) for m in METHODS)])
    if not rows:
        return ""
    n = min(sizes)
    if same:
        caption = (
            "**A/A studies: false better/worse in %** (cross entropy against itself with other initial "
            "weights and batches; before Holm; at most 5 wanted, Monte-Carlo standard error "
            f"{_error(0.05, n):.1f} points or less):"
        )
        return caption + "\n\n" + _table(["data", "metric", "seeds", "studies", *METHODS], rows)
    caption = (
        "**Trained on a population that is known: coverage of the 95 % interval in %** (true difference in "
        f"points or nats, ± its error; Monte-Carlo standard error up to {_error(0.95, n):.1f} points):"
    )
    return caption + "\n\n" + _table(["data", "loss", "metric", "true", "seeds", "studies", *METHODS], rows)
