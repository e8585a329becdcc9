"""Fresh memory for gradients: as PyTorch's own, whoever gives it."""

import pytest
import torch

from infoloss.kernels.memory import LARGE, LINE, unwritten


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["dense", "classes last", "every other class", "small"])
def test_memory_is_like_the_tensor(dtype: torch.dtype, layout: str) -> None:
    z = torch.zeros(4, LARGE // 8, 2, dtype=dtype)
    z = {"classes last": z.movedim(1, 2), "every other class": z[:, ::2], "small": z[:, :3]}.get(layout, z)
    found, expected = unwritten(z), torch.empty_like(z)
    assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
    assert found.data_ptr() % LINE == 0
    found.fill_(1)  # all of it can be written
    assert float(found.float().mean()) == 1


def test_a_gradient_there_is_kept_without_a_copy() -> None:
    z = torch.zeros(LARGE // 4, requires_grad=True)
    places = []

    class Fill(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: torch.Tensor) -> torch.Tensor:
            return z.sum()

        @staticmethod
        def backward(ctx: object, slope: torch.Tensor) -> torch.Tensor:
            g = unwritten(z.detach()).fill_(1)
            places.append(g.data_ptr())
            return g

    Fill.apply(z).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert [z.grad.data_ptr()] == places
