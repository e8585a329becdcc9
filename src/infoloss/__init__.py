"""Information-theoretic losses for classifiers, and an honest way to tell whether they help."""

from typing import TYPE_CHECKING, Any

from infoloss import compatibility, kernels  # noqa: F401 - the first import, so that its error is the first
from infoloss.batch import denominator
from infoloss.catalogue import catalogue
from infoloss.criterion import Criterion
from infoloss.expression import ExpressionError, parse
from infoloss.kernels.class_shard import ClassShard
from infoloss.linear import LinearCriterion, row_statistics_linear
from infoloss.losses import *  # noqa: F403
from infoloss.losses import __all__ as _losses
from infoloss.terms import Term, row_statistics, statistic

if TYPE_CHECKING:
    from infoloss.study.compare import compare as compare
    from infoloss.training.estimator import LossClassifier as LossClassifier

__version__ = "0.1.0"

# compare and LossClassifier are public too, but need the extra "study": `from infoloss import *` must not.
__all__ = [
    "ClassShard",
    "Criterion",
    "ExpressionError",
    "LinearCriterion",
    "Term",
    "__version__",
    "catalogue",
    "denominator",
    "kernels",
    "parse",
    "row_statistics",
    "row_statistics_linear",
    "statistic",
    *_losses,
]


def __getattr__(name: str) -> Any:
    """``infoloss.compare`` and ``infoloss.LossClassifier``, whose packages are imported when asked for."""
    try:
        if name == "compare":
            from infoloss.study.compare import compare

            return compare
        if name == "LossClassifier":
            from infoloss.training.estimator import LossClassifier

            return LossClassifier
    except ModuleNotFoundError as error:
        if (error.name or "infoloss").startswith("infoloss"):
            raise
        message = f"infoloss.{name} needs {error.name}: pip install 'infoloss[study]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), "LossClassifier", "compare"})
