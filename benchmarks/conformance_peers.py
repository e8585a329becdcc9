"""Losses that other libraries share with infoloss, on the same rows; only what is installed is run."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il


@dataclass(frozen=True)
class Comparison:
    """A peer's call beside ours; ``departed`` is what the peer gives if the reason explains it all."""

    call: str
    ours: str
    found: Any
    value: Any
    reason: str = ""
    departed: Any = None


@dataclass(frozen=True)
class Problem:
    """Rows of moderate logits, and a first one so sure of a wrong class that its label has less than 1e-7."""

    z: Tensor
    y: Tensor
    t: Tensor  # probabilities
    w: Tensor  # a weight a class
    s: Tensor  # a weight a row


def problem(rows: int = 60, classes: int = 7) -> Problem:
    draw = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    z[0, 2] += 25
    y = torch.randint(classes, (rows,), generator=draw)
    y[0] = 1
    t = torch.randn(rows, classes, generator=draw, dtype=torch.float64).softmax(1)
    w, s = (torch.rand(n, generator=draw, dtype=torch.float64) + 0.1 for n in (classes, rows))
    return Problem(z, y, t, w, s)


def torch_rows(p: Problem) -> Iterator[Comparison]:
    log_q, c = p.z.log_softmax(1), p.z.shape[1]
    ce, kl = il.cross_entropy(), il.kl()
    yield Comparison(
        "nll_loss(log_softmax(z), y, weight)",
        "cross_entropy",
        F.nll_loss(log_q, p.y, p.w),
        ce(p.z, p.y, weight=p.w),
    )
    kl_div = F.kl_div(log_q, p.t, reduction="batchmean")
    yield Comparison('kl_div(log_softmax(z), t, reduction="batchmean")', "kl", kl_div, kl(p.z, p.t))
    with warnings.catch_warnings():  # PyTorch says so itself
        warnings.simplefilter("ignore")
        mean_over_all = F.kl_div(log_q, p.t, reduction="mean")
    yield Comparison(
        "kl_div(log_softmax(z), t)",
        "kl",
        mean_over_all,
        kl(p.z, p.t),
        "its default mean is over rows and classes",
        kl(p.z, p.t) / c,
    )


def sklearn_rows(p: Problem) -> Iterator[Comparison]:
    from sklearn.metrics import brier_score_loss, log_loss

    q, every = p.z.softmax(1).numpy(), list(range(p.z.shape[1]))
    ce, brier = il.cross_entropy(), il.brier()
    yield Comparison("log_loss", "cross_entropy", log_loss(p.y, q, labels=every), ce(p.z, p.y))
    yield Comparison(
        "log_loss(sample_weight=s)",
        "cross_entropy, sample_weight",
        log_loss(p.y, q, labels=every, sample_weight=p.s),
        ce(p.z, p.y, sample_weight=p.s),
    )
    score = brier_score_loss(p.y, q, labels=every, scale_by_half=False)
    yield Comparison("brier_score_loss(scale_by_half=False)", "brier", score, brier(p.z, p.y))
    score = brier_score_loss(p.y, q, labels=every, scale_by_half=False, sample_weight=p.s)
    yield Comparison(
        "brier_score_loss(scale_by_half=False, sample_weight=s)",
        "brier, sample_weight",
        score,
        brier(p.z, p.y, sample_weight=p.s),
    )


def optax_rows(p: Problem) -> Iterator[Comparison]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from optax import losses

    z, y, t = (v.numpy() for v in (p.z, p.y, p.t))
    one_hot = np.eye(z.shape[1])[y]
    log_q = p.z.log_softmax(1).numpy()
    rows: dict[str, Any] = {"reduction": "none"}
    ce = il.cross_entropy()
    yield Comparison(
        "softmax_cross_entropy_with_integer_labels",
        "cross_entropy",
        losses.softmax_cross_entropy_with_integer_labels(z, y),
        ce(p.z, p.y, **rows),
    )
    yield Comparison(
        "softmax_cross_entropy, probabilities",
        "cross_entropy",
        losses.softmax_cross_entropy(z, t),
        ce(p.z, p.t, **rows),
    )
    smooth = losses.softmax_cross_entropy(z, losses.smooth_labels(one_hot, 0.1))
    yield Comparison(
        "smooth_labels(0.1), softmax_cross_entropy",
        "cross_entropy, label_smoothing",
        smooth,
        ce(p.z, p.y, label_smoothing=0.1, **rows),
    )
    masked = p.z.clone()
    masked[torch.arange(len(y)), (p.y + 1) % z.shape[1]] = -torch.inf
    yield Comparison(
        "safe_softmax_cross_entropy, −inf where the target is 0",
        "cross_entropy",
        losses.safe_softmax_cross_entropy(masked.numpy(), one_hot),
        ce(masked, p.y, **rows),
    )
    yield Comparison(
        "poly_loss_cross_entropy",
        "poly1",
        losses.poly_loss_cross_entropy(z, one_hot),
        il.poly1()(p.z, p.y, **rows),
    )
    yield Comparison("kl_divergence", "kl", losses.kl_divergence(log_q, t), il.kl()(p.z, p.t, **rows))


def keras_rows(p: Problem) -> Iterator[Comparison]:
    keras = importlib.import_module("keras")
    keras.config.set_floatx("float64")
    losses = keras.losses
    rows: dict[str, Any] = {"reduction": "none"}
    ce, q = il.cross_entropy(), p.z.softmax(1)
    one_hot = F.one_hot(p.y, p.z.shape[1]).double()
    clipped = q.clamp(1e-7, 1)
    yield Comparison(
        "sparse_categorical_crossentropy(from_logits=True)",
        "cross_entropy",
        losses.sparse_categorical_crossentropy(p.y, p.z, from_logits=True),
        ce(p.z, p.y, **rows),
    )
    yield Comparison(
        "categorical_crossentropy(from_logits=True, label_smoothing=0.1)",
        "cross_entropy, label_smoothing",
        losses.categorical_crossentropy(one_hot, p.z, from_logits=True, label_smoothing=0.1),
        ce(p.z, p.y, label_smoothing=0.1, **rows),
    )
    ignoring = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3, dtype="float64")
    yield Comparison(
        "SparseCategoricalCrossentropy(ignore_class=3)",
        "cross_entropy, ignore_index",
        ignoring(p.y, p.z),
        ce(p.z, p.y, ignore_index=3),
    )
    weighting = losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    weighted, ours = weighting(p.y, p.z, sample_weight=p.s), ce(p.z, p.y, sample_weight=p.s)
    yield Comparison(
        "SparseCategoricalCrossentropy, sample_weight=s",
        "cross_entropy, sample_weight",
        weighted,
        ours,
        "it divides by the number of rows, not by the sum of their weights",
        ours * p.s.sum() / len(p.s),
    )
    weighting = losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype="float64", reduction="mean_with_sample_weight"
    )
    yield Comparison(
        'SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"), sample_weight=s',
        "cross_entropy, sample_weight",
        weighting(p.y, p.z, sample_weight=p.s),
        ours,
    )
    kl = (p.t.clamp(1e-7, 1) * (p.t.clamp(1e-7, 1) / clipped).log()).sum(1)
    yield Comparison(
        "kl_divergence(t, softmax(z))",
        "kl",
        losses.kl_divergence(p.t, q),
        il.kl()(p.z, p.t, **rows),
        "it clips probabilities at 1e-7: a confident row has another value, and no gradient",
        kl,
    )
    p_y = clipped[torch.arange(len(p.y)), p.y].clamp(max=1 - 1e-7)
    yield Comparison(
        "categorical_focal_crossentropy(alpha=1, gamma=2)",
        "focal",
        losses.categorical_focal_crossentropy(one_hot, q, alpha=1.0, gamma=2.0),
        il.focal(gamma=2.0)(p.z, p.y, **rows),
        "it clips probabilities at 1e-7 and 1 − 1e-7",
        -((1 - p_y) ** 2) * p_y.log(),
    )


def kornia_rows(p: Problem) -> Iterator[Comparison]:
    from kornia.losses import focal_loss

    c, focal = p.z.shape[1], il.focal(gamma=2.0)
    found = focal_loss(p.z, p.y, alpha=None, gamma=2.0, reduction="none")
    yield Comparison(
        'focal_loss(alpha=None, reduction="none"), summed over classes',
        "focal",
        found.sum(1),
        focal(p.z, p.y, reduction="none"),
    )
    found = focal_loss(p.z, p.y, alpha=None, gamma=2.0, reduction="mean")
    yield Comparison(
        'focal_loss(alpha=None, reduction="mean")',
        "focal",
        found,
        focal(p.z, p.y),
        "its mean is over rows and classes",
        focal(p.z, p.y) / c,
    )
    found = focal_loss(p.z, p.y, alpha=None, gamma=2.0, reduction="mean", ignore_index=3)
    ours, kept = focal(p.z, p.y, ignore_index=3), (p.y != 3).double().mean()
    yield Comparison(
        'focal_loss(alpha=None, reduction="mean", ignore_index=3)',
        "focal, ignore_index",
        found,
        ours,
        "its mean is over rows and classes, ignored rows included",
        ours * kept / c,
    )


PEERS: dict[str, tuple[str, Callable[[Problem], Iterator[Comparison]]]] = {
    "torch": ("torch", torch_rows),
    "scikit-learn": ("sklearn", sklearn_rows),
    "optax": ("optax", optax_rows),
    "keras": ("keras", keras_rows),
    "kornia": ("kornia", kornia_rows),
}


def compared() -> Iterator[tuple[str, list[Comparison] | str]]:
    """Each peer with its version, and its comparisons or why there are none."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name, (module, rows) in PEERS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            yield name, "not installed here"
            continue
        yield f"{name} {version(name).partition('+')[0]}", list(rows(problem()))
