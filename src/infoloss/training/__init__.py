"""Training: one loop for every model and loss, its optimisers and schedule, and the locked test set."""

from infoloss.training.locked import LockedTest, LockedTestError
from infoloss.training.loop import METRICS, Fit, Rows, fit, validation_scores
from infoloss.training.optimisers import OPTIMISERS, Settings, learning_rate_factor, optimiser

__all__ = [
    "METRICS",
    "OPTIMISERS",
    "Fit",
    "LockedTest",
    "LockedTestError",
    "Rows",
    "Settings",
    "fit",
    "learning_rate_factor",
    "optimiser",
    "validation_scores",
]
