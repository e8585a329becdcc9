"""Streaming scores, one pass over a batch, against a plain PyTorch pass for each score: ratios in one table.

    python -m benchmarks.streaming [--threads 2] [--pairs 15] [--processes 3] [--small] [--out FILE.json]

Ours are accuracy, NLL, Brier score, calibration error and entropy of a batch by ``StreamingScores``; the
peer computes each from the logits, as it is usually written. Pairs as in ``benchmarks.kernels``; a ratio
below 1 is faster than the peer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.kernels import SMALL, main
from infoloss.evaluation import StreamingScores

SHAPES = [(65536, 10), (65536, 100), (16384, 1000), (4096, 32000)]
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


def work(rows: int, classes: int) -> list[tuple[str, str, Callable[[], None], Callable[[], None]]]:
    z, y = torch.randn(rows, classes), torch.randint(classes, (rows,))

    def streaming() -> None:
        found = StreamingScores(bins=BINS)
        found.update(z, y)
        found.compute()

    def separate() -> None:
        for score in SEPARATE:
            float(score(z, y))

    return [("StreamingScores", "a pass for each score", streaming, separate)]


if __name__ == "__main__":
    main("streaming", __doc__, work, shapes=SHAPES, small=SMALL)
