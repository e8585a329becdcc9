"""Terms as programs: a term evaluated on symbols instead of tensors leaves the list of its operations.

A kernel that interprets such a list computes any term, and its derivatives in the moments, without a
PyTorch operation for each node of the tree. The list is written by the term itself, on :class:`Symbol`
moments; nothing here knows a loss or a statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Code", "Program", "Symbol", "Tape"]


class Code(IntEnum):
    """What an instruction does with the values a and b of earlier ones."""

    CONSTANT = 0
    PARAMETER = 1
    MOMENT = 2
    ADD = 3
    SUBTRACT = 4
    MULTIPLY = 5
    DIVIDE = 6
    POWER = 7
    NEGATE = 8
    EXP = 9
    LOG = 10
    EXPM1 = 11
    LOG1P = 12
    SQRT = 13
    ABS = 14
    MINIMUM = 15
    MAXIMUM = 16
    STEP = 17  # 1 where a ≥ 0, else 0; no derivative
    XLOGX = 18  # a ln a, 0 at 0


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions in order; the value of the last one is the result.

    a and b are the instructions that give the values; for PARAMETER and MOMENT, a is which one.
    """

    instructions: NDArray[
        np.int64
    ]  # (4, n): code; what gives a (PARAMETER, MOMENT: which one); what gives b;
    # and whether it depends on a moment
    number: NDArray[np.float64]  # (n,) of CONSTANT
    parameters: tuple[str, ...]


class Tape:
    """Instructions as they are recorded, each distinct one once."""

    def __init__(self) -> None:
        self.instructions: dict[tuple[int, int, int, float], int] = {}
        self.parameters: list[str] = []

    def symbol(self, code: Code, left: int = 0, right: int = 0, number: float = 0.0) -> Symbol:
        key = (int(code), left, right, number)
        return Symbol(self, self.instructions.setdefault(key, len(self.instructions)))

    def moment(self, row: int) -> Symbol:
        """A moment, by its row among those that the kernel packs."""
        return self.symbol(Code.MOMENT, row)

    def parameter(self, name: str) -> Symbol:
        """A number that is given with each evaluation."""
        if name not in self.parameters:
            self.parameters.append(name)
        return self.symbol(Code.PARAMETER, self.parameters.index(name))

    def constant(self, value: Any) -> Symbol:
        """A number, or a tensor that holds one."""
        if isinstance(value, Symbol):
            return value
        return self.symbol(Code.CONSTANT, number=float(value))

    def program(self, result: Any) -> Program:
        """The program that computes ``result``."""
        last = self.constant(result)
        keys = list(self.instructions)
        if last.index != len(keys) - 1:  # the interpreter takes the last one
            keys.append((int(Code.ADD), last.index, self.constant(0.0).index, 0.0))
            keys = [*self.instructions, keys[-1]]
        instructions = np.zeros((4, len(keys)), np.int64)
        instructions[:3] = np.array([key[:3] for key in keys]).T
        code, left, right, active = instructions
        number = np.array([key[3] for key in keys], np.float64)
        for i in range(len(keys)):
            operation = code[i] > Code.MOMENT
            active[i] = code[i] == Code.MOMENT or (operation and (active[left[i]] or active[right[i]]))
        return Program(instructions, number, tuple(self.parameters))


class Symbol:
    """A value of a tape: what is done to it is recorded, PyTorch's functions included."""

    dtype = torch.float64

    def __init__(self, tape: Tape, index: int) -> None:
        self.tape, self.index = tape, index

    def _one(self, code: Code) -> Symbol:
        return self.tape.symbol(code, self.index, self.index)

    def _two(self, code: Code, other: Any, *, reverse: bool = False) -> Symbol:
        a, b = self, self.tape.constant(other)
        if reverse:
            a, b = b, a
        return self.tape.symbol(code, a.index, b.index)

    def __add__(self, other: Any) -> Symbol:
        return self._two(Code.ADD, other)

    def __sub__(self, other: Any) -> Symbol:
        return self._two(Code.SUBTRACT, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._two(Code.SUBTRACT, other, reverse=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._two(Code.MULTIPLY, other)

    def __truediv__(self, other: Any) -> Symbol:
        return self._two(Code.DIVIDE, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._two(Code.DIVIDE, other, reverse=True)

    def __pow__(self, other: Any) -> Symbol:
        if other == 2:
            return self._two(Code.MULTIPLY, self)
        return self._two(Code.POWER, other)

    def __rpow__(self, other: Any) -> Symbol:
        return self._two(Code.POWER, other, reverse=True)

    def __neg__(self) -> Symbol:
        return self._one(Code.NEGATE)

    def __ge__(self, other: Any) -> Symbol:
        return self.__sub__(other)._one(Code.STEP)

    __radd__ = __add__
    __rmul__ = __mul__

    def clamp(self, *, min: float) -> Symbol:
        return self._two(Code.MAXIMUM, min)

    def detach(self) -> Symbol:
        """Itself: only what has no derivative is computed from it (a step)."""
        return self

    def to(self, dtype: torch.dtype) -> Symbol:
        return self

    @classmethod
    def __torch_function__(
        cls,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        symbol = next(a for a in args if isinstance(a, Symbol))
        name = function.__name__.strip("_")
        if name in ONE:
            return symbol._one(ONE[name])
        if name in TWO:
            code, reverse = TWO[name]
            a, b = (symbol.tape.constant(value) for value in args)
            return b._two(code, a) if reverse else a._two(code, b)
        if name == "xlogy" and args[0] is args[1]:
            return symbol._one(Code.XLOGX)
        raise TypeError(f"no instruction for {name}")


ONE = {
    "exp": Code.EXP,
    "log": Code.LOG,
    "expm1": Code.EXPM1,
    "log1p": Code.LOG1P,
    "sqrt": Code.SQRT,
    "abs": Code.ABS,
    "neg": Code.NEGATE,
}
TWO = {
    "add": (Code.ADD, False),
    "sub": (Code.SUBTRACT, False),
    "rsub": (Code.SUBTRACT, True),
    "mul": (Code.MULTIPLY, False),
    "div": (Code.DIVIDE, False),
    "truediv": (Code.DIVIDE, False),
    "pow": (Code.POWER, False),
    "minimum": (Code.MINIMUM, False),
    "maximum": (Code.MAXIMUM, False),
}
