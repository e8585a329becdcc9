"""The plain PyTorch kernel: it defines what every other kernel must agree with.

It is differentiable to any order, in forward and reverse mode, under ``torch.func`` and
``torch.compile``, and runs wherever PyTorch does. Elements stay in the logits' dtype (float32 at
least), rows and sums are float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from infoloss.statistics import Moments
from infoloss.views import View, row_dtype
from infoloss.visibility import values_visible

__all__ = ["anchored_moments", "class_rows", "label_moments", "reduce", "viewed"]


def class_rows(planes: Tensor) -> Tensor:
    """(B, C, S) as rows (B·S, C), float32 at least."""
    rows = planes.movedim(1, -1).reshape(planes.shape[0] * planes.shape[2], planes.shape[1])
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def viewed(
    logits: Tensor, views: tuple[View, ...], coefficients: Mapping[str, Tensor | float]
) -> tuple[Tensor, Tensor]:
    """Anchored logits x (N, C), a (N,): logits (N, C) seen through ``views``, the first one first."""
    x, a = logits, logits.new_zeros(len(logits), dtype=row_dtype(logits.dtype, logits.device))
    for view in views:
        x, a = view.apply(x, a, coefficients)
    return x, a


def reduce(
    logits: Tensor,
    target: Tensor | None,
    views: tuple[View, ...],
    needs: Collection[str],
    *,
    floor: float = 0.0,
    kept: Tensor | None = None,
    coefficients: Mapping[str, Tensor | float] | None = None,
) -> Moments:
    """The moments of each row of ``logits`` seen through ``views``.

    Args:
        logits: (B, C, S), the N = B·S rows along the middle axis; −inf masks a class.
        target: hard labels (N,) in range, a soft target (N, C), or None if nothing needs one.
        views: applied in this order.
        needs: names of :data:`~infoloss.statistics.MOMENTS`.
        floor: smallest target probability under the logarithm of ``label_log_exp``.
        kept: (N,) which rows count; whatever another row holds, nan included, leaves no trace.
        coefficients: values of the names that a view refers to.

    Returns:
        The moments that are needed, each (N,), float64, differentiable to any order.
    """
    rows = class_rows(logits)
    if kept is not None:
        rows = torch.where(kept[:, None], rows, 0)
    x, a = viewed(rows, views, coefficients or {})
    return anchored_moments(x, a, target, needs, floor)


def label_moments(logits: Tensor, target: Tensor, *, kept: Tensor | None = None) -> Moments:
    """``label_logit`` and ``label_logit_square`` of hard labels, without reading whole rows.

    Args:
        logits, target, kept: as for :func:`reduce`; the target is (N,).
    """
    at = target.reshape(logits.shape[0], 1, logits.shape[2])
    z = logits.gather(1, at).reshape(-1)  # (N,)
    z = z.to(row_dtype(logits.dtype, logits.device))
    if kept is not None:
        z = torch.where(kept, z, 0)
    masked = z == -torch.inf
    z = torch.where(masked, 0, z)
    zero = torch.zeros_like(z)
    return {"maximum": zero, "label_logit": z, "label_logit_square": z.square(), "label_masked": masked}


def anchored_moments(
    x: Tensor, a: Tensor, target: Tensor | None, needs: Collection[str], floor: float
) -> Moments:
    """The moments of the rows z = a + x, x (N, C) with −inf for masked classes, a (N,)."""
    wide = a.dtype
    peak, _ = x.max(-1)
    moments: Moments = {"maximum": a + peak.detach().to(wide)}
    centre = peak.detach()
    found = x == -torch.inf
    masked = None if values_visible(found) and not found.any() else found
    if masked is not None:
        centre = centre.masked_fill(centre == -torch.inf, 0)
    u = x - centre[:, None]  # (N, C), ≤ 0
    e = torch.exp(u)

    def filled(value: Tensor) -> Tensor:
        """``value`` with 0 where the class is masked, so that 0·(−inf) is 0, in its gradient too."""
        return value if masked is None else value.masked_fill(masked, 0)

    def total(value: Tensor) -> Tensor:
        return value.sum(-1, dtype=wide)

    if "peak" in needs:
        moments["peak"] = a + peak.to(wide)
    if "classes" in needs:
        count = torch.full_like(a, x.shape[-1])
        moments["classes"] = count if masked is None else count - total(masked)
    if "exp_sum" in needs:
        moments["exp_sum"] = total(e)
    if "exp_logit_sum" in needs:
        finite = filled(u).clamp(min=torch.finfo(u.dtype).min)  # (−∞)·0, of a logit that far below, is 0
        moments["exp_logit_sum"] = total(finite * e)
    if "exp_square_sum" in needs:
        moments["exp_square_sum"] = total(e * e)
    if "logit_sum" in needs or "logit_square_sum" in needs:
        z = filled(a[:, None] + x.to(wide))
        moments["logit_sum"], moments["logit_square_sum"] = z.sum(-1), z.square().sum(-1)
    if target is not None:
        moments |= _label_moments(x, a, u, e, masked, target, needs, floor)
    return moments


def _label_moments(
    x: Tensor,
    a: Tensor,
    u: Tensor,
    e: Tensor,
    masked: Tensor | None,
    target: Tensor,
    needs: Collection[str],
    floor: float,
) -> Moments:
    wide = a.dtype
    t = target if target.ndim == 2 else None

    def wanted(value: Tensor) -> Tensor:
        """Σ_j t_j value_j, that is value_y for hard labels, without the masked classes: (N,)."""
        if masked is not None:
            value = value.masked_fill(masked, 0)
        if t is None:
            return value.gather(-1, target[:, None]).squeeze(-1).to(wide)
        return (value * t).sum(-1, dtype=wide)

    moments: Moments = {}
    if "label_logit" in needs:
        moments["label_logit"] = wanted(u)
    if "label_logit_square" in needs:
        z = a[:, None] + (x if masked is None else x.masked_fill(masked, 0)).to(wide)
        moments["label_logit_square"] = wanted(z.square())
    if "label_exp" in needs:
        moments["label_exp"] = wanted(e)
    if "label_log_exp" in needs:
        if t is None:  # ln 1 = 0 at the label, ln floor elsewhere
            log_floor = torch.log(torch.tensor(floor, dtype=wide))
            moments["label_log_exp"] = (e.sum(-1, dtype=wide) - wanted(e)) * log_floor.to(e.device)
        else:
            moments["label_log_exp"] = (e * torch.log(t.clamp(min=floor))).sum(-1, dtype=wide)
    if "label_entropy" in needs:
        moments["label_entropy"] = (
            torch.zeros_like(a) if t is None else -torch.xlogy(t, t).sum(-1, dtype=wide)
        )
    if "label_square_sum" in needs:
        moments["label_square_sum"] = torch.ones_like(a) if t is None else t.square().sum(-1, dtype=wide)
    if masked is not None:
        if t is None:
            moments["label_masked"] = masked.gather(-1, target[:, None]).squeeze(-1)
        else:
            moments["label_masked"] = (masked & (t != 0)).any(-1)
    return moments
