"""The fingerprint of a user's function: its source, and the values that it reads from outside."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Fingerprint", "fingerprint"]


_FOREIGN = {
    *("torch", "numpy", "infoloss", "sklearn", "scipy", "pandas", "polars", "timm", "transformers"),
    *("torchvision", "builtins"),
}


class Fingerprint:
    """A hash that grows; ``unseen`` names what it could not look into."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._visited: set[int] = set()
        self.unseen: list[str] = []

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning about what was not looked into, if anything."""
        if not self.unseen:
            return ()
        listed = ", ".join(self.unseen)
        return (f"changes inside {listed} are not seen: choose another folder after such a change",)

    def add(self, name: str, value: Any) -> None:
        """Adds a value: numbers, text, arrays and frames by content, functions and classes by source."""
        self._write(name, type(value).__qualname__)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self._write(repr(value))
        elif isinstance(value, types.ModuleType):
            self._write(value.__name__, str(getattr(value, "__version__", "")))
        elif id(value) in self._visited:
            self._write("again")
        else:
            self._visited.add(id(value))
            self._add_object(name, value)

    def _add_object(self, name: str, value: Any) -> None:
        array = _array(value)
        if array is not None:
            self._write(str(array.dtype), str(array.shape))
            self._digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
        elif isinstance(value, Mapping):
            for key in value:
                self.add(f"{name}[{key!r}]", value[key])
        elif isinstance(value, list | tuple | set | frozenset):
            members = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            for index, member in enumerate(members):
                self.add(f"{name}[{index}]", member)
        elif isinstance(value, types.FunctionType) and (len(self._visited) == 1 or not _foreign(value)):
            self._add_function(value)
        elif isinstance(value, types.MethodType):
            self.add(name, value.__func__)
            self.add(f"{name}.__self__", value.__self__)
        elif isinstance(value, type) and not _foreign(value):
            self._add_class(value)
        elif isinstance(value, type | types.BuiltinFunctionType) or _foreign(value):
            self._write(value.__module__ or "", getattr(value, "__qualname__", ""), _source(value))
        elif hasattr(value, "__dict__"):
            self._write(_source(type(value)))
            self.add(f"{name}.__dict__", vars(value))
        else:
            self.unseen.append(f"{name} ({type(value).__name__})")

    def _add_function(self, function: types.FunctionType) -> None:
        self._write(function.__module__ or "", function.__qualname__, _source(function))
        self.add("defaults", function.__defaults__)
        self.add("keyword defaults", function.__kwdefaults__)
        for name, value in _outside(function):
            self.add(name, value)

    def _add_class(self, kind: type) -> None:
        self._write(kind.__module__, kind.__qualname__, _source(kind))
        self.add("bases", kind.__bases__)
        for name, member in vars(kind).items():
            function = getattr(member, "__func__", member)
            if isinstance(function, types.FunctionType):
                self.add(name, function)

    def _write(self, *words: str) -> None:
        for word in words:
            self._digest.update(len(word).to_bytes(8, "little") + word.encode())


def fingerprint(function: Callable[..., Any]) -> Fingerprint:
    """The fingerprint of a function, with what it reads: closures, globals, defaults, recursively.

    Example:
        >>> def half(x, by=2):
        ...     return x / by
        >>> first = fingerprint(half).sha256
        >>> half.__defaults__ = (3,)
        >>> fingerprint(half).sha256 == first
        False
    """
    found = Fingerprint()
    found.add(getattr(function, "__name__", type(function).__name__), function)
    return found


def _outside(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Closure cells and the globals that the code, or code inside it, names."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(_names(each) for each in inner))


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return (
            ""
            if code is None
            else repr((code.co_code, [c for c in code.co_consts if not hasattr(c, "co_code")]))
        )


def _foreign(value: Any) -> bool:
    """Whether it comes from an installed package: versions are recorded, contents need not be read."""
    root = (getattr(value, "__module__", None) or "").split(".")[0]
    return root in _FOREIGN


def _array(value: Any) -> Any:
    """The numbers of an array, a tensor or a frame; None for anything else."""
    import numpy as np

    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
        return np.ascontiguousarray(value.numpy())
    if hasattr(value, "to_numpy"):
        return np.asarray(value.to_numpy())
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray | np.generic) else None
