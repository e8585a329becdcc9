"""Moments of blocks of columns, merged, against the moments of whole rows: cut anywhere, in any order."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import problems
import pytest
import torch
from cases import CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infoloss import parse
from infoloss.kernels.sharded import Given, Request, block_moments
from infoloss.rows import Rows, read, row_values
from infoloss.statistics import Moments, merged, smoothed
from infoloss.views import SMALLEST_NORM, Normalized, Scaled, Shifted, View

CLASSES = 11


def block_views(views: tuple[View, ...], planes: Tensor, start: int, stop: int) -> tuple[View, ...]:
    """The views of some of the columns; a norm is one of the whole row."""
    local: list[View] = []
    for view in views:
        if isinstance(view, Shifted):
            view = replace(view, vector=view.vector.part(start, stop))
        elif isinstance(view, Normalized):
            z = planes.squeeze(-1).masked_fill(planes.squeeze(-1) == -torch.inf, 0)
            view = Scaled(Given(1 / (view.tau * (z.square().sum(-1) + SMALLEST_NORM**2).sqrt())))  # type: ignore[arg-type]
        local.append(view)
    return tuple(local)


def from_blocks(term: Any, z: Tensor, target: Tensor, cuts: list[int], order: str, options: Any) -> Tensor:
    """The row values from moments of the blocks between the cuts."""
    rows: Rows = read(term, z, target, {}, options)
    batch = rows.batch
    for one in rows.passes:
        parts: list[Moments] = []
        for start, stop in zip([0, *cuts], [*cuts, CLASSES], strict=True):
            t = batch.target
            t = t[:, start:stop] if t is not None and t.ndim == 2 else t
            views = block_views(one.views, batch.logits, start, stop)
            request = Request(views, frozenset(one.needs), one.floor or 0.0)
            parts.append(block_moments(batch.logits[:, start:stop], t, start, request, batch.kept))
        if order == "left":
            one.moments = reduce(lambda a, b: merged([a, b]), parts)
        elif order == "right":
            one.moments = reduce(lambda a, b: merged([b, a]), reversed(parts))
        else:
            one.moments = merged(parts)
        if batch.smoothing:
            one.moments = smoothed(one.moments, batch.smoothing, one.floor or 0.0)
    return row_values(term, rows)


def problem(seed: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    z = torch.tensor(problems.rows(seed, 4, CLASSES, spread=spread))
    y = torch.tensor(problems.labels(seed, 4, CLASSES))
    t = torch.tensor(problems.distributions(seed, 4, CLASSES))
    y[0] = CLASSES - 1
    z[0, :5], t[0, :5] = -torch.inf, 0  # whole blocks without an unmasked class
    z[1, 3] = z[1, 8] = z[1].max() + 1  # a tie of the maximum, in blocks of their own
    return z, y, t


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(0, CLASSES), max_size=5).map(sorted),
    order=st.sampled_from(["left", "right", "at once"]),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1.0, 30.0]),
    kind=st.sampled_from(["hard", "soft", "smoothed"]),
)
def test_blocks_make_the_row(
    case: Case, cuts: list[int], order: str, seed: int, spread: float, kind: str
) -> None:
    z, y, t = problem(seed, spread)
    if kind != "hard" and case.soft == "none":
        kind = "hard"
    target, options = (t if kind == "soft" else y), ({"label_smoothing": 0.1} if kind == "smoothed" else {})
    term, results = case.term(CLASSES), []
    for cut in (True, False):
        x = z.clone().requires_grad_()
        values = (
            from_blocks(term, x, target, cuts, order, options)
            if cut
            else row_values(term, read(term, x, target, {}, options))
        )
        (gradient,) = torch.autograd.grad((values * torch.linspace(1, 2, 4)).sum(), x)
        results.append((values.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-12)


def test_a_scale_keeps_its_gradient() -> None:
    """The blocks are centred at different maxima, and a temperature multiplies each."""
    z, y, _ = problem(3, 2.0)
    found = []
    for cuts in ([], [2, 7]):
        temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        term = parse("min_ent + 0.3*max_suppression + 0.1*collision").scaled(temperature)
        values = from_blocks(term, z, y, cuts, "at once", {})
        found.append(torch.autograd.grad(values.sum(), temperature)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)
