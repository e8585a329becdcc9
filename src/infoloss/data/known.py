"""Data sets known by name: what they are, their terms, and where they lie here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infoloss.data.downloads import data_folder
from infoloss.data.official import OFFICIAL, found

__all__ = ["BUNDLED", "KNOWN", "KnownSet", "known_sets"]

BUNDLED: Mapping[str, str] = {
    "digits": "scikit-learn, load_digits: 8×8 digits, Alpaydin & Kaynak 1998, UCI (CC BY 4.0)",
    "wine": "scikit-learn, load_wine: Aeberhard & Forina 1991, UCI (CC BY 4.0)",
    "breast_cancer": "scikit-learn, load_breast_cancer: Wolberg et al. 1995, UCI (CC BY 4.0)",
}
"""Data sets that come with scikit-learn: name → source and terms."""

KNOWN: Mapping[str, str] = {
    **BUNDLED,
    **{name: f"{official.about} ({official.terms})" for name, official in OFFICIAL.items()},
}
"""Data sets known by name: name → source and terms."""


@dataclass(frozen=True)
class KnownSet:
    """A data set known by name; `place`, below the data folder, is empty where it must be downloaded."""

    name: str
    source: str
    place: str


def known_sets() -> tuple[KnownSet, ...]:
    """All of them, those that come with scikit-learn first.

    Example:
        >>> known_sets()[0].name, known_sets()[0].place
        ('digits', 'comes with scikit-learn')
    """
    bundled = [KnownSet(name, source, "comes with scikit-learn") for name, source in BUNDLED.items()]
    return (*bundled, *(KnownSet(name, KNOWN[name], _place(name)) for name in OFFICIAL))


def _place(name: str) -> str:
    path = found(name)
    return "" if path is None else path.relative_to(data_folder()).as_posix()
