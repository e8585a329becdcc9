"""The search space of a loss expression: its parameters, as the catalogue declares them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping

from infoloss.catalogue import Range, catalogue

__all__ = ["own_space", "own_values", "with_parameters"]


def own_space(expression: str) -> dict[str, Range]:
    """The parameters of an expression that may be tuned: "focal.gamma", of a second focal "focal.gamma#2".

    A parameter written with another value than its default is what the user chose, and stays; so do numbers
    in the expression, and losses that are not of the catalogue.

    Args:
        expression: canonical text, with every parameter.

    Example:
        >>> own_space("focal(gamma=2.0) + 0.1 * entropy")
        {'focal.gamma': Range(low=0.25, high=5, log=False)}
        >>> own_space("focal(gamma=3.0)")
        {}
    """
    tree = _tree(expression)
    return {} if tree is None else {name: limits for name, _, limits in _open(tree)}


def with_parameters(expression: str, values: Mapping[str, float]) -> str:
    """The canonical text of an expression with other values for parameters of ``own_space``.

    Example:
        >>> with_parameters("focal(gamma=2.0) + 0.1 * entropy", {"focal.gamma": 1.5})
        'focal(gamma=1.5) + 0.1 * entropy'
    """
    from infoloss import parse

    tree = _tree(expression)
    if tree is None or not values:
        return expression
    for name, keyword, _ in _open(tree):
        if name in values:
            keyword.value = ast.Constant(values[name])
    with warnings.catch_warnings():
        # What there is to say of the expression was said when it was first read.
        warnings.simplefilter("ignore", UserWarning)
        return str(parse(ast.unparse(tree)))


def own_values(expression: str, base: str) -> dict[str, float | None]:
    """The values in an expression of the parameters that may be tuned in ``base``, from which it was made.

    Example:
        >>> own_values("focal(gamma=1.5)", "focal(gamma=2.0)")
        {'focal.gamma': 1.5}
    """
    tree, pattern = _tree(expression), _tree(base)
    if tree is None or pattern is None:
        return {}
    places = {name: (_index(pattern, keyword)) for name, keyword, _ in _open(pattern)}
    keywords = _keywords(tree)
    return {name: ast.literal_eval(keywords[place].value) for name, place in places.items()}


def _index(tree: ast.Expression, keyword: ast.keyword) -> int:
    return next(place for place, each in enumerate(_keywords(tree)) if each is keyword)


def _keywords(tree: ast.Expression) -> list[ast.keyword]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]


def _tree(expression: str) -> ast.Expression | None:
    """None for what is no expression of the catalogue, as a loss named by module:function."""
    try:
        return ast.parse(expression, mode="eval")
    except SyntaxError:
        return None


def _open(tree: ast.Expression) -> Iterator[tuple[str, ast.keyword, Range]]:
    """Name, place and range of each parameter that may be tuned, in the order of the text."""
    seen: dict[str, int] = {}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: node.col_offset):
        entry = catalogue.get(ast.unparse(call.func))
        if entry is None:
            continue
        seen[entry.name] = seen.get(entry.name, 0) + 1
        suffix = f"#{seen[entry.name]}" if seen[entry.name] > 1 else ""
        for keyword in call.keywords:
            limits = entry.search.get(keyword.arg or "")
            if limits is not None and ast.literal_eval(keyword.value) == entry.parameters[str(keyword.arg)]:
                yield f"{entry.name}.{keyword.arg}{suffix}", keyword, limits
