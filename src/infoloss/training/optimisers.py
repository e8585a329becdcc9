"""Optimisers, and schedules: linear warm-up, then a cosine down to zero or a constant rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import nn

__all__ = ["OPTIMISERS", "Settings", "learning_rate_factor", "optimiser"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained; everything but the model, the loss, the data and the seed.

    ``warmup`` is the share of all steps in which the learning rate rises, ``schedule`` ("cosine", "constant")
    what comes after; ``momentum`` belongs to ``"sgd"``; ``"adamw"`` without weight decay is Adam;
    ``augmentation`` names what ``infoloss.training.augmentation`` does to every batch, in order.
    """

    learning_rate: float
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    epochs: int = 40
    batch_size: int = 64
    warmup: float = 0.05
    schedule: str = "cosine"
    augmentation: Sequence[str] = ()


def _adamw(parameters: Iterable[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def _sgd(parameters: Iterable[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        fused=True,
    )


OPTIMISERS: Mapping[str, Callable[[Iterable[nn.Parameter], Settings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}


def optimiser(parameters: Iterable[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over these parameters.

    The fused forms are taken: on a CPU they cost the same for small models and less for large ones.
    """
    return OPTIMISERS[settings.optimiser](parameters, settings)


def learning_rate_factor(step: int, *, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Factor on the learning rate at a step counted from 0: (t+1)/w in the warm-up, then ½(1 + cos πs), or 1.

    w = ``warmup`` · ``steps``, and s runs from 0 at the end of the warm-up to 1 after the last step, so that
    every step moves the weights.

    Example:
        >>> [round(learning_rate_factor(t, steps=4, warmup=0.25), 3) for t in range(4)]
        [1.0, 1.0, 0.75, 0.25]
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + cos(pi * (step - rising) / (steps - rising)))
