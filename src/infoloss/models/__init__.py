"""Models: plain ``nn.Module``s from rows of features to logits, with a seeded start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from infoloss.models.linear import linear
from infoloss.models.mlp import mlp

__all__ = ["MODELS", "build", "linear", "mlp"]

MODELS: Mapping[str, Callable[..., nn.Module]] = {"linear": linear, "mlp": mlp}


def build(name: str, *, features: int, classes: int, seed: int, **options: Any) -> nn.Module:
    """The model of that name; the same seed gives the same initial weights, and the global generator rests.

    Args:
        name: a key of ``MODELS``.
        features: width F of a row.
        classes: number C of logits.
        seed: of the initial weights.
        options: the model's own (``hidden`` of the MLP).

    Returns:
        A float32 module from (N, F) to (N, C), on the CPU.

    Example:
        >>> first, second = (build("mlp", features=4, classes=3, seed=7, hidden=(5,)) for _ in range(2))
        >>> bool((first[0].weight == second[0].weight).all())
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](features=features, classes=classes, **options)
