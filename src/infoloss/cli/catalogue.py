"""``infoloss losses`` and ``infoloss cite``."""

from __future__ import annotations

import inspect
from typing import Annotated

from cyclopts import Parameter

from infoloss import parse
from infoloss.catalogue import Entry
from infoloss.catalogue import catalogue as entries
from infoloss.cli.complaints import InputError, reading

__all__ = ["cite", "losses"]

KINDS = {"loss": "Losses", "regulariser": "Regularisers, to be added to a loss"}
SOFT = {"expected": "expected value", "paper": "as in the paper", "none": "no"}


def losses(name: str | None = None, /) -> None:
    """List the losses and regularisers, or describe one.

    Args:
        name: describes this one, with formula, gradient, minimiser and source.
    """
    if name is not None:
        _describe(name)
        return
    from infoloss.cli.results import print_table

    for kind, title in KINDS.items():
        print(f"{title}\n")
        rows = [_row(entry) for entry in entries.values() if entry.kind == kind]
        print_table(["name and parameters", "formula", "soft targets", "source"], rows)
        print()
    print("L = log Σ e^z, q = softmax(z), p = q_y, C classes. More: infoloss losses NAME, infoloss cite NAME")


def _row(entry: Entry) -> list[str]:
    return [
        _signature(entry),
        entry.formula,
        SOFT[entry.soft] if entry.kind == "loss" else "not read",
        entry.source,
    ]


def _signature(entry: Entry) -> str:
    """The name with its defaults; "…" is bound by a study, from its training labels."""
    shown = [
        f"{name}=…" if name in entry.binds else f"{name}={_plain(value)}"
        for name, value in entry.parameters.items()
    ]
    return f"{entry.name}({', '.join(shown)})" if shown else entry.name


def _plain(value: object) -> str:
    return "by C" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _describe(name: str) -> None:
    if name not in entries:
        from infoloss.data.names import unknown

        raise InputError(str(unknown("loss or regulariser", name, entries)))
    entry = entries[name]
    print(f"{_signature(entry)}: {entry.kind}\n")
    print(inspect.getdoc(entry.make))


def cite(*expressions: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """The BibTeX records of losses.

    Args:
        expressions: names or expressions, as in "cross_entropy + 0.1*entropy".
    """
    if not expressions:
        raise InputError('name a loss: infoloss cite min_ent "cross_entropy + z_loss"')
    found: dict[str, str] = {}
    for expression in expressions:
        with reading():
            named = parse(expression).entries
        if not named:
            raise InputError(f"{expression!r} names no loss of the catalogue: see infoloss losses")
        found |= {entries[name].bibtex_key: entries[name].bibtex for name in named}
    print("\n\n".join(found.values()))
