"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from infoloss.data.names import counted

__all__ = ["listed", "spelt"]

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def spelt(n: int, noun: str) -> str:
    """The same, small numbers in words.

    >>> spelt(1, "loss"), spelt(8, "loss"), spelt(42, "data set")
    ('one loss', 'eight losses', '42 data sets')
    """
    digits, words = counted(n, noun).split(" ", 1)
    return f"{_NUMBERS[n] if n < len(_NUMBERS) else digits} {words}"


def listed(words: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
