"""The speed tables of README.md and docs/kernels.md, written from the records of the benchmarks.

    python -m benchmarks.speed_table

Reads results/kernels.json, results/linear.json, results/streaming.json and results/gpu.json, as the
benchmarks' ``--out`` wrote them, and two more of ``benchmarks.kernels``: results/kernels_large_pages.json,
with THP_MEM_ALLOC_ENABLE=1, and results/kernels_tcmalloc.json, with tcmalloc in LD_PRELOAD. A record that is
absent has no rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MEMORIES = {
    "kernels_large_pages": "large pages for PyTorch too",
    "kernels_tcmalloc": "memory that is kept and used again (tcmalloc)",
}
"""Records of the CPU kernel where memory is another, and what it is."""
RECORDS = ("kernels", *MEMORIES, "linear", "streaming", "gpu")
ON_GPU = ("cross_entropy", "log-probability, entropy")
"""What README.md says of the GPU; docs/kernels.md says all."""
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"

Line = dict[str, Any]


def read() -> dict[str, dict[str, Any]]:
    """The records that there are, by name."""
    places = {name: ROOT / "results" / f"{name}.json" for name in RECORDS}
    return {name: json.loads(place.read_text()) for name, place in places.items() if place.exists()}


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def ratio(line: Line) -> str:
    return f"{number(line['median'])} [{number(line['lower'])}, {number(line['upper'])}]"


def grouped(lines: Iterable[Line]) -> dict[tuple[str, str], list[Line]]:
    """Lines of one shape and one peer."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line["shape"], line["against"]), []).append(line)
    return found


def spread(lines: list[Line]) -> str:
    """The medians of several losses, from the lowest to the highest, and the worst upper quartile."""
    if len(lines) == 1:
        return ratio(lines[0])
    medians = [line["median"] for line in lines]
    worst = max(lines, key=lambda line: line["upper"])
    return (
        f"{number(min(medians))} to {number(max(medians))} "
        f"(highest upper quartile {number(worst['upper'])}, `{worst['work']}`)"
    )


def summary(records: dict[str, dict[str, Any]]) -> list[str]:
    """A row for each shape and peer."""
    rows = ["| work | against | time, ours / theirs |", "|---|---|---|", *kernels(records.get("kernels"))]
    for line in records.get("linear", {}).get("time", []):
        rows.append(f"| linear head, `{line['work']}` | {line['against']} | {ratio(line)} |")
    for line in records.get("linear", {}).get("memory", []):
        sizes = f"{line['ratio']:.2f} of the memory ({line['ours_mib']:.0f} / {line['peer_mib']:.0f} MiB)"
        rows.append(f"| linear head, `{line['work']}` | {line['against']} | {sizes} |")
    for line in records.get("streaming", {}).get("table", []):
        shape = "×".join(map(str, line["shape"])) if isinstance(line["shape"], list) else line["shape"]
        rows.append(f"| streaming scores, {shape} | {line['against']} | {ratio(line)} |")
    if gpu := records.get("gpu"):
        about = gpu["conditions"]
        for source in ("logits", "hidden"):
            shape = f"{about['rows']}×{about['classes']}"
            shape += f" from hidden {about['features']}" if source == "hidden" else ""
            for line in gpu[source]:
                if line["work"] in ON_GPU:
                    work = f"{about['device']}, {about['dtype']}, {shape}, {line['work']}"
                    rows.append(f"| {work} | {line['against']} | {ratio(line)}; {memory(line)} |")
    return rows


def kernels(record: dict[str, Any] | None) -> list[str]:
    """A row for each shape and peer of a record of the CPU kernel."""
    rows = []
    for (shape, against), lines in grouped(record["table"] if record else []).items():
        names = f"`{lines[0]['work']}`" if len(lines) == 1 else f"{len(lines)} kinds of losses"
        rows.append(f"| {shape}, {names} | {against} | {spread(lines)} |")
    return rows


def other_memories(records: dict[str, dict[str, Any]]) -> list[str]:
    """The same with other memory."""
    rows = []
    for name, what in MEMORIES.items():
        if name in records:
            rows += [
                "",
                f"| {what} | against | time, ours / theirs |",
                "|---|---|---|",
                *kernels(records[name]),
            ]
    return rows


def memory(line: Line) -> str:
    """Peak memory beside what must be there anyway."""
    ours, theirs = (f"{line[key] / 2**20:.0f}" for key in ("ours_bytes", "peer_bytes"))
    return f"{ours} / {theirs} MiB"


def gpu_details(record: dict[str, Any] | None) -> list[str]:
    """The bandwidth, and a row for each loss and peer, of the GPU's record."""
    if record is None:
        return []
    rows = ["", "| from logits, on the GPU | bandwidth, of a copy's | GB/s | n |", "|---|---|---|---|"]
    for line in record["bandwidth"]:
        rate = f"{line['bytes_per_second'] / 1e9:.0f}"
        rows.append(f"| {line['work']} | {ratio(line)} | {rate} | {line['n']} |")
    header = "| GPU, from | loss | against | time, ours / theirs | ms | peak memory, ours / theirs | n |"
    rows += ["", header, "|---|---|---|---|---|---|---|"]
    for source in ("logits", "hidden"):
        for line in record[source]:
            times = f"{line['ours_ms']:.2f} / {line['peer_ms']:.2f}"
            told = [source, line["work"], line["against"], ratio(line), times, memory(line), str(line["n"])]
            rows.append(f"| {' | '.join(told)} |")
    return rows


def details(records: dict[str, dict[str, Any]]) -> list[str]:
    """A row for each loss, shape and peer of the kernels' record."""
    record = records.get("kernels")
    if record is None:
        return []
    rows = ["", "| shape | loss | against | time, ours / theirs | n |", "|---|---|---|---|---|"]
    for line in record["table"]:
        rows.append(
            f"| {line['shape']} | `{line['work']}` | {line['against']} | {ratio(line)} | {line['n']} |"
        )
    shared = [
        f"`{first}` also stands for {', '.join(f'`{n}`' for n in names[1:])}"
        for first, names in record["same_work"].items()
    ]
    anew, kept = (record["first_call_s"][kind] for kind in ("compiled", "cached"))
    first = (
        f"The first call on a machine compiles: {anew[0]} s for short rows, {anew[1]} s for long ones; "
        f"the first in a process takes {kept[0]} and {kept[1]} s."
    )
    return [*rows, "", first, "", "Losses that ask for the same work share a row: " + "; ".join(shared) + "."]


def conditions(records: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    for name, record in records.items():
        about = ", ".join(f"{key} {value}" for key, value in record["conditions"].items())
        found.append(f"{name}: {about}")
    return ["", "Conditions: " + "; ".join(found) + "."] if found else []


def written(place: Path, rows: list[str]) -> None:
    """Puts rows between the marks."""
    text = place.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    place.write_text("\n".join([before + BEGIN, *rows, END + after]), encoding="utf-8")


def main() -> None:
    records = read()
    written(ROOT / "README.md", summary(records))
    rows = [*summary(records), *other_memories(records), *details(records)]
    rows += [*gpu_details(records.get("gpu")), *conditions(records)]
    written(ROOT / "docs" / "kernels.md", rows)


if __name__ == "__main__":
    main()
