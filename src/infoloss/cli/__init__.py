"""The command line: ``infoloss compare`` and the smaller commands beside it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

INTERRUPTED, FAILURE, WRONG_INPUT = 130, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 for a failure, 2 for wrong input, 130 after Ctrl-C.

    Errors are a line on standard error; ``INFOLOSS_DEBUG=1`` lets their traceback through.

    Args:
        arguments: without the program's name; those of the process unless given.
    """
    _never_fail_to_print()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from infoloss.cli.commands import execute

        with warnings.catch_warnings():
            warnings.showwarning = _note
            return execute(tokens)
    except KeyboardInterrupt:
        print("infoloss: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has left: the interpreter must not flush into its pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:  # a user gets one line, whatever went wrong
        if os.environ.get("INFOLOSS_DEBUG") == "1":
            raise
        text, code = _told(error)
        print(f"infoloss: {text}", file=sys.stderr)
        return code


def _never_fail_to_print() -> None:
    """A console without a formula's characters shows replacements."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning without the place in the library's code that it comes from."""
    print(f"note: {message}", file=sys.stderr)


def _told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return f"this needs {error.name}: pip install 'infoloss[study]'", FAILURE
    if isinstance(error, ImportError | OSError):
        return str(error), FAILURE
    from infoloss.cli.complaints import known

    found = known(error)
    if found is not None:
        return found
    return f"{type(error).__name__}: {error} (INFOLOSS_DEBUG=1 shows where)", FAILURE
