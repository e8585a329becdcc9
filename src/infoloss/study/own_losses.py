"""Losses of the user's own: functions of logits and labels, named by ``module:function``.

In a design they are written ``module:function#source``, with the hash of the function's source, so that a
changed function is another loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from infoloss import Criterion, Term, cross_entropy, parse
from infoloss.named import is_named, named
from infoloss.study.fingerprint import fingerprint

__all__ = ["OwnLoss", "criterion_of", "designed", "is_own", "term_of"]

_HASH_LENGTH = 12


class OwnLoss(nn.Module):
    """A function of logits and labels as a criterion. At test time it is read as cross entropy is.

    Args:
        name: for its errors.
        function: (logits, target) to a scalar tensor; with ``sample_weight=`` where the rows have weights. An
            ``nn.Module`` may have parameters to learn; of a class an instance is made.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        super().__init__()
        # Each training starts from the function as it was: what another one learnt is not carried over.
        self.function = function() if isinstance(function, type) else deepcopy(function)
        self.name = name
        self.term = cross_entropy()

    def forward(self, logits: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
        value = self.function(logits, target, **weighted)
        if not isinstance(value, Tensor) or value.ndim:
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            raise ValueError(
                f"the loss {self.name} returned {type(value).__name__}{shape}; expected a scalar tensor"
            )
        return value


def is_own(expression: str) -> bool:
    """Whether a design's loss is a function of the user's own.

    Example:
        >>> is_own("mine:loss#0123456789ab"), is_own("focal(gamma=2.0)")
        (True, False)
    """
    return is_named(expression.partition("#")[0])


def term_of(expression: str) -> Term:
    """What says how the logits of a design's loss are read; the user's module is not imported for it."""
    return cross_entropy() if is_own(expression) else parse(expression)


def criterion_of(expression: str, bindings: Mapping[str, Any]) -> Criterion | OwnLoss:
    """A design's loss, to train with."""
    if is_own(expression):
        name = expression.partition("#")[0]
        return OwnLoss(name, named(name))
    # Float64 coefficients cannot be moved to a device without float64; the criterion's are plain numbers.
    return Criterion(parse(expression).bind(**bindings))


def designed(name: str, *, classes: int | None, weighted: bool) -> str:
    """How the object of that name is written in a design: a term by its expression, a function by its source.

    Args:
        name: ``"module:object"``.
        classes: C, where it is known before training; the function is then tried.
        weighted: whether the rows have weights.

    Raises:
        ValueError: no such object, one that cannot be called, or a trial that failed.
        ImportError: its module cannot be imported.
    """
    found = named(name)
    if isinstance(found, Term):
        if parse(str(found)) != found:
            raise ValueError(f"{found} cannot be written as an expression: use numbers for its tensors")
        return str(found)
    if not callable(found):
        kind = type(found).__name__
        raise ValueError(f"{name} is {kind}; expected a function of logits and labels, or a term")
    if weighted and not _takes_weights(found):
        raise ValueError(f"{name} has no parameter sample_weight, and the rows have weights")
    if classes is not None:
        _try(OwnLoss(name, found), classes, weighted)
    return f"{name}#{fingerprint(found).sha256[:_HASH_LENGTH]}"


def _takes_weights(function: Callable[..., Any]) -> bool:
    called = function.forward if isinstance(function, nn.Module) else function
    called = called.forward if isinstance(called, type) and issubclass(called, nn.Module) else called
    kinds = inspect.signature(called).parameters
    return "sample_weight" in kinds or any(p.kind is p.VAR_KEYWORD for p in kinds.values())


def _try(loss: OwnLoss, classes: int, weighted: bool) -> None:
    logits = torch.zeros(classes, classes, requires_grad=True)
    weight = torch.ones(classes) if weighted else None
    try:
        value = loss(logits, torch.arange(classes), sample_weight=weight)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not value.requires_grad:
        raise ValueError(f"{loss.name} has no gradient: it does not use the logits, or detaches them")
