"""The words, units and number formats that every form of the report shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from infoloss.data.names import counted

if TYPE_CHECKING:
    from infoloss.study.analysis import Analysis
    from infoloss.study.inference import Verdict

LABELS = "labels"
PROBABILITIES = "probabilities"
SCALED = "probabilities after temperature scaling"

ALTERED = "training rows altered"
"""The fact about data whose training rows were changed on purpose."""

Unit = Literal["percent", "nats", "number"]


@dataclass(frozen=True)
class Metric:
    """How one score is named, grouped and printed."""

    key: str
    name: str
    question: str
    unit: Unit = "number"
    lower_is_better: bool = False
    digits: int = 4

    @property
    def factor(self) -> float:
        """What a score is multiplied with before it is printed."""
        return 100.0 if self.unit == "percent" else 1.0

    @property
    def symbol(self) -> str:
        """Of a printed score."""
        return {"percent": "%", "nats": "nats", "number": ""}[self.unit]

    @property
    def difference_unit(self) -> str:
        return {"percent": "points", "nats": "nats", "number": ""}[self.unit]

    @property
    def direction(self) -> str:
        return "lower is better" if self.lower_is_better else "higher is better"


_METRICS = {
    metric.key: metric
    for metric in (
        Metric("accuracy", "accuracy", LABELS, "percent", digits=2),
        Metric("balanced_accuracy", "balanced accuracy", LABELS, "percent", digits=2),
        Metric("macro_f1", "macro F1", LABELS, "percent", digits=2),
        Metric("roc_auc", "ROC-AUC", LABELS),
        Metric("nll", "NLL", PROBABILITIES, "nats", lower_is_better=True),
        Metric("brier", "Brier", PROBABILITIES, lower_is_better=True),
        Metric("ece", "ECE", PROBABILITIES, "percent", lower_is_better=True, digits=2),
        Metric("ece_noise_floor", "noise floor", PROBABILITIES, "percent", lower_is_better=True, digits=2),
        Metric("temperature", "temperature", SCALED, digits=3),
        Metric("nll_scaled", "NLL", SCALED, "nats", lower_is_better=True),
        Metric("brier_scaled", "Brier", SCALED, lower_is_better=True),
        Metric("ece_scaled", "ECE", SCALED, "percent", lower_is_better=True, digits=2),
    )
}

GROUPS = {
    LABELS: "labels",
    PROBABILITIES: "probabilities as they come",
    SCALED: "after temperature scaling",
}

QUESTIONS = {
    LABELS: "Are more labels right?",
    PROBABILITIES: "Are the probabilities better as they come?",
    SCALED: "Are they better after temperature scaling?",
}

MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈", "undecided": "○"}


def metric(key: str) -> Metric:
    """The metric of that key; an unknown one (a column of a scores file) is printed as it stands."""
    return _METRICS.get(key) or Metric(key, key.replace("_", " "), "other")


def metrics(keys: Sequence[str]) -> list[Metric]:
    """Known metrics in the report's order, then the others in theirs."""
    known = [value for key, value in _METRICS.items() if key in keys]
    return known + [metric(key) for key in keys if key not in _METRICS]


def questions(analysis: Analysis) -> list[tuple[str, str]]:
    """The (question, metric) pairs that the verdicts answer, in the study's order."""
    return list(dict.fromkeys((verdict.question, verdict.metric) for verdict in analysis.verdicts))


def question(key: str) -> str:
    """The question a group of verdicts answers, in plain words."""
    return QUESTIONS.get(key, key)


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A fixed number of decimals, a true minus sign, and a dash for what does not exist.

    >>> number(-0.125, 2), number(float("nan")), number(0.5, 1, signed=True), number(-0.001, 2)
    ('−0.12', '–', '+0.5', '0.00')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("+-")
    return text.replace("-", "−")


def significant(value: float, figures: int = 3) -> str:
    """As many decimals as show so many figures.

    >>> significant(0.04123), significant(1.939), significant(817.3), significant(float("nan"))
    ('0.0412', '1.94', '817', '–')
    """
    magnitude = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return number(value, max(0, figures - 1 - magnitude))


def interval(bounds: tuple[float, float], digits: int) -> str:
    """Both bounds with their signs: ``[−0.10, +0.42]``."""
    low, high = bounds
    return f"[{number(low, digits, signed=True)}, {number(high, digits, signed=True)}]"


def plain(value: float) -> str:
    """A learning rate, margin or other setting, as short as it can be written.

    >>> plain(0.003), plain(1e-05), plain(20.0)
    ('0.003', '1e−05', '20')
    """
    return "–" if math.isnan(value) else f"{value:g}".replace("-", "−")


def p_value(value: float) -> str:
    """Three decimals, and never "0.000".

    >>> p_value(0.0412), p_value(0.00002)
    ('0.041', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else number(value, 3)


def mean_and_spread(values: np.ndarray, key: str) -> tuple[str, str]:
    """Mean and standard deviation over seeds in the metric's printed unit; one seed has no deviation."""
    shown = metric(key)
    finite = values[np.isfinite(values)] * shown.factor
    if finite.size == 0:
        return "–", ""
    spread = f"± {number(float(finite.std(ddof=1)), shown.digits)}" if finite.size > 1 else ""
    return number(float(finite.mean()), shown.digits), spread


def margin(verdict: Verdict, margins: dict[str, float]) -> float:
    """The margin of a verdict's metric, nan where the study set none."""
    return margins.get(verdict.metric, math.nan)


def equivalence_level(alpha: float) -> str:
    """The level of the interval that decides equivalence, and of two one-sided tests: 90 % but for looks.

    >>> equivalence_level(0.05), equivalence_level(0.0125)
    ('90 %', '97.5 %')
    """
    return f"{100 * (1 - 2 * alpha):.4g} %"


def alpha_of(analysis: Analysis) -> float:
    """The error rate of the verdicts, 5 % but for looks."""
    return analysis.verdicts[0].alpha if analysis.verdicts else 0.05


def outcome(verdict: Verdict) -> str:
    """The outcome in words; colour and mark only repeat them."""
    if verdict.identical:
        return "equivalent, identical predictions"
    return f"{verdict.outcome}, but negligible" if verdict.negligible else verdict.outcome


def remedy(verdict: Verdict) -> str:
    """What an undecided verdict needs; empty for a decided one."""
    if verdict.outcome != "undecided":
        return ""
    if not math.isfinite(verdict.difference):
        return "not finite in every seed"
    if verdict.more_seeds is None:
        return "more seeds alone cannot settle it"
    return f"about {counted(verdict.more_seeds, 'more seed')} needed"


def seed_count(sizes: Sequence[int]) -> str:
    """The number of seeds of several losses: one number, or the range.

    >>> seed_count([20, 20]), seed_count([18, 20]), seed_count([])
    ('n = 20 seeds', 'n = 18 to 20 seeds', 'n = 0 seeds')
    """
    if not sizes:
        return "n = 0 seeds"
    if min(sizes) == max(sizes):
        return f"n = {counted(min(sizes), 'seed')}"
    return f"n = {min(sizes)} to {max(sizes)} seeds"


def abbreviated(labels: Sequence[str], width: int) -> dict[str, str]:
    """Each label cut in its middle to at most `width` characters, numbered where two would look alike.

    >>> abbreviated(["cross_entropy + 0.1*entropy", "mae"], 15)
    {'cross_entropy + 0.1*entropy': 'cross_e…entropy', 'mae': 'mae'}
    """
    short: dict[str, str] = {}
    for label in labels:
        cut = (
            label
            if len(label) <= width
            else f"{label[: width // 2]}…{label[len(label) - (width - 1) // 2 :]}"
        )
        candidate, copy = cut, 2
        while candidate in short.values():
            suffix = f" #{copy}"
            candidate, copy = cut[: width - len(suffix)] + suffix, copy + 1
        short[label] = candidate
    return short
