"""The options of a comparison: each names its place in the plan, which alone knows defaults and checks."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BaseModel

from infoloss.cli.complaints import InputError, reading
from infoloss.models import MODELS
from infoloss.study.design import default_losses
from infoloss.study.plan import Plan, PlanError
from infoloss.training import AUGMENTATIONS

__all__ = [
    "DataOptions",
    "JudgingOptions",
    "LossOptions",
    "TrainingOptions",
    "TuningOptions",
    "holds_tables",
    "plan",
    "seconds",
]


# ruff: noqa: RUF009 - this function makes dataclass fields


def option(place: str, help: str, **means: Any) -> Any:
    """A field for the plan's value at this place; None where it is not given.

    A flag that stands for a value says so: ``means=False``.
    """
    said = "" if "means" in means else _plan_says(place)
    return field(default=None, metadata={"place": place, "help": f"{help}{said}", **means})


def _plan_says(place: str) -> str:
    """Choices and default, as the plan has them."""
    model: type[BaseModel] = Plan
    *sections, key = place.split(".")
    for section in sections:
        model = type(model.model_fields[section].default)
    found = model.model_fields.get(key)
    if found is None:
        return ""
    choices = get_args(found.annotation) if get_origin(found.annotation) is Literal else ()
    default = found.default
    if isinstance(default, BaseModel):
        default = next(iter(default.model_dump().values()))
    if isinstance(default, tuple):
        default = len(default) if key == "seeds" else " ".join(map(str, default))
    said = [f"one of {', '.join(choices)}"] if choices else []
    said += [f"default: {default}"] if default not in (None, "") else []
    return f" [{'; '.join(said)}]" if said else ""


def _eight() -> str:
    """The losses of a study that names none."""
    even, uneven = default_losses([1, 1]), default_losses([2, 1])
    listed = "".join(f"\n  {text}" for text in even)
    swaps = [f"{new} takes the place of {old}" for old, new in zip(even, uneven, strict=True) if old != new]
    return f"Default, {len(even)}:{listed}\nWhere classes are uneven, {'; '.join(swaps)}."


def _augmentations() -> str:
    """The names, with the number that each has unless it is given."""
    return ", ".join(f"{name} ({kind.usual:g})" for name, kind in AUGMENTATIONS.items())


@Parameter(name="*", group=Group("Data", sort_key=2))
@dataclass(frozen=True)
class DataOptions:
    """Which columns are what, how images and texts are read, and what is done to training rows."""

    target: str | None = option("data.target", "Column to predict [default: a usual name, else the last].")
    drop: list[str] | None = option("data.drop", "Columns to leave out.")
    group: str | None = option("data.group", "Column of groups: none stands on both sides of a split.")
    order: str | None = option("data.order", "Column of times: the test rows are the latest.")
    sample_weight: str | None = option("data.sample_weight", "Column of weights; not a feature.")
    split: str | None = option("data.split", 'Fractions, "0.6/0.2/0.2", or a column of parts.')
    test: str | None = option("data.test", "A second table or file of texts whose rows are the test rows.")
    image_size: int | None = option("data.image_size", "Pixels a side [default: 64 for image files].")
    text: str | None = option("data.text", "Read texts, as hashed n-grams or as tokens (ids of words).")
    text_column: str | None = option("data.text_column", "Column of texts [default: the only one].")
    train_rows: int | None = option("data.train_rows", "Training rows that stay, each class in its share.")
    imbalance: float | None = option("data.imbalance", "Largest over smallest class of training rows.")
    imbalance_profile: str | None = option("data.imbalance_profile", "How the classes shrink.")
    label_noise: float | None = option("data.label_noise", "Share of training labels replaced by others.")
    noisy_labels: str | None = option("data.noisy_labels", "Training labels from an .npz, or FILE.npz:ARRAY.")


@Parameter(name="*", group=Group("Losses", sort_key=1))
@dataclass(frozen=True)
class LossOptions:
    """What is compared with what."""

    losses: list[str] | None = option("losses", f"Loss expressions. {_eight()}")
    baseline: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = option(
        "baseline", "The loss that the others are compared with."
    )


@Parameter(name="*", group=Group("Verdict", sort_key=3))
@dataclass(frozen=True)
class JudgingOptions:
    """How much evidence, and what counts."""

    seeds: int | None = option("seeds", "How many [default: 20 for tables under 10,000 rows, else 5].")
    until_decided: int | None = option(
        "until_decided", "Add seeds until every verdict is decided, at most to this number."
    )
    metric: str | None = option("metric", "What validation chooses by, and the verdict on labels is about.")
    margin: float | None = option("margins.labels", "Points of accuracy that make no difference.")
    margin_nll: float | None = option("margins.nll", "Nats of NLL that make no difference.")


@Parameter(name="*", group=Group("Training", sort_key=4))
@dataclass(frozen=True)
class TrainingOptions:
    """Model and optimiser, the same for every loss."""

    model: str | None = option(
        "model.name", f"{', '.join(MODELS)}; timm:NAME, hf:NAME, or your own module:function."
    )
    model_options: list[str] | None = option(
        "model.*", "Options of the model, as a study file has them: pretrained=true widths=[32,64]."
    )
    hidden: list[int] | None = option("model.hidden", "Widths of the hidden layers of the mlp.")
    optimiser: str | None = option("training.optimiser", "Optimiser.")
    epochs: int | None = option("training.epochs", "Passes over the training rows.")
    batch_size: int | None = option("training.batch_size", "Rows in a batch.")
    weight_decay: float | None = option("training.weight_decay", "Weight decay.")
    momentum: float | None = option("training.momentum", "Momentum of sgd.")
    warmup: float | None = option("training.warmup", "Share of the steps in which the learning rate rises.")
    schedule: str | None = option("training.schedule", "Of the learning rate, after it has risen.")
    augmentation: list[str] | None = option(
        "training.augmentation", f"Random changes of images, in order, as in rotation=10: {_augmentations()}."
    )
    normalisation: str | None = option(
        "training.normalisation", "Of images: auto takes the mean and spread of the training rows."
    )
    precision: str | None = option("training.precision", "Of the model; the loss is always in float32.")
    device: str | None = option("device", "Where to train; auto is the CPU for small models.")
    devices_per_run: int | None = option(
        "training.devices_per_run", "Cores or GPUs that share each batch of a run."
    )


@Parameter(name="*", group=Group("Tuning", sort_key=5))
@dataclass(frozen=True)
class TuningOptions:
    """The same grid of learning rates, and the same number of trials, for every loss."""

    tune: int | None = option("tuning.trials", "Trials of each loss beyond the grid, by Optuna.")
    no_tune: Annotated[bool | None, Parameter(negative=())] = option(
        "tuning.enabled", "One learning rate for all: no verdict on rank.", means=False
    )
    learning_rates: list[float] | None = option("tuning.learning_rates", "The grid, 4 or more.")
    tuning_seeds: int | None = option("tuning.seeds", "How many seeds choose.")
    learning_rate: float | None = option("training.learning_rate", "The one of all losses, with --no-tune.")


def plan(sources: Sequence[str], *sections: Any) -> Plan:
    """The plan of data sets, tables or a study file, with the options given.

    Several are a collection, to each of which the options for data apply.

    Raises:
        InputError: each mistake on a line, which names the option or the key of the file.
    """
    options, flags = _gathered(sections)
    if len(sources) == 1 and holds_tables(Path(sources[0])):
        sources = _tables(sources[0], options.setdefault("data", {}))
    source = sources[0] if sources else ""
    files = [each for each in sources if each.lower().endswith(".toml")]
    if files and len(sources) > 1:
        raise InputError(f"{files[0]}: a study file stands alone; it may name several data sets itself")
    if len(sources) > 1:
        shared = options.pop("data", {})
        options["collection"] = tuple({**shared, "source": each} for each in sources)
        flags["collection"] = "DATA"
    elif source and not files:
        options.setdefault("data", {})["source"] = source
        flags["data.source"] = "DATA"
    try:
        return Plan.read(source, options=options) if files else Plan.of(place=HERE, **options)
    except PlanError as error:
        mistakes = _without_consequences(error.mistakes)
        raise InputError("\n".join(_named(mistake, flags) for mistake in mistakes)) from error
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from error


def holds_tables(folder: Path) -> bool:
    """Whether a path is a folder with a table in it: a collection of data sets."""
    from infoloss.data.tables import SUFFIXES

    return folder.is_dir() and any(each.name.lower().endswith(SUFFIXES) for each in folder.iterdir())


def _tables(folder: str, data: dict[str, Any]) -> list[str]:
    """The tables of a folder that can be learnt from; why the others cannot is said."""
    from infoloss.data import collection

    data.setdefault("target", "target")
    with reading():
        found = collection(folder, target=data["target"])
    for name, why in found.left_out.items():
        print(f"note: {name} is left out: {why}", file=sys.stderr)
    return [str(member.path) for member in found.members]


HERE = "command line"


def _gathered(sections: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given, nested as in the plan; and the option for each place."""
    options: dict[str, Any] = {}
    flags = {}
    for section in filter(None, sections):
        for each in fields(section):
            value = getattr(section, each.name)
            place = each.metadata["place"]
            flags[place] = f"--{each.name.replace('_', '-')}"
            if value is not None:
                *outer, key = place.split(".")
                inner = options
                for name in outer:
                    inner = inner.setdefault(name, {})
                if key == "*":
                    inner |= _pairs(value)
                else:
                    inner[key] = (
                        tuple(value) if isinstance(value, list) else each.metadata.get("means", value)
                    )
    return options, flags


def _pairs(words: Sequence[str]) -> dict[str, Any]:
    """Keys with values as TOML has them; a word alone is text.

    Raises:
        InputError: no key, or no value.

    Example:
        >>> _pairs(["pretrained=true", "widths=[32, 64]", "size=tiny"])
        {'pretrained': True, 'widths': [32, 64], 'size': 'tiny'}
    """
    found = {}
    for word in words:
        key, _, value = word.partition("=")
        if not re.fullmatch(r"[^\W\d]\w*", key) or not value:
            raise InputError(f"--model-options: {word!r}: expected key=value, as in pretrained=true")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def _without_consequences(mistakes: Sequence[str]) -> list[str]:
    """A list with a wrong item is found too short as well: that is no mistake of its own.

    Example:
        >>> _without_consequences(["plan: losses[0]: unknown", "plan: losses: too short", "plan: seeds: 0"])
        ['plan: losses[0]: unknown', 'plan: seeds: 0']
    """
    lists = {found[1] for mistake in mistakes if (found := re.match(r"([^\[\n]*)\[\d+\]", mistake))}
    return [mistake for mistake in mistakes if not any(mistake.startswith(f"{name}: ") for name in lists)]


def _named(mistake: str, flags: Mapping[str, str]) -> str:
    """The plan's complaint with the option in place of the plan's key."""
    if not mistake.startswith(f"{HERE}: "):
        return mistake
    text = mistake.removeprefix(f"{HERE}: ")
    for place in sorted(flags, key=len, reverse=True):
        found = re.match(rf"{re.escape(place)}(\[\d+\])?(\.\w+)?: ", text)
        if found:
            return f"{flags[place]}: {text[found.end() :]}"
    return text


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def seconds(text: str) -> float:
    """A time limit in seconds.

    Raises:
        InputError: no number with its unit.

    Example:
        >>> seconds("30m"), seconds("1h30m"), seconds("1.5h")
        (1800.0, 5400.0, 5400.0)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InputError(f'--time-limit: {text!r}: expected a time with its unit, as in "30m" or "1h30m"')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
