"""A linear head and its loss in one, without the logits: as a module, and as numbers per row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infoloss.criterion import TermModule
from infoloss.losses import cross_entropy, entropy
from infoloss.row_blocks import make_row_blocks
from infoloss.rows import Rows, row_values
from infoloss.terms import Scalar, Term, statistic
from infoloss.visibility import uncompiled

__all__ = ["LinearCriterion", "row_statistics_linear"]


@dataclass(frozen=True, repr=False)
class Together(Term):
    """Several terms whose statistics are read in one pass."""

    terms: tuple[Term, ...]

    def children(self) -> tuple[Term, ...]:
        return self.terms

    def mapped(self, change: Callable[[Term], Term]) -> Term:
        return Together(tuple(term.mapped(change) for term in self.terms))

    def target_degree(self) -> int:
        return max((term.target_degree() for term in self.terms), default=0)

    def __str__(self) -> str:
        return ", ".join(map(str, self.terms))


def _each(together: Term, rows: Rows) -> Tensor:
    """The values of each term, (K, n); those of a loss are infinite where the label is masked."""
    values = [
        row_values(term, rows) if term.entries else torch.as_tensor(term.value(rows))
        for term in together.children()
    ]
    return torch.stack(values)


def _quantity(name: str) -> Term:
    return {"log_probability": cross_entropy, "entropy": entropy}.get(name, lambda: statistic(name))()


@uncompiled
def row_statistics_linear(
    hidden: Tensor,
    linear_weight: Tensor,
    target: Tensor | None = None,
    *,
    needs: tuple[str, ...] = ("log_probability", "entropy"),
    linear_bias: Tensor | None = None,
    temperature: Tensor | float | None = None,
    shift: int = 0,
    group: Any = None,
) -> dict[str, Tensor]:
    """Row statistics of the logits (hidden @ linear_weightᵀ + linear_bias) / temperature, from one pass.

    The logits are made in blocks of rows, and again for the gradient; they are never all in memory.

    Args:
        hidden: (…, D) hidden states.
        linear_weight: (C, D).
        target: (…) class indices, −100 for rows to leave out, or (…, C) probabilities; needed by
            ``log_probability`` and the ``target_…`` statistics only.
        needs: "log_probability" (ln q_y), "entropy" (−Σ q_j ln q_j), or names of
            :data:`infoloss.statistics.STATISTICS`.
        linear_bias: (C,).
        temperature: a number, or one a row (…).
        shift, group: as in :meth:`infoloss.Term.linear`.

    Returns:
        For each name a tensor (…), 0 for rows that are left out; float32, or float64 for float64
        states; nats, or the logits' units. Differentiable once, in reverse mode, in the hidden states,
        the head and the temperature.

    Raises:
        ValueError: an unknown name, a shape that does not fit, or a target is needed.
        RuntimeError: as :meth:`infoloss.Term.linear`.

    >>> import torch, infoloss as il
    >>> hidden, weight, token = torch.eye(2), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1])
    >>> il.row_statistics_linear(hidden, weight, token)
    {'log_probability': tensor([-0.6931, -0.6931]), 'entropy': tensor([0.6931, 0.6931])}
    """
    terms = tuple(map(_quantity, needs))
    if temperature is not None:
        factor = 1 / torch.as_tensor(temperature, dtype=torch.float64, device=hidden.device)
        if factor.ndim and factor.shape != hidden.shape[:-1]:
            raise ValueError(
                f"temperature is a number or has shape {tuple(hidden.shape[:-1])}, got {tuple(factor.shape)}"
            )
        scale = Scalar(factor.reshape(-1) if factor.ndim else factor)
        terms = tuple(term.scaled(scale) for term in terms)
    blocks = make_row_blocks(hidden, linear_weight, target, linear_bias=linear_bias, shift=shift, group=group)
    found = dict(zip(needs, blocks.by_row(Together(terms), {}, _each), strict=True))
    if "log_probability" in found:
        found["log_probability"] = 0 - found["log_probability"]
    return found


class LinearCriterion(TermModule):
    """A loss and the linear head that it is computed from: ``criterion(hidden, target)``, without logits.

    Args:
        term: a term, or an expression such as ``"cross_entropy + beta*entropy"``.
        head: the layer; its parameters are the criterion's too, and hooks on it do not run. With the
            option ``group``, the layer of this rank's classes.
        learn, **coefficients: as for :class:`~infoloss.Criterion`.

    >>> import torch, infoloss as il
    >>> head = torch.nn.Linear(8, 1000)
    >>> criterion = il.LinearCriterion("cross_entropy + beta*entropy", head, beta=0.1)
    >>> hidden, target = torch.randn(2, 5, 8), torch.randint(1000, (2, 5))
    >>> criterion(hidden, target, shift=1).backward()  # a causal model: position t predicts t + 1
    >>> head.weight.grad.shape
    torch.Size([1000, 8])

    Raises:
        TypeError: ``head`` computes something else than weight and bias.
        ValueError: a coefficient has no value, or a value belongs to no coefficient.
    """

    def __init__(
        self, term: Term | str, head: nn.Linear, *, learn: Collection[str] = (), **coefficients: Any
    ) -> None:
        if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
            raise TypeError(f"the head must be an nn.Linear with its own forward, got {type(head).__name__}")
        super().__init__(term, learn=learn, **coefficients)
        self.head = head

    def forward(self, hidden: Tensor, target: Tensor | None = None, **options: Any) -> Tensor:
        """The loss; ``options`` as in :meth:`infoloss.Term.linear`, without the head's own."""
        return self.term.linear(hidden, target=target, **self._head(), **options)

    def parts(self, hidden: Tensor, target: Tensor | None = None, **options: Any) -> Any:
        """The loss, each entry's mean and the accuracy: :meth:`infoloss.Term.linear_parts`."""
        return self.term.linear_parts(hidden, target=target, **self._head(), **options)

    def decision(self, hidden: Tensor) -> Tensor:
        """The class that the loss implies at test time, (…, D) to (…); makes the logits of these rows.

        For a head that has all classes, as :meth:`probabilities`.
        """
        logits = self.head(hidden)
        return self.term.decision(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape[:-1])

    def probabilities(self, hidden: Tensor) -> Tensor:
        """The probabilities that the loss implies at test time, (…, D) to (…, C)."""
        logits = self.head(hidden)
        rows = self.term.probabilities(logits.reshape(-1, logits.shape[-1]), **self.coefficients)
        return rows.reshape(logits.shape)

    def _head(self) -> dict[str, Any]:
        return {
            "linear_weight": self.head.weight,
            "linear_bias": self.head.bias,
            "coefficients": self.coefficients,
        }
