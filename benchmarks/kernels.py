"""The CPU kernel against ``F.cross_entropy``: forward and backward, ratios of medians in one table.

    python -m benchmarks.kernels [--threads 2] [--pairs 15] [--processes 3] [--small] [--out FILE.json]

Every pair times ours and the peer one after the other, A B A B, so that what else the machine does hits
both; each fresh process gives one ratio of medians per row, and quartiles over its pairs. A ratio below
1 is faster than the peer. The peers: ``F.cross_entropy``; the usual eager code of MIN-ENT and
squentropy; a plain copy of the logits, the floor of anything that reads and writes them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il

SHAPES = [(65536, 10), (65536, 100), (16384, 1000), (4096, 32000), (2048, 128256)]
SMALL = [(64, 10), (32, 100)]
LOSSES = {
    "cross_entropy": "cross_entropy",
    "min_ent": "min_ent",
    "squentropy": "squentropy",
    "focal": "focal",
    "brier": "brier",
    "balanced_softmax": "balanced_softmax",
    "pc_softmax": "pc_softmax",
    "logit_norm": "logit_norm",
    "cross_entropy + z_loss": "cross_entropy + z_loss",
    "cross_entropy + max_suppression": "cross_entropy + max_suppression",
}
Shapes = list[tuple[int, int]]
Work = Callable[[int, int], list[tuple[str, str, Callable[[], None], Callable[[], None]]]]
"""(what, against what, ours, the peer) for one shape."""


def usual_min_ent(z: Tensor, y: Tensor) -> Tensor:
    log_q = F.log_softmax(z, 1)
    return 1.1933 * F.nll_loss(log_q, y) - 0.1298 * (log_q.exp() * log_q).sum(1).mean()


def usual_squentropy(z: Tensor, y: Tensor) -> Tensor:
    others = z.square().sum(1) - z.gather(1, y[:, None]).squeeze(1).square()
    return F.cross_entropy(z, y) + (others / (z.shape[1] - 1)).mean()


def step(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        z.grad = None
        loss(z, y).backward()

    return run


def copy(z: Tensor) -> Callable[[], None]:
    source, goal = z.detach(), torch.empty_like(z)

    def run() -> None:
        goal.copy_(source)

    return run


def work(rows: int, classes: int) -> list[tuple[str, str, Callable[[], None], Callable[[], None]]]:
    z = torch.randn(rows, classes).requires_grad_()
    y = torch.randint(0, classes, (rows,))
    prior = torch.softmax(torch.randn(classes, dtype=torch.float64), 0)
    peer = step(F.cross_entropy, z, y)
    ours = {}
    for name, text in LOSSES.items():
        term = il.parse(text)
        ours[name] = step(term.bind(**dict.fromkeys(term.unbound, prior)), z, y)
    rows_of_table = [(name, "F.cross_entropy", run, peer) for name, run in ours.items()]
    rows_of_table += [
        ("min_ent", "its usual code", ours["min_ent"], step(usual_min_ent, z, y)),
        ("squentropy", "its usual code", ours["squentropy"], step(usual_squentropy, z, y)),
        ("squentropy", "a copy of the logits", ours["squentropy"], copy(z)),
    ]
    return rows_of_table


def paired(ours: Callable[[], None], peer: Callable[[], None], pairs: int) -> list[float]:
    """Ratios ours/peer of pairs timed one after the other."""
    ours()
    peer()
    ratios = []
    for _ in range(pairs):
        start = time.perf_counter()
        ours()
        between = time.perf_counter()
        peer()
        ratios.append((between - start) / (time.perf_counter() - between))
    return ratios


def measured(work: Work, shapes: Shapes, pairs: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    found = []
    for rows, classes in shapes:
        for what, against, ours, peer in work(rows, classes):
            ratios = paired(ours, peer, pairs)
            found.append({"shape": [rows, classes], "work": what, "against": against, "ratios": ratios})
    return found


def conditions(threads: int) -> dict[str, Any]:
    import numba

    return {
        "torch": torch.__version__,
        "numba": numba.__version__,
        "infoloss": il.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": threads,
        "dtype": "float32",
    }


def table(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Median and quartiles over all pairs of all processes, a row for each kind of work."""
    lines = []
    for same in zip(*runs, strict=True):
        ratios = np.concatenate([one["ratios"] for one in same])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        line = {key: same[0][key] for key in ("shape", "work", "against")}
        lines.append(line | {"lower": low, "median": middle, "upper": high, "n": len(ratios)})
    return lines


def main(name: str, about: str, work: Work, *, shapes: Shapes, small: Shapes) -> None:
    """The command ``python -m benchmarks.NAME``."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny shapes: does it run?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_process:
        torch.set_num_threads(options.threads)
        json.dump(measured(work, small if options.small else shapes, options.pairs), sys.stdout)
        return
    command = [sys.executable, "-m", f"benchmarks.{name}", "--one-process"]
    command += ["--threads", str(options.threads), "--pairs", str(options.pairs)]
    command += ["--small"] * options.small
    runs = [json.loads(subprocess.check_output(command)) for _ in range(options.processes)]
    lines = table(runs)
    print(
        "ratio of times, ours / peer: median [quartiles]; n pairs; " + json.dumps(conditions(options.threads))
    )
    for line in lines:
        shape = "×".join(map(str, line["shape"]))
        print(
            f"{shape:>12}  {line['work']:<32} {line['against']:<22} "
            f"{line['median']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]  n = {line['n']}"
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"conditions": conditions(options.threads), "table": lines}, indent=1)
        )


if __name__ == "__main__":
    main("kernels", __doc__, work, shapes=SHAPES, small=SMALL)
