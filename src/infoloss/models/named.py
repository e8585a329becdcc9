"""Objects of the user's own, by the name ``"module:object"``."""

from __future__ import annotations

import importlib
import os
import re
import sys
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
        ValueError: not of that form, no such module, or no such object in it.

    Example:
        >>> named("math:gcd")(12, 18)
        6
        >>> named("math:gdc")
        Traceback (most recent call last):
        ...
        ValueError: math:gdc: the module math has no 'gdc'; did you mean 'gcd'?
    """
    if not is_named(name):
        raise ValueError(f"{name!r}: expected module:object, as in my_file:my_function")
    module_name, _, path = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _module(module_name, name)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            close = get_close_matches(attribute, dir(found), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{name}: the module {module_name} has no {path!r}{hint}")
        found = getattr(found, attribute)
    return found


def _module(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{name}: no module {error.name!r} in {os.getcwd()} or among the installed packages"
        ) from None
