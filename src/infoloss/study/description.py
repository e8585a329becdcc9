"""A study in words: title, data, protocol, environment, notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infoloss.data.names import counted
from infoloss.study.design import Design
from infoloss.study.grammar import listed, spelt
from infoloss.study.inference import alpha_at

if TYPE_CHECKING:
    from infoloss.study.findings import Findings

__all__ = ["alteration", "data", "environment", "formula", "model", "notes", "parts", "protocol", "title"]


def title(design: Design) -> str:
    """``"Eight losses on digits"``."""
    return f"{spelt(len(design.arms), 'loss').capitalize()} on {design.data['name']}"


def formula(entries: Iterable[str]) -> str:
    """The catalogue's formulas of the entries of an expression."""
    from infoloss import catalogue

    known = [catalogue[name] for name in entries if name in catalogue]
    if len(known) == 1:
        return known[0].formula
    return "; ".join(f"{entry.name}: {entry.formula}" for entry in known)


def data(design: Design) -> dict[str, str]:
    """Facts about the data set; what is not known is left out."""
    about = design.data
    facts = {"name": about["name"]}
    if "rows" in about:
        rows, names = about["class_rows"], about["classes"]
        smallest, largest = rows.index(min(rows)), rows.index(max(rows))
        facts |= {
            "rows": f"{about['rows']:,}",
            "features": " × ".join(map(str, about["input_shape"]))
            if len(about.get("input_shape", ())) > 1
            else f"{about['features']:,}",
            "classes": str(len(names)),
            "smallest class": f"{names[smallest]}, {min(rows):,} rows",
            "largest class": f"{names[largest]}, {max(rows):,} rows",
            "class names": ", ".join(names),
        }
    return facts | {key: about[key] for key in ("source", "sha256") if about.get(key)}


def alteration(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What was done to training rows on purpose, as the runs have it; empty where nothing was."""
    altered = (found for record in records if (found := record["config"].get("alteration")))
    made: dict[str, Any] = next(altered, {})
    said = []
    if "imbalance" in made:
        said.append(f"imbalance {made['imbalance']:g} ({made['profile'].replace('_', ' ')})")
    if "label_noise" in made:
        said.append(f"{made['label_noise']:.3g} of the labels replaced by other classes")
    if "noisy_labels" in made:
        said.append(f"labels from {made['noisy_labels']['name']}")
    return {"training rows altered": ", ".join(said)} if said else {}


def parts(findings: Findings) -> dict[str, str]:
    """How many rows validate and test a run; empty while none is finished."""
    done = next((run for runs in findings.scored.values() for run in runs.values()), None)
    if done is None:
        return {}
    return {"rows of a run": f"{done.validation_rows:,} for validation, {len(done.target):,} for the test"}


def protocol(design: Design) -> dict[str, str]:
    """How the study was done, an entry a decision."""
    metric = design.metric.replace("_", " ")
    selection = (
        f"best validation epoch by {metric}, ties by validation NLL; the test rows are read once, after"
    )
    if "function" in design.model:
        how = {
            "training": f"the function {design.model['function']}",
            "split": "the function's own",
            "selection": "the function's own",
        }
    else:
        how = {"split": _split(design), **_training(design), "selection": selection}
    return {
        "seeds": f"{len(design.seeds)} ({_ranges(design.seeds)})",
        **_looks(design),
        **how,
        "tuning": _tuning(design, metric),
        "margins": f"{design.margins['labels']:g} points of {design.labels_metric.replace('_', ' ')}, "
        f"{design.margins['nll']:g} nats of NLL; fixed before running",
    }


def _looks(design: Design) -> dict[str, str]:
    if not design.looks:
        return {}
    numbers = ", ".join(map(str, design.looks))
    rates = ", ".join(f"{100 * alpha_at(design.looks, look):.3g}" for look in design.looks)
    return {
        "looks": f"seeds are added until every verdict is decided: judged at {numbers} seeds with error "
        f"rates of {rates} %, 5 % together; this is the look at {len(design.seeds)}"
    }


def _split(design: Design) -> str:
    if design.data["resampled"]:
        return "drawn anew for every seed, the same for all losses"
    return "the test rows are fixed by the data; the same for all losses"


def _training(design: Design) -> dict[str, str]:
    training = design.training
    schedule = _SCHEDULES[training.get("schedule", "cosine")]
    momentum = f", momentum {training['momentum']:g}" if "momentum" in training else ""
    name = {"adamw": "AdamW", "sgd": "SGD"}[training["optimiser"]]
    return {
        "model": model(design),
        "optimiser": f"{name}{momentum}, weight decay {training['weight_decay']:g}, "
        f"batches of {training['batch_size']}, {100 * training['warmup']:.3g} % warm-up, then {schedule}",
        "epochs": str(training["epochs"]),
        "precision": f"{training.get('precision', 'float32')} on {_devices(design)}",
        **_images(training),
    }


def _devices(design: Design) -> str:
    count = design.training.get("devices_per_run", 1)
    return design.device if count == 1 else f"{design.device}, each batch shared by {count} processes"


_SCHEDULES = {"cosine": "cosine to 0", "constant": "constant"}


def _images(training: Mapping[str, Any]) -> dict[str, str]:
    """Augmentation and normalisation, where there are any."""
    found = {}
    if training.get("augmentation"):
        found["augmentation"] = ", ".join(training["augmentation"])
    asked = training.get("normalisation", "auto")
    if isinstance(asked, Mapping):
        found["normalisation"] = (
            f"mean {_numbers(asked['mean'])}, standard deviation {_numbers(asked['std'])}"
        )
    elif asked != "auto":
        found["normalisation"] = asked
    return found


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


_MODELS = {
    "linear": "linear",
    "mlp": "multilayer perceptron",
    "convnet": "convolutional network",
    "keras_cifar10": "the convolutional network of Keras's CIFAR-10 comparison",
    "vgg5": "VGG-5",
    "spinal_vgg": "Spinal-VGG",
    "vgg11_bn": "VGG-11 with batch normalisation",
    "resnet20": "ResNet-20",
    "resnet32": "ResNet-32",
    "resnet18": "ResNet-18",
    "embedding_bag": "bag of embeddings",
}


def model(design: Design) -> str:
    """``"multilayer perceptron, hidden 256 × 64"``: the model's name in words, and its options."""
    name = design.model["name"]
    options = [
        _option(key, value)
        for key, value in design.model.items()
        if key not in ("name", "source") and value is not False
    ]
    return ", ".join([_MODELS.get(name, name), *options])


def _option(key: str, value: Any) -> str:
    words = key.replace("_", " ")
    if value is True:
        return words
    return f"{words} {' × '.join(map(str, value)) if isinstance(value, list) else value}"


def _tuning(design: Design, metric: str) -> str:
    rates = ", ".join(f"{rate:g}" for rate in design.learning_rates)
    if not design.tuned:
        return f"none; learning rate {rates}" if rates else "none by infoloss"
    again = (
        "; their splits are drawn from the same rows as those of the other seeds"
        if design.data.get("resampled")
        else ""
    )
    trials = (
        f"; then {counted(design.trials, 'trial')} of every loss, the baseline included, over "
        "learning rate, weight decay (of infoloss's own training) and the loss's parameters"
        if design.trials
        else ""
    )
    return (
        f"learning rate from {rates} for every loss{trials}; by mean validation {metric} over "
        f"{counted(len(design.tuning_seeds), 'tuning seed')}, ties by NLL{again}"
    )


def _ranges(seeds: Sequence[int]) -> str:
    """``"0–4, 7"``."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def environment(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Versions of all runs; several values of one stand side by side."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in record["versions"].items():
            found.setdefault(key, {})[value] = None
    return {key: " | ".join(values) for key, values in found.items()}


def notes(findings: Findings) -> tuple[str, ...]:
    """What a reader should know: about the data, the tuning, and the records."""
    design = findings.design
    found = list(design.notes)
    found += _edges(findings) if not design.trials else []
    for arm in design.arms:
        if unpaired := findings.unpaired(arm):
            found.append(
                f"{arm.label}: in the seeds {_ranges(unpaired)} the test labels differ from the baseline's; "
                "these seeds are not paired and are left out"
            )
    mixed = {key: value for key, value in environment(findings.used).items() if " | " in value}
    if mixed:
        listed = "; ".join(f"{key} {value}" for key, value in mixed.items())
        found.append(f"the runs come from different environments: {listed}")
    found += [metric.note for metric in findings.archive.metrics]
    if damaged := findings.archive.damaged:
        found.append(f"damaged and left out: {counted(len(damaged), 'record')}; resuming runs them again")
    return tuple(found)


def _edges(findings: Findings) -> list[str]:
    """Which losses chose a learning rate at an end of the grid."""
    chosen = [(arm.label, made) for arm, made in findings.choices.items() if made is not None]
    found = []
    for edge in ("lowest", "highest"):
        losses = {label: made.learning_rate for label, made in chosen if made.edge == edge}
        if losses:
            rate = next(iter(losses.values()))
            found.append(
                f"{rate:g}, the {edge} learning rate of the grid, was chosen for {listed(list(losses))}: "
                "a wider grid might serve better"
            )
    return found
