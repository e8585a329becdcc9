"""``infoloss check``: the laws of a loss, held against anybody's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from infoloss import ExpressionError, parse
from infoloss.catalogue import catalogue
from infoloss.cli.complaints import InputError, reading
from infoloss.named import named

__all__ = ["check", "located"]


def check(
    loss: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, without: list[str] | None = None
) -> int:
    """Check a loss that is called like F.cross_entropy: weights, ignored rows, masks, precision, gradients.

    Args:
        loss: "module:function", or a loss expression. The module may lie in the current directory. A term, a
            module and a class of modules will do for a function.
        without: names of checks to leave out, where the loss departs on purpose.
    """
    from infoloss.cli.results import print_table
    from infoloss.conformance import check as findings

    subject = located(loss)
    with reading():
        found = findings(subject, without=without or ())
    print_table(["check", "outcome", "cause"], [[each.check, each.outcome, each.cause] for each in found])
    count = Counter(each.outcome for each in found)
    print(f"\n{count['passed']} passed, {count['failed']} failed, {count['not supported']} not supported")
    return 1 if count["failed"] else 0


def located(text: str) -> Callable[..., Any]:
    """The loss that ``module:function`` names, or that an expression says.

    Raises:
        InputError: there is no such module or function (with the nearest name), or it cannot be called.

    Example:
        >>> located("torch.nn.functional:cross_entropy").__name__
        'cross_entropy'
    """
    if ":" not in text:
        return _expression(text)
    try:
        found: object = named(text)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error
    if not callable(found):
        raise InputError(f"{text!r} is {type(found).__name__}, and cannot be called")
    for name, entry in catalogue.items():
        if found is entry.make:
            return _expression(name)
    return found


def _expression(text: str) -> Callable[..., Any]:
    from infoloss.conformance.subject import CLASSES

    try:
        term = parse(text)
    except ExpressionError as error:
        raise InputError(f"{text!r} is neither module:function nor a loss expression: {error}") from error
    if term.unbound:
        names = ", ".join(sorted(term.unbound))
        raise InputError(f"{text!r} needs a value for {names}; the check has {CLASSES} classes")
    return term
