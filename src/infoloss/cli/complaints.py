"""Wrong input, told apart from failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["InputError", "known", "reading"]


class InputError(Exception):
    """What the user gave cannot be used; the message says what, and what was expected."""


@contextmanager
def reading() -> Iterator[None]:
    """Whatever cannot be read, parsed or found inside is wrong input."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        raise InputError(f"{place}{error.strerror or error}") from error
    except KeyError as error:
        raise InputError(str(error.args[0]) if error.args else "missing") from error
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error


def known(error: Exception) -> tuple[str, int] | None:
    """Message and exit code of an error that is expected to happen; None of any other."""
    from cyclopts import CycloptsError

    from infoloss.study.cluster import ClusterError
    from infoloss.study.design import DesignError
    from infoloss.study.log import LogError
    from infoloss.study.plan_errors import PlanError
    from infoloss.study.store import StoreError

    if isinstance(error, InputError | CycloptsError | PlanError | DesignError):
        return str(error).strip(), 2
    return (str(error), 1) if isinstance(error, StoreError | ClusterError | LogError) else None
