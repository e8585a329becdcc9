"""Loss expressions as text: the same in Python, in study files and on the command line.

The grammar is Python's for numbers, names, calls with keyword arguments, ``+ - * / **``, unary minus
and parentheses. The text is parsed into a tree of terms; nothing in it is ever evaluated as code.
"""

from __future__ import annotations

import ast
import difflib
from typing import Any

from infoloss.catalogue import catalogue, entry_named
from infoloss.statistics import STATISTICS
from infoloss.terms import FUNCTIONS, Coefficient, Function, Number, Operation, Term, statistic

__all__ = ["ExpressionError", "parse"]

SYMBOLS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
VIEWS = ("shifted", "scaled", "normalized", "soft_capped")


class ExpressionError(ValueError):
    """A loss expression that cannot be read; the message points at the character."""

    def __init__(self, message: str, text: str, column: int) -> None:
        super().__init__(f"{message}\n  {text}\n  {' ' * column}^")
        self.column = column


def parse(text: str | Term) -> Term:
    """The term that an expression describes; ``parse(str(term)) == term``.

    Names are the catalogue's losses and regularisers (their parameters as keyword arguments), the row
    statistics, the functions exp, log, expm1, log1p, sqrt, abs, minimum, maximum and step, and the
    views ``shifted(term, [numbers])``, ``scaled(term, factor)``, ``normalized(term, tau)`` and
    ``soft_capped(term, cap)``. Any other name is a coefficient, to be given a value by ``bind`` or by
    a :class:`~infoloss.Criterion`, unless it looks like a misspelt name.

    >>> import infoloss as il
    >>> print(il.parse("cross_entropy + 0.1*entropy"))
    cross_entropy(label_smoothing=0.0) + 0.1 * entropy
    >>> print(il.parse("cross_entropy + beta*lse**2").unbound)
    frozenset({'beta'})
    >>> il.parse("cross_entropy + entropi")
    Traceback (most recent call last):
    ...
    infoloss.expression.ExpressionError: unknown name 'entropi', did you mean 'entropy'?
      cross_entropy + entropi
                      ^

    Raises:
        ExpressionError: (a ValueError) the text is no expression, with the place and the nearest name.
    """
    if isinstance(text, Term):
        return text
    if not isinstance(text, str):
        raise TypeError(f"a loss is a term or an expression in text, got {type(text).__name__}: {text!r}")
    source = text.strip()
    if not source:
        raise ExpressionError("the expression is empty", source, 0)
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        column = (getattr(error, "offset", None) or len(source) + 1) - 1
        reason = getattr(error, "msg", None) or "too deeply nested"
        raise ExpressionError(f"not an expression: {reason}", source, min(column, len(source))) from None
    try:
        return _Reader(source).term(tree.body)
    except RecursionError:  # where Python's parser goes deeper than its interpreter
        raise ExpressionError("not an expression: too deeply nested", source, len(source)) from None


class _Reader:
    """Turns the syntax tree of one text into terms."""

    def __init__(self, text: str) -> None:
        self.text = text

    def error(self, message: str, node: ast.expr | ast.keyword) -> ExpressionError:
        # the tree counts bytes, the reader of the message counts characters
        line = self.text.splitlines()[node.lineno - 1].encode()
        return ExpressionError(message, line.decode(), len(line[: node.col_offset].decode()))

    def term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=bool() | None | str() | bytes() | complex()):
                raise self.error(f"expected a number or a name, got {ast.unparse(node)}", node)
            case ast.Constant(value=value):
                return self.built(node, lambda: Number(float(value)))  # type: ignore[arg-type]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.term(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.term(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in SYMBOLS:
                joined = Operation(SYMBOLS[type(op)], self.term(left), self.term(right))
                return joined if joined.symbol != "+" else joined.left + joined.right
            case ast.Name(id=name):
                return self.name(name, node)
            case ast.Call(func=ast.Name(id=name)):
                return self.call(name, node)
        raise self.error(f"expected a number, a name or one of + - * / **, got {ast.unparse(node)}", node)

    def name(self, name: str, node: ast.expr) -> Term:
        if name in catalogue:
            return self.built(node, entry_named(name))
        if name in STATISTICS:
            return self.built(node, lambda: statistic(name))
        nearest = self.nearest(name)
        if nearest:
            raise self.error(f"unknown name {name!r}, did you mean {nearest!r}?", node)
        return Coefficient(name)

    def call(self, name: str, node: ast.Call) -> Term:
        options = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error("** is not allowed in arguments", keyword)
            options[keyword.arg] = self.argument(keyword.value)
        if name in FUNCTIONS:
            if options:
                raise self.error(f"{name} takes no keyword arguments", node)
            arguments = tuple(self.term(a) for a in node.args)
            return self.built(node, lambda: Function(name, arguments))
        if name in VIEWS:
            if not node.args:
                raise self.error(f"{name} takes a term and a value", node)
            viewed = getattr(self.term(node.args[0]), name)
            values = [self.argument(a) for a in node.args[1:]]
            return self.built(node, lambda: viewed(*values, **options))
        if name in STATISTICS:
            return self.built(node, lambda: statistic(name, **options))
        if name not in catalogue:
            nearest = self.nearest(name, cutoff=0.4)
            hint = f", did you mean {nearest!r}?" if nearest else ""
            raise self.error(f"unknown loss or function {name!r}{hint}", node)
        for keyword in node.keywords:
            if keyword.arg not in catalogue[name].parameters:
                raise self.unknown_parameter(name, keyword)
        values = [self.argument(a) for a in node.args]
        return self.built(node, lambda: entry_named(name)(*values, **options))

    def unknown_parameter(self, name: str, keyword: ast.keyword) -> ExpressionError:
        known = list(catalogue[name].parameters)
        close = difflib.get_close_matches(keyword.arg or "", known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else f"; it has {', '.join(known) or 'none'}"
        return self.error(f"{name} has no parameter {keyword.arg!r}{hint}", keyword)

    def argument(self, node: ast.expr) -> Any:
        """A parameter's value: a number, None, a boolean, a list of numbers, or a coefficient's name."""
        match node:
            case ast.Constant(value=int() | float() | None):
                return node.value
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self.number(item) for item in items]
            case ast.Name(id=name) if name not in catalogue and name not in STATISTICS:
                return Coefficient(name)
        return self.number(node)

    def number(self, node: ast.expr) -> float:
        value = self.term(node)
        if not isinstance(value, Number):
            raise self.error(f"expected a number, got {ast.unparse(node)}", node)
        return value.number

    def built(self, node: ast.expr, make: Any) -> Term:
        """``make()``, with its complaint pointed at the place in the text."""
        try:
            return make()  # type: ignore[no-any-return]
        except ExpressionError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(str(error), node) from None

    def nearest(self, name: str, cutoff: float = 0.8) -> str | None:
        known = [*catalogue, *STATISTICS, *FUNCTIONS, *VIEWS]
        close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
        return close[0] if close else None
