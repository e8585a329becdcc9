"""Affine maps by oneDNN: no worse than PyTorch's own, and differentiable as often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from infoloss.models import Affine, affine


@pytest.fixture(autouse=True)
def whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(affine, "SMALLEST", 0)
    return


def pair(features: int, width: int) -> tuple[Affine, nn.Linear]:
    ours, torchs = Affine(features, width), nn.Linear(features, width)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def by_onednn(y: Tensor) -> bool:
    return "OneDNN" in type(y.grad_fn).__name__


def results(layer: nn.Linear, x: Tensor, weight: Tensor) -> list[Tensor]:
    """The map, and its gradient, and that gradient's."""
    y = layer(x)
    inputs = (x, layer.weight, layer.bias)
    first = torch.autograd.grad((y**2 * weight).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum((each**2).sum() for each in first), inputs)
    return [y, *first, *second]


# one row, one column, primes, a width of vectors
@pytest.mark.parametrize(("n", "features", "width"), [(1, 7, 5), (13, 1, 1), (31, 37, 11), (64, 128, 32)])
def test_errors_are_those_of_float32(n, features, width):
    ours, torchs = pair(features, width)
    x, weight = torch.randn(n, features, requires_grad=True), torch.randn(n, width)
    exact = results(torchs.double(), x.detach().double().requires_grad_(), weight.double())
    found, usual = (results(layer, x, weight) for layer in (ours, torchs.float()))
    assert by_onednn(found[0]) == affine._ONEDNN
    for mine, theirs, true in zip(found, usual, exact, strict=True):
        size = true.abs().max()
        assert (mine - true).abs().max() <= 3 * (theirs - true).abs().max() + 4 * 2**-23 * size


def test_matrices_with_gaps():
    ours, torchs = pair(6, 5)
    x = torch.randn(14, 24)[::2, ::4].requires_grad_()
    found = [torch.autograd.grad(layer(x).sum(), [x, layer.weight]) for layer in (ours, torchs)]
    assert torch.allclose(ours(x), torchs(x), atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_batches_of_gradients():
    ours, torchs = pair(6, 5)
    x, weights = torch.randn(7, 6, requires_grad=True), torch.randn(3, 7, 5)
    found = [
        torch.autograd.grad(layer(x), [x, layer.weight], weights, is_grads_batched=True)
        for layer in (ours, torchs)
    ]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_gradients_that_nobody_wants():
    ours, _ = pair(6, 5)
    ours.weight.requires_grad_(False)
    ours(torch.randn(7, 6)).sum().backward()
    assert ours.weight.grad is None
    assert torch.equal(ours.bias.grad, torch.full((5,), 7.0))
    bare = Affine(6, 5, bias=False)
    bare(torch.randn(7, 6)).sum().backward()
    assert bare.weight.grad.abs().sum() > 0


def test_pytorch_does_the_rest():
    ours, torchs = pair(6, 5)
    x = torch.randn(7, 6)
    images = torch.randn(2, 3, 4, 6)
    assert torch.equal(ours(images), torchs(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), torchs(x))
    mapped = [torch.func.vmap(torch.func.grad(lambda v, m=m: m(v[None]).sum()))(x) for m in (ours, torchs)]
    assert torch.equal(*mapped)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), torchs(x))
    assert torch.equal(ours.double()(x.double()), torchs.double()(x.double()))
