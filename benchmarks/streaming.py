"""Streaming scores, one pass over a batch, against a plain PyTorch pass for each score: ratios in one table.

    python -m benchmarks.streaming [--threads 2] [--rounds 15] [--processes 3] [--small] [--out FILE.json]

Ours are accuracy, NLL, Brier score, calibration error and entropy of a batch by ``StreamingScores``; the
peer computes each from the logits, as it is usually written. Rounds as in ``benchmarks.kernels``; a ratio
below 1 is faster than the peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.kernels import Comparison, main, ratios
from infoloss.evaluation import StreamingScores

SHAPES = [(65536, 10), (65536, 100), (16384, 1000), (4096, 32000)]
SMALL = [(64, 10), (32, 100)]
BINS = 15


def accuracy(z: Tensor, y: Tensor) -> Tensor:
    return (z.argmax(1) == y).float().mean()


def brier(z: Tensor, y: Tensor) -> Tensor:
    return (z.softmax(1) - F.one_hot(y, z.shape[1])).square().sum(1).mean()


def calibration_error(z: Tensor, y: Tensor) -> Tensor:
    confidence, decision = z.softmax(1).max(1)
    place = (torch.ceil(confidence * BINS).long() - 1).clamp(min=0)
    right = (decision == y).float()
    return (torch.bincount(place, confidence - right, minlength=BINS) / len(y)).abs().sum()


def entropy(z: Tensor, y: Tensor) -> Tensor:
    return -(z.softmax(1) * z.log_softmax(1)).sum(1).mean()


SEPARATE: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    accuracy,
    F.cross_entropy,
    brier,
    calibration_error,
    entropy,
)


def comparison(rows: int, classes: int) -> Comparison:
    z, y = torch.randn(rows, classes), torch.randint(classes, (rows,))

    def streaming() -> None:
        found = StreamingScores(bins=BINS)
        found.update(z, y)
        found.compute()

    def separate() -> None:
        for score in SEPARATE:
            float(score(z, y))

    return "a pass for each score", separate, {"StreamingScores": streaming}


def measured(threads: int, rounds: int, small: bool) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = []
    for shape in SMALL if small else SHAPES:
        against = comparison(*shape)
        for name, values in ratios(against, rounds).items():
            text = "×".join(map(str, shape))
            found.append({"shape": text, "work": name, "against": against[0], "ratios": values})
    return found


if __name__ == "__main__":
    main("streaming", __doc__ or "", measured, lambda small: {})
