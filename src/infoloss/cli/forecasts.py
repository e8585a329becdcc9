"""What ``--dry-run`` says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from infoloss.cli.progress import duration
from infoloss.data.names import counted
from infoloss.study.description import model

if TYPE_CHECKING:
    from infoloss.study.forecast import Forecast

__all__ = ["forecast_text"]


def forecast_text(found: Forecast) -> str:
    """Data, grid, runs with their time, and the minimum detectable effect."""
    design = found.design
    about = design.data
    rates = ", ".join(f"{rate:g}" for rate in design.learning_rates)
    lines = [
        f"data: {about['name']}, {counted(about['rows'], 'row')}, {counted(about['features'], 'feature')}, "
        f"{counted(len(about['classes']), 'class')}",
        f"model: {model(design)}; {design.training['epochs']} epochs; "
        f"chosen by validation {design.metric.replace('_', ' ')}",
        f"losses, the baseline first: {len(design.arms)}",
        *(f"    {arm.label}" for arm in design.arms),
        f"learning rates: {rates}{'' if design.tuned else ' (untuned)'}",
        *(
            f"{kind}: {counted(count, 'run')}, {found.missing[kind]} to do"
            for kind, count in found.runs.items()
        ),
        f"time: about {duration(found.seconds)} on {counted(found.workers, 'worker')}, from {found.timed}"
        if sum(found.missing.values())
        else "time: nothing is left to do",
        _detectable(found),
    ]
    return "\n".join(lines)


def _detectable(found: Forecast) -> str:
    design = found.design
    if design.looks:
        numbers = ", ".join(map(str, design.looks))
        return f"seeds: until decided, judged at {numbers}; runs and time above are those of the first look"
    if not found.comparisons:
        return "verdicts: none, since one loss alone has nothing to be compared with"
    if math.isinf(found.effect):
        return "detectable: nothing with one seed; verdicts need at least 3"
    return (
        f"detectable with 80 % power in {counted(len(design.seeds), 'seed')} and "
        f"{counted(found.comparisons, 'verdict')}: "
        f"{found.effect:.2g} × the standard deviation of the paired difference between seeds "
        f"({found.effect:.2g} points where that is 1 point; margin {design.margins['labels']:g}). "
        "The finite number of test rows adds to it."
    )
