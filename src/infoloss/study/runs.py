"""One run: from a configuration and arrays to a record and predictions."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infoloss.kernels import available
from infoloss.study.canonical import sha256
from infoloss.training import (
    Classifier,
    DataParallel,
    LockedTest,
    MappedRows,
    Rows,
    Settings,
    fit,
    mapped,
    normalisation,
    seed_of_rank,
)
from infoloss.training.memory import peak_memory, reset_peak_memory

__all__ = [
    "PROTOCOL",
    "Arrays",
    "Job",
    "Outcome",
    "Perform",
    "Told",
    "attempted",
    "devices_per_run",
    "failed",
    "outcome_of",
    "paced",
    "performed",
    "versions",
]

PROTOCOL = 3
"""Raised by hand when the same configuration would no longer give the same numbers."""

KERNEL = "cpu" if available("cpu") else "eager"
"""The fastest kernel installed: large batches run on it, small ones on eager, always the same ones."""
ID_LENGTH = 32

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be done. ``config`` is its identity: all that can change its numbers, defaults included."""

    config: dict[str, Any]
    label: str
    data: str

    @property
    def id(self) -> str:
        return sha256(self.config)[:ID_LENGTH]

    @property
    def role(self) -> str:
        return str(self.config["role"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a run: fields of its record, and predictions as safetensors bytes."""

    fields: dict[str, Any]
    predictions: bytes | None

    def record(self, job: Job) -> dict[str, Any]:
        """The whole record."""
        config = job.config
        copied = (
            "role",
            "data_sha256",
            "split_sha256",
            "loss",
            "bindings",
            "seed",
            "learning_rate",
            "trial",
            "protocol",
        )
        return {
            "id": job.id,
            "label": job.label,
            "data": job.data,
            **{key: config.get(key) for key in copied},
            "config": config,
            **self.fields,
        }


Told = Callable[[int, int], None]
"""Called within a run with the epoch that has ended, and with how many there are."""

Perform = Callable[[Mapping[str, Any], Arrays, Told | None], Outcome]


def paced(told: Told, seconds: float = 1.0, clock: Callable[[], float] = monotonic) -> Told:
    """Told so often at most, and nothing of a run that is shorter."""
    last = clock()

    def now_and_then(epoch: int, epochs: int) -> None:
        nonlocal last
        if clock() - last >= seconds:
            last = clock()
            told(epoch, epochs)

    return now_and_then


def attempted(
    perform: Perform, config: Mapping[str, Any], arrays: Arrays, told: Told | None = None
) -> Outcome:
    """The outcome of a run; an exception makes it a failed one, with its message."""
    try:
        return perform(config, arrays, told)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return failed(f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})")


def failed(error: str) -> Outcome:
    """The outcome of a run that could not be finished."""
    return outcome_of(None, status="failed", error=error)


def outcome_of(kept: Mapping[str, Tensor | np.ndarray] | None, **given: Any) -> Outcome:
    """An outcome: the arrays it keeps, and the fields that are not empty."""
    return Outcome(_fields(**given), _serialised(kept) if kept else None)


def performed(config: Mapping[str, Any], arrays: Arrays, told: Told | None = None) -> Outcome:
    """Trains and scores a run of role "tuning" or "final", or computes one of role "reference".

    Args:
        config: of a ``Job``.
        arrays: train_features (n, …) float32, or uint8 for images, train_target (n,) int64, perhaps
            train_weight (n,), the same for validation, and for all roles but "tuning" test_features,
            test_target and test_rows. Instead of features there may be a ``file`` (its name in bytes) of all
            rows, and the numbers of the parts' rows, train_rows and so on.
        told: how far the training is; of several processes by the first.
    """
    if config["role"] == "reference":
        from infoloss.study.references import reference

        return _reference(reference(config, arrays), arrays)
    count = devices_per_run(config)
    if count == 1:
        return _trained(config, arrays, told=told)
    from infoloss.study.ranks import joined, performed_together

    if "rank" not in config:
        return performed_together(config, arrays, count, told)
    rank = config["rank"]["index"]
    with joined(config["rank"], config["device"]):
        outcome = _trained(config, arrays, rank, told)
    return outcome if rank == 0 else replace(outcome, predictions=None)


def devices_per_run(config: Mapping[str, Any]) -> int:
    """How many processes a run has, each with a core or a GPU of its own.

    Example:
        >>> devices_per_run({"role": "reference"}), devices_per_run({"training": {"devices_per_run": 2}})
        (1, 2)
    """
    count: int = config.get("training", {}).get("devices_per_run", 1)
    return count


def _trained(
    config: Mapping[str, Any], arrays: Arrays, rank: int | None = None, told: Told | None = None
) -> Outcome:
    """``rank`` is that of this process among those that share the run, if it has several."""
    from infoloss.models import build
    from infoloss.study.own_losses import criterion_of

    device = torch.device(config["device"])
    reset_peak_memory(device)
    train, validation = _rows(arrays, "train", device), _rows(arrays, "validation", device)
    test = None
    if config["role"] == "final":
        test = LockedTest(_features(arrays, "test", device), _tensor(arrays["test_target"], device))
    # "source" is part of the identity of a model of the user's own.
    options = {key: value for key, value in config["model"].items() if key != "source"}
    model = build(
        options.pop("name"),
        classes=config["classes"],
        input_shape=tuple(train.features.shape[1:]),
        # The first process gives its weights to the others, whose dropout masks must differ from its own.
        seed=seed_of_rank(config["seed"], rank or 0),
        **options,
    )
    training = {key: value for key, value in config["training"].items() if key != "devices_per_run"}
    pixels = normalisation(training.pop("normalisation"), train.features)
    classifier: nn.Module = Classifier(
        model, classes=config["classes"], normalisation=pixels, precision=training.pop("precision")
    ).to(device)
    if rank is not None:
        classifier = DataParallel(classifier)
    criterion = criterion_of(config["loss"], config["bindings"]).to(device)
    result = fit(
        classifier,
        criterion,
        train,
        validation,
        settings=Settings(learning_rate=config["learning_rate"], **training),
        seed=config["seed"],
        metric=config["metric"],
        told=told,
    )
    kept: dict[str, Tensor | np.ndarray] = {}
    if result.validation_logits is not None:
        kept = {"validation_logits": result.validation_logits, "validation_target": validation.target}
        if test is not None:
            kept["test_logits"], kept["test_target"] = test.logits(result)
            kept["test_rows"] = arrays["test_rows"]
    return outcome_of(
        kept,
        status=result.status,
        error=result.error,
        validation=_finite(result.validation),
        epochs=len(result.curve),
        best_epoch=result.best_epoch,
        curve=[_finite(entry) for entry in result.curve],
        seconds=result.seconds,
        step_milliseconds=result.step_milliseconds,
        peak_memory_mib=peak_memory(device),
    )


def _reference(predicted: Mapping[str, np.ndarray], arrays: Arrays) -> Outcome:
    kept: dict[str, Tensor | np.ndarray] = {
        **{key: value for key, value in predicted.items() if key.endswith("_logits")},
        **{key: arrays[key] for key in ("validation_target", "test_target", "test_rows")},
    }
    return outcome_of(kept, status="done", seconds=float(predicted["seconds"]))


def _rows(arrays: Arrays, part: str, device: torch.device) -> Rows:
    weight = arrays.get(f"{part}_weight")
    return Rows(
        _features(arrays, part, device),
        _tensor(arrays[f"{part}_target"], device),
        None if weight is None else _tensor(weight, device),
    )


def _features(arrays: Arrays, part: str, device: torch.device) -> Tensor | MappedRows:
    if "file" not in arrays:
        return _tensor(arrays[f"{part}_features"], device)
    return mapped(os.fsdecode(arrays["file"].tobytes()), arrays[f"{part}_rows"], device)


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.tensor(array, device=device)


def _serialised(arrays: Mapping[str, Tensor | np.ndarray]) -> bytes:
    from safetensors.numpy import save

    plain = {
        name: np.ascontiguousarray(value.cpu().numpy() if isinstance(value, Tensor) else value)
        for name, value in arrays.items()
    }
    return bytes(save(plain))


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinities: an NLL that is not finite is written as null."""
    return {key: value if abs(value) < float("inf") else None for key, value in scores.items()}


def _fields(**given: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "status": "failed",
        "error": None,
        "validation": {},
        "epochs": 0,
        "best_epoch": None,
        "curve": [],
        "seconds": None,
        "step_milliseconds": None,
        "peak_memory_mib": None,
    }
    cleaned = {
        key: None if isinstance(value, float) and value != value else value for key, value in given.items()
    }
    return {**empty, **cleaned, "versions": versions()}


_MODELS_FROM = ("timm", "transformers")


def versions() -> dict[str, str]:
    """Of what a run's numbers may depend on without being part of its identity."""
    loaded = {name: sys.modules[name] for name in _MODELS_FROM if sys.modules.get(name) is not None}
    return _versions() | {name: getattr(module, "__version__", "") for name, module in loaded.items()}


@cache
def _versions() -> dict[str, str]:
    return {
        "infoloss": version("infoloss"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
        "kernel": KERNEL,
        "byteorder": sys.byteorder,
    }
