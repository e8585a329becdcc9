"""The training loop: the same for every model and every loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from infoloss import kernels
from infoloss.training.augmentation import Augmented, augmentation, augmented, random_numbers
from infoloss.training.mapped import MappedRows
from infoloss.training.optimisers import Settings, learning_rate_factor, optimiser

__all__ = ["METRICS", "Fit", "Rows", "fit", "predicted", "validation_scores"]

NUMBERS_AT_ONCE = 1 << 20
"""Of the rows in a block of predictions: the activations of all images at once would not fit in memory."""


class Decides(Protocol):
    """What a loss implies at test time."""

    def decision(self, logits: Tensor) -> Tensor: ...
    def log_probabilities(self, logits: Tensor) -> Tensor: ...


class Objective(Protocol):
    """What is minimised: a module over logits and labels that knows its term (``infoloss.Criterion``)."""

    @property
    def term(self) -> Decides: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def __call__(
        self, logits: Tensor, target: Tensor, /, *, sample_weight: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that may be looked at: features (N, …), labels (N,) and perhaps weights (N,)."""

    features: Tensor | MappedRows
    target: Tensor
    sample_weight: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished training: the model with the chosen epoch's weights, and how it went.

    ``curve`` has an entry an epoch; ``validation`` and ``validation_logits`` belong to ``best_epoch``, and
    are empty where the training diverged or had no validation rows.
    """

    model: nn.Module
    status: Literal["done", "diverged"]
    error: str | None
    best_epoch: int | None
    validation: dict[str, float]
    validation_logits: Tensor | None
    curve: list[dict[str, float]]
    seconds: float
    step_milliseconds: float


METRICS: dict[str, Callable[[dict[str, float]], float]] = {
    "accuracy": lambda scores: scores["accuracy"],
    "balanced_accuracy": lambda scores: scores["balanced_accuracy"],
    "nll": lambda scores: -scores["nll"],
}
"""What a study may choose by: each turns validation scores into a number of which more is better."""


def validation_scores(term: Decides, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Accuracy and balanced accuracy (fractions) of the loss's decisions, NLL (nats) of its probabilities.

    Args:
        term: turns logits into decisions and log-probabilities, so that losses are compared like with like.
        logits: (N, C).
        target: (N,) labels; a class without a row does not enter balanced accuracy.
    """
    hit = (term.decision(logits) == target).double()  # (N,)
    rows = torch.bincount(target, minlength=logits.shape[1]).double()  # (C,)
    hits = torch.zeros_like(rows).index_add_(0, target, hit)
    log_p = term.log_probabilities(logits).double().gather(1, target[:, None])
    return {
        "accuracy": hit.mean().item(),
        "balanced_accuracy": (hits[rows > 0] / rows[rows > 0]).mean().item(),
        "nll": -log_p.mean().item(),
    }


def predicted(model: nn.Module, features: Tensor | MappedRows) -> Tensor:
    """(N, C) logits without gradients, a block of rows at a time, as the model gives them outside training.

    Args:
        model: left in evaluation mode.
        features: (N, …).
    """
    model.eval()
    rows = max(1, NUMBERS_AT_ONCE // max(1, features[:1].numel()))
    with torch.no_grad():
        return torch.cat([model(block) for block in features.split(rows)])


def fit(
    model: nn.Module,
    criterion: Objective,
    train: Rows,
    validation: Rows | None,
    *,
    settings: Settings,
    seed: int,
    metric: str = "accuracy",
    told: Callable[[int, int], None] | None = None,
) -> Fit:
    """Trains the model and keeps the epoch that is best on validation; the last one without validation.

    The batches are index permutations from a generator of this seed alone, and augmentation draws from seed
    and step alone, as does PyTorch's own generator, which is put back at the end: every loss of a seed sees
    the same batches, and the same dropout in models that have PyTorch's. A last batch of a single row joins
    the one before: batch normalisation needs two.

    The best epoch has the highest ``metric``; ties go to the lower validation NLL, then to the
    earlier epoch.

    Args:
        model: (N, …) to (N, C); changed in place.
        criterion: the loss.
        train: rows learnt from.
        validation: rows chosen by, if any.
        settings: optimiser, schedule, epochs, batch size, augmentation.
        seed: of the batches and all else that is random.
        metric: a key of ``METRICS``.
        told: called with the number of each epoch that ended well, and with how many there are.

    Returns:
        A ``Fit``. Its status is "diverged" where a loss or a logit stopped being finite; ``error`` names the
        epoch.
    """
    devices = [train.target.device] if train.target.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _compiled(train.target.device):
        return _fitted(_Training(model, criterion, train, settings, seed), validation, metric, told)


def _compiled(device: torch.device) -> AbstractContextManager[None]:
    """The compiled CPU kernel for small batches too, since here it is called often enough to be loaded."""
    if device.type == "cpu" and kernels.available("cpu"):
        return kernels.use("cpu")
    return nullcontext()


def _fitted(
    training: _Training,
    validation: Rows | None,
    metric: str,
    told: Callable[[int, int], None] | None,
) -> Fit:
    started = perf_counter()
    model, criterion, settings = training.model, training.criterion, training.settings
    curve: list[dict[str, float]] = []
    best: _Choice | None = None
    error = None
    for epoch in range(1, settings.epochs + 1):
        train_loss = training.epoch()
        logits = None if validation is None else predicted(model, validation.features)
        error = _divergence(epoch, train_loss, logits)
        if error is not None:
            break
        if told is not None:
            told(epoch, settings.epochs)
        if validation is None or logits is None:
            curve.append({"epoch": epoch, "train_loss": train_loss})
            continue
        scores = validation_scores(criterion.term, logits, validation.target)
        curve.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_nll": scores["nll"],
                "validation_accuracy": scores["accuracy"],
            }
        )
        rank = (METRICS[metric](scores), -scores["nll"])
        if best is None or rank > best.rank:
            best = _Choice(rank, epoch, scores, logits, deepcopy(model.state_dict()))
    chosen = best if error is None else None
    if chosen is not None:
        model.load_state_dict(chosen.state)
    return Fit(
        model=model,
        status="done" if error is None else "diverged",
        error=error,
        best_epoch=chosen.epoch if chosen else None,
        validation=chosen.scores if chosen else {},
        validation_logits=chosen.logits if chosen else None,
        curve=curve,
        seconds=perf_counter() - started,
        step_milliseconds=1000 * training.seconds / max(training.step, 1),
    )


@dataclass(frozen=True, eq=False)
class _Choice:
    rank: tuple[float, float]
    epoch: int
    scores: dict[str, float]
    logits: Tensor
    state: dict[str, Tensor]


class _Training:
    """The state that passes from epoch to epoch: optimiser, generator of batches, step, seconds in steps."""

    def __init__(
        self, model: nn.Module, criterion: Objective, train: Rows, settings: Settings, seed: int
    ) -> None:
        self.model, self.criterion, self.train, self.settings = model, criterion, train, settings
        # without a graph for the loss, where nothing in it is learnt
        learnt = any(parameter.requires_grad for parameter in criterion.parameters())
        self.value_and_grad: Callable[..., tuple[Tensor, Tensor]] | None = (
            None if learnt else getattr(criterion, "value_and_grad", None)
        )
        self.seed, self.augmentations = seed, tuple(map(augmentation, settings.augmentation))
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = optimiser([*model.parameters(), *criterion.parameters()], settings)
        n, size = len(train.target), settings.batch_size
        self.sizes = [size] * (n // size) + [n % size] * (n % size > 0)
        if self.sizes[-1] == 1 and len(self.sizes) > 1:
            self.sizes[-2:] = [size + 1]
        self.step = 0
        self.seconds = 0.0

    def epoch(self) -> float:
        """One pass over the training rows; the mean of the batches' losses, each weighted by its rows."""
        started = perf_counter()
        self.model.train()
        n = len(self.train.target)
        order = torch.randperm(n, generator=self.generator).to(self.train.target.device)
        total = torch.zeros((), device=order.device)
        for batch in torch.split(order, self.sizes):
            total += self._one_step(batch) * (len(batch) / n)
        mean = total.item()
        self.seconds += perf_counter() - started
        return mean

    def _one_step(self, batch: Tensor) -> Tensor:
        factor = learning_rate_factor(
            self.step,
            steps=self.settings.epochs * len(self.sizes),
            warmup=self.settings.warmup,
            schedule=self.settings.schedule,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = factor * self.settings.learning_rate
        _restart(batch.device, self.seed, self.step)
        self.optimiser.zero_grad()
        loss = self._backward(batch)
        self.optimiser.step()
        self.step += 1
        return loss

    def _backward(self, batch: Tensor) -> Tensor:
        """The gradients of a batch's loss, which is returned."""
        given = Augmented(_chosen(self.train.features, batch))
        if self.augmentations:
            given = augmented(given.features, self.augmentations, random_numbers(self.seed, self.step))
        logits = self.model(given.features)
        if given.partner is None and self.value_and_grad is not None:
            loss, gradient = self.value_and_grad(logits, self._labels(batch), **self._weights(batch))
            logits.backward(gradient)
            return loss
        loss = self.criterion(logits, self._labels(batch), **self._weights(batch))
        if given.partner is not None:
            rows = batch[given.partner]
            partners = self.criterion(logits, self._labels(rows), **self._weights(rows))
            loss = given.share * loss + (1 - given.share) * partners
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _labels(self, rows: Tensor) -> Tensor:
        return self.train.target[rows]

    def _weights(self, rows: Tensor) -> dict[str, Tensor]:
        weight = self.train.sample_weight
        return {} if weight is None else {"sample_weight": weight[rows]}


def _chosen(features: Tensor | MappedRows, batch: Tensor) -> Tensor:
    """These rows; ``index_select`` copies them whole, where an index copies number by number."""
    return features.index_select(0, batch) if isinstance(features, Tensor) else features[batch]


def _restart(device: torch.device, seed: int, step: int) -> None:
    """PyTorch's own generator from seed and step; ``torch.manual_seed`` takes as long as a small step."""
    # The generator reads 32 bits; an odd factor keeps the steps of different seeds apart.
    mixed = (seed * 0x9E3779B1 + step) % (1 << 32)
    if device.type == "cpu":
        torch.default_generator.manual_seed(mixed)
    else:
        torch.manual_seed(mixed)


def _divergence(epoch: int, train_loss: float, logits: Tensor | None) -> str | None:
    if not abs(train_loss) < float("inf"):
        return f"training loss {train_loss} in epoch {epoch}"
    if logits is not None and not bool(logits.isfinite().all()):
        return f"validation logits not finite after epoch {epoch}"
    return None
