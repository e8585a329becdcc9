"""Terms: losses as frozen expression trees over row statistics.

A term is numbers, coefficients and statistics joined by ``+ - * / **`` and a few functions. It prints
as the text that :func:`infoloss.parse` reads, compares and hashes by structure, pickles, and is called
like ``torch.nn.functional.cross_entropy``. Autograd works on its (N,)-sized value only; the kernel
does the rest, so no loss has a backward of its own.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from infoloss import direct
from infoloss.batch import check_tensors, make_batch
from infoloss.kernels.class_shard import located
from infoloss.row_blocks import make_row_blocks
from infoloss.rows import Rows, Value, Views, log_probabilities, parts, read, row_values
from infoloss.statistics import STATISTICS
from infoloss.views import Normalized, Scaled, Shifted, SoftCapped, Vector, View
from infoloss.visibility import uncompiled

__all__ = [
    "FUNCTIONS",
    "Coefficient",
    "Function",
    "Named",
    "Negative",
    "Number",
    "Operation",
    "Scalar",
    "Statistic",
    "Term",
    "Viewed",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "row_statistics",
    "sqrt",
    "statistic",
    "step",
]

Link = Callable[[Tensor], Tensor]


class Term:
    """An expression over row statistics, callable like ``F.cross_entropy``.

    >>> import torch, infoloss as il
    >>> loss = il.cross_entropy() + 0.1 * il.entropy()
    >>> print(loss)
    cross_entropy(label_smoothing=0.0) + 0.1 * entropy
    >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> round(float(loss(logits, target)), 4)
    0.2675
    """

    level: ClassVar[int] = 9  # binding strength when printed: + 1, * 2, unary − 3, ** 4, the rest 9

    # -- the tree ---------------------------------------------------------------------------------

    def children(self) -> tuple[Term, ...]:
        return ()

    def value(self, rows: Rows, views: Views = ()) -> Value:
        """The value per row, (N,) or a number, of the term read through ``views``."""
        raise NotImplementedError

    def readings(self, views: Views = ()) -> Iterator[tuple[Views, Statistic]]:
        """Every statistic that the term reads, with the views it is read through, applied in order."""
        for child in self.children():
            yield from child.readings(views)

    def target_degree(self) -> int:
        """0: does not read the target; 1: affine in what it reads of it; 2: anything else."""
        raise NotImplementedError

    def named(self) -> Iterator[Named]:
        """The catalogue entries in the term, from left to right, without looking inside them."""
        for node, _ in self.named_with_views():
            yield node

    def named_with_views(self, views: Views = ()) -> Iterator[tuple[Named, Views]]:
        """The catalogue entries with the views that they are read through."""
        for child in self.children():
            yield from child.named_with_views(views)

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        """The same tree with ``change`` applied to every leaf and entry."""
        return change(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != direct.PLANS}

    # -- what it is -------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the catalogue entries inside, each once."""
        return tuple(dict.fromkeys(entry.name for entry in self.named()))

    @property
    def has_loss(self) -> bool:
        """Whether it contains a data term; a regulariser alone does not."""
        return self.target_degree() > 0

    @property
    def soft(self) -> str:
        """What a soft target t means: "expected" (Σ_c t_c ℓ(z, c)), "paper" (its own formula), "none"."""
        if self.target_degree() > 1:
            return "none"
        reads_distribution = any(STATISTICS[s.name].target == "soft" for _, s in self.readings())
        return "paper" if reads_distribution else "expected"

    @property
    def unbound(self) -> frozenset[str]:
        """Names that need a value before the term can be called: coefficients, ``counts``, ``prior``."""
        names: set[str] = set()

        def collect(node: Term) -> Term:
            names.update(node.unbound if isinstance(node, Named) else ())
            names.update((node.name,) if isinstance(node, Coefficient) else ())
            return node

        self.mapped(collect)
        return frozenset(names)

    def bind(self, **values: Any) -> Term:
        """The term with values for its unbound names: numbers, tensors, or one number a class.

        >>> import infoloss as il
        >>> print(il.balanced_softmax().bind(counts=[500, 20]))
        balanced_softmax(counts=[500.0, 20.0])
        >>> print(il.parse("cross_entropy + beta*entropy").bind(beta=0.2))
        cross_entropy(label_smoothing=0.0) + 0.2 * entropy

        Raises:
            ValueError: a name is not among :attr:`unbound`.
        """
        for name in values:
            if name not in self.unbound:
                raise ValueError(f"{self} has no unbound name {name!r}; unbound: {_listed(self.unbound)}")

        def bound(node: Term) -> Term:
            if isinstance(node, Coefficient) and node.name in values:
                return as_term(values[node.name])
            return node.bound(values) if isinstance(node, Named) else node

        return self.mapped(bound)

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Term:
        """The term with ``change`` applied to every tensor among its coefficients."""
        known: dict[Scalar, Scalar] = {}  # equal tensors stay one, and their views one pass

        def changed(leaf: Any) -> Any:
            if not isinstance(leaf, Scalar):
                return leaf
            if leaf not in known:
                tensor = change(leaf.tensor)
                known[leaf] = leaf if tensor is leaf.tensor else Scalar(tensor)
            return known[leaf]

        def of_node(node: Term) -> Term:
            if not isinstance(node, Named):
                return changed(node)  # type: ignore[no-any-return]
            if not any(isinstance(value, Scalar) for _, value in node.parameters):
                return node
            return node.make(**{name: changed(value) for name, value in node.parameters})

        return self.mapped(of_node)

    # -- calling it -------------------------------------------------------------------------------

    def __call__(
        self,
        logits: Tensor,
        target: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        sample_weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
        coefficients: Mapping[str, Value] | None = None,
        group: Any = None,
        overwrite_logits: bool = False,
    ) -> Tensor:
        """The loss of a batch, as ``F.cross_entropy`` is called.

        The mean is Σ s_i r_i / Σ s_i ω_i over the rows that are not ignored: r_i the row's value with
        class weights, s_i its sample weight, ω_i = w_y (Σ_c t_ic w_c for soft targets).

        Args:
            logits: (C,), (N, C) or (N, C, d1, …); −inf masks a class.
            target: class indices, or probabilities of the logits' shape; not read by a regulariser.
            weight: (C,) a weight per class.
            ignore_index: rows with this label count for nothing.
            label_smoothing: ε; the target becomes (1 − ε)t + ε/C over the unmasked classes.
            reduction: "mean", "sum", or "none" for a value per row.
            sample_weight: (N, d1, …) a weight per row.
            denominator: replaces the mean's divisor (gradient accumulation, data parallel).
            coefficients: values of named coefficients, by name.
            group: the process group over whose ranks the classes are spread (or a
                :class:`~infoloss.ClassShard` of it). Every rank has its own classes' logits (and soft
                targets), and all of everything else, and gets the same result; see docs/sharded.md.
            overwrite_logits: let the backward pass write the gradient over the logits, which nobody may
                then read: one array of their size less. First derivatives only; where it cannot, the
                gradient has memory of its own as ever (docs/kernels.md).

        Returns:
            A scalar, or (N, d1, …) with ``reduction="none"``; float32, or float64 for float64 logits.

        Raises:
            ValueError: an unbound name, a shape or a value that does not fit, a soft target for a
                loss that has no meaning for one, a row with every class masked.
            IndexError: a label out of range.
            RuntimeError: with ``group``, under ``torch.func``, forward-mode AD, or ``create_graph=True``.
        """
        _check_reduction(reduction)
        if weight is None and sample_weight is None and group is None:
            found = direct.reduced(
                self,
                logits,
                target,
                ignore_index=ignore_index,
                label_smoothing=label_smoothing,
                reduction=reduction,
                denominator=denominator,
                coefficients=coefficients or {},
                overwrite_logits=overwrite_logits,
            )
            if found is not None:
                return found
        options = {
            "weight": weight,
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "sample_weight": sample_weight,
            "group": group,
            "overwrite_logits": overwrite_logits,
        }
        rows = read(self, logits, target, coefficients, options)
        return rows.batch.reduced(row_values(self, rows), reduction, denominator)

    def value_and_grad(
        self,
        logits: Tensor,
        target: Tensor | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        denominator: Tensor | float | None = None,
        coefficients: Mapping[str, Value] | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """The loss and its gradient in the logits, outside autograd.

        ``logits.backward(gradient)`` goes on from there. That is what ``loss.backward()`` does, without a
        node for the loss: a small model's step on the CPU spares a tenth of its time (docs/kernels.md).

        Args:
            logits, target, ignore_index, label_smoothing, reduction, denominator, coefficients: as in
                :meth:`__call__`; the reduction is "mean" or "sum".
            **options: ``weight``, ``sample_weight``, likewise.

        Returns:
            The value, a scalar, and the gradient, of the logits' shape and dtype; neither has a graph, and
            coefficients get no gradient.

        Raises:
            ValueError, IndexError: as :meth:`__call__`; another reduction.

        >>> import torch, infoloss as il
        >>> layer, target = torch.nn.Linear(4, 3), torch.tensor([0, 2])
        >>> logits = layer(torch.randn(2, 4))
        >>> value, gradient = il.min_ent().value_and_grad(logits, target)
        >>> logits.backward(gradient)
        >>> value.requires_grad, gradient.shape, layer.weight.grad.shape
        (False, torch.Size([2, 3]), torch.Size([3, 4]))
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={reduction!r}; expected 'mean' or 'sum', which have one gradient")
        asked: dict[str, Any] = {
            "ignore_index": ignore_index,
            "label_smoothing": label_smoothing,
            "reduction": reduction,
            "denominator": denominator,
            "coefficients": coefficients or {},
        }
        if all(value is None for value in options.values()):
            found = direct.value_and_grad(self, logits, target, **asked)
            if found is not None:
                return found
        with torch.enable_grad():
            z = logits.detach().requires_grad_()
            value = self(z, target, **asked, **options)
            (gradient,) = torch.autograd.grad(value, z)
        return value.detach(), gradient

    def parts(
        self,
        logits: Tensor,
        target: Tensor | None = None,
        *,
        denominator: Tensor | float | None = None,
        coefficients: Mapping[str, Value] | None = None,
        **options: Any,
    ) -> Any:
        """The mean loss, the mean of each catalogue entry in it, and the accuracy, from one pass.

        Args:
            logits, target, denominator, coefficients: as in :meth:`__call__`.
            **options: ``weight``, ``ignore_index``, ``label_smoothing``, ``sample_weight``, ``group``,
                ``overwrite_logits``, likewise.

        Returns:
            A named tuple ``(loss, <entry> …, accuracy)`` of scalars; only ``loss`` carries a gradient.
            Entries come without their coefficient. The accuracy is the fraction of the rows that count
            (by sample weight) whose argmax z is the label, or the most likely class of a soft target.

        >>> import torch, infoloss as il
        >>> loss = il.cross_entropy() + 0.1 * il.entropy()
        >>> parts = loss.parts(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        >>> parts._fields
        ('loss', 'cross_entropy', 'entropy', 'accuracy')
        >>> float(parts.accuracy)
        0.5
        """
        return parts(self, read(self, logits, target, coefficients, options), denominator)

    @uncompiled
    def linear(
        self,
        hidden: Tensor,
        linear_weight: Tensor,
        target: Tensor | None = None,
        *,
        linear_bias: Tensor | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        sample_weight: Tensor | None = None,
        denominator: Tensor | float | None = None,
        shift: int = 0,
        coefficients: Mapping[str, Value] | None = None,
        group: Any = None,
    ) -> Tensor:
        """The loss of the logits hidden @ linear_weightᵀ + linear_bias, which are never all in memory.

        Equal to ``self(F.linear(hidden, linear_weight, linear_bias), target, …)`` with the classes as
        the last axis. Rows are worked off in blocks; ignored ones are not computed. A mean or sum takes
        the three matrix products of the unfused form, ``reduction="none"`` a fourth.

        Args:
            hidden: (…, D) hidden states.
            linear_weight: (C, D).
            target: (…) class indices, or (…, C) probabilities, which get no gradient.
            linear_bias: (C,); −inf masks a class.
            shift: position t along the last axis of the target is predicted by the hidden state at
                t − shift: 1 for causal language models, without copying ``hidden``. Weights per row stand
                where their targets do. With ``reduction="none"``, the last axis is shorter by ``shift``.
            weight, ignore_index, label_smoothing, reduction, sample_weight, denominator, coefficients:
                as in :meth:`__call__`.
            group: the process group over whose ranks the classes are spread (or a
                :class:`~infoloss.ClassShard` of it). ``linear_weight``, ``linear_bias`` and the
                probabilities of a target are those of this rank's classes, all else is for all classes
                and the same on every rank: so are the result and the gradient of ``hidden``, which is
                added up over the ranks. A ``linear_weight`` that is a DTensor counts as this rank's
                classes, see docs/sharded.md, or raises.

        Returns:
            A scalar, or (…) with ``reduction="none"``; float32, or float64 for float64 states. Reverse
            mode and first derivatives only. Half and bfloat16 heads: logits and sums in float32. On a
            GPU, leaving out ignored rows waits once for their number.

        Raises:
            TypeError: hidden states and head have different dtypes (outside autocast).
            ValueError, IndexError: as :meth:`__call__`; a DTensor that is no shard of the classes.
            RuntimeError: under ``torch.func`` or forward-mode AD, with ``create_graph=True`` or
                ``is_grads_batched=True``.

        >>> import torch, infoloss as il
        >>> hidden, head = torch.randn(5, 8), torch.nn.Linear(8, 100)
        >>> target = torch.tensor([3, 99, -100, 0, 41])
        >>> loss = il.cross_entropy() + 0.1 * il.entropy()
        >>> fused = loss.linear(hidden, head.weight, target, linear_bias=head.bias)
        >>> torch.testing.assert_close(fused, loss(head(hidden), target))
        """
        _check_reduction(reduction)
        self.check_bound(coefficients or {})
        blocks = make_row_blocks(
            hidden,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            sample_weight=sample_weight,
            shift=shift,
            group=group,
        )
        return blocks.reduced(self, reduction, denominator, coefficients or {})

    @uncompiled
    def linear_parts(
        self,
        hidden: Tensor,
        linear_weight: Tensor,
        target: Tensor | None = None,
        *,
        denominator: Tensor | float | None = None,
        coefficients: Mapping[str, Value] | None = None,
        **options: Any,
    ) -> Any:
        """:meth:`parts` of the logits of :meth:`linear`, from the same pass.

        Args:
            hidden, linear_weight, target, denominator, coefficients: as in :meth:`linear`.
            **options: ``linear_bias``, ``weight``, ``ignore_index``, ``label_smoothing``,
                ``sample_weight``, ``shift``, ``group``, likewise.

        >>> import torch, infoloss as il
        >>> hidden, weight = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> parts = il.min_ent().linear_parts(hidden, weight, torch.tensor([0, 0]))
        >>> parts._fields, float(parts.accuracy)
        (('loss', 'min_ent', 'accuracy'), 0.5)
        """
        self.check_bound(coefficients or {})
        blocks = make_row_blocks(hidden, linear_weight, target, **options)
        return blocks.parts(self, denominator, coefficients or {})

    def decision(self, logits: Tensor) -> Tensor:
        """The class that the loss implies at test time, argmax z: (N, C, …) to (N, …) int64.

        Prior-shifted losses too: they train on z + ln prior so that z itself is free of the prior.
        """
        return logits.argmax(-1 if logits.ndim == 1 else 1)

    def probabilities(self, logits: Tensor, **coefficients: Value) -> Tensor:
        """The class probabilities that the loss implies at test time, of the logits' shape."""
        return self.log_probabilities(logits, **coefficients).exp()

    def log_probabilities(self, logits: Tensor, **coefficients: Value) -> Tensor:
        """The logarithm of :meth:`probabilities`, in nats.

        The softmax of the logits as the loss's data term sees them (z + ln prior for prior-shifted
        losses), or the entry's own link (``rescaled_square``).

        >>> import torch, infoloss as il
        >>> il.balanced_softmax(counts=[3, 1]).probabilities(torch.zeros(1, 2))
        tensor([[0.7500, 0.2500]])
        """
        return log_probabilities(self, logits, coefficients)

    def link(self, views: Views) -> tuple[Link | None, Views]:
        """What turns viewed logits into log-probabilities (None: log-softmax), and those views."""
        for node, inner in self.named_with_views(views):
            if node.has_loss:
                return node.link(inner)
        for inner, reading in self.readings(views):
            if reading.name == "lse":
                return None, inner
        return None, views

    def check_bound(self, coefficients: Mapping[str, Value]) -> None:
        """Raise a ValueError unless every name has a value."""
        missing = self.unbound - set(coefficients)
        if missing:
            raise ValueError(
                f"{self} has no value for {_listed(missing)}: bind it, term.bind({min(missing)}=…)"
            )

    # -- building others from it ------------------------------------------------------------------

    def shifted(self, vector: Any, *, log: bool = False, scale: float = 1.0) -> Term:
        """The term read on z + scale·v, v one number a class (ln v with ``log``); −inf masks a class."""
        return Viewed(self, Shifted(vector if isinstance(vector, Vector) else Vector(vector), log, scale))

    def scaled(self, factor: Any) -> Term:
        """The term read on factor·z; the factor is a number, a coefficient, or a value per row."""
        return Viewed(self, Scaled(as_term(factor)))  # type: ignore[arg-type]

    def normalized(self, tau: float) -> Term:
        """The term read on z / (τ‖z‖)."""
        return Viewed(self, Normalized(_positive(tau, "tau")))

    def soft_capped(self, cap: float) -> Term:
        """The term read on cap·tanh(z / cap)."""
        return Viewed(self, SoftCapped(_positive(cap, "cap")))

    def __add__(self, other: Any) -> Term:
        return _joined("+", self, other)

    def __radd__(self, other: Any) -> Term:
        return _joined("+", other, self)

    def __sub__(self, other: Any) -> Term:
        return _joined("-", self, other)

    def __rsub__(self, other: Any) -> Term:
        return _joined("-", other, self)

    def __mul__(self, other: Any) -> Term:
        return _joined("*", self, other)

    def __rmul__(self, other: Any) -> Term:
        return _joined("*", other, self)

    def __truediv__(self, other: Any) -> Term:
        return _joined("/", self, other)

    def __rtruediv__(self, other: Any) -> Term:
        return _joined("/", other, self)

    def __pow__(self, other: Any) -> Term:
        return _joined("**", self, other)

    def __rpow__(self, other: Any) -> Term:
        return _joined("**", other, self)

    def __neg__(self) -> Term:
        return Negative(self)

    def __abs__(self) -> Term:
        return Function("abs", (self,))

    def __repr__(self) -> str:
        return str(self)

    def _printed(self, level: int) -> str:
        return str(self) if self.level >= level else f"({self})"


class Leaf(Term):
    """A term that reads neither logits nor target."""

    def target_degree(self) -> int:
        return 0

    def resolve(self, coefficients: Mapping[str, Value]) -> Value:
        raise NotImplementedError

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return self.resolve(rows.coefficients)


@dataclass(frozen=True, repr=False)
class Number(Leaf):
    """A finite constant."""

    number: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.number):
            raise ValueError(f"a coefficient must be finite, got {self.number}")

    @property
    def level(self) -> int:  # type: ignore[override]
        return 3 if math.copysign(1, self.number) < 0 else 9

    def resolve(self, coefficients: Mapping[str, Value]) -> float:
        return self.number

    def __neg__(self) -> Term:
        return Number(-self.number)

    def __str__(self) -> str:
        return repr(self.number)


@dataclass(frozen=True, repr=False)
class Coefficient(Leaf):
    """A named coefficient, given by ``bind`` or by the :class:`~infoloss.Criterion` that holds it."""

    name: str

    def resolve(self, coefficients: Mapping[str, Value]) -> Value:
        return coefficients[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, repr=False)
class Scalar(Leaf):
    """A tensor as coefficient, equal to itself only; 0-d, or one value per row in a view."""

    tensor: Tensor

    def resolve(self, coefficients: Mapping[str, Value]) -> Tensor:
        return self.tensor

    def __str__(self) -> str:
        return f"tensor({self.tensor.tolist()})"


@dataclass(frozen=True, repr=False)
class Statistic(Term):
    """A row statistic by name; ``floor`` belongs to ``expected_log_target`` alone."""

    name: str
    floor: float | None = None

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return rows.value(views, self)

    def readings(self, views: Views = ()) -> Iterator[tuple[Views, Statistic]]:
        yield views, self

    def target_degree(self) -> int:
        return 0 if STATISTICS[self.name].target == "no" else 1

    def __str__(self) -> str:
        return self.name if self.floor is None else f"{self.name}(floor={self.floor!r})"


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}
LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 4}


@dataclass(frozen=True, repr=False)
class Operation(Term):
    """Two terms joined by ``+ - * /`` or ``**``."""

    symbol: str
    left: Term
    right: Term

    @property
    def level(self) -> int:  # type: ignore[override]
        return LEVELS[self.symbol]

    def children(self) -> tuple[Term, ...]:
        return self.left, self.right

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        return Operation(self.symbol, self.left.mapped(change), self.right.mapped(change))

    def value(self, rows: Rows, views: Views = ()) -> Value:
        left, right = self.left.value(rows, views), self.right.value(rows, views)
        if isinstance(left, float) and isinstance(right, float):
            left = torch.tensor(left, dtype=torch.float64)  # 1/0 is inf and (−2)**.5 nan, as for statistics
        return OPERATIONS[self.symbol](left, right)  # type: ignore[no-any-return]

    def target_degree(self) -> int:
        left, right = self.left.target_degree(), self.right.target_degree()
        if self.symbol in "+-":
            return max(left, right)
        if self.symbol == "*":
            return min(left + right, 2)
        if right > 0:
            return 2
        return left if self.symbol == "/" or self.right == Number(1.0) else min(2 * left, 2)

    def __str__(self) -> str:
        # ** groups to the right, and takes a unary minus in its exponent; the others group to the left
        left, right = (5, 3) if self.symbol == "**" else (self.level, self.level + 1)
        return f"{self.left._printed(left)} {self.symbol} {self.right._printed(right)}"


@dataclass(frozen=True, repr=False)
class Negative(Term):
    """−term. The negative of a number is a number: build it with ``-term``."""

    term: Term
    level: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if isinstance(self.term, Number):
            raise ValueError(f"the negative of {self.term} is the number -{self.term}")

    def children(self) -> tuple[Term, ...]:
        return (self.term,)

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        return -self.term.mapped(change)

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return -self.term.value(rows, views)

    def target_degree(self) -> int:
        return self.term.target_degree()

    def __str__(self) -> str:
        return f"-{self.term._printed(3)}"


def _tensors(values: tuple[Value, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(v, dtype=torch.float64) if isinstance(v, float) else v for v in values)


def _step(x: Tensor) -> Tensor:
    return (x.detach() >= 0).to(x.dtype)


FUNCTIONS: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "exp": (1, torch.exp),
    "log": (1, torch.log),
    "expm1": (1, torch.expm1),
    "log1p": (1, torch.log1p),
    "sqrt": (1, torch.sqrt),
    "abs": (1, torch.abs),
    "minimum": (2, torch.minimum),
    "maximum": (2, torch.maximum),
    "step": (1, _step),  # 1 where x ≥ 0, else 0, with derivative 0: for losses that switch
}
"""Functions of an expression: how many arguments each takes, and what it computes."""


@dataclass(frozen=True, repr=False)
class Function(Term):
    """One of :data:`FUNCTIONS` of one or two terms."""

    name: str
    arguments: tuple[Term, ...]

    def __post_init__(self) -> None:
        count, _ = FUNCTIONS[self.name]
        if len(self.arguments) != count:
            raise ValueError(f"{self.name} takes {count} argument(s), got {len(self.arguments)}")

    def children(self) -> tuple[Term, ...]:
        return self.arguments

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        return Function(self.name, tuple(a.mapped(change) for a in self.arguments))

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return FUNCTIONS[self.name][1](*_tensors(tuple(a.value(rows, views) for a in self.arguments)))

    def target_degree(self) -> int:
        return 2 if any(a.target_degree() for a in self.arguments) else 0

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, repr=False)
class Viewed(Term):
    """A term whose statistics are read through a view of the logits."""

    term: Term
    view: View

    def children(self) -> tuple[Term, ...]:
        return (self.term, self.view.factor) if isinstance(self.view, Scaled) else (self.term,)  # type: ignore[return-value]

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        view = self.view
        if isinstance(view, Scaled):
            view = replace(view, factor=view.factor.mapped(change))  # type: ignore[attr-defined]
        return Viewed(self.term.mapped(change), view)

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return self.term.value(rows, (*views, self.view))

    def readings(self, views: Views = ()) -> Iterator[tuple[Views, Statistic]]:
        yield from self.term.readings((*views, self.view))

    def target_degree(self) -> int:
        return self.term.target_degree()

    def named_with_views(self, views: Views = ()) -> Iterator[tuple[Named, Views]]:
        yield from self.term.named_with_views((*views, self.view))

    def __str__(self) -> str:
        return self.view.text(str(self.term))


@dataclass(frozen=True, repr=False)
class Named(Term):
    """A catalogue entry with its parameters; what it expands to is a tree of statistics.

    ``make`` builds the entry again from parameters, ``own_link`` gives log-probabilities where they
    are not a softmax; both belong to the catalogue, equality looks at name and parameters only.
    """

    name: str
    parameters: tuple[tuple[str, Any], ...]
    kind: str = field(compare=False)
    binds: tuple[str, ...] = field(compare=False)
    expansion: Term | None = field(compare=False)  # None while a name of ``binds`` is missing
    make: Callable[..., Term] = field(compare=False)
    own_link: Callable[..., Tensor] | None = field(compare=False, default=None)

    def missing(self) -> tuple[str, ...]:
        """Which of the names to bind have no value yet."""
        values = dict(self.parameters)
        return tuple(name for name in self.binds if values[name] is None)

    def bound(self, values: Mapping[str, Any]) -> Term:
        """The entry with those of ``values`` that it lacks."""
        parameters = dict(self.parameters)
        parameters |= {name: values[name] for name in self.missing() if name in values}
        for name, value in parameters.items():
            if isinstance(value, Coefficient) and value.name in values:
                parameters[name] = values[value.name]
        return self.make(**parameters)

    def _expanded(self) -> Term:
        if self.expansion is None:
            raise ValueError(f"{self} has no value for {_listed(self.missing())}: bind it first")
        return self.expansion

    @property
    def unbound(self) -> frozenset[str]:
        names = {value.name for _, value in self.parameters if isinstance(value, Coefficient)}
        return frozenset(names) | frozenset(self.missing())

    @property
    def has_loss(self) -> bool:
        return self.kind == "loss"

    def value(self, rows: Rows, views: Views = ()) -> Value:
        return self._expanded().value(rows, views)

    def readings(self, views: Views = ()) -> Iterator[tuple[Views, Statistic]]:
        yield from self._expanded().readings(views)

    def target_degree(self) -> int:
        return self._expanded().target_degree() if self.expansion is not None else 1

    def named_with_views(self, views: Views = ()) -> Iterator[tuple[Named, Views]]:
        yield self, views

    def link(self, views: Views) -> tuple[Link | None, Views]:
        if self.own_link is None:
            return self._expanded().link(views)
        return partial(self.own_link, **dict(self.parameters)), views

    def __reduce__(self) -> tuple[Callable[..., Term], tuple[Any, ...]]:
        return _remade, (self.make, dict(self.parameters))

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.parameters)})"


def _remade(make: Callable[..., Term], parameters: dict[str, Any]) -> Term:
    return make(**parameters)


def as_term(value: Any) -> Term:
    """A term as it is; a number or tensor as a coefficient."""
    if isinstance(value, Term):
        return value
    if isinstance(value, Tensor):
        if value.ndim > 1 or not value.is_floating_point():
            raise ValueError(
                f"a tensor coefficient is a floating-point scalar, got {value.dtype} {tuple(value.shape)}"
            )
        return Scalar(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"a term is joined with numbers, tensors and terms, got {type(value).__name__}: {value!r}"
        )
    return Number(float(value))


def _joined(symbol: str, left: Any, right: Any) -> Term:
    if not all(isinstance(side, Term | Tensor | numbers.Real) for side in (left, right)):
        return NotImplemented  # type: ignore[no-any-return]
    left, right = as_term(left), as_term(right)
    if symbol == "+":
        losses = [[e for e in side.named() if e.has_loss] for side in (left, right)]
        if len(losses[0]) == len(losses[1]) == 1:
            a, b = (side[0].name for side in losses)
            warnings.warn(
                f"{a} + {b} adds two losses, each with its own data term; regularisers are meant to be added",
                stacklevel=3,
            )
    return Operation(symbol, left, right)


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'reduction must be "none", "mean" or "sum", got {reduction!r}')


def _listed(names: frozenset[str] | set[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"


def _positive(value: float, name: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)


def statistic(name: str, *, floor: float | None = None) -> Statistic:
    """A row statistic as a term.

    >>> import infoloss as il
    >>> il.cross_entropy() + 0.01 * il.statistic("lse") ** 2
    cross_entropy(label_smoothing=0.0) + 0.01 * lse ** 2.0

    Raises:
        ValueError: no statistic has this name, or ``floor`` does not fit it.
    """
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}")
    if (name == "expected_log_target") != (floor is not None):
        raise ValueError("expected_log_target has a floor, and no other statistic has one")
    return Statistic(name, None if floor is None else _positive(floor, "floor"))


def exp(x: Term) -> Term:
    """e^x."""
    return Function("exp", (as_term(x),))


def log(x: Term) -> Term:
    """ln x."""
    return Function("log", (as_term(x),))


def expm1(x: Term) -> Term:
    """e^x − 1, exact near 0."""
    return Function("expm1", (as_term(x),))


def log1p(x: Term) -> Term:
    """ln(1 + x), exact near 0."""
    return Function("log1p", (as_term(x),))


def sqrt(x: Term) -> Term:
    """√x."""
    return Function("sqrt", (as_term(x),))


def minimum(x: Any, y: Any) -> Term:
    """The smaller of two."""
    return Function("minimum", (as_term(x), as_term(y)))


def maximum(x: Any, y: Any) -> Term:
    """The larger of two."""
    return Function("maximum", (as_term(x), as_term(y)))


def step(x: Any) -> Term:
    """1 where x ≥ 0, else 0; its derivative is 0."""
    return Function("step", (as_term(x),))


def row_statistics(
    logits: Tensor,
    target: Tensor | None = None,
    *,
    needs: tuple[str, ...] = ("lse",),
    group: Any = None,
) -> dict[str, Tensor]:
    """Row statistics of a batch, from one pass over the logits, differentiable.

    Args:
        logits: (C,), (N, C) or (N, C, d1, …).
        target: class indices or probabilities; needed by the ``target_…`` statistics only.
        needs: names of statistics (see :data:`infoloss.statistics.STATISTICS`).
        group: as in :meth:`Term.__call__`.

    Returns:
        For each name a tensor (N, d1, …), float32 or the logits' float64, in nats or logits' units.

    Raises:
        ValueError: an unknown name, or a target is needed.

    >>> import torch, infoloss as il
    >>> values = il.row_statistics(torch.zeros(1, 4), needs=("lse", "collision"))
    >>> values["lse"], values["collision"]
    (tensor([1.3863]), tensor([0.2500]))
    """
    check_tensors(logits=logits, target=target)
    terms = {name: statistic(name) for name in needs}
    if target is None and any(term.has_loss for term in terms.values()):
        raise ValueError(f"{', '.join(needs)} read the target: call row_statistics(logits, target, …)")
    axis = 0 if logits.ndim == 1 else 1
    logits, target, shard = located(logits, target, group, axis=axis, names=("logits", "target"))
    batch = make_batch(logits, target, shard=shard)
    rows = Rows(batch, [((), term) for term in terms.values()], {})
    return {name: batch.reduced(rows.value((), term), "none") for name, term in terms.items()}
