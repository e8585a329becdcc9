"""Studies to report on: predictions drawn from a simple model of each loss, judged by the real inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infoloss.evaluation import confusion, contributions, per_class_recall, reliability, scores, tempered
from infoloss.study.across import across
from infoloss.study.analysis import Analysis, LossResult, Reference
from infoloss.study.collection import CollectionAnalysis
from infoloss.study.inference import Cell, Paired, Verdict, judge


@dataclass(frozen=True)
class Model:
    """How a loss's predictions differ: label, skill of the signal, sharpness of the probabilities."""

    label: str
    skill: float
    sharpness: float
    entries: tuple[str, ...] = ("cross_entropy",)


MODELS = (
    Model("cross_entropy", 3.05, 1.6),
    Model("cross_entropy(label_smoothing=0.1)", 3.12, 0.62),
    Model("min_ent", 3.05, 1.72, ("min_ent",)),
    Model("mix_ent", 3.02, 1.9, ("mix_ent",)),
    Model("squentropy", 3.16, 1.15, ("squentropy",)),
    Model("rescaled_square", 3.2, 0.33, ("rescaled_square",)),
    Model("focal(gamma=2)", 2.96, 0.8, ("focal",)),
    Model("cross_entropy + 0.1*entropy", 3.06, 1.75, ("cross_entropy", "entropy")),
)
QUESTIONS = (
    ("labels", "accuracy", 0.5),
    ("probabilities", "nll", 0.01),
    ("probabilities after temperature scaling", "nll_scaled", 0.01),
)
RATES = (0.0003, 0.001, 0.003, 0.01)


def study(
    models: tuple[Model, ...] = MODELS, *, seeds: int = 20, classes: int = 10, rows: int = 360
) -> Analysis:
    """A finished, tuned study of the models on one simulated data source."""
    predicted = {model.label: _runs(model, seeds, classes, rows) for model in models}
    losses = tuple(
        _result(model, index, predicted[model.label], classes) for index, model in enumerate(models)
    )
    verdicts = judge(
        [_cell(question, loss.label, predicted) for question in QUESTIONS for loss in losses[1:]]
    )
    return Analysis(
        title="Eight losses on digits" if len(models) == 8 else f"{len(models)} losses on simulated data",
        headline=_headline(verdicts, models[0].label),
        baseline=models[0].label,
        primary_metric="accuracy",
        margins={metric: margin for _, metric, margin in QUESTIONS},
        tuned=True,
        complete=True,
        losses=losses,
        references=_references(seeds, classes),
        verdicts=tuple(verdicts),
        data={
            "name": "digits",
            "rows": f"{rows * 5}",
            "features": "64",
            "classes": f"{classes}",
            "smallest class": f"{rows * 5 // classes} rows",
            "source": "UCI Optical Recognition of Handwritten Digits, through scikit-learn",
            "sha256": "8d1b5f4e0c7b9f0d7c51b3e1a8b22e97",
        },
        notes=(
            "3 constant columns dropped: pixel_0, pixel_32, pixel_39",
            "12 duplicate rows stand on both sides",
        ),
        protocol={
            "seeds": f"{seeds} final seeds, 3 tuning seeds",
            "split": "0.6/0.2/0.2, stratified, drawn anew for every seed",
            "model": "multilayer perceptron, 2 × 128, ReLU",
            "optimiser": "AdamW, weight decay 0.01, cosine schedule with warm-up",
            "epochs": "40, best validation epoch kept",
            "selection": "validation accuracy, ties by validation NLL",
        },
        environment={
            "infoloss": "0.1.0",
            "torch": "2.13.0",
            "numpy": "2.4.6",
            "python": "3.11.2",
            "device": "cpu",
        },
        command="infoloss compare digits --seeds 20",
        tuning_seeds=3,
    )


def scores_file(seeds: int = 8) -> Analysis:
    """What a table of scores from elsewhere gives: no predictions, no runs, a metric of the user's own."""
    full = study(MODELS[:3], seeds=seeds, rows=120)
    losses = tuple(
        replace(
            loss,
            scores={"accuracy": loss.scores["accuracy"], "word_error": 1 - loss.scores["accuracy"]},
            learning_rate=None,
            tuning={},
            per_class_recall=None,
            confusion=None,
            reliability=None,
            reliability_scaled=None,
            curve={},
            cost={},
        )
        for loss in full.losses
    )
    verdicts = tuple(verdict for verdict in full.verdicts if verdict.question == "labels")
    return replace(
        full, losses=losses, verdicts=verdicts, references=(), notes=(), protocol={}, environment={}
    )


def collection() -> CollectionAnalysis:
    """The study of five losses on six simulated data sets, which differ in their classes."""
    members = {
        f"{classes} classes": study(MODELS[:5], seeds=3, classes=classes, rows=60) for classes in range(2, 8)
    }
    folders = {name: name.replace(" ", "-") for name in members}
    return CollectionAnalysis(Path("simulated"), members, folders, across(members), "infoloss compare …")


@dataclass(frozen=True, eq=False)
class Run:
    """One seed of one loss: test rows and log-probabilities, and those of as many validation rows."""

    ids: np.ndarray
    target: np.ndarray
    log_probabilities: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]

    @property
    def decision(self) -> np.ndarray:
        return self.log_probabilities.argmax(axis=1)

    def contributions(self, metric: str) -> np.ndarray:
        values = contributions(
            self.log_probabilities, self.target, self.decision, metric, validation=self.validation
        )
        return 100 * values if metric == "accuracy" else values


def _runs(model: Model, seeds: int, classes: int, rows: int) -> list[Run]:
    """One a seed; losses share the draws, so differences are paired."""
    return [_run(model, np.random.default_rng([seed, classes]), classes, rows) for seed in range(seeds)]


def _run(model: Model, shared: np.random.Generator, classes: int, rows: int) -> Run:
    ids = shared.permutation(rows * 5)[:rows]
    target = shared.permutation(np.arange(2 * rows) % classes)
    noise = shared.normal(size=(2 * rows, classes))
    own = np.random.default_rng([rows, len(model.label), int(1000 * model.skill), int(ids[0])])
    signal = model.skill * np.eye(classes)[target]
    logits = 1.6 * model.sharpness * (signal + noise + 0.18 * own.normal(size=noise.shape))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return Run(ids, target[:rows], log_probabilities[:rows], (log_probabilities[rows:], target[rows:]))


def _result(model: Model, index: int, runs: list[Run], classes: int) -> LossResult:
    scored = [
        scores(run.log_probabilities, run.target, run.decision, validation=run.validation) for run in runs
    ]
    target = np.concatenate([run.target for run in runs])
    pooled = np.concatenate([run.log_probabilities for run in runs])
    scaled = np.concatenate(
        [
            tempered(run.log_probabilities, score["temperature"])
            for run, score in zip(runs, scored, strict=True)
        ]
    )
    epoch = np.arange(1, 41)
    decay = np.exp(-epoch / (5 + index))
    accuracy, nll = scored[0]["accuracy"], scored[0]["nll"]
    return LossResult(
        label=model.label,
        expression=model.label,
        formula="log Σ_j e^{z_j} − z_y",
        entries=model.entries,
        baseline=index == 0,
        learning_rate=0.003 if index != 5 else 0.01,
        tuning={rate: accuracy - 0.004 * abs(np.log(rate / 0.003)) for rate in RATES},
        seeds=tuple(range(len(runs))),
        failures=(),
        scores={key: np.array([score[key] for score in scored]) for key in scored[0]},
        per_class_recall=per_class_recall(target, pooled.argmax(axis=1), classes),
        confusion=confusion(target, pooled.argmax(axis=1), classes),
        reliability=reliability(pooled, target),
        reliability_scaled=reliability(scaled, target),
        curve={
            "epoch": epoch,
            "validation_nll": nll + 2.1 * decay + 0.0007 * index * epoch,
            "validation_accuracy": accuracy - 0.8 * decay,
            "train_loss": 2 * decay,
        },
        cost={
            "seconds": 1.9 + 0.07 * index,
            "step_milliseconds": 1.1 + 0.05 * index,
            "peak_memory_mib": 312.0,
            "best_epoch": 31.0 - index,
        },
    )


def _cell(question: tuple[str, str, float], label: str, predicted: dict[str, list[Run]]) -> Cell:
    about, metric, margin = question
    base = next(iter(predicted.values()))
    parts = tuple(
        mine.contributions(metric) - theirs.contributions(metric)
        for mine, theirs in zip(predicted[label], base, strict=True)
    )
    rows = len(base[0].ids)
    evidence = Paired(
        np.array([values.mean() for values in parts]),
        tuple(run.ids for run in base),
        parts,
        train_rows=3 * rows,
        test_rows=rows,
        resampled=True,
    )
    return Cell(about, metric, label, evidence, margin, higher_is_better=metric == "accuracy")


def _references(seeds: int, classes: int) -> tuple[Reference, ...]:
    draws = np.random.default_rng(7)
    return (
        Reference("majority class", {"accuracy": np.full(seeds, 1 / classes)}),
        Reference(
            "logistic regression",
            {
                "accuracy": 0.962 + 0.008 * draws.normal(size=seeds),
                "nll": 0.14 + 0.02 * draws.normal(size=seeds),
            },
        ),
        Reference(
            "histogram gradient boosting",
            {
                "accuracy": 0.969 + 0.007 * draws.normal(size=seeds),
                "nll": 0.12 + 0.02 * draws.normal(size=seeds),
            },
        ),
    )


def _headline(verdicts: list[Verdict], baseline: str) -> tuple[str, ...]:
    sentences = []
    for question, metric, _ in QUESTIONS:
        named = {
            outcome: [v.loss for v in verdicts if (v.question, v.outcome) == (question, outcome)]
            for outcome in ("better", "worse", "equivalent", "undecided")
        }
        found = "; ".join(f"{outcome}: {', '.join(losses)}" for outcome, losses in named.items() if losses)
        sentences.append(f"{question.capitalize()} ({metric}), against {baseline}: {found}.")
    return tuple(sentences)
