"""``infoloss check``: the laws of a loss, held against anybody's."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from infoloss import ExpressionError, parse
from infoloss.catalogue import catalogue
from infoloss.cli.complaints import InputError, reading

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
    module_name, separator, name = text.partition(":")
    if not separator:
        return _expression(text)
    if not module_name or not name:
        raise InputError(f"{text!r}: expected module:function, as in torch.nn.functional:cross_entropy")
    found: Any = _module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(_missing(f"{text!r}: {module_name} has no", part, _callables(found)))
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{text!r} is {type(found).__name__}, and cannot be called")
    if any(found is entry.make for entry in catalogue.values()):
        return _expression(found.__name__)
    return found  # type: ignore[no-any-return]


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


def _module(name: str) -> Any:
    """The module, looked for in the current directory as well."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise InputError(f"{name} cannot be imported: {error}") from error
        parent, _, last = missing.rpartition(".")
        raise InputError(_missing("no module", missing, _submodules(parent), parent, last)) from error
    except Exception as error:
        raise InputError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _submodules(parent: str) -> list[str]:
    if not parent:
        return [module.name for module in pkgutil.iter_modules()]
    path = getattr(importlib.import_module(parent), "__path__", [])
    return [module.name for module in pkgutil.iter_modules(path)]


def _callables(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name, None))]


def _missing(what: str, name: str, known: list[str], parent: str = "", last: str = "") -> str:
    near = difflib.get_close_matches(last or name, known, n=1)
    nearest = f"{parent}.{near[0]}" if near and parent else near[0] if near else ""
    return f"{what} {name!r}" + (f"; did you mean {nearest!r}?" if nearest else "")
