"""Data sets from functions of the user's own, by ``module:function``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infoloss.data.arrays import from_arrays
from infoloss.data.dataset import Dataset
from infoloss.named import named

__all__ = ["from_function"]


def from_function(name: str) -> Dataset:
    """What a function gives, which is called without arguments.

    Args:
        name: ``"module:function"``. It returns a `Dataset`, (X, y), a frame, or a mapping with the arguments
            of `from_arrays`: X and perhaps y, groups, order, sample_weight, test, split.

    Raises:
        ValueError: no such function, or data that cannot be learnt from.
        TypeError: it returns something else.
    """
    made = named(name)()
    if isinstance(made, Dataset):
        return made
    arguments = _arguments(made, name)
    title = name.partition(":")[2]
    return replace(from_arrays(**{"name": title, **arguments}), source=name)


def _arguments(made: Any, name: str) -> Mapping[str, Any]:
    if hasattr(made, "columns"):
        return {"X": made}
    if isinstance(made, Mapping) and "X" in made:
        return made
    if isinstance(made, tuple) and len(made) == 2:
        return {"X": made[0], "y": made[1]}
    raise TypeError(
        f"{name} returns {type(made).__name__}; expected (X, y), a frame, a Dataset, or a mapping with X "
        "and other arguments of from_arrays"
    )
