"""A linear head and a function of its logits, block of rows by block of rows.

The logits z = h Wᵀ + b of a block are made, read and turned into their own gradient before the next
block begins, so memory is bounded by a block, and :func:`total` costs three matrix products, as the
unfused form does: value and gradient are computed in one go where the gradient of the value is known
up to a factor. :func:`each` gives values whose gradients are unknown until the backward pass, which
makes the logits a second time.

For half and bfloat16 heads, logits, their gradient and all sums are float32; matrix products multiply in
float32 on the CPU, and in the half type with float32 sums on a GPU.

Where the classes are spread over ranks (:mod:`infoloss.kernels.sharded`), the function reads the logits of
this rank's classes and merges what it finds with the other ranks. For that, every rank cuts the same blocks;
the gradient of the hidden states is added up over the ranks, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infoloss.kernels.class_shard import ClassShard
from infoloss.visibility import batched, transforms_active

__all__ = ["Head", "blocks", "each", "narrowed", "refuse_more", "refuse_transforms", "total"]

BLOCK = 1 << 26
"""Logits in a block, one matrix product at a time (set by benchmarks/linear.py)."""
PART = 1 << 22
"""Logits that a function reads at once on the CPU: what it writes stays in the cache (likewise)."""
TILE = 1 << 24
"""Numbers of a half-precision weight that are converted at once."""

Value = Callable[[Tensor, slice], Tensor]
"""From logits (n, C) and the rows that they belong to, to numbers: (K,) to be added up over the rows, the
first of them differentiable, for :func:`total`; (K, n) for :func:`each`."""


@dataclass(frozen=True, eq=False)
class Head:
    """Logits hidden[rows] @ weightᵀ + bias that have not been computed."""

    hidden: Tensor  # (R, D)
    weight: Tensor  # (C, D)
    bias: Tensor | None  # (C,)
    rows: Tensor | None  # (N,) which rows of hidden count; None: every row
    shard: ClassShard | None = None  # which classes the C are; None: all

    def __len__(self) -> int:
        return len(self.hidden) if self.rows is None else len(self.rows)

    @property
    def dtype(self) -> torch.dtype:
        """Of the logits, of their gradient, and of sums: float32 at least."""
        return torch.float64 if self.hidden.dtype == torch.float64 else torch.float32

    @property
    def width(self) -> int:
        """Logits of a row, by which blocks are cut: on every rank those of the largest shard."""
        return len(self.weight) if self.shard is None else self.shard.largest

    def blocks(self) -> Iterator[slice]:
        """The rows whose logits are made at once."""
        return blocks(len(self), self.width, BLOCK)

    def parts(self, block: slice) -> Iterator[tuple[slice, slice]]:
        """The rows of a block that are read together: among all rows, and in the block."""
        elements = PART if self.hidden.device.type == "cpu" else BLOCK
        for part in blocks(block.stop - block.start, self.width, elements):
            yield slice(block.start + part.start, block.start + part.stop), part

    def states(self, block: slice) -> Tensor:
        """The hidden states of a block of rows, (n, D)."""
        return self.hidden[block] if self.rows is None else self.hidden[self.rows[block]]

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        """The weight in the logits' dtype, a few classes at a time."""
        size = max(1, TILE // self.weight.shape[1])
        for start in range(0, len(self.weight), size):
            tile = slice(start, start + size)
            yield tile, self.weight[tile].to(self.dtype)

    @property
    def half_products(self) -> bool:
        """Whether the device multiplies half types with sums in float32."""
        return self.hidden.dtype.itemsize < 4 and self.hidden.is_cuda and len(self.weight) > 0

    def logits(self, h: Tensor, out: Tensor) -> Tensor:
        """h Wᵀ + b, in ``out``."""
        if h.dtype == out.dtype:
            torch.mm(h, self.weight.T, out=out)
        elif self.half_products:
            torch.mm(h, self.weight.T, out_dtype=out.dtype, out=out)
        else:
            wide = h.to(out.dtype)
            for tile, w in self.tiles():
                torch.mm(wide, w.T, out=out[:, tile])
        return out if self.bias is None else out.add_(self.bias)

    def hidden_gradient(self, g: Tensor) -> Tensor:
        """g W for the gradient g (n, C) of a block's logits, (n, D)."""
        if self.weight.dtype == g.dtype:
            return g @ self.weight
        if self.half_products:
            half, factor = narrowed(g, self.weight.dtype)
            return torch.mm(half, self.weight, out_dtype=g.dtype) / factor
        result = g.new_zeros(len(g), self.weight.shape[1])
        for tile, w in self.tiles():
            result.addmm_(g[:, tile], w)
        return result

    def add_weight_gradient(self, gradient: Tensor, g: Tensor, h: Tensor) -> None:
        """gradient += gᵀ h."""
        if self.half_products:  # no product adds to float32: in tiles, so that no second (C, D) is needed
            half, factor = narrowed(g, h.dtype)
            size = max(1, TILE // h.shape[1])
            for columns, rows in zip(torch.split(half, size, 1), torch.split(gradient, size), strict=True):
                rows.add_(torch.mm(columns.T, h, out_dtype=gradient.dtype) / factor)
        else:
            gradient.addmm_(g.T, h.to(g.dtype))


def narrowed(g: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | float]:
    """g times a power of two, in a half type, and that power, which keeps float16 from underflow."""
    if dtype == torch.bfloat16:
        return g.to(dtype), 1.0
    largest = g.abs().amax(-1).nan_to_num(0.0, 0.0).amax()  # a broken row is not to break the others
    factor = torch.exp2(torch.floor(-torch.log2(largest.clamp(min=1e-30))))
    return (g * factor).to(dtype), factor


def blocks(rows: int, classes: int, elements: int) -> Iterator[slice]:
    """Slices of about equal size with at most so many logits, at least one row, and at least one slice."""
    most = max(1, elements // classes)
    size = max(1, -(-rows // max(1, -(-rows // most))))
    for start in range(0, max(rows, 1), size):
        yield slice(start, min(start + size, rows))


def total(
    head: Head,
    value: Value,
    outside: Sequence[Tensor] = (),
    inside: Sequence[Tensor] = (),
    constant: Sequence[Tensor] = (),
) -> Tensor:
    """Σ value(logits of a part of the rows, those rows) over all parts, (K,), only the first differentiable.

    Args:
        head: the logits.
        value: differentiable in the logits and in the tensors ``inside``.
        outside: more tensors to be differentiated.
        inside: stand-ins of ``outside`` that ``value`` uses, leaves that require a gradient.
        constant: the other tensors that ``value`` reads, in the backward pass too.

    Raises:
        RuntimeError: with ``create_graph=True``.
    """
    differentiable = torch.is_grad_enabled()
    return Total.apply(  # type: ignore[no-any-return, no-untyped-call]
        value,
        tuple(inside),
        tuple(constant),
        differentiable,
        head.shard,
        head.rows,
        head.hidden,
        head.weight,
        head.bias,
        *outside,
    )


def each(
    head: Head,
    value: Value,
    outside: Sequence[Tensor] = (),
    inside: Sequence[Tensor] = (),
    constant: Sequence[Tensor] = (),
) -> Tensor:
    """value(logits of a part of the rows, those rows) side by side, (K, N), differentiable.

    Arguments and errors as for :func:`total`.
    """
    return Each.apply(  # type: ignore[no-any-return, no-untyped-call]
        value,
        tuple(inside),
        tuple(constant),
        head.shard,
        head.rows,
        head.hidden,
        head.weight,
        head.bias,
        *outside,
    )


UNFUSED = "compute the logits for that: loss(torch.nn.functional.linear(hidden, weight, bias), target)"


def refuse_transforms() -> None:
    """Raise a RuntimeError under ``torch.func`` and forward-mode AD."""
    if transforms_active():
        raise RuntimeError(f"a linear head in blocks knows no torch.func transform; {UNFUSED}")
    if torch.autograd.forward_ad._current_level >= 0:
        raise RuntimeError(f"a linear head in blocks has no forward-mode derivative; {UNFUSED}")


def refuse_more(grad: Tensor) -> None:
    """Raise a RuntimeError in a backward pass that is to be differentiated, or maps over ``grad``."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"a linear head in blocks has first derivatives only (create_graph=True); {UNFUSED}"
        )
    if batched(grad):
        raise RuntimeError(
            f"a linear head in blocks has one gradient at a time (is_grads_batched=True); {UNFUSED}"
        )


class Total(torch.autograd.Function):
    """:func:`total`: gradients are computed beside the value, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Value,
        inside: tuple[Tensor, ...],
        constant: tuple[Tensor, ...],
        differentiable: bool,
        shard: ClassShard | None,
        rows: Tensor | None,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *outside: Tensor,
    ) -> Tensor:
        head = Head(hidden, weight, bias, rows, shard)
        ctx.save_for_backward(hidden, weight, bias, rows, *outside, *constant)
        ctx.value, ctx.inside, ctx.shard, ctx.gradients = value, inside, shard, None
        wanted = ctx.needs_input_grad[6:]
        with torch.autocast(hidden.device.type, enabled=False):
            if differentiable and any(wanted):
                found, ctx.gradients = _values_and_gradients(head, value, inside, wanted, _first)
            else:
                found = _values(head, value)
        return torch.stack(found).sum(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        refuse_more(grad)
        hidden, weight, bias, rows, *_ = ctx.saved_tensors  # raises where one has been changed in place
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # again, through a retained graph: the first time gave them away
            with torch.autocast(hidden.device.type, enabled=False):
                wanted = ctx.needs_input_grad[6:]
                head = Head(hidden, weight, bias, rows, ctx.shard)
                _, gradients = _values_and_gradients(head, ctx.value, ctx.inside, wanted, _first)
        factor = grad[0]
        if factor.device.type != "cpu" or factor != 1:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(factor)
        return (None,) * 6 + tuple(_as_inputs(gradients, (hidden, weight, bias)))


class Each(torch.autograd.Function):
    """:func:`each`: the backward pass makes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Value,
        inside: tuple[Tensor, ...],
        constant: tuple[Tensor, ...],
        shard: ClassShard | None,
        rows: Tensor | None,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *outside: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, rows, *outside, *constant)
        ctx.value, ctx.inside, ctx.shard = value, inside, shard
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.cat(_values(Head(hidden, weight, bias, rows, shard), value), -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        refuse_more(grad)
        hidden, weight, bias, rows, *_ = ctx.saved_tensors  # raises where one has been changed in place
        with torch.autocast(hidden.device.type, enabled=False):
            _, gradients = _values_and_gradients(
                Head(hidden, weight, bias, rows, ctx.shard),
                ctx.value,
                ctx.inside,
                ctx.needs_input_grad[5:],
                lambda _, part: grad[:, part],
            )
        return (None,) * 5 + tuple(_as_inputs(gradients, (hidden, weight, bias)))


def _first(value: Tensor, _: slice) -> Tensor:
    """The first of the numbers is the one to differentiate."""
    seed = torch.zeros_like(value)
    seed[0] = 1
    return seed


def _as_inputs(gradients: list[Tensor | None], inputs: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The gradients of hidden, weight and bias in their own dtypes, and the others."""
    for i, tensor in enumerate(inputs):
        gradient = gradients[i]
        if gradient is not None and tensor is not None:
            gradients[i] = gradient.to(tensor.dtype)
    return gradients


def _buffer(head: Head) -> Tensor:
    rows = next(head.blocks())
    return head.hidden.new_empty((rows.stop, len(head.weight)), dtype=head.dtype)


def _values(head: Head, value: Value) -> list[Tensor]:
    """The value of each part of the rows."""
    buffer, found = _buffer(head), []
    for block in head.blocks():
        h = head.states(block)
        z = head.logits(h, buffer[: len(h)])
        found += [value(z[inner], part) for part, inner in head.parts(block)]
    return found


def _values_and_gradients(
    head: Head,
    value: Value,
    inside: tuple[Tensor, ...],
    wanted: tuple[bool, ...],
    seed: Callable[[Tensor, slice], Tensor],
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The value of each part of the rows, and the gradients of hidden, weight, bias and ``inside``.

    ``seed`` gives, for the value of a part, what its gradient is weighted with; the gradients are of
    the logits' dtype.
    """
    buffer, found = _buffer(head), []
    of_hidden, of_weight, of_bias = _empty_gradients(head, wanted)
    others: list[Tensor | None] = [torch.zeros_like(t) for t in inside]
    for block in head.blocks():
        h = head.states(block)
        z = head.logits(h, buffer[: len(h)])
        for part, inner in head.parts(block):
            x = z[inner].detach().requires_grad_()
            with torch.enable_grad():
                v = value(x, part)
                found.append(v.detach())
                more = _gradients(v, (x, *inside), seed(found[-1], part))
            z[inner].copy_(more[0])  # the logits of this part have served
            for total, one in zip(others, more[1:], strict=True):
                total.add_(one)  # type: ignore[union-attr]
        if of_hidden is not None:
            of_block = head.hidden_gradient(z)
            if head.rows is None:
                of_hidden[block] = of_block
            else:
                of_hidden.index_copy_(0, head.rows[block], of_block)
        if of_weight is not None:
            head.add_weight_gradient(of_weight, z, h)
        if of_bias is not None:
            of_bias.add_(z.sum(0))
    if of_hidden is not None and head.shard is not None:
        of_hidden = head.shard.sum(of_hidden)
    return found, [of_hidden, of_weight, of_bias, *others]


def _empty_gradients(head: Head, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Zeros for the gradients of hidden, weight and bias where they are wanted."""
    tensors = (head.hidden, head.weight, head.bias)
    return tuple(
        torch.zeros_like(tensor, dtype=head.dtype, memory_format=torch.contiguous_format)
        if tensor is not None and wish
        else None
        for tensor, wish in zip(tensors, wanted[:3], strict=True)
    )


def _gradients(value: Tensor, inputs: tuple[Tensor, ...], seed: Tensor) -> tuple[Tensor, ...]:
    if not value.requires_grad:  # a value that reads no logit, such as the number of classes
        return tuple(torch.zeros_like(t) for t in inputs)
    return torch.autograd.grad(value, inputs, seed, materialize_grads=True, allow_unused=True)
