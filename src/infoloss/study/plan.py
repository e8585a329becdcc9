"""The plan of a study: what the user asked for, typed and checked, from TOML, the command line or a call."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from infoloss.data import Dataset, altered, load
from infoloss.models import MODELS
from infoloss.named import is_named
from infoloss.study.model_options import checked_options, is_model
from infoloss.study.plan_errors import PlanError, complaints, nearest
from infoloss.training import Settings, augmentation

__all__ = ["Data", "Loss", "Margins", "Model", "Plan", "PlanError", "Training", "Tuning"]

FIRST_TUNING_SEED = 1_000_000
"""Tuning seeds given as a number start here: no seed of the comparison chooses its own learning rate."""

Metric = Literal["auto", "accuracy", "balanced_accuracy", "nll"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _refuse_repeats(name: str, values: tuple[Any, ...]) -> None:
    if len(set(values)) < len(values):
        repeated = sorted({value for value in values if values.count(value) > 1})
        raise ValueError(f"{name} holds {repeated} more than once")


class Section(BaseModel):
    """A part of a plan: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """What is learnt from; the options are those of ``infoloss.data.load`` and ``infoloss.data.altered``."""

    source: Annotated[
        str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)
    ] = "digits"
    target: str | None = None
    drop: tuple[str, ...] = ()
    group: str | None = None
    order: str | None = None
    sample_weight: str | None = None
    split: str | None = None
    test: str | None = None
    image_size: Annotated[int, Field(gt=0)] | None = None
    text: Literal["hashed", "tokens"] | None = None
    text_column: str | None = None
    train_rows: Annotated[int, Field(gt=0)] | None = None
    imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    imbalance_profile: Literal["long_tail", "step"] = "long_tail"
    label_noise: Share = 0.0
    noisy_labels: str | None = None

    def dataset(self) -> Dataset:
        """The data set, read and altered.

        Raises:
            ValueError: data that cannot be learnt from, or options that do not belong to them.
            OSError: a known set that is neither here nor to be had.
        """
        options = self.model_dump()
        noise = {
            name: options.pop(name) for name in ("train_rows", "imbalance", "label_noise", "noisy_labels")
        }
        profile = options.pop("imbalance_profile")
        return altered(load(options.pop("source"), **options), profile=profile, **noise)


def _model_name(name: str) -> str:
    if not is_model(name):
        known = ", ".join(f'"{model}"' for model in MODELS)
        hint = nearest(name, MODELS)
        others = f"timm:NAME, hf:NAME or module:function{';' + hint if hint else ''}"
        raise ValueError(f"{name!r} is none of {known}, nor {others}")
    return name


class Model(Section):
    """A name that ``infoloss.models.build`` knows; every other key is an option of that model."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, AfterValidator(_model_name)] = "mlp"
    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (256,)

    @model_validator(mode="after")
    def _options_belong_to_the_model(self) -> Self:
        self.options()
        return self

    def options(self) -> dict[str, Any]:
        """What the model's function takes beside classes and the shape of a row, defaults included."""
        hidden = {"hidden": self.hidden} if "hidden" in self.model_fields_set else {}
        return checked_options(self.name, {**hidden, **(self.model_extra or {})})


class Loss(Section):
    """A loss expression, or ``module:object`` for one's own, and its short name (its text unless given)."""

    expression: str
    label: str = ""

    @model_validator(mode="after")
    def _parses(self) -> Self:
        from infoloss import parse

        if not is_named(self.expression):
            parse(self.expression)
        return self

    @property
    def name(self) -> str:
        return self.label or self.expression


class Pixels(Section):
    """Mean and spread that images are normalised with: a number a channel, of pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[Positive, ...]


class Training(Section):
    """How every model is trained. ``learning_rate`` is for studies without tuning.

    ``normalisation`` of images: "auto" takes the training rows' mean and spread; tables have theirs already.
    ``devices_per_run`` of 2 or more shares the rows of each batch among as many processes.
    """

    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive | None = None
    epochs: Annotated[int, Field(gt=0)] = Settings.epochs
    batch_size: Annotated[int, Field(gt=0)] = Settings.batch_size
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Settings.weight_decay
    momentum: Share = Settings.momentum
    warmup: Share = Settings.warmup
    schedule: Literal["cosine", "constant"] = "cosine"
    augmentation: tuple[Annotated[str, AfterValidator(lambda text: str(augmentation(text)))], ...] = ()
    normalisation: Literal["auto", "none", "imagenet"] | Pixels = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    devices_per_run: Annotated[int, Field(gt=0)] = 1

    @model_validator(mode="after")
    def _each_augmentation_once(self) -> Self:
        _refuse_repeats("augmentation", tuple(text.partition("=")[0] for text in self.augmentation))
        return self

    @model_validator(mode="after")
    def _rows_for_every_device(self) -> Self:
        if self.devices_per_run > self.batch_size:
            raise ValueError(
                f"devices_per_run is {self.devices_per_run}, and a batch has {self.batch_size} rows to share"
            )
        return self


class Tuning(Section):
    """The same learning rates for every loss, the baseline included, on seeds of their own.

    ``trials`` of each loss go beyond the grid: learning rate, weight decay, the loss's own parameters.
    """

    enabled: bool = True
    trials: Annotated[int, Field(ge=0)] = 0
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=4)] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = tuple(
        range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + 3)
    )

    @model_validator(mode="before")
    @classmethod
    def _number_of_seeds(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and _is_count(value.get("seeds")):
            first, count = FIRST_TUNING_SEED, value["seeds"]
            return {**value, "seeds": tuple(range(first, first + count))}
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_repeats("learning_rates", self.learning_rates or ())
        _refuse_repeats("seeds", self.seeds)
        if self.trials and not self.enabled:
            raise ValueError(f"{self.trials} trials are tuning: leave enabled = false (--no-tune) out")
        return self


class Margins(Section):
    """What counts as no difference, fixed before running: points of (balanced) accuracy, and nats of NLL.

    .01 nats is a change of 1 % in the (geometric) mean probability of the true label.
    """

    labels: Positive = 0.5
    nll: Positive = 0.01


def _section(key: str) -> BeforeValidator:
    """Lets a section be given by its main key alone: ``data = "digits"``, ``tuning = false``."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str | bool | Path) else value)


def _losses(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple({"label": str(label), "expression": _text(loss)} for label, loss in value.items())
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return tuple(loss if isinstance(loss, Mapping | Loss) else {"expression": _text(loss)} for loss in value)


def _text(loss: Any) -> Any:
    """Terms and functions come as text, through which they are stored; the rest is left to be refused."""
    from infoloss import parse
    from infoloss.terms import Term

    if not isinstance(loss, Term):
        return _path(loss) if callable(loss) else loss
    try:
        if parse(str(loss)) == loss:
            return str(loss)
    except ValueError:
        pass
    raise ValueError(f"the term {loss} cannot be written as an expression: use numbers for its tensors")


def _path(loss: Any) -> str:
    """``module:function``, by which worker processes find a function."""
    path = f"{loss.__module__}:{getattr(loss, '__qualname__', '')}"
    if loss.__module__ == "__main__" or not is_named(path):
        raise ValueError(f"{loss!r}: write the loss in a module, and give module:function or import it there")
    return path


def _seeds(value: Any) -> Any:
    if isinstance(value, int | float | str):
        if not _is_count(value):
            raise ValueError(f"{value!r}: should be a positive whole number or a list of whole numbers")
        return tuple(range(value))  # type: ignore[arg-type]
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class Plan(Section):
    """A study as asked for. What is left open (None, "auto") is settled by the data: see ``Design``.

    Args:
        data: source and options.
        collection: several of them, in the place of ``data``: a study of each, and what they say together.
        model: name and options.
        losses: expressions, or functions of one's own; eight that suit the data unless given.
        baseline: what the others are compared with; always trained.
        seeds: how many, or which; 20 for tables under 10,000 rows and 5 otherwise unless given.
        until_decided: seeds are added until every verdict is decided, at most to this number.
        metric: what validation chooses by. "auto": accuracy, or balanced accuracy where classes are uneven.
        margins: what counts as no difference.
        training: optimiser, epochs, ….
        tuning: learning rates and seeds of the tuning.
        device: "auto" takes the CPU, which is faster for tables and small models.

    Example:
        >>> plan = Plan.of(data="wine", losses=["focal"], seeds=3, tuning=False)
        >>> plan.seeds, plan.data.source, plan.tuning.enabled
        ((0, 1, 2), 'wine', False)
        >>> Plan.of(trainig={"epochs": 3})
        Traceback (most recent call last):
        ...
        infoloss.study.plan_errors.PlanError: plan: trainig: unknown key; did you mean "training"? ...
    """

    data: Annotated[Data, _section("source")] = Data()
    collection: Annotated[tuple[Annotated[Data, _section("source")], ...], Field(min_length=2)] | None = None
    model: Annotated[Model, _section("name")] = Model()
    losses: Annotated[tuple[Loss, ...], Field(min_length=1), BeforeValidator(_losses)] | None = None
    baseline: Annotated[Loss, _section("expression")] = Loss(expression="cross_entropy")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), BeforeValidator(_seeds)] | None = None
    until_decided: Annotated[int, Field(gt=2)] | None = None
    metric: Metric = "auto"
    margins: Margins = Margins()
    training: Training = Training()
    tuning: Annotated[Tuning, _section("enabled")] = Tuning()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _refuse_repeats("seeds", self.seeds or ())
        if self.collection and "data" in self.model_fields_set:
            raise ValueError("data and collection: give one data set, or several")
        _refuse_repeats("collection", tuple(data.source for data in self.collection or ()))
        shared = sorted(set(self.seeds or ()) & set(self.tuning.seeds))
        if shared and self.tuning.enabled:
            raise ValueError(f"the seeds {shared} both tune and compare; give tuning.seeds of their own")
        if self.tuning.enabled and self.training.learning_rate is not None:
            raise ValueError(
                "training.learning_rate is for studies without tuning: set tuning = false (--no-tune), "
                "or give tuning.learning_rates (--learning-rates)"
            )
        if self.device == "mps" and self.training.devices_per_run > 1:
            raise ValueError("training.devices_per_run: a machine has one device of type mps")
        return self

    @classmethod
    def of(cls, *, place: str = "plan", **options: Any) -> Plan:
        """A plan from keyword arguments; sections may be given as mappings.

        Raises:
            PlanError: names each wrong key or value, its place, what was expected and the nearest right name.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise PlanError(complaints(cls, error, lambda _: place)) from None

    @classmethod
    def read(
        cls, path: Path | str, *, options: Mapping[str, Any] | None = None, place: str = "command line"
    ) -> Plan:
        """A plan from a TOML file; ``options`` (nested mappings, from ``place``) overrule the file.

        Raises:
            PlanError: as ``of``, or the file's own mistake with its line.
            OSError: the file cannot be read.
        """
        try:
            written = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PlanError([f"{path}: not a TOML file: {error}"]) from None
        given = dict(options or {})
        try:
            return cls.model_validate(_merged(written, given))
        except ValidationError as error:
            places = complaints(cls, error, lambda at: place if _holds(given, at) else str(path))
            raise PlanError(places) from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` wins key by key; a section given by its main key alone is opened first."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        main = {"data": "source", "model": "name", "tuning": "enabled"}.get(key)
        if main and isinstance(old, str | bool):
            old = {main: old}
        if main and isinstance(value, str | bool) and old is not None:
            value = {main: value}
        both = isinstance(old, Mapping) and isinstance(value, Mapping) and key != "losses"
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _holds(options: Mapping[str, Any], place: tuple[Any, ...]) -> bool:
    current: Any = options
    for key in place:
        if not isinstance(current, Mapping):
            return True
        if key not in current:
            return False
        current = current[key]
    return bool(place)
