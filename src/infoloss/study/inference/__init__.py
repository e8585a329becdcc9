"""Verdicts on paired differences, with measured error rates (docs/inference.md)."""

from infoloss.study.inference.estimates import Estimate, estimate
from infoloss.study.inference.evidence import Paired
from infoloss.study.inference.looks import alpha_at, schedule
from infoloss.study.inference.power import minimum_detectable_effect
from infoloss.study.inference.verdicts import Cell, Verdict, judge

__all__ = [
    "Cell",
    "Estimate",
    "Paired",
    "Verdict",
    "alpha_at",
    "estimate",
    "judge",
    "minimum_detectable_effect",
    "schedule",
]
