"""Laws of values: means, weights, ignored rows, masks, targets, layouts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from infoloss.conformance.subject import CLASSES, LawError, Subject, first_line, gradient, require

__all__ = [
    "call",
    "class_weights",
    "dense",
    "empty_batch",
    "every_row_ignored",
    "every_weight_zero",
    "ignored_class_of_probabilities",
    "ignored_rows",
    "labels_out_of_range",
    "masked_class",
    "mean",
    "one_hot_beside_a_mask",
    "one_hot_targets",
    "reduction",
    "smoothing",
    "smoothing_beside_a_mask",
    "trace_of_ignored_rows",
    "weight_zero_beside_a_masked_label",
    "weighted_one_hot_targets",
    "weighted_smoothing",
]

IGNORED = -100
SMOOTHING = 0.3


def call(loss: Subject) -> None:
    """A scalar, finite, the same when called again, float64 for float64 logits."""
    value = loss(loss.logits(), loss.labels())
    if value.ndim:
        raise LawError(
            f"the result has shape {tuple(value.shape)}; by default it is a scalar, the mean over rows"
        )
    if not value.isfinite():
        raise LawError(f"the loss of ordinary logits is {value:.6g}")
    if loss(loss.logits(), loss.labels()) != value:
        raise LawError("two calls with the same arguments differ: a random loss cannot be checked")
    if value.dtype != torch.float64:
        raise LawError(f"float64 logits give a {_name(value.dtype)} result")
    if not loss(loss.logits().requires_grad_(), loss.labels()).requires_grad:
        raise LawError("the result has no gradient: it is detached from the logits")


def mean(loss: Subject) -> None:
    """The loss of a batch is the mean of the losses of its rows."""
    r = loss.values
    require("the loss of a batch is not the mean over its rows", loss(loss.logits(), loss.labels()), r.mean(),
            {"it is their sum": r.sum()})  # fmt: skip


def reduction(loss: Subject) -> None:
    """``sum`` is Σ r and ``none`` the r, (N,)."""
    loss.needs("reduction")
    z, y, r = loss.logits(), loss.labels(), loss.values
    require('reduction="sum"', loss(z, y, reduction="sum"), r.sum(), {"it is the mean": r.mean()})
    require('reduction="none"', loss(z, y, reduction="none"), r)
    require('reduction="mean"', loss(z, y, reduction="mean"), r.mean(), {"it is the sum": r.sum()})


def class_weights(loss: Subject) -> None:
    """The weighted mean is Σ w_y r / Σ w_y, the weighted sum Σ w_y r."""
    loss.needs("weight")
    z, y, w, r = loss.logits(), loss.labels(), loss.weight(), loss.values
    require(
        "the mean with class weights",
        loss(z, y, weight=loss.weight()),
        (w[y] * r).sum() / w[y].sum(),
        {"it divides by the number of rows, not by the sum of their weights": (w[y] * r).mean(),
         "the weights have no effect": r.mean(),
         "it is the sum": (w[y] * r).sum()},
    )  # fmt: skip
    if loss.takes("reduction"):
        require("the sum with class weights", loss(z, y, weight=w, reduction="sum"), (w[y] * r).sum())
        require("the rows with class weights", loss(z, y, weight=w, reduction="none"), w[y] * r)


def ignored_rows(loss: Subject) -> None:
    """Rows with the label ``ignore_index`` count for nothing, in the divisor either, with weights too."""
    loss.needs("ignore_index")
    z, w, r = loss.logits(), loss.weight(), loss.values
    for index in (IGNORED, 255, -1, 2):
        y = loss.labels()
        kept = y != 2
        y[~kept] = index
        options: dict[str, Any] = {"ignore_index": index}
        require(
            f"the mean with rows ignored (ignore_index={index})",
            loss(z, y, **options),
            r[kept].mean(),
            {"ignored rows still divide the mean": r[kept].sum() / len(r), "they are not ignored": r.mean()},
        )
        if loss.takes("reduction"):
            require(
                "an ignored row's value", loss(z, y, reduction="none", **options), torch.where(kept, r, 0)
            )
        if loss.takes("weight"):
            w_y = torch.where(kept, w[loss.labels()], 0)
            require(
                f"the mean with class weights and rows ignored (ignore_index={index})",
                loss(z, y, weight=loss.weight(), **options),
                (w_y * r).sum() / w_y.sum(),
                {"the weights of ignored rows divide the mean": (w_y * r).sum() / w[loss.labels()].sum()},
            )


def trace_of_ignored_rows(loss: Subject) -> None:
    """What an ignored row holds, nan included, changes neither value nor gradient."""
    loss.needs("ignore_index")
    z, y = loss.logits(), loss.labels()
    y[1] = IGNORED
    clean = loss(z, y, ignore_index=IGNORED), gradient(lambda x: loss(x, y, ignore_index=IGNORED), z)
    z[1] = math.nan
    require("the value beside an ignored row of nan", loss(z, y, ignore_index=IGNORED), clean[0])
    slope = gradient(lambda x: loss(x, y, ignore_index=IGNORED), z)
    require("the gradient at an ignored row of nan", slope, clean[1])


def every_row_ignored(loss: Subject) -> None:
    """A batch whose every row is ignored has the value 0 and the gradient 0."""
    loss.needs("ignore_index")
    _counts_for_nothing(loss, loss.logits(), torch.full_like(loss.labels(), IGNORED), ignore_index=IGNORED)


def every_weight_zero(loss: Subject) -> None:
    """So has a batch whose every row has weight 0."""
    loss.needs("weight")
    _counts_for_nothing(loss, loss.logits(), loss.labels(), weight=torch.zeros_like(loss.weight()))


def empty_batch(loss: Subject) -> None:
    """So has a batch without rows."""
    _counts_for_nothing(loss, loss.logits()[:0], loss.labels()[:0])


def _counts_for_nothing(loss: Subject, z: Tensor, y: Tensor, **options: Any) -> None:
    require("the loss", loss(z, y, **options), 0.0)
    require("the gradient", gradient(lambda x: loss(x, y, **options), z), torch.zeros_like(z))


def masked_class(loss: Subject) -> None:
    """A class masked by a logit of −inf leaves the problem: value and gradient are those without it."""
    z, y = loss.logits(), loss.labels()
    masked, kept = 3, [0, 1, 2, 4]
    rows = y != masked
    z, y = z[rows], y[rows]
    z[:, masked] = -math.inf
    value, slope = loss(z, y), gradient(lambda x: loss(x, y), z)
    _require_finite("a logit of −inf, not the label's,", value, slope)
    try:
        without = loss(z[:, kept], torch.where(y > masked, y - 1, y))
    except Exception:  # a loss of one number of classes: finite is all that can be asked
        return
    require("a class masked by −inf still counts", value, without)


def one_hot_beside_a_mask(loss: Subject) -> None:
    """Neither does the mask matter to a probability target that gives the class probability 0."""
    loss.needs("probabilities")
    z, y, t = loss.logits(), loss.labels(), loss.one_hot()
    z[0, 3] = -math.inf
    value, slope = loss(z, t), gradient(lambda x: loss(x, t), z)
    _require_finite("a probability target of 0 at a logit of −inf", value, slope)
    require("one-hot targets beside a masked class", value, loss(z, y))


def smoothing_beside_a_mask(loss: Subject) -> None:
    """Label smoothing spreads over the unmasked classes only."""
    loss.needs("label_smoothing")
    z, y = loss.logits(), loss.labels()
    z[0, 3] = -math.inf
    value = loss(z, y, label_smoothing=SMOOTHING)
    slope = gradient(lambda x: loss(x, y, label_smoothing=SMOOTHING), z)
    _require_finite("label smoothing beside a logit of −inf", value, slope)
    kept = [0, 1, 2, 4]
    try:
        first = loss(z[:1, kept], y[:1], label_smoothing=SMOOTHING)
    except Exception:  # a loss of one number of classes
        return
    others = loss(z[1:], y[1:], label_smoothing=SMOOTHING)
    require("label smoothing beside a masked class", value, (first + (len(z) - 1) * others) / len(z))


def weight_zero_beside_a_masked_label(loss: Subject) -> None:
    """A row of weight 0 counts for nothing, even when its label is masked."""
    loss.needs("weight")
    z, y, w = loss.logits(), loss.labels(), loss.weight()
    w[4], z[1, 4] = 0, -math.inf
    kept = y != 4
    value, slope = loss(z, y, weight=w), gradient(lambda x: loss(x, y, weight=w), z)
    _require_finite("a row of weight 0 with a masked label", value, slope)
    require("a row of weight 0 with a masked label", value, loss(z[kept], y[kept], weight=w))


def _require_finite(what: str, value: Tensor, slope: Tensor) -> None:
    if not value.isfinite().all():
        raise LawError(f"{what} makes the loss {value:.6g}")
    if not slope.isfinite().all():
        raise LawError(f"{what} makes the gradient {slope[~slope.isfinite()][0]:.6g}")


def one_hot_targets(loss: Subject) -> None:
    """One-hot rows are the same target as their indices."""
    loss.needs("probabilities")
    z, y = loss.logits(), loss.labels()
    require("one-hot targets", loss(z, loss.one_hot()), loss(z, y),
            {"the mean is over rows and classes": loss(z, y) / CLASSES})  # fmt: skip


def weighted_one_hot_targets(loss: Subject) -> None:
    """With class weights too: the same mean."""
    loss.needs("probabilities", "weight")
    z, y, w = loss.logits(), loss.labels(), loss.weight()
    expected = loss(z, y, weight=w)
    require("the mean of one-hot targets with class weights", loss(z, loss.one_hot(), weight=w), expected,
            {"it divides by the number of rows, that of index targets by the sum of their weights":
             expected * w[y].sum() / len(y)})  # fmt: skip


def ignored_class_of_probabilities(loss: Subject) -> None:
    """A one-hot row of the ignored class is ignored, as its index is."""
    loss.needs("probabilities", "ignore_index")
    z, t = loss.logits(), loss.one_hot()
    expected = loss.values[loss.labels() != 2].mean()
    try:
        found = loss(z, t, ignore_index=2)
    except Exception as error:
        raise LawError(f"ignore_index raises with probability targets ({first_line(error)})") from error
    require(
        "one-hot rows of the ignored class", found, expected, {"they are not ignored": loss.values.mean()}
    )


def smoothing(loss: Subject) -> None:
    """Label smoothing ε is the target (1 − ε)·one-hot + ε/C."""
    loss.needs("label_smoothing")
    z, y, r, C = loss.logits(), loss.labels(), loss.values, CLASSES
    found = loss(z, y, label_smoothing=SMOOTHING)
    per_class = torch.stack([loss.row_values(z, torch.full_like(y, c)) for c in range(C)], 1)  # (N, C)
    linear = (1 - SMOOTHING) * r + SMOOTHING * per_class.mean(1)
    others = (per_class.sum(1) - r) / (C - 1)
    expected = linear.mean()
    if loss.takes("probabilities"):
        expected = loss(z, (1 - SMOOTHING) * loss.one_hot() + SMOOTHING / C)
    require(
        f"label_smoothing={SMOOTHING}",
        found,
        expected,
        {
            "ε is spread over the other C − 1 classes": ((1 - SMOOTHING) * r + SMOOTHING * others).mean(),
            "it has no effect": r.mean(),
        },
    )
    require("label_smoothing=0", loss(z, y, label_smoothing=0.0), r.mean())


def weighted_smoothing(loss: Subject) -> None:
    """Σ over rows with class weights and smoothing is that of the smoothed targets with class weights."""
    loss.needs("label_smoothing", "weight", "reduction", "probabilities")
    z, y = loss.logits(), loss.labels()
    smoothed = (1 - SMOOTHING) * loss.one_hot() + SMOOTHING / CLASSES
    options: dict[str, Any] = {"weight": loss.weight(), "reduction": "sum"}
    found = loss(z, y, label_smoothing=SMOOTHING, **options)
    require("the sum with class weights and label smoothing", found, loss(z, smoothed, **options))


def dense(loss: Subject) -> None:
    """Logits (N, C, d1, d2) with labels (N, d1, d2) are N·d1·d2 rows."""
    loss.needs("dense")
    z, y = loss.logits(12), loss.labels(12)
    planes, labels = z.reshape(2, 3, 2, CLASSES).movedim(-1, 1), y.reshape(2, 3, 2)  # C-last in memory
    for layout in (planes, planes.contiguous()):
        require("the mean over (N, C, d1, d2)", loss(layout, labels), loss(z, y),
                {"it divides by N, not by the number of rows": loss(z, y) * 6})  # fmt: skip
    if loss.takes("reduction"):
        rows = loss(z, y, reduction="none").reshape(2, 3, 2)
        require("the rows of (N, C, d1, d2)", loss(planes, labels, reduction="none"), rows)
    if loss.takes("ignore_index") and loss.takes("weight"):
        options: dict[str, Any] = {"weight": loss.weight(), "ignore_index": 2}
        require("the mean over (N, C, d1, d2) with weights and rows ignored", loss(planes, labels, **options),
                loss(z, y, **options))  # fmt: skip


def labels_out_of_range(loss: Subject) -> None:
    """A label that is no class, and is not ignored, raises."""
    z, kept = loss.logits(), slice(1, None)
    for label in (-1, CLASSES):
        y = loss.labels()
        y[0] = label
        try:
            value = loss(z, y)
        except Exception:  # whatever it raises, the label is refused
            continue
        ignored = torch.allclose(value.double(), loss(z[kept], y[kept]).double())
        if value.isfinite() and not ignored:  # −1 may be what a loss ignores by default
            raise LawError(f"the label {label} of {CLASSES} classes is used: the loss is {value:.6g}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
