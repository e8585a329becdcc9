"""The user's own training: a function of a criterion and a seed, in the place of models and data."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from infoloss.study.design import Arm, Design, arms, learning_rates, looks
from infoloss.study.fingerprint import fingerprint
from infoloss.study.plan import Loss, Plan, PlanError
from infoloss.study.runs import KERNEL, PROTOCOL, Arrays, Job, Outcome, Perform, Told, outcome_of
from infoloss.training.memory import peak_memory, reset_peak_memory

__all__ = ["FunctionMaterials", "function_design", "function_runs"]

Train = Callable[..., Any]

OUTPUTS = ("validation_logits", "validation_target", "test_logits", "test_target")
DEFAULT_LOSSES = (
    "cross_entropy",
    "cross_entropy(label_smoothing=0.1)",
    "cross_entropy + confidence_penalty",
    "min_ent",
    "mix_ent",
    "squentropy",
    "rescaled_square",
    "focal",
)
SEEDS = 5


def function_design(train: Train, plan: Plan, *, command: str = "") -> Design:
    """The design of a plan for the user's own training.

    It is tuned where ``train`` takes ``learning_rate``. Class counts are not known, so losses must be bound.

    Raises:
        PlanError: a loss without its counts or prior.
    """
    print_ = fingerprint(train)
    tuned = plan.tuning.enabled and _takes_learning_rate(train)
    metric = "accuracy" if plan.metric == "auto" else plan.metric
    name = getattr(train, "__name__", type(train).__name__)
    losses = plan.losses or tuple(Loss(expression=text) for text in DEFAULT_LOSSES)
    rates = learning_rates(plan) if tuned or plan.training.learning_rate is not None else ()
    if rates and not _takes_learning_rate(train):
        raise PlanError([f"training.learning_rate: {name} has no parameter learning_rate to give it to"])
    return Design(
        data={"name": name, "sha256": print_.sha256},
        model={"function": name, "sha256": print_.sha256},
        arms=arms(losses, plan.baseline, classes=None, known=frozenset()),
        seeds=plan.seeds or tuple(range(SEEDS)),
        tuned=tuned,
        tuning_seeds=plan.tuning.seeds if tuned else (),
        learning_rates=rates,
        training={},
        metric=metric,
        labels_metric="accuracy" if metric == "nll" else metric,
        margins={"labels": plan.margins.labels, "nll": plan.margins.nll},
        device="the function's own",
        notes=_notes(name, print_.notes),
        command=command,
        trials=plan.tuning.trials if tuned else 0,
        looks=looks(plan, len(plan.seeds) if plan.seeds else SEEDS),
    )


def _takes_learning_rate(train: Train) -> bool:
    return "learning_rate" in inspect.signature(train).parameters


def _notes(name: str, unseen: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{name} read the test rows itself: infoloss could not lock them", *unseen)


class FunctionMaterials:
    """The jobs of a study of the user's own training; they need no arrays."""

    def __init__(self, design: Design) -> None:
        self.design = design

    @property
    def references(self) -> tuple[str, ...]:
        """None: the data are not known."""
        return ()

    def training(self, role: str, arm: Arm, seed: int, learning_rate: float | None) -> Job:
        """A call of the function."""
        config = {
            "protocol": PROTOCOL,
            "role": role,
            "seed": seed,
            "loss": arm.expression,
            "bindings": {},
            "learning_rate": learning_rate,
            "model": self.design.model,
            "metric": self.design.metric,
            "source": self.design.model["sha256"],
            "precision": "the function's own",
            "kernel": KERNEL,
        }
        return Job(config, arm.label, self.design.data["name"])

    def reference(self, name: str, seed: int) -> Job:
        """There are none."""
        raise LookupError(name)

    def arrays(self, job: Job) -> Arrays:
        """Nothing: the function has its own data."""
        return {}

    def arrays_key(self, job: Job) -> str:
        """The same for all jobs."""
        return ""


def function_runs(train: Train) -> Perform:
    """How a run is done by the user's function; how far it is, it does not say."""

    def performed(config: Mapping[str, Any], _: Arrays, __: Told | None) -> Outcome:
        from time import perf_counter

        from infoloss.study.own_losses import criterion_of
        from infoloss.training import validation_scores

        criterion = criterion_of(config["loss"], {})
        rate = config["learning_rate"]
        reset_peak_memory(_device())
        started = perf_counter()
        with _seeded(config["seed"]):
            given = train(criterion, config["seed"], **({} if rate is None else {"learning_rate": rate}))
        seconds, peak = perf_counter() - started, peak_memory(_device())
        arrays = _outputs(given)
        validation = torch.from_numpy(arrays["validation_logits"])
        if not bool(validation.isfinite().all()) or not np.isfinite(arrays["test_logits"]).all():
            return outcome_of(None, status="diverged", error="logits that are not finite", seconds=seconds)
        if config["role"] == "tuning":
            arrays = {name: array for name, array in arrays.items() if not name.startswith("test_")}
        target = torch.from_numpy(arrays["validation_target"])
        scores = validation_scores(criterion.term, validation, target)
        return outcome_of(arrays, status="done", validation=scores, seconds=seconds, peak_memory_mib=peak)

    return performed


def _device() -> torch.device:
    """Where the memory is that matters: on the GPU, once the function uses one."""
    return torch.device("cuda" if torch.cuda.is_initialized() else "cpu")  # type: ignore[no-untyped-call]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators start from the seed inside, and go on as before outside."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _outputs(given: Any) -> dict[str, np.ndarray]:
    """What train returned, checked: a tuple in the order of ``OUTPUTS``, or a mapping with these names."""
    named: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if isinstance(given, tuple | list) and len(given) == len(OUTPUTS):
        named = dict(zip(OUTPUTS, given, strict=True))
    if any(name not in named for name in OUTPUTS):
        got = type(given).__name__ + (f" of length {len(given)}" if hasattr(given, "__len__") else "")
        raise ValueError(
            f"train must return ({', '.join(OUTPUTS)}), or a mapping with these names and perhaps test_rows; "
            f"got {got}"
        )
    arrays = {name: _array(named[name], logits=name.endswith("logits")) for name in OUTPUTS}
    if "test_rows" in named:
        arrays["test_rows"] = _array(named["test_rows"], logits=False)
    for part in ("validation", "test"):
        logits, target = arrays[f"{part}_logits"], arrays[f"{part}_target"]
        if logits.ndim != 2 or target.shape != logits.shape[:1]:
            raise ValueError(
                f"{part}_logits must be (n, classes) and {part}_target (n,), "
                f"got {logits.shape} and {target.shape}"
            )
        if len(target) == 0 or target.min() < 0 or target.max() >= logits.shape[1]:
            raise ValueError(f"{part}_target must hold classes in 0 … {logits.shape[1] - 1}")
    return arrays


def _array(value: Any, *, logits: bool) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if logits else value.detach().cpu().numpy()
    return np.ascontiguousarray(value, dtype=np.float32 if logits else np.int64)
