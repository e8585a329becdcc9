"""Scores from elsewhere: read, checked, and judged as a textbook would."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from infoloss.cli import main
from infoloss.study.scores_file import read_scores
from infoloss.study.scores_verdict import analyses, asked

SEEDS = range(7)
GENERATOR = np.random.default_rng(7)
SHARED = GENERATOR.normal(0.9, 0.01, len(SEEDS))
ACCURACY = {
    "cross_entropy": SHARED,
    "focal": SHARED + GENERATOR.normal(0.02, 0.004, len(SEEDS)),
    "mae": SHARED + GENERATOR.normal(-0.05, 0.01, len(SEEDS)),
}


def written(path: Path, rows: Iterable[Sequence[Any]], heads: Sequence[str], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([heads, *rows])
    return path


def rows_of(accuracy: dict[str, np.ndarray], factor: float = 1.0) -> list[list[Any]]:
    return [[loss, seed, factor * values[seed]] for loss, values in accuracy.items() for seed in SEEDS]


def judged(path: Path, baseline: str = "cross_entropy", rows: Any = None, **options: Any) -> dict[str, Any]:
    scores = read_scores(path, metric=options.get("metric"))
    [analysis] = analyses(scores, asked(scores, **options), baseline=baseline, rows=rows)
    return {verdict.loss: verdict for verdict in analysis.verdicts}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "scores.csv", rows_of(ACCURACY), ["loss", "seed", "accuracy"])


def test_verdicts_are_the_paired_t_in_points(file: Path) -> None:
    found = judged(file)
    assert found.keys() == {"focal", "mae"}
    for loss, verdict in found.items():
        expected = stats.ttest_rel(100 * ACCURACY[loss], 100 * SHARED)
        interval = expected.confidence_interval(0.95)
        assert verdict.difference == pytest.approx(100 * (ACCURACY[loss] - SHARED).mean())
        assert verdict.interval == pytest.approx((interval.low, interval.high))
        assert verdict.p_value == pytest.approx(expected.pvalue)
    assert (found["focal"].outcome, found["mae"].outcome) == ("better", "worse")


def test_splits_of_every_seed_widen_the_interval_as_nadeau_and_bengio_say(file: Path) -> None:
    same, drawn = judged(file)["focal"], judged(file, rows=(800, 200))["focal"]
    assert drawn.standard_error / same.standard_error == pytest.approx(np.sqrt((1 / 7 + 200 / 800) / (1 / 7)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_percent_order_and_delimiter_change_nothing(file: Path, tmp_path: Path, delimiter: str) -> None:
    rows = rows_of(ACCURACY, 100)
    GENERATOR.shuffle(rows)
    other = written(tmp_path / "percent.csv", rows, ["Loss", "Seed", "Accuracy"], delimiter)
    expected = judged(file)
    for loss, verdict in judged(other).items():
        assert verdict.difference == pytest.approx(expected[loss].difference)
        assert verdict.outcome == expected[loss].outcome
    assert any("taken as percent" in note for note in read_scores(other).notes)
    assert any("taken as fractions" in note for note in read_scores(file).notes)


def test_percent_signs_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "s.csv", [["kl", 0, "97.5%"], ["focal", 0, "98 %"]], ["loss", "seed", "accuracy"]
    )
    assert [run.scores["accuracy"] for run in read_scores(path).runs] == pytest.approx([0.975, 0.98])


def test_mixed_units_are_said(tmp_path: Path) -> None:
    rows = [["kl", 0, 97.0], ["kl", 1, 0.96], ["focal", 0, 98.0], ["focal", 1, 97.5]]
    notes = read_scores(written(tmp_path / "s.csv", rows, ["loss", "seed", "accuracy"])).notes
    assert any("1 of 4 values are at most 1 (line 3: 0.96)" in note for note in notes)


def test_a_lower_nll_is_better(tmp_path: Path) -> None:
    nll = {
        "kl": SHARED,
        "focal": SHARED - 0.1 - 0.001 * np.arange(7),
        "mae": SHARED + 0.3 + 0.001 * np.arange(7),
    }
    found = judged(written(tmp_path / "s.csv", rows_of(nll), ["loss", "seed", "nll"]), baseline="kl")
    assert found["focal"].difference == pytest.approx(-0.103)
    assert (found["focal"].outcome, found["mae"].outcome) == ("better", "worse")


@pytest.mark.parametrize(("higher", "outcomes"), [(True, ("better", "worse")), (False, ("worse", "better"))])
def test_a_metric_of_ones_own_needs_direction_and_margin(
    tmp_path: Path, higher: bool, outcomes: tuple[str, str]
) -> None:
    path = written(tmp_path / "s.csv", rows_of(ACCURACY), ["loss", "seed", "wer"])
    found = judged(path, metric="wer", higher_is_better=higher, margin=0.001)
    assert (found["focal"].outcome, found["mae"].outcome) == outcomes
    # the report prints larger as better: what is to be small is negated
    assert np.sign(found["focal"].difference) == (1 if higher else -1)
    assert found["focal"].metric == ("wer" if higher else "−wer")


def test_unpaired_seeds_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [row for row in rows_of(ACCURACY) if (row[0], row[1]) not in {("focal", 2), ("cross_entropy", 5)}]
    scores = read_scores(written(tmp_path / "s.csv", rows, ["loss", "seed", "accuracy"]))
    [analysis] = analyses(scores, asked(scores), baseline="cross_entropy")
    [focal] = [verdict for verdict in analysis.verdicts if verdict.loss == "focal"]
    kept = [0, 1, 3, 4, 6]
    assert focal.seeds == len(kept)
    assert focal.difference == pytest.approx(100 * (ACCURACY["focal"] - SHARED)[kept].mean())
    assert "focal: left out, since focal lacks seed 2" in analysis.notes
    assert "focal: left out, since cross_entropy lacks seed 5" in analysis.notes


def test_empty_cells_are_missing_and_said(tmp_path: Path) -> None:
    rows = [[*row, 0.1 * row[1] + (row[0] == "focal")] for row in rows_of(ACCURACY)]
    rows[8][3] = ""  # focal, seed 1
    scores = read_scores(written(tmp_path / "s.csv", rows, ["loss", "seed", "accuracy", "nll"]))
    assert "line 10: no nll for focal, seed 1" in scores.notes
    [analysis] = analyses(scores, asked(scores), baseline="cross_entropy")
    seeds = {(verdict.loss, verdict.metric): verdict.seeds for verdict in analysis.verdicts}
    assert seeds["focal", "nll"] == 6
    assert seeds["focal", "accuracy"] == 7


def test_data_sets_are_judged_each_by_itself(tmp_path: Path) -> None:
    rows = [["a", *row] for row in rows_of(ACCURACY)]
    rows += [["b", "cross_entropy", seed, 0.5] for seed in (3, 4)] + [
        ["b", "kl", seed, 0.5] for seed in (3, 4)
    ]
    path = written(tmp_path / "s.csv", rows, ["dataset", "loss", "seed", "accuracy"])
    scores = read_scores(path)
    first, second = analyses(scores, asked(scores), baseline="cross_entropy")
    assert (first.data["name"], second.data["name"]) == ("a", "b")
    alone = judged(written(tmp_path / "a.csv", rows_of(ACCURACY), ["loss", "seed", "accuracy"]))
    assert {v.loss: v.adjusted_interval for v in first.verdicts} == {
        loss: verdict.adjusted_interval for loss, verdict in alone.items()
    }
    assert [verdict.loss for verdict in second.verdicts] == ["kl"]


HEADS = "loss,seed,accuracy"
WRONG = {
    "": "is empty",
    f"{HEADS}\n": "a header and no run",
    f"{HEADS}\nkl,0,0.9\nkl,0,0.8\nfocal,0,0.9\n": "lines 2 and 3: kl, seed 0, twice",
    f"{HEADS}\nkl,0,high\n": "line 2: accuracy: 'high' is not a number",
    f"{HEADS}\nkl,zero,0.9\n": "line 2: seed: 'zero' is not a whole number",
    f"{HEADS}\nkl,,0.9\n": "line 2: seed: the cell is empty",
    f"{HEADS}\n,0,0.9\n": "line 2: loss: the cell is empty",
    f"{HEADS}\nkl,0,0.9,1\n": "line 2: 4 cells, but the header has 3",
    f"{HEADS}\nkl,0,-0.2\nfocal,0,0.3\n": "line 2: accuracy: -0.2 is neither a fraction nor a percentage",
    f"{HEADS}\nkl,0,0.9\nfocal,0,970\n": "line 3: accuracy: 970 is neither",
    f"{HEADS},accuracy\nkl,0,0.9,0.9\n": "column 'accuracy' stands there 2 times",
    "los,seed,accuracy\nkl,0,0.9\n": "no column 'loss'; did you mean 'los'",
    "loss,accuracy\nkl,0.9\n": "no column 'seed'",
    "loss,seed,wer\nkl,0,0.9\nfocal,0,0.9\n": "--metric NAME --higher-is-better",
    "loss,seed,brier\nkl,0,0.9\nfocal,0,0.9\n": "which of brier is to be judged",
    f"{HEADS}\nkl,0,0.9\n": "kl stands there alone",
    f"{HEADS}\nfocal,0,0.9\nmae,0,0.9\n": "baseline: no loss 'kl'",
    f"{HEADS}\nkl,0,0.9\nfocal,1,0.9\n": "focal (seeds 1) shares no seed with kl",
    "dataset,loss,seed,nll\na,kl,0,0.9\na,mae,0,0.9\nb,mae,0,0.9\n": "b: baseline: no loss 'kl'",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_used_is_named_with_its_place(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(text)
    assert main(["verdict", "scores.csv", "--baseline", "kl"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("infoloss: scores.csv")
    assert WRONG[text] in said
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
        (["--metric", "wer"], "which way is better"),
        (["--metric", "wer", "--lower-is-better"], "how large a difference would not matter"),
        (["--metric", "wer", "--lower-is-better", "--higher-is-better"], "contradict"),
        (["--metric", "accuracy", "--lower-is-better"], "higher is better, as is known"),
        (["--lower-is-better"], "named by --metric"),
        (["--margin", "0"], "must be a number > 0"),
        (["--rows", "0", "5"], "must be 1 or more"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("loss,seed,accuracy,wer\nkl,0,0.9,1\nmae,0,0.8,2\n")
    assert main(["verdict", "s.csv", "--baseline", "kl", *options]) == 2
    assert said in capsys.readouterr().err


def test_the_command_prints_the_verdict_and_writes_the_report(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verdict", file.name, "--baseline", "cross_entropy"]) == 0
    said = capsys.readouterr()
    assert "better" in said.out
    assert "taken as fractions" in said.err
    report = tmp_path / "infoloss-scores-verdict" / "report.md"
    text = report.read_text(encoding="utf-8")
    assert "taken as fractions" in text
    assert "infoloss verdict scores.csv --baseline cross_entropy" in text
    assert "Not known" in text or "not known" in text


def test_a_studys_own_scores_give_its_differences_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infoloss.study.analysis import analyse

    monkeypatch.chdir(tmp_path)
    words = "compare wine --losses focal --seeds 3 --epochs 4 --no-tune --jobs 1 --quiet --out study"
    assert main(words.split()) == 0
    whole = {(v.loss, v.metric): v.difference for v in analyse(tmp_path / "study").verdicts}
    scores = read_scores(tmp_path / "study" / "scores.csv")
    [again] = analyses(scores, asked(scores), baseline="cross_entropy")
    assert {(v.loss, v.metric): v.difference for v in again.verdicts} == pytest.approx(whole)
