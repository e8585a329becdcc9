"""The headline: what a study found, in plain words, verdicts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from infoloss.data.names import counted
from infoloss.study.analysis import LossResult
from infoloss.study.design import Design
from infoloss.study.inference.verdicts import UNITS

if TYPE_CHECKING:
    from infoloss.study.inference import Verdict

__all__ = ["findings", "headline"]

_ASKED = {
    "labels": "Labels",
    "probabilities": "Probabilities as they come",
    "probabilities after temperature scaling": "Probabilities after temperature scaling",
}


def headline(
    verdicts: Sequence[Verdict],
    losses: Sequence[LossResult],
    *,
    design: Design,
    margins: Mapping[str, float],
    complete: bool,
) -> tuple[str, ...]:
    """One sentence a question, after what limits them and before what failed."""
    found = []
    if not design.tuned:
        found.append(
            "untuned: no verdict on rank. What follows holds for this learning rate only."
            if design.learning_rates
            else "untuned: no verdict on rank. What follows holds for the settings of this training only."
        )
    if not complete:
        done = min(len(loss.seeds) for loss in losses)
        found.append(
            f"The study is not finished: {done} of {len(design.seeds)} seeds are done for every loss."
        )
    if len(design.arms) == 1:
        found.append(f"{design.baseline.label} was trained alone: there is nothing to compare it with.")
    found += findings(verdicts, baseline=design.baseline.label, margins=margins)
    found += [_failed(loss, len(design.seeds)) for loss in losses if loss.failures]
    return tuple(found)


def findings(verdicts: Sequence[Verdict], *, baseline: str, margins: Mapping[str, float]) -> list[str]:
    """One sentence for each question (and metric) that the verdicts answer."""
    asked = dict.fromkeys((verdict.question, verdict.metric) for verdict in verdicts)
    return [
        _sentence(
            question,
            [verdict for verdict in verdicts if (verdict.question, verdict.metric) == (question, metric)],
            baseline,
            margins[metric],
        )
        for question, metric in asked
    ]


def _sentence(question: str, verdicts: Sequence[Verdict], baseline: str, margin: float) -> str:
    """``"Labels (accuracy, n = 20): better than cross_entropy: squentropy (+0.61 points); …"``."""
    metric = verdicts[0].metric
    unit = UNITS.get(metric, "")
    parts = []
    for outcome in ("better", "worse"):
        mine = sorted(
            (verdict for verdict in verdicts if verdict.outcome == outcome),
            key=lambda verdict: -abs(verdict.difference),
        )
        if mine:
            named = ", ".join(
                f"{verdict.loss} ({_signed(verdict.difference)}{unit}"
                f"{', negligible' if verdict.negligible else ''})"
                for verdict in mine
            )
            parts.append(f"{outcome} than {baseline}: {named}")
    for outcome, words in (
        ("equivalent", f"equivalent within ±{margin:g}{unit}"),
        ("undecided", "undecided"),
    ):
        names = [_named(verdict) for verdict in verdicts if verdict.outcome == outcome]
        if names:
            parts.append(f"{words}: {', '.join(names)}")
    name = {"nll": "NLL", "nll_scaled": "NLL"}.get(metric, metric.replace("_", " "))
    return f"{_ASKED.get(question, question)} ({name}, {_seeds(verdicts)}): {'; '.join(parts)}."


def _seeds(verdicts: Sequence[Verdict]) -> str:
    """The paired seeds of the verdicts: one number, or the range."""
    counts = [verdict.seeds for verdict in verdicts]
    low, high = min(counts), max(counts)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _signed(difference: float) -> str:
    return f"{difference:+.2g}".replace("-", "−")


def _named(verdict: Verdict) -> str:
    if verdict.identical:
        return f"{verdict.loss} (identical)"
    if verdict.outcome == "undecided" and verdict.more_seeds:
        return f"{verdict.loss} (about {counted(verdict.more_seeds, 'more seed')})"
    return verdict.loss


def _failed(loss: LossResult, seeds: int) -> str:
    if not loss.seeds:
        return f"{loss.label}: no run was finished, so there is no verdict ({loss.failures[-1]})."
    return (
        f"{loss.label}: {len(loss.failures)} of {seeds} runs diverged or failed; "
        f"its verdicts cover the other {len(loss.seeds)} only."
    )
