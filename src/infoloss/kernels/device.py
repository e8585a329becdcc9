"""Calls of the GPU kernel, :mod:`infoloss.kernels.gpu`: a :class:`~infoloss.kernels.inputs.Kernel`.

With ``TRITON_INTERPRET=1`` in the environment before Triton is imported, it runs on the CPU, slowly:
for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from infoloss.kernels import gpu
from infoloss.kernels.inputs import ORDER, Inputs
from infoloss.kernels.program import Program

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Plan", "Sums", "Values", "gradient", "moments", "values"]

COLUMNS = 2048
"""Columns of a tile at most."""
MOMENTS, GRADIENT = 1024, 2048
"""Elements of a tile, as many rows as give so many; chosen on an H200."""
WARPS = 4
PROGRAMS = 4
"""Programs for each multiprocessor below which the columns of a row are shared out."""
PROGRAM_ROWS = 128
"""Rows whose values one program computes, a thread each."""
PARTS = 64
"""Parts of a row at most."""


@dataclass(frozen=True)
class Plan:
    """How the work on N rows of C columns is cut: a function of sizes and device alone."""

    rows: int  # of a program
    block: int  # columns of a tile
    span: int  # columns of a program
    grid: tuple[int, int]  # programs over rows, over columns

    @property
    def parts(self) -> int:
        """Into how many a row is cut."""
        return self.grid[1]


def plan(rows: int, classes: int, multiprocessors: int, elements: int) -> Plan:
    """Rows by rows, or where that would leave multiprocessors idle, parts of rows."""
    block = min(COLUMNS, elements, _power_of_2(classes))
    each = max(1, min(elements // block, _power_of_2(rows)))
    programs = -(-rows // each)
    tiles = -(-classes // block)
    wanted = min(tiles, PARTS, -(-PROGRAMS * multiprocessors // programs))
    span = -(-tiles // wanted) * block
    return Plan(each, block, span, (programs, -(-classes // span)))


def _power_of_2(number: int) -> int:
    """The smallest that is not less."""
    return 1 << (number - 1).bit_length()


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def moments(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """One pass; where a view needs each row's maximum first, and the row is cut, one pass more."""
    cut = _plan(inputs, MOMENTS)
    if cut.parts > 1:
        sums = Sums(inputs, _centres(inputs) if inputs.viewed else None)
        sums.add(inputs)
        return sums.merged(inputs)
    packed, peaks = _results(inputs)
    with _on(inputs.z.device):
        gpu.moments[cut.grid](
            **_given(inputs),
            **_columns(inputs),
            **_sizes(cut),
            centres=None,
            out=packed,
            peaks=peaks,
            picked=None,
            PARTIAL=False,
        )
    return packed, peaks


class Sums:
    """The sums of rows whose columns are read one piece after the other, or in parts side by side.

    Args:
        inputs: as for the first piece; the others have no more columns.
        centres: a number near the maximum of each row, where a view centres; None: 0.
    """

    def __init__(self, inputs: Inputs, centres: Tensor | None = None) -> None:
        z, n = inputs.z, len(inputs)
        self.cut = cut = _plan(inputs, MOMENTS)
        self.found = z.new_zeros((gpu.PARTS, cut.parts, n), dtype=torch.float64)
        self.found[0] = -torch.inf  # the maxima
        self.picked = None if inputs.label is None else z.new_zeros(n)
        self.centres = centres
        if centres is None and inputs.viewed:
            self.centres = z.new_zeros(n)

    def add(self, inputs: Inputs) -> None:
        """Read the columns that the inputs have."""
        with _on(inputs.z.device):
            gpu.moments[self.cut.grid](
                **_given(inputs),
                **_columns(inputs),
                **_sizes(self.cut),
                centres=self.centres,
                out=self.found,
                peaks=None,
                picked=self.picked,
                PARTIAL=True,
            )

    def merged(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """The moments of whole rows; of the inputs, the shift is that of all classes."""
        given = _given(inputs)
        for name in ("z", "soft"):  # all that is asked of them is among the sums
            del given[name]
        packed, peaks = _results(inputs)
        with _on(packed.device):
            gpu.merge[(len(inputs),)](
                **given,
                classes=inputs.classes,
                found=self.found,
                picked=self.picked,
                centres=self.centres,
                out=packed,
                peaks=peaks,
                parts=self.cut.parts,
                R=1,
                P=_power_of_2(self.cut.parts),
                num_warps=1,
            )
        return packed, peaks


def gradient(
    inputs: Inputs,
    packed: Tensor,
    besides: Tensor | None,
    slope: Tensor,
    with_scale: bool,
    goal: Tensor | None = None,
    factor: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One pass.

    Args:
        goal: where to write the gradient; None: :meth:`Inputs.goal`.
        factor: a number, float64 (), that all derivatives in the moments are to be multiplied with.
    """
    z, n = inputs.z, len(inputs)
    cut = _plan(inputs, GRADIENT)
    g = inputs.goal() if goal is None else goal
    on_scale = packed.new_empty((cut.parts, n)) if with_scale else None
    outer, by_class, inner = g.stride()
    with _on(z.device):
        gpu.gradient[cut.grid](
            **_given(inputs),
            **_columns(inputs),
            packed=packed,
            peaks=besides,
            slope=slope.contiguous(),
            factor=factor,
            g=g,
            scale_slope=on_scale,
            outer_stride_g=outer,
            class_stride_g=by_class,
            inner_stride_g=inner,
            **_sizes(cut),
        )
    return g, None if on_scale is None else on_scale.sum(0)


class Values(NamedTuple):
    """What :func:`values` finds."""

    rows: Tensor | None  # (N,) the value of each row, where asked for
    total: Tensor  # () their sum
    number: Tensor  # () how many rows count
    wrong: Tensor  # () how many of their labels are out of range
    slopes: Tensor  # (K, N) the derivatives in the moments


def values(
    program: Program,
    parameters: Sequence[float],
    spared: NDArray[np.bool_],
    label_row: int,
    inputs: Inputs,
    packed: Tensor,
    *,
    by_row: bool,
) -> Values:
    """The values of rows from their moments, float64, as :func:`infoloss.kernels.host.values`."""
    n, z = packed.shape[1], inputs.z
    instructions, number, without = _on_device(program, spared.tobytes(), z.device)
    steps = len(number)
    given = [packed.new_full((1,), value) for value in parameters]
    memory = packed.new_empty((2, steps, n))
    programs = -(-n // PROGRAM_ROWS)
    sums = packed.new_zeros((max(1, programs), 3))
    rows = packed.new_empty(n) if by_row else None
    slopes = torch.zeros_like(packed)
    if n:
        with _on(z.device):
            gpu.values[(programs,)](
                instructions=instructions,
                number=number,
                parameters=torch.cat(given) if given else None,
                spared=without,
                packed=packed,
                label=None if inputs.label is None else inputs.label.contiguous(),
                kept=inputs.kept,
                x=memory[0],
                g=memory[1],
                slopes=slopes,
                value=rows,
                sums=sums,
                rows=n,
                steps=steps,
                classes=inputs.classes,
                label_row=label_row,
                BLOCK=PROGRAM_ROWS,
            )
    total, number_of_rows, wrong = sums.sum(0).unbind(0)
    return Values(rows, total, number_of_rows, wrong, slopes)


@lru_cache(maxsize=256)
def _on_device(program: Program, spared: bytes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A program and which moments it spares, where the kernel reads them."""
    without = np.frombuffer(spared, np.bool_).astype(np.int64)
    arrays = (program.instructions, program.number, without)
    return tuple(torch.from_numpy(array).to(device) for array in arrays)  # type: ignore[return-value]


def _plan(inputs: Inputs, elements: int) -> Plan:
    return plan(len(inputs), inputs.z.shape[1], _multiprocessors(inputs.z.device), elements)


def _given(inputs: Inputs) -> dict[str, Any]:
    """The arguments that the kernels share."""
    z = inputs.z
    floor = None
    if "label_log_exp" in inputs.names:
        floor = torch.full((), inputs.floor, dtype=torch.float64, device=z.device)
    return {
        "z": z.detach(),
        "label": None if inputs.label is None else inputs.label.contiguous(),
        "soft": None if inputs.soft is None else inputs.soft.detach().contiguous(),
        "kept": None if inputs.kept is None else inputs.kept.contiguous(),
        "shift": inputs.shift,
        "scale": None if inputs.scale is None else inputs.scale.detach().contiguous(),
        "floor": floor,
        "rows": len(inputs),
        "WHERE": tuple(inputs.names.index(name) if name in inputs.names else -1 for name in ORDER),
        "CAP": float(inputs.cap),
        "REAL": tl.float64 if z.dtype == torch.float64 else tl.float32,
    }


def _columns(inputs: Inputs) -> dict[str, int]:
    """Which classes the columns are, and where they lie."""
    outer, by_class, inner = inputs.z.stride()
    return {
        "classes": inputs.z.shape[1],
        "first": inputs.first,
        "total": inputs.classes,
        "inner": inputs.z.shape[2],
        "outer_stride": outer,
        "class_stride": by_class,
        "inner_stride": inner,
    }


def _results(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Where moments are to be written, and columns of maxima."""
    z, n = inputs.z, len(inputs)
    packed = z.new_empty((len(inputs.names), n), dtype=torch.float64)
    return packed, z.new_empty(n, dtype=torch.int32) if "peak" in inputs.names else None


def _sizes(cut: Plan) -> dict[str, int]:
    return {"span": cut.span, "R": cut.rows, "BLOCK": cut.block, "num_warps": WARPS}


def _centres(inputs: Inputs) -> Tensor:
    """The largest element of each row that counts, (N,)."""
    top = inputs.z.detach().amax(1).reshape(-1)
    if inputs.cap:  # rounded as the tiles are, or not: any centre near the maximum serves
        top = inputs.cap * torch.tanh(top / inputs.cap)
    if inputs.kept is not None:
        top = torch.where(inputs.kept, top, 0)
    return top.masked_fill(top == -torch.inf, 0)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Where Triton launches: on PyTorch's current device, which may be another GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
