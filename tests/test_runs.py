"""Runs on images: bytes in, augmentation, both precisions, the same numbers again; memory is recorded."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from infoloss.study.runs import performed


def arrays(n=60, side=16):
    """Three classes of squares that are bright in a corner of their own."""
    generator = np.random.default_rng(0)
    made = {"test_rows": np.arange(n)}
    for part in ("train", "validation", "test"):
        target = generator.integers(0, 3, n)
        images = generator.integers(0, 120, (n, 1, side, side))
        for image, label in zip(images, target, strict=True):
            image[0, 8 * (label // 2) :, 8 * (label % 2) :][:8, :8] += 100
        made |= {f"{part}_features": images.astype(np.uint8), f"{part}_target": target}
    return made


def config(loss="cross_entropy", precision="float32", **training):
    settings = {"optimiser": "adamw", "epochs": 6, "batch_size": 20, "normalisation": "auto"}
    return {
        "role": "final",
        "seed": 3,
        "loss": loss,
        "bindings": {},
        "classes": 3,
        "model": {"name": "convnet", "widths": [8, 16], "dropout": 0.2},
        "learning_rate": 0.02,
        "training": {**settings, "augmentation": [], "precision": precision, **training},
        "metric": "accuracy",
        "device": "cpu",
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_are_learnt_in_both_precisions(precision):
    outcome = performed(config(precision=precision), arrays())
    assert (outcome.fields["status"], outcome.fields["error"]) == ("done", None)
    assert outcome.fields["validation"]["accuracy"] > 0.9
    assert outcome.fields["peak_memory_mib"] > 100
    assert load(outcome.predictions)["test_logits"].dtype == np.float32


def test_a_rerun_with_augmentation_and_dropout_is_identical():
    changes = ["crop=2", "flip", "rotation=5", "perspective=0.2", "cutout=4", "mixup"]
    first, second = (performed(config(augmentation=changes, epochs=2), arrays()) for _ in range(2))
    assert first.predictions == second.predictions
    assert first.predictions != performed(config(epochs=2), arrays()).predictions
