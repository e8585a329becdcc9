"""Calls of the CPU kernel, :mod:`infoloss.kernels.cpu`: a :class:`~infoloss.kernels.inputs.Kernel`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infoloss.kernels.cpu import FUNCTIONS, STEPS
from infoloss.kernels.inputs import ORDER, Inputs
from infoloss.kernels.program import Program
from infoloss.kernels.threads import parallel
from infoloss.statistics import merged

__all__ = [
    "Arrays",
    "add_label_gradient",
    "arrays",
    "gradient",
    "memory",
    "moments",
    "read",
    "read_labels",
    "spread",
    "step",
    "values",
    "whole",
]

NARROW = 24
"""Classes below which rows are read in tiles (benchmarks/thresholds.py)."""
PART = 1 << 20
"""Columns of a part, where so few rows are so long that they are cut (likewise)."""
HALF = 1 << 20
"""Half-precision logits that are converted at once."""
NEVER = -(2**63)


Layout = tuple[int, ...]
"""Rows, classes, inner, the strides of B, C and S, parts."""
Arrays = tuple[Layout, tuple[Any, ...]]
"""What the compiled functions read: the layout of the logits; their memory, labels, which one is ignored, and
then what is often the same in many calls: soft target, score, kept, shift, scale, tau, cap, floor, where.
Absent arrays are empty."""
LABEL, IGNORED, KEPT, TAU = 1, 2, 5, 8
CONSTANT = 3
NO_LABELS = np.empty(0, np.int64)
NO_NUMBERS = np.empty(0, np.float64)


class Empty(NamedTuple):
    vector: NDArray[Any]
    matrix: NDArray[Any]


@cache
def _empty(dtype: Any) -> Empty:
    return Empty(np.empty(0, dtype), np.empty((0, 0), dtype))


@cache
def _where(names: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array([names.index(name) if name in names else -1 for name in ORDER], np.int64)


def arrays(inputs: Inputs) -> Arrays:
    """The arrays of float32 or float64 logits."""
    memory_of_z, layout = memory(inputs.z.detach())
    if inputs.viewed or inputs.soft is not None:
        layout = whole(layout)
    real, logical = _empty(memory_of_z.dtype), _empty(np.bool_)
    soft = score = real.matrix
    if inputs.soft is not None:
        soft = inputs.soft.detach().contiguous().numpy()
        if "label_log_exp" in inputs.names:
            score = inputs.soft.detach().clamp(min=inputs.floor).log().contiguous().numpy()
    return layout, (
        memory_of_z,
        NO_LABELS if inputs.label is None else inputs.label.contiguous().numpy(),
        NEVER if inputs.ignored is None else inputs.ignored,
        soft,
        score,
        logical.vector if inputs.kept is None else inputs.kept.contiguous().numpy(),
        real.vector if inputs.shift is None else inputs.shift.detach().contiguous().numpy(),
        NO_NUMBERS if inputs.scale is None else inputs.scale.detach().contiguous().numpy(),
        float(inputs.tau),
        float(inputs.cap),
        float(inputs.floor),
        _where(inputs.names),
    )


def memory(z: Tensor) -> tuple[NDArray[Any], Layout]:
    """The memory that holds z (B, C, S), and how.

    z is detached, and may be (N, C).
    """
    if z.ndim == 2:
        (outer, classes), (by_outer, by_class) = z.shape, z.stride()
        inner = by_inner = 1
    else:
        (outer, classes, inner), (by_outer, by_class, by_inner) = z.shape, z.stride()
    if inner == 1:  # one row of tiles, not one tile for each row
        parts = _parts(outer, classes, by_class)
        return _flat(z), (outer, classes, outer, 0, by_class, by_outer, parts)
    rows = outer * inner
    return _flat(z), (rows, classes, inner, by_outer, by_class, by_inner, _parts(rows, classes, by_class))


def _flat(z: Tensor) -> NDArray[Any]:
    """The memory from the first element of z to the last."""
    if z.is_contiguous():
        return z.view(-1).numpy()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(z.shape, z.stride(), strict=True))
    return z.as_strided((extent,), (1,)).numpy()


def whole(layout: Layout) -> Layout:
    """The layout with rows in one part."""
    return (*layout[:-1], 1)


def _parts(rows: int, classes: int, by_class: int) -> int:
    """Into how many parts rows are cut: a function of sizes alone, so that threads change no bit."""
    if rows >= 8 or by_class != 1 or classes < 2 * PART:
        return 1
    return min(8 // rows, classes // PART)


def _run(name: str, given: Arrays, *more: Any) -> Any:
    layout, arrays = given
    function = NAMES[name, layout[4] == 1 and layout[1] >= NARROW]
    return FUNCTIONS[function, parallel(layout[0] * layout[1])](layout, arrays, *more)


NAMES = {
    (name, in_rows): f"{'rows' if in_rows else 'tiles'}.{name}"
    for name in ("moments", "gradient")
    for in_rows in (True, False)
}
"""The function that reads logits, and whether rows are read one by one or in tiles."""


def read(given: Arrays, names: tuple[str, ...], out: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Write the moments into ``out`` (K, N).

    Returns:
        Each row's class of the maximum (empty unless "peak" is needed), and N − n for the first row n whose
        label is out of range, or 0.
    """
    (rows, *_, parts), _ = given
    peaks = np.empty(parts * rows if "peak" in names else 0, np.int64)
    if parts == 1:
        return peaks, _run("moments", given, out, peaks)
    # a part's label_logit is about its own maximum, so merging needs to know which part has the label
    found = np.zeros((len(names), parts * rows))
    wrong = _run("moments", given, found, peaks)
    if not wrong:
        peaks = _merge(given, names, found, peaks, out)
    return peaks, wrong


def _merge(
    given: Arrays,
    names: tuple[str, ...],
    found: NDArray[np.float64],
    peaks: NDArray[np.int64],
    out: NDArray[np.float64],
) -> NDArray[np.int64]:
    (rows, classes, *_, parts), arrays = given
    blocks = []
    for part in range(parts):
        m = dict(zip(names, torch.from_numpy(found[:, part * rows : (part + 1) * rows]), strict=True))
        first, stop = classes * part // parts, classes * (part + 1) // parts
        if "label_logit" in m:
            label = torch.from_numpy(arrays[LABEL])
            m["label_sum"] = ((label >= first) & (label < stop)).to(torch.float64)
        blocks.append(m)
    whole = merged(blocks)
    for i, name in enumerate(names):
        out[i] = whole[name].numpy()
    if not len(peaks):
        return peaks
    top = found[names.index("maximum")].reshape(parts, rows)
    return peaks.reshape(parts, rows)[top.argmax(0), np.arange(rows)]  # type: ignore[no-any-return]


def spread(
    given: Arrays,
    packed: NDArray[np.float64],
    peaks: NDArray[np.int64],
    slopes: NDArray[np.float64],
    factor: float,
    g: Tensor,
    g_scale: NDArray[np.float64],
) -> None:
    """Write the gradient of the logits into g (B, C, S), and of the scale into ``g_scale`` (N,) or empty.

    g may be the logits themselves, unless a norm is taken, for which they are read again.
    """
    _run("gradient", given, packed, peaks, slopes, factor, *memory(g), g_scale)


def read_labels(given: Arrays, out: NDArray[np.float64]) -> None:
    """Write the moments that need the label's logit alone into ``out`` (K, N); the labels are in range."""
    layout, arrays = given
    FUNCTIONS["labels.moments", parallel(layout[0])](layout, arrays, out)


def add_label_gradient(
    given: Arrays, packed: NDArray[np.float64], slopes: NDArray[np.float64], factor: float, g: Tensor
) -> None:
    """Add the gradient of :func:`read_labels` to g (B, C, S)."""
    layout, arrays = given
    run = FUNCTIONS["labels.add_gradient", parallel(layout[0])]
    run(layout, arrays, packed, slopes, factor, *memory(g))


def values(
    program: Program,
    parameters: NDArray[np.float64],
    packed: NDArray[np.float64],
    slopes: NDArray[np.float64],
    spared: NDArray[np.bool_],
    label_row: int,
    given: Arrays,
    *,
    by_row: bool,
) -> tuple[NDArray[np.float64], float, int, int]:
    """The value of each row (N,), empty unless ``by_row``; and the derivatives in the moments into ``slopes``
    (K, N), but for those spared: it may be ``packed``.

    Returns:
        Besides, the values' sum, how many rows count, and N − n for the first row n of them that is wholly
        masked, or 0.
    """
    value = np.empty(packed.shape[1] if by_row else 0)
    run = FUNCTIONS["values", parallel(packed.size)]
    _, arrays = given
    labels = (arrays[LABEL], arrays[IGNORED], arrays[KEPT], label_row)
    whole_program = (program.instructions, program.number, parameters)
    total, number, empty = run(whole_program, packed, spared, labels, value, slopes)
    return value, total, number, empty


def step(
    given: Arrays,
    sizes: tuple[int, int, int],
    spared: NDArray[np.bool_],
    program: Program,
    parameters: NDArray[np.float64],
    divisor: float,
    g: Tensor,
) -> tuple[float, int, int]:
    """A small batch in one call; the gradient of Σ value / divisor (nan: the rows that count) into g.

    Args:
        sizes: how many moments, whether "peak" is among them, the row of "label_logit" or −1.
        g: (B, C, S) of the logits' shape.

    Returns:
        Σ value, how many rows count, and a number other than 0 where a label is out of range or a row that
        counts is wholly masked.
    """
    layout, arrays = given
    run = STEPS["rows" if layout[4] == 1 and layout[1] >= NARROW else "tiles"]
    whole_program = (program.instructions, program.number, parameters)
    return run(layout, arrays, sizes, whole_program, spared, divisor, *memory(g))  # type: ignore[no-any-return]


def moments(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Row by row or tile by tile, in one pass."""
    found, besides = [], []
    for part, _ in _wide(inputs):
        packed = np.empty((len(part.names), len(part)))
        peaks, wrong = read(arrays(part), part.names, packed)
        if wrong:
            raise IndexError(f"a label is out of range, expected 0 ≤ label < {inputs.z.shape[1]}")
        found.append(torch.from_numpy(packed))
        besides.append(torch.from_numpy(peaks))
    return _joined(found, 1), _joined(besides, 0) if "peak" in inputs.names else None


def gradient(
    inputs: Inputs, packed: Tensor, besides: Tensor | None, slope: Tensor, with_scale: bool
) -> tuple[Tensor, Tensor | None]:
    """Row by row or tile by tile, in one pass."""
    g = inputs.goal()
    on_scale, row = [], 0
    for part, place in _wide(inputs):
        rows = slice(row, row + len(part))
        row = rows.stop
        here = g if part is inputs else torch.empty_like(part.z)
        on_scale.append(packed.new_empty(len(part) if with_scale else 0))
        spread(
            arrays(part),
            packed[:, rows].contiguous().numpy(),
            _empty(np.int64).vector if besides is None else besides[rows].numpy(),
            slope[:, rows].contiguous().numpy(),
            1.0,
            here,
            on_scale[-1].numpy(),
        )
        if part is not inputs:
            g[place] = here
    return g, _joined(on_scale, 0) if with_scale else None


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _wide(inputs: Inputs) -> Iterator[tuple[Inputs, tuple[slice, ...]]]:
    """The inputs, or half-precision ones in float32, a few rows at a time, and where those rows lie in z."""
    z = inputs.z
    if z.dtype.itemsize >= 4:
        yield inputs, (slice(None),)
        return
    outer, classes, inner = z.shape
    step = max(1, HALF // (classes * (inner if outer > 1 else 1)))
    for start in range(0, outer if outer > 1 else inner, step):
        part = slice(start, start + step)
        place = (part,) if outer > 1 else (slice(None), slice(None), part)
        rows = slice(start * inner, (start + step) * inner) if outer > 1 else part
        yield inputs.of_rows(z[place].float(), rows), place
