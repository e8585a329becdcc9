"""The design: a plan settled for one data set; nothing in it is automatic any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np
import torch

from infoloss.data import Dataset
from infoloss.models import build
from infoloss.named import is_named, named
from infoloss.study.canonical import sha256
from infoloss.study.fingerprint import fingerprint
from infoloss.study.own_losses import designed, is_own
from infoloss.study.plan import Loss, Plan, PlanError, Training
from infoloss.study.runs import PROTOCOL
from infoloss.training import Classifier, augmentation, batch_normalised, normalisation
from infoloss.training.augmentation import augmented, random_numbers

__all__ = ["Arm", "Design", "DesignError", "default_losses", "device", "settled", "uneven"]

SMALL_TABLE = 10_000
SEEDS_OF_A_SMALL_TABLE, SEEDS_OF_A_LARGE_TABLE = 20, 5
UNEVEN_RATIO = 1.5
LEARNING_RATES = {"adamw": (0.001, 0.003, 0.01, 0.03), "sgd": (0.01, 0.03, 0.1, 0.3)}
LEARNING_RATE = {"adamw": 0.003, "sgd": 0.1}

_DEFAULT_LOSSES = (
    "cross_entropy",
    "cross_entropy(label_smoothing=0.1)",
    "cross_entropy + confidence_penalty",
    "min_ent",
    "mix_ent",
    "squentropy",
    "rescaled_square",
    "focal",
)


_NOTES = {
    "float32": (),
    "bfloat16": ("trained in bfloat16: that float32 would give the same verdicts is for a study to show",),
}


class DesignError(ValueError):
    """The plan does not fit the folder's study."""


@dataclass(frozen=True)
class Arm:
    """One loss of the comparison: its short name, and its expression with every parameter."""

    label: str
    expression: str


@dataclass(frozen=True, eq=False)
class Design:
    """Everything about a study but its results; what stands in ``study.json``.

    ``arms`` has the baseline first. ``learning_rates`` has one entry where ``tuned`` is false, or none where
    the user's own training has its own. ``metric`` is what validation chooses by, ``labels_metric`` what the
    verdict on labels is about. ``trials`` of every loss go beyond the grid.
    ``looks`` are the numbers of seeds at which a study that adds them is judged.
    """

    data: dict[str, Any]
    model: dict[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    tuned: bool
    tuning_seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    training: dict[str, Any]
    metric: str
    labels_metric: str
    margins: dict[str, float]
    device: str
    notes: tuple[str, ...] = ()
    command: str = ""
    trials: int = 0
    looks: tuple[int, ...] = ()

    @property
    def baseline(self) -> Arm:
        return self.arms[0]

    @property
    def alpha(self) -> float:
        """The error rate of the verdicts at the number of seeds that there are."""
        from infoloss.study.inference import alpha_at

        return alpha_at(self.looks, len(self.seeds))

    def at_the_next_look(self) -> Design | None:
        """The design with the seeds of its next look; None at the last, or where there are no looks."""
        following = [look for look in self.looks if look > len(self.seeds)]
        if not following:
            return None
        taken, number, seeds = {*self.seeds, *self.tuning_seeds}, 0, list(self.seeds)
        while len(seeds) < following[0]:
            if number not in taken:
                seeds.append(number)
            number += 1
        return replace(self, seeds=tuple(sorted(seeds)))

    @property
    def fixed(self) -> dict[str, Any]:
        """What an extension may not change: all but losses, seeds, notes and the command."""
        open_ends = ["arms", "seeds", "notes", "command"]
        # What is not used leaves no mark, so that folders keep their names.
        open_ends += [name for name in ("trials", "looks") if not getattr(self, name)]
        kept = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in open_ends
        }
        data = {key: self.data[key] for key in ("name", "sha256")}
        return {**kept, "data": data, "baseline": self.baseline.expression, "protocol": PROTOCOL}

    @property
    def name(self) -> str:
        """A folder's name, from the data and the hash of what an extension may not change."""
        plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in self.data["name"])
        return f"infoloss-{plain}-{sha256(self.fixed)[:8]}"

    def extended(self, old: Design) -> Design:
        """This design with the losses and seeds of an older one in the same folder: nothing tried is dropped.

        Raises:
            DesignError: another data set, model, training, tuning or metric.
        """
        ours, theirs = _flat(self.fixed), _flat(old.fixed)
        changed = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
        if changed:
            differences = "; ".join(
                f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here" for key in changed
            )
            raise DesignError(f"the folder holds another study: {differences}. Choose another folder.")
        arms = {arm.expression: arm for arm in (*self.arms, *old.arms)} | {
            arm.expression: arm for arm in self.arms
        }
        _refuse_equal_labels(tuple(arms.values()))
        seeds = tuple(sorted({*self.seeds, *old.seeds}))
        return replace(self, arms=tuple(arms.values()), seeds=seeds)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Design:
        lists = ("seeds", "tuning_seeds", "learning_rates", "notes", "looks")
        tuples = {key: tuple(value[key]) for key in lists if key in value}
        return cls(**{**value, **tuples, "arms": tuple(Arm(**arm) for arm in value["arms"])})


def uneven(counts: Sequence[int] | np.ndarray) -> bool:
    """Whether the largest class has more than 1.5 times the rows of the smallest.

    Example:
        >>> uneven([48, 59, 71]), uneven([212, 357])
        (False, True)
    """
    return bool(max(counts) > UNEVEN_RATIO * min(counts))


def default_losses(counts: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """Eight losses, cross entropy first; none of the others equals it on classes with these counts.

    Where classes are uneven, balanced softmax (which equals cross entropy on even ones) takes the place of
    the confidence penalty.
    """
    if not uneven(counts):
        return _DEFAULT_LOSSES
    swap = {"cross_entropy + confidence_penalty": "balanced_softmax"}
    return tuple(swap.get(loss, loss) for loss in _DEFAULT_LOSSES)


def device(plan: Plan) -> str:
    """Where a plan's runs are done: "auto" is the CPU."""
    return "cpu" if plan.device == "auto" else plan.device


def settled(plan: Plan, dataset: Dataset) -> Design:
    """The design of a plan for this data set.

    Raises:
        PlanError: a loss that cannot be trained on these classes, or two of the same; a model that cannot be
            made for rows of this shape.
    """
    counts = np.bincount(dataset.target, minlength=len(dataset.classes))
    learnt = _learnt(dataset, counts)
    by_classes = "balanced_accuracy" if uneven(counts) or uneven(learnt) else "accuracy"
    metric = by_classes if plan.metric == "auto" else plan.metric
    count = SEEDS_OF_A_SMALL_TABLE if len(dataset.target) < SMALL_TABLE else SEEDS_OF_A_LARGE_TABLE
    losses = plan.losses or tuple(Loss(expression=text) for text in default_losses(learnt))
    seeds = plan.seeds or tuple(range(count))
    if plan.tuning.enabled and set(seeds) & set(plan.tuning.seeds):
        shared = sorted(set(seeds) & set(plan.tuning.seeds))
        raise PlanError([f"the seeds {shared} both tune and compare; give tuning.seeds of their own"])
    rows = np.array(dataset.arrays(dataset.split(0)).features[:2])
    model, unseen = _model(plan, dataset, rows)
    return Design(
        data={
            "name": dataset.name,
            "sha256": dataset.sha256,
            "rows": len(dataset.target),
            "features": prod(dataset.input_shape),
            "input_shape": list(dataset.input_shape),
            "vocabulary": dataset.vocabulary,
            "classes": list(dataset.classes),
            "class_rows": counts.tolist(),
            "source": dataset.source,
            "resampled": dataset.resampled,
        },
        model=model,
        arms=arms(
            losses,
            plan.baseline,
            classes=len(counts),
            known=frozenset({"counts", "prior"}),
            weighted=dataset.sample_weight is not None,
        ),
        seeds=seeds,
        tuned=plan.tuning.enabled,
        tuning_seeds=plan.tuning.seeds if plan.tuning.enabled else (),
        learning_rates=learning_rates(plan),
        training=_training(plan.training, rows),
        metric=metric,
        labels_metric=by_classes if metric == "nll" else metric,
        margins={"labels": plan.margins.labels, "nll": plan.margins.nll},
        device=device(plan),
        notes=(*dataset.notes, *unseen, *_NOTES[plan.training.precision]),
        trials=plan.tuning.trials,
        looks=looks(plan, len(seeds)),
    )


def _learnt(dataset: Dataset, counts: np.ndarray) -> np.ndarray:
    """Rows of each class as a loss meets them: all, or the training rows where they were made uneven."""
    if dataset.alteration.imbalance == 1:
        return counts
    return np.bincount(dataset.target[dataset.split(0).train], minlength=len(counts))


def _model(plan: Plan, dataset: Dataset, rows: np.ndarray) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Name and options, tried on two rows; of the user's own the fingerprint too, and what it lacks."""
    name, options = plan.model.name, plan.model.options()
    classes = len(dataset.classes)
    if options.get("vocabulary", 0) is None:
        options["vocabulary"] = dataset.vocabulary
    try:
        made = build(name, classes=classes, input_shape=rows.shape[1:], seed=0, **options)
    except Exception as error:
        raise PlanError([f"model: {error}"]) from error
    try:
        with torch.no_grad():
            Classifier(made, classes=classes).eval()(torch.from_numpy(rows))
    except Exception as error:
        what = "token ids, which embedding_bag reads" if dataset.vocabulary else f"rows of type {rows.dtype}"
        raise PlanError([f"model: {name} cannot read {what}: {error}"]) from error
    on_cpu = plan.device in ("auto", "cpu")
    if plan.training.devices_per_run > 1 and on_cpu and batch_normalised(made):
        raise PlanError([f"training.devices_per_run: the batch normalisation of {name} needs GPUs for that"])
    if not is_named(name) or name.startswith(("timm:", "hf:")):
        return {"name": name, **options}, ()
    print_ = fingerprint(named(name))
    return {"name": name, **options, "source": print_.sha256}, print_.notes


def looks(plan: Plan, seeds: int) -> tuple[int, ...]:
    """When a study that adds seeds is judged; none for one that does not.

    Raises:
        PlanError: no room for a second look.
    """
    from infoloss.study.inference import schedule

    if plan.until_decided is None:
        return ()
    try:
        return schedule(seeds, plan.until_decided)
    except ValueError as error:
        raise PlanError([f"until_decided: {error}"]) from None


def learning_rates(plan: Plan) -> tuple[float, ...]:
    """The grid in ascending order, or the one learning rate of an untuned study."""
    optimiser = plan.training.optimiser
    if plan.tuning.enabled:
        return tuple(sorted(plan.tuning.learning_rates or LEARNING_RATES[optimiser]))
    return (plan.training.learning_rate or LEARNING_RATE[optimiser],)


def arms(
    losses: Sequence[Loss],
    baseline: Loss,
    *,
    classes: int | None,
    known: frozenset[str],
    weighted: bool = False,
) -> tuple[Arm, ...]:
    """The baseline, then the losses in their order.

    Args:
        losses: as written; the baseline may be among them.
        baseline: as written.
        classes: C, where it is known before training.
        known: names that the data will bind.
        weighted: whether the rows have weights.

    Raises:
        PlanError: a loss twice, two with one label, a regulariser alone, or a name without a value.
    """

    def made(loss: Loss) -> Arm:
        if is_named(loss.expression):
            return Arm(loss.name, _own(loss, classes, known, weighted))
        return Arm(loss.name, _checked(loss, classes, known))

    found, first = [made(loss) for loss in losses], made(baseline)
    same = [arm for arm in found if arm.expression == first.expression]
    others = [arm for arm in found if arm.expression != first.expression]
    for index, arm in enumerate(others):
        for earlier in others[:index]:
            if arm.expression == earlier.expression:
                raise PlanError(
                    [f"losses: {earlier.label!r} and {arm.label!r} are the same: {arm.expression}"]
                )
    if len(same) > 1:
        raise PlanError([f"losses: {same[0].label!r} stands there {len(same)} times"])
    result = (same[0] if same else first, *others)
    _refuse_equal_labels(result)
    return result


def _refuse_equal_labels(result: Sequence[Arm]) -> None:
    for index, arm in enumerate(result):
        for earlier in result[:index]:
            if arm.label == earlier.label:
                raise PlanError(
                    [f"losses: {arm.label!r} names both {earlier.expression} and {arm.expression}"]
                )


def _own(loss: Loss, classes: int | None, known: frozenset[str], weighted: bool) -> str:
    """The text of the user's own term or function."""
    try:
        text = designed(loss.expression, classes=classes, weighted=weighted)
    except (ValueError, ImportError) as error:
        raise PlanError([f"losses: {loss.name!r}: {error}"]) from error
    return text if is_own(text) else _checked(Loss(expression=text, label=loss.name), classes, known)


def _checked(loss: Loss, classes: int | None, known: frozenset[str]) -> str:
    """The canonical text, once the loss has been tried on a row of every class."""
    from infoloss import parse

    term = parse(loss.expression)
    if not term.has_loss:
        raise PlanError(
            [
                f"losses: {loss.name!r} is a regulariser alone; add it to a loss: "
                f'"cross_entropy + {loss.expression}"'
            ]
        )
    missing = sorted(term.unbound - known)
    if missing:
        raise PlanError([f"losses: {loss.name!r} has no value for {', '.join(missing)}; write a number"])
    if classes is not None:
        even = {"counts": [1.0] * classes, "prior": [1.0 / classes] * classes}
        bound = term.bind(**{name: even[name] for name in term.unbound})
        try:
            bound(torch.zeros(classes, classes), torch.arange(classes))
        except (ValueError, IndexError) as error:
            raise PlanError(
                [f"losses: {loss.name!r} cannot be trained on {classes} classes: {error}"]
            ) from None
    return str(term)


def _training(training: Training, rows: np.ndarray) -> dict[str, Any]:
    """As JSON has it, once augmentation and normalisation have been tried on two rows."""
    values = training.model_dump(mode="json", exclude={"learning_rate"})
    if training.optimiser != "sgd":
        del values["momentum"]
    if training.devices_per_run == 1:
        # Written where there are several: the identities of all other runs are as they were.
        del values["devices_per_run"]
    features = torch.tensor(rows)
    try:
        augmented(features, [augmentation(text) for text in training.augmentation], random_numbers(0, 0))
        normalisation(values["normalisation"], features)
    except (ValueError, RuntimeError) as error:
        raise PlanError([f"training: {error}"]) from error
    return values


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(inner) if isinstance(inner, tuple) else inner
    return flat
