"""One record per loss of the catalogue (some have two): how to build it, its oracle, the laws it obeys.

`soft` is what a probability target means: "expected" Σ_c t_c ℓ(z, c), "paper" the loss's own formula, "none"
an error. `shift_invariant`: ℓ(z + c) = ℓ(z). `lower`: a bound of the value for five classes. `vanishes`: the
value goes to 0 when the label's logit runs away. `minimiser(π)`: logits z* at which the expected loss
Σ_c π_c ℓ(z, c) is smallest, where `probabilities(z*)` must be π; None where the loss is not proper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import oracles
import problems
import torch

import infoloss as il

Array = problems.Array


def log_probabilities(p: Array) -> Array:
    return np.log(p)


@dataclass(frozen=True)
class Case:
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    per_class: str | None = None
    """The one argument that is a vector over classes: "counts" or "prior"."""
    kind: Literal["loss", "regulariser"] = "loss"
    soft: Literal["expected", "paper", "none"] = "expected"
    shift_invariant: bool = True
    lower: float = 0.0
    vanishes: bool = False
    minimiser: Callable[[Array], Array] | None = None

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])

    def term(self, classes: int) -> Any:
        vector = {self.per_class: torch.tensor(self.vector(classes))} if self.per_class else {}
        return getattr(il, self.name)(**self.arguments, **vector)

    def vector(self, classes: int) -> Array:
        assert self.per_class is not None
        return problems.per_class(self.per_class, classes)  # type: ignore[no-any-return]

    def parameters(self, classes: int) -> dict[str, Any]:
        """Keyword arguments of the oracle."""
        vector = {self.per_class: self.vector(classes)} if self.per_class else {}
        return {**self.arguments, **vector}

    @property
    def oracle(self) -> oracles.Loss:
        return getattr(oracles, self.name)  # type: ignore[no-any-return]

    def row(self, z: Any, target: Any) -> Any:
        return oracles.row(self.oracle, z, target, self.parameters(len(z)), reads_target=self.kind == "loss")

    def reduction(self, logits: Any, target: Any, **options: Any) -> Any:
        return oracles.reduction(
            self.oracle,
            logits,
            target,
            self.parameters(np.shape(logits)[1]),
            reads_target=self.kind == "loss",
            **options,
        )


def rescaled_square_minimiser(k: float, M: float) -> Callable[[Array], Array]:
    """π_j k (z − M) + (1 − π_j) z = 0."""
    return lambda p: k * M * p / (1 - p + k * p)


def logit_norm_minimiser(tau: float) -> Callable[[Array], Array]:
    """z = ln π + c with ‖z‖ = 1/τ, so that z/(τ‖z‖) = z."""

    def minimiser(p: Array) -> Array:
        log_p = np.log(p)
        a, b, c = len(p), 2 * log_p.sum(), (log_p**2).sum() - tau**-2
        return log_p + (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)

    return minimiser


def floor_bound(floor: float, classes: int = 5) -> float:
    """KL(q‖t) ≥ −ln Σ t; flooring makes the total of a one-hot target a little more than 1."""
    return -math.log1p((classes - 1) * floor)


def logit_norm_bound(tau: float, classes: int = 5) -> float:
    """The most that logits of norm 1/τ can favour a label: a lead of √(C/(C−1))/τ over each other class."""
    return math.log1p((classes - 1) * math.exp(-math.sqrt(classes / (classes - 1)) / tau))


CASES = (
    Case("cross_entropy", vanishes=True, minimiser=log_probabilities),
    Case("cross_entropy", {"label_smoothing": 0.1}),
    Case("kl", soft="paper", vanishes=True, minimiser=log_probabilities),
    Case("reverse_kl", soft="paper", lower=floor_bound(1e-6)),
    Case("reverse_cross_entropy", soft="paper", vanishes=True),
    Case("reverse_cross_entropy", {"floor": 1e-3}, soft="paper", vanishes=True),
    Case("min_ent", vanishes=True),
    Case("min_ent", {"w1": 0.5, "w2": 2.0}, vanishes=True),
    Case("mix_ent", soft="paper", vanishes=True),
    Case("mix_ent", {"w1": 0.5, "w2": 2.0, "floor": 1e-2}, soft="paper", vanishes=True),
    Case("symmetric_cross_entropy", soft="paper", vanishes=True),
    Case("symmetric_cross_entropy", {"alpha": 2.0, "beta": 0.5, "floor": 1e-3}, soft="paper", vanishes=True),
    Case("squentropy", shift_invariant=False, vanishes=True),
    Case("squentropy", {"alpha": 0.1, "centre": -1.0}, shift_invariant=False),
    Case("rescaled_square", shift_invariant=False, minimiser=rescaled_square_minimiser(1, 1)),
    Case(
        "rescaled_square",
        {"k": 3.0, "M": 5.0},
        shift_invariant=False,
        minimiser=rescaled_square_minimiser(3, 5),
    ),
    Case(
        "balanced_softmax",
        per_class="counts",
        vanishes=True,
        minimiser=lambda p: np.log(p) - np.log(problems.counts(len(p))),
    ),
    Case(
        "pc_softmax",
        per_class="prior",
        lower=-math.inf,
        minimiser=lambda p: np.log(p) - np.log(problems.prior(len(p))),
    ),
    Case(
        "logit_adjusted",
        per_class="prior",
        vanishes=True,
        minimiser=lambda p: np.log(p) - np.log(problems.prior(len(p))),
    ),
    Case(
        "logit_adjusted",
        {"tau": 0.5},
        per_class="prior",
        vanishes=True,
        minimiser=lambda p: np.log(p) - 0.5 * np.log(problems.prior(len(p))),
    ),
    Case("focal", soft="none", vanishes=True),
    Case("focal", {"gamma": 0.5}, soft="none", vanishes=True),
    Case("focal_flsd", soft="none", vanishes=True),
    Case("poly1", vanishes=True),
    Case("taylor", soft="none", vanishes=True),
    Case("taylor", {"order": 4}, soft="none", vanishes=True),
    Case("generalized_cross_entropy", soft="none", vanishes=True),
    Case("generalized_cross_entropy", {"q": 0.3}, soft="none", vanishes=True),
    Case("mae", vanishes=True),
    Case("jensen_shannon", soft="none", vanishes=True),
    Case("jensen_shannon", {"weight": 0.1}, soft="none", vanishes=True),
    Case("normalized_cross_entropy", vanishes=True),
    Case("brier", soft="paper", vanishes=True, minimiser=log_probabilities),
    Case(
        "logit_norm",
        shift_invariant=False,
        lower=logit_norm_bound(0.04),
        minimiser=logit_norm_minimiser(0.04),
    ),
    Case(
        "logit_norm",
        {"tau": 0.2},
        shift_invariant=False,
        lower=logit_norm_bound(0.2),
        minimiser=logit_norm_minimiser(0.2),
    ),
    Case("soft_bootstrap", vanishes=True),
    Case("soft_bootstrap", {"beta": 0.5}, vanishes=True),
    Case("entropy", kind="regulariser"),
    Case("confidence_penalty", kind="regulariser", lower=-0.1 * math.log(5)),
    Case("z_loss", kind="regulariser", shift_invariant=False),
    Case("logit_penalty", {"beta": 0.3}, kind="regulariser", shift_invariant=False),
    Case("max_suppression", kind="regulariser"),
)

LOSSES = tuple(case for case in CASES if case.kind == "loss")
SOFT = tuple(case for case in LOSSES if case.soft != "none")
HARD_ONLY = tuple(case for case in LOSSES if case.soft == "none")
FIRST = tuple(
    {case.name: case for case in reversed(CASES)}[name] for name in dict.fromkeys(c.name for c in CASES)
)
"""The record with default parameters of every entry."""
