"""Studies of trained classifiers: A/A on digits and wine, three losses on a known population."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from error_rates_training import LOSSES, Recipe, Splits, stratified_splits, trained_log_probabilities

from infoloss.study.inference import Paired

SEEDS = 20
FRESH = 1000  # rows of the population on which a model's true score is measured


@dataclass(frozen=True)
class Studies:
    """One condition: `losses` against cross entropy; two cross entropies differ in their seeds only."""

    data: str
    rows: int
    resampled: bool
    losses: tuple[str, ...]
    recipe: Recipe
    studies: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.rows}-{'resampled' if self.resampled else 'fixed'}"

    def file(self, store: Path, study: int) -> Path:
        return store / self.name / f"{study:04d}.npz"


CONDITIONS = (
    Studies("digits", 1797, True, ("cross_entropy",), Recipe(), 200),
    Studies("gaussian digits", 300, True, ("smoothed", "square"), Recipe(epochs=25, batch=32), 300),
    Studies("digits", 1797, False, ("cross_entropy",), Recipe(), 200),
    Studies("wine", 178, True, ("cross_entropy",), Recipe(hidden=16, epochs=20, batch=32), 200),
    Studies("gaussian digits", 1000, True, ("smoothed", "square"), Recipe(), 150),
    Studies("gaussian digits", 300, False, ("smoothed", "square"), Recipe(epochs=25, batch=32), 150),
)


def run(condition: Studies, store: Path) -> None:
    """Train what is not there yet; a study appears whole or not at all."""
    for study in range(condition.studies):
        path = condition.file(store, study)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_study(condition, study))
        unfinished.replace(path)
        print(f"{condition.name}: study {study + 1} of {condition.studies}", flush=True)


def _study(condition: Studies, study: int) -> dict[str, np.ndarray]:
    features, target = _data(condition, study)
    splits = stratified_splits(target[: condition.rows], SEEDS, seed=study, same_test=not condition.resampled)
    seeds = np.arange(SEEDS) + 100_000 * study
    baseline = _scores(condition, features, target, splits, seeds, "cross_entropy")
    kept: dict[str, np.ndarray] = {"test": splits.test.astype(np.int16)}
    for loss in condition.losses:
        other = seeds + 50_000 if loss == "cross_entropy" else seeds
        found = _scores(condition, features, target, splits, other, loss)
        for metric, ours, theirs in zip(("accuracy", "nll"), found, baseline, strict=True):
            difference = ours - theirs  # (M, N + fresh)
            test = np.take_along_axis(difference, splits.test, 1)
            kept[f"{loss} {metric}"] = test.astype(np.int8 if metric == "accuracy" else np.float32)
            if condition.rows < len(target):
                kept[f"{loss} {metric} truth"] = difference[:, condition.rows :].mean(1)
    return kept


def _scores(
    condition: Studies, features: np.ndarray, target: np.ndarray, splits: Splits, seeds: np.ndarray, loss: str
) -> tuple[np.ndarray, np.ndarray]:
    log_p = trained_log_probabilities(features, target, splits, seeds, LOSSES[loss], condition.recipe)
    nll = -np.take_along_axis(log_p, target[None, :, None], 2)[..., 0].astype(np.float64)
    return (log_p.argmax(-1) == target).astype(np.float64), nll


def _data(condition: Studies, study: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) features and (N,) labels; drawn rows are followed by fresh ones of the same population."""
    from sklearn.datasets import load_digits, load_wine

    features, target = (
        load_wine(return_X_y=True) if condition.data == "wine" else load_digits(return_X_y=True)
    )
    if condition.data.startswith("gaussian"):
        generator = np.random.default_rng(study)
        drawn = generator.integers(0, 10, condition.rows + FRESH)
        noise = generator.standard_normal((len(drawn), features.shape[1]))
        values = np.empty_like(noise)
        for label in range(10):
            own = features[target == label]
            root = np.linalg.cholesky(np.cov(own.T) + 0.5 * np.eye(own.shape[1]))
            values[drawn == label] = own.mean(0) + noise[drawn == label] @ root.T
        features, target = values, drawn
    return features.astype(np.float32), target.astype(np.int64)


def evidence(condition: Studies, store: Path, loss: str, metric: str, seeds: int) -> Iterator[Paired]:
    """The first `seeds` seeds of every stored study."""
    unit = 100.0 if metric == "accuracy" else 1.0
    for path in sorted((store / condition.name).glob("*.npz")):
        with np.load(path) as kept:
            test = kept["test"][:seeds]
            values = unit * kept[f"{loss} {metric}"][:seeds].astype(np.float64)
        yield Paired(
            differences=values.mean(1),
            examples=tuple(test),
            contributions=tuple(values),
            train_rows=round(0.6 * condition.rows),
            test_rows=test.shape[1],
            resampled=condition.resampled,
        )


def truth(condition: Studies, store: Path, loss: str, metric: str) -> tuple[float, float]:
    """The population's difference, mean over data sets and seeds, and its standard error; A/A: 0."""
    if loss == "cross_entropy":
        return 0.0, 0.0
    unit, means = 100.0 if metric == "accuracy" else 1.0, []
    for path in sorted((store / condition.name).glob("*.npz")):
        with np.load(path) as kept:
            means.append(unit * float(kept[f"{loss} {metric} truth"].mean()))
    return float(np.mean(means)), float(np.std(means, ddof=1) / np.sqrt(len(means)))
