"""The options of a model in a plan: checked against the signature of the model's function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from infoloss.models import MODELS
from infoloss.named import is_named
from infoloss.study.plan_errors import nearest

__all__ = ["checked_options", "is_model"]

_GIVEN = ("classes", "input_shape")


def is_model(name: str) -> bool:
    """Whether ``infoloss.models.build`` may know a model of that name; whether it is there shows later.

    Example:
        >>> [is_model(name) for name in ("vgg5", "timm:resnet18.a1_in1k", "mine:net", "vgg6")]
        [True, True, True, False]
    """
    return name in MODELS or is_named(name) or re.match(r"(timm|hf):\S", name) is not None


def checked_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model, defaults included, as JSON has them.

    Options of models from elsewhere are taken as they are: their functions are not imported here.

    Raises:
        ValueError: an option that the model does not have, or one of the wrong type.

    Example:
        >>> checked_options("mlp", {"hidden": (8,)})
        {'hidden': [8], 'batch_norm': False}
        >>> checked_options("mlp", {"hiden": (8,)})
        Traceback (most recent call last):
        ...
        ValueError: the model "mlp" has no option "hiden"; did you mean "hidden"? (it has: hidden, batch_norm)
    """
    if name not in MODELS:
        return {key: _plain(value) for key, value in given.items()}
    takes = {
        key: parameter.default
        for key, parameter in inspect.signature(MODELS[name]).parameters.items()
        if key not in _GIVEN
    }
    for key in given:
        if key not in takes:
            hint = nearest(key, takes)
            listed = ", ".join(takes) or "none"
            raise ValueError(
                f'the model "{name}" has no option "{key}"{";" + hint if hint else ""} (it has: {listed})'
            )
    hints = get_type_hints(MODELS[name])
    typed = {key: _typed(key, value, hints[key]) for key, value in given.items()}
    return {key: _plain(value) for key, value in {**takes, **typed}.items()}


def _typed(key: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].replace("Input should", "should")
        raise ValueError(f"{key}: {value!r}: {message}") from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
