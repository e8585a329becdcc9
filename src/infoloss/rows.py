"""From a term and a batch to numbers: the statistics of the rows, the row values, the result."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infoloss import kernels
from infoloss.batch import Batch, check_tensors, class_planes, make_batch, place
from infoloss.kernels import sharded
from infoloss.kernels.class_shard import ClassShard, located
from infoloss.kernels.linear import Head
from infoloss.statistics import SMOOTHING, STATISTICS, Moments, smoothed
from infoloss.views import Shifted, View
from infoloss.visibility import values_visible

if TYPE_CHECKING:
    from infoloss.terms import Statistic, Term

__all__ = ["Pass", "Rows", "label_only", "log_probabilities", "parts", "passes_of", "read", "row_values"]

Value = Tensor | float
Views = tuple[View, ...]


@dataclass(eq=False)
class Pass:
    """What is read of the logits through one view, with one floor (None: any)."""

    views: Views
    floor: float | None
    needs: list[str]
    moments: Moments = field(default_factory=dict)

    @property
    def reads_label_only(self) -> bool:
        """Whether it reads nothing of a row but the label's own logit."""
        return self.views == () and {"label_logit", "label_logit_square"}.issuperset(self.needs)

    def serves(self, views: Views, floor: float | None) -> bool:
        """Whether a statistic with this floor, read through these views, belongs to it."""
        return self.views == views and (floor is None or self.floor is None or self.floor == floor)


def passes_of(readings: Iterable[tuple[Views, Statistic]], *, smoothing: bool) -> list[Pass]:
    """The passes that give every statistic that is read; with smoothing, what that needs besides."""
    passes: list[Pass] = []
    for views, statistic in readings:
        needs = list(STATISTICS[statistic.name].needs)
        if smoothing:
            needs += [more for need in tuple(needs) for more in SMOOTHING.get(need, ())]
        one = next((one for one in passes if one.serves(views, statistic.floor)), None)
        if one is None:
            passes.append(Pass(views, statistic.floor, needs))
        else:
            one.needs.extend(needs)
            one.floor = one.floor if statistic.floor is None else statistic.floor
    return sorted(passes, key=lambda one: one.reads_label_only)  # the first one knows whether a row is masked


def label_only(one: Pass, passes: list[Pass]) -> bool:
    """Whether a pass reads nothing but the label's logit, beside another that reads whole rows."""
    return one.reads_label_only and one is not passes[0]


class Rows:
    """A batch and the statistics of its rows, one pass for each distinct view.

    Args:
        batch: the rows.
        readings: every statistic that will be read, with the views it is read through.
        coefficients: values of named coefficients.
        overwrite: whether the gradient may be written over the logits, if one pass is all that reads them.
        head: what the logits of the batch stand for, if they have not been made.
    """

    def __init__(
        self,
        batch: Batch,
        readings: Iterable[tuple[Views, Statistic]],
        coefficients: Mapping[str, Value],
        *,
        overwrite: bool = False,
        head: Head | None = None,
    ) -> None:
        self.batch = batch
        self.coefficients = coefficients
        self.overwrite, self.head = overwrite, head
        self.passes = passes_of(readings, smoothing=batch.smoothing > 0)
        # half types once for several passes, so that their gradients are added before they are rounded
        several = len(self.passes) > 1 and batch.logits.dtype.itemsize < 4
        logits = batch.logits.float() if several else batch.logits
        for one, moments in zip(self.passes, self._moments(logits), strict=True):
            one.moments = moments
            if batch.smoothing:
                one.moments = smoothed(moments, batch.smoothing, one.floor or 0.0)

    def _moments(self, logits: Tensor) -> Iterable[Moments]:
        """The moments of each pass."""
        batch, kept = self.batch, self.batch.read
        if batch.shard is not None:
            requests = [sharded.Request(p.views, frozenset(p.needs), p.floor or 0.0) for p in self.passes]
            return sharded.reduce(
                logits, batch.target, requests, batch.shard, kept=kept, coefficients=self.coefficients
            )
        hard = batch.target is not None and batch.target.ndim == 1 and not batch.smoothing
        return (
            kernels.label_moments(logits, batch.target, kept=kept)  # type: ignore[arg-type]
            if hard and label_only(one, self.passes)
            else kernels.reduce(
                logits,
                batch.target,
                one.views,
                one.needs,
                floor=one.floor or 0.0,
                kept=kept,
                coefficients=self.coefficients,
                overwrite=self.overwrite and len(self.passes) == 1,
                head=self.head,
            )
            for one in self.passes
        )

    def value(self, views: Views, statistic: Statistic) -> Tensor:
        """The statistic of each row, (N,)."""
        one = next(one for one in self.passes if one.serves(views, statistic.floor))
        return STATISTICS[statistic.name].value(one.moments)

    def empty(self) -> Tensor | None:
        """Where every class of a row that counts is masked, (N,); None where no statistic was read.

        Raises:
            ValueError: there is such a row, and values may be looked at.
        """
        if not self.passes:
            return None
        empty = self.passes[0].moments["maximum"] == -torch.inf
        if values_visible(empty) and empty.any():
            at = place(empty, self.batch.shape) or " that was given"
            raise ValueError(f"every class of the row of logits{at} is masked (−inf)")
        return empty

    def label_masked(self) -> Tensor | None:
        """Where some view masks a class that the target wants, (N,); None where nothing is masked."""
        masked = [p.moments["label_masked"] for p in self.passes if "label_masked" in p.moments]
        return torch.stack(masked).any(0) if masked else None


def read(
    term: Term,
    logits: Tensor,
    target: Tensor | None,
    coefficients: Mapping[str, Value] | None,
    options: Mapping[str, Any],
) -> Rows:
    """The statistics that ``term`` needs of a batch.

    Args:
        term, logits, target, coefficients: as in :meth:`infoloss.Term.__call__`.
        options: as in :func:`infoloss.batch.make_batch`, ``group``, ``overwrite_logits`` and ``head``.

    Raises:
        TypeError: logits or target are no tensors.
        ValueError: a name without a value, a missing target, or a soft one that has no meaning here.
    """
    check_tensors(logits=logits, target=target)
    coefficients = coefficients or {}
    term.check_bound(coefficients)
    if target is None and term.has_loss:
        raise ValueError(f"{term} reads the target: call it with (logits, target)")
    readings = list(term.readings())
    options = dict(options)
    overwrite, head = options.pop("overwrite_logits", False), options.pop("head", None)
    axis = 0 if logits.ndim == 1 else 1
    logits, target, shard = located(
        logits, target, options.pop("group", None), axis=axis, names=("logits", "target")
    )
    batch = make_batch(_masked(logits, readings, shard), target, shard=shard, **options)
    if batch.soft and term.soft == "none":
        names = ", ".join(e.name for e in term.named() if e.soft == "none") or str(term)
        raise ValueError(
            f"{names} is defined for class indices only: it takes neither probabilities as target "
            "nor label_smoothing"
        )
    return Rows(batch, readings, coefficients, overwrite=overwrite, head=head)


def _masked(logits: Tensor, readings: Iterable[tuple[Views, Statistic]], shard: ClassShard | None) -> Tensor:
    """The logits without the classes that some view masks, so that every statistic leaves them out."""
    for view in dict.fromkeys(view for views, _ in readings for view in views):
        gone = view.masked() if isinstance(view, Shifted) else None
        if gone is not None:
            gone = gone if shard is None else shard.own(gone, "a shift, counts or prior")
            classes = -1 if logits.ndim == 1 else 1
            shape = [len(gone) if axis == classes % logits.ndim else 1 for axis in range(logits.ndim)]
            logits = logits.masked_fill(gone.to(logits.device).reshape(shape), -torch.inf)
    return logits


def row_values(term: Term, rows: Rows, views: Views = ()) -> Tensor:
    """The value of each row before any weight: inf where the label is masked, nan where every class is."""
    empty = rows.empty()
    value = term.value(rows, views)
    if not isinstance(value, Tensor) or value.ndim == 0:
        device = rows.batch.logits.device
        value = torch.zeros(len(rows.batch), dtype=torch.float64, device=device) + value
    masked = rows.label_masked()
    if masked is not None and term.has_loss:
        value = torch.where(masked, torch.inf, value)
    if empty is not None and not values_visible(empty):
        value = torch.where(empty, torch.nan, value)
    return value


def parts(term: Term, rows: Rows, denominator: Tensor | float | None, count: Tensor | None = None) -> Any:
    """The named tuple of :meth:`infoloss.Term.parts`; ``count`` replaces the divisor of the accuracy."""
    batch = rows.batch
    result = {"loss": batch.reduced(row_values(term, rows), "mean", denominator)}
    for node, views in term.named_with_views():
        name, repeat = node.name, 2
        while name in result:
            name, repeat = f"{node.name}_{repeat}", repeat + 1
        result[name] = batch.reduced(row_values(node, rows, views), "mean", denominator).detach()
    result["accuracy"] = _accuracy(batch, count)
    return namedtuple("Parts", result)(**result)


def _accuracy(batch: Batch, count: Tensor | None) -> Tensor:
    if batch.given is None:
        return torch.full((), torch.nan, device=batch.logits.device)
    label = batch.given if batch.given.ndim == 1 else _argmax(batch.given[:, :, None], batch.shard)
    right = (_argmax(batch.logits, batch.shard) == label).to(torch.float64)
    return replace(batch, mass=None, omega=None, dtype=torch.float32).reduced(right, "mean", count)


def _argmax(planes: Tensor, shard: ClassShard | None) -> Tensor:
    """The class of the largest number of each row, (N,)."""
    return planes.detach().argmax(1).reshape(-1) if shard is None else sharded.argmax(planes, shard)


def log_probabilities(term: Term, logits: Tensor, coefficients: Mapping[str, Value]) -> Tensor:
    """ln p(class|row) of :meth:`infoloss.Term.log_probabilities`, of the logits' shape."""
    term.check_bound(coefficients)
    link, views = term.link(())
    x, a = kernels.viewed(kernels.class_rows(class_planes(logits)), views, coefficients)
    log_q = torch.log_softmax(x, -1) if link is None else link(x + a[:, None].to(x.dtype))
    if logits.ndim == 1:
        return log_q[0]
    return log_q.reshape(logits.movedim(1, -1).shape).movedim(-1, 1)
