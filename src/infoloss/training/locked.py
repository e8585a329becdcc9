"""The locked test set: readable once, by a finished fit, and by nothing else."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor

from infoloss.training.loop import Fit, predicted
from infoloss.training.mapped import MappedRows

__all__ = ["LockedTest", "LockedTestError"]


class LockedTestError(RuntimeError):
    """The test set was asked for before the choice, a second time, or by a training that did not finish."""


class LockedTest:
    """Test rows that give nothing away until validation has chosen everything.

    Training and tuning hold this object at most; ``logits`` is the only way to what is inside. It wants the
    ``Fit`` of a finished training, which exists only after the best epoch has been chosen, and answers once.

    Args:
        features: (n, …).
        target: (n,) labels.
    """

    __slots__ = ("__features", "__target")

    def __init__(self, features: Tensor | MappedRows, target: Tensor) -> None:
        self.__features: Tensor | MappedRows | None = features
        self.__target: Tensor | None = target

    def logits(self, fit: Fit) -> tuple[Tensor, Tensor]:
        """(n, C) logits of the chosen weights and (n,) labels, once.

        Raises:
            LockedTestError: before the choice, after a diverged training, or at a second reading.
        """
        if not isinstance(fit, Fit):
            raise LockedTestError(f"the test set is locked until a fit is finished; got {type(fit).__name__}")
        if fit.status != "done":
            raise LockedTestError(f"the test set stays locked: the training {fit.status} ({fit.error})")
        if self.__features is None or self.__target is None:
            raise LockedTestError("the test set was read already; a run reads it once")
        features, target = self.__features, self.__target
        self.__features = self.__target = None
        return predicted(fit.model, features), target

    def __reduce__(self) -> NoReturn:
        raise LockedTestError("a locked test set cannot be copied or pickled")
