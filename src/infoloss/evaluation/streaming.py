"""Scores of predictions that come batch by batch, on any device, without keeping them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from infoloss.batch import Batch, make_batch
from infoloss.evaluation.calibration import BINS, Reliability
from infoloss.rows import Rows
from infoloss.statistics import Moments
from infoloss.terms import statistic
from infoloss.visibility import values_visible

__all__ = ["StreamingScores"]

SUMS = ("rows", "right", "nll", "brier", "entropy")
READINGS = [
    ((), statistic(name))
    for name in ("lse", "target_logit", "target_probability", "expected_logit", "collision")
]
TIED = 1.9
"""Σ e^2u, u = z − max z, is 2 at least where two logits are the largest; below it there is one."""


class StreamingScores:
    """Accuracy, NLL, Brier score, calibration error and entropy from one pass over each batch.

    Memory is 5 + 3·bins numbers, whatever the rows and classes. The sums of batches, workers or ranks add
    up: `merge`, or `gathered` over a process group.

    What is scored is softmax(logits): what cross entropy and every other loss that reads the plain logits
    implies at test time. For a loss with other probabilities (prior-shifted ones, rescaled square), give
    what it implies: ``update(term.log_probabilities(z), target, decision=term.decision(z))``. Scores that
    need every row at once (balanced accuracy, F1, AUC, temperature scaling, the noise floor) are in
    `scores`.

    Args:
        bins: equal bins of the confidence.
        ignore_index: rows with this label count for nothing.

    Example:
        >>> found = StreamingScores()
        >>> for q, label in (([[0.8, 0.2]], [0]), ([[0.5, 0.5], [0.25, 0.75]], [1, 1])):
        ...     found.update(torch.tensor(q).log(), torch.tensor(label))
        >>> {name: round(value, 3) for name, value in found.compute().items()}
        {'rows': 3.0, 'accuracy': 0.667, 'nll': 0.401, 'brier': 0.235, 'ece': 0.317, 'entropy': 0.585}
    """

    def __init__(self, *, bins: int = BINS, ignore_index: int = -100) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.bins = bins
        self.ignore_index = ignore_index
        self._sums = torch.zeros(len(SUMS), dtype=torch.float64)
        self._histogram = torch.zeros(3, bins, dtype=torch.float64)  # rows, Σ confidence, rows right

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor, *, decision: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: (N, C) or (N, C, d1, …), or log-probabilities; −inf is a class of probability 0.
            target: class indices (N, d1, …).
            decision: (N, d1, …) the classes decided for, where they are not argmax of the logits. The
                calibration error judges the probabilities, so it does not read it.

        Raises:
            ValueError: shapes do not fit, targets are probabilities, or every class of a row is masked.
            IndexError: a label is out of range.
        """
        if target.is_floating_point():
            raise ValueError("target must hold class indices: a score needs a label, got probabilities")
        batch = make_batch(logits, target, ignore_index=self.ignore_index)
        rows = Rows(batch, READINGS, {})
        rows.empty()
        (one,) = rows.passes
        right = _right(batch, one.moments)
        decided = right if decision is None else _decided(decision, target)
        self._add(one.moments, right, decided, batch.kept)

    def _add(self, m: Moments, right: Tensor, decided: Tensor, kept: Tensor | None) -> None:
        """Add the rows that are kept, (N,): their moments, and whether argmax and decision are the label."""
        top = 1 / m["exp_sum"]  # the largest probability: e^u is 1 there
        lse = torch.log(m["exp_sum"])
        nll = lse - m["label_logit"]
        if "label_masked" in m:
            nll = torch.where(m["label_masked"], torch.inf, nll)
        brier = (m["exp_square_sum"] * top - 2 * m["label_exp"]) * top + 1
        entropy = lse - m["exp_logit_sum"] * top
        one = torch.ones_like(top)
        values = torch.stack([one, decided.to(top), nll, brier, entropy])
        shares = torch.stack([one, top, right.to(top)])
        if kept is not None:  # the others have finite moments, those of a row of zeros
            values, shares = values * kept, shares * kept
        self._sums = self._sums.to(top) + values.sum(1)
        place = (torch.ceil(top * self.bins).long() - 1).clamp(0, self.bins - 1)
        self._histogram = self._histogram.to(top).index_add(1, place, shares)

    def merge(self, other: StreamingScores) -> None:
        """Add the rows of another.

        Raises:
            ValueError: its bins are others.
        """
        if other.bins != self.bins:
            raise ValueError(f"cannot merge {other.bins} bins into {self.bins}")
        self._sums = self._sums + other._sums.to(self._sums)
        self._histogram = self._histogram + other._histogram.to(self._histogram)

    def gathered(self, group: Any = None) -> StreamingScores:
        """The scores of the rows of all ranks of a process group, the same on each; every rank calls it.

        A rank without rows has its sums on the CPU until it is updated, if only with an empty batch.
        """
        found = StreamingScores(bins=self.bins, ignore_index=self.ignore_index)
        numbers = torch.cat([self._sums, self._histogram.reshape(-1)])
        torch.distributed.all_reduce(numbers, group=group)
        found._sums, histogram = numbers[: len(SUMS)], numbers[len(SUMS) :]
        found._histogram = histogram.reshape(3, self.bins)
        return found

    def compute(self) -> dict[str, float]:
        """rows, accuracy, nll (nats), brier (0 … 2), ece, entropy (mean of H(q), nats), as `scores` has them.

        Raises:
            ValueError: no rows, or logits that were nan or +inf.
        """
        sums = dict(zip(SUMS, self._sums.tolist(), strict=True))
        rows = sums.pop("rows")
        if rows == 0:
            raise ValueError("no rows to score: update with a batch first")
        if any(np.isnan(value) for value in sums.values()):
            raise ValueError("logits were nan or +inf in some row")
        means = {name: value / rows for name, value in sums.items()}
        accuracy = means.pop("right")
        entropy = means.pop("entropy")
        return {
            "rows": rows,
            "accuracy": accuracy,
            **means,
            "ece": self.reliability().error,
            "entropy": entropy,
        }

    def reliability(self) -> Reliability:
        """Mean confidence and accuracy by bin of confidence, as `infoloss.evaluation.reliability`."""
        count, confidence, right = self._histogram.cpu().numpy()
        shown = np.maximum(count, 1)
        return Reliability(confidence / shown, right / shown, count.astype(np.int64))


def _right(batch: Batch, m: Moments) -> Tensor:
    """Where the label is the first class of the largest logit, (N,): without another pass but for ties."""
    assert batch.given is not None
    if not values_visible(batch.logits):
        return batch.logits.argmax(1).reshape(-1) == batch.given
    right = m["label_exp"] == 1  # e^0, or so near the largest that it rounds to 1, which counts as tied
    tied = right & (m["exp_square_sum"] > TIED)
    at = (tied if batch.kept is None else tied & batch.kept).nonzero().squeeze(1)
    if len(at):
        planes = batch.logits  # (B, C, S)
        rows = planes.movedim(1, -1)[at // planes.shape[2], at % planes.shape[2]]
        right[at] = rows.argmax(1) == batch.given[at]
    return right


def _decided(decision: Tensor, target: Tensor) -> Tensor:
    if decision.shape != target.shape:
        raise ValueError(
            f"decision must have the target's shape {tuple(target.shape)}, got {tuple(decision.shape)}"
        )
    return decision.reshape(-1) == target.reshape(-1)
