"""Rows whose classes are spread over the ranks of a process group: moments of the shards, merged.

Every rank holds the same rows and a contiguous shard of the classes. It reads its own columns with the
kernel that fits them; two small all-reduces (the maxima, then the sums about them) give every rank the
moments of the whole rows. From there each rank computes the same numbers, and the coefficients that
autograd finds for the merged moments are those of its own columns: the backward pass is local, except
that a scale of the logits (a learnt temperature, the norm of ``logit_norm``) collects its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from infoloss import kernels
from infoloss.kernels.class_shard import ClassShard, first_order
from infoloss.statistics import Moments, recentred
from infoloss.views import SMALLEST_NORM, Normalized, Scaled, Shifted, View, row_dtype
from infoloss.visibility import transforms_active, values_visible

__all__ = ["Request", "argmax", "block_moments", "check_rows", "reduce"]

Coefficients = Mapping[str, Tensor | float]


class Request(NamedTuple):
    """One pass over the logits: the moments to find through some views."""

    views: tuple[View, ...]
    needs: frozenset[str]
    floor: float


@dataclass(frozen=True, eq=False)
class Given:
    """A scale that has been computed already."""

    value: Tensor

    def resolve(self, coefficients: Coefficients) -> Tensor:
        return self.value


def reduce(
    logits: Tensor,
    target: Tensor | None,
    requests: Sequence[Request],
    shard: ClassShard,
    *,
    kept: Tensor | None = None,
    coefficients: Coefficients | None = None,
) -> list[Moments]:
    """The moments of whole rows, for each request, on every rank.

    Args:
        logits: (B, C', S), this rank's classes of the N = B·S rows that every rank has.
        target: hard labels (N,) among all classes, a soft target (N, C') over this rank's, or None.
        requests: the passes; ``needs`` and views are the same on every rank.
        shard: which classes these are.
        kept, coefficients: as for :func:`infoloss.kernels.eager.reduce`.

    Raises:
        RuntimeError: under ``torch.func`` or forward-mode AD.
        ValueError: a view is for another number of classes; the ranks' labels differ (where values may
            be looked at).
    """
    if transforms_active():
        raise first_order("torch.func")
    if torch.autograd.forward_ad._current_level >= 0:
        raise first_order("forward-mode AD")
    if not requests:
        return []
    if logits.dtype.itemsize < 4 and any(Normalized in map(type, one.views) for one in requests):
        logits = logits.float()  # read twice: the two gradients are added before they are rounded
    views = [_local(one.views, logits, shard, kept, coefficients or {}) for one in requests]
    parts = [
        block_moments(logits, target, shard.start, one._replace(views=local), kept, coefficients)
        for one, local in zip(requests, views, strict=True)
    ]
    maxima = torch.stack([part["maximum"].detach() for part in parts])  # (P, N)
    check = _checksum(target, maxima)
    ties = any("peak" in one.needs for one in requests)
    top, first = shard.highest(torch.cat([maxima.flatten(), check, -check]), ties=ties)
    _same_labels(top[maxima.numel() :])
    tops = top[: maxima.numel()].reshape(maxima.shape)
    owner = None if first is None else first[: maxima.numel()].reshape(maxima.shape) == shard.rank
    rows: list[Tensor] = []
    for i, (one, part) in enumerate(zip(requests, parts, strict=True)):
        moved = recentred(part, tops[i])
        if owner is not None and "peak" in moved:
            moved["peak"] = torch.where(owner[i], moved["peak"], 0)
        rows += [moved[name].to(maxima.dtype) for name in _names(one, target)]
    sums = iter(shard.sum(torch.stack(rows)).unbind(0)) if rows else iter(())
    return [_whole(one, tops[i], target, sums) for i, one in enumerate(requests)]


def _names(request: Request, target: Tensor | None) -> list[str]:
    """What is added up, in an order that every rank shares, whatever its kernel returns besides."""
    return sorted(request.needs - {"maximum"}) + (["label_masked"] if target is not None else [])


def _whole(request: Request, maximum: Tensor, target: Tensor | None, sums: Any) -> Moments:
    moments = {name: next(sums) for name in _names(request, target)}
    if "label_masked" in moments:
        moments["label_masked"] = moments["label_masked"].detach() > 0
    return {"maximum": maximum, **moments}


def check_rows(target: Tensor | None, rows: int, like: Tensor, shard: ClassShard) -> None:
    """Compare with the other ranks, which will work off the same rows in several calls of :func:`reduce`.

    Args:
        target: as for :func:`reduce`.
        rows: how many of them will be worked off.
        like: of the dtype and device of numbers per row.

    Raises:
        ValueError: the ranks' labels or rows differ (where values may be looked at).
    """
    count = torch.full((1,), rows, dtype=like.dtype, device=like.device)
    numbers = torch.cat([_checksum(target, like), count])
    extremes, _ = shard.highest(torch.cat([numbers, -numbers]), ties=False)
    _same_labels(extremes)


def _checksum(target: Tensor | None, like: Tensor) -> Tensor:
    """A number that differs, most probably, where hard labels do, (1,); exact, whatever the order."""
    if target is None or target.ndim == 2:
        return like.new_zeros(1)
    place = torch.arange(1, len(target) + 1, device=target.device) % 4093
    return ((target % 65521) * place).sum().to(like.dtype)[None]


def _same_labels(extremes: Tensor) -> None:
    highest, lowest = extremes.chunk(2)  # the lowest with its sign changed
    same = (highest == -lowest).all()
    if not values_visible(same):
        torch._assert_async(same)
    elif not same:
        raise ValueError(
            "the ranks have different targets: every rank of the group must hold the same rows. Where "
            "each rank has rows of its own (data parallel, FSDP), the classes are not sharded in this sense: "
            "gather the weight, weight.full_tensor(), or let FSDP do it"
        )


def block_moments(
    logits: Tensor,
    target: Tensor | None,
    start: int,
    request: Request,
    kept: Tensor | None = None,
    coefficients: Coefficients | None = None,
) -> Moments:
    """The moments of a block of columns, ready to be merged (:func:`infoloss.statistics.merged`).

    Args:
        logits: (B, C', S), the classes from ``start`` on; none, one or many.
        target: hard labels (N,) among all classes, a soft target (N, C') over the block's, or None.
        request: its views are those of the block's classes.
    """
    stop = start + logits.shape[1]
    if start == stop:  # one masked class adds nothing, and keeps the graph alike on every rank
        logits = pad(logits, (0, 0, 0, 1), value=-torch.inf)
        target = pad(target, (0, 1)) if target is not None and target.ndim == 2 else target
    needs = set(request.needs) | ({"exp_sum"} if "exp_logit_sum" in request.needs else set())
    label, here = target, None
    if target is not None and target.ndim == 1:
        here = (target >= start) & (target < stop)
        label = torch.where(here, target - start, 0)
        if "label_log_exp" in needs:
            needs = (needs - {"label_log_exp"}) | {"exp_sum", "label_exp"}
    options: dict[str, Any] = {"floor": request.floor, "kept": kept, "coefficients": coefficients}
    m = kernels.reduce(logits, label, request.views, sorted(needs), **options)
    if target is None:
        return m
    m.setdefault("label_masked", torch.zeros_like(m["maximum"], dtype=torch.bool))
    if here is None:
        return {**m, "label_sum": target.sum(-1, dtype=m["maximum"].dtype)}
    return _of_label(m, here, request)


def _of_label(m: Moments, here: Tensor, request: Request) -> Moments:
    """The moments of a block of which only some rows have their label ``here``, (N,) bool."""
    result = dict(m)
    for name, value in m.items():
        if name.startswith("label_"):
            result[name] = torch.where(here, value, torch.zeros((), dtype=value.dtype, device=value.device))
    if "label_log_exp" in request.needs:  # ln 1 = 0 at the label, ln floor elsewhere
        log_floor = torch.log(torch.tensor(request.floor, dtype=m["exp_sum"].dtype))
        result["label_log_exp"] = (m["exp_sum"] - result["label_exp"]) * log_floor.to(here.device)
    return {**result, "label_sum": here.to(m["maximum"].dtype)}


def _local(
    views: tuple[View, ...],
    logits: Tensor,
    shard: ClassShard,
    kept: Tensor | None,
    coefficients: Coefficients,
) -> tuple[View, ...]:
    """The views of all classes as views of this rank's."""
    local: list[View] = []
    for view in views:
        if isinstance(view, Shifted):
            if len(view.vector) != shard.total:
                raise ValueError(f"logits have {shard.total} classes, the shift is for {len(view.vector)}")
            view = replace(view, vector=view.vector.part(shard.start, shard.stop))
        elif isinstance(view, Scaled):
            factor = view.factor.resolve(coefficients)
            if isinstance(factor, Tensor) and factor.requires_grad:
                view = Scaled(Given(shard.copy(factor)))
        elif isinstance(view, Normalized):
            request = Request(tuple(local), frozenset({"logit_square_sum"}), 0.0)
            part = block_moments(logits, None, shard.start, request, kept, coefficients)
            square_sum = shard.sum(part["logit_square_sum"])
            scale = 1 / (view.tau * torch.sqrt(square_sum + SMALLEST_NORM**2))
            view = Scaled(Given(shard.copy(scale)))
        local.append(view)
    return tuple(local)


def argmax(planes: Tensor, shard: ClassShard) -> Tensor:
    """The class of the largest logit of each row, the lowest of several, (N,)."""
    wide = row_dtype(planes.dtype, planes.device)
    rows = kernels.class_rows(planes.detach())
    if rows.shape[1] == 0:
        rows = rows.new_full((len(rows), 1), -torch.inf)
    value, place = rows.max(1)
    _, first = shard.highest(value.to(wide), ties=True)
    assert first is not None
    return shard.sum(torch.where(first == shard.rank, place + shard.start, 0))
