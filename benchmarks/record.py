"""The options that every benchmark has, and the file that holds what one has found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["parser", "write"]


def parser(about: str | None, small: str) -> argparse.ArgumentParser:
    """Takes ``--small`` and ``--out``.

    Args:
        about: the benchmark's docstring.
        small: what it measures with ``--small``.
    """
    made = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    made.add_argument("--small", action="store_true", help=f"{small}: does it run?")
    made.add_argument("--out", type=Path, help="the JSON file to write")
    return made


def write(path: Path | None, found: dict[str, Any]) -> None:
    """Writes what was found, its folder too; nothing without a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
