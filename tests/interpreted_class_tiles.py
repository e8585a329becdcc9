"""A linear head whose logits are made a few classes at a time: the tests of the head, on the GPU kernel.

``TRITON_INTERPRET=1`` must be set before Triton is imported (test_kernels_gpu.py does so); slow.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from interpreter import language_exchanged_once  # noqa: F401 - used by every test
from test_linear import (  # noqa: F401 - run here too, by another way to the same numbers
    test_a_class_masked_by_the_bias,
    test_a_masked_label_has_probability_0,
    test_backward_again_through_a_retained_graph,
    test_coefficients_with_gradients,
    test_every_view,
    test_only_the_gradients_that_are_wanted,
    test_precision,
    test_row_statistics,
    test_what_it_cannot_do_is_said,
    test_without_gradients,
)

import infoloss as il
from infoloss.kernels import class_tiles, linear


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Tiles of three classes, and a list of what was read through them."""
    seen: list[str] = []

    def watched(*arguments: object) -> torch.Tensor:
        seen.append("tiles")
        return packed_moments(*arguments)  # type: ignore[arg-type]

    packed_moments = class_tiles.packed_moments
    monkeypatch.setattr(class_tiles, "packed_moments", watched)
    monkeypatch.setattr(class_tiles, "TILE", 0)
    monkeypatch.setattr(class_tiles, "CLASSES", 3)
    monkeypatch.setattr(linear, "BLOCK", 1)
    with il.kernels.use("gpu"):
        yield seen
