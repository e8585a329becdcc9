"""Verdicts on paired differences, with measured error rates (docs/inference.md)."""

from infoloss.study.inference.evidence import Paired
from infoloss.study.inference.power import minimum_detectable_effect
from infoloss.study.inference.verdicts import Cell, Verdict, judge

__all__ = ["Cell", "Paired", "Verdict", "judge", "minimum_detectable_effect"]
