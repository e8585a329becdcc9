"""Augmentation: each against a slow form written from its definition, its distribution, and its pairing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.stats import chisquare
from torch.nn.functional import cross_entropy

from infoloss.training.augmentation import (
    AUGMENTATIONS,
    augmentation,
    augmented,
    crop,
    cutout,
    flip,
    perspective,
    random_numbers,
    reflect_crop,
    rotation,
)


def images(n=3, channels=2, height=9, width=7, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).uniform(0.1, 1, (n, channels, height, width)).astype(np.float32)
    )


class Fixed:
    """Stands in for the generator: gives what it was told, in order."""

    def __init__(self, *values):
        self.values = list(values)

    def _next(self, *_):
        return np.asarray(self.values.pop(0))

    integers = random = uniform = _next


@pytest.mark.parametrize(("transform", "mode"), [(crop, "constant"), (reflect_crop, "reflect")])
def test_a_crop_is_a_window_of_the_padded_image(transform, mode):
    x = images()
    top, left = np.array([0, 3, 6]), np.array([5, 0, 6])
    found = transform(x, 3, Fixed(top, left))
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode=mode)
    for i in range(3):
        window = padded[i, :, top[i] : top[i] + 9, left[i] : left[i] + 7]
        np.testing.assert_array_equal(found[i].numpy(), window)


def test_every_window_is_as_likely_as_another():
    point = torch.zeros(20_000, 1, 5, 5)
    point[:, 0, 2, 2] = 1
    found = crop(point, 2, random_numbers(0, 0)).flatten(1)
    assert (found.sum(1) == 1).all()
    assert chisquare(torch.bincount(found.argmax(1), minlength=25).numpy()).pvalue > 1e-6


def test_a_flip_exchanges_left_and_right_with_its_probability():
    x = images()
    found = flip(x, 0.3, Fixed([0.29, 0.31, 0.0])).numpy()
    np.testing.assert_array_equal(found[[0, 2]], x.numpy()[[0, 2], :, :, ::-1])
    np.testing.assert_array_equal(found[1], x.numpy()[1])
    many = flip(torch.arange(2.0).expand(10_000, 1, 1, 2), 0.3, random_numbers(1, 2))
    assert many[:, 0, 0, 0].mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_quarter_turn_is_exact():
    square = images(n=2, height=6, width=6)
    found = rotation(square, 180, Fixed([90.0, -90.0])).numpy()
    np.testing.assert_allclose(found[0], np.rot90(square[0].numpy(), 1, (1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[1], np.rot90(square[1].numpy(), -1, (1, 2)), atol=1e-5)


def interpolated(image, x, y):
    """Bilinear between pixel centres, black outside: image (H, W), places x and y with centres at i + ½."""
    return map_coordinates(image, [y - 0.5, x - 0.5], order=1, mode="grid-constant", cval=0)


def test_other_turns_are_bilinear_about_the_centre():
    x = images(n=1)
    found = rotation(x, 40, Fixed([23.0])).numpy()[0]
    cos, sin = np.cos(np.radians(23)), np.sin(np.radians(23))
    for row in range(9):
        for column in range(7):
            u, v = column + 0.5 - 3.5, row + 0.5 - 4.5
            place = 3.5 + cos * u - sin * v, 4.5 + sin * u + cos * v
            u, v = (np.array([coordinate]) for coordinate in place)
            expected = [interpolated(channel, u, v)[0] for channel in x[0].numpy()]
            np.testing.assert_allclose(found[:, row, column], expected, atol=1e-5)


def coefficients(start, end):
    """The eight numbers of the map from end to start, by least squares on its eight equations."""
    rows, values = [], []
    for (x, y), (u, v) in zip(end, start, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.lstsq(np.array(rows, float), np.array(values, float), rcond=None)[0]


def test_perspective_moves_the_corners_as_random_perspective_does():
    height, width = 9, 12
    x = images(n=2, height=height, width=width)
    inwards = np.array([[1, 2], [3, 0], [2, 1], [0, 2]])  # (corner, axis): right and down for the first, …
    found = perspective(x, 0.5, Fixed([0.9, 0.1], inwards[None])).numpy()
    np.testing.assert_array_equal(found[0], x[0].numpy())
    start = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)]
    end = [(1, 2), (width - 4, 0), (width - 3, height - 2), (0, height - 3)]
    a, b, c, d, e, f, g, h = coefficients(start, end)
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    w = g * column + h * row + 1
    for channel in range(2):
        expected = interpolated(
            x[1, channel].numpy(), (a * column + b * row + c) / w, (d * column + e * row + f) / w
        )
        np.testing.assert_allclose(found[1, channel], expected, atol=1e-4)


def test_perspective_leaves_half_of_the_images_and_moves_corners_by_whole_pixels_up_to_the_distortion():
    drawn = []

    class Recording:
        def random(self, n):
            return np.tile([0.2, 0.7], n // 2)

        def integers(self, low, high, size):
            drawn.append((low, high.tolist(), size))
            return np.zeros(size, int)

    perspective(images(n=4, height=9, width=28), 0.5, Recording())
    assert drawn == [(0, [7 + 1, 2 + 1], (2, 4, 2))]  # int(.5·(28 // 2)), int(.5·(9 // 2))


def test_cutout_paints_a_square_in_the_mean_colour():
    x = images()
    found = cutout(x, 4, Fixed([0, 4, 8], [3, 6, 0])).numpy()
    mean = x.numpy().mean((0, 2, 3))
    for i, (y, c) in enumerate([(0, 3), (4, 6), (8, 0)]):
        expected = x[i].numpy().copy()
        expected[:, max(0, y - 2) : y + 2, max(0, c - 2) : c + 2] = mean[:, None, None]
        np.testing.assert_allclose(found[i], expected, atol=1e-6)


class TestMixup:
    def test_rows_are_mixed_with_their_partners(self):
        rows = torch.randn(50, 3)
        found = augmented(rows, [augmentation("mixup=0.4")], random_numbers(0, 1))
        assert sorted(found.partner.tolist()) == list(range(50))
        expected = found.share * rows + (1 - found.share) * rows[found.partner]
        assert torch.allclose(found.features, expected, atol=1e-6)

    def test_shares_are_beta_distributed(self):
        mixup = [augmentation("mixup=0.2")]
        shares = [augmented(torch.zeros(2, 1), mixup, random_numbers(0, step)).share for step in range(4000)]
        assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
        assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_seed_and_step_decide_all_that_is_random(name):
    x = images(n=8, height=12, width=12)
    one = lambda seed, step: augmented(x, [augmentation(name)], random_numbers(seed, step)).features  # noqa: E731
    torch.rand(3), np.random.default_rng().random()
    assert torch.equal(one(3, 5), one(3, 5))
    assert not torch.equal(one(3, 5), one(3, 6))
    assert not torch.equal(one(3, 5), one(4, 5))
    assert one(3, 5).shape == x.shape
    assert not torch.equal(one(3, 5), x)


def test_bytes_become_fractions_of_white():
    x = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).view(1, 1, 2, 2)
    found = augmented(x, [augmentation("flip=1")], random_numbers(0, 0)).features
    assert torch.allclose(found.flatten(), torch.tensor([1, 0, 0.4, 0.2]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotate", "unknown augmentation 'rotate'; expected one of crop"),
        ("crop=2.5", "'crop=2.5': expected a whole number above 0, as in crop=4"),
        ("flip=1.5", "expected a number above 0, at most 1, as in flip=0.5"),
        ("rotation=0", "expected a number above 0, at most 180"),
        ("mixup=a", "'mixup=a': expected a number after the equals sign"),
        ("mixup=nan", "expected a number above 0, as in mixup"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        augmentation(text)


def test_images_are_needed_for_all_but_mixup():
    with pytest.raises(ValueError, match=r"flip is for images, and the rows have shape \(4,\)"):
        augmented(torch.zeros(3, 4), [augmentation("flip")], random_numbers(0, 0))


def test_mixed_losses_are_the_loss_of_mixed_labels():
    """For cross entropy λ·loss(y) + (1 − λ)·loss(partner's y) is that of soft labels."""
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    found = augmented(logits, [augmentation("mixup")], random_numbers(0, 0))
    one_hot = torch.eye(3)[target]
    soft = found.share * one_hot + (1 - found.share) * one_hot[found.partner]
    parts = cross_entropy(logits, target), cross_entropy(logits, target[found.partner])
    mixed = found.share * parts[0] + (1 - found.share) * parts[1]
    assert torch.allclose(mixed, cross_entropy(logits, soft))
