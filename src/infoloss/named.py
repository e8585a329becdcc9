"""Objects of the user's own, by the name ``module:object``."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["is_named", "named"]


def is_named(text: str) -> bool:
    """Whether the text has the form ``module:object``.

    Example:
        >>> [is_named(text) for text in ("mine:loss", "my.losses:focal_2", "focal(gamma=2)", "C:/data")]
        [True, True, False, False]
    """
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", text) is not None


def named(name: str) -> Any:
    """The object of that name; modules are also looked for in the working directory, as ``python -m`` does.

    Args:
        name: ``"module:object"``.

    Raises:
        ValueError: not of that form, no such module, or no such object in it (with the nearest name).
        ImportError: the module is there, and cannot be imported.

    Example:
        >>> named("math:gcd")(12, 18)
        6
        >>> named("math:gdc")
        Traceback (most recent call last):
        ...
        ValueError: 'math:gdc': math has no 'gdc'; did you mean 'gcd'?
    """
    if not is_named(name):
        raise ValueError(f"{name!r}: expected module:function, as in torch.nn.functional:cross_entropy")
    module, _, path = name.partition(":")
    found = _module(module)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise ValueError(f"{name!r}: {module} has no {attribute!r}{_nearest(attribute, _public(found))}")
        found = getattr(found, attribute)
    return found


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise ImportError(f"{name} cannot be imported: {error}") from error
        parent, _, _ = missing.rpartition(".")
        raise ValueError(f"no module {missing!r}{_nearest(missing, _modules(parent))}") from error
    except Exception as error:
        raise ImportError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _modules(parent: str) -> list[str]:
    """Full names of the modules in a package, or of all that can be imported."""
    if not parent:
        return [module.name for module in pkgutil.iter_modules()]
    path = getattr(importlib.import_module(parent), "__path__", [])
    return [f"{parent}.{module.name}" for module in pkgutil.iter_modules(path)]


def _public(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
