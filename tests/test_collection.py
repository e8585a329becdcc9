"""Several data sets in one study: their own studies, ranks, and the Bayesian signed-rank test."""

import csv
import json
import re
from contextlib import closing
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from study_cases import contents, small_plan

import infoloss as il
from infoloss.cli import main
from infoloss.data import collection, from_arrays
from infoloss.study.across import across
from infoloss.study.analysis import analyse
from infoloss.study.collection import analyse_collection, run_collection
from infoloss.study.compare import run
from infoloss.study.engines import Workers
from infoloss.study.inference.datasets import critical_difference, friedman, mean_ranks, signed_rank
from infoloss.study.members import holds
from infoloss.study.pack import pack
from infoloss.study.plan import Plan, PlanError
from infoloss.study.report.collection import render_collection
from infoloss.study.report.table import markdown_text
from infoloss.study.store import Store, StoreError


def naive_signed_rank(differences, rope, draws):
    """The three shares of each draw by loops, and whose is the largest how often."""
    d, won = [0.0, *differences], [0, 0, 0]
    random = np.random.default_rng(3)
    for _ in range(draws):
        gamma = [random.gamma(0.5 if i == 0 else 1.0) for i in range(len(d))]
        w, shares = [g / sum(gamma) for g in gamma], [0.0, 0.0, 0.0]
        for i in range(len(d)):
            for j in range(len(d)):
                mean, weight = (d[i] + d[j]) / 2, w[i] * w[j]
                if abs(mean) == rope:
                    shares[1] += weight / 2
                    shares[0 if mean < 0 else 2] += weight / 2
                else:
                    shares[0 if mean < -rope else 2 if mean > rope else 1] += weight
        won[int(np.argmax(shares))] += 1
    return [count / draws for count in won]


CASES = {
    "better": ([1.2, 0.8, 2.0, 0.3, 1.1, 0.9, 1.5], 0.5),
    "same": ([0.1, -0.2, 0.05, 0.3, -0.1, 0.2, 0.0, 0.15], 0.5),
    "mixed": ([1.5, -1.0, 0.7, -0.6, 0.2], 0.5),
    "on the edge": ([0.5, -0.5, 0.5, 1.0], 0.5),
    "two": ([0.7, 0.9], 0.5),
}


class TestSignedRank:
    @pytest.mark.parametrize("case", CASES)
    def test_against_loops(self, case):
        differences, rope = CASES[case]
        found = signed_rank(np.array(differences), rope)
        expected = naive_signed_rank(differences, rope, draws=3000)
        assert [found.worse, found.equivalent, found.better] == pytest.approx(expected, abs=0.035)

    @pytest.mark.parametrize("case", CASES)
    def test_against_baycomp(self, case):
        baycomp = pytest.importorskip("baycomp", reason="an oracle that is not installed by default")
        differences, rope = CASES[case]
        d = np.array(differences)
        found = signed_rank(d, rope)
        expected = baycomp.SignedRankTest.probs(
            np.zeros_like(d), d, rope=rope, nsamples=50_000, random_state=1
        )
        assert [found.worse, found.equivalent, found.better] == pytest.approx(expected, abs=0.01)

    def test_the_other_way_round_it_is_mirrored(self):
        differences, rope = CASES["mixed"]
        found, mirrored = signed_rank(np.array(differences), rope), signed_rank(-np.array(differences), rope)
        assert (found.worse, found.better) == pytest.approx((mirrored.better, mirrored.worse), abs=1e-9)

    @pytest.mark.parametrize(
        ("differences", "rope"), [([], 1.0), ([np.nan], 1.0), ([1.0], 0.0), ([[1.0]], 1.0)]
    )
    def test_wrong_input(self, differences, rope):
        with pytest.raises(ValueError, match=r"differences must be|rope must be"):
            signed_rank(np.array(differences), rope)


class TestRanks:
    def test_ties_share_their_mean(self):
        assert mean_ranks(np.array([[3.0, 2.0, 2.0, 1.0]])).tolist() == [1.0, 2.5, 2.5, 4.0]

    def test_friedman_is_the_f_of_scipys_chi_square(self):
        scores = np.random.default_rng(0).normal(size=(9, 4)).round(1) + np.array([0.0, 0.2, 0.4, 0.9])
        sets, losses = scores.shape
        chi = stats.friedmanchisquare(*scores.T).statistic
        f = (sets - 1) * chi / (sets * (losses - 1) - chi)
        assert friedman(scores) == pytest.approx(stats.f.sf(f, losses - 1, (losses - 1) * (sets - 1)))

    def test_no_fewer_than_the_chance_of_equal_rankings(self):
        assert friedman(np.array([[1.0, 2.0, 3.0]] * 3)) == pytest.approx((1 / 6) ** 2)
        assert friedman(np.ones((4, 3))) == 1.0

    @pytest.mark.parametrize(("losses", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
    def test_critical_differences_are_those_of_the_table(self, losses, q):
        """Demšar 2006, table 5a: q at .05 for the Nemenyi test."""
        expected = q * np.sqrt(losses * (losses + 1) / (6 * 12))
        assert critical_difference(losses, 12) == pytest.approx(expected, rel=3e-4)


def verdict(loss, question, metric, difference, outcome="undecided"):
    return SimpleNamespace(
        loss=loss, question=question, metric=metric, difference=difference, outcome=outcome
    )


def member(accuracy, nll):
    """An analysis of a baseline and one loss, with these differences."""
    scores = {"accuracy": np.array([0.5]), "nll": np.array([1.0])}
    better = {"accuracy": scores["accuracy"] + accuracy / 100, "nll": scores["nll"] + nll}
    losses = (SimpleNamespace(label="base", scores=scores), SimpleNamespace(label="mine", scores=better))
    verdicts = (
        verdict("mine", "labels", "accuracy", accuracy),
        verdict("mine", "probabilities", "nll", nll),
    )
    return SimpleNamespace(losses=losses, verdicts=verdicts, margins={"accuracy": 0.5, "nll": 0.01})


class TestAcross:
    def test_wins_ties_and_defeats_by_the_margin_and_the_metrics_direction(self):
        members = {
            "a": member(1.0, -0.1),
            "b": member(0.5, 0.01),
            "c": member(-0.2, 0.2),
            "d": member(-3.0, np.inf),
        }
        labels, probabilities = across(members)
        [found] = labels.compared
        assert (found.wins, found.ties, found.defeats) == (1, 2, 1)
        [found] = probabilities.compared
        assert (found.wins, found.ties, found.defeats) == (1, 1, 1), "an infinite difference is left out"
        assert found.differences == {"a": 0.1, "b": -0.01, "c": -0.2}
        assert labels.ranks.of == {"base": 1.5, "mine": 1.5}
        assert probabilities.ranks.datasets == ("a", "b", "c")
        assert probabilities.ranks.of == {"base": pytest.approx(4 / 3), "mine": pytest.approx(5 / 3)}

    def test_one_data_set_has_no_verdict_over_data_sets(self):
        [labels, _] = across({"a": member(9.0, 0.0)})
        assert labels.compared[0].posterior is None
        assert labels.compared[0].outcome == "undecided"
        assert labels.ranks is None

    def test_the_outcome_needs_its_probability(self):
        [labels, _] = across({str(i): member(2.0, 0.0) for i in range(8)})
        assert labels.compared[0].outcome == "better"
        [labels, _] = across({str(i): member(0.1, 0.0) for i in range(8)})
        assert labels.compared[0].outcome == "equivalent"
        [labels, _] = across({str(i): member(2.0, 0.0) for i in range(5)})
        assert labels.compared[0].posterior.better > 0.95
        assert labels.compared[0].outcome == "undecided", "five agree by chance in one of sixteen"


def rows(seed):
    """(120, 4) of three overlapping classes in turn."""
    generator = np.random.default_rng(seed)
    return 1.5 * np.eye(3, 4)[np.arange(120) % 3] + generator.normal(size=(120, 4))


def named(name, seed):
    return from_arrays(rows(seed), np.arange(120) % 3, name=name)


SETS = {"one": 1, "two": 2, "three/3": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    run_collection(
        small_plan(), [named(*each) for each in SETS.items()], folder, workers=1, command="the command"
    )
    return folder


class TestStudy:
    def test_each_data_set_has_the_study_it_would_have_alone(self, folder, tmp_path):
        run(small_plan(), named("two", 2), tmp_path, workers=1)
        assert contents(folder / "two") == contents(tmp_path)
        found = analyse_collection(folder)
        assert dict(found.folders) == {"one": "one", "two": "two", "three/3": "three-3"}
        assert found.members["two"].verdicts == analyse(tmp_path).verdicts
        assert found.complete

    def test_the_same_again_trains_nothing_and_more_data_sets_extend(self, folder, monkeypatch):
        written = []
        write = Store.write
        monkeypatch.setattr(Store, "write", lambda self, *given: written.append(given) or write(self, *given))
        again = [named("two", 2), named("one", 1)]
        assert list(run_collection(small_plan(), again, folder, workers=1).members) == sorted(SETS)
        assert written == []
        found = run_collection(small_plan(), [named("four", 4)], folder, workers=1, command="the command")
        assert list(found.members) == sorted([*SETS, "four"])
        assert len(written) == len(contents(folder / "four"))

    def test_the_same_worker_processes_serve_all_data_sets(self, tmp_path, monkeypatch):
        made = []

        def engine(count, device, devices_per_run):
            made.append(Workers(count, device=device, devices_per_run=devices_per_run))
            monkeypatch.setattr(made[0], "close", lambda: pids.append(made[0].pids) or Workers.close(made[0]))
            return closing(made[0])

        pids = []
        monkeypatch.setattr("infoloss.study.collection.engine_of", engine)
        # Jobs of one seed and role: the arrays that a worker holds must not be taken for the next data set's.
        plan = small_plan(losses=["focal"], seeds=1, tuning=False)
        sets = [named("one", 1), named("two", 2)]
        run_collection(plan, sets, tmp_path, workers=1)
        assert len(made) == len(pids) == 1
        assert len(pids[0]) == 1
        assert made[0].pids == ()
        for each in sets:
            run(plan, each, tmp_path / "alone" / each.name, workers=1)
            assert contents(tmp_path / each.name) == contents(tmp_path / "alone" / each.name)

    def test_another_data_set_of_the_same_name_is_refused(self, folder):
        with pytest.raises(ValueError, match="two data sets are called 'one'"):
            run_collection(small_plan(), [named("one", 9)], folder, workers=1)

    def test_the_time_limit_is_for_all_together(self, tmp_path):
        sets = [named(*each) for each in SETS.items()]
        found = run_collection(small_plan(), sets, tmp_path, workers=1, time_limit=0.0)
        assert not found.complete
        assert not any(contents(tmp_path / place) for place in found.folders.values())

    def test_losses_do_not_depend_on_the_data_set(self, tmp_path):
        plan = small_plan(losses=None, seeds=1, tuning=False, training={"epochs": 1})
        uneven = from_arrays(rows(0)[:90], np.repeat([0, 1], [70, 20]), name="uneven")
        found = run_collection(plan, [uneven, named("even", 1)], tmp_path, workers=1)
        labels = [[loss.label for loss in analysis.losses] for analysis in found.members.values()]
        assert labels[0] == labels[1]

    def test_the_report(self, folder, tmp_path):
        found = analyse_collection(folder)
        page = render_collection(found, tmp_path)
        text, markdown = page.read_text(), (tmp_path / "report.md").read_text()
        for words in ("Over all data sets", "Mean rank of each loss", "three-3/report.html", "the command"):
            assert words in text
        assert "data sets: with fewer than 6 there is no verdict" in markdown
        begun = list(json.loads((folder / "collection.json").read_text())["folders"])
        assert list(found.members) == sorted(begun) != begun
        tables = markdown.split("## Each data set", 1)[1].split("## ", 1)[0].split("\n\n")
        named = [re.findall(r"^\| (?!data set|:)(\S.*?) \|", table, re.MULTILINE) for table in tables]
        assert [names for names in named if names] == [[markdown_text(name) for name in found.members]] * 3
        assert "data sets by name, in every table" in markdown
        lines = list(csv.DictReader((tmp_path / "datasets.csv").read_text().splitlines()))
        verdicts = [(n, v) for n, analysis in found.members.items() for v in analysis.verdicts]
        assert len(lines) == len(verdicts)
        by_key = {(row["dataset"], row["question"], row["loss"]): row for row in lines}
        for name, each in verdicts:
            row = by_key[name, each.question, each.loss]
            assert float(row["difference"]) == each.difference
            assert row["outcome"] == each.outcome
        bib = (tmp_path / "references.bib").read_text()
        assert "Dem{\\v{s}}ar" in bib
        assert (tmp_path / "figures" / "ranks.svg").exists()


class TestFromPython:
    OPTIONS = MappingProxyType(
        {"losses": ["focal"], "seeds": 1, "tuning": False, "training": {"epochs": 1}, "workers": 1}
    )

    def test_a_list_is_a_study_of_each(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = il.compare(["wine", named("mine", 1)], **self.OPTIONS)
        [folder] = tmp_path.iterdir()
        assert (found.folder.resolve(), list(found.analysis.members)) == (folder, ["mine", "wine"])
        alone = il.compare(named("mine", 1), **self.OPTIONS, folder="alone")
        assert contents(folder / "mine") == contents(tmp_path / "alone")
        assert found["mine"].analysis.verdicts == alone.analysis.verdicts
        assert len(found["wine"].runs) == len(alone.runs)
        assert "| `focal` |" in found.verdict
        assert str(found) == found._repr_markdown_() == f"{found.verdict}\nRecords: {found.folder}"
        page = found.report()
        assert page == found.folder / "report.html"
        assert all((folder / name / "report.html").exists() for name in ("mine", "wine"))
        assert "infoloss.compare([…]" in page.read_text(encoding="utf-8")

    def test_a_collection_and_what_it_leaves_alone(self, tmp_path):
        for name in ("first", "second"):
            table = [f"{a},{b},{row % 3}" for row, (a, b, *_) in enumerate(rows(len(name)))]
            (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,target", *table]))
        found = il.compare(collection(tmp_path), **self.OPTIONS, folder=tmp_path / "study")
        assert list(found.analysis.members) == ["first", "second"]
        labels = list(np.arange(120) % 3)
        features = il.compare(rows(0).tolist(), labels, **self.OPTIONS, folder=tmp_path / "one")
        assert features.analysis.data["rows"] == "120", "a list of rows is one data set"

    def test_options_of_arrays_are_refused(self):
        with pytest.raises(PlanError, match="compare: name is for arrays"):
            il.compare(["wine", "digits"], name="both", **self.OPTIONS)


class TestPacked:
    def test_it_gives_the_same_analyses_and_report(self, folder, tmp_path):
        file = pack(folder, tmp_path / "study.parquet")
        found, kept = analyse_collection(file), analyse_collection(folder)
        assert (dict(found.folders), found.command) == (dict(kept.folders), "the command")
        assert list(found.members) == list(kept.members)
        for name, analysis in kept.members.items():
            assert found.members[name].verdicts == analysis.verdicts
            assert found.members[name].environment == analysis.environment
        for analyses, place in ((found, "packed"), (kept, "folder")):
            render_collection(analyses, tmp_path / place)
        for name in ("datasets.csv", "report.md"):
            assert (tmp_path / "packed" / name).read_text() == (tmp_path / "folder" / name).read_text()
        again = pack(file, tmp_path / "again.parquet")
        assert again.read_bytes() == file.read_bytes()

    def test_one_and_several_are_told_apart(self, folder, tmp_path):
        file, one = tmp_path / "study.parquet", tmp_path / "one.parquet"
        assert holds(pack(folder, file))
        assert not holds(pack(folder / "one", one))
        sets = len(analyse_collection(folder).members)
        with pytest.raises(StoreError, match=f"holds a study over {sets} data sets; expected one data set"):
            analyse(file)
        with pytest.raises(StoreError, match="holds no study over several data sets, but of one"):
            analyse_collection(one)

    def test_a_data_set_without_runs_is_named(self, tmp_path):
        sets = [named(*each) for each in SETS.items()]
        run_collection(small_plan(), sets, tmp_path / "study", workers=1, time_limit=0.0)
        with pytest.raises(StoreError, match="study: one has no run yet"):
            pack(tmp_path / "study", tmp_path / "study.parquet")

    def test_the_command_line_packs_and_reports(self, folder, tmp_path, capsys):
        file = tmp_path / "study.parquet"
        assert main(["pack", str(folder), str(file)]) == 0
        assert main(["report", str(file)]) == 0
        assert (tmp_path / "study-report" / "two" / "report.html").exists()
        assert f"Report: {tmp_path / 'study-report' / 'report.html'}" in capsys.readouterr().out
        assert main(["export", str(file), str(tmp_path / "runs.csv")]) == 1


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = [
        "--losses",
        "focal",
        "--seeds",
        "2",
        "--epochs",
        "2",
        "--hidden",
        "4",
        "--no-tune",
        "--jobs",
        "1",
    ]
    assert main(["compare", "wine", "breast_cancer", *quick, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("training: 4 runs, 4 to do") == 2
    assert list(tmp_path.iterdir()) == []
    assert main(["compare", "wine", "breast_cancer", *quick, "--quiet"]) == 0
    [folder] = tmp_path.glob("infoloss-2-data-sets-*")
    said = capsys.readouterr().out
    assert said.startswith("\nTwo losses on 2 data sets\n")
    assert "- untuned: no verdict on rank" in said
    assert ", over data sets: undecided: focal." in said
    assert f"Report: {folder.name}/report.html" in said
    (tmp_path / "few.csv").write_text("a,class\n1,x\n2,y\n")
    assert main(["compare", "wine", "few.csv", *quick]) == 2
    assert "infoloss: few.csv: class: class 'x' has 1 row" in capsys.readouterr().err
    assert json.loads((folder / "collection.json").read_text())["command"].startswith("infoloss compare wine")
    assert (folder / "wine" / "report.html").exists()
    before = (folder / "datasets.csv").read_text()
    assert main(["report", folder.name]) == 0
    assert (folder / "datasets.csv").read_text() == before


class TestPlan:
    def test_a_study_file_may_name_several(self, tmp_path):
        path = tmp_path / "study.toml"
        path.write_text('collection = ["wine", { source = "x.csv", target = "y" }]\n')
        plan = Plan.read(path)
        assert [(data.source, data.target) for data in plan.collection] == [("wine", None), ("x.csv", "y")]

    def test_data_and_collection_exclude_each_other(self):
        with pytest.raises(PlanError, match="give one data set, or several"):
            Plan.of(data="wine", collection=["wine", "digits"])


def test_a_folder_of_tables_is_a_collection(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    for name, seed in (("one", 1), ("two", 2)):
        lines = [f"{','.join(map(str, row))},{i % 3}" for i, row in enumerate(rows(seed))]
        (tmp_path / "tables" / f"{name}.csv").write_text("\n".join(["a,b,c,d,kind", *lines]))
    (tmp_path / "tables" / "odd.csv").write_text("a,b\n1,2\n3,4\n")
    quick = [
        "--losses",
        "focal",
        "--seeds",
        "2",
        "--epochs",
        "1",
        "--hidden",
        "4",
        "--no-tune",
        "--jobs",
        "1",
    ]
    assert main(["compare", "tables", "--target", "kind", *quick, "--out", "study", "--quiet"]) == 0
    assert list(analyse_collection(tmp_path / "study").members) == ["one", "two"]
    assert "note: odd is left out" in capsys.readouterr().err
