"""Dropout: its distribution, its gradient, and the masks that a seed fixes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from scipy.stats import binom, chisquare

from infoloss.models import Dropout


def seeded(p: float, seed: int = 0) -> Dropout:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dropout(p)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_the_share_that_is_dropped_is_binomial(p):
    n = 1_000_003  # not a multiple of the four numbers that a word gives
    y = seeded(p)(torch.ones(n))
    zeros = int((y == 0).sum())
    low, high = binom.ppf([1e-6, 1 - 1e-6], n, p)
    assert low <= zeros <= high
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=2**-16 / (1 - p))


def test_neighbours_are_independent():
    """The 16 patterns of four neighbours, which share a word of the generator, are equally frequent."""
    kept = (seeded(0.5)(torch.ones(400_000)) > 0).view(-1, 4).long()
    patterns = torch.bincount(kept @ torch.tensor([1, 2, 4, 8]), minlength=16)
    assert chisquare(patterns.numpy()).pvalue > 1e-6


def test_the_mean_is_kept():
    y = seeded(0.37)(torch.full((1_000_000,), 2.0))
    spread = 2 * (0.37 / 0.63) ** 0.5 / 1000
    assert y.mean().item() == pytest.approx(2, abs=5 * spread)


def test_the_gradient_is_the_mask():
    layer = seeded(0.4)
    x = torch.randn(50, 7, dtype=torch.float64).requires_grad_()
    y = layer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(gradient * x, y)
    assert set(gradient.unique().tolist()) == {0.0, gradient.max().item()}


def test_the_gradient_is_that_of_differences():
    layer = seeded(0.4)
    again = lambda x: copy.deepcopy(layer)(x)  # noqa: E731 - the same mask at every call
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(again, x)
    assert torch.autograd.gradgradcheck(again, x)


def test_a_seed_fixes_the_masks_whatever_else_is_drawn():
    x = torch.ones(1000)
    first, second = seeded(0.5), seeded(0.5)
    masks = [first(x), first(x)]
    assert not torch.equal(*masks)
    for mask in masks:
        torch.rand(5)
        assert torch.equal(second(x), mask)
    assert not torch.equal(seeded(0.5, seed=1)(x), masks[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_goes_on_with_the_same_masks(copied):
    layer = seeded(0.5)
    layer(torch.ones(10))
    other = copied(layer)
    assert torch.equal(layer(torch.ones(100)), other(torch.ones(100)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_and_memory_order_stay(dtype):
    x = torch.ones(2, 3, 5, 7, dtype=dtype).to(memory_format=torch.channels_last)
    y = seeded(0.5)(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert set(y.unique().tolist()) == {0.0, 2.0}


def test_slices_and_empty_batches():
    x = torch.ones(10, 12)[:, ::2]
    assert seeded(0.5)(x).shape == (10, 6)
    assert seeded(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_outside_training_nothing_is_dropped():
    x = torch.randn(5, 3)
    assert torch.equal(seeded(0.5).eval()(x), x)
    assert torch.equal(seeded(0.0)(x), x)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_other_probabilities_are_refused(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
        Dropout(p)
