"""Information-theoretic losses for classifiers, and an honest way to tell whether they help."""

from infoloss.catalogue import catalogue
from infoloss.criterion import Criterion
from infoloss.expression import ExpressionError, parse
from infoloss.losses import *  # noqa: F403
from infoloss.losses import __all__ as _losses
from infoloss.terms import Term, row_statistics, statistic

__version__ = "0.1.0"

__all__ = [
    "Criterion",
    "ExpressionError",
    "Term",
    "__version__",
    "catalogue",
    "parse",
    "row_statistics",
    "statistic",
    *_losses,
]
