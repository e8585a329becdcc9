"""Plans: which moments a term reads of which passes, and the program that makes its value of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from infoloss import kernels
from infoloss.kernels import fused
from infoloss.kernels.inputs import module
from infoloss.kernels.program import Program, Symbol, Tape
from infoloss.rows import label_only, passes_of
from infoloss.statistics import STATISTICS, smoothed
from infoloss.views import Shifted, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from infoloss.terms import Statistic, Term

__all__ = ["PLANS", "SMOOTHING", "Pass", "Plan", "make_plan", "plan_of"]

PLANS = "_plans"
"""The attribute in which a term keeps its plans."""
SMOOTHING = "label smoothing"
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


def plan_of(term: Term, smoothing: bool) -> Plan | None:
    """The plan of a term, made once."""
    plans = term.__dict__.setdefault(PLANS, {})
    if smoothing not in plans:
        plans[smoothing] = make_plan(term, smoothing)
    return plans[smoothing]  # type: ignore[no-any-return]


def make_plan(term: Term, smoothing: bool) -> Plan | None:
    """The plan of a term; None where it takes the general way whatever the call."""
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
            self.moments.append(smoothed(m, tape.parameter(SMOOTHING), one.floor) if smoothing else m)  # type: ignore[arg-type]

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
