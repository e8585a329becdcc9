"""The GPU kernel: memory bandwidth against a device copy, time and peak memory against the usual code.

    python -m benchmarks.gpu [--rows 8192] [--classes 128256] [--features 4096] [--dtype bfloat16]
                             [--pairs 15] [--skip-hidden] [--out FILE.json]

Forward and backward. Ours and the peer run one after the other, A B A B, timed by the GPU's own events;
a ratio below 1 is faster than the peer. From logits, bandwidth counts what has to move, the logits read
twice and the gradient written once, as a fraction of what a copy of the logits reaches (read and written
once). Memory is the peak above the inputs, their gradients included. Peers that are not installed
(Liger, cut-cross-entropy) are left out, and said.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il
from benchmarks.kernels import usual_min_ent, usual_squentropy

Loss = Callable[..., Tensor]
LIGER = "Liger"  # writes the gradient over its input
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def optional(module: str, name: str) -> Any:
    """Something of a package that may be missing; None, and said, where it is."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        print(f"left out: {module}.{name}: {error}", file=sys.stderr)
        return None


LOSSES = ("cross_entropy", "min_ent", "squentropy")
Peers = dict[str, dict[str, Loss | None]]
"""Peers of each of ours, None where they are not installed."""


def from_logits() -> tuple[dict[str, Loss], Peers]:
    """Functions of (logits, target)."""
    liger = optional("liger_kernel.transformers.functional", "liger_cross_entropy")
    usual: dict[str, Loss] = {
        "cross_entropy": F.cross_entropy,
        "min_ent": usual_min_ent,
        "squentropy": usual_squentropy,
    }
    peers: Peers = {
        name: {"the usual code": code, "torch.compile of it": torch.compile(code)}
        for name, code in usual.items()
    }
    peers["cross_entropy"][LIGER] = liger
    return {name: il.parse(name) for name in LOSSES}, peers


def from_hidden() -> tuple[dict[str, Loss], Peers]:
    """Functions of (hidden, weight, target)."""
    alone = il.cross_entropy().linear
    with_terms = "cross_entropy + 0.1*entropy + z_loss"
    ours: dict[str, Loss] = {"cross_entropy": alone, with_terms: il.parse(with_terms).linear}
    peers: Peers = {
        "cross_entropy": {
            "F.linear, F.cross_entropy": lambda h, w, y: F.cross_entropy(F.linear(h, w), y),
            "F.linear_cross_entropy": chunked,
            LIGER: optional("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy"),
            "cut-cross-entropy": optional("cut_cross_entropy", "linear_cross_entropy"),
        },
        with_terms: {"our cross_entropy": alone},
    }
    return ours, peers


def chunked(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.linear_cross_entropy(h, w, y, options=torch.nn.LinearCrossEntropyOptions())


def step(loss: Loss, leaves: tuple[Tensor, ...], target: Tensor) -> Callable[[], None]:
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves, target).backward()

    return run


def milliseconds(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def peak(run: Callable[[], None], leaves: tuple[Tensor, ...]) -> int:
    """Bytes above the inputs."""
    for leaf in leaves:
        leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def compared(
    ours: dict[str, Loss], peers: Peers, leaves: tuple[Tensor, ...], target: Tensor, pairs: int
) -> list[dict[str, Any]]:
    """A line for every loss and peer."""
    lines = []
    for name, loss in ours.items():
        run = step(loss, leaves, target)
        for peer, other in peers[name].items():
            if other is None:
                continue
            theirs = leaves if peer != LIGER else tuple(x.detach().clone().requires_grad_() for x in leaves)
            against = step(other, theirs, target)
            for _ in range(3):  # compile, choose, fill the allocator's cache
                run()
                against()
            times = np.array([(milliseconds(run), milliseconds(against)) for _ in range(pairs)])
            line = {"work": name, "against": peer, **quartiles(times[:, 0] / times[:, 1])}
            line["milliseconds"] = float(np.median(times[:, 0]))
            line["memory"] = peak(run, leaves) / max(1, peak(against, theirs))
            lines.append(line)
    return lines


def quartiles(values: Any) -> dict[str, Any]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"lower": low, "median": middle, "upper": high, "n": len(values)}


def shown(line: dict[str, Any]) -> str:
    return f"{line['median']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]  n = {line['n']}"


def bandwidth(z: Tensor, target: Tensor, pairs: int) -> list[dict[str, Any]]:
    """Bytes per second of each loss as a fraction of a copy's."""
    goal = torch.empty_like(z)
    lines = []
    for name in LOSSES:
        run = step(il.parse(name), (z,), target)
        for _ in range(3):
            run()
        fractions = []
        for _ in range(pairs):
            ours, copy = milliseconds(run), milliseconds(lambda: goal.copy_(z.detach()))
            fractions.append((3 / ours) / (2 / copy))
        lines.append({"work": name, **quartiles(fractions)})
    return lines


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    import triton

    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "infoloss": il.__version__,
        "dtype": options.dtype,
        "rows": options.rows,
        "classes": options.classes,
        "features": options.features,
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 8192), ("classes", 128256), ("features", 4096), ("pairs", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--skip-hidden", action="store_true", help="logits only")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a GPU that PyTorch can use; torch.cuda.is_available() is False here.")
    if not il.kernels.available("gpu"):
        sys.exit("benchmarks.gpu measures the Triton kernel: pip install triton")
    torch.manual_seed(0)
    made: dict[str, Any] = {"device": "cuda", "dtype": DTYPES[options.dtype]}
    y = torch.randint(options.classes, (options.rows,), device="cuda")
    z = torch.randn(options.rows, options.classes, **made).requires_grad_()
    result: dict[str, Any] = {
        "conditions": conditions(options),
        "bandwidth": bandwidth(z, y, options.pairs),
        "logits": compared(*from_logits(), (z,), y, options.pairs),
    }
    if not options.skip_hidden:
        del z
        h = torch.randn(options.rows, options.features, **made).requires_grad_()
        w = (torch.randn(options.classes, options.features, **made) / options.features**0.5).requires_grad_()
        result["hidden"] = compared(*from_hidden(), (h, w), y, options.pairs)
    print(json.dumps(result["conditions"]))
    print("bandwidth as a fraction of a copy's: median [quartiles]; n")
    for line in result["bandwidth"]:
        print(f"  {line['work']:<38} {shown(line)}")
    for source in ("logits", "hidden"):
        print(f"from {source}, ours / peer: time, median [quartiles]; n; peak memory; our time")
        for line in result.get(source, ()):
            print(
                f"  {line['work']:<38} {line['against']:<26} {shown(line)}  "
                f"{line['memory']:.2f}  {line['milliseconds']:.2f} ms"
            )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
