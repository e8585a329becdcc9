"""The script that measures the error rates: its generator, small classifiers, tables, resuming."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import error_rates  # noqa: E402
import error_rates_methods  # noqa: E402
import error_rates_studies  # noqa: E402
from error_rates_generator import Design, Source, drawn_evidence  # noqa: E402
from error_rates_table import BEGIN, END, write_tables  # noqa: E402
from error_rates_training import LOSSES, Recipe, Splits, stratified_splits, trained_log_probabilities  # noqa: E402


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = np.arange(120) % 3
    return (generator.standard_normal((120, 4)) + 3 * target[:, None]).astype(np.float32), target


class TestGenerator:
    @pytest.mark.parametrize("shift", [0.0, 0.6, 3.0])
    def test_stated_difference_is_the_mean_of_the_draws(self, shift: float) -> None:
        source = Source("accuracy", hard=0.4, taste=2.0, seeds=0.5)
        generator = np.random.default_rng(1)
        design = Design(rows=400, seeds=3, resampled=True)
        draws = [drawn_evidence(source, design, shift, generator).differences.mean() for _ in range(600)]
        error = np.std(draws) / np.sqrt(len(draws))
        assert abs(np.mean(draws) - source.difference(shift)) < 3.5 * error

    def test_shift_inverts_the_difference(self) -> None:
        source = Source("accuracy", hard=0.03, taste=2.0, seeds=0.5)
        assert source.difference(source.shift(0.5)) == pytest.approx(0.5, abs=1e-9)

    def test_rows_recur(self) -> None:
        source = Source("nll", hard=1.0, taste=1.0, seeds=0.1)
        evidence = drawn_evidence(source, Design(150, 20, True), 0.0, np.random.default_rng(0))
        rows, counts = np.unique(np.concatenate(evidence.examples), return_counts=True)
        assert rows.max() < 150
        assert counts.mean() > 3
        fixed = drawn_evidence(source, Design(150, 4, False), 0.0, np.random.default_rng(0))
        assert all(np.array_equal(ids, fixed.examples[0]) for ids in fixed.examples)


class TestRates:
    def test_seeds_alone_are_wrong_on_a_fixed_test_set_and_crossed_is_not(self) -> None:
        found = error_rates.generated("nll, seeds matter", Design(150, 10, False), False, repetitions=150)
        crossed, seeds = found["crossed"], found["seeds t"]
        assert crossed["n"] == 150
        assert crossed["covered"] >= 0.95 * 150 - 3.5 * np.sqrt(0.95 * 0.05 * 150)
        assert seeds["covered"] < 0.85 * 150
        assert crossed["nonzero"] == 150 - crossed["covered"]

    def test_counts(self) -> None:
        count = error_rates.Count()
        count.add((-1.0, 3.0), (-0.4, 0.4), true=2.0, margin=0.5)
        count.add((1.0, 3.0), (-0.6, 0.4), true=0.5, margin=0.5)
        assert count.record() == {"n": 2, "covered": 1, "nonzero": 1, "equivalent": 1, "half_width": 1.5}

    def test_examples_t_is_a_t_over_rows_when_each_row_appears_once(self) -> None:
        from scipy import stats

        from infoloss.study.inference import Paired

        values = np.random.default_rng(0).standard_normal((2, 15))
        evidence = Paired(
            values.mean(1), (np.arange(15), np.arange(15, 30)), tuple(values), 60, 15, resampled=True
        )
        expected = stats.ttest_1samp(values.ravel(), 0.0).confidence_interval(0.95)
        assert error_rates_methods.examples_t(evidence, 0.95) == pytest.approx(tuple(expected))

    def test_generator_resumes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        conditions = [("nll, seeds matter", Design(150, 3, False), margin) for margin in (False, True)]
        monkeypatch.setattr(error_rates, "_conditions", lambda: iter(conditions[:1]))
        results = tmp_path / "generator.json"
        error_rates.run_generator(results, repetitions=3)
        first = json.loads(results.read_text())["rates"]
        monkeypatch.setattr(error_rates, "_conditions", lambda: iter(conditions))
        error_rates.run_generator(results, repetitions=2)
        both = json.loads(results.read_text())["rates"]
        assert [rates["crossed"]["n"] for rates in both.values()] == [3, 2]
        assert both[next(iter(first))] == first[next(iter(first))]


class TestStudies:
    def test_models_trained_side_by_side_are_the_models_trained_alone(
        self, blobs: tuple[np.ndarray, np.ndarray]
    ) -> None:
        features, target = blobs
        recipe = Recipe(hidden=5, epochs=4, batch=16)
        splits = stratified_splits(target, 3, seed=0)
        seeds, loss = np.array([7, 8, 9]), LOSSES["cross_entropy"]
        together = trained_log_probabilities(features, target, splits, seeds, loss, recipe)
        alone = trained_log_probabilities(
            features,
            target,
            Splits(splits.train[1:2], splits.validation[1:2], splits.test[1:2]),
            seeds[1:2],
            loss,
            recipe,
        )
        assert together[1] == pytest.approx(alone[0], abs=1e-4)
        assert not np.allclose(together[0], together[1], atol=1e-2)

    def test_training_learns(self, blobs: tuple[np.ndarray, np.ndarray]) -> None:
        features, target = blobs
        splits = stratified_splits(target, 2, seed=0)
        for loss in LOSSES.values():
            log_p = trained_log_probabilities(features, target, splits, np.arange(2), loss, Recipe(epochs=30))
            assert (log_p.argmax(-1) == target).mean() > 0.9

    def test_splits_cover_all_rows_once_and_keep_the_classes(
        self, blobs: tuple[np.ndarray, np.ndarray]
    ) -> None:
        _, target = blobs
        splits = stratified_splits(target, 2, seed=3)
        for model in range(2):
            parts = [splits.train[model], splits.validation[model], splits.test[model]]
            assert sorted(np.concatenate(parts)) == list(range(120))
            assert np.bincount(target[splits.test[model]]).tolist() == [8, 8, 8]
        assert not np.array_equal(splits.test[0], splits.test[1])

    def test_studies_are_stored_once_and_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        condition = error_rates_studies.Studies(
            "wine", 178, True, ("cross_entropy", "square"), Recipe(hidden=4, epochs=2, batch=64), 2
        )
        monkeypatch.setattr(error_rates_studies, "SEEDS", 3)
        error_rates_studies.run(condition, tmp_path)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
        error_rates_studies.run(condition, tmp_path)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == written
        studies = list(error_rates_studies.evidence(condition, tmp_path, "square", "accuracy", 3))
        assert [study.seeds for study in studies] == [3, 3]
        assert not studies[0].identical


def test_documented_tables_are_those_of_the_stored_results(tmp_path: Path) -> None:
    root = BENCHMARKS.parent
    copy = tmp_path / "inference.md"
    copy.write_text((root / "docs" / "inference.md").read_text(encoding="utf-8"), encoding="utf-8")
    generator, studies = (
        json.loads((root / "results" / "error_rates" / f"{part}.json").read_text())
        for part in ("generator", "studies")
    )
    write_tables(copy, generator, studies)
    assert copy.read_text(encoding="utf-8") == (root / "docs" / "inference.md").read_text(encoding="utf-8")


def test_tables_stand_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = [("nll, seeds matter", Design(150, 3, False), margin) for margin in (False, True)]
    monkeypatch.setattr(error_rates, "_conditions", lambda: iter(conditions))
    results = tmp_path / "generator.json"
    error_rates.run_generator(results, repetitions=4)
    document = tmp_path / "inference.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    stored = json.loads(results.read_text())
    rates = stored["rates"]["nll, seeds matter | 150 | fixed | 3 | zero"]
    studies = {"environment": {}, "rates": {"digits-1797-fixed | cross_entropy | nll | 3": rates}}
    write_tables(document, stored, studies)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert f"{100 * rates['crossed']['covered'] / 4:.1f} / " in text
    assert f"| digits, 1797, fixed | nll | 3 | 4 | {100 * rates['crossed']['nonzero'] / 4:.1f} |" in text
