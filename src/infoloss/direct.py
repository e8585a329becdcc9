"""Plain calls in compiled code: the loss of :mod:`infoloss.rows` without a PyTorch operation for each node.

A call is plain where the kernel can do all of it: float32 or float64 logits on the CPU, hard labels or none,
no weights, a mean, sum or row values. The term's program (:mod:`infoloss.kernels.program`) is evaluated
beside its derivatives in the moments, so that forward and backward pass are one compiled call or two each.
Everything else, and every call that would end in an error, goes the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from infoloss import kernels
from infoloss.batch import class_planes
from infoloss.kernels.program import Program, Symbol, Tape
from infoloss.rows import label_only, passes_of
from infoloss.statistics import STATISTICS, smoothed
from infoloss.views import Shifted, View
from infoloss.visibility import untraced

if TYPE_CHECKING:
    from infoloss.terms import Statistic, Term

__all__ = ["PLANS", "Plan", "make_plan", "plan_of", "reduced"]

PLANS = "_plans"
"""The attribute in which a term keeps its plans."""
REAL = (torch.float32, torch.float64)
Views = tuple[View, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """The moments of one view, and where they stand among those of all passes."""

    views: Views
    floor: float
    names: tuple[str, ...]  # of its moments
    reads: tuple[str, ...]  # which of them the term reads
    first: int
    label_only: bool

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.names))


@dataclass(frozen=True, eq=False)
class Plan:
    """How a term is computed, for one label smoothing: passes over the logits, then a program."""

    passes: tuple[Pass, ...]
    program: Program
    label_row: int  # of the first pass's label_logit among all moments; −1: the term reads no label
    moments: int


def reduced(
    term: Term,
    logits: Tensor,
    target: Tensor | None,
    *,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    denominator: Tensor | float | None,
    coefficients: Mapping[str, Tensor | float],
) -> Tensor | None:
    """The call of :meth:`infoloss.Term.__call__`, or None where it is not plain."""
    if torch.compiler.is_compiling() or not _plain(logits, target) or kernels.chosen(logits, target) != "cpu":
        return None
    numbers = (*coefficients.values(), *(() if denominator is None else (denominator,)))
    if any(map(_differentiable, numbers)) or (term.has_loss and target is None):
        return None
    if not 0 <= label_smoothing <= 1 or term.unbound - set(coefficients):
        return None
    plan = plan_of(term, label_smoothing)
    if plan is None:
        return None
    divisor = 1.0 if reduction == "sum" else None if denominator is None else float(denominator)
    call = Call(plan, target, ignore_index, reduction == "none", divisor, coefficients)
    needs_gradient = logits.requires_grad and torch.is_grad_enabled()
    try:
        if not needs_gradient:
            return Work(call, logits).result()

        def again(z: Tensor) -> Tensor:
            with kernels.use("eager"):
                return term(
                    z,
                    target,
                    ignore_index=ignore_index,
                    label_smoothing=label_smoothing,
                    reduction=reduction,
                    denominator=denominator,
                    coefficients=coefficients,
                )

        return Value.apply(logits, target, call, again)  # type: ignore[no-any-return, no-untyped-call]
    except RefusedError:
        return None


def _plain(logits: Tensor, target: Tensor | None) -> bool:
    if logits.dtype not in REAL or logits.ndim == 0 or logits.device.type != "cpu":
        return False
    if target is None:
        return True
    rows = logits.shape[:0] if logits.ndim == 1 else logits.shape[:1] + logits.shape[2:]
    return target.dtype == torch.int64 and target.shape == rows and target.device.type == "cpu"


def _differentiable(value: Tensor | float) -> bool:
    """Whether a number needs a gradient, or is none."""
    if not isinstance(value, Tensor):
        return False
    return value.ndim > 0 or value.device.type != "cpu" or (value.requires_grad and torch.is_grad_enabled())


class RefusedError(Exception):
    """A label out of range, or a row wholly masked: the general way says so."""


@dataclass(frozen=True, eq=False)
class Call:
    """What is asked of the rows."""

    plan: Plan
    target: Tensor | None
    ignored: int
    by_row: bool
    divisor: float | None  # None: the number of rows that count
    coefficients: Mapping[str, Tensor | float]


class Work:
    """The passes over some logits, and what they have found."""

    def __init__(self, call: Call, logits: Tensor) -> None:
        from infoloss.kernels import fused, host
        from infoloss.kernels.inputs import Inputs

        plan = call.plan
        self.call, self.host, self.shape = call, host, logits.shape
        self.dtype = logits.dtype
        z = class_planes(logits.detach())
        label = None if call.target is None else call.target.reshape(-1)
        self.packed = np.empty((plan.moments, z.shape[0] * z.shape[2]))
        self.passes = []
        for one in plan.passes:
            inputs = Inputs(z, None, label, None, None, one.floor, one.names, ignored=call.ignored)
            if one.views:
                inputs = fused.seen_through("cpu", inputs, one.views, call.coefficients)
            given, peaks, wrong = host.arrays(inputs), None, 0
            if one.label_only:
                host.read_labels(given, self.packed[one.rows])
            else:
                peaks, wrong = host.read(given, one.names, self.packed[one.rows])
            if wrong:
                raise RefusedError
            self.passes.append((one.rows, given, peaks))
        names = plan.program.parameters
        parameters = np.array([float(call.coefficients[name]) for name in names], np.float64)
        self.value, self.slopes, self.total, self.number, empty = host.values(
            plan.program, parameters, self.packed, 0, plan.label_row, self.passes[0][1]
        )
        if empty:
            raise RefusedError

    @property
    def divisor(self) -> float:
        return float(self.number) if self.call.divisor is None else self.call.divisor

    def result(self) -> Tensor:
        """The value of each row, or their sum over the divisor; 0 where that is 0."""
        if self.call.by_row:
            shape = self.shape[:0] if len(self.shape) == 1 else self.shape[:1] + self.shape[2:]
            return torch.from_numpy(self.value).to(self.dtype).reshape(shape)
        return torch.tensor(self.total / self.divisor if self.divisor else 0.0, dtype=self.dtype)

    def gradient(self, logits: Tensor, slope: Tensor) -> Tensor:
        """The gradient of the logits from that of the result."""
        slopes, factor = self.slopes, 1.0
        if self.call.by_row:
            slopes = slopes * slope.detach().reshape(-1).numpy()
        else:
            factor = slope.item() / self.divisor if self.divisor else 0.0
        z = class_planes(logits.detach())
        whole = torch.empty_like(z)
        for i, (rows, given, peaks) in enumerate(self.passes):
            if peaks is None:
                self.host.add_label_gradient(given, self.packed[rows], slopes[rows], factor, whole)
                continue
            g = torch.empty_like(z) if i else whole
            nothing = self.packed[0, :0]
            self.host.spread(given, self.packed[rows], peaks, slopes[rows], factor, g, nothing)
            if i:
                whole.add_(g)
        return whole.view(logits.shape)


class Value(torch.autograd.Function):
    """The result of a call, differentiable in the logits; higher derivatives are those of ``again``."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor | None, call: Call, again: Callable[[Tensor], Tensor]
    ) -> Tensor:
        work = Work(call, logits)
        ctx.save_for_backward(logits, target)
        ctx.call, ctx.again, ctx.work = call, again, work
        return work.result()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, _ = ctx.saved_tensors  # raises where one of them has been changed in place
        if torch.is_grad_enabled() or not untraced(grad):
            create = torch.is_grad_enabled()
            with torch.enable_grad():
                z = logits.view_as(logits)
                (g,) = torch.autograd.grad(ctx.again(z), z, grad, create_graph=create)
            return g, None, None, None
        work, ctx.work = ctx.work or Work(ctx.call, logits), None  # let go of what it holds
        return work.gradient(logits, grad), None, None, None


def plan_of(term: Term, smoothing: float) -> Plan | None:
    """The plan of a term, made once."""
    plans = term.__dict__.setdefault(PLANS, {})
    if smoothing not in plans:
        plans[smoothing] = make_plan(term, smoothing)
    return plans[smoothing]  # type: ignore[no-any-return]


def make_plan(term: Term, smoothing: float) -> Plan | None:
    """The plan of a term; None where it takes the general way whatever the call."""
    from infoloss.kernels import fused

    tensors: list[Tensor] = []
    term.with_tensors(lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    if tensors or (smoothing and term.soft == "none"):
        return None
    passes = passes_of(term.readings(), smoothing=smoothing > 0)
    masking = (v for one in passes for v in one.views if isinstance(v, Shifted) and v.masked() is not None)
    if not passes or not all(fused.supports(one.views) for one in passes) or any(masking):
        return None
    tape, found, first = Tape(), [], 0
    for one in passes:
        reads = ("maximum", *one.needs, *fused.left_by(one.views))
        needs = (*reads, *(("label_logit",) if term.has_loss else ()))  # that tells if the label is masked
        names = tuple(name for name in dict.fromkeys(needs) if name not in fused.CONSTANT)
        found.append(
            Pass(one.views, one.floor or 0.0, names, reads, first, label_only(one, passes) and not smoothing)
        )
        first += len(names)
    program = tape.program(term.value(_Symbols(tape, found, smoothing)))  # type: ignore[arg-type]
    label_row = found[0].names.index("label_logit") if term.has_loss else -1
    return Plan(tuple(found), program, label_row, first)


class _Symbols:
    """What a term reads of :class:`infoloss.rows.Rows`, as symbols."""

    def __init__(self, tape: Tape, passes: list[Pass], smoothing: float) -> None:
        self.coefficients = _Parameters(tape)
        self.passes = passes
        self.moments = []
        for one in passes:
            m: Any = {
                name: tape.moment(one.first + i) for i, name in enumerate(one.names) if name in one.reads
            }
            m |= {"label_entropy": tape.constant(0.0), "label_square_sum": tape.constant(1.0)}
            if "offset" in m:
                m["maximum"] = m["maximum"] + m["offset"]
            self.moments.append(smoothed(m, smoothing, one.floor) if smoothing else m)

    def value(self, views: Views, statistic: Statistic) -> Symbol:
        for one, moments in zip(self.passes, self.moments, strict=True):
            if one.views == views and statistic.floor in (None, one.floor or None):
                return STATISTICS[statistic.name].value(moments)  # type: ignore[return-value]
        raise KeyError(statistic)


class _Parameters(dict[str, Any]):
    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __missing__(self, name: str) -> Symbol:
        return self.tape.parameter(name)
