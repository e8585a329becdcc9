"""Real studies in small: MLPs trained side by side in one batched product, each with its own split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]  # (M, B, C) logits, (M, B) targets -> (M, B)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.movedim(-1, 1), target, reduction="none")


def smoothed(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.movedim(-1, 1), target, reduction="none", label_smoothing=0.1)


def square(logits: Tensor, target: Tensor) -> Tensor:
    return (logits - 4.0 * functional.one_hot(target, logits.shape[-1])).square().mean(-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "smoothed": smoothed, "square": square}


@dataclass(frozen=True, eq=False)
class Recipe:
    """Adam on a one-layer MLP; the epoch with the best validation cross entropy is kept."""

    hidden: int = 32
    epochs: int = 12
    batch: int = 64
    learning_rate: float = 0.01


@dataclass(frozen=True, eq=False)
class Splits:
    """(M, n) row indices, one row of indices a model."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def stratified_splits(target: np.ndarray, models: int, seed: int, *, same_test: bool = False) -> Splits:
    """60/20/20 within each class; with `same_test` one split serves all models."""
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for model in range(models):
        if same_test and model:
            for part in parts:
                part.append(part[0])
            continue
        cut: list[list[np.ndarray]] = [[], [], []]
        for label in np.unique(target):
            rows = generator.permutation(np.flatnonzero(target == label))
            first, second = round(0.6 * len(rows)), round(0.8 * len(rows))
            for piece, chosen in zip(cut, np.split(rows, [first, second]), strict=True):
                piece.append(chosen)
        for part, piece in zip(parts, cut, strict=True):
            part.append(np.concatenate(piece))
    return Splits(*(np.stack(part) for part in parts))


def trained_log_probabilities(
    features: np.ndarray, target: np.ndarray, splits: Splits, seeds: np.ndarray, loss: Loss, recipe: Recipe
) -> np.ndarray:
    """(M, N, C) log-probabilities of M models on all rows; model k starts from and shuffles by seeds[k]."""
    x, y = torch.from_numpy(features), torch.from_numpy(target)
    train, validation = torch.from_numpy(splits.train), torch.from_numpy(splits.validation)
    models, classes = len(seeds), int(target.max()) + 1
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    x = _standardised(x, train)  # (M, N, F)
    parameters = _initial(generators, features.shape[1], recipe.hidden, classes)
    first, second = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters]
    best, kept = torch.full((models,), torch.inf), [p.clone() for p in parameters]
    model, step = torch.arange(models)[:, None], 0
    batches = -(-train.shape[1] // recipe.batch)
    for _ in range(recipe.epochs):
        order = torch.stack([torch.randperm(train.shape[1], generator=g) for g in generators])
        for chosen in order.split(recipe.batch, dim=1):
            rows, step = train.gather(1, chosen), step + 1
            for p in parameters:
                p.requires_grad_(True)
            value = loss(_logits(x[model, rows], parameters), y[rows]).mean(1).sum()
            gradients = torch.autograd.grad(value, parameters)
            rate = recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * step / (batches * recipe.epochs + 1)))
            parameters = _adam(parameters, gradients, first, second, rate, step)
        with torch.no_grad():
            found = cross_entropy(_logits(x[model, validation], parameters), y[validation]).mean(1)
            better = found < best
            best = torch.where(better, found, best)
            kept = [torch.where(better[:, None, None], p, k) for p, k in zip(parameters, kept, strict=True)]
    with torch.no_grad():
        return _logits(x, kept).log_softmax(-1).numpy()


def _standardised(x: Tensor, train: Tensor) -> Tensor:
    seen = x[train]  # (M, n, F)
    mean, deviation = seen.mean(1, keepdim=True), seen.std(1, keepdim=True)
    return (x[None] - mean) / torch.where(deviation > 0, deviation, torch.ones(()))


def _initial(generators: list[torch.Generator], features: int, hidden: int, classes: int) -> list[Tensor]:
    def drawn(inputs: int, outputs: int) -> Tensor:
        return torch.stack([torch.randn(inputs, outputs, generator=g) for g in generators]) * inputs**-0.5

    models = len(generators)
    return [
        drawn(features, hidden) * 2**0.5,
        torch.zeros(models, 1, hidden),
        drawn(hidden, classes),
        torch.zeros(models, 1, classes),
    ]


def _logits(x: Tensor, parameters: list[Tensor]) -> Tensor:
    weight, bias, last_weight, last_bias = parameters
    logits: Tensor = torch.baddbmm(last_bias, torch.baddbmm(bias, x, weight).relu(), last_weight)
    return logits


def _adam(
    parameters: list[Tensor],
    gradients: tuple[Tensor, ...],
    first: list[Tensor],
    second: list[Tensor],
    rate: float,
    step: int,
) -> list[Tensor]:
    moved = []
    for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
        m.mul_(0.9).add_(g, alpha=0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        scale = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
        moved.append(p.detach() - rate / (1 - 0.9**step) * m / scale)
    return moved
