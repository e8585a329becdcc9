"""Analysis without training: added metrics, one tidy table, one packed file, merged stores."""

import json
import shutil
from dataclasses import fields

import numpy as np
import polars as pl
import pytest
from scipy import stats
from study_cases import blobs, contents, small_plan

from infoloss.cli import main
from infoloss.study.added_metrics import add_metric
from infoloss.study.analysis import analyse
from infoloss.study.archive import FolderArchive, archive
from infoloss.study.compare import run
from infoloss.study.export import run_table
from infoloss.study.pack import pack
from infoloss.study.report import render
from infoloss.study.store import StoreError, predictions, records

SEEDS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of uneven classes, so that losses are bound and balanced accuracy is judged."""
    folder = tmp_path_factory.mktemp("whole")
    plan = small_plan(losses=["squentropy", "balanced_softmax"], seeds=SEEDS)
    run(plan, blobs(counts=(3, 1, 1)), folder, workers=1)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "study")


def plain(value):
    """Dataclasses with arrays inside, as something that == compares."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def entropy_of_right(log_probabilities, target, decision):
    return float(-(np.exp(log_probabilities) * log_probabilities).sum(1)[decision == target].mean())


class TestAddedMetric:
    def test_it_is_computed_of_every_tested_run_and_trains_nothing(self, folder):
        before = contents(folder)
        found = add_metric(FolderArchive(folder), "right", lambda p, y, d: (d == y).mean(), source="here")
        tested = {id for id, record in records(folder)[0].items() if record["role"] != "tuning"}
        assert set(found.values) == tested
        assert contents(folder) == before
        for loss in analyse(folder).losses:
            assert loss.scores["right"].tolist() == loss.scores["accuracy"].tolist()

    def test_it_is_exploratory_in_the_report_and_in_no_verdict(self, folder, tmp_path):
        verdicts = analyse(folder).verdicts
        add_metric(FolderArchive(folder), "entropy_of_right", entropy_of_right, source="mine:right")
        analysis = analyse(folder)
        assert analysis.verdicts == verdicts
        assert any(
            "entropy_of_right was added after the test rows had been read, from mine:right: "
            "exploratory" in note
            for note in analysis.notes
        )
        page = render(analysis, tmp_path / "report").with_suffix(".md").read_text()
        assert "entropy of right (exploratory)" in page

    def test_runs_that_came_later_have_no_value(self, folder):
        add_metric(FolderArchive(folder), "right", lambda p, y, d: 1.0, source="here")
        plan = small_plan(losses=["squentropy", "balanced_softmax"], seeds=SEEDS + 1)
        run(plan, blobs(counts=(3, 1, 1)), folder, workers=1)
        for loss in analyse(folder).losses:
            assert np.isnan(loss.scores["right"]).tolist() == [False] * SEEDS + [True]

    def test_infinity_is_a_value(self, folder):
        add_metric(FolderArchive(folder), "endless", lambda p, y, d: np.inf, source="here")
        assert np.isinf(analyse(folder).losses[0].scores["endless"]).all()

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("nll", 1.0, "'nll' is a metric of infoloss"),
            ("a/b", 1.0, "'a/b' is no name"),
            ("mine", np.nan, r"mine of .*seed \d is nan; expected a number"),
            ("mine", None, "mine of .* is None"),
        ],
    )
    def test_mistakes_are_named_and_leave_nothing(self, folder, name, value, message):
        with pytest.raises(ValueError, match=message):
            add_metric(FolderArchive(folder), name, lambda p, y, d: value, source="here")
        assert not (folder / "metrics").exists()

    def test_a_damaged_file_is_said(self, folder):
        add_metric(FolderArchive(folder), "right", lambda p, y, d: 1.0, source="here")
        (folder / "metrics" / "right.json").write_text("{}")
        with pytest.raises(StoreError, match=r"right\.json is damaged"):
            analyse(folder)


def test_score_prints_paired_differences(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef gap(p, y, d):\n    return float(np.exp(p.max(1)).mean() - (d == y).mean())\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(folder), "--metric", "mine:gap"]) == 0
    shown = capsys.readouterr().out
    values = {loss.label: loss.scores["gap"] for loss in analyse(folder).losses}
    difference = values["squentropy"] - values["cross_entropy"]
    # Nadeau and Bengio's interval by hand, for splits of 72, 24 and 24 rows
    error = np.sqrt(difference.var(ddof=1) * (1 / SEEDS + 24 / 72))
    reach = stats.t.ppf(0.975, SEEDS - 1) * error
    [line] = [line for line in shown.splitlines() if line.startswith("squentropy")]
    assert f"{difference.mean():+.3g}" in line
    assert f"{difference.mean() - reach:+.3g} to {difference.mean() + reach:+.3g}" in line
    assert "Exploratory" in shown
    assert main(["score", str(folder), "--metric", "mine"]) == 2
    assert main(["score", str(tmp_path), "--metric", "mine:gap"]) == 2


class TestExport:
    def test_a_row_a_run_with_its_scores(self, folder):
        table = run_table(folder)
        found = records(folder)[0]
        assert set(table["id"]) == set(found)
        tested = table.filter(pl.col("role") != "tuning")
        for row in tested.iter_rows(named=True):
            kept = predictions(folder, row["id"])
            if row["role"] == "reference" or row["label"] != "balanced_softmax":
                right = kept["test_logits"].argmax(1) == kept["test_target"]
                assert row["accuracy"] == pytest.approx(right.mean())
        assert table.filter(pl.col("role") == "tuning")["accuracy"].is_null().all()
        one = table.filter((pl.col("role") == "tuning") & (pl.col("label") == "squentropy"))
        assert sorted(one["learning_rate"]) == [0.001, 0.003, 0.01, 0.03]

    def test_both_files_hold_the_table(self, folder, tmp_path, capsys):
        for name in ("table.parquet", "table.csv"):
            assert main(["export", str(folder), str(tmp_path / name)]) == 0
        table = run_table(folder)
        assert pl.read_parquet(tmp_path / "table.parquet").equals(table)
        assert pl.read_csv(tmp_path / "table.csv")["nll"].equals(table["nll"])
        assert main(["export", str(folder), str(tmp_path / "table.xlsx")]) == 2
        assert "expected a name that ends in .parquet or .csv" in capsys.readouterr().err


class TestPack:
    def test_the_report_of_the_file_is_the_report_of_the_folder(self, folder, tmp_path):
        add_metric(FolderArchive(folder), "right", lambda p, y, d: (d == y).mean(), source="here")
        file = pack(folder, tmp_path / "study.parquet")
        from_folder, from_file = analyse(folder), analyse(file)
        assert plain(from_file.verdicts) == plain(from_folder.verdicts), "to the last digit"
        for mine, theirs in zip(from_file.losses, from_folder.losses, strict=True):
            for field in fields(mine):
                if field.name == "curve":
                    assert mine.curve.keys() == theirs.curve.keys()
                    for name, values in mine.curve.items():
                        assert values == pytest.approx(theirs.curve[name], rel=1e-3)
                elif not field.name.startswith("reliability"):
                    assert plain(getattr(mine, field.name)) == plain(getattr(theirs, field.name)), field.name
            for name in ("reliability", "reliability_scaled"):
                drawn, expected = getattr(mine, name), getattr(theirs, name)
                assert drawn.count.tolist() == expected.count.tolist()
                assert drawn.accuracy == pytest.approx(expected.accuracy)
                assert drawn.confidence == pytest.approx(expected.confidence, rel=1e-6)
        for field in ("headline", "margins", "references", "data", "notes", "protocol", "environment"):
            assert plain(getattr(from_file, field)) == plain(getattr(from_folder, field)), field

    def test_the_report_command_takes_it(self, folder, tmp_path, capsys):
        assert main(["pack", str(folder), str(tmp_path / "study.parquet")]) == 0
        assert main(["report", str(tmp_path / "study.parquet")]) == 0
        verdicts = (tmp_path / "study-report" / "verdicts.csv").read_text()
        assert main(["report", str(folder)]) == 0
        assert (folder / "verdicts.csv").read_text() == verdicts
        assert main(["pack", str(folder), str(tmp_path / "study.csv")]) == 2

    def test_it_holds_what_others_can_read(self, folder, tmp_path):
        frame = pl.read_parquet(pack(folder, tmp_path / "study.parquet"))
        frame = frame.filter(role="final", seed=1, loss="squentropy")
        [row] = frame.iter_rows(named=True)
        id = json.loads(row["record"])["id"]
        kept = predictions(folder, id)
        z = kept["test_logits"].astype(float)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        assert row["correct"] == (z.argmax(1) == kept["test_target"]).tolist()
        assert row["confidence"] == pytest.approx(p.max(1), rel=1e-6)
        assert row["nll"] == pytest.approx(-np.log(p[np.arange(len(p)), kept["test_target"]]))
        assert row["test_rows"] == kept["test_rows"].tolist()

    def test_it_is_smaller_than_the_predictions(self, folder, tmp_path):
        kept = sum(path.stat().st_size for path in (folder / "runs").rglob("*") if path.is_file())
        assert pack(folder, tmp_path / "study.parquet").stat().st_size < kept / 3

    def test_a_file_that_is_none_is_said(self, folder, tmp_path):
        pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
        (tmp_path / "text.parquet").write_text("no parquet")
        newer = pl.read_parquet(pack(folder, tmp_path / "new.parquet"))
        study = json.loads(newer["study"][0]) | {"format": 99}
        newer.with_columns(study=pl.lit(json.dumps(study))).write_parquet(tmp_path / "new.parquet")
        for name, why in (("other", "study"), ("text", ""), ("new", "its format is 99")):
            with pytest.raises(StoreError, match=f"is no packed study: .*{why}"):
                archive(tmp_path / f"{name}.parquet")

    def test_a_study_without_runs_is_refused(self, folder, tmp_path):
        shutil.rmtree(folder / "runs")
        with pytest.raises(StoreError, match="no run yet"):
            pack(folder, tmp_path / "study.parquet")


def test_stores_of_several_machines_merge_by_copying(tmp_path, monkeypatch):
    """One machine did seed 0, the other seed 1: their runs in one folder are the whole study's."""
    whole, here, there = (tmp_path / name for name in ("whole", "here", "there"))
    run(small_plan(seeds=2), blobs(), whole, workers=1)
    run(small_plan(seeds=[0]), blobs(), here, workers=1)
    run(small_plan(seeds=[1]), blobs(), there, workers=1)
    shutil.copytree(there / "runs", here / "runs", dirs_exist_ok=True)
    monkeypatch.setattr("infoloss.study.store.Store.write", lambda *_: pytest.fail("a run was repeated"))
    merged = run(small_plan(seeds=2), blobs(), here, workers=1)
    assert contents(here) == contents(whole)
    assert plain(merged.verdicts) == plain(analyse(whole).verdicts)
