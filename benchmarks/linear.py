"""A linear head in blocks against the unfused form and PyTorch's chunked one: time and extra memory.

    python -m benchmarks.linear [--threads 2] [--pairs 15] [--processes 3] [--small] [--out FILE.json]
    python -m benchmarks.linear --pairs 0         # memory alone
    python -m benchmarks.linear --blocks          # the block sizes against the one that is set

Times: ratios of pairs, A B A B, forward and backward unless said otherwise. Memory: in a process of its
own for each way, the peak of the resident set above what it was before, less the gradients that remain.
A ratio below 1 is faster, or smaller, than the peer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il
from benchmarks import record
from benchmarks.kernels import conditions, paired, table
from infoloss.kernels import linear

SHAPE = (4096, 1024, 128256)  # rows, features, classes
SMALL = (64, 16, 500)
BLOCKS = {"BLOCK": (24, 25, 26, 27), "PART": (20, 21, 22, 23, 24)}  # powers of two


def per_token(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    log_q = torch.log_softmax(F.linear(h, w), -1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    return (log_q.gather(-1, y[:, None]).squeeze(-1) + entropy).sum()


def per_token_blocks(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return sum(il.row_statistics_linear(h, w, y).values()).sum()  # type: ignore[union-attr, return-value]


def chunked(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.linear_cross_entropy(h, w, y, options=torch.nn.LinearCrossEntropyOptions())


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy.linear": lambda h, w, y: il.cross_entropy().linear(h, w, y),
    "min_ent + z_loss": lambda h, w, y: (il.min_ent() + il.z_loss()).linear(h, w, y),
    "F.linear, F.cross_entropy": lambda h, w, y: F.cross_entropy(F.linear(h, w), y),
    "F.linear_cross_entropy": chunked,
    "row_statistics_linear": per_token_blocks,
    "F.linear, log_softmax": per_token,
}
PAIRS = (
    ("cross_entropy.linear", "F.linear, F.cross_entropy", True),
    ("cross_entropy.linear", "F.linear_cross_entropy", True),
    ("min_ent + z_loss", "F.linear, F.cross_entropy", True),
    ("row_statistics_linear", "F.linear, log_softmax", False),
    ("row_statistics_linear", "F.linear, log_softmax", True),
)
"""Ours, the peer, and whether with a backward pass."""


def problem(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    rows, features, classes = shape
    torch.manual_seed(0)
    w = torch.randn(classes, features) / features**0.5
    return torch.randn(rows, features).requires_grad_(), w.requires_grad_(), torch.randint(classes, (rows,))


def step(way: str, backward: bool, h: Tensor, w: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        h.grad = w.grad = None
        with torch.set_grad_enabled(backward):
            result = WAYS[way](h, w, y)
            if backward:
                result.backward()

    return run


def times(shape: tuple[int, int, int], pairs: int) -> list[dict[str, Any]]:
    inputs = problem(shape)
    found = []
    for ours, peer, backward in PAIRS:
        ratios = paired(step(ours, backward, *inputs), step(peer, backward, *inputs), pairs)
        work = ours if backward else f"{ours}, forward"
        found.append({"shape": list(shape), "work": work, "against": peer, "ratios": ratios})
    return found


def block_times(shape: tuple[int, int, int], pairs: int) -> list[dict[str, Any]]:
    """cross_entropy.linear at other block sizes against itself at those that are set."""
    run = step("cross_entropy.linear", True, *problem(shape))
    found = []
    for name, powers in BLOCKS.items():
        usual = getattr(linear, name)
        for power in powers:

            def other(name: str = name, power: int = power, usual: int = usual) -> None:
                setattr(linear, name, 1 << power)
                run()
                setattr(linear, name, usual)

            ratios = paired(other, run, pairs)
            against = f"{name} = 2^{usual.bit_length() - 1}"
            found.append(
                {"shape": list(shape), "work": f"{name} = 2^{power}", "against": against, "ratios": ratios}
            )
    return found


def resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def peak(way: str, backward: bool, shape: tuple[int, int, int]) -> int:
    """Bytes above the inputs and the gradients that remain (Linux)."""
    h, w, y = problem(shape)
    step(way, backward, *problem((256, shape[1], 512)))()  # what is loaded and compiled once
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step(way, backward, h, w, y)()
    remaining = sum(t.grad.nbytes for t in (h, w) if t.grad is not None)
    return max(resident("VmHWM") - before - remaining, 1)


def memory(
    shape: tuple[int, int, int], command: list[str], pairs: Sequence[tuple[str, str, bool]]
) -> list[dict[str, Any]]:
    known: dict[str, int] = {}
    lines = []
    for ours, peer, backward in pairs:
        for way in (ours, peer):
            key = json.dumps([way, backward])
            if key not in known:
                known[key] = int(subprocess.check_output([*command, f"--peak={key}"]))
        a, b = (known[json.dumps([way, backward])] for way in (ours, peer))
        work = ours if backward else f"{ours}, forward"
        line = {"shape": list(shape), "work": work, "against": peer, "ratio": a / b}
        lines.append(line | {"ours_mib": a / 2**20, "peer_mib": b / 2**20})
    return lines


def printed(times: list[dict[str, Any]], memory: list[dict[str, Any]]) -> None:
    for line in times:
        quartiles = f"{line['median']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]  n = {line['n']}"
        print(f"time    {line['work']:<32} {line['against']:<26} {quartiles}")
    for line in memory:
        sizes = f"{line['ratio']:.3f}  ({line['ours_mib']:.0f} / {line['peer_mib']:.0f} MiB)"
        print(f"memory  {line['work']:<32} {line['against']:<26} {sizes}")


def main() -> None:
    parser = record.parser(__doc__, "a tiny shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("ROWS", "FEATURES", "CLASSES"))
    parser.add_argument("--blocks", action="store_true", help="compare block sizes")
    parser.add_argument("--one-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SMALL if options.small else tuple(options.shape)
    if options.peak:
        print(peak(*json.loads(options.peak), shape))
        return
    if options.one_process:
        json.dump((block_times if options.blocks else times)(shape, options.pairs), sys.stdout)
        return
    command = [sys.executable, "-m", "benchmarks.linear", f"--threads={options.threads}"]
    command += ["--shape", *map(str, shape)]
    one = [*command, "--one-process", f"--pairs={options.pairs}", *["--blocks"] * options.blocks]
    runs = [
        json.loads(subprocess.check_output(one)) for _ in range(options.processes if options.pairs else 0)
    ]
    found = table(runs) if runs else []
    peaks = []
    if not options.blocks and Path("/proc/self/clear_refs").exists():
        peaks = memory(shape, command, PAIRS[:1] if options.small else PAIRS)
    about = conditions(options.threads) | {"block": linear.BLOCK, "part": linear.PART}
    print(f"rows, features, classes: {shape}; ratios ours / peer; {json.dumps(about)}")
    printed(found, peaks)
    record.write(options.out, {"conditions": about, "time": found, "memory": peaks})


if __name__ == "__main__":
    main()
