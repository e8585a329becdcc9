"""How a function that builds a term becomes an entry of the catalogue."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, ParamSpec

from torch import Tensor

from infoloss.terms import Coefficient, Named, Number, Scalar, Term, as_term
from infoloss.views import Vector

__all__ = ["Entry", "Range", "catalogue", "entry", "entry_named", "reference"]

P = ParamSpec("P")


@dataclass(frozen=True)
class Range:
    """Where a parameter is looked for when it is tuned: evenly between the ends, or evenly in its logarithm.

    Raises:
        ValueError: ends that are not finite and ascending, or a logarithm of what is not positive.

    Example:
        >>> Range(0.1, 10, log=True)
        Range(low=0.1, high=10, log=True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range needs finite ends, low < high; got {self.low} to {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must be above 0, got {self.low} to {self.high}")


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of a loss or regulariser."""

    name: str
    kind: str  # "loss": contains its data term; "regulariser": to be added to one
    summary: str
    formula: str
    parameters: Mapping[str, Any]  # name -> default
    binds: tuple[str, ...]  # parameters that a study takes from its training labels
    source: str
    bibtex_key: str
    make: Callable[..., Term]
    search: Mapping[str, Range]  # parameters that may be tuned

    @property
    def soft(self) -> str:
        """What a soft target means: "expected", "paper" or "none" (:attr:`infoloss.Term.soft`)."""
        return self.make(**dict.fromkeys(self.binds, (0.5, 0.5))).soft

    @property
    def expansion(self) -> Term:
        """The expression over row statistics, with default parameters (two equal classes where bound)."""
        term = self.make(**dict.fromkeys(self.binds, (0.5, 0.5)))
        assert isinstance(term, Named)
        assert term.expansion is not None
        return term.expansion

    @property
    def bibtex(self) -> str:
        """The BibTeX record of the source."""
        return reference(self.bibtex_key)


catalogue: dict[str, Entry] = {}
"""Every loss and regulariser by name."""


def entry_named(name: str) -> Callable[..., Term]:
    """The function that builds an entry."""
    return catalogue[name].make


@functools.cache
def _references() -> dict[str, str]:
    text = resources.files("infoloss").joinpath("references.bib").read_text(encoding="utf-8")
    records = [record.strip() for record in re.split(r"\n(?=@)", text.strip())]
    keys = re.findall(r"^@\w+\{([^,]+),", text, re.MULTILINE)
    return dict(zip(keys, records, strict=True))


def reference(key: str) -> str:
    """The BibTeX record with this key.

    Raises:
        KeyError: there is none.
    """
    return _references()[key]


def entry(
    kind: str,
    *,
    source: str,
    key: str,
    binds: tuple[str, ...] = (),
    link: Callable[..., Tensor] | None = None,
    search: Mapping[str, Range] = MappingProxyType({}),
) -> Callable[[Callable[P, Term]], Callable[P, Term]]:
    """Register the decorated function, which returns the expansion, as an entry of the catalogue.

    Its docstring gives the summary (first line) and the formula (second paragraph). ``binds`` names
    parameters whose default None means "still to be given"; ``link`` gives the log-probabilities of
    logits where they are no softmax; ``search`` says where its parameters are looked for when they are tuned.
    """

    def register(expand: Callable[P, Term]) -> Callable[P, Term]:
        name = expand.__name__
        signature = inspect.signature(expand)
        defaults = {n: p.default for n, p in signature.parameters.items()}
        by_name: Callable[..., Term] = expand

        @functools.wraps(expand)
        def make(*args: P.args, **kwargs: P.kwargs) -> Term:
            if any(isinstance(a, Tensor) and a.ndim > 0 for a in args):
                raise TypeError(
                    f"il.{name}(…) makes a loss, which is then called on tensors: il.{name}()(logits, target)"
                )
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}: {error}; its parameters: {', '.join(defaults) or 'none'}") from None
            bound.apply_defaults()
            parameters = {n: _parameter(v, n, defaults[n], n in binds) for n, v in bound.arguments.items()}
            missing = any(parameters[n] is None or isinstance(parameters[n], Coefficient) for n in binds)
            expansion = None if missing else by_name(**parameters)
            return Named(name, tuple(parameters.items()), kind, binds, expansion, make, link)

        paragraphs = (inspect.getdoc(expand) or "").split("\n\n")
        catalogue[name] = Entry(
            name, kind, paragraphs[0], paragraphs[1].strip(), defaults, binds, source, key, make, search
        )
        return make

    return register


def _parameter(value: Any, name: str, default: Any, bound: bool) -> Any:
    """A parameter in the form that prints and compares: float, int, Vector, coefficient or None."""
    if bound and value is not None and not isinstance(value, Coefficient):
        vector = value if isinstance(value, Vector) else Vector(value)
        if not bool((vector.tensor >= 0).all()) or not math.isfinite(float(vector.tensor.sum())):
            raise ValueError(f"{name} must be finite numbers ≥ 0, got {vector.values}")
        total = float(vector.tensor.sum())
        if total == 0:
            raise ValueError(f"{name} must not all be 0")
        if name == "prior" and abs(total - 1) > 1e-5:
            raise ValueError(f"a prior must sum to 1, got {total:g}; class counts divided by their sum do")
        return vector
    if value is None or isinstance(value, Coefficient | Scalar):
        return value
    if type(default) is int:
        if not isinstance(value, int | float) or isinstance(value, bool) or value != int(value):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        return int(value)
    leaf = as_term(value)
    if isinstance(leaf, Number):
        return leaf.number
    if isinstance(leaf, Scalar | Coefficient):
        return leaf
    raise TypeError(f"{name} must be a number or a coefficient, got {value}")
