"""The GPU kernel: memory bandwidth against a device copy, time and peak memory against the usual code.

    python -m benchmarks.gpu [--rows 8192] [--classes 128256] [--features 4096] [--dtype bfloat16]
                             [--pairs 15] [--skip-hidden] [--out FILE.json]
    TRITON_INTERPRET=1 python -m benchmarks.gpu --small     # does it run? On the CPU, interpreted

Forward and backward. Ours and the peer run one after the other, A B A B, timed by the GPU's own events
without a wait between them, as the steps of a training loop are;
a ratio below 1 is faster than the peer. From logits, bandwidth counts what has to move, the logits read
twice and the gradient written once, as a fraction of what a copy of the logits reaches (read and written
once). Memory is the peak above the inputs and the gradients that remain: those of hidden states and head; not
the logits', which the head would use at once. Ways that write over the logits share a copy of them, which
holds gradients from the second time on: no kernel's work depends on the values. Peers that are not
installed (Liger, cut-cross-entropy, quack) are left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import infoloss as il
from benchmarks import record
from benchmarks.gpu_peers import OVER, Loss, Peers, from_hidden, from_logits

Run = Callable[[], None]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Head(torch.autograd.Function):
    """What a head is to a loss, at no cost: logits are its result, and their gradient is let go of."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, logits: Tensor) -> Tensor:
        return logits.new_empty(0).set_(logits)  # the same memory, and no view of it

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.new_zeros(()), None


class Logits:
    """The steps of losses of logits; those that write over them have a copy."""

    def __init__(self, z: Tensor, target: Tensor) -> None:
        self.z, self.copy, self.target = z, z.clone(), target
        self.root = torch.zeros((), dtype=z.dtype, device=z.device, requires_grad=True)

    def step(self, name: str, loss: Loss) -> Run:
        z = self.copy if name.endswith(OVER) else self.z

        def run() -> None:
            self.root.grad = None
            loss(Head.apply(self.root, z), self.target).backward()  # type: ignore[no-untyped-call]

        return run

    def remaining(self) -> int:
        return 0


class Hidden:
    """The steps of losses of hidden states and a head's weight."""

    def __init__(self, h: Tensor, w: Tensor, target: Tensor) -> None:
        self.leaves, self.target = (h.requires_grad_(), w.requires_grad_()), target

    def step(self, name: str, loss: Loss) -> Run:
        def run() -> None:
            for leaf in self.leaves:
                leaf.grad = None
            loss(*self.leaves, self.target).backward()

        return run

    def remaining(self) -> int:
        """Bytes of the gradients, from one step to the next."""
        return sum(leaf.nbytes for leaf in self.leaves)


def milliseconds(runs: Sequence[Run], pairs: int) -> Any:
    """Of each run in each round, (pairs, runs); nothing waits for the GPU until the last one."""
    if not torch.cuda.is_available():
        return np.array([[on_cpu(run) for run in runs] for _ in range(pairs)])
    events = []
    for _ in range(pairs):
        for run in runs:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            events.append((start, end))
    torch.cuda.synchronize()
    return np.array([start.elapsed_time(end) for start, end in events]).reshape(pairs, len(runs))


def on_cpu(run: Run) -> float:
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def peak(run: Run, remaining: int) -> int | None:
    """Bytes above the inputs and the gradients that remain; None on the CPU."""
    if not torch.cuda.is_available():
        return None
    run()  # the gradients of the last step are let go of in this one
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() - remaining
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - remaining


def works(peer: str, run: Run) -> bool:
    """Whether a peer can do it here; said where it cannot: that is not to cost the other measurements."""
    try:
        run()
    except Exception as error:
        print(f"left out: {peer}: {error!r}", file=sys.stderr)
        return False
    return True


def compared(ours: dict[str, Loss], peers: Peers, work: Logits | Hidden, pairs: int) -> list[dict[str, Any]]:
    """A line for every loss and peer."""
    lines = []
    for name, loss in ours.items():
        run = work.step(name, loss)
        memory: dict[str, int | None] = {}
        for peer, other in peers[name].items():
            if other is None:
                continue
            against = work.step(peer, other)
            if not works(peer, against):
                continue
            for _ in range(3):  # compile, choose, fill the allocator's cache
                run()
                against()
            times = milliseconds((run, against), pairs)
            line = {"work": name, "against": peer, **quartiles(times[:, 0] / times[:, 1])}
            ours_ms, peer_ms = np.median(times, 0)
            memory = memory or {"ours_bytes": peak(run, work.remaining())}
            line |= {"ours_ms": ours_ms, "peer_ms": peer_ms, **memory}
            lines.append(line | {"peer_bytes": peak(against, work.remaining())})
    return lines


def quartiles(values: Any) -> dict[str, Any]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"lower": low, "median": middle, "upper": high, "n": len(values)}


def bandwidth(ours: dict[str, Loss], work: Logits, pairs: int) -> list[dict[str, Any]]:
    """Bytes per second of each loss as a fraction of a copy's."""
    goal, lines = torch.empty_like(work.z), []

    def copy() -> None:
        goal.copy_(work.z)

    for name, loss in ours.items():
        run = work.step(name, loss)
        for _ in range(3):
            run()
        times = milliseconds((run, copy), pairs)
        line = {"work": name, **quartiles((3 / times[:, 0]) / (2 / times[:, 1]))}
        lines.append(line | {"bytes_per_second": 3e3 * work.z.nbytes / np.median(times[:, 0])})
    return lines


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    import triton

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, interpreted",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "infoloss": il.__version__,
        "dtype": options.dtype,
        "rows": options.rows,
        "classes": options.classes,
        "features": options.features,
    }


def shown(line: dict[str, Any]) -> str:
    return f"{line['median']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]  n = {line['n']}"


def mebibytes(number: int | None) -> str:
    return "?" if number is None else f"{number / 2**20:.0f}"


def printed(result: dict[str, Any]) -> None:
    print(json.dumps(result["conditions"]))
    print("bandwidth as a fraction of a copy's: median [quartiles]; n; GB/s")
    for line in result["bandwidth"]:
        print(f"  {line['work']:<38} {shown(line)}  {line['bytes_per_second'] / 1e9:.0f}")
    for source in ("logits", "hidden"):
        print(f"from {source}: time, ours / peer, median [quartiles]; n; milliseconds; MiB, ours / peer")
        for line in result.get(source, ()):
            memory = f"{mebibytes(line['ours_bytes'])} / {mebibytes(line['peer_bytes'])}"
            times = f"{line['ours_ms']:.2f} / {line['peer_ms']:.2f}"
            print(f"  {line['work']:<38} {line['against']:<26} {shown(line)}  {times}  {memory}")


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = record.parser(__doc__, "a tiny shape")
    for name, default in (("rows", 8192), ("classes", 128256), ("features", 4096), ("pairs", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--skip-hidden", action="store_true", help="logits only")
    options = parser.parse_args(arguments)
    if options.small:
        options.rows, options.classes, options.features, options.pairs = 8, 40, 16, 1
    return options


def measured(options: argparse.Namespace) -> dict[str, Any]:
    made: dict[str, Any] = {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dtype": DTYPES[options.dtype],
    }
    torch.manual_seed(0)
    y = torch.randint(options.classes, (options.rows,), device=made["device"])
    result: dict[str, Any] = {"conditions": conditions(options)}
    logits = Logits(torch.randn(options.rows, options.classes, **made), y)
    ours, peers = from_logits()
    result["bandwidth"] = bandwidth(ours, logits, options.pairs)
    result["logits"] = compared(ours, peers, logits, options.pairs)
    if not options.skip_hidden:
        del logits
        h = torch.randn(options.rows, options.features, **made)
        w = torch.randn(options.classes, options.features, **made) / options.features**0.5
        result["hidden"] = compared(*from_hidden(), Hidden(h, w, y), options.pairs)
    return result


def main() -> None:
    options = parsed()
    if not il.kernels.available("gpu"):
        sys.exit("benchmarks.gpu measures the Triton kernel: pip install triton")
    interpreted = options.small and os.environ.get("TRITON_INTERPRET") == "1"
    if not (torch.cuda.is_available() or interpreted):
        sys.exit(
            "benchmarks.gpu needs a GPU that PyTorch can use; torch.cuda.is_available() is False here. "
            "TRITON_INTERPRET=1 python -m benchmarks.gpu --small runs without one."
        )
    with il.kernels.use("gpu"):
        result = measured(options)
    printed(result)
    record.write(options.out, result)


if __name__ == "__main__":
    main()
