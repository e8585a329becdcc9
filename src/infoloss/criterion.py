"""Criterion: a term as an ``nn.Module``, with its named coefficients as buffers or parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from infoloss.expression import parse
from infoloss.rows import Value
from infoloss.terms import Term

__all__ = ["Criterion", "TermModule"]


class TermModule(nn.Module):
    """A term with its coefficients, as buffers or parameters, for the modules that call it."""

    def __init__(self, term: Term | str, *, learn: Collection[str] = (), **coefficients: Any) -> None:
        super().__init__()
        term = parse(term)
        for name in sorted(set(coefficients) | set(learn)):
            if name not in term.unbound:
                expected = ", ".join(sorted(term.unbound)) or "none"
                raise ValueError(f"{term} has no coefficient {name!r} to give a value; it has: {expected}")
        for name in sorted(set(learn) - set(coefficients)):
            raise ValueError(f"the coefficient {name!r} is to be learnt and needs a starting value: {name}=…")
        vectors = {n: v for n, v in coefficients.items() if torch.as_tensor(v).ndim == 1}
        self.term = term.bind(**vectors)
        self._names = tuple(sorted(set(coefficients) - set(vectors)))
        if self.term.unbound - set(self._names):
            missing = ", ".join(sorted(self.term.unbound - set(self._names)))
            raise ValueError(f"{term} needs a value for {missing}")
        for name in self._names:
            value = torch.as_tensor(coefficients[name], dtype=torch.get_default_dtype()).detach().clone()
            if hasattr(self, name):
                raise ValueError(
                    f"a criterion cannot have a coefficient named {name!r}: modules use that name"
                )
            if name in learn:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    @property
    def coefficients(self) -> dict[str, Value]:
        """The current value of each named coefficient."""
        return {name: getattr(self, name) for name in self._names}

    def __repr__(self) -> str:
        values = "".join(f", {name}={getattr(self, name).item():g}" for name in self._names)
        learn = [name for name in self._names if isinstance(getattr(self, name), nn.Parameter)]
        return f"{type(self).__name__}({self.term}{values}{f', learn={tuple(learn)}' if learn else ''})"


class Criterion(TermModule):
    """A loss as a module: ``criterion(logits, target)``, with coefficients to schedule or to learn.

    Args:
        term: a term, or an expression such as ``"cross_entropy + beta*entropy"``.
        learn: names of coefficients to register as parameters; the others are buffers.
        **coefficients: a number or 0-d tensor for each named coefficient, one number a class for an
            unbound ``counts`` or ``prior``.

    Coefficients have the default dtype, are part of the ``state_dict``, and are attributes:
    ``criterion.beta.fill_(0.2)`` schedules one, without recompiling a compiled criterion.

    >>> import torch, infoloss as il
    >>> criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.1)
    >>> criterion
    Criterion(cross_entropy(label_smoothing=0.0) + beta * entropy, beta=0.1)
    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> before = criterion(logits, target)
    >>> _ = criterion.beta.fill_(0.0)
    >>> bool(criterion(logits, target) < before)
    True

    Raises:
        ValueError: a coefficient has no value, or a value belongs to no coefficient.
    """

    def forward(self, logits: Tensor, target: Tensor | None = None, **options: Any) -> Tensor:
        """The loss; ``options`` as in :meth:`infoloss.Term.__call__`."""
        return self.term(logits, target, coefficients=self.coefficients, **options)

    def value_and_grad(
        self, logits: Tensor, target: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """The loss and its gradient in the logits, outside autograd: :meth:`infoloss.Term.value_and_grad`.

        Raises:
            ValueError: a coefficient is learnt, which takes a gradient of its own.
        """
        if learnt := [name for name, parameter in self.named_parameters() if parameter.requires_grad]:
            raise ValueError(
                f"{', '.join(learnt)} would get no gradient; expected no coefficient to be learnt, "
                "or a call of the criterion and backward()"
            )
        return self.term.value_and_grad(logits, target, coefficients=self.coefficients, **options)

    def parts(self, logits: Tensor, target: Tensor | None = None, **options: Any) -> Any:
        """The loss, each entry's mean and the accuracy: :meth:`infoloss.Term.parts`."""
        return self.term.parts(logits, target, coefficients=self.coefficients, **options)

    def decision(self, logits: Tensor) -> Tensor:
        """The class that the loss implies at test time: :meth:`infoloss.Term.decision`."""
        return self.term.decision(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities that the loss implies at test time: :meth:`infoloss.Term.probabilities`."""
        return self.term.probabilities(logits, **self.coefficients)
