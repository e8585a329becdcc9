"""Seeds added until a verdict: the looks, what each may spend, and the study that stops at one of them."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_cases import blobs, contents, small_plan

from infoloss.study.analysis import analyse
from infoloss.study.archive import FolderArchive
from infoloss.study.compare import DesignError, compare, run
from infoloss.study.design import settled
from infoloss.study.findings import Findings, cells
from infoloss.study.inference import Cell, Paired, alpha_at, judge, schedule
from infoloss.study.plan import PlanError
from infoloss.study.report import render
from infoloss.study.store import Store, read_design, records

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import sequential


class TestSchedule:
    @given(st.integers(2, 50), st.integers(1, 500))
    def test_looks_ascend_from_the_first_to_the_most_and_spend_all(self, first, more):
        looks = schedule(first, first + more)
        assert (looks[0], looks[-1]) == (first, first + more)
        assert all(a < b for a, b in itertools.pairwise(looks))
        assert sum(alpha_at(looks, look) for look in looks) == pytest.approx(0.05)

    @pytest.mark.parametrize("seeds", [5, 6, 9])
    def test_between_two_looks_counts_the_next(self, seeds):
        assert alpha_at((4, 10), seeds) == alpha_at((4, 10), 10) == pytest.approx(0.03)

    def test_without_looks_there_is_one(self):
        assert alpha_at((), 7) == 0.05

    @pytest.mark.parametrize(("first", "most"), [(1, 5), (5, 5), (5, 3)])
    def test_no_room(self, first, most):
        with pytest.raises(ValueError, match="seeds"):
            schedule(first, most)


class TestJudge:
    def four(self):
        draws = np.random.default_rng(0)
        return [
            Cell("q", "accuracy", f"loss {i}", _scores(shift + draws.normal(size=6)), 0.5, True)
            for i, shift in enumerate((0.0, 1.0, 2.0, 4.0))
        ]

    def test_an_error_rate_is_the_judgement_at_that_level_with_the_usual_interval(self):
        plain, strict = judge(self.four()), judge(self.four(), alpha=0.01)
        other = judge(self.four(), level=0.99)
        for usual, found, expected in zip(plain, strict, other, strict=True):
            assert found.interval == usual.interval
            for field in ("outcome", "adjusted_interval", "equivalence_interval", "more_seeds", "negligible"):
                assert getattr(found, field) == getattr(expected, field), field
        assert [v.outcome for v in plain] != [v.outcome for v in strict], "else this shows nothing"

    def test_the_equivalence_interval_is_that_of_two_tests_at_alpha(self):
        from scipy import stats

        differences = np.array([0.1, -0.2, 0.05, 0.0, 0.15])
        [verdict] = judge([Cell("q", "nll", "l", _scores(differences), 0.5, True)], alpha=0.0125)
        reach = stats.t.ppf(1 - 0.0125, 4) * differences.std(ddof=1) / np.sqrt(5)
        mean = differences.mean()
        assert verdict.equivalence_interval == pytest.approx((mean - reach, mean + reach))
        assert verdict.alpha == 0.0125

    @pytest.mark.parametrize("alpha", [0.0, 0.5, -0.1])
    def test_no_error_rate(self, alpha):
        with pytest.raises(ValueError, match="alpha must lie between"):
            judge(self.four(), alpha=alpha)


def _scores(differences):
    return Paired(differences, None, None, 1, 1, resampled=False)


def training(effect, noise):
    """A training whose loss beats cross entropy by `effect` in every logit of the label, up to noise."""

    def train(criterion, seed):
        generator = np.random.default_rng(seed)
        target = np.arange(90) % 3
        logits = np.eye(3)[target] + generator.normal(size=(90, 3))
        if "focal" in str(criterion.term):
            logits += (effect + noise * generator.normal()) * np.eye(3)[target]
        return logits, target, logits, target

    return train


class TestStudy:
    def plan(self, **options):
        return {"losses": ["focal"], "seeds": 3, "until_decided": 12, **options}

    def test_identical_predictions_are_decided_at_the_first_look(self, tmp_path):
        found = compare(training(0.0, 0.0), folder=tmp_path, **self.plan())
        assert {verdict.outcome for verdict in found.analysis.verdicts} == {"equivalent"}
        assert found.analysis.losses[0].seeds == (0, 1, 2)

    def test_what_stays_undecided_goes_to_the_most(self, tmp_path):
        found = compare(training(0.0, 3.0), folder=tmp_path, **self.plan())
        assert "undecided" in {verdict.outcome for verdict in found.analysis.verdicts}
        assert found.analysis.losses[0].seeds == tuple(range(12))
        assert all(verdict.alpha == pytest.approx(0.025) for verdict in found.analysis.verdicts)

    def test_it_stops_at_the_look_that_decides_and_judges_at_its_rate(self, tmp_path):
        """By hand: the verdicts of the look before are not all decided, those of the last one are."""
        train = training(1.5, 0.3)
        found = compare(train, folder=tmp_path / "looks", **self.plan(until_decided=48))
        seeds = len(found.analysis.losses[0].seeds)
        looks = (3, 6, 12, 24, 48)
        assert seeds in looks[1:-1]
        assert all(verdict.outcome != "undecided" for verdict in found.analysis.verdicts)
        assert {verdict.alpha for verdict in found.analysis.verdicts} == {alpha_at(looks, seeds)}
        before = looks[looks.index(seeds) - 1]
        compare(train, folder=tmp_path / "shorter", losses=["focal"], seeds=before)
        earlier = judge(cells(Findings(FolderArchive(tmp_path / "shorter"))), alpha=alpha_at(looks, before))
        assert "undecided" in {verdict.outcome for verdict in earlier}

    def test_the_same_again_trains_nothing(self, tmp_path, monkeypatch):
        train = training(0.0, 3.0)
        first = compare(train, folder=tmp_path, **self.plan())
        monkeypatch.setattr(Store, "write", lambda *_: pytest.fail("a run was repeated"))
        assert compare(train, folder=tmp_path, **self.plan()).analysis.verdicts == first.analysis.verdicts

    def test_stopped_anywhere_it_goes_on_to_the_same(self, tmp_path):
        class Stopped(Exception):  # noqa: N818
            pass

        def stopping(at):
            def told(progress):
                if len(records(tmp_path / "stopped")[0]) >= at:
                    raise Stopped

            return told

        plan = small_plan(losses=["focal"], tuning=False, seeds=2, until_decided=6)
        run(plan, blobs(), tmp_path / "whole", workers=1)
        for at in (3, 14):
            with pytest.raises(Stopped):
                run(plan, blobs(), tmp_path / "stopped", stopping(at), workers=1)
        run(plan, blobs(), tmp_path / "stopped", workers=1)
        assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
        assert read_design(tmp_path / "stopped")["seeds"] == read_design(tmp_path / "whole")["seeds"]

    def test_looks_are_fixed_before_the_first(self, tmp_path):
        plain = small_plan(losses=["focal"], tuning=False, seeds=2)
        run(plain, blobs(), tmp_path, workers=1)
        with pytest.raises(DesignError, match="looks is None there"):
            run(small_plan(losses=["focal"], tuning=False, seeds=2, until_decided=8), blobs(), tmp_path)
        assert "looks" not in settled(plain, blobs()).fixed, (
            "folders of studies without looks keep their names"
        )

    def test_seeds_that_tune_are_not_added(self):
        tuning = {"seeds": [2, 3]}
        design = settled(small_plan(seeds=2, until_decided=4, tuning=tuning), blobs())
        assert design.at_the_next_look().seeds == (0, 1, 4, 5)

    def test_the_time_ends_it(self, tmp_path):
        plan = small_plan(losses=["focal"], tuning=False, seeds=2, until_decided=8)
        analysis = run(plan, blobs(), tmp_path, workers=1, time_limit=0.0)
        assert not analysis.complete
        assert len(read_design(tmp_path)["seeds"]) == 2

    def test_the_report_says_so(self, tmp_path):
        compare(training(0.0, 3.0), folder=tmp_path, **self.plan())
        text = render(analyse(tmp_path), tmp_path / "report").with_suffix(".md").read_text()
        assert "judged at 3, 6, 12 seeds with error rates of 1.25, 1.25, 2.5 %, 5 % together" in text
        assert "this is the look at 12" in text
        assert "the 95 % interval that lies within the margin" in text
        assert "[lan1983, kim1987]" in text.replace("\\", "")

    def test_no_room_for_a_second_look(self, tmp_path):
        with pytest.raises(PlanError, match="must be more than the 3"):
            compare(training(0, 0), folder=tmp_path, losses=["focal"], seeds=3, until_decided=3)


class TestBenchmark:
    def test_it_counts_every_study_and_writes_its_table(self, tmp_path):
        found = sequential.measured(next(sequential.conditions()), repetitions=3)
        for counts in found.values():
            assert counts["n"] == 3
            assert sum(counts[o] for o in ("better", "worse", "equivalent", "undecided")) == 3
            assert 15 <= counts["seeds"] <= 120
        stored = {"rates": {c.key: found for c in sequential.conditions()}, "environment": {"python": "3"}}
        page = tmp_path / "page.md"
        page.write_text(f"before\n{sequential.BEGIN}\nold\n{sequential.END}\nafter\n")
        sequential.write_table(page, stored)
        text = page.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert text.count("**looks, error rate spent**") == 8

    def test_the_first_seeds_are_the_study_as_it_stood(self):
        source, _ = sequential.SOURCES["nll, seeds matter"]
        design = sequential.Design(200, 10, True)
        evidence = sequential.drawn_evidence(source, design, 0.1, np.random.default_rng(0))
        shorter = sequential.first_seeds(evidence, 4)
        assert shorter.seeds == len(shorter.examples) == 4
        assert np.array_equal(shorter.differences, evidence.differences[:4])

    def test_the_stored_rates_hold_what_the_page_promises(self):
        path = sequential.ROOT / "results" / "sequential.json"
        for key, rules in json.loads(path.read_text())["rates"].items():
            counts = rules["looks, error rate spent"]
            wrong = {"none": counts["better"] + counts["worse"], "margin": counts["equivalent"]}
            truth = key.rsplit(" | ", 1)[1]
            if truth in wrong:
                assert wrong[truth] / counts["n"] < 0.05 + 3 * np.sqrt(0.05 * 0.95 / counts["n"]), key
