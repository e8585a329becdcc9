"""The analysis: verdicts and scores that can be worked out by hand from records written by hand."""

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from safetensors.numpy import save
from study_cases import blobs, small_plan

from infoloss.study.analysis import analyse
from infoloss.study.design import settled
from infoloss.study.materials import Materials
from infoloss.study.runs import Outcome, outcome_of
from infoloss.study.store import Store, StoreError
from infoloss.study.tuning import choice

DATA = blobs()
SEEDS = 6
GRID = (0.001, 0.003, 0.01, 0.03)


class Book:
    """A study whose records are written by hand."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.design = replace(settled(small_plan(seeds=SEEDS, **options), DATA), command="the command")
        self.made = Materials(DATA, self.design)
        self.arms = {arm.label: arm for arm in self.design.arms}
        with Store.opened(folder) as store:
            store.write_design(self.design.to_json())

    def add(self, job, outcome):
        with Store.opened(self.folder) as store:
            store.write(outcome.record(job), outcome.predictions)

    def tuned(self, label, scores=(0.8, 0.9, 0.85, 0.8), **versions):
        for rate, score in zip(self.design.learning_rates, scores, strict=True):
            for seed in self.design.tuning_seeds:
                validation = {"accuracy": score, "balanced_accuracy": score, "nll": 1 - score}
                status = "diverged" if score is None else "done"
                self.add(
                    self.made.training("tuning", self.arms[label], seed, rate),
                    outcome_of(None, status=status, validation=validation),
                )

    def final(self, label, seed, logits, rate=0.003, **fields):
        """A finished run with these (n, 3) test logits."""
        split = self.made.split(seed)
        validation = 3.0 * np.eye(3, dtype=np.float32)[DATA.target[split.validation]]
        validation[0] = -validation[0]
        arrays = {
            "validation_logits": validation,
            "validation_target": DATA.target[split.validation],
            "test_logits": logits.astype(np.float32),
            "test_target": DATA.target[split.test],
            "test_rows": split.test,
        }
        entry = {"epoch": 1, "train_loss": 1.0 + seed, "validation_nll": None, "validation_accuracy": 0.5}
        given = {"curve": [entry], "seconds": 2.0, "step_milliseconds": 1.0, "best_epoch": 1, **fields}
        self.add(
            self.made.training("final", self.arms[label], seed, rate),
            outcome_of(arrays, status="done", **given),
        )

    def target(self, seed):
        return DATA.target[self.made.split(seed).test]

    def right(self, seed, wrong=0, sharpness=2.0):
        """Logits that are right but for the first rows."""
        logits = sharpness * np.eye(3)[self.target(seed)]
        logits[:wrong] = sharpness * np.eye(3)[(self.target(seed)[:wrong] + 1) % 3]
        return logits


@pytest.fixture
def book(tmp_path):
    """Cross entropy is wrong on 4 rows of each seed, squentropy on 2 or 3, min_ent on the same 4."""
    book = Book(tmp_path)
    for label in book.arms:
        book.tuned(label)
    for seed in range(SEEDS):
        book.final("cross_entropy", seed, book.right(seed, 4))
        book.final("squentropy", seed, book.right(seed, 2 + seed % 2))
        book.final("min_ent", seed, book.right(seed, 4))
    return book


def verdicts(analysis, loss):
    return {verdict.question: verdict for verdict in analysis.verdicts if verdict.loss == loss}


def nll_of(wrong, n, sharpness=2.0):
    partition = np.log(np.exp(sharpness) + 2)
    return partition - sharpness * (n - wrong) / n


def test_the_first_run_of_a_worker_does_not_set_the_cost(tmp_path):
    book = Book(tmp_path)
    book.tuned("cross_entropy")
    for seed, seconds, best in ((0, 60.0, 1), (1, 2.0, 1), (2, 3.0, 4)):
        book.final("cross_entropy", seed, book.right(seed), seconds=seconds, best_epoch=best)
    cost = analyse(book.folder).losses[0].cost
    assert cost["seconds"] == 3.0
    assert cost["best_epoch"] == 2.0, "the mean"


def test_scores_and_differences_are_those_worked_out_by_hand(book):
    analysis, n = analyse(book.folder), len(book.target(0))
    base, squentropy, _ = analysis.losses
    assert base.baseline
    assert base.scores["accuracy"] == pytest.approx([1 - 4 / n] * SEEDS)
    assert squentropy.scores["accuracy"] == pytest.approx([1 - (2 + s % 2) / n for s in range(SEEDS)])
    assert base.scores["nll"] == pytest.approx([nll_of(4, n)] * SEEDS)
    found = verdicts(analysis, "squentropy")
    assert found["labels"].difference == pytest.approx(100 * 1.5 / n), "in points"
    expected = np.mean([nll_of(2 + s % 2, n) - nll_of(4, n) for s in range(SEEDS)])
    assert found["probabilities"].difference == pytest.approx(expected), "in nats"
    assert found["labels"].seeds == SEEDS


def test_there_are_three_verdicts_a_loss_and_none_for_the_baseline(book):
    analysis = analyse(book.folder)
    assert [(v.question, v.metric, v.loss) for v in analysis.verdicts] == [
        (question, metric, loss)
        for question, metric in (
            ("labels", "accuracy"),
            ("probabilities", "nll"),
            ("probabilities after temperature scaling", "nll_scaled"),
        )
        for loss in ("squentropy", "min_ent")
    ]
    assert analysis.margins == {"accuracy": 0.5, "nll": 0.01, "nll_scaled": 0.01}


def test_the_same_predictions_are_called_identical(book):
    analysis = analyse(book.folder)
    assert all(verdict.identical for verdict in verdicts(analysis, "min_ent").values())
    assert any("min_ent (identical)" in sentence for sentence in analysis.headline)


def test_means_and_sums_over_seeds(book):
    analysis, n = analyse(book.folder), len(book.target(0))
    base = analysis.losses[0]
    assert base.confusion.sum() == SEEDS * n
    assert np.trace(base.confusion) == SEEDS * (n - 4)
    assert base.curve["train_loss"] == pytest.approx([1 + np.mean(range(SEEDS))])
    assert np.isinf(base.curve["validation_nll"]).all(), "null in a record is a number that was not finite"
    assert base.cost["seconds"] == 2.0
    assert base.reliability.count.sum() == SEEDS * n
    assert base.learning_rate == 0.003
    assert base.tuning == dict(zip(GRID, (0.8, 0.9, 0.85, 0.8), strict=True))


def test_only_seeds_that_both_losses_finished_are_compared_and_failures_are_shown(tmp_path):
    book = Book(tmp_path)
    for label in book.arms:
        book.tuned(label)
        for seed in range(SEEDS):
            if (label, seed) == ("squentropy", 2):
                failure = outcome_of(None, status="diverged", error="training loss nan in epoch 2")
                book.add(book.made.training("final", book.arms[label], seed, 0.003), failure)
            else:
                book.final(label, seed, book.right(seed, 1 + seed % 2))
    analysis = analyse(tmp_path)
    squentropy = analysis.losses[1]
    assert squentropy.seeds == (0, 1, 3, 4, 5)
    assert squentropy.failures == ("seed 2: diverged: training loss nan in epoch 2",)
    assert verdicts(analysis, "squentropy")["labels"].seeds == 5
    assert any("squentropy: 1 of 6 runs diverged or failed" in sentence for sentence in analysis.headline)
    assert analysis.complete


def test_a_study_under_way_is_said_to_be_so(tmp_path):
    book = Book(tmp_path)
    empty = analyse(tmp_path)
    assert not empty.complete
    assert empty.verdicts == ()
    for label in ("cross_entropy", "squentropy"):
        book.tuned(label)
        for seed in range(3):
            book.final(label, seed, book.right(seed, seed))
    analysis = analyse(tmp_path)
    assert not analysis.complete
    assert any("not finished: 0 of 6 seeds" in sentence for sentence in analysis.headline)
    assert {verdict.loss for verdict in analysis.verdicts} == {"squentropy"}
    assert analysis.losses[2].seeds == ()
    assert analysis.losses[2].learning_rate is None


def test_runs_at_another_learning_rate_do_not_count(book):
    for seed in range(SEEDS):
        book.final("min_ent", seed, book.right(seed, 12), rate=0.03)
    assert all(verdict.identical for verdict in verdicts(analyse(book.folder), "min_ent").values())


def test_the_edge_of_the_grid_is_noted(tmp_path):
    book = Book(tmp_path)
    book.tuned("cross_entropy", (0.9, 0.8, 0.8, 0.8))
    book.tuned("squentropy", (0.8, 0.8, 0.8, 0.9))
    book.tuned("min_ent")
    notes = [note for note in analyse(tmp_path).notes if "of the grid" in note]
    assert len(notes) == 2
    assert notes[0].startswith("0.001, the lowest learning rate of the grid, was chosen for cross_entropy:")
    assert notes[1].startswith("0.03, the highest learning rate of the grid, was chosen for squentropy:")


def test_untuned_studies_have_no_verdict_on_rank(tmp_path):
    book = Book(tmp_path, tuning=False)
    for label in book.arms:
        for seed in range(SEEDS):
            book.final(label, seed, book.right(seed, 1))
    analysis = analyse(tmp_path)
    assert not analysis.tuned
    assert analysis.headline[0].startswith("untuned: no verdict on rank")
    assert analysis.complete


def test_mixed_versions_are_noted(book):
    extra = {"torch": "1.0", "kernel": "other"}
    job = book.made.reference("majority class", 0)
    outcome = outcome_of(
        {
            "validation_logits": np.zeros((2, 3), np.float32),
            "validation_target": np.array([0, 1]),
            "test_logits": np.zeros((2, 3), np.float32),
            "test_target": np.array([0, 1]),
        },
        status="done",
    )
    versions = {**outcome.fields["versions"], **extra}
    book.add(job, Outcome({**outcome.fields, "versions": versions}, outcome.predictions))
    analysis = analyse(book.folder)
    [note] = [note for note in analysis.notes if "different environments" in note]
    assert "torch" in note
    assert " | 1.0" in note
    assert [reference.name for reference in analysis.references] == ["majority class"]
    assert analysis.references[0].scores["accuracy"] == pytest.approx([0.5])


def test_damaged_records_are_left_out_and_noted(book):
    path = next((book.folder / "runs").iterdir()) / "record.json"
    path.write_text("{")
    assert any("damaged and left out: 1 record;" in note for note in analyse(book.folder).notes)


def test_the_rest_of_the_analysis_tells_how_it_was_done(book):
    analysis = analyse(book.folder)
    assert analysis.title == "Three losses on blobs"
    assert analysis.command == "the command"
    assert analysis.data["rows"] == "120"
    assert analysis.data["smallest class"] == "0, 40 rows"
    assert analysis.protocol["seeds"] == "6 (0–5)"
    assert "0.001, 0.003, 0.01, 0.03" in analysis.protocol["tuning"]
    assert analysis.tuning_seeds == len(book.design.tuning_seeds)
    assert analysis.losses[1].entries == ("squentropy",)
    assert "α" in analysis.losses[1].formula
    assert json.loads((book.folder / "study.json").read_text())["command"] == "the command"


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(StoreError, match="holds no study"):
        analyse(tmp_path)


def tuning_record(rate, accuracy, nll=1.0, status="done"):
    return {"learning_rate": rate, "status": status, "validation": {"accuracy": accuracy, "nll": nll}}


class TestChoice:
    def test_means_over_seeds_decide_and_ties_go_to_the_lower_nll(self):
        found = [
            tuning_record(0.1, 0.9, 2.0),
            tuning_record(0.1, 0.7, 2.0),
            tuning_record(0.2, 0.8, 1.0),
            tuning_record(0.2, 0.8, 2.0),
            tuning_record(0.3, 0.95, 0.1),
            tuning_record(0.3, 0.5, 0.1),
        ]
        made = choice(found, grid=(0.1, 0.2, 0.3), metric="accuracy")
        assert (made.learning_rate, made.edge) == (0.2, None)
        assert made.scores == pytest.approx({0.1: 0.8, 0.2: 0.8, 0.3: 0.725})
        assert choice(found, grid=(0.1, 0.2, 0.3), metric="nll").learning_rate == 0.3

    def test_what_differs_by_rounding_alone_is_a_tie_in_whatever_order_records_come(self):
        fifteenths = {0.01: ((9, 9, 11), 0.5), 0.03: ((10, 10, 9), 0.4)}  # the same mean, 29/45
        found = [
            tuning_record(rate, each / 15, nll) for rate, (parts, nll) in fifteenths.items() for each in parts
        ]
        for records in permutations(found):
            assert choice(records, grid=tuple(fifteenths), metric="accuracy").learning_rate == 0.03

    def test_a_rate_with_a_diverged_run_is_out_and_an_infinite_nll_loses_ties(self):
        found = [
            tuning_record(0.1, 0.9, None),
            tuning_record(0.2, 0.9, 5.0),
            tuning_record(0.3, 0.99),
            {"learning_rate": 0.3, "status": "diverged", "validation": {}},
        ]
        made = choice(found, grid=(0.1, 0.2, 0.3), metric="accuracy")
        assert made.learning_rate == 0.2
        assert np.isnan(made.scores[0.3])
        assert choice(found[3:], grid=(0.3,), metric="accuracy").learning_rate is None


def test_predictions_are_read_as_their_loss_means_them(tmp_path):
    """Balanced softmax decides by z and gives softmax(z + ln prior)."""
    from infoloss.study.scored import predicted

    logits = np.log(np.array([[0.5, 0.5], [0.2, 0.8]], np.float32))
    arrays = {
        "validation_logits": logits,
        "validation_target": np.array([0, 1]),
        "test_logits": logits,
        "test_target": np.array([0, 1]),
    }
    run = predicted(arrays, "balanced_softmax", {"counts": [3.0, 1.0]})
    assert np.exp(run.log_probabilities) == pytest.approx(np.array([[0.75, 0.25], [3 / 7, 4 / 7]]))
    assert run.decision.tolist() == logits.argmax(1).tolist()
    assert save(arrays)
