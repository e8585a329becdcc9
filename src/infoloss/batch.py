"""What a call means: from logits and targets of any layout to rows, and from row values to one number.

One definition for all losses. A batch is flattened to rows (N, C); the target becomes a hard label or
a soft target per row, with a *mass* that carries the class weights; the mean over rows is
Σ s_i r_i / Σ s_i ω_i (see :meth:`Batch.reduced`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch", "class_rows", "make_batch", "values_visible"]

REDUCTIONS = ("none", "mean", "sum")


def values_visible(*tensors: Tensor | None) -> bool:
    """Whether the numbers may be looked at: on the CPU, outside compilation and ``torch.func``."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return all(
        t is None or (t.device.type == "cpu" and type(t) in (Tensor, torch.nn.Parameter)) for t in tensors
    )


def class_rows(logits: Tensor) -> Tensor:
    """Logits (C,), (N, C) or (N, C, d1, …) as rows (N·d1·…, C), float32 at least."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim == 0:
        raise ValueError("logits must have a class axis: shape (C,), (N, C) or (N, C, d1, …), got ()")
    rows = logits[None] if logits.ndim == 1 else logits.movedim(1, -1)
    if rows.shape[-1] == 0:
        raise ValueError(f"logits of shape {tuple(logits.shape)} have no classes")
    rows = rows.reshape(-1, rows.shape[-1])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows ready for a kernel, and what turns row values into the result of the call."""

    logits: Tensor  # (N, C)
    target: Tensor | None  # hard (N,), in range everywhere; soft (N, C), rows of sum 1
    soft: bool  # the target is a distribution: given as one, or smoothed
    kept: Tensor | None  # (N,) bool; None: every row
    mass: Tensor | None  # (N,) w_y, or Σ t_c w_c with smoothing; None: 1
    sample_weight: Tensor | None  # (N,) s
    omega: Tensor | None  # (N,) ω: w_y, or Σ t_c w_c without smoothing; None: 1
    masks: bool  # some logit may be −inf
    shape: torch.Size  # of the result without a reduction
    dtype: torch.dtype  # of the result

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
            divisor = self.divisor(rows) if denominator is None else denominator
            if isinstance(divisor, Tensor):
                divisor = torch.where(divisor == 0, 1, divisor)
            total = total / divisor
        return total.to(self.dtype)

    def divisor(self, rows: Tensor) -> Tensor:
        """Σ s_i ω_i over the kept rows."""
        weights = torch.ones_like(rows)
        for factor in (self.omega, self.sample_weight):
            if factor is not None:
                weights = weights * factor
        return (weights if self.kept is None else torch.where(self.kept, weights, 0)).sum()


def _scaled(rows: Tensor, factor: Tensor) -> Tensor:
    """rows·factor, 0 where the factor is: a row of weight 0 counts for nothing, even an infinite one."""
    return torch.where(factor == 0, 0, rows * factor)


def make_batch(
    logits: Tensor,
    target: Tensor | None,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
) -> Batch:
    """Check the arguments of a call and bring them to rows.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or value does not fit, or every class of a row is masked.
        IndexError: a label is out of range (where values may be looked at).
    """
    z = class_rows(logits)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    wide = torch.float32 if z.device.type == "mps" else torch.float64
    shape = logits.shape[:0] if logits.ndim == 1 else logits.shape[:1] + logits.shape[2:]
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    w = _class_weight(weight, z)
    s = _per_row(sample_weight, shape, z, wide)
    kept = mass = omega = t = None
    soft = False
    if target is not None:
        soft = target.is_floating_point()
        t = _soft_rows(target, logits, z) if soft else _hard_rows(target, shape)
        if soft:
            t, kept = _without_ignored(t, ignore_index)
            omega = (t if w is None else t * w).sum(-1, dtype=wide)
        else:
            t, kept = _in_range(t, z.shape[-1], ignore_index, shape)
            omega = mass = None if w is None else w[t].to(wide)
    if kept is not None:
        z = torch.where(kept[:, None], z, 0)  # whatever an ignored row holds, nan included, leaves no trace
    masks = _has_masks(z, shape)
    if t is not None and (soft or label_smoothing > 0):
        t, mass = _distribution(t, z, w, label_smoothing, masks=masks, wide=wide)
        soft = True
    return Batch(z, t, soft, kept, mass, s, omega, masks, shape, dtype)


def _class_weight(weight: Tensor | None, z: Tensor) -> Tensor | None:
    if weight is None:
        return None
    if weight.shape != z.shape[-1:]:
        raise ValueError(
            f"weight must have shape ({z.shape[-1]},), one number a class, got {tuple(weight.shape)}"
        )
    return weight.to(z.dtype)


def _per_row(values: Tensor | None, shape: torch.Size, z: Tensor, wide: torch.dtype) -> Tensor | None:
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


def _soft_rows(target: Tensor, logits: Tensor, z: Tensor) -> Tensor:
    if target.shape != logits.shape:
        raise ValueError(
            f"a target of probabilities must have the logits' shape {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
    return class_rows(target).to(z.dtype)


def _without_ignored(t: Tensor, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """A soft target whose ignored class counts for nothing, as the one-hot form of an ignored label."""
    if not 0 <= ignore_index < t.shape[-1]:
        return t, None
    t = torch.cat([t[:, :ignore_index], torch.zeros_like(t[:, :1]), t[:, ignore_index + 1 :]], -1)
    return t, t.sum(-1) != 0


def _in_range(y: Tensor, classes: int, ignore_index: int, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
    """Labels that can be used as indices, and the rows that count."""
    kept = y != ignore_index
    if values_visible(y):
        wrong = kept & ((y < 0) | (y >= classes))
        if wrong.any():
            place = _place(int(wrong.nonzero()[0, 0]), shape)
            raise IndexError(
                f"target{place} is {int(y[wrong][0])}, expected 0 ≤ label < {classes} "
                f"or ignore_index={ignore_index}"
            )
        if kept.all():
            return y, None
    elif y.device.type != "cpu" and not torch._C._are_functorch_transforms_active():
        torch._assert_async((~kept | ((y >= 0) & (y < classes))).all())
    return torch.where(kept, y, 0), kept


def _has_masks(z: Tensor, shape: torch.Size) -> bool:
    if not values_visible(z):
        return True
    masked = z == -torch.inf
    if not masked.any():
        return False
    whole = masked.all(-1)
    if whole.any():
        place = _place(int(whole.nonzero()[0, 0]), shape)
        raise ValueError(f"every class of logits row {place or 0} is masked (−inf)")
    return True


def _place(row: int, shape: torch.Size) -> str:
    """A flat row number as an index into the target's shape: ``[row, d1, …]``."""
    index = []
    for size in reversed(shape):
        index.append(row % size)
        row //= size
    return str(list(reversed(index))) if index else ""


def _distribution(
    t: Tensor, z: Tensor, w: Tensor | None, smoothing: float, *, masks: bool, wide: torch.dtype
) -> tuple[Tensor, Tensor]:
    """A target as rows of sum 1, reweighted by class, and the mass Σ w_c t_c that they had."""
    if t.ndim == 1:
        t = torch.nn.functional.one_hot(t, z.shape[-1]).to(z.dtype)
    if smoothing > 0:
        if masks:
            unmasked = (z != -torch.inf).to(z.dtype)
            uniform = unmasked / unmasked.sum(-1, keepdim=True)
        else:
            uniform = torch.full_like(z, 1 / z.shape[-1])
        t = (1 - smoothing) * t + smoothing * uniform
    if w is not None:
        t = t * w
    mass = t.sum(-1, dtype=wide)
    return t / torch.where(mass == 0, 1, mass).to(t.dtype)[:, None], mass
