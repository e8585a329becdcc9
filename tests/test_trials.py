"""Tuning by trials: the same number for every loss, on validation rows, resumable, the grid beside it."""

import numpy as np
import pytest
import torch
from study_cases import blobs, contents, small_plan

import infoloss as il
from infoloss.catalogue import Range, catalogue
from infoloss.study import trials as module
from infoloss.study.analysis import analyse
from infoloss.study.compare import compare, run
from infoloss.study.design import settled
from infoloss.study.pack import pack
from infoloss.study.plan import Plan, PlanError
from infoloss.study.report import render
from infoloss.study.search import own_space, own_values, with_parameters
from infoloss.study.store import Store, predictions, records

pytest.importorskip("optuna")

TRIALS = 6
LOGITS, LABELS = torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([1, 0])
LOSSES = ["focal", "cross_entropy + confidence_penalty"]


def plan(**options):
    """By NLL: the accuracy of so small a study is soon as good as it gets."""
    return small_plan(losses=LOSSES, metric="nll", tuning={"seeds": 1, "trials": TRIALS}, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    run(plan(), blobs(), folder, workers=1)
    return folder


class TestSpace:
    @pytest.mark.parametrize("name", [name for name, entry in catalogue.items() if entry.search])
    def test_a_declared_range_is_of_a_parameter_and_holds_values_that_the_loss_takes(self, name):
        entry = catalogue[name]
        even = {each: [0.5, 0.5] for each in entry.binds}
        for parameter, limits in entry.search.items():
            default = entry.parameters[parameter]
            assert default is None or limits.low <= default <= limits.high
            for value in (limits.low, limits.high):
                term = entry.make(**even, **{parameter: value})
                term = term if entry.kind == "loss" else il.cross_entropy() + term
                assert np.isfinite(float(term(LOGITS, LABELS)))

    def test_what_the_user_wrote_stays(self):
        assert own_space("focal(gamma=3.0) + 0.1 * entropy") == {}
        assert own_space("min_ent(w1=1.1933, w2=0.5)") == {"min_ent.w1": Range(0.3, 3, log=True)}
        assert own_space("module:function") == {}

    def test_each_of_two_of_the_same_has_its_own(self):
        text = "z_loss(weight=0.0001) + 2.0 * z_loss(weight=0.0001)"
        assert list(own_space(text)) == ["z_loss.weight", "z_loss.weight#2"]
        changed = with_parameters(text, {"z_loss.weight#2": 0.001})
        assert changed == "z_loss(weight=0.0001) + 2.0 * z_loss(weight=0.001)"
        assert own_values(changed, text) == {"z_loss.weight": 0.0001, "z_loss.weight#2": 0.001}

    def test_a_sum_of_two_losses_is_warned_of_once_where_it_is_written_and_not_in_every_trial(self):
        text = "focal(gamma=2.0) + mae()"
        assert with_parameters(text, {"focal.gamma": 1.0}).startswith("focal(gamma=1.0)")

    def test_negative_values_and_missing_defaults(self):
        assert with_parameters("poly1(epsilon=2.0)", {"poly1.epsilon": -0.5}) == "poly1(epsilon=-0.5)"
        assert own_values("poly1(epsilon=-0.5)", "poly1(epsilon=2.0)") == {"poly1.epsilon": -0.5}
        assert list(own_space("rescaled_square(k=None, M=None)")) == [
            "rescaled_square.k",
            "rescaled_square.M",
        ]

    @pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (0, 1, True), (0, float("inf"), False)])
    def test_a_range_that_is_none(self, low, high, log):
        with pytest.raises(ValueError, match="range"):
            Range(low, high, log)

    def test_weight_decay_belongs_to_our_own_training(self):
        design = settled(plan(), blobs())
        assert list(module.space(design, design.arms[1])) == ["learning_rate", "weight_decay", "focal.gamma"]
        assert list(module.space(design, design.baseline)) == ["learning_rate", "weight_decay"]


class TestStudy:
    def test_every_loss_has_the_same_number_of_trials_and_none_sees_a_test_row(self, folder):
        found = [record for record in records(folder)[0].values() if record["trial"]]
        for loss in analyse(folder).losses:
            mine = [record["trial"]["number"] for record in found if record["label"] == loss.label]
            assert sorted(mine) == list(range(TRIALS)), loss.label
        assert all(record["role"] == "tuning" for record in found)
        assert not any("test_logits" in predictions(folder, record["id"]) for record in found)

    def test_the_best_on_validation_is_chosen_from_grid_and_trials_together(self, folder):
        for loss in analyse(folder).losses:
            ranked = sorted(
                (record["validation"]["nll"], record["loss"])
                for record in records(folder)[0].values()
                if record["role"] == "tuning" and record["label"] == loss.label
            )
            nll, expression = ranked[0]
            assert loss.search.validation == nll
            assert loss.expression == loss.search.expression == expression
            assert loss.search.validation <= loss.search.grid_validation

    def test_scores_are_those_of_the_choice_and_the_grids_stand_beside(self, folder):
        found = list(records(folder)[0].values())
        for loss in analyse(folder).losses:
            for scores, expression, rate in (
                (loss.scores, loss.expression, loss.learning_rate),
                (loss.search.grid_scores, str(il.parse(loss.label)), loss.search.grid_learning_rate),
            ):
                finals = [
                    record
                    for record in found
                    if record["role"] == "final"
                    and (record["loss"], record["learning_rate"]) == (expression, rate)
                ]
                kept = [predictions(folder, r["id"]) for r in sorted(finals, key=lambda r: r["seed"])]
                right = [np.mean(k["test_logits"].argmax(1) == k["test_target"]) for k in kept]
                assert scores["accuracy"].tolist() == pytest.approx(right)

    def test_the_report_shows_both(self, folder, tmp_path):
        analysis = analyse(folder)
        text = render(analysis, tmp_path).with_suffix(".md").read_text()
        assert f"What {TRIALS} trials of every loss, the baseline included" in text
        assert "then 6 trials of every loss" in text
        for loss in analysis.losses:
            assert loss.search.from_grid or f"`{loss.expression}`" in text
        assert not all(loss.search.from_grid for loss in analysis.losses), "else this shows nothing"

    def test_a_packed_study_tells_the_same(self, folder, tmp_path):
        packed = analyse(pack(folder, tmp_path / "study.parquet"))
        assert packed.verdicts == analyse(folder).verdicts
        assert [loss.search.expression for loss in packed.losses] == [
            loss.search.expression for loss in analyse(folder).losses
        ]

    def test_stopped_at_any_run_it_goes_on_to_the_same(self, folder, tmp_path):
        class Stopped(Exception):  # noqa: N818
            pass

        def stop(progress):
            if progress.done in (14, 20, 31):
                raise Stopped

        for _ in range(3):
            with pytest.raises(Stopped):
                run(plan(), blobs(), tmp_path, _once(stop, tmp_path), workers=1)
        run(plan(), blobs(), tmp_path, workers=1)
        assert contents(tmp_path) == contents(folder)

    def test_done_it_trains_nothing(self, folder, monkeypatch):
        monkeypatch.setattr(Store, "write", lambda *_: pytest.fail("a run was repeated"))
        run(plan(), blobs(), folder, workers=1)

    def test_workers_in_any_order_give_the_same(self, folder, tmp_path):
        run(plan(), blobs(), tmp_path, workers=2)
        assert contents(tmp_path) == contents(folder)

    def test_without_trials_the_identity_is_as_before(self):
        assert "trials" not in settled(small_plan(), blobs()).fixed
        assert settled(plan(), blobs()).fixed["trials"] == TRIALS


def _once(stop, folder):
    """Stops where the count of runs says so, but not at a count that an earlier sitting ended with."""
    had = len(records(folder)[0])
    return lambda progress: stop(progress) if progress.done > had else None


def test_a_trial_that_diverges_is_not_chosen_and_counts(tmp_path):
    tuning = {"seeds": 1, "trials": 4, "learning_rates": [0.01, 0.1, 1, 1e20]}
    training = {"optimiser": "sgd"}
    analysis = run(
        small_plan(losses=["focal"], tuning=tuning, training=training), blobs(), tmp_path, workers=1
    )
    found = [record for record in records(tmp_path)[0].values() if record["trial"]]
    assert len(found) == 8
    assert any(record["status"] == "diverged" for record in found)
    assert all(loss.learning_rate < 1e6 and loss.search.trials == 4 for loss in analysis.losses)


def test_your_own_training_is_tuned_by_trials(tmp_path):
    """Its best learning rate lies between two of the grid; the default gamma is not the best either."""
    from test_study import outputs

    def train(criterion, seed, learning_rate):
        off = abs(np.log10(learning_rate) + 1.5)
        return outputs(seed, 0.0, wrong=int(20 * off))

    tuning = {"learning_rates": [0.001, 0.01, 0.1, 1.0], "seeds": 1, "trials": 12}
    found = compare(train, losses=["focal"], seeds=2, tuning=tuning, folder=tmp_path)
    for loss in found.analysis.losses:
        assert loss.search.validation > loss.search.grid_validation
        assert 0.015 < loss.learning_rate < 0.07


def test_what_does_not_go_together():
    with pytest.raises(PlanError, match="5 trials are tuning"):
        Plan.of(tuning={"enabled": False, "trials": 5})
    with pytest.raises(PlanError, match="each round of trials needs the one before"):
        run(plan(), blobs(), "never-made", shard="1/2")


def test_without_optuna_one_line_names_the_extra(folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'infoloss\[tune\]'"):
        run(plan(), blobs(), tmp_path, workers=1)
    assert analyse(folder).complete, "the analysis needs records only"
