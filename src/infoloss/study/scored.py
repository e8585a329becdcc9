"""One run's predictions, scored as its loss means them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from infoloss.evaluation import contributions, fit_temperature, scores, tempered
from infoloss.study.own_losses import term_of

__all__ = ["Scored"]

POINTS = 100.0


class Scored:
    """Decisions, log-probabilities and scores of a run.

    Args:
        arrays: the run's predictions.
        expression: of the loss, which says what logits mean; log-probabilities are taken as they are without.
        bindings: values of the expression's unbound names.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], expression: str | None, bindings: Mapping[str, object]
    ) -> None:
        self._expression, self._bindings = expression or "cross_entropy", bindings
        self.target = arrays["test_target"]
        self.rows = arrays.get("test_rows")
        self.log_probabilities, self.decision = self._read(arrays["test_logits"])
        self.validation = self._read(arrays["validation_logits"])[0], arrays["validation_target"]

    def _read(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        term = term_of(self._expression)
        term = term.bind(**self._bindings) if self._bindings else term
        z = torch.from_numpy(logits.astype(np.float64))
        return term.log_probabilities(z).numpy(), term.decision(z).numpy()

    @cached_property
    def scores(self) -> dict[str, float]:
        """As ``infoloss.evaluation.scores``: accuracies are fractions."""
        return scores(self.log_probabilities, self.target, self.decision, validation=self.validation)

    @cached_property
    def scaled(self) -> np.ndarray:
        """(n, C) log-probabilities after temperature scaling on the validation rows."""
        return tempered(self.log_probabilities, fit_temperature(*self.validation))

    def contributions(self, metric: str) -> np.ndarray:
        """(n,) whose mean is the metric, in points for accuracies and nats for NLL."""
        values = contributions(
            self.log_probabilities, self.target, self.decision, metric, validation=self.validation
        )
        return values if metric.startswith("nll") else POINTS * values
