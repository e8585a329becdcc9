"""Canonical JSON, and the hashes that runs and studies are known by."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["canonical", "sha256"]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; equal values give equal bytes.

    Raises:
        ValueError: a number that JSON does not have (nan, inf).

    Example:
        >>> canonical({"b": (1, 2), "a": 0.1})
        b'{"a":0.1,"b":[1,2]}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(value: Any) -> str:
    """The hash of the canonical JSON of a value, or of bytes as they are."""
    return hashlib.sha256(value if isinstance(value, bytes) else canonical(value)).hexdigest()
