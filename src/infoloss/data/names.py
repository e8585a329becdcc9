"""Names that a user may mistype, and the message that helps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["counted", "unknown"]


def counted(number: int, noun: str) -> str:
    """The number with its noun.

    Example:
        >>> counted(1, "row"), counted(2, "class")
        ('1 row', '2 classes')
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones; it suggests the nearest.

    Example:
        >>> unknown("column", "agee", ["age", "class"])
        ValueError("no column 'agee'; did you mean 'age'? There are: 'age', 'class'")
    """
    known = list(known)
    lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1)
    hint = f"; did you mean {lower[near[0]]!r}? There are: " if near else "; there are: "
    listed = ", ".join(repr(candidate) for candidate in known[:20])
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return ValueError(f"no {what} {name!r}{hint}{listed}{more}")
