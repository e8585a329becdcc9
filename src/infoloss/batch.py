"""What a call means: from logits and targets of any layout to rows, and from row values to one number.

One definition for all losses. A batch is N rows of C logits, read where they lie; the target becomes a
hard label or a soft target per row, with a *mass* that carries the class weights; the mean over rows is
Σ s_i r_i / Σ s_i ω_i (see :meth:`Batch.reduced`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infoloss.kernels import class_rows
from infoloss.kernels.class_shard import ClassShard
from infoloss.visibility import differentiated, transforms_active, values_visible

__all__ = ["Batch", "check_tensors", "class_planes", "denominator", "make_batch", "place", "row_shape"]


def check_tensors(**arguments: Any) -> None:
    """Raise a TypeError unless each argument that is given is a tensor."""
    for name, value in arguments.items():
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def class_planes(logits: Tensor, shard: ClassShard | None = None) -> Tensor:
    """Logits (C,), (N, C) or (N, C, d1, …) as (N, C, d1·…), without a copy where the layout allows.

    A shard may be without classes, all logits may not.
    """
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim == 0:
        raise ValueError("logits must have a class axis: shape (C,), (N, C) or (N, C, d1, …), got ()")
    if logits.ndim <= 2:
        planes = (logits[None] if logits.ndim == 1 else logits)[:, :, None]
    else:
        planes = logits.flatten(2)
    if (planes.shape[1] if shard is None else shard.total) == 0:
        raise ValueError(f"logits of shape {tuple(logits.shape)} have no classes")
    return planes


def row_shape(shape: torch.Size) -> torch.Size:
    """The shape of logits, (C,), (N, C) or (N, C, d1, …), without their classes."""
    return shape[:1] + shape[2:] if len(shape) > 1 else torch.Size()


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows ready for a kernel, and what turns row values into the result of the call."""

    logits: Tensor  # (B, C, S): N = B·S rows, class c of row (b, s) at [b, c, s]
    given: Tensor | None  # the target before smoothing and class weights: hard (N,) or soft (N, C)
    target: Tensor | None  # hard (N,), in range everywhere; soft (N, C), rows of sum 1
    smoothing: float  # ε of a hard target whose rows become (1 − ε)·one-hot + ε/C
    kept: Tensor | None  # (N,) bool; None: every row
    mass: Tensor | None  # (N,) w_y, or Σ t_c w_c with smoothing; None: 1
    sample_weight: Tensor | None  # (N,) s
    omega: Tensor | None  # (N,) ω: w_y, or Σ t_c w_c without smoothing; None: 1
    shape: torch.Size  # of the result without a reduction
    dtype: torch.dtype  # of the result
    shard: ClassShard | None = None  # which classes the columns are; None: all. A hard target means all

    @property
    def soft(self) -> bool:
        """Whether the target is a distribution: given as one, or smoothed."""
        return self.target is not None and (self.target.ndim == 2 or self.smoothing > 0)

    @property
    def read(self) -> Tensor | None:
        """(N,) bool, the rows that are read: those that are kept and have no constant weight of 0."""
        read = self.kept
        for factor in (self.mass, self.sample_weight):
            if factor is not None and not differentiated(factor):
                read = factor != 0 if read is None else read & (factor != 0)
        return read

    def __len__(self) -> int:
        return self.logits.shape[0] * self.logits.shape[2]

    def reduced(self, rows: Tensor, reduction: str, denominator: Tensor | float | None = None) -> Tensor:
        """Σ s_i r_i ("sum"), over Σ s_i ω_i ("mean"), or s_i r_i by row ("none"); r_i includes the mass.

        Ignored rows count for nothing, and a batch without any row that counts gives 0.
        """
        values = rows if self.mass is None else _scaled(rows, self.mass)
        if self.sample_weight is not None:
            values = _scaled(values, self.sample_weight)
        if self.kept is not None:
            values = torch.where(self.kept, values, 0)
        if reduction == "none":
            return values.to(self.dtype).reshape(self.shape)
        total = values.sum()
        if reduction == "mean":
            divisor = self.divisor(rows) if denominator is None else _one_number(denominator)
            empty = divisor == 0
            total = torch.where(empty, 0, total / torch.where(empty, 1, divisor))
        return total.to(self.dtype)

    def divisor(self, rows: Tensor) -> Tensor:
        """Σ s_i ω_i over the kept rows."""
        weights = torch.ones_like(rows)
        for factor in (self.omega, self.sample_weight):
            if factor is not None:
                weights = weights * factor
        return (weights if self.kept is None else torch.where(self.kept, weights, 0)).sum()


def _scaled(rows: Tensor, factor: Tensor) -> Tensor:
    """rows·factor: a row of weight 0 counts for nothing, even an infinite one.

    A finite one stays in the product, for the derivative in a weight that is 0 (weights that are learnt).
    """
    return torch.where((factor == 0) & ~rows.isfinite(), 0, rows) * factor


def _one_number(denominator: Tensor | float) -> Tensor:
    tensor = torch.as_tensor(denominator)
    if tensor.numel() != 1:
        raise ValueError(f"denominator must be one number, got shape {tuple(tensor.shape)}")
    return tensor.reshape(())


def make_batch(
    logits: Tensor,
    target: Tensor | None,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    shard: ClassShard | None = None,
) -> Batch:
    """Check the arguments of a call and bring them to rows.

    Raises:
        TypeError: a dtype does not fit, or a weight is no tensor.
        ValueError: a shape or value does not fit, or needs a gradient that a shard cannot give.
        IndexError: a label is out of range (where values may be looked at).
    """
    check_tensors(weight=weight, sample_weight=sample_weight)
    z = class_planes(logits, shard)
    classes = z.shape[1] if shard is None else shard.total
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    wide = torch.float32 if z.device.type == "mps" else torch.float64
    shape = row_shape(logits.shape)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    w = None if weight is None else _class_weight(weight, classes, dtype)
    own = w if w is None or shard is None else w[shard.start : shard.stop]  # (C,) of the columns
    if shard is not None:
        _check_constant(weight=weight, target=target)
    s = _per_row(sample_weight, shape, wide)
    given = t = kept = mass = omega = None
    if target is not None and target.is_floating_point():
        given, kept = _without_ignored(_soft_rows(target, logits, shard, dtype), ignore_index, shard)
        omega = _total(given if own is None else given * own, shard, wide)
        t, mass = _distribution(given, z, own, label_smoothing, wide, shard)
        label_smoothing = 0.0
    elif target is not None:
        given, kept = _in_range(_hard_rows(target, shape), classes, ignore_index, shape)
        t = given
        omega = mass = None if w is None else w[given].to(wide)
        if w is not None and label_smoothing > 0:
            t, mass = _distribution(_one_hot(given, z, shard, dtype), z, own, label_smoothing, wide, shard)
            label_smoothing = 0.0
    return Batch(z, given, t, label_smoothing, kept, mass, s, omega, shape, dtype, shard)


def _check_constant(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad:
            raise ValueError(f"over sharded classes {name} cannot be differentiated: pass {name}.detach()")


def _total(values: Tensor, shard: ClassShard | None, wide: torch.dtype) -> Tensor:
    """Σ over all classes of values (N, C) that each rank has for its own, (N,)."""
    here = values.sum(-1, dtype=wide)
    return here if shard is None else shard.sum(here)


def _class_weight(weight: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    if weight.shape != (classes,):
        raise ValueError(
            f"weight must have shape ({classes},), one number a class, got {tuple(weight.shape)}"
        )
    return weight.to(dtype)


def _one_hot(y: Tensor, z: Tensor, shard: ClassShard | None, dtype: torch.dtype) -> Tensor:
    if shard is None:
        return torch.nn.functional.one_hot(y, z.shape[1]).to(dtype)
    return (y[:, None] == torch.arange(shard.start, shard.stop, device=y.device)).to(dtype)


def _per_row(values: Tensor | None, shape: torch.Size, wide: torch.dtype) -> Tensor | None:
    if values is None:
        return None
    if values.shape != shape:
        raise ValueError(f"sample_weight must have shape {tuple(shape)}, got {tuple(values.shape)}")
    return values.reshape(-1).to(wide)


def _hard_rows(target: Tensor, shape: torch.Size) -> Tensor:
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(
            f"target must hold class indices (integers) or probabilities (floats), got {target.dtype}"
        )
    if target.shape != shape:
        raise ValueError(
            f"a target of class indices must have shape {tuple(shape)}, got {tuple(target.shape)}"
        )
    return target.reshape(-1).long()


def _soft_rows(target: Tensor, logits: Tensor, shard: ClassShard | None, dtype: torch.dtype) -> Tensor:
    if target.shape != logits.shape:
        raise ValueError(
            f"a target of probabilities must have the logits' shape {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    return class_rows(class_planes(target, shard)).to(dtype)


def _without_ignored(t: Tensor, ignore_index: int, shard: ClassShard | None) -> tuple[Tensor, Tensor | None]:
    """A soft target whose ignored class counts for nothing, as the one-hot form of an ignored label."""
    if not 0 <= ignore_index < (t.shape[-1] if shard is None else shard.total):
        return t, None
    at = ignore_index - (0 if shard is None else shard.start)
    if 0 <= at < t.shape[-1]:
        t = torch.cat([t[:, :at], torch.zeros_like(t[:, :1]), t[:, at + 1 :]], -1)
    return t, _total(t, shard, t.dtype) != 0


def _in_range(y: Tensor, classes: int, ignore_index: int, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
    """Labels that can be used as indices, and the rows that count."""
    if values_visible(y):
        low, high = (int(bound) for bound in y.aminmax()) if len(y) else (0, 0)
        if low >= 0 and high < classes and not 0 <= ignore_index < classes:
            return y, None
        kept = y != ignore_index
        wrong = kept & ((y < 0) | (y >= classes))
        if wrong.any():
            raise IndexError(
                f"target{place(wrong, shape)} is {int(y[wrong][0])}, expected 0 ≤ label < {classes} "
                f"or ignore_index={ignore_index}"
            )
        if kept.all():
            return y, None
    else:
        kept = y != ignore_index
        if y.device.type != "cpu" and not transforms_active():
            torch._assert_async((~kept | ((y >= 0) & (y < classes))).all())
    return torch.where(kept, y, 0), kept


def place(found: Tensor, shape: torch.Size) -> str:
    """The first of the rows found, (N,) bool, as an index into the result's shape: ``[row, d1, …]``."""
    row = int(found.nonzero()[0, 0])
    index = []
    for size in reversed(shape):
        index.append(row % size)
        row //= size
    return str(list(reversed(index))) if index else ""


def _distribution(
    t: Tensor,
    z: Tensor,
    w: Tensor | None,
    smoothing: float,
    wide: torch.dtype,
    shard: ClassShard | None,
) -> tuple[Tensor, Tensor]:
    """A soft target smoothed, reweighted by class and with rows of sum 1, and the mass Σ w_c t_c it had."""
    if smoothing > 0:
        unmasked = (class_rows(z) != -torch.inf).to(t.dtype)
        t = (1 - smoothing) * t + smoothing * unmasked / _total(unmasked, shard, t.dtype)[:, None]
    if w is not None:
        t = t * w
    mass = _total(t, shard, wide)
    return t / torch.where(mass == 0, 1, mass).to(t.dtype)[:, None], mass


def denominator(
    target: Tensor,
    *,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    group: Any = None,
) -> Tensor:
    """What the mean divides by, Σ s_i ω_i over the rows that count, added up over the ranks of a group.

    Give it as ``denominator`` to the calls whose sum is to be the mean over several batches: add the
    denominators of the micro-batches, and with ``group`` those of data-parallel ranks. DDP and FSDP
    average gradients over R ranks: there divide it by R.

    Args:
        target: class indices of any shape, or probabilities (C,), (N, C) or (N, C, d1, …).
        ignore_index, weight, sample_weight: as in :meth:`infoloss.Term.__call__`.
        group: the ranks that have other rows; every one of them makes this call.

    Returns:
        A 0-d tensor, float64 (float32 on devices that have no float64).

    >>> import torch, infoloss as il
    >>> loss, logits, target = il.cross_entropy(), torch.randn(6, 3), torch.tensor([0, 1, -100, 2, -100, 1])
    >>> total = sum(il.denominator(y) for y in target.split(2))
    >>> parts = [loss(z, y, denominator=total) for z, y in zip(logits.split(2), target.split(2))]
    >>> torch.testing.assert_close(sum(parts), loss(logits, target))
    """
    if target.is_floating_point():
        batch = make_batch(
            target, target, weight=weight, ignore_index=ignore_index, sample_weight=sample_weight
        )
    else:
        batch = _labels_only(target, ignore_index, weight, sample_weight)
    wide = torch.float32 if target.device.type == "mps" else torch.float64
    total = batch.divisor(torch.ones(len(batch), dtype=wide, device=target.device)).detach()
    if group is not None:
        torch.distributed.all_reduce(total, group=group)
    return total


def _labels_only(
    target: Tensor, ignore_index: int, weight: Tensor | None, sample_weight: Tensor | None
) -> Batch:
    """The batch of class indices beside logits that take no memory."""
    y = target.reshape(-1)
    if weight is None:  # every label counts alike, whatever its class
        y, weight = torch.where(y == ignore_index, -100, 0), torch.ones(1, device=y.device)
        ignore_index = -100
    s = _per_row(sample_weight, target.shape, torch.float64)
    planes = torch.zeros((), device=y.device).expand(len(y), len(weight))
    return make_batch(planes, y, weight=weight, ignore_index=ignore_index, sample_weight=s)
