"""The command as it was typed, for reports and for going on."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["command", "typed"]

_words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Inside, ``command`` is the one with these words."""
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def command() -> str:
    """What to type to run it again.

    Example:
        >>> with typed(["losses", "focal"]):
        ...     print(command())
        infoloss losses focal
    """
    words = ["infoloss", *_words.get()]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
