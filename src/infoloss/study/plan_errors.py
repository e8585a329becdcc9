"""What is wrong with a plan, in the user's terms: place, value, what was expected, the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["PlanError", "complaints", "nearest"]

Place = tuple[Any, ...]


class PlanError(ValueError):
    """One or more mistakes in a plan, one a line."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


def nearest(name: str, known: Iterable[str]) -> str:
    """``' did you mean "…"?'``, or nothing where no known name is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' did you mean "{close[0]}"?' if close else ""


def complaints(model: type[BaseModel], error: ValidationError, where: Callable[[Place], str]) -> list[str]:
    """A line for each mistake that pydantic found.

    Args:
        model: what was validated.
        error: what came of it.
        where: the source (a file, the command line) of the value at a place in the model.
    """
    lines = []
    for mistake in error.errors(include_url=False):
        place = mistake["loc"]
        text = _complaint(
            model, place, mistake["type"], mistake["msg"], mistake["input"], mistake.get("ctx", {})
        )
        key = _dotted(place)
        lines.append(f"{where(place)}: {key}: {text}" if key else f"{where(place)}: {text}")
    return lines


def _complaint(
    model: type[BaseModel], place: Place, kind: str, message: str, value: Any, context: dict[str, Any]
) -> str:
    if kind == "extra_forbidden":
        known = list(_model_at(model, place[:-1]).model_fields)
        hint = nearest(str(place[-1]), known)
        return f"unknown key;{hint} (known: {', '.join(known)})".replace("; (", " (")
    if kind == "missing":
        return "missing"
    if kind == "literal_error":
        expected = context["expected"].replace("'", '"')
        hint = nearest(str(value), expected.replace(" or ", ", ").replace('"', "").split(", "))
        return f"{value!r} is none of {expected}{';' + hint if hint else ''}"
    if kind == "tuple_type":
        return f"{value!r}: should be a list"
    if kind == "value_error":
        return str(context["error"])
    return f"{value!r}: {message.replace('Input should', 'should').replace('Tuple', 'the list')}"


def _dotted(place: Place) -> str:
    """``losses[2].expression`` for ``("losses", 2, "expression")``."""
    text = ""
    for key in place:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    for key in place:
        if isinstance(key, str) and key in model.model_fields:
            model = _section_of(model.model_fields[key].annotation) or model
    return model


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``Section``, ``Section | None`` or ``tuple[Section, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _section_of(inner)
        if found:
            return found
    return None
