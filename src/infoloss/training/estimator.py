"""A scikit-learn classifier that is trained with any loss."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from infoloss import Criterion, Term, parse
from infoloss.models import build
from infoloss.training.loop import Rows, fit, predicted
from infoloss.training.optimisers import Settings

__all__ = ["LossClassifier"]


class LossClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron trained with any loss of infoloss, for pipelines and searches of scikit-learn.

    Decisions and probabilities are those that the loss implies: balanced softmax decides by the largest logit
    and puts the prior back into its probabilities; the rescaled square loss has a link of its own. Features
    should have similar scales: put a ``StandardScaler`` before it. Integer weights of rows are the same as
    repeated rows as long as a batch holds all of them.

    Args:
        loss: an expression or a term; unbound ``counts`` and ``prior`` are those of the training labels.
        hidden: widths of the hidden layers; none gives a linear classifier.
        epochs: passes over the rows, with a learning rate that warms up and then follows a cosine to zero.
        batch_size: rows in a batch.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        random_state: of the initial weights and the batches: a whole number, a generator, or None.

    Attributes:
        classes_: (C,) labels in ascending order.
        n_features_in_: F.
        model_: the trained ``nn.Module``, in float32 for float32 features and in float64 for all others.
        term_: the loss, with counts and prior.
        loss_curve_: the mean training loss of each epoch.

    Raises:
        ValueError: from ``fit``: a loss that is none or lacks a value, fewer than two classes, or a training
            that diverged.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), LossClassifier("squentropy", epochs=30, random_state=0))
        >>> bool(model.fit(X, y).score(X, y) > 0.9), model.predict_proba(X[:2]).shape
        (True, (2, 3))
    """

    def __init__(
        self,
        loss: str | Term = "cross_entropy",
        *,
        hidden: Sequence[int] = (256,),
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 0.003,
        weight_decay: float = 0.01,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains from the start.

        Args:
            X: (N, F) numbers.
            y: (N,) labels.
            sample_weight: (N,) weights, all 1 unless given.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self._check_options()
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"fit needs rows of two classes or more, got 1 class: {self.classes_[:1].tolist()[0]!r}"
            )
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=X.dtype)
        self.term_ = _bound(parse(self.loss), codes, weight)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        shape, classes = X.shape[1:], len(self.classes_)
        model = build("mlp", classes=classes, input_shape=shape, seed=seed, hidden=self.hidden)
        features = torch.tensor(X)
        rows = Rows(features, torch.tensor(codes), None if weight is None else torch.tensor(weight))
        settings = Settings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
        result = fit(
            model.to(features.dtype), Criterion(self.term_), rows, None, settings=settings, seed=seed
        )
        if result.error is not None:
            raise ValueError(f"the training diverged at learning_rate={self.learning_rate}: {result.error}")
        self.model_ = result.model
        self.loss_curve_ = [entry["train_loss"] for entry in result.curve]
        return self

    def _check_options(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
        if not np.iterable(self.hidden) or any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden must be widths of 1 or more, as in (256,), got {self.hidden!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be a number > 0, got {self.learning_rate!r}")

    def predict(self, X: Any) -> np.ndarray:
        """(N,) labels, by the loss's own rule."""
        logits = self._logits(X)
        labels: np.ndarray = self.classes_[self.term_.decision(logits).numpy()]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, C) probabilities that the loss implies."""
        logits = self._logits(X)
        return self.term_.probabilities(logits).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """(N, C) logarithms of ``predict_proba``, without its underflow."""
        logits = self._logits(X)
        return self.term_.log_probabilities(logits).numpy()

    def _logits(self, X: Any) -> Tensor:
        check_is_fitted(self)
        dtype = next(self.model_.parameters()).dtype
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return predicted(self.model_, torch.tensor(X, dtype=dtype))


def _bound(term: Term, codes: np.ndarray, weight: np.ndarray | None) -> Term:
    """The loss with the counts and the prior of these labels, weighted if there are weights."""
    if not term.has_loss:
        raise ValueError(f"the loss {term} is a regulariser alone; add it to a loss: cross_entropy + {term}")
    counts = np.bincount(codes, weight).astype(float)
    values = {"counts": counts.tolist(), "prior": (counts / counts.sum()).tolist()}
    missing = sorted(term.unbound - set(values))
    if missing:
        raise ValueError(f"the loss {term} has no value for {', '.join(missing)}; write a number")
    return term.bind(**{name: values[name] for name in term.unbound}) if term.unbound else term
