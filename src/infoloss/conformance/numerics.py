"""Laws of numbers: precision, offsets, derivatives, transforms, compilation."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from infoloss.conformance.subject import (
    CLASSES,
    LawError,
    NotSupportedError,
    Subject,
    first_line,
    gradient,
    require,
)

__all__ = [
    "compiled",
    "forward_mode",
    "gradients",
    "half_precision",
    "half_precision_result",
    "inputs",
    "large_logits",
    "offset",
    "second_gradients",
    "vmapped",
]

HALF = (torch.float16, torch.bfloat16)
OFFSET = 1e4


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def half_precision(loss: Subject) -> None:
    """float16 and bfloat16 logits, confident ones too, give float64's value and gradient, rounded."""
    y = loss.labels()
    for dtype in HALF:
        for scale in (1.0, 4.0):  # 4: probabilities that float16 rounds to 0
            z = (scale * loss.logits()).to(dtype)
            exact, slope = loss(z.double(), y), gradient(lambda x: loss(x, y), z.double())
            value = loss(z, y)
            allowed = 4 * torch.finfo(value.dtype).eps * max(1.0, abs(float(exact)))
            if not abs(float(value) - float(exact)) <= allowed:
                raise LawError(f"{_name(dtype)} logits give {value:.6g}; the same in float64 {exact:.6g}")
            found = gradient(lambda x: loss(x, y), z)
            if found.dtype != dtype:
                raise LawError(f"the gradient of {_name(dtype)} logits is {_name(found.dtype)}")
            away = (found.double() - slope).abs().nan_to_num(nan=torch.inf).max()
            if not away <= 4 * torch.finfo(dtype).eps * slope.abs().max():
                raise LawError(f"the gradient of {_name(dtype)} logits is off by {away:.2g}")


def half_precision_result(loss: Subject) -> None:
    """The loss of half-precision logits is float32: 8 bits are too few to compare two losses."""
    for dtype in HALF:
        z, y = loss.logits().to(dtype), loss.labels()
        value = loss(z, y)
        if torch.finfo(value.dtype).bits < 32:
            exact = loss(z.double(), y)
            raise LawError(
                f"the loss of {_name(dtype)} logits is rounded to {_name(value.dtype)}: "
                f"{float(value):.6g} for {float(exact):.6g}"
            )


def offset(loss: Subject) -> None:
    """A loss that a common offset does not change is not changed by 1e4 in float32 either."""
    z, y = loss.logits(), loss.labels()
    value = loss(z, y)
    if not torch.allclose(loss(z + 1, y), value, rtol=1e-9, atol=1e-12):
        raise NotSupportedError("it depends on a common offset of the logits")
    for shift in (OFFSET, -OFFSET):
        moved = (z + shift).float()  # exact: multiples of 1/64
        require(f"float32 logits with a common offset of {shift:g}", loss(moved, y), value)
        slope = gradient(lambda x: loss(x, y), z)
        require(
            f"the gradient with a common offset of {shift:g}", gradient(lambda x: loss(x, y), moved), slope
        )


def large_logits(loss: Subject) -> None:
    """Logits of ±200 have a finite loss and gradient, whether the label is right or wrong."""
    y = torch.tensor([0, 1])
    for size in (20.0, 200.0):
        z = torch.full((2, CLASSES), -size)
        z[:, 0] = size
        for dtype in (torch.float32, torch.float64):
            value, slope = loss(z.to(dtype), y), gradient(lambda x: loss(x, y), z.to(dtype))
            if not value.isfinite():
                raise LawError(f"logits of ±{size:g} in {_name(dtype)} make the loss {value:.6g}")
            if not slope.isfinite().all():
                wrong = slope[~slope.isfinite()][0]
                raise LawError(f"logits of ±{size:g} in {_name(dtype)} make the gradient {wrong:.6g}")


def inputs(loss: Subject) -> None:
    """Forward and backward leave the caller's tensors as they are."""
    z, y, w = loss.logits(), loss.labels(), loss.weight()
    options = {"weight": w} if loss.takes("weight") else {}
    given = {"logits": z, "target": y, **options}
    before = {name: tensor.clone() for name, tensor in given.items()}
    with torch.no_grad():
        loss(z, y, **options)
    _require_unchanged(given, before)
    leaf = z.clone().requires_grad_()
    held = leaf.detach()  # shares memory
    torch.autograd.backward(loss(leaf, y, **options))
    _require_unchanged({**given, "logits": held}, before)


def _require_unchanged(given: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    for name, tensor in given.items():
        if not torch.equal(tensor, before[name]):
            raise LawError(f"it writes into the caller's {name}")


def gradients(loss: Subject) -> None:
    """The gradient is that of finite differences."""
    y = loss.labels(3)
    _differentiable(lambda: torch.autograd.gradcheck(lambda z: loss(z, y), _leaf(loss)), "the gradient")


def second_gradients(loss: Subject) -> None:
    """The gradient of the gradient is that of finite differences."""
    y = loss.labels(3)
    _differentiable(
        lambda: torch.autograd.gradgradcheck(lambda z: loss(z, y), _leaf(loss)),
        "the gradient of the gradient",
    )


def _leaf(loss: Subject) -> Tensor:
    return loss.logits(3).requires_grad_()


def _differentiable(checked: Callable[[], bool], what: str) -> None:
    try:
        checked()
    except GradcheckError as error:
        raise LawError(f"{what} is not that of finite differences") from error


def forward_mode(loss: Subject) -> None:
    """The directional derivative of ``torch.func.jvp`` is that of the gradient."""
    z, y = loss.logits(), loss.labels()
    direction = z.flip(0)
    expected = (gradient(lambda x: loss(x, y), z) * direction).sum()
    found = torch.func.jvp(lambda x: loss(x, y), (z,), (direction,))[1]
    require("the directional derivative of torch.func.jvp", found, expected, {"it is silently 0": 0.0})


def vmapped(loss: Subject) -> None:
    """``torch.func.vmap`` over batches gives the loss and the gradient of each batch."""
    z, y = loss.logits(12).reshape(2, 6, CLASSES), loss.labels(12).reshape(2, 6)
    expected = torch.stack([loss(z[i], y[i]).detach() for i in range(2)])
    require("torch.func.vmap", torch.func.vmap(lambda a, b: loss(a, b))(z, y), expected)
    slopes = torch.stack([gradient(partial(loss, target=y[i]), z[i]) for i in range(2)])
    found = torch.func.vmap(torch.func.grad(lambda a, b: loss(a, b)))(z, y)
    require("torch.func.vmap of the gradient", found, slopes)


def compiled(loss: Subject) -> None:
    """``torch.compile(fullgraph=True)`` (backend aot_eager) gives the same value and gradient."""
    # a module is built once, and then compiled
    function: Callable[[Tensor, Tensor], Tensor] = loss.loss() if loss.is_class else loss.loss

    def whole(z: Tensor, y: Tensor) -> Tensor:
        return function(z, y)

    # code of its own for each loss: the compiler's limit of recompilations is per code object
    own = types.FunctionType(whole.__code__.replace(), globals(), "whole", None, whole.__closure__)
    z, y = loss.logits(), loss.labels()
    compiled_loss = torch.compile(own, fullgraph=True, backend="aot_eager")
    try:
        value, slope = compiled_loss(z, y), gradient(lambda x: compiled_loss(x, y), z)
    except Exception as error:  # the loss and the compiler may raise anything
        raise LawError(f"torch.compile(fullgraph=True) raises {first_line(error)}") from error
    require("the compiled loss", value, loss(z, y))
    require("the compiled loss's gradient", slope, gradient(lambda x: loss(x, y), z))
