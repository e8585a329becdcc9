"""The sizes at which the CPU kernel changes its ways: what its constants were set by.

    python -m benchmarks.thresholds [--rounds 15] [--out FILE.json]

Ratios of times of one way over another, forward and backward, median [quartiles], in one process. Below 1 the
first way is faster: its side of the constant should be where that is so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import infoloss as il
from benchmarks import record
from benchmarks.kernels import Run, conditions, ratios
from infoloss import kernels
from infoloss.kernels import host, threads

LOSS = il.min_ent()
THREADS = 2


def problem(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, classes).requires_grad_(), torch.randint(classes, (rows,))


def with_kernel(name: str, z: Tensor, y: Tensor) -> Run:
    def run() -> None:
        z.grad = None
        with kernels.use(name):
            LOSS(z, y).backward()

    return run


def with_constant(module: object, name: str, value: int, z: Tensor, y: Tensor) -> tuple[Run, Run]:
    """With a constant of this value, and of one that no size reaches."""
    inner = with_kernel("cpu", z, y)

    def run(value: int) -> None:
        with patch.object(module, name, value):
            inner()

    return partial(run, value), partial(run, 1 << 62)


def lines() -> Iterator[tuple[str, tuple[Run, Run]]]:
    """What is compared, and the two ways."""
    for power in (10, 12, 14, 16):
        for classes in (10, 100):
            z, y = problem((1 << power) // classes, classes)
            what = f"cpu / eager, {z.numel()} logits, {classes} classes (SMALLEST = {kernels.SMALLEST})"
            yield what, (with_kernel("cpu", z, y), with_kernel("eager", z, y))
    for classes in (16, 32, 48, 64, 96, 128):
        z, y = problem((1 << 21) // classes, classes)
        what = f"rows / tiles, {classes} classes (NARROW = {host.NARROW})"
        yield what, with_constant(host, "NARROW", 0, z, y)
    for power in (14, 15, 16, 17, 18):
        z, y = problem((1 << power) // 100, 100)
        what = f"parallel / serial, {z.numel()} logits (PARALLEL_FROM = {threads.PARALLEL_FROM})"
        yield what, with_constant(threads, "PARALLEL_FROM", 0, z, y)
    for power in (17, 18, 20, 21, 22):
        z, y = problem(1, 1 << power)
        what = f"parts / one, a row of {1 << power} classes (PART = {host.PART})"
        yield what, with_constant(host, "PART", z.numel() // 8, z, y)


def main() -> None:
    parser = record.parser(__doc__, "one round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    found = []
    for what, (first, second) in lines():
        values = ratios(("", second, {"first": first}), 1 if options.small else options.rounds, repeat=5)
        low, middle, high = np.quantile(values["first"], [0.25, 0.5, 0.75])
        print(f"{what:<72} {middle:.2f} [{low:.2f}, {high:.2f}]", flush=True)
        found.append({"ways": what, "lower": low, "median": middle, "upper": high, "n": len(values["first"])})
    record.write(options.out, {"conditions": conditions(THREADS), "table": found})


if __name__ == "__main__":
    main()
