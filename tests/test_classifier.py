"""The classifier around a model: normalisation, memory order, precision, and what comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from infoloss.models import build
from infoloss.training import Classifier, normalisation
from infoloss.training.pixels import IMAGENET, fractions

BYTES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8))


def test_auto_takes_mean_and_spread_of_the_training_images(monkeypatch):
    monkeypatch.setattr("infoloss.training.pixels._ROWS", 7)  # ragged blocks
    found = normalisation("auto", BYTES)
    numbers = BYTES.numpy() / 255
    np.testing.assert_allclose(found["mean"], numbers.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["std"], numbers.std((0, 2, 3)), rtol=1e-6)


def test_a_large_offset_does_not_eat_the_spread():
    images = 1e4 + torch.randn(500, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = normalisation("auto", images)
    assert found["std"][0] == pytest.approx(images.double().std(correction=0).item(), rel=1e-6)


def test_a_channel_without_spread_stays():
    assert normalisation("auto", torch.full((3, 1, 2, 2), 0.5)) == {"mean": [0.5], "std": [1.0]}


def test_tables_and_none_are_left_alone():
    assert normalisation("auto", torch.randn(5, 3)) is None
    assert normalisation("none", BYTES) is None
    assert normalisation("imagenet", BYTES) is IMAGENET


def test_numbers_must_fit_the_channels():
    with pytest.raises(ValueError, match=r"mean has 1 numbers; expected images with as many channels"):
        normalisation({"mean": [0.5], "std": [0.5]}, BYTES)
    with pytest.raises(ValueError, match=r"got rows of shape \(4,\)"):
        normalisation("imagenet", torch.zeros(2, 4))


class Seen(nn.Module):
    """Keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        self.given, self.out = images, self.layer(images)
        return self.out.mean((2, 3))


def test_images_arrive_normalised_with_channels_last():
    seen = Seen()
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    Classifier(seen, classes=2, normalisation=pixels)(BYTES)
    mean, std = (np.array(pixels[key])[:, None, None] for key in ("mean", "std"))
    np.testing.assert_allclose(seen.given.numpy(), (BYTES.numpy() / 255 - mean) / std, atol=1e-6)
    assert seen.given.is_contiguous(memory_format=torch.channels_last)
    assert seen.layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_layers_of_other_shapes_are_left_alone():
    volume = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, (3, 8, 8)), nn.Flatten())
    assert Classifier(volume, classes=2)(BYTES).shape == (40, 2)


def test_bfloat16_is_inside_and_float32_outside():
    seen = Seen()
    exact = Classifier(seen, classes=2)(BYTES)
    rounded = Classifier(seen, classes=2, precision="bfloat16")(BYTES)
    assert seen.out.dtype == torch.bfloat16
    assert seen.layer.weight.dtype == rounded.dtype == torch.float32
    difference = (exact - rounded).abs().max()
    assert 0 < difference < 0.02
    rounded.sum().backward()
    assert seen.layer.weight.grad.dtype == torch.float32


def test_float64_stays():
    model = build("mlp", classes=3, input_shape=(4,), seed=0).double()
    assert Classifier(model, classes=3)(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64


def test_logits_of_another_shape_are_refused():
    """A model of ten classes on data with three would train, and be scored wrongly."""
    with pytest.raises(ValueError, match=r"logits of shape \(2, 10\); expected \(n, classes\) = \(2, 3\)"):
        Classifier(nn.Linear(4, 10), classes=3)(torch.randn(2, 4))


def test_fractions_leave_other_numbers_alone():
    x = torch.randn(3)
    assert fractions(x) is x
