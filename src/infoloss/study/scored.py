"""One run's predictions, read and scored as its loss means them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from infoloss.evaluation import contributions, label_contributions, scores, tempered
from infoloss.study.own_losses import term_of

__all__ = ["Predicted", "Scored", "predicted", "scored"]

POINTS = 100.0


@dataclass(frozen=True, eq=False)
class Predicted:
    """Log-probabilities (n, C), decisions and labels (n,) of a run's test rows, and ids of the rows if known.

    ``validation`` are log-probabilities and labels of the validation rows.
    """

    log_probabilities: np.ndarray
    decision: np.ndarray
    target: np.ndarray
    rows: np.ndarray | None
    validation: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Scored:
    """What an analysis reads of a run: its scores, and arrays (n,) over its test rows.

    ``scores`` are those of ``infoloss.evaluation.scores`` (accuracies are fractions); ``likeliest`` says
    whether the class of the largest probability, the ``confidence``, is right: what reliability is about.
    ``nll`` and ``nll_scaled`` are rounded to float32, as a packed study keeps them.
    """

    scores: dict[str, float]
    classes: int
    validation_rows: int
    rows: np.ndarray | None
    target: np.ndarray
    decision: np.ndarray
    nll: np.ndarray
    nll_scaled: np.ndarray
    confidence: np.ndarray
    confidence_scaled: np.ndarray
    likeliest: np.ndarray

    def contributions(self, metric: str) -> np.ndarray:
        """(n,) whose mean is the metric, in points for accuracies and nats for NLL."""
        if metric == "nll":
            return self.nll
        if metric == "nll_scaled":
            return self.nll_scaled
        return POINTS * label_contributions(self.target, self.decision, metric)


def predicted(
    arrays: Mapping[str, np.ndarray], expression: str | None, bindings: Mapping[str, object]
) -> Predicted:
    """The predictions of a run.

    Args:
        arrays: as stored.
        expression: of the loss, which says what logits mean; they are log-probabilities without.
        bindings: values of the expression's unbound names.
    """
    term = term_of(expression or "cross_entropy")
    term = term.bind(**bindings) if bindings else term
    test = torch.from_numpy(arrays["test_logits"].astype(np.float64))
    validation = torch.from_numpy(arrays["validation_logits"].astype(np.float64))
    return Predicted(
        log_probabilities=term.log_probabilities(test).numpy(),
        decision=term.decision(test).numpy(),
        target=arrays["test_target"],
        rows=arrays.get("test_rows"),
        validation=(term.log_probabilities(validation).numpy(), arrays["validation_target"]),
    )


def scored(run: Predicted) -> Scored:
    """The scores of predictions."""
    log_p = run.log_probabilities
    found = scores(log_p, run.target, run.decision, validation=run.validation)
    scaled = tempered(log_p, found["temperature"])
    return Scored(
        scores=found,
        classes=log_p.shape[1],
        validation_rows=len(run.validation[1]),
        rows=run.rows,
        target=run.target,
        decision=run.decision,
        nll=_rounded(contributions(log_p, run.target, run.decision, "nll")),
        nll_scaled=_rounded(contributions(scaled, run.target, run.decision, "nll")),
        confidence=np.exp(log_p.max(axis=1)),
        confidence_scaled=np.exp(scaled.max(axis=1)),
        likeliest=log_p.argmax(axis=1) == run.target,
    )


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)
