"""Triton's interpreter, spared what takes most of its time: to exchange its language again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import triton.language as tl
from triton.runtime import interpreter


@pytest.fixture(scope="module", autouse=True)
def language_exchanged_once() -> Iterator[None]:
    """A kernel's launch exchanges the operations of its language, and so does every call of a helper, again.

    Here a helper does so only where its module imports the language in another way than those before it.
    """
    exchange, done = interpreter._patch_lang, set()

    def once(function: Any) -> Any:
        seen = frozenset(
            id(value) for value in function.__globals__.values() if value is tl or value is tl.core
        )
        if seen in done:
            return None  # a helper's call leaves it to the launch to put the language back
        done.add(seen)
        scope = exchange(function)
        put_back = scope.restore

        def restore() -> None:
            done.clear()
            put_back()

        scope.restore = restore
        return scope

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", once)
        yield
