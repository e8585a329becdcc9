"""The largest of 2×2 pixels, ReLU and dropout: three layers, and one pass over the image on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from infoloss import kernels
from infoloss.models.dropout import Dropout
from infoloss.visibility import batched, untraced

__all__ = ["PooledReLU"]

_AS_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class PooledReLU(nn.Sequential):
    """The largest of 2×2 pixels, then ReLU, then dropout: (N, C, H, W) to (N, C, H/2, W/2).

    ReLU before pooling would give the same at four times the work; an odd last row or column is left out.

    On one thread of a CPU, float32 and bfloat16 images with their channels last go through one compiled loop
    (extra: cpu) that keeps a byte for each pixel of the result, and their gradients through another: the same
    numbers, bit for bit, as from the three layers one by one, which do the rest.

    Args:
        p: of ``Dropout``; 0 leaves it out.

    Raises:
        ValueError: p outside [0, 1).

    Example:
        >>> PooledReLU()(torch.tensor([[[[-1.0, 2, -3, -4], [5, 3, -1, -2]]]]))
        tensor([[[[5., 0.]]]])
    """

    def __init__(self, p: float = 0.0) -> None:
        layers = [nn.MaxPool2d(2), nn.ReLU(inplace=True), Dropout(p)]
        super().__init__(*(layers if p else layers[:2]))
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not _in_one_pass(x):
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        dropout = self[2] if self.training and self.p else None
        y: Tensor = _OnePass.apply(x, dropout)  # type: ignore[no-untyped-call]
        return y


def _in_one_pass(x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and torch.get_num_threads() == 1
        and kernels.chosen(x, None) == "cpu"
        and x.dtype in _AS_INTEGERS
        and x.ndim == 4
        and min(x.shape[2:]) >= 2
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout | None) -> Tensor:
        from infoloss.models.pooling_loops import pooled

        sides = x.shape[2:]
        y = _image(x, [side // 2 for side in sides])
        chosen = torch.empty_like(y, dtype=torch.int8)
        places = _pixels(chosen)
        levels, threshold, ctx.scale = None, 0, None
        if dropout is not None:
            levels, threshold = dropout.levels(y.numel()).reshape(places.shape), dropout.threshold
            # as a mask has it: a number of the images' type
            ctx.scale = np.float32(torch.tensor(dropout.scale, dtype=x.dtype).item())
        pooled(_bits(x), levels, threshold, ctx.scale, _bits(y), places)
        ctx.sides = sides
        ctx.save_for_backward(chosen)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        from infoloss.models.pooling_loops import spread

        (chosen,) = ctx.saved_tensors
        if torch.is_grad_enabled() or batched(gradient) or not untraced(gradient):
            return _spread_by_layers(gradient, chosen, ctx.scale, ctx.sides), None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        x = _image(gradient, ctx.sides)
        if any(side % 2 for side in ctx.sides):
            x.zero_()
        spread(_bits(gradient), _pixels(chosen), ctx.scale, _bits(x))
        return x, None


def _spread_by_layers(gradient: Tensor, chosen: Tensor, scale: Any, sides: Sequence[int]) -> Tensor:
    """The same in PyTorch's operations, for those who differentiate it again."""
    given = gradient if scale is None else gradient * float(scale)
    n, channels, height, width = chosen.shape
    a, b, c, d = (given * (chosen == place) for place in (1, 2, 3, 4))  # (N, C, H/2, W/2) each
    rows = [torch.stack(pair, -1) for pair in ((a, b), (c, d))]  # (N, C, H/2, W/2, 2)
    image = torch.stack(rows, 3).reshape(n, channels, 2 * height, 2 * width)
    return F.pad(image, (0, sides[1] - 2 * width, 0, sides[0] - 2 * height))


def _image(like: Tensor, sides: Sequence[int]) -> Tensor:
    """(N, C, *sides) with its channels last."""
    return like.new_empty((len(like), *sides, like.shape[1])).movedim(3, 1)


def _pixels(image: Tensor) -> np.ndarray:
    """(N, H, W, C), the memory of an image with its channels last."""
    return image.detach().movedim(1, 3).numpy()


def _bits(image: Tensor) -> np.ndarray:
    return _pixels(image.detach().view(_AS_INTEGERS[image.dtype]))
