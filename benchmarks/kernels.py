"""The CPU kernel against ``F.cross_entropy`` and others: forward and backward, ratios in one table.

    python -m benchmarks.kernels [--threads 2] [--rounds 15] [--processes 3] [--small] [--out FILE.json]

A round times the peer, each of our losses, and the peer again; a ratio is one of ours over the mean of the
two. What else the machine does hits both. Every fresh process gives its own rounds; the table has median
and quartiles over all of them. A ratio below 1 is faster than the peer.

Losses that ask the kernel for the same work share a row: what tells them apart is computed from a few numbers
a row. Peers: ``F.cross_entropy``; the usual eager code of MIN-ENT and squentropy, ``torch.compile`` of it;
a copy of the logits, the floor of anything that reads and writes them, into memory that is there already or,
as a gradient is, into fresh memory, whose first touch costs more than the copying. "step" is a training step
of the MLP that a study trains by default, in one thread; a study's workers take it by value_and_grad.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il
from benchmarks import record
from infoloss.direct.plan import plan_of
from infoloss.models import build
from infoloss.training.optimisers import Settings, optimiser

Run = Callable[[], object]

SHAPES: list[tuple[int, ...]] = [
    (65536, 10),
    (65536, 100),
    (16384, 1000),
    (4096, 32000),
    (2048, 128256),
    (8, 21, 512, 512),
]
SMALL: list[tuple[int, ...]] = [(64, 10), (32, 100), (2, 3, 4, 5)]
ALL_LOSSES_UP_TO = 1 << 25
"""Logits up to which every kind of work has its row; beyond, those of :data:`CHOSEN`."""
CHOSEN = ("cross_entropy", "min_ent", "squentropy", "pc_softmax", "logit_norm")


def usual_min_ent(z: Tensor, y: Tensor) -> Tensor:
    log_q = F.log_softmax(z, 1)
    return 1.1933 * F.nll_loss(log_q, y) - 0.1298 * (log_q.exp() * log_q).sum(1).mean()


def usual_squentropy(z: Tensor, y: Tensor) -> Tensor:
    others = z.square().sum(1) - z.gather(1, y[:, None]).squeeze(1).square()
    return F.cross_entropy(z, y) + (others / (z.shape[1] - 1)).mean()


def bound(name: str, classes: int) -> il.Term:
    """A loss by name, or a regulariser beside cross entropy, with a prior where it needs one."""
    term = il.parse(name)
    if not term.has_loss:
        term = il.cross_entropy() + term
    prior = torch.softmax(torch.linspace(-1, 1, classes, dtype=torch.float64), 0)
    return term.bind(**dict.fromkeys(term.unbound, prior))


def kinds_of_work() -> dict[str, list[str]]:
    """The catalogue, grouped by what a call asks of the kernel: by its first name, all names of a group."""
    groups: dict[Any, list[str]] = {}
    for name in [*CHOSEN, *sorted(set(il.catalogue) - set(CHOSEN))]:
        plan = plan_of(bound(name, 3), False)
        if plan is None:  # it would not be the compiled kernel that is measured
            raise ValueError(f"{name} has no plan")
        work = tuple((frozenset(p.names), tuple(map(type, p.views))) for p in plan.passes)
        groups.setdefault(work, []).append(name)
    return {names[0]: names for names in groups.values()}


def step(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, y: Tensor) -> Run:
    def run() -> None:
        z.grad = None
        loss(z, y).backward()

    return run


def copy(z: Tensor) -> Run:
    source, goal = z.detach(), torch.empty_like(z)
    return lambda: goal.copy_(source)


def compiled(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    torch._dynamo.reset()
    return torch.compile(loss, fullgraph=True, dynamic=False)  # type: ignore[no-any-return]


Comparison = tuple[str, Run, dict[str, Run]]
"""A peer, what it runs, and ours by name."""


def comparisons(shape: tuple[int, ...], small: bool) -> Iterable[Comparison]:
    """The peers of a shape, one after the other."""
    torch.manual_seed(0)
    z = torch.randn(shape).requires_grad_()
    y = torch.randint(0, shape[1], shape[:1] + shape[2:])
    names = list(kinds_of_work()) if z.numel() <= ALL_LOSSES_UP_TO else list(CHOSEN)
    ours = {name: step(bound(name, shape[1]), z, y) for name in names}
    yield "F.cross_entropy", step(F.cross_entropy, z, y), ours
    if len(shape) == 2 and (shape[1] in (1000, 32000) or small):
        for name, usual in (("min_ent", usual_min_ent), ("squentropy", usual_squentropy)):
            mine = {name: step(bound(name, shape[1]), z, y)}
            yield "its usual code", step(usual, z, y), mine
            if not small:
                yield "torch.compile of that", step(compiled(usual), z, y), mine
    if shape in (SHAPES[4], SMALL[0]):
        first = {name: ours[name] for name in CHOSEN[:3]}
        yield "a copy of the logits", copy(z), first
        yield "a copy in fresh memory", z.detach().clone, first


def training_steps() -> Comparison:
    """A training step of a small model, with F.cross_entropy and with ours in the two ways that there are."""
    rows = torch.randn(1280, 64)
    labels = torch.randint(0, 10, (1280,))

    def backward(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, y: Tensor) -> None:
        loss(logits, y).backward()

    def spared(loss: Any, logits: Tensor, y: Tensor) -> None:
        _, gradient = loss.value_and_grad(logits, y)
        logits.backward(gradient)

    def of(loss: Any, take: Callable[[Any, Tensor, Tensor], None] = backward) -> Run:
        model = build("mlp", input_shape=(64,), classes=10, seed=0)
        optimise = optimiser(model.parameters(), Settings(learning_rate=0.01, batch_size=128))
        batches = torch.arange(1280).split(128)
        turn = 0

        def run() -> None:
            nonlocal turn
            turn += 1
            batch = batches[turn % len(batches)]
            optimise.zero_grad()
            take(loss, model(rows[batch]), labels[batch])
            optimise.step()

        return run

    ours = {name: of(bound(name, 10)) for name in CHOSEN[:3]}
    ours |= {f"{name}, value_and_grad": of(bound(name, 10), spared) for name in CHOSEN[:3]}
    return "F.cross_entropy", of(F.cross_entropy), ours


def ratios(comparison: Comparison, rounds: int, repeat: int = 1) -> dict[str, list[float]]:
    """Ours over the peer, by name and round; ``repeat`` calls are timed as one."""
    _, peer, ours = comparison

    def seconds(run: Run) -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        return time.perf_counter() - start

    for run in (peer, *ours.values()):
        seconds(run)
    found: dict[str, list[float]] = {name: [] for name in ours}
    before = seconds(peer)
    for _ in range(rounds):
        times = {name: seconds(run) for name, run in ours.items()}
        after = seconds(peer)
        for name, value in times.items():
            found[name].append(2 * value / (before + after))
        before = after
    return found


def measured(threads: int, rounds: int, small: bool) -> list[dict[str, Any]]:
    """The rows of one process."""
    rows = []
    with il.kernels.use("cpu"):
        torch.set_num_threads(1)
        comparison = training_steps()
        for name, values in ratios(comparison, rounds, repeat=1 if small else 100).items():
            work, *way = name.split(", ")
            shape = ", ".join(("step 128×10", *way))
            rows.append({"shape": shape, "work": work, "against": comparison[0], "ratios": values})
        torch.set_num_threads(threads)
        for shape in SMALL if small else SHAPES:
            for comparison in comparisons(shape, small):
                for name, values in ratios(comparison, rounds).items():
                    text = "×".join(map(str, shape))
                    rows.append({"shape": text, "work": name, "against": comparison[0], "ratios": values})
    return rows


FIRST_CALL = """
import time, torch, infoloss as il
torch.set_num_threads(1)
z, y = torch.randn(128, {classes}, requires_grad=True), torch.zeros(128, dtype=torch.int64)
with il.kernels.use("cpu"):
    start = time.perf_counter()
    il.squentropy()(z, y).backward()
print(time.perf_counter() - start)
"""


def first_calls() -> dict[str, list[float]]:
    """Seconds of the first call in a process, of short and of long rows: compiled anew, and from the disk."""
    found: dict[str, list[float]] = {"compiled": [], "cached": []}
    for classes in (10, 1000):
        with tempfile.TemporaryDirectory() as cache:
            for kind in found:
                command = [sys.executable, "-c", FIRST_CALL.format(classes=classes)]
                environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
                found[kind].append(round(float(subprocess.check_output(command, env=environment)), 1))
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
        "large_pages_for_pytorch": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
        "dtype": "float32",
        **({"preloaded": os.path.basename(library)} if (library := os.environ.get("LD_PRELOAD")) else {}),
    }


def paired(ours: Run, peer: Run, pairs: int) -> list[float]:
    """Ratios ours/peer of pairs timed one after the other."""
    return ratios(("", peer, {"ours": ours}), pairs)["ours"]


def table(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Median and quartiles over all rounds of all processes, a row for each kind of work."""
    lines = []
    for same in zip(*runs, strict=True):
        values = np.concatenate([one["ratios"] for one in same])
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        line = {key: same[0][key] for key in ("shape", "work", "against")}
        lines.append(line | {"lower": low, "median": middle, "upper": high, "n": len(values)})
    return lines


Measured = Callable[[int, int, bool], list[dict[str, Any]]]
"""The rows of one process, from threads, rounds and whether the shapes are to be tiny."""


def main(name: str, about: str, measured: Measured, more: Callable[[bool], dict[str, Any]]) -> None:
    """The command line of a benchmark: fresh processes, a table, a record.

    Args:
        name: of its module.
        about: its docstring.
        measured: what a process does.
        more: what its record holds besides, from whether the shapes were tiny; printed below the table.
    """
    parser = record.parser(about, "tiny shapes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--one-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_process:
        json.dump(measured(options.threads, options.rounds, options.small), sys.stdout)
        return
    command = [sys.executable, "-m", f"benchmarks.{name}", "--one-process"]
    command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
    command += ["--small"] * options.small
    lines = table([json.loads(subprocess.check_output(command)) for _ in range(options.processes)])
    found = {"conditions": conditions(options.threads), "table": lines, **more(options.small)}
    print("ratio of times, ours / peer: median [quartiles]; " + json.dumps(found["conditions"]))
    for line in lines:
        print(
            f"{line['shape']:>14}  {line['work']:<24} {line['against']:<22} "
            f"{line['median']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]  n = {line['n']}"
        )
    print(json.dumps({key: value for key, value in found.items() if key not in ("conditions", "table")}))
    record.write(options.out, found)


def _besides(small: bool) -> dict[str, Any]:
    shared = {name: names for name, names in kinds_of_work().items() if len(names) > 1}
    return {"same_work": shared, "first_call_s": {} if small else first_calls()}


if __name__ == "__main__":
    main("kernels", __doc__ or "", measured, _besides)
