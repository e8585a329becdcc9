"""A model over several processes: each runs its share of a batch's rows, and all have all logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

__all__ = ["DataParallel", "batch_normalised", "seed_of_rank"]


class DataParallel(nn.Module):
    """A model that the processes of the default group run together.

    Each is given the whole batch, runs the model on its share of the rows, and returns the logits of all
    rows. The loss is that of the whole batch in every process, so that its denominator is too, whatever the
    loss; gradients are those of a single process but for rounding. A training loop needs no change: it does
    the same in all processes.

    Weights start as those of the first process. Batch normalisation takes the statistics of the whole batch.
    PyTorch's random numbers inside the model are the process's own, and rest for those outside.

    Args:
        model: from (N, …) rows to (N, C) logits, on the device of this process.

    Raises:
        ValueError: batch normalisation on a CPU, for which PyTorch cannot share the statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if batch_normalised(model):
            if next(model.parameters()).device.type == "cpu":
                raise ValueError("batch normalisation over several processes needs GPUs")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.model = DistributedDataParallel(model)
        self._rank, self._count = dist.get_rank(), dist.get_world_size()

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) logits of all rows, with the gradient of this process's own."""
        shares = rows.tensor_split(self._count)
        mine = shares[self._rank]
        with _random_numbers_of(self._rank, rows.device):
            # Models need not stand an empty batch; the row that stands in for one is dropped below.
            logits = self.model(mine if len(mine) else rows[:1])[: len(mine)]
        if logits.requires_grad:
            # DistributedDataParallel takes the mean over processes; the loss's gradient is the sum.
            logits.register_hook(lambda gradient: gradient * self._count)
        parts = self._gathered(logits.detach(), [len(share) for share in shares])
        parts[self._rank] = logits
        return torch.cat(parts)

    def _gathered(self, logits: Tensor, sizes: list[int]) -> list[Tensor]:
        """The logits of every process; padded on the way, since not every backend gathers ragged ones."""
        padded = logits.new_zeros(sizes[0], *logits.shape[1:])
        padded[: len(logits)] = logits
        blocks = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(blocks, padded)
        return [block[:size] for block, size in zip(blocks, sizes, strict=True)]


def batch_normalised(model: nn.Module) -> bool:
    """Whether a row's logits depend on the other rows of the batch in training.

    Example:
        >>> batch_normalised(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
        True
    """
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def seed_of_rank(seed: int, rank: int) -> int:
    """A seed of each process's own, of the 32 bits that PyTorch's generator reads; the first keeps the seed.

    Example:
        >>> seed_of_rank(7, 0), seed_of_rank(7, 1)
        (7, 2246822514)
    """
    return (seed + rank * 0x85EBCA6B) % (1 << 32)


@contextmanager
def _random_numbers_of(rank: int, device: torch.device) -> Iterator[None]:
    """Other random numbers in each process: else rows of different processes would share dropout masks."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of_rank(torch.initial_seed(), rank))
        yield
