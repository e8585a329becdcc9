"""Plain calls in compiled code: the loss of :mod:`infoloss.rows` without a PyTorch operation for each node.

A call is plain where the kernel can do all of it: float32 or float64 logits on the CPU, or any on a GPU if
one pass is enough; hard labels or none, no weights, a mean, sum or row values. The term's program
(:mod:`infoloss.kernels.program`) is evaluated beside its derivatives in the moments, so that forward and
backward pass are one compiled call or two each. Everything else, and every call on the CPU that would end in
an error, goes the general way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from infoloss import kernels
from infoloss.batch import class_planes
from infoloss.kernels.inputs import module, overwritable, overwritten
from infoloss.kernels.memory import unwritten
from infoloss.kernels.program import Program, Symbol, Tape
from infoloss.rows import label_only, passes_of
from infoloss.statistics import STATISTICS, smoothed
from infoloss.views import Normalized, Shifted, View
from infoloss.visibility import batched

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from infoloss.terms import Statistic, Term

__all__ = ["PLANS", "Plan", "make_plan", "plan_of", "reduced"]

PLANS = "_plans"
"""The attribute in which a term keeps its plans."""
MISSING: Any = object()
SMALL = 1 << 14
"""Logits up to which the gradient is computed beside the value; it is kept until the backward pass."""
REAL = (torch.float32, torch.float64)
EPSILON = "label smoothing"
"""The program's parameter of that meaning; no coefficient can have this name."""
Views = tuple[View, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """The moments of one view, and where they stand among those of all passes."""

    views: Views
    floor: float
    names: tuple[str, ...]  # of its moments
    reads: tuple[str, ...]  # which of them the term reads
    rows: slice  # of its moments among those of all passes
    label_only: bool
    constant: dict[tuple[torch.dtype, int], tuple[Any, ...]] = field(default_factory=dict)
    # what every call reads whose logits have this dtype and so many classes


@dataclass(frozen=True, eq=False)
class Plan:
    """How a term is computed, with or without label smoothing: passes over the logits, then a program."""

    passes: tuple[Pass, ...]
    program: Program
    label_row: int  # of the first pass's label_logit among all moments; −1: the term reads no label
    moments: int
    unbound: frozenset[str]
    has_loss: bool
    host: Any  # the module that calls the CPU's kernel; None where that is not installed

    @cached_property
    def alone(self) -> bool:
        """Whether there is one pass."""
        return len(self.passes) == 1

    @cached_property
    def spared(self) -> NDArray[np.bool_]:
        """The moments in which the kernel asks for no derivative: they say how a row was read."""
        names = [name for one in self.passes for name in one.names]
        return np.array([name in ("maximum", "centre", "scale") for name in names])

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """How many moments there are, whether "peak" is among them, and ``label_row``."""
        return self.moments, int("peak" in self.passes[0].names), self.label_row


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
    overwrite_logits: bool,
) -> Tensor | None:
    """The call of :meth:`infoloss.Term.__call__`, or None where it is not plain."""
    if torch.compiler.is_compiling() or not _plain(logits, target):
        return None
    kernel = kernels.chosen(logits, target)
    if kernel == "eager" or (kernel == "cpu" and logits.dtype not in REAL):
        return None
    plans = term.__dict__.get(PLANS)
    plan = plans.get(label_smoothing > 0, MISSING) if plans else MISSING
    if plan is MISSING:
        plan = plan_of(term, label_smoothing > 0)
    if plan is None or (target is None and plan.has_loss) or not plan.unbound <= coefficients.keys():
        return None
    if not all(map(_constant, coefficients.values())) or not _constant(denominator):
        return None
    divisor = 1.0 if reduction == "sum" else None if denominator is None else float(denominator)
    if not 0 <= label_smoothing <= 1 or divisor != divisor:
        return None
    over = overwrite_logits and overwritable(logits)
    numbers = {name: float(value) for name, value in coefficients.items()}
    call = Call(term, plan, target, ignore_index, label_smoothing, reduction, divisor, numbers, over)
    if kernel == "gpu":
        return on_device(call, logits)
    try:
        if logits.requires_grad and torch.is_grad_enabled():
            return Value.apply(logits, target, call)  # type: ignore[no-any-return, no-untyped-call]
        return Work(call, logits, differentiable=False).result()
    except RefusedError:
        return None


def _plain(logits: Tensor, target: Tensor | None) -> bool:
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim == 0:
        return False
    if target is None:
        return True
    if not isinstance(target, Tensor) or target.dtype != torch.int64 or target.device != logits.device:
        return False
    if logits.ndim == 2:
        return target.ndim == 1 and len(target) == len(logits)
    return target.shape == (logits.shape[:0] if logits.ndim == 1 else logits.shape[:1] + logits.shape[2:])


def _constant(value: Tensor | float | None) -> bool:
    """Whether a coefficient is one number that needs no gradient."""
    if not isinstance(value, Tensor):
        return True
    return value.ndim == 0 and not value.requires_grad and value.device.type == "cpu"


class RefusedError(Exception):
    """A label out of range, or a row wholly masked: the general way says so."""


class Call(NamedTuple):
    """What is asked of the rows."""

    term: Term
    plan: Plan
    target: Tensor | None
    ignored: int
    smoothing: float
    reduction: str
    divisor: float | None  # None: the number of rows that count
    coefficients: Mapping[str, float]
    overwrite: bool  # whether the gradient may be written over the logits

    def parameters(self) -> list[float]:
        """The numbers that the program is given."""
        known = {**self.coefficients, EPSILON: self.smoothing}
        return [known[name] for name in self.plan.program.parameters]

    def generally(self, logits: Tensor) -> Tensor:
        """The same call, differentiable to any order."""
        with kernels.use("eager"):
            return self.term(
                logits,
                self.target,
                ignore_index=self.ignored,
                label_smoothing=self.smoothing,
                reduction=self.reduction,
                denominator=self.divisor if self.reduction == "mean" else None,
                coefficients=self.coefficients,
            )


class Work:
    """The passes over some logits, and what they have found."""

    __slots__ = (
        "call",
        "dtype",
        "host",
        "number",
        "packed",
        "passes",
        "shape",
        "slopes",
        "small",
        "total",
        "value",
    )

    def __init__(self, call: Call, logits: Tensor, *, differentiable: bool) -> None:
        plan, target, host = call.plan, call.target, call.plan.host
        self.call, self.host, self.shape, self.dtype = call, host, logits.shape, logits.dtype
        z = logits.detach() if logits.ndim == 2 else class_planes(logits.detach())
        memory, layout = host.memory(z)
        label = host.NO_LABELS if target is None else target.reshape(-1).numpy()
        alike = (self.dtype, layout[1])
        self.small: Tensor | None = None  # the gradient, if it has been computed already
        if differentiable and plan.alone and layout[0] * layout[1] <= SMALL and call.reduction != "none":
            constant = plan.passes[0].constant.get(alike) or _constants(plan.passes[0], z, call)
            self._step((memory, layout, label, call.ignored, *constant), torch.empty_like(z))
            return
        self.packed = np.empty((plan.moments, layout[0]))
        self.passes: list[tuple[slice, Any, Any]] = []
        for one in plan.passes:
            own = host.whole(layout) if one.views else layout
            constant = one.constant.get(alike) or _constants(one, z, call)
            given = (memory, own, label, call.ignored, *constant)
            peaks, wrong = None, 0
            if one.label_only:
                host.read_labels(given, self.packed[one.rows])
            else:
                peaks, wrong = host.read(given, one.names, self.packed[one.rows])
            if wrong:
                raise RefusedError
            self.passes.append((one.rows, given, peaks))
        # beside its derivative a moment is needed no more, but for labels that are read alone
        self.slopes = self.packed if plan.alone else np.empty_like(self.packed)
        self.value, self.total, self.number, wrong = host.values(
            plan.program,
            self._parameters(),
            self.packed,
            self.slopes,
            plan.spared,
            plan.label_row,
            given,
            by_row=call.reduction == "none",
        )
        if wrong:
            raise RefusedError

    def _step(self, given: Any, g: Tensor) -> None:
        plan, divisor = self.call.plan, self.call.divisor
        numbers = self._parameters()
        self.total, self.number, wrong = self.host.step(
            given, plan.sizes, plan.spared, plan.program, numbers, math.nan if divisor is None else divisor, g
        )
        if wrong:
            raise RefusedError
        self.small = g

    def _parameters(self) -> Any:
        return np.array(self.call.parameters()) if self.call.plan.program.parameters else self.host.NO_NUMBERS

    @property
    def divisor(self) -> float:
        return float(self.number) if self.call.divisor is None else self.call.divisor

    def result(self) -> Tensor:
        """The value of each row, or their sum over the divisor; 0 where that is 0."""
        if self.call.reduction == "none":
            shape = self.shape[:0] if len(self.shape) == 1 else self.shape[:1] + self.shape[2:]
            return torch.from_numpy(self.value).to(self.dtype).reshape(shape)
        return torch.scalar_tensor(self.total / self.divisor if self.divisor else 0.0, dtype=self.dtype)

    def gradient(self, logits: Tensor, slope: Tensor) -> Tensor:
        """The gradient of the logits from that of the result."""
        if self.small is not None:
            by = slope.item()
            g = self.small if by == 1 else self.small.mul_(by)
            return g.view(logits.shape)
        slopes, factor = self.slopes, 1.0
        if self.call.reduction == "none":
            slopes = slopes * slope.detach().reshape(-1).numpy()
        else:
            factor = slope.item() / self.divisor if self.divisor else 0.0
        z = class_planes(logits.detach())
        *others, last = (one for one in self.passes if one[-1] is not None)
        over = self.call.overwrite and not last[1][self.host.TAU]
        whole: Any = None
        for rows, given, peaks in (*others, last):
            g = overwritten(z) if over and given is last[1] else unwritten(z)
            self.host.spread(given, self.packed[rows], peaks, slopes[rows], factor, g, self.host.NO_NUMBERS)
            whole = g if whole is None else g.add_(whole)
        for rows, given, _ in self.passes[len(others) + 1 :]:
            self.host.add_label_gradient(given, self.packed[rows], slopes[rows], factor, whole)
        return whole.view(logits.shape)  # type: ignore[no-any-return]


class Value(torch.autograd.Function):
    """The result of a call, differentiable in the logits; higher derivatives are the general way's."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor | None, call: Call) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.call, ctx.work = call, Work(call, logits, differentiable=True)
        return ctx.work.result()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, _ = ctx.saved_tensors  # raises where one of them has been changed in place
        if torch.is_grad_enabled():
            z = logits.view_as(logits)
            (g,) = torch.autograd.grad(ctx.call.generally(z), z, grad, create_graph=True)
            return g, None, None
        if batched(grad):  # compiled code cannot see into it; a row's value depends on its own logits alone
            one = torch.ones(grad.shape, dtype=grad.dtype)
            call = ctx.call._replace(overwrite=False)  # the product has memory of its own
            whole = Work(call, logits, differentiable=False).gradient(logits, one)
            by = grad if grad.ndim == 0 or logits.ndim == 1 else grad.unsqueeze(1)
            return whole * by, None, None
        work = ctx.work or Work(ctx.call, logits, differentiable=True)
        ctx.work = None  # let go of what it holds
        return work.gradient(logits, grad), None, None


def on_device(call: Call, logits: Tensor) -> Tensor | None:
    """The result of a call on a GPU, where nothing waits for a number; None where one pass is not enough."""
    plan = call.plan
    views = plan.passes[0].views
    if not plan.alone or any(isinstance(view, Normalized) for view in views):
        return None
    return DeviceValue.apply(logits, call.target, call)  # type: ignore[no-any-return, no-untyped-call]


class DeviceValue(torch.autograd.Function):
    """:class:`Value` on a GPU: a row without classes is nan, and a wrong label an error of the device."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor | None, call: Call) -> Tensor:
        from infoloss.kernels import device, fused
        from infoloss.kernels.inputs import Inputs

        plan, one = call.plan, call.plan.passes[0]
        z = class_planes(logits.detach())
        label = None if target is None else target.reshape(-1)
        kept = None if label is None else label != call.ignored
        inputs = Inputs(z, None, label, kept, None, one.floor, one.names, overwrite=call.overwrite)
        inputs = fused.seen_through("gpu", inputs, one.views, call.coefficients)
        packed, peaks = device.moments(inputs)
        by_row = call.reduction == "none"
        found = device.values(
            plan.program, call.parameters(), plan.spared, plan.label_row, inputs, packed, by_row=by_row
        )
        if label is not None:
            torch._assert_async(found.wrong == 0)
        divisor = found.number.clamp(min=1) if call.divisor is None else call.divisor or math.inf
        seen = (inputs.kept, inputs.shift, inputs.scale)
        ctx.save_for_backward(logits, target, *seen, packed, peaks, found.slopes)
        ctx.call, ctx.divisor = call, divisor
        ctx.inputs = replace(inputs, z=None, target=None, kept=None, shift=None, scale=None)  # type: ignore[arg-type]
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        if found.rows is not None:
            shape = logits.shape[:0] if logits.ndim == 1 else logits.shape[:1] + logits.shape[2:]
            return found.rows.to(dtype).reshape(shape)
        total = torch.zeros_like(found.total) if call.divisor == 0 else found.total / divisor
        return total.to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        from infoloss.kernels import device

        logits, target, kept, shift, scale, packed, peaks, slopes = ctx.saved_tensors
        call = ctx.call
        if torch.is_grad_enabled():
            z = logits.view_as(logits)
            (g,) = torch.autograd.grad(call.generally(z), z, grad, create_graph=True)
            return g, None, None
        spread = grad if not batched(grad) else torch.ones(grad.shape, dtype=grad.dtype, device=grad.device)
        factor = None
        if call.reduction == "none":
            slopes = slopes * spread.reshape(-1)
        else:
            factor = spread.to(torch.float64) / ctx.divisor
        z = class_planes(logits.detach())
        label = None if target is None else target.reshape(-1)
        inputs = replace(ctx.inputs, z=z, target=label, kept=kept, shift=shift, scale=scale)
        if spread is not grad:
            inputs = replace(inputs, overwrite=False)
        g, _ = device.gradient(inputs, packed, peaks, slopes, False, factor=factor)
        g = g.view(logits.shape)
        if spread is not grad:
            g = g * (grad if grad.ndim == 0 or logits.ndim == 1 else grad.unsqueeze(1))
        return g, None, None


def _constants(one: Pass, z: Tensor, call: Call) -> tuple[Any, ...]:
    """What the kernel reads besides logits and labels, kept where it is the same in every call."""
    from infoloss.kernels import fused, host
    from infoloss.kernels.inputs import Inputs

    planes = z[:, :, None] if z.ndim == 2 else z
    inputs = Inputs(planes, None, None, None, None, one.floor, one.names)
    inputs = fused.seen_through("cpu", inputs, one.views, call.coefficients)
    found = host.arrays(inputs)[host.CONSTANT :]
    if inputs.scale is None:
        one.constant[z.dtype, planes.shape[1]] = found
    return found


def plan_of(term: Term, smoothing: bool) -> Plan | None:
    """The plan of a term, made once."""
    plans = term.__dict__.setdefault(PLANS, {})
    if smoothing not in plans:
        plans[smoothing] = make_plan(term, smoothing)
    return plans[smoothing]  # type: ignore[no-any-return]


def make_plan(term: Term, smoothing: bool) -> Plan | None:
    """The plan of a term; None where it takes the general way whatever the call."""
    from infoloss.kernels import fused

    tensors: list[Tensor] = []
    term.with_tensors(lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    if tensors or (smoothing and term.soft == "none"):
        return None
    passes = passes_of(term.readings(), smoothing=smoothing)
    masking = (v for one in passes for v in one.views if isinstance(v, Shifted) and v.masked() is not None)
    if not passes or not all(fused.supports(one.views) for one in passes) or any(masking):
        return None
    tape, found, first = Tape(), [], 0
    for one in passes:
        reads = ("maximum", *one.needs, *fused.left_by(one.views))
        needs = (*reads, *(("label_logit",) if term.has_loss else ()))  # that tells if the label is masked
        names = tuple(name for name in dict.fromkeys(needs) if name not in fused.CONSTANT)
        found.append(
            Pass(
                one.views,
                one.floor or 0.0,
                names,
                reads,
                slice(first, first + len(names)),
                label_only(one, passes) and not smoothing,
            )
        )
        first += len(names)
    program = tape.program(term.value(_Symbols(tape, found, smoothing)))  # type: ignore[arg-type]
    label_row = found[0].names.index("label_logit") if term.has_loss else -1
    host = module("cpu") if kernels.available("cpu") else None
    return Plan(tuple(found), program, label_row, first, term.unbound, term.has_loss, host)


class _Symbols:
    """What a term reads of :class:`infoloss.rows.Rows`, as symbols."""

    def __init__(self, tape: Tape, passes: list[Pass], smoothing: bool) -> None:
        self.coefficients = _Parameters(tape)
        self.passes = passes
        self.moments = []
        for one in passes:
            m: Any = {
                name: tape.moment(one.rows.start + i) for i, name in enumerate(one.names) if name in one.reads
            }
            m |= {"label_entropy": tape.constant(0.0), "label_square_sum": tape.constant(1.0)}
            if "offset" in m:
                m["maximum"] = m["maximum"] + m["offset"]
            self.moments.append(smoothed(m, tape.parameter(EPSILON), one.floor) if smoothing else m)  # type: ignore[arg-type]

    def value(self, views: Views, statistic: Statistic) -> Symbol:
        for one, moments in zip(self.passes, self.moments, strict=True):
            if one.views == views and statistic.floor in (None, one.floor or None):
                return STATISTICS[statistic.name].value(moments)  # type: ignore[return-value]
        raise KeyError(statistic)


class _Parameters(dict[str, Any]):
    """Coefficients by name, as symbols."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __missing__(self, name: str) -> Symbol:
        return self.tape.parameter(name)
