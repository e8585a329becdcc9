"""The loss under check: how it is called, which options it takes, and the small problem it is asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "CLASSES",
    "ROWS",
    "LawError",
    "Loss",
    "NotSupportedError",
    "Subject",
    "first_line",
    "gradient",
    "require",
]

Loss = Callable[..., Any]

ROWS, CLASSES = 6, 5  # unequal, so that exchanged axes raise
LABELS = (1, 4, 0, 2, 2, 3)
LONGEST = 140
CLASS_WEIGHT = (0.5, 2.0, 3.0, 1.5, 0.25)


class LawError(Exception):
    """The loss breaks the law that is checked; the message is one line of cause."""


class NotSupportedError(Exception):
    """The loss does not take what the check would ask of it."""


def first_line(error: BaseException) -> str:
    """An error as one line: its type and the first line of its message, which some make very long."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """∂ function / ∂z at z."""
    leaf = z.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf), leaf)
    return slope


def require(
    what: str, found: Tensor, expected: Tensor | float, suspects: Mapping[str, Any] | None = None
) -> None:
    """Raise a :class:`LawError` unless two values agree up to rounding.

    Args:
        what: begins the line of cause.
        found: what the loss gives.
        expected: what the law says.
        suspects: what each usual mistake would give; the one that fits is named.
    """
    found = found.detach()
    if _agree(found, expected):
        return
    why = next((name for name, value in (suspects or {}).items() if _agree(found, value)), None)
    index, a, b = _largest_difference(found, torch.as_tensor(expected, dtype=torch.float64).detach())
    place = f" at {index}" if index else ""
    digits = next((d for d in (6, 9, 12) if f"{a:.{d}g}" != f"{b:.{d}g}"), 17)
    raise LawError(f"{what}: {a:.{digits}g} instead of {b:.{digits}g}{place}{f' ({why})' if why else ''}")


def _agree(found: Tensor, expected: Tensor | float) -> bool:
    tolerance = 1e-9 if found.dtype == torch.float64 else 1e-5
    other = torch.as_tensor(expected, dtype=torch.float64)
    if found.shape != other.shape:
        return False
    return torch.allclose(found.double(), other, rtol=tolerance, atol=tolerance)


def _largest_difference(found: Tensor, expected: Tensor) -> tuple[str, float, float]:
    if found.shape != expected.shape:
        raise LawError(f"the result has shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    away = (found.double() - expected).abs()
    away = torch.where(found == expected, 0, away).nan_to_num(nan=torch.inf).reshape(-1)
    worst = int(away.argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(worst), found.shape)] if found.ndim else []
    return (str(index) if index else ""), float(found.reshape(-1)[worst]), float(expected.reshape(-1)[worst])


class Subject:
    """A loss, called like ``F.cross_entropy``; a class of modules is built with the options of each call.

    Every array of the problem is made afresh, so that a loss that writes into one spoils nothing else.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.is_class = inspect.isclass(loss) and issubclass(loss, nn.Module)
        self._refusals: dict[str, str | None] = {}

    def __call__(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        if self.is_class:
            result = self.loss(**options)(logits, target)
        else:
            result = self.loss(logits, target, **options)
        if not isinstance(result, Tensor):
            raise LawError(f"the loss returns {type(result).__name__}, not a tensor")
        return result

    # -- the problem ------------------------------------------------------------------------------

    def logits(self, rows: int = ROWS, classes: int = CLASSES) -> Tensor:
        """(N, C) float64, multiples of 1/64: exact in float32 beside an offset of 1e4 too."""
        draw = torch.Generator().manual_seed(rows * 100 + classes)
        z = 2 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)
        return torch.round(z * 64) / 64

    def labels(self, rows: int = ROWS) -> Tensor:
        return torch.tensor((LABELS * (rows // len(LABELS) + 1))[:rows])

    def one_hot(self) -> Tensor:
        return nn.functional.one_hot(self.labels(), CLASSES).double()

    def weight(self) -> Tensor:
        return torch.tensor(CLASS_WEIGHT, dtype=torch.float64)

    def row_values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each row alone, (N,)."""
        return torch.stack([self(z[None], t[None]) for z, t in zip(logits, target, strict=True)]).detach()

    @cached_property
    def values(self) -> Tensor:
        """The loss of each row of the problem alone, (N,): what the laws combine."""
        return self.row_values(self.logits(), self.labels())

    # -- what it takes ----------------------------------------------------------------------------

    def needs(self, *options: str) -> None:
        """Raise :class:`NotSupportedError` for the first of these options that the loss does not take.

        "probabilities" and "dense" are no keywords, but kinds of target and of logits.
        """
        for option in options:
            if option not in self._refusals:
                self._refusals[option] = self._refusal(option)
            refusal = self._refusals[option]
            if refusal is not None:
                raise NotSupportedError(refusal)

    def takes(self, option: str) -> bool:
        """Whether the loss takes an option of :meth:`needs`."""
        try:
            self.needs(option)
        except NotSupportedError:
            return False
        return True

    def _refusal(self, option: str) -> str | None:
        z, y, given = self.logits(), self.labels(), {}
        if option == "probabilities":
            y = self.one_hot()
        elif option == "dense":
            z, y = z.t().reshape(1, CLASSES, 2, ROWS // 2), y.reshape(1, 2, ROWS // 2)
        elif not self._has_parameter(option):
            return f"it has no option {option}"
        else:
            values = {
                "weight": self.weight(),
                "ignore_index": -100,
                "label_smoothing": 0.1,
                "reduction": "sum",
            }
            given = {option: values[option]}
        try:
            self(z, y, **given)
        except Exception as error:  # the loss may raise anything
            kind = {"probabilities": "probability targets", "dense": "logits (N, C, d1, d2)"}
            return f"it refuses {kind.get(option, option)} ({first_line(error)})"
        return None

    def _has_parameter(self, option: str) -> bool:
        try:
            parameters = inspect.signature(self.loss).parameters
        except (TypeError, ValueError):  # compiled functions may have no signature: asking decides
            return True
        return option in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
