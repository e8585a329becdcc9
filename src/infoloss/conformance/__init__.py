"""Does a loss keep its promises? The laws that infoloss holds its own losses to, for anybody's loss."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from infoloss.conformance import numerics, values
from infoloss.conformance.subject import LawError, Loss, NotSupportedError, Subject, first_line

__all__ = ["CHECKS", "Finding", "check"]

CHECKS: dict[str, Callable[[Subject], None]] = {
    "call": values.call,
    "mean over rows": values.mean,
    "reduction": values.reduction,
    "class weights": values.class_weights,
    "ignored rows": values.ignored_rows,
    "nan in an ignored row": values.trace_of_ignored_rows,
    "every row ignored": values.every_row_ignored,
    "every weight 0": values.every_weight_zero,
    "empty batch": values.empty_batch,
    "masked class": values.masked_class,
    "one-hot beside a masked class": values.one_hot_beside_a_mask,
    "smoothing beside a masked class": values.smoothing_beside_a_mask,
    "weight 0 beside a masked label": values.weight_zero_beside_a_masked_label,
    "one-hot targets": values.one_hot_targets,
    "one-hot targets with weights": values.weighted_one_hot_targets,
    "ignored class of one-hot targets": values.ignored_class_of_probabilities,
    "label smoothing": values.smoothing,
    "label smoothing with weights": values.weighted_smoothing,
    "dense logits": values.dense,
    "labels out of range": values.labels_out_of_range,
    "half precision": numerics.half_precision,
    "half precision's result": numerics.half_precision_result,
    "offset": numerics.offset,
    "large logits": numerics.large_logits,
    "inputs": numerics.inputs,
    "gradient": numerics.gradients,
    "second gradient": numerics.second_gradients,
    "forward mode": numerics.forward_mode,
    "vmap": numerics.vmapped,
    "compile": numerics.compiled,
}
"""Every check by name, in order; the docstring of each says its law."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    outcome: Literal["passed", "failed", "not supported"]
    cause: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.outcome}{f': {self.cause}' if self.cause else ''}"


def check(loss: Loss, *, without: Collection[str] = ()) -> list[Finding]:
    """Check a loss that is called like ``F.cross_entropy``.

    The laws are about the loss itself: its value for a single row says what the batch, with weights,
    ignored rows, masks and other targets, must come to. Nothing is assumed about its formula.

    Args:
        loss: called as ``loss(logits, target, **options)`` with those of ``weight``, ``ignore_index``,
            ``label_smoothing`` and ``reduction`` that it takes; a function, a term, a module, or a class of
            modules that takes the options when it is built.
        without: names of :data:`CHECKS` to leave out, where the loss departs on purpose.

    Returns:
        A finding for each check. An option that the loss lacks, or refuses with an error, is
        "not supported"; where a plain call fails, nothing else is asked.

    Raises:
        TypeError: the loss cannot be called.
        ValueError: ``without`` names no check.

    >>> import torch
    >>> def loss(logits, target, reduction="mean"):
    ...     rows = logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]
    ...     return rows.sum() if reduction == "sum" else rows if reduction == "none" else rows.mean()
    >>> for finding in check(loss, without=["compile"]):
    ...     if finding.outcome == "failed":
    ...         print(finding)
    empty batch: failed: the loss: nan instead of 0
    ...
    """
    if not callable(loss):
        raise TypeError(f"loss must be callable, got {type(loss).__name__}: {loss!r}")
    for name in without:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"without: no check {name!r}{hint} There are: {', '.join(CHECKS)}")
    subject = Subject(loss)
    findings = []
    for name, law in CHECKS.items():
        if name not in without:
            findings.append(_found(name, law, subject))
            if name == "call" and findings[0].outcome == "failed":
                break
    return findings


def _found(name: str, law: Callable[[Subject], None], subject: Subject) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning of the loss is no finding, whatever the filters say
            law(subject)
    except NotSupportedError as error:
        return Finding(name, "not supported", str(error))
    except LawError as error:
        return Finding(name, "failed", str(error))
    except Exception as error:  # the loss may raise anything
        return Finding(name, "failed", f"it raises {first_line(error)}")
    return Finding(name, "passed")
