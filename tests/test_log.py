"""Runs in TensorBoard and MLflow are those of the records: read back from what both wrote."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_cases import blobs, small_plan

from infoloss.cli import main
from infoloss.study.archive import FolderArchive
from infoloss.study.collection import run_collection
from infoloss.study.compare import Comparison, run
from infoloss.study.log import LogError, Logged, log, opened
from infoloss.study.pack import pack

FINAL = {"test/accuracy", "test/nll_scaled", "best_epoch/epoch", "best_epoch/validation_nll", "cost/seconds"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Comparison:
    folder = tmp_path_factory.mktemp("study")
    return Comparison(folder, run(small_plan(), blobs(), folder, workers=1))


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, Logged] = {}

    def has(self, run: Logged) -> bool:
        return run.record["id"] in self.runs

    def write(self, run: Logged) -> None:
        assert not self.has(run)
        self.runs[run.record["id"]] = run


def trainings(folder: Path) -> dict[str, Mapping[str, Any]]:
    return {run["id"]: run for run in FolderArchive(folder).records if run["role"] != "reference"}


def test_every_training_run_is_logged_once_with_what_its_record_says(study):
    kept = Kept()
    expected = trainings(study.folder)
    assert log(study.folder, kept) == len(expected)
    assert log(study.folder, kept) == 0
    assert kept.runs.keys() == expected.keys()
    archive = FolderArchive(study.folder)
    for id, record in expected.items():
        run = kept.runs[id]
        assert list(run.curve) == [entry["epoch"] for entry in record["curve"]] == [1, 2, 3]
        for entry in record["curve"]:
            assert (
                run.curve[entry["epoch"]].items() == {k: v for k, v in entry.items() if k != "epoch"}.items()
            )
        asked = {key: run.parameters[key] for key in ("loss", "seed", "data", "learning_rate", "role")}
        assert asked == {"loss": record["label"], **{key: record[key] for key in asked if key != "loss"}}
        assert run.parameters["training.epochs"] == 3
        tested = (
            {f"test/{k}": v for k, v in archive.scored(record).scores.items()} if "final" in run.place else {}
        )
        assert {key: run.metrics[key] for key in run.metrics if key.startswith("test/")} == tested
        assert run.metrics["best_epoch/validation_accuracy"] == record["validation"]["accuracy"]


def test_what_is_not_finite_is_left_out(study):
    record = next(iter(trainings(study.folder).values()))
    broken = {**record, "curve": [{"epoch": 1, "train_loss": None}], "validation": {"nll": math.inf}}
    run = Logged.of(FolderArchive(study.folder).design, broken, {"nll": math.nan})
    assert run.curve == {1: {}}
    assert not {"best_epoch/validation_nll", "test/nll"} & run.metrics.keys()


def test_packed_and_several_studies_are_logged_too(study, tmp_path):
    folder, packed = Kept(), Kept()
    log(study.folder, folder)
    log(pack(study.folder, tmp_path / "study.parquet"), packed)
    for id, one in folder.runs.items():
        assert packed.runs[id].metrics == pytest.approx(one.metrics)
        assert packed.runs[id].curve.keys() == one.curve.keys()
        for epoch, scores in one.curve.items():
            assert packed.runs[id].curve[epoch] == pytest.approx(scores, rel=1e-3)
    several, plan = Kept(), small_plan(losses=["focal"], seeds=1, tuning=False)
    sets = [replace(blobs(seed=seed), name=f"set {seed}") for seed in (1, 2)]
    run_collection(plan, sets, tmp_path / "sets", workers=1)
    assert log(tmp_path / "sets", several) == 4
    assert len({run.study for run in several.runs.values()}) == 2


@pytest.mark.parametrize("target", ["tensorboard", "tensorboard:", "wandb:x", ""])
def test_another_kind_of_target_is_refused(target):
    with pytest.raises(ValueError, match="expected tensorboard:DIR or mlflow:URI"):
        opened(target)


@pytest.mark.parametrize(
    ("target", "module"), [("tensorboard:x", "torch.utils.tensorboard"), ("mlflow:x", "mlflow")]
)
def test_a_missing_package_is_named_before_anything_is_trained(target, module, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LogError, match=r"infoloss\[log\]"):
        opened(target)
    assert main(["compare", "wine", "--log", target, "--out", str(tmp_path / "study")]) == 1
    assert "infoloss[log]" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_the_study_goes_on_where_a_run_cannot_be_logged(tmp_path, monkeypatch, capsys):
    class Down(Kept):
        def write(self, run: Logged) -> None:
            raise LogError("no server")

    kept = Kept()
    given = iter([Down(), kept])
    monkeypatch.setattr("infoloss.study.log.opened", lambda target: next(given))
    words = [
        "compare",
        "wine",
        "--losses",
        "focal",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--no-tune",
        "--jobs",
        "1",
    ]
    words += ["--out", str(tmp_path / "s"), "--log", "mlflow:x", "--quiet"]
    assert main(words) == 0
    said = (
        f"infoloss: runs are not logged any more: no server; infoloss log {tmp_path / 's'} … makes up for it"
    )
    answer = capsys.readouterr()
    assert answer.err == f"{said}\n", "once"
    assert "Report: " in answer.out
    assert len(trainings(tmp_path / "s")) == 2
    assert main(["log", str(tmp_path / "s"), "mlflow:x"]) == 0
    assert len(kept.runs) == 2
    assert capsys.readouterr().out == "mlflow:x: 2 new runs\n"


SMALL = ["--losses", "focal", "--seeds", "2", "--epochs", "2", "--hidden", "4", "--tuning-seeds", "1"]


def test_runs_are_logged_as_they_end_of_several_data_sets_too(tmp_path, monkeypatch):
    kept, ended = Kept(), []
    monkeypatch.setattr("infoloss.study.log.opened", lambda target: kept)
    monkeypatch.setattr(
        "infoloss.study.collection.analyse", lambda folder: ended.append(len(kept.runs)) or analysed(folder)
    )
    from infoloss.study.analysis import analyse as analysed

    words = ["compare", "wine", "breast_cancer", *SMALL, "--jobs", "1", "--out", str(tmp_path / "s")]
    assert main([*words, "--log", "mlflow:x", "--quiet"]) == 0
    assert ended[0] == len(kept.runs) == 2 * (2 * 4 + 2 * 2), "all before the end"


def accumulated(place: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(place))
    found.Reload()
    return found


def test_tensorboard_shows_the_records(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'infoloss[log]'")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    monkeypatch.chdir(tmp_path)
    words = ["compare", "wine", *SMALL, "--jobs", "1", "--out", "s", "--log", "tensorboard:board", "--quiet"]
    assert main(words) == 0
    expected = trainings(Path("s"))
    [board] = Path("board").iterdir()
    assert board.name == FolderArchive(Path("s")).design.name
    places = {place.parent for place in board.rglob("events.out.*")}
    assert len(places) == len(expected) == 2 * 4 + 2 * 2
    for record in expected.values():
        [place] = [each for each in places if each.name.endswith(record["id"][:8])]
        assert record["role"] in place.parts
        found = accumulated(place)
        for entry in record["curve"]:
            for name in ("train_loss", "validation_nll", "validation_accuracy"):
                values = {event.step: event.value for event in found.Scalars(name)}
                assert values[entry["epoch"]] == pytest.approx(entry[name], rel=1e-6)
                assert len(values) == 2
        tags = set(found.Tags()["scalars"])
        assert tags >= FINAL if record["role"] == "final" else not any(t.startswith("test/") for t in tags)
        content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        given = HParamsPluginData.FromString(content).session_start_info.hparams
        assert given["loss"].string_value == record["label"]
        assert given["seed"].number_value == record["seed"]
        assert given["data"].string_value == "wine"
    before = {path: path.stat().st_mtime_ns for path in board.rglob("*")}
    capsys.readouterr()
    assert main(["log", "s", "tensorboard:board"]) == 0
    assert capsys.readouterr().out == "tensorboard:board: 0 new runs\n"
    assert {path: path.stat().st_mtime_ns for path in board.rglob("*")} == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*noload", "ignore::FutureWarning")
def test_mlflow_shows_the_records(study, tmp_path, monkeypatch):
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="MLflow is not installed: pip install 'infoloss[log]'")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    expected = trainings(study.folder)
    assert study.log(f"mlflow:{uri}") == len(expected)
    assert study.log(f"mlflow:{uri}") == 0
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(FolderArchive(study.folder).design.name)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(found.data.tags["infoloss.id"] for found in runs) == sorted(expected)
    for found in runs:
        record = expected[found.data.tags["infoloss.id"]]
        assert found.info.status == "FINISHED"
        assert found.data.tags["infoloss.study"] == experiment.tags["infoloss.study"]
        assert found.data.params["loss"] == record["label"]
        assert found.data.params["seed"] == str(record["seed"])
        history = client.get_metric_history(found.info.run_id, "validation_nll")
        assert {point.step: point.value for point in history} == {
            entry["epoch"]: pytest.approx(entry["validation_nll"]) for entry in record["curve"]
        }
        assert (record["role"] == "final") == FINAL.issubset(found.data.metrics)
