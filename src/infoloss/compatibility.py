"""The oldest PyTorch that infoloss works with: below it, importing infoloss is one clear error."""

from __future__ import annotations

import torch

__all__ = ["OLDEST_TORCH"]

OLDEST_TORCH = (2, 13)
"""What pyproject.toml asks for; an environment may have been changed since it was installed."""

if tuple(int(number) for number in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
    oldest = ".".join(map(str, OLDEST_TORCH))
    raise ImportError(
        f"infoloss needs torch {oldest} or newer, found {torch.__version__}: pip install 'torch>={oldest}'"
    )
