"""Training: one loop for every model and loss, its optimisers and schedule, and the locked test set."""

from infoloss.training.augmentation import AUGMENTATIONS, augmentation
from infoloss.training.classifier import PRECISIONS, Classifier
from infoloss.training.locked import LockedTest, LockedTestError
from infoloss.training.loop import METRICS, Fit, Rows, fit, predicted, validation_scores
from infoloss.training.mapped import MappedRows, mapped
from infoloss.training.optimisers import OPTIMISERS, Settings, learning_rate_factor, optimiser
from infoloss.training.parallel import DataParallel, batch_normalised, seed_of_rank
from infoloss.training.pixels import normalisation

__all__ = [
    "AUGMENTATIONS",
    "METRICS",
    "OPTIMISERS",
    "PRECISIONS",
    "Classifier",
    "DataParallel",
    "Fit",
    "LockedTest",
    "LockedTestError",
    "MappedRows",
    "Rows",
    "Settings",
    "augmentation",
    "batch_normalised",
    "fit",
    "learning_rate_factor",
    "mapped",
    "normalisation",
    "optimiser",
    "predicted",
    "seed_of_rank",
    "validation_scores",
]
