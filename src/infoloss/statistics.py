"""Row statistics: the few numbers of a row of logits that every loss is a function of.

A kernel reads a row of logits z once and returns its *moments*, centred at the row's maximum m where
they contain an exponential (u = z − m), so that nothing overflows and differences do not cancel. The
statistics below are differentiable functions of the moments, each written once, for every kernel.

Moments of two blocks of columns of the same row merge: sums add, sums of exponentials are first
rescaled by e^(m_a − m). Sums without an exponential (Σz, Σz²) are taken over the raw values in
float64: centring them at the maximum would make Σ_{j≠y} z_j² of a confident row cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MOMENTS", "SMOOTHING", "STATISTICS", "Definition", "Moments", "merged", "recentred", "smoothed"]

Moments = dict[str, Tensor]
"""Moments by name, each of shape (N,), float64 (float32 on devices that have no float64)."""

MOMENTS: dict[str, str] = {
    "maximum": "m, a constant where the logits are differentiated: any centre gives the same statistics",
    "peak": "m with its gradient 1[j = argmax]",
    "classes": "the number of unmasked classes",
    "exp_sum": "Σ e^u",
    "exp_logit_sum": "Σ u e^u",
    "exp_square_sum": "Σ e^2u",
    "logit_sum": "Σ z",
    "logit_square_sum": "Σ z²",
    "label_logit": "u_y, or Σ t u",
    "label_logit_square": "z_y², or Σ t z²",
    "label_exp": "e^u_y, or Σ t e^u",
    "label_log_exp": "Σ e^u ln max(t, floor)",
    "label_entropy": "−Σ t ln t, 0 for hard labels",
    "label_square_sum": "Σ t², 1 for hard labels",
    "label_masked": "whether a class that the target wants is masked",
    "label_sum": "Σ t over a block of columns: how much of the target lies in it (for merging only)",
}
"""What a kernel can compute of a row z with hard label y or soft target t."""


@dataclass(frozen=True)
class Definition:
    """A statistic: the moments it needs, its value from them, and how it reads the target.

    ``target`` is "no", "linear" (under a soft target t it becomes its mean Σ_c t_c s(z, c), so an
    expression affine in it keeps its meaning) or "soft" (defined by the soft target as a whole).
    """

    formula: str
    needs: tuple[str, ...]
    value: Callable[[Moments], Tensor]
    target: str = "no"


def _lse(m: Moments) -> Tensor:
    return m["maximum"] + torch.log(m["exp_sum"])


def _target_logit(m: Moments) -> Tensor:
    return m["maximum"] + m["label_logit"]


def _target_probability(m: Moments) -> Tensor:
    return m["label_exp"] / m["exp_sum"]


def _expected_logit(m: Moments) -> Tensor:
    return m["maximum"] + m["exp_logit_sum"] / m["exp_sum"]


def _collision(m: Moments) -> Tensor:
    return m["exp_square_sum"] / m["exp_sum"] ** 2


def _expected_log_target(m: Moments) -> Tensor:
    return m["label_log_exp"] / m["exp_sum"]


def _moment(name: str, formula: str, target: str = "no") -> Definition:
    """A statistic that is a moment as it stands."""
    return Definition(formula, (name,), lambda m: m[name], target)


STATISTICS: dict[str, Definition] = {
    "lse": Definition("L = ln Σ e^z_j", ("exp_sum",), _lse),
    "target_logit": Definition("z_y, or Σ t_j z_j", ("label_logit",), _target_logit, "linear"),
    "target_logit_square": _moment("label_logit_square", "z_y², or Σ t_j z_j²", "linear"),
    "target_probability": Definition(
        "q_y, or Σ t_j q_j", ("label_exp", "exp_sum"), _target_probability, "linear"
    ),
    "target_entropy": _moment("label_entropy", "−Σ t_j ln t_j", "soft"),
    "target_square_sum": _moment("label_square_sum", "Σ t_j²", "soft"),
    "expected_log_target": Definition(
        "Σ q_j ln max(t_j, floor)", ("label_log_exp", "exp_sum"), _expected_log_target, "soft"
    ),
    "logit_sum": _moment("logit_sum", "Σ z_j"),
    "logit_square_sum": _moment("logit_square_sum", "Σ z_j²"),
    "expected_logit": Definition("Σ q_j z_j", ("exp_logit_sum", "exp_sum"), _expected_logit),
    "collision": Definition("Σ q_j²", ("exp_square_sum", "exp_sum"), _collision),
    "max_logit": _moment("peak", "max z_j"),
    "classes": _moment("classes", "number of unmasked classes"),
}
"""Every statistic by its public name, with q = softmax(z), y a hard label and t a soft target."""


SMOOTHING: dict[str, tuple[str, ...]] = {
    "label_logit": ("logit_sum", "classes"),
    "label_logit_square": ("logit_square_sum", "classes"),
    "label_exp": ("exp_sum", "classes"),
    "label_log_exp": ("label_exp", "exp_sum", "classes"),
    "label_entropy": ("classes",),
    "label_square_sum": ("classes",),
}
"""The further moments that a label's moment needs under label smoothing."""


def smoothed(m: Moments, epsilon: float, floor: float) -> Moments:
    """The moments of the soft target (1 − ε)·one-hot + ε/C, from those of the hard label."""
    result = dict(m)
    n = m.get("classes", torch.ones(()))
    other = epsilon / n  # the target's value at every class but the label's
    label = 1 - epsilon + other
    if "label_logit" in m:
        result["label_logit"] = (1 - epsilon) * m["label_logit"] + epsilon * (
            m["logit_sum"] / n - m["maximum"]
        )
    if "label_logit_square" in m:
        result["label_logit_square"] = (1 - epsilon) * m["label_logit_square"] + other * m["logit_square_sum"]
    if "label_log_exp" in m:
        rest = m["exp_sum"] - m["label_exp"]
        result["label_log_exp"] = m["label_exp"] * torch.log(label.clamp(min=floor)) + rest * torch.log(
            other.clamp(min=floor)
        )
    if "label_exp" in m and "exp_sum" in m:
        result["label_exp"] = (1 - epsilon) * m["label_exp"] + other * m["exp_sum"]
    if "label_entropy" in m:
        result["label_entropy"] = -torch.xlogy(label, label) - (n - 1) * torch.xlogy(other, other)
    if "label_square_sum" in m:
        result["label_square_sum"] = label**2 + (n - 1) * other**2
    return result


EXPONENTIAL = ("exp_sum", "exp_square_sum", "label_exp", "label_log_exp")


def recentred(part: Moments, maximum: Tensor) -> Moments:
    """The moments of a block of columns about another centre than the block's own maximum.

    With d = m_block − m: e^u becomes e^d e^u, and Σ u e^u becomes e^d (Σ u e^u + d Σ e^u).

    Args:
        part: moments of the block; ``exp_sum`` beside ``exp_logit_sum``, ``label_sum`` beside
            ``label_logit``, and the label's moments summed over the block's columns only.
        maximum: m, (N,), a constant, at least as large as the block's maximum.
    """
    result = {**part, "maximum": maximum}
    # a block whose classes are all masked has sums of 0, and m_block = −inf would make them nan
    d = torch.where(part["maximum"] == -torch.inf, 0, part["maximum"] - maximum)
    factor = torch.exp(d)
    for name in EXPONENTIAL:
        if name in part:
            result[name] = part[name] * (factor**2 if name == "exp_square_sum" else factor)
    if "exp_logit_sum" in part:
        result["exp_logit_sum"] = factor * (part["exp_logit_sum"] + d * part["exp_sum"])
    if "label_logit" in part:
        result["label_logit"] = part["label_logit"] + d * part["label_sum"]
    return result


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of whole rows from those of their blocks of columns, in the columns' order.

    Merging is associative, and a block of masked classes is its identity. A tie of the maximum goes to
    the first block.

    Args:
        parts: one or more, with the same moments, as :func:`recentred` needs them.

    >>> import torch
    >>> blocks = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    >>> tops = blocks.amax(1)
    >>> sums = (blocks - tops[:, None]).exp().sum(1)
    >>> whole = merged([{"maximum": m[None], "exp_sum": s[None]} for m, s in zip(tops, sums)])
    >>> float(STATISTICS["lse"].value(whole) - blocks.logsumexp((0, 1))) < 1e-15
    True
    """
    maximum, first = torch.stack([part["maximum"].detach() for part in parts]).max(0)
    moved = [recentred(part, maximum) for part in parts]
    result: Moments = {"maximum": maximum}
    for name in dict.fromkeys(name for part in parts for name in part if name != "maximum"):
        values = torch.stack([part[name] for part in moved if name in part])
        if name == "peak":
            result[name] = values.gather(0, first[None])[0]
        else:
            result[name] = values.any(0) if name == "label_masked" else values.sum(0)
    return result
