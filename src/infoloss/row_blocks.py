"""The rows of a linear head: a term on logits that are made, block by block, from hidden states.

A block is the ordinary call on a block of logits (:mod:`infoloss.rows`); this module cuts what belongs to
the rows, leaves out the rows that do not count, and knows the mean's divisor before the first block.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infoloss import kernels
from infoloss.batch import check_tensors, make_batch
from infoloss.kernels import linear, sharded
from infoloss.kernels.class_shard import ClassShard, located_head
from infoloss.rows import Rows, Value, parts, passes_of, read, row_values
from infoloss.views import Normalized, Shifted, row_dtype

if TYPE_CHECKING:
    from infoloss.terms import Term

__all__ = ["RowBlocks", "make_row_blocks"]


class StandIns:
    """Leaves that take the place of tensors with a history, so that each block is differentiated alone.

    Args:
        needed: whether there are blocks; otherwise each tensor stands for itself.
    """

    def __init__(self, needed: bool = True) -> None:
        self.needed = needed
        self.outside: list[Tensor] = []
        self.inside: list[Tensor] = []
        self.constant: list[Tensor] = []  # the others

    def __call__(self, tensor: Any) -> Any:
        """What to compute with instead of ``tensor``."""
        differentiated = isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled()
        if not (self.needed and differentiated):
            if isinstance(tensor, Tensor):
                self.constant.append(tensor)
            return tensor
        for known, leaf in zip(self.outside, self.inside, strict=True):
            if known is tensor:
                return leaf
        self.outside.append(tensor)
        self.inside.append(tensor.detach().requires_grad_())
        return self.inside[-1]


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """Hidden states with targets and weights, all of the target's positions; some of them count."""

    head: linear.Head  # of the positions that count
    places: Tensor | None  # (N,) which of the positions count; None: all
    target: Tensor | None  # hard (P,) or soft (P, C) for the P positions and the head's classes
    weight: Tensor | None  # one number for each class of all ranks
    sample_weight: Tensor | None  # (P,)
    options: Mapping[str, Any]  # ignore_index, label_smoothing
    shape: torch.Size  # of the positions
    shift: int

    @property
    def wide(self) -> torch.dtype:
        """The dtype of numbers per row."""
        return row_dtype(self.head.dtype, self.head.hidden.device)

    def at(self, part: slice) -> slice | Tensor:
        """The positions of a part of the rows."""
        return part if self.places is None else self.places[part]

    def of_rows(self, logits: Tensor, part: slice, **replaced: Any) -> tuple[Any, ...]:
        """Logits, target and options of the ordinary call on a part of the rows."""
        at = self.at(part)
        options = {"weight": self.weight, "sample_weight": self.sample_weight, **self.options, **replaced}
        if options["sample_weight"] is not None:
            options["sample_weight"] = options["sample_weight"][at]
        return logits, None if self.target is None else self.target[at], options

    def stand_in(self, rows: int) -> Tensor:
        """Logits of the right shape and dtype that take no memory."""
        return self.head.hidden.new_zeros((), dtype=self.head.dtype).expand(rows, len(self.head.weight))

    def in_tiles(self, term: Term) -> bool:
        """Whether the logits are made a few classes at a time, for all rows, rather than row by row.

        One pass of the GPU's kernel can: with hard labels, and through views that no other pass precedes.
        """
        hard = self.target is None or self.target.ndim == 1
        smoothing = self.options["label_smoothing"] > 0
        if not hard or (smoothing and self.weight is not None) or self.head.shard is not None:
            return False
        passes = passes_of(term.readings(), smoothing=smoothing)
        if len(passes) != 1 or len(self.head) * len(self.head.weight) <= linear.BLOCK:
            return False
        views = passes[0].views
        return (
            kernels.chosen(self.stand_in(len(self.head)), self.target) == "gpu"
            and kernels.fused.supports(views)
            and not any(isinstance(view, Normalized) for view in views)
            and all(view.masked() is None for view in views if isinstance(view, Shifted))
        )

    def _of_all(self, of_part: linear.Value) -> Tensor:
        return of_part(self.stand_in(len(self.head)), slice(0, len(self.head)))

    def divisors(self) -> tuple[Tensor, Tensor]:
        """Σ s_i ω_i and Σ s_i over the rows that count."""
        totals = []
        for part in self.head.blocks():
            rows = part.stop - part.start
            z, target, options = self.of_rows(self.stand_in(rows), part, label_smoothing=0.0)
            batch = make_batch(z, target, shard=self.head.shard, **options)
            ones = torch.ones(rows, dtype=self.wide, device=z.device)
            totals.append(torch.stack([b.divisor(ones) for b in (batch, replace(batch, omega=None))]))
        both = torch.stack(totals).sum(0)
        return both[0], both[1]

    def reduced(
        self, term: Term, reduction: str, denominator: Value | None, coefficients: Mapping[str, Value]
    ) -> Tensor:
        """The term over all rows, as :meth:`infoloss.Term.__call__`."""
        if reduction == "none":
            return self.by_row(term, coefficients, lambda term, rows: row_values(term, rows)[None])[0]
        if denominator is None and reduction == "mean":
            denominator = self.divisors()[0]
        stand_ins = StandIns(not self.in_tiles(term))
        divisor = stand_ins(denominator)

        def value(term: Term, rows: Rows) -> Tensor:
            return rows.batch.reduced(row_values(term, rows), reduction, divisor)[None]

        one = self.total(term, coefficients, value, stand_ins)
        return one.sum().to(self.head.dtype)  # not one[0]: FSDP warns of modules that return a view

    def parts(self, term: Term, denominator: Value | None, coefficients: Mapping[str, Value]) -> Any:
        """The named tuple of :meth:`infoloss.Term.parts`."""
        divisor, count = self.divisors()
        stand_ins = StandIns()
        divisor = stand_ins(divisor if denominator is None else denominator)
        fields: tuple[str, ...] = ()

        def value(term: Term, rows: Rows) -> Tensor:
            nonlocal fields
            result = parts(term, rows, divisor, count)
            fields = result._fields
            return torch.stack([number.to(self.wide) for number in result])

        found = self.total(term, coefficients, value, stand_ins).to(self.head.dtype)
        loss, *entries, accuracy = found[0], *found.detach()[1:]
        numbers = dict(zip(fields, (loss, *entries, accuracy.float()), strict=True))
        return namedtuple("Parts", numbers)(**numbers)

    def total(
        self,
        term: Term,
        coefficients: Mapping[str, Value],
        value: Callable[[Term, Rows], Tensor],
        stand_ins: StandIns,
    ) -> Tensor:
        """Σ value over all blocks, (K,)."""
        of_part = self._of_part(term, coefficients, value, stand_ins)
        if not stand_ins.needed:
            return self._of_all(of_part)
        return linear.total(self.head, of_part, stand_ins.outside, stand_ins.inside, stand_ins.constant)

    def by_row(
        self, term: Term, coefficients: Mapping[str, Value], value: Callable[[Term, Rows], Tensor]
    ) -> Tensor:
        """The values (K, n) of all blocks, weighted, of shape (K, …); 0 for a row that does not count."""

        def weighted(term: Term, rows: Rows) -> Tensor:
            values = value(term, rows)
            return replace(rows.batch, shape=values.shape).reduced(values, "none")

        stand_ins = StandIns(not self.in_tiles(term))
        of_part = self._of_part(term, coefficients, weighted, stand_ins)
        if stand_ins.needed:
            found = linear.each(self.head, of_part, stand_ins.outside, stand_ins.inside, stand_ins.constant)
        else:
            found = self._of_all(of_part)
        found = found.to(self.head.dtype)
        if self.places is not None:
            found = found.new_zeros(len(found), self.shape.numel()).index_copy(1, self.places, found)
        found = found.reshape(len(found), *self.shape)
        return found[..., self.shift :] if self.shift else found

    def _of_part(
        self,
        term: Term,
        coefficients: Mapping[str, Value],
        value: Callable[[Term, Rows], Tensor],
        stand_ins: StandIns,
    ) -> linear.Value:
        term = term.with_tensors(stand_ins)
        coefficients = {name: stand_ins(one) for name, one in coefficients.items()}
        inner = replace(
            self,
            target=stand_ins(self.target),
            weight=stand_ins(self.weight),
            sample_weight=stand_ins(self.sample_weight),
        )
        positions = self.shape.numel()

        def of_part(logits: Tensor, part: slice) -> Tensor:
            def cut(tensor: Any) -> Any:
                if not isinstance(tensor, Tensor) or tensor.ndim == 0:
                    return tensor
                if tensor.shape != (positions,):
                    raise ValueError(
                        "a coefficient is a number or has one value a row "
                        f"({positions}), got shape {tuple(tensor.shape)}"
                    )
                return tensor[self.at(part)]

            z, target, options = inner.of_rows(logits, part, group=self.head.shard)
            if not stand_ins.needed:
                options["head"] = self.head
            here = term.with_tensors(cut)
            rows = read(here, z, target, {name: cut(one) for name, one in coefficients.items()}, options)
            # without a shape: an index into this part would name the wrong row in a message
            rows.batch = replace(rows.batch, dtype=self.wide, shape=torch.Size(()))
            return value(here, rows)

        return of_part


def make_row_blocks(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor | None,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    shift: int = 0,
    group: Any = None,
) -> RowBlocks:
    """Check the arguments of a call and find the rows that count.

    Raises:
        TypeError: an argument is no tensor, or its dtype does not fit.
        ValueError: a shape or value does not fit.
        IndexError: a label is out of range (where values may be looked at).
        RuntimeError: under ``torch.func`` or forward-mode AD.
    """
    linear.refuse_transforms()
    check_tensors(hidden=hidden, linear_weight=linear_weight, linear_bias=linear_bias, target=target)
    hidden, linear_weight, linear_bias, target, shard = located_head(
        hidden, linear_weight, linear_bias, target, group
    )
    _check_head(hidden, linear_weight, linear_bias, shard)
    hidden, linear_weight, linear_bias = _autocast(hidden, linear_weight, linear_bias)
    shape, classes = hidden.shape[:-1], len(linear_weight)
    if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0 or (shift and not shape):
        raise ValueError(f"shift must be a whole number ≥ 0 along the last axis of the target, got {shift!r}")
    positions = torch.arange(shape.numel(), device=hidden.device).reshape(shape)
    places = positions[..., shift:].reshape(-1) if shift else None  # nobody predicts the first positions
    if target is not None and target.is_floating_point():
        _check_soft(target, shape, classes)
        target = target.reshape(shape.numel(), classes)
        make_batch(_no_logits(hidden, classes), None, weight=weight, sample_weight=sample_weight, shard=shard)
    else:
        if target is not None and shift and target.shape == shape:
            target = target.clone()
            target[..., :shift] = ignore_index
        checked = make_batch(
            _no_logits(hidden, classes),
            target,
            weight=weight,
            ignore_index=ignore_index,
            sample_weight=sample_weight,
            shard=shard,
        )
        if checked.kept is not None and not _captured(checked.kept):
            places = checked.kept.nonzero().squeeze(1)
        target = None if target is None else target.reshape(-1)
    rows = places if places is None or not shift else places - shift
    head = linear.Head(hidden.reshape(-1, hidden.shape[-1]), linear_weight, linear_bias, rows, shard)
    if shard is not None:
        per_row = hidden.new_empty(0, dtype=row_dtype(head.dtype, hidden.device))
        sharded.check_rows(target, len(head), per_row, shard)
    return RowBlocks(
        head,
        places,
        target,
        weight,
        None if sample_weight is None else sample_weight.reshape(-1),
        {"ignore_index": ignore_index, "label_smoothing": label_smoothing},
        shape,
        shift,
    )


def _captured(tensor: Tensor) -> bool:
    """Whether a CUDA graph is being recorded, in which nothing may wait for a number."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _no_logits(hidden: Tensor, classes: int) -> Tensor:
    """Logits of the right shape that take no memory, to check the other arguments against."""
    shape = hidden.shape[:-1]
    return hidden.new_zeros(()).expand(*shape[:1], classes, *shape[1:])


def _check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, shard: ClassShard | None) -> None:
    fits = hidden.ndim > 0 and weight.ndim == 2 and hidden.shape[-1] == weight.shape[1]
    if not fits or (shard is None and not len(weight)):
        raise ValueError(
            "hidden must have shape (…, D) and linear_weight (C, D), "
            f"got {tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear_bias must have shape ({len(weight)},), got {tuple(bias.shape)}")
    tensors = {"hidden": hidden, "linear_weight": weight, "linear_bias": bias}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    one = len(set(dtypes.values())) == 1 or torch.is_autocast_enabled(hidden.device.type)
    if not one or not all(dtype.is_floating_point for dtype in dtypes.values()):
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"hidden states and head must have one floating-point dtype, got {found}")


def _check_soft(target: Tensor, shape: torch.Size, classes: int) -> None:
    if target.shape != (*shape, classes):
        raise ValueError(
            "a target of probabilities must have the shape of the head's output "
            f"{(*shape, classes)}, got {tuple(target.shape)}"
        )
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError("a target of probabilities has no gradient here: give target.detach()")


def _autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """What autocast makes of the arguments of a linear layer."""
    device = next(t for t in tensors if t is not None).device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)
