"""Studies on images and texts: from files to records, in memory or from a file that workers map."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from study_cases import contents, small_plan

import infoloss.data.memory
from infoloss.cli import main
from infoloss.data import from_arrays, load
from infoloss.study import description, engines, runs
from infoloss.study import forecast as forecasts
from infoloss.study.compare import run
from infoloss.study.design import settled
from infoloss.study.engines import Workers
from infoloss.study.forecast import forecast
from infoloss.study.materials import Materials
from infoloss.study.plan import PlanError
from infoloss.training import mapped

RNG = np.random.default_rng(0)
SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of three classes, each with a colour of its own."""
    root = tmp_path_factory.mktemp("images") / "colours"
    for number in range(60):
        label = number % 3
        pixels = RNG.integers(0, 150, (8, 8, 3), dtype=np.uint8)
        pixels[..., label] += 60
        path = root / "rgb"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        path.write_bytes(file.getvalue())
    return root


@pytest.fixture
def from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything larger than a thousand bytes is a memory map."""
    monkeypatch.setenv("INFOLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(infoloss.data.memory, "LARGEST_IN_MEMORY", 1000)


def plan(**options):
    model = {"name": "convnet", "widths": [4]}
    return small_plan(losses=["squentropy"], model=model, **options)


def test_rows_of_a_file_are_those_of_the_array(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "values.npy", values)
    rows = RNG.permutation(50)[:21]
    found = mapped(tmp_path / "values.npy", rows, torch.device("cpu"))
    chosen = torch.from_numpy(values[rows])
    assert (found.shape, found.ndim, len(found), found.numel()) == ((21, 3, 4, 4), 4, 21, 21 * 48)
    assert (found[torch.tensor([3, 0, 20])] == chosen[[3, 0, 20]]).all()
    assert (found[:1] == chosen[:1]).all()
    assert [len(block) for block in found.split(8)] == [8, 8, 5]
    assert (torch.cat(list(found.split(8))) == chosen).all()


def test_a_file_gives_the_records_of_an_array(folder, tmp_path, monkeypatch) -> None:
    run(plan(), load(folder, image_size=8), tmp_path / "memory", workers=1)
    monkeypatch.setenv("INFOLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(infoloss.data.memory, "LARGEST_IN_MEMORY", 1000)
    data = load(folder, image_size=8)
    made = Materials(data, settled(plan(), data))
    job = made.training("tuning", made.design.baseline, made.design.tuning_seeds[0], 0.01)
    assert set(made.arrays(job)) == {
        "file",
        "train_rows",
        "train_target",
        "validation_rows",
        "validation_target",
    }
    run(plan(), data, tmp_path / "file", workers=2)
    expected = contents(tmp_path / "memory")
    assert contents(tmp_path / "file") == expected
    assert {record["status"] for record, _ in expected.values()} == {"done"}
    assert len({record["label"] for record, _ in expected.values()}) == 3  # losses and the majority
    assert description.data(made.design)["features"] == "3 × 8 × 8"
    assert "images are cropped to squares around the middle and resized to 8 × 8 pixels" in made.design.notes


@pytest.mark.usefixtures("from_file")
def test_the_forecast_of_rows_in_a_file_sees_no_test_row(folder, tmp_path) -> None:
    data = load(folder, image_size=8)
    found = forecast(settled(plan(), data), data, tmp_path / "study", workers=1)
    assert found.seconds > 0
    assert found.runs["reference lines"] == 2


def test_the_forecast_of_many_rows_tries_few(monkeypatch) -> None:
    data = from_arrays(RNG.normal(size=(600, 4)), np.arange(600) // 200)
    made = Materials(data, settled(small_plan(training={"epochs": 6}), data))
    seen = []

    def seconds(config, arrays, told=None):
        seen.append({name: len(array) for name, array in arrays.items()})
        assert set(np.unique(arrays["train_target"])) == {0, 1, 2}
        return runs.outcome_of(None, status="done", seconds=2.0)

    monkeypatch.setattr(engines.Serial.__init__, "__defaults__", (seconds,))
    monkeypatch.setattr(forecasts, "TRIAL_ROWS", 90)
    assert forecasts._training_seconds(made) == pytest.approx(2.0 * (360 / 90) * (6 / 3))
    assert seen[-1]["train_features"] == seen[-1]["train_target"] == 90
    assert seen[-1]["validation_features"] == seen[-1]["test_features"] == 30


def test_a_worker_maps_the_file_and_is_not_sent_it(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("INFOLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(infoloss.data.memory, "LARGEST_IN_MEMORY", 1000)
    data = load(folder, image_size=8)
    made = Materials(data, settled(plan(), data))
    job = made.training("final", made.design.baseline, 0, 0.01)
    sent = sum(array.nbytes for array in made.arrays(job).values())
    assert sent < 60 * np.prod(SHAPE) / 4
    with Workers(1) as workers:
        [(_, outcome)] = workers.outcomes([job], made)
    assert outcome.fields["status"] == "done"


def test_words_reach_the_bag_of_embeddings(tmp_path) -> None:
    words = ("red", "green", "blue")
    lines = [f"{words[n % 3]}\tthe {words[n % 3]} one is number {n}" for n in range(60)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    data = load(tmp_path / "texts.txt", text="tokens")
    design = settled(small_plan(model={"name": "embedding_bag", "width": 8}), data)
    assert design.model["vocabulary"] == data.vocabulary
    found = run(small_plan(model={"name": "embedding_bag", "width": 8}), data, tmp_path / "study", workers=1)
    assert found.complete
    labels = {record["label"] for record, _ in contents(tmp_path / "study").values()}
    assert "majority class" in labels
    assert "logistic regression" not in labels
    with pytest.raises(PlanError, match="model: mlp cannot read token ids, which embedding_bag reads"):
        settled(small_plan(), data)


def test_a_model_that_cannot_read_the_rows_is_refused_before_anything_runs() -> None:
    data = from_arrays(RNG.normal(size=(60, 4)), np.arange(60) % 3)
    with pytest.raises(PlanError, match=r"the model convnet reads images"):
        settled(plan(), data)


def test_the_command_line_reads_a_folder_of_images(folder, tmp_path, capsys) -> None:
    words = ["compare", str(folder), "--image-size", "8", "--losses", "squentropy", "--seeds", "3"]
    words += ["--epochs", "2", "--dry-run", "--jobs", "1", "--out", str(tmp_path / "study")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "data: colours, 60 rows, 192 features, 3 classes" in out
