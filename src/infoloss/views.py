"""Views: the fixed transformations of the logits that a statistic may be read through.

A view maps the *anchored* logits (x, a), which stand for z_j = a + x_j with one anchor a per row in
float64, to anchored logits. The anchor keeps a common offset of the row out of float32, where adding
a prior or dividing by a temperature would round differences away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from infoloss.visibility import untraced

__all__ = ["Normalized", "Scaled", "Shifted", "SoftCapped", "Vector", "View", "check_scale"]

SMALLEST_NORM = 1e-7  # a row of zeros has no direction; its normalised logits are zeros


class Coefficient(Protocol):
    """A value that is not computed from the logits: a number, a name still to be given, a tensor."""

    def resolve(self, coefficients: Mapping[str, Tensor | float]) -> Tensor | float: ...


class Vector:
    """A constant over classes, printed as a list; equal when its numbers are."""

    def __init__(self, values: Tensor | list[float] | tuple[float, ...]) -> None:
        tensor = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
        if tensor.ndim != 1 or tensor.numel() == 0:
            raise ValueError(
                "a vector over classes has one dimension and at least one number, "
                f"got shape {tuple(tensor.shape)}"
            )
        self.tensor = tensor
        self.values = tuple(tensor.tolist())
        self._elsewhere: dict[torch.device, Tensor] = {}
        self._parts: dict[tuple[int, int], Vector] = {}
        self._shifts: dict[tuple[bool, float, torch.device], Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The numbers on ``device``, copied there once; float64, or float32 where there is none."""
        if device.type == "cpu":
            return self.tensor
        if device not in self._elsewhere:
            self._elsewhere[device] = self.tensor.to(device, row_dtype(torch.float32, device))
        return self._elsewhere[device]

    def shift(self, log: bool, scale: float, device: torch.device) -> Tensor:
        """scale·v, or scale·ln v, computed once."""
        cached = untraced()
        if cached and (log, scale, device) in self._shifts:
            return self._shifts[log, scale, device]
        values = torch.log(self.on(device)) if log else self.on(device)
        # 0·(−inf) would be nan: a masked class stays masked whatever the scale
        shift = torch.where(values == -torch.inf, values, scale * values)
        if cached:
            self._shifts[log, scale, device] = shift
        return shift

    def part(self, start: int, stop: int) -> Vector:
        """The numbers of some of the classes, cut once; a 0 for no class."""
        if (start, stop) not in self._parts:
            self._parts[start, stop] = Vector(self.values[start:stop] or (0.0,))
        return self._parts[start, stop]

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return "[" + ", ".join(map(repr, self.values)) + "]"

    def __reduce__(self) -> tuple[type[Vector], tuple[tuple[float, ...]]]:
        return Vector, (self.values,)


def row_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of numbers per row: float64, but float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" and dtype != torch.float64 else torch.float64


def _centred(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    centre = x.detach().amax(-1)  # (N,)
    centre = centre.masked_fill(centre == -torch.inf, 0)
    return x - centre[:, None], a + centre


def check_scale(value: Tensor, rows: int) -> None:
    """Raise a ValueError unless a scale is 0-d or has one value a row."""
    if value.ndim not in (0, 1) or (value.ndim == 1 and len(value) != rows):
        raise ValueError(
            f"a scale is a number or has one value a row ({rows}), got shape {tuple(value.shape)}"
        )


def _column(value: Tensor | float, x: Tensor) -> Tensor | float:
    """A coefficient per batch or per row, in the logits' dtype, ready to multiply x (N, C)."""
    if isinstance(value, float):
        return value
    check_scale(value, len(x))
    return value.to(x.dtype) if value.ndim == 0 else value.to(x.dtype)[:, None]


def _product(x: Tensor, factor: Tensor | float) -> Tensor:
    """x·factor, masked classes staying masked: −inf times a factor would give it a nan gradient."""
    masked = x == -torch.inf
    return (x.masked_fill(masked, 0) * factor).masked_fill(masked, -torch.inf)


class View:
    """A transformation of logits; subclasses are frozen dataclasses, so equal views are one view."""

    def apply(
        self, x: Tensor, a: Tensor, coefficients: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Tensor]:
        """Anchored logits x (N, C), a (N,) of the view of a + x."""
        raise NotImplementedError

    def text(self, inner: str) -> str:
        """The expression of ``inner`` read through this view."""
        raise NotImplementedError


@dataclass(frozen=True)
class Shifted(View):
    """z_j + scale·v_j for a constant vector v over classes; −inf in v masks the class.

    With ``log``, z_j + scale·ln v_j, which is what class counts and priors are for.
    """

    vector: Vector
    log: bool = False
    scale: float = 1.0

    def masked(self) -> Tensor | None:
        """The classes that the vector masks, (C,) bool; None where it masks none."""
        lowest = 0.0 if self.log else -math.inf
        return self.vector.tensor == lowest if lowest in self.vector.values else None

    def shift(self, x: Tensor) -> Tensor:
        """The vector that is added, (C,), on the logits' device."""
        if len(self.vector) != x.shape[-1]:
            raise ValueError(f"logits have {x.shape[-1]} classes, the shift is for {len(self.vector)}")
        return self.vector.shift(self.log, self.scale, x.device)

    def apply(
        self, x: Tensor, a: Tensor, coefficients: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Tensor]:
        x, a = _centred(x, a)
        return x + self.shift(x).to(x.dtype), a

    def text(self, inner: str) -> str:
        options = (", log=True" if self.log else "") + (f", scale={self.scale!r}" if self.scale != 1 else "")
        return f"shifted({inner}, {self.vector!r}{options})"


@dataclass(frozen=True)
class Scaled(View):
    """s·z_j, s a number, a 0-d tensor, a named coefficient, or one value per row (1/temperature)."""

    factor: Coefficient

    def apply(
        self, x: Tensor, a: Tensor, coefficients: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Tensor]:
        x, a = _centred(x, a)
        s = self.factor.resolve(coefficients)
        return _product(x, _column(s, x)), a * s

    def text(self, inner: str) -> str:
        return f"scaled({inner}, {self.factor})"


@dataclass(frozen=True)
class Normalized(View):
    """z_j / (τ‖z‖), the norm over the unmasked classes."""

    tau: float

    def apply(
        self, x: Tensor, a: Tensor, coefficients: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Tensor]:
        z = a[:, None] + x.to(a.dtype)  # the norm of float32 rows with a large offset needs float64
        square_sum = z.masked_fill(x == -torch.inf, 0).square().sum(-1)
        s = 1 / (self.tau * torch.sqrt(square_sum + SMALLEST_NORM**2))
        x, a = _centred(x, a)
        return _product(x, s.to(x.dtype)[:, None]), a * s

    def text(self, inner: str) -> str:
        return f"normalized({inner}, {self.tau!r})"


@dataclass(frozen=True)
class SoftCapped(View):
    """cap·tanh(z_j / cap); masked classes stay masked."""

    cap: float

    def apply(
        self, x: Tensor, a: Tensor, coefficients: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Tensor]:
        masked = x == -torch.inf
        z = a.to(x.dtype)[:, None] + x.masked_fill(masked, 0)
        return (self.cap * torch.tanh(z / self.cap)).masked_fill(masked, -torch.inf), torch.zeros_like(a)

    def text(self, inner: str) -> str:
        return f"soft_capped({inner}, {self.cap!r})"
