"""Pooling, ReLU and dropout in one pass: the same bits as from PyTorch's layers one by one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from infoloss import kernels
from infoloss.models import PooledReLU

# a width that fills no vector, one that fills some and leaves a rest, odd sides, the smallest
SHAPES = [(3, 5, 8, 6), (2, 37, 9, 7), (4, 1, 2, 2), (2, 3, 2, 5)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    pytest.importorskip("numba")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with kernels.use("cpu"):
        yield
    torch.set_num_threads(threads)


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Few different numbers, so that pixels tie."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(2).round().div(2)
    return x.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def seeded(p: float) -> PooledReLU:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return PooledReLU(p)


def in_one_pass(y: Tensor) -> bool:
    return "OnePass" in type(y.grad_fn).__name__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0, 0.5, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_layers(shape, p, dtype):
    ours, layers = seeded(p), nn.Sequential(*seeded(p))
    for _ in range(2):  # the second masks too
        x = images(shape, dtype)
        y, expected = ours(x), layers(x)
        assert in_one_pass(y)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, expected)
        weight = torch.randn_like(expected).contiguous()
        gradients = [torch.autograd.grad(each, x, weight)[0] for each in (y, expected)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.7])
def test_products_round_as_pytorchs_do(p):
    """Every mantissa of bfloat16, so that some products lie halfway between two numbers."""
    x = (1 + torch.arange(128) / 128).bfloat16().repeat(4)[None, :, None, None].expand(1, -1, 4, 4)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y, expected = seeded(p)(x), nn.Sequential(*seeded(p))(x)
    assert torch.equal(y, expected)
    gradients = [torch.autograd.grad(each, x, x[:, :, ::2, ::2].detach())[0] for each in (y, expected)]
    assert torch.equal(*gradients)


def test_the_order_of_pooling_and_relu_is_free():
    x = images((3, 4, 9, 8))
    usual = F.max_pool2d(x.relu(), 2)
    ours = PooledReLU()(x)
    assert torch.equal(ours, usual)
    weight = torch.randn_like(usual)
    gradients = [torch.autograd.grad((weight * y).sum(), x)[0] for y in (ours, usual)]
    assert torch.equal(*gradients)


def test_outside_training_nothing_is_dropped():
    x = images((3, 5, 8, 6))
    assert torch.equal(seeded(0.5).eval()(x), F.max_pool2d(x, 2).relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strange", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_strange_numbers_are_not_hidden(place, strange, dtype):
    x = torch.full((1, 20, 2, 2), -1.0, dtype=dtype)
    x[:, :10, 0, 1] = 2
    x[:, :, *place] = strange
    x[:, 5:15, *place].neg_()  # NaN has a sign too, which no comparison sees
    x = x.contiguous(memory_format=torch.channels_last)
    expected = F.max_pool2d(x, 2).relu()
    assert torch.equal(PooledReLU()(x).nan_to_num(nan=-7.0), expected.nan_to_num(nan=-7.0))


@pytest.mark.parametrize("p", [0, 0.5])
def test_gradients_are_differentiated_again(p):
    ours, layers = seeded(p), nn.Sequential(*seeded(p))
    x, weight = images((2, 3, 5, 4)), torch.randn(2, 3, 2, 2, requires_grad=True)
    found = []
    for module in (ours, layers):
        (first,) = torch.autograd.grad((module(x) ** 2 * weight).sum(), x, create_graph=True)
        found.append([first, *torch.autograd.grad((first**3).sum(), (x, weight))])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))
    assert all(bool(a.any()) for a in found[0])


def test_batches_of_gradients():
    x = images((2, 3, 5, 4))
    y = PooledReLU()(x)
    assert in_one_pass(y)
    weights = torch.randn(4, *y.shape)
    (together,) = torch.autograd.grad(y, x, weights, is_grads_batched=True, retain_graph=True)
    singly = torch.stack([torch.autograd.grad(y, x, weight, retain_graph=True)[0] for weight in weights])
    assert torch.equal(together, singly)


def test_the_layers_do_what_the_pass_cannot():
    module, x = PooledReLU(), images((2, 3, 6, 4))
    expected = F.max_pool2d(x, 2).relu()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    mapped = torch.func.vmap(lambda image: module(image[None])[0])(x)
    for y in (module(x.contiguous()), module(x.double()), compiled(x), mapped):
        assert not in_one_pass(y)
        assert torch.equal(y, expected)
    torch.set_num_threads(2)
    assert not in_one_pass(module(x))
    torch.set_num_threads(1)
    with kernels.use("eager"):
        assert not in_one_pass(module(x))
    assert module(x[:0]).shape == (0, 3, 3, 2)
    with pytest.raises(RuntimeError, match="too small"):
        module(images((2, 3, 1, 4)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_goes_on_with_the_same_masks(copied):
    module, x = seeded(0.5), images((2, 3, 6, 4))
    module(x)
    other = copied(module)
    assert torch.equal(module(x), other(x))


def test_other_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
        PooledReLU(1.0)
