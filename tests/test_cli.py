"""The command line, run as a user does: words in; exit code, words and files out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from study_cases import contents

import infoloss as il
from infoloss.cli import comparison, doctor, main
from infoloss.cli.commands import explicit_losses
from infoloss.cli.options import (
    DataOptions,
    JudgingOptions,
    LossOptions,
    TrainingOptions,
    TuningOptions,
    seconds,
)
from infoloss.cli.progress import Lines, duration, shown
from infoloss.cli.results import best, recipe
from infoloss.study.analysis import Analysis, analyse
from infoloss.study.compare import Finished, Progress
from infoloss.study.design import default_losses
from infoloss.study.plan import Plan
from infoloss.study.session import UnderWay

SMALL = ["wine", "--losses", "squentropy", "-0.1*entropy + cross_entropy"]
QUICK = ["--seeds", "2", "--epochs", "3", "--hidden", "8", "--tuning-seeds", "1", "--jobs", "1"]
RUNS = 3 * 4 + 3 * 2 + 3 * 2  # tuning: losses × rates; final: losses × seeds; reference lines × seeds


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def infoloss(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFOLOSS_DEBUG", raising=False)

    def answer(*words: str) -> Answer:
        code = main(words)
        return Answer(code, *capsys.readouterr())

    return answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plan and the running options that words come to; nothing is loaded or trained."""

    def planned(*words: str) -> tuple[Plan, comparison.Running]:
        found: list[tuple[Plan, comparison.Running]] = []

        class Recorder:
            def __init__(self, plan: Plan, run: comparison.Running) -> None:
                found.append((plan, run))

            def carried_out(self) -> int:
                return 0

            forecast = carried_out

        monkeypatch.setattr(comparison, "Study", Recorder)
        monkeypatch.setattr(comparison, "CollectionStudy", Recorder)
        assert main(["compare", *words]) == 0
        return found[0]

    return planned


# Words


def expressions(plan: Plan) -> list[str]:
    assert plan.losses is not None
    return [loss.expression for loss in plan.losses]


MINUS = "-0.1*entropy + cross_entropy"


@pytest.mark.parametrize(
    "words",
    [
        ["digits", "--losses", MINUS, "squentropy", "--seeds", "3"],
        ["digits", "--seeds", "3", "--losses", MINUS, "squentropy"],
        ["--seeds", "3", "digits", "--losses", MINUS, "squentropy"],
        ["--losses", MINUS, "squentropy", "--seeds", "3", "--", "digits"],
        ["--losses", MINUS, "squentropy", "--seeds=3"],
        ["digits", f"--losses={MINUS}", "squentropy", "--seeds", "3"],
        ["digits", "--losses", MINUS, "--seeds", "3", "--losses", "squentropy"],
    ],
)
def test_a_leading_minus_leaves_data_and_options_alone(asked: Any, words: list[str]) -> None:
    plan, _ = asked(*words)
    assert plan.data.source == "digits"
    assert expressions(plan) == [MINUS, "squentropy"]
    assert plan.seeds == (0, 1, 2)


@pytest.mark.parametrize("first", ["-0.1*entropy+kl", "-entropy + kl", "-.5*entropy + kl", "-(entropy - kl)"])
def test_every_form_of_a_leading_minus_is_an_expression(asked: Any, first: str) -> None:
    plan, run = asked("wine", "--losses", first, "focal", first, "--quiet", "--epochs", "2")
    assert expressions(plan) == [first, "focal", first]
    assert run.quiet
    assert plan.training.epochs == 2


def test_a_baseline_may_begin_with_a_minus(asked: Any) -> None:
    plan, _ = asked("wine", "--baseline", MINUS, "--seeds", "2")
    assert plan.baseline.expression == MINUS
    assert len(plan.seeds) == 2


def test_losses_end_at_an_option_that_does_not_exist(infoloss: Any) -> None:
    """It must not become an expression, nor swallow what follows."""
    answer = infoloss("compare", "wine", "--losses", "focal", "--sedes", "3")
    assert answer.code == 2
    assert "--sedes" in answer.err
    assert "--seeds" in answer.err


def test_help_inside_the_losses_is_help(infoloss: Any) -> None:
    answer = infoloss("compare", "wine", "--losses", "focal", "-h")
    assert answer.code == 0
    assert "Usage: infoloss compare" in answer.out


def test_other_words_are_left_as_they_are() -> None:
    words = ["verdict", "scores.csv", "--baseline", "-entropy + kl", "--margin", "-3"]
    assert explicit_losses(words) == words


def leaves(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel) and name != "baseline":
            yield from leaves(type(field.default), f"{place}{name}.")
        else:
            yield f"{place}{name}"


def test_every_part_of_the_plan_has_its_option_and_no_option_has_a_default() -> None:
    sections = (DataOptions, LossOptions, JudgingOptions, TrainingOptions, TuningOptions)
    found = [field for section in sections for field in section.__dataclass_fields__.values()]
    places = [field.metadata["place"] for field in found]
    assert sorted(places) == sorted({*leaves(Plan), "model.*"} - {"data.source", "collection"})
    assert all(field.default is None for field in found)


def test_without_options_the_plan_is_the_plans_own(asked: Any) -> None:
    assert asked()[0] == Plan()


def test_options_reach_their_place(asked: Any) -> None:
    plan, run = asked(
        *["table.csv", "--target", "kind", "--drop", "id", "name", "--group", "who", "--order", "when"],
        *["--sample-weight", "w", "--split", "0.5/0.25/0.25", "--test", "later.csv"],
        *["--image-size", "32", "--text", "tokens", "--text-column", "words"],
        *["--train-rows", "50", "--imbalance", "100", "--imbalance-profile", "step", "--label-noise", "0.2"],
        *["--noisy-labels", "human.npz:worse"],
        *["--metric", "nll", "--margin", "0.3", "--margin-nll", "0.02", "--baseline", "focal"],
        *[
            "--model",
            "mlp",
            "--hidden",
            "16",
            "8",
            "--optimiser",
            "sgd",
            "--epochs",
            "7",
            "--batch-size",
            "9",
        ],
        *["--weight-decay", "0.1", "--momentum", "0.5", "--warmup", "0", "--device", "cpu"],
        *[
            "--schedule",
            "constant",
            "--augmentation",
            "crop=2",
            "flip",
            "--normalisation",
            "imagenet",
            "--precision",
            "bfloat16",
        ],
        *["--learning-rates", "0.1", "0.2", "0.3", "0.4", "--tuning-seeds", "2"],
        *["--devices-per-run", "2", "--engine", "ray", "--address", "head:6379"],
        *["--out", "there", "--jobs", "3", "--time-limit", "1h30m", "--retry-failed"],
    )
    assert plan.data.model_dump() == {
        "source": "table.csv",
        "target": "kind",
        "drop": ("id", "name"),
        "group": "who",
        "order": "when",
        "sample_weight": "w",
        "split": "0.5/0.25/0.25",
        "test": "later.csv",
        "image_size": 32,
        "text": "tokens",
        "text_column": "words",
        "train_rows": 50,
        "imbalance": 100.0,
        "imbalance_profile": "step",
        "label_noise": 0.2,
        "noisy_labels": "human.npz:worse",
    }
    assert plan == Plan.of(
        data=plan.data,
        metric="nll",
        margins={"labels": 0.3, "nll": 0.02},
        baseline="focal",
        model={"name": "mlp", "hidden": [16, 8]},
        training={
            "optimiser": "sgd",
            "epochs": 7,
            "batch_size": 9,
            "weight_decay": 0.1,
            "momentum": 0.5,
            "warmup": 0,
            "schedule": "constant",
            "augmentation": ["crop=2", "flip=0.5"],
            "normalisation": "imagenet",
            "precision": "bfloat16",
            "devices_per_run": 2,
        },
        device="cpu",
        tuning={"learning_rates": [0.1, 0.2, 0.3, 0.4], "seeds": 2},
    )
    assert (run.out, run.jobs, run.time_limit, run.retry_failed) == (Path("there"), 3, "1h30m", True)
    assert (run.engine, run.address) == ("ray", "head:6379")


def test_options_of_the_model_stand_beside_its_name(asked: Any) -> None:
    plan, _ = asked("wine", "--model", "mlp", "--model-options", "batch_norm=true", "hidden=[8, 4]")
    assert plan.model.options() == {"hidden": [8, 4], "batch_norm": True}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch_norm", "--model-options: 'batch_norm': expected key=value"),
        ("batch_nrm=true", 'no option "batch_nrm"; did you mean "batch_norm"?'),
        ("batch_norm=perhaps", "batch_norm: 'perhaps': should be a valid boolean"),
    ],
)
def test_mistaken_options_of_the_model_are_named(infoloss: Any, word: str, message: str) -> None:
    done = infoloss("compare", "wine", "--model-options", word)
    assert done.code == 2
    assert message in done.err


def test_untuned(asked: Any) -> None:
    plan, _ = asked("wine", "--no-tune", "--learning-rate", "0.02")
    assert plan.tuning.enabled is False
    assert plan.training.learning_rate == 0.02


def test_until_decided(asked: Any) -> None:
    plan, _ = asked("wine", "--seeds", "5", "--until-decided", "40")
    assert (len(plan.seeds), plan.until_decided) == (5, 40)


def test_trials(asked: Any) -> None:
    assert asked("wine", "--tune", "20")[0].tuning.trials == 20


def test_options_go_before_the_study_file(asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('data = "wine"\nseeds = 9\n[training]\nepochs = 5\nbatch_size = 7\n')
    plan, _ = asked(str(file), "--epochs", "2")
    assert (plan.data.source, len(plan.seeds)) == ("wine", 9)
    assert (plan.training.epochs, plan.training.batch_size) == (2, 7)


def test_help_lists_the_eight_losses_and_the_plans_defaults(infoloss: Any) -> None:
    text = infoloss("compare", "--help").out
    for loss in default_losses([1, 1]):
        assert loss in text
    assert str(Plan().training.epochs) in text
    assert "adamw, sgd" in text


def test_a_flag_has_no_default(infoloss: Any) -> None:
    assert "default: yes" not in infoloss("compare", "--help").out


def test_the_package_is_a_command_too() -> None:
    words = [sys.executable, "-m", "infoloss", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == il.__version__


def test_version(infoloss: Any) -> None:
    assert infoloss("--version").out.strip() == il.__version__


@pytest.mark.parametrize(
    ("text", "expected"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("1h30m10s", 5410), ("0.5h", 1800)]
)
def test_time_limits(text: str, expected: float) -> None:
    assert seconds(text) == expected


def commands_of_the_page() -> list[str]:
    page = Path(__file__).parent.parent / "docs" / "command-line.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line.split("  #")[0] for line in lines if line.startswith("infoloss compare")]


@pytest.mark.parametrize("line", commands_of_the_page())
def test_the_pages_commands_are_understood(asked: Any, line: str, monkeypatch: Any, tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "command-line.md"
    toml = page.read_text(encoding="utf-8").split("```toml")[1].split("```")[0]
    (tmp_path / "study.toml").write_text(toml)
    monkeypatch.chdir(tmp_path)
    plan, _ = asked(*shlex.split(line)[2:])
    if "breast_cancer" in line:
        assert [data.source for data in plan.collection or ()] == ["wine", "digits", "breast_cancer"]
    if "study.toml" in line:
        assert plan.training.epochs == 100
        # but for the data and the losses, the page shows the defaults
        shown = plan.model_dump(exclude={"data", "losses"}) | {"training": None}
        usual = Plan().model_dump(exclude={"data", "losses"}) | {"training": None}
        rates = shown["tuning"].pop("learning_rates")
        assert (rates, shown["seeds"], shown["metric"]) == (
            (0.001, 0.003, 0.01, 0.03),
            tuple(range(20)),
            "accuracy",
        )
        usual["tuning"].pop("learning_rates")
        assert {**shown, "seeds": None, "metric": "auto"} == usual


# A study


def test_one_of_a_thing_is_named_as_one(infoloss: Any, tmp_path: Path) -> None:
    small = ["--losses", "squentropy", "--epochs", "1", "--hidden", "4", "--jobs", "1", "--out", "s"]
    answer = infoloss("compare", "wine", *small, "--seeds", "1", "--tuning-seeds", "1")
    assert answer.code == 0
    dry = infoloss("compare", "wine", *small, "--seeds", "3", "--tuning-seeds", "1", "--dry-run")
    report = (tmp_path / "s" / "report.md").read_text(encoding="utf-8")
    assert "1 tuning seed," in report
    for text in (answer.out, report, dry.out):
        assert not re.search(r"(?<![\d.,])1 (\w+ )?(seeds|runs|losses|splits|rows|trials|data sets)\b", text)


def test_compare_ends_with_verdicts_report_and_two_lines_that_run(infoloss: Any, tmp_path: Path) -> None:
    answer = infoloss("compare", *SMALL, *QUICK)
    assert answer.code == 0
    [folder] = tmp_path.glob("infoloss-wine-*")
    assert len(contents(folder)) == RUNS
    assert f"Report: {folder.name}{os.sep}report.html" in answer.out
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    analysis = analyse(folder)
    assert analysis.complete
    assert analysis.command == f"infoloss compare wine --losses squentropy '{MINUS}' {' '.join(QUICK)}"
    for verdict in analysis.verdicts:
        assert verdict.loss in answer.out
    lines = [line.strip() for line in answer.out.splitlines()]
    start = lines.index("import infoloss as il")
    names: dict[str, Any] = {}
    exec("\n".join(lines[start : start + 2]), names)
    assert str(names["loss"]) == best(analysis).expression


def test_the_same_command_trains_nothing_and_more_losses_or_seeds_extend(
    infoloss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infoloss("compare", *SMALL, *QUICK)
    [folder] = tmp_path.glob("infoloss-*")
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr("infoloss.study.store.Store.write", lambda *_: pytest.fail("a run was repeated"))
        assert infoloss("compare", *SMALL, *QUICK, "--quiet").code == 0
    more = infoloss("compare", "wine", "--losses", "focal", *QUICK, "--seeds=3")
    assert more.code == 2, "an option twice is a slip"
    quick = ["3" if word == "2" else word for word in QUICK]
    assert infoloss("compare", "wine", "--losses", "focal", *quick).code == 0
    after = contents(folder)
    assert before.items() <= after.items()
    # one more seed for all, one more loss with its own tuning
    assert len(after) == 4 * 4 + 4 * 3 + 3 * 3
    assert {loss.label for loss in analyse(folder).losses} == {"cross_entropy", "squentropy", MINUS, "focal"}


def test_stopped_studies_go_on_to_the_same_records(
    infoloss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert infoloss("compare", *SMALL, *QUICK, "--out", "whole").code == 0
    late = infoloss("compare", *SMALL, *QUICK, "--out", "parts", "--time-limit", "0s")
    assert late.code == 0
    assert "not finished" in late.out
    assert "infoloss compare wine" in late.out.split("To go on:")[1]
    assert "not finished" in (tmp_path / "parts" / "report.md").read_text(encoding="utf-8")

    class Impatient(Lines):
        def __call__(self, progress: Any) -> None:
            if progress.done == 14:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("infoloss.cli.progress.Lines", Impatient)
        stopped = infoloss("compare", *SMALL, *QUICK, "--out", "parts")
    assert stopped.code == 130
    assert "parts keeps what is done" in stopped.err
    assert "Traceback" not in stopped.err
    assert len(contents(tmp_path / "parts")) == 14
    # a report while the study is unfinished, from the records alone
    early = infoloss("report", "parts", "--out", "early")
    assert early.code == 0
    assert "not finished" in early.out
    assert (tmp_path / "early" / "report.html").exists()

    assert infoloss("compare", *SMALL, *QUICK, "--out", "parts").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_dry_run_counts_and_leaves_no_trace(infoloss: Any, tmp_path: Path) -> None:
    answer = infoloss("compare", *SMALL, *QUICK, "--dry-run")
    assert answer.code == 0
    assert list(tmp_path.iterdir()) == []
    assert "tuning: 12 runs, 12 to do" in answer.out
    assert "training: 6 runs, 6 to do" in answer.out
    assert "on 1 worker" in answer.out
    infoloss("compare", *SMALL, *QUICK)
    quick = ["5" if word == "2" else word for word in QUICK]
    later = infoloss("compare", *SMALL, *quick, "--dry-run").out
    assert "tuning: 12 runs, 0 to do" in later
    assert "training: 15 runs, 9 to do" in later
    assert "the runs that are done" in later
    # noncentral t: 5 seeds, α = 0.05/6 two-sided, power 0.8
    from scipy import optimize, stats

    critical = stats.t.isf(0.05 / 6 / 2, 4)
    expected = optimize.brentq(lambda d: stats.nct.sf(critical, 4, d * 5**0.5) - 0.8, 0.1, 20)
    assert f"{expected:.2g} × the standard deviation" in later


def test_demo_is_compare_digits(infoloss: Any, asked: Any) -> None:
    recorded = asked("digits")
    assert main(["demo"]) == 0
    assert recorded[0] == Plan.of(data="digits") == Plan()


def test_quiet_says_nothing_on_the_way(infoloss: Any) -> None:
    answer = infoloss("compare", *SMALL, *QUICK, "--no-tune", "--quiet")
    assert answer.err == ""
    assert "untuned" in answer.out


def verdict(loss: str, difference: float, outcome: str = "better", question: str = "labels") -> Any:
    return SimpleNamespace(loss=loss, difference=difference, outcome=outcome, question=question)


@pytest.fixture
def study(infoloss: Any, tmp_path: Path) -> Analysis:
    infoloss("compare", "wine", "--losses", "focal", "balanced_softmax", *QUICK, "--out", "s", "--quiet")
    return analyse(tmp_path / "s")


def test_the_best_loss_is_the_largest_gain_in_labels(study: Analysis) -> None:
    verdicts = (
        verdict("focal", 0.4),
        verdict("balanced_softmax", 0.9),
        verdict("focal", 2.0, question="nll"),
    )
    better = replace(study, verdicts=verdicts)
    assert best(better).label == "balanced_softmax"
    assert 'il.parse("balanced_softmax").bind(counts=counts)' in recipe(better)
    for limited in (replace(better, complete=False), replace(better, tuned=False)):
        assert best(limited).label == "cross_entropy"
    for outcome in ("worse", "equivalent", "undecided"):
        assert best(replace(study, verdicts=(verdict("focal", 0.4, outcome),))).label == "cross_entropy"


# What goes wrong


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_note(infoloss: Any) -> None:
    answer = infoloss("compare", "wine", "--losses", "focal + squentropy", "--dry-run")
    assert answer.err.startswith("note: focal + squentropy adds two losses")
    assert ".py" not in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "wine", "--losses", "cross_entropy + entropi"], "did you mean 'entropy'"),
        (["compare", "wine", "--losses", "entropy"], "regulariser alone"),
        (["compare", "wine", "--losses", "focal", "focal"], "are the same"),
        (["compare", "wine", "--losses", "cross_entropy + beta*entropy"], "no value for beta"),
        (["compare", "--losses", "focal", "train.csv"], "the data come first: infoloss compare train.csv"),
        (["compare", "wins"], "did you mean 'wine'"),
        (["compare", "nowhere.csv"], "nowhere.csv"),
        (["compare", "nowhere.toml"], "nowhere.toml"),
        (["compare", "wine", "study.toml"], "study.toml: a study file stands alone"),
        (["compare", "wine", "wins"], "did you mean 'wine'"),
        (["compare", "wine", "wine"], "collection holds ['wine'] more than once"),
        (["compare", "wine", "--epochs", "0"], "--epochs: 0"),
        (["compare", "wine", "--epochs", "many"], "--epochs"),
        (["compare", "wine", "--metric", "acuracy"], 'did you mean "accuracy"'),
        (["compare", "wine", "--optimiser", "adam"], "--optimiser: 'adam'"),
        (["compare", "wine", "--learning-rates", "0.1"], "--learning-rates"),
        (["compare", "wine", "--learning-rate", "0.1"], "set tuning = false (--no-tune), or"),
        (["compare", "wine", "--time-limit", "30"], "with its unit"),
        (["compare", "wine", "--jobs", "0"], "--jobs"),
        (["compare", "wine", "--shard", "3/2"], "shard: 3/2: expected I/N"),
        (["compare", "wine", "--tune", "5", "--no-tune"], "5 trials are tuning"),
        (["compare", "wine", "--tune", "-1"], "--tune: -1"),
        (["compare", "wine", "--seeds", "5", "--until-decided", "5"], "must be more than the 5"),
        (["compare", "wine", "--seeds", "1", "--until-decided", "5"], "needs at least 2 seeds"),
        (["compare", "table.csv", "--target", "prize"], "did you mean 'price'"),
        (["compare", "table.csv"], "price"),
        (["compare", "bad.toml"], 'sedes: unknown key; did you mean "seeds"'),
        (["report", "nowhere"], "nowhere holds no study"),
        (
            ["score", "table.csv", "--metric", "mine:metric"],
            "table.csv is a packed study, which has no logits",
        ),
        (["verdict", "nowhere.csv", "--baseline", "kl"], "nowhere.csv"),
        (["verdict", "table.csv"], "--baseline"),
        (["losses", "focl"], "did you mean 'focal'"),
        (["cite", "lse**2"], "names no loss"),
        (["cite"], "name a loss"),
        (["comparr"], "compare"),
    ],
)
def test_wrong_input_is_said_in_a_line(infoloss: Any, tmp_path: Path, words: list[str], said: str) -> None:
    rows = "".join(f"{i % 7},{i * 1.37}\n" for i in range(300))
    (tmp_path / "table.csv").write_text(f"rooms,price\n{rows}")
    (tmp_path / "bad.toml").write_text('data = "wine"\nsedes = 3\n')
    answer = infoloss(*words)
    assert answer.code == 2
    assert answer.err.startswith("infoloss: ")
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not list(tmp_path.glob("infoloss-*"))


def test_an_expression_error_points_at_the_character(infoloss: Any) -> None:
    for words in (["cite"], ["compare", "wine", "--losses", "focal"], ["compare", "wine", "--losses"]):
        lines = infoloss(*words, "cross_entropy + entropi").err.splitlines()
        assert len(lines) == 3
        assert lines[1].index("entropi") == lines[2].index("^")


def test_an_unwritable_folder_is_an_error_before_training(
    infoloss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("infoloss.study.compare.Session.carry_out", lambda _: pytest.fail("it trained"))
    answer = infoloss("compare", *SMALL, *QUICK, "--out", "file/inside")
    assert answer.code == 1
    assert "cannot write" in answer.err


def test_another_study_in_the_folder_is_wrong_input(infoloss: Any) -> None:
    assert infoloss("compare", *SMALL, *QUICK, "--out", "s", "--quiet").code == 0
    answer = infoloss("compare", *SMALL, *QUICK, "--batch-size", "8", "--out", "s")
    assert answer.code == 2
    assert "batch_size is 64 there and 8 here" in answer.err


def test_a_failure_is_no_wrong_input_and_keeps_its_traceback_for_those_who_ask(
    infoloss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("inside")

    monkeypatch.setattr("infoloss.study.compare.run", fails)
    answer = infoloss("compare", *SMALL, *QUICK)
    assert (answer.code, answer.err) == (
        1,
        "infoloss: ValueError: inside (INFOLOSS_DEBUG=1 shows where)\n",
    )
    monkeypatch.setenv("INFOLOSS_DEBUG", "1")
    with pytest.raises(ValueError, match="inside"):
        infoloss("compare", *SMALL, *QUICK)


def test_a_device_that_is_not_there(infoloss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answer = infoloss("compare", *SMALL, "--device", "cuda")
    assert answer.code == 2
    assert "--device: cuda" in answer.err


# Progress


def told(done: int, stage: str = "training", left: float | None = 100.0, **more: Any) -> Progress:
    return Progress(done, 40, left, stage, **more)


BROKEN = Finished("0a", "focal [a]", "final", 3, 0.01, "failed", "ValueError: no [b]", 1.2, {})


def test_plain_progress_is_a_line_now_and_then() -> None:
    times = iter([0.0, 1.0, 2.0, 16.0, 16.9, 17.1, 18.0])
    stream = io.StringIO()
    lines = Lines(stream, clock=lambda: next(times))
    for progress in (
        told(0, "tuning", None),
        told(1, "tuning"),
        told(2),
        told(3),
        told(30),
        told(31),
        told(40),
    ):
        lines(progress)
    assert stream.getvalue().splitlines() == [
        "tuning: 0 of 40 runs",
        "training: 2 of 40 runs, 2 min left",
        "training: 31 of 40 runs, 2 min left",
        "training: 40 of 40 runs",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    with shown(stream=stream) as show:
        show(told(20, run=replace(BROKEN, status="done", error=None)))
    assert "20 of 40 runs, 2 min left" in stream.getvalue()
    assert "focal [a], seed 3, learning rate 0.01, 1 s" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_failure_is_said_when_it_happens(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    written = stream()
    with shown(stream=written) as show:
        show(told(20))
        before = written.getvalue()
        show(told(21, run=BROKEN, failed=1))
        after = written.getvalue()
        show(told(40, failed=1))
    said = "failed: focal [a], seed 3, learning rate 0.01, 1 s: ValueError: no [b]"
    assert said not in before
    assert said in after
    assert "40 of 40 runs, 1 failed" in written.getvalue()


def test_progress_over_data_sets_says_which() -> None:
    stream = io.StringIO()
    with shown("lines", stream=stream) as show:
        show(told(0, "tuning", None, data="wine", data_set=2, data_sets=6))
        show(told(1, "tuning", None, data="bupa", data_set=3, data_sets=0))
    assert stream.getvalue().splitlines() == [
        "wine (2 of 6): tuning: 0 of 40 runs",
        "bupa: tuning: 1 of 40 runs",
    ]


LONG = tuple(UnderWay(loss, "final", 3, 0.01, 12, 50) for loss in ("focal [a]", "mae", "min_ent", "kl"))


def test_the_epochs_of_long_runs_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = "focal [a], seed 3: epoch 12/50"
    for stream in (io.StringIO(), Terminal()):
        with shown(stream=stream) as show:
            show(told(20, under_way=LONG[:1]))
        assert said in stream.getvalue()
    lines = io.StringIO()
    with shown("lines", stream=lines) as show:
        show(told(20, under_way=LONG))
    assert lines.getvalue() == (
        f"training: 20 of 40 runs, 2 min left; {said}; mae, seed 3: epoch 12/50; and 2 more\n"
    )
    written = io.StringIO()
    with shown("json", stream=written) as show:
        show(told(20, under_way=LONG[:1]))
    [run] = json.loads(written.getvalue())["under_way"]
    assert run == {
        "loss": "focal [a]",
        "role": "final",
        "seed": 3,
        "learning_rate": 0.01,
        "epoch": 12,
        "epochs": 50,
    }


def test_json_progress_is_an_object_a_line(infoloss: Any) -> None:
    answer = infoloss("compare", *SMALL, *QUICK, "--no-tune", "--progress", "json")
    lines = [json.loads(line) for line in answer.err.splitlines()]
    ended = [line for line in lines if line["run"]]
    assert [line["done"] for line in ended] == list(range(1, lines[-1]["total"] + 1))
    begun = [line for line in lines if not line["run"] and not line["under_way"]]
    assert [line["stage"] for line in begun] == ["training"], "nothing is tuned"
    assert (begun[0]["done"], begun[0]["seconds_left"], begun[0]["failed"]) == (0, None, 0)
    for line in ended:
        assert set(line) == {field.name for field in fields(Progress)}
        assert set(line["run"]) == {field.name for field in fields(Finished)}
        assert line["run"]["status"] == "done"
        assert line["run"]["seconds"] > 0
    trained = [line["run"] for line in ended if line["run"]["role"] == "final"]
    assert {run["loss"] for run in trained} >= {"cross_entropy"}
    assert all(0 <= run["validation"]["accuracy"] <= 1 for run in trained)


def test_json_progress_tells_of_failures(infoloss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infoloss.study.runs.fit", lambda *_, **__: 1 / 0)
    answer = infoloss("compare", *SMALL, *QUICK, "--no-tune", "--progress", "json")
    lines = [json.loads(line) for line in answer.err.splitlines()]
    broken = [line for line in lines if line["run"] and line["run"]["status"] == "failed"]
    assert broken
    assert [line["failed"] for line in broken] == list(range(1, len(broken) + 1))
    assert "ZeroDivisionError" in broken[0]["run"]["error"]


def test_no_progress_of_either_name(infoloss: Any) -> None:
    for words in (("--progress", "none"), ("--quiet",), ("--quiet", "--progress", "json")):
        assert infoloss("compare", *SMALL, *QUICK, "--no-tune", *words).err == ""
    assert "--progress" in infoloss("compare", *SMALL, *QUICK, "--progress", "loud").err


def test_durations_read_well() -> None:
    assert [duration(s) for s in (59.6, 89, 91, 3600 * 2)] == ["60 s", "89 s", "2 min", "2 h 0 min"]


# The smaller commands


def test_losses_lists_the_whole_catalogue(infoloss: Any) -> None:
    text = " ".join(infoloss("losses").out.split())
    for entry in il.catalogue.values():
        assert entry.name in text
    assert "min_ent(w1=1.1933, w2=0.1298)" in text
    assert "balanced_softmax(counts=…)" in text


def test_losses_describes_one(infoloss: Any) -> None:
    text = infoloss("losses", "focal").out
    assert "(1 − p)^γ ln p" in text
    assert "Lin et al., arXiv 1708.02002" in text


def test_cite_gives_each_source_once(infoloss: Any) -> None:
    answer = infoloss("cite", "-0.1*entropy + cross_entropy", "min_ent", "mix_ent + entropy")
    assert answer.code == 0
    keys = [line.split("{")[1].rstrip(",") for line in answer.out.splitlines() if line.startswith("@")]
    named = ("entropy", "cross_entropy", "min_ent", "mix_ent")
    assert sorted(keys) == sorted({il.catalogue[name].bibtex_key for name in named})


def test_doctor_names_what_is_missing_and_how_to_get_it(
    infoloss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [
        "torch>=2",
        'numba>=0.6; extra == "cpu"',
        "infoloss[cpu]; extra == 'study'",
        "numba>=0.6; extra == 'study'",
        "polars<2,>=1.20; extra == 'study'",
        "rich>=13; python_version < '4' and extra == 'study'",
    ]
    installed = {"rich": "15.0", "numba": "0.68", "polars": "1.30"}

    def found(name: str) -> Any:
        if name not in installed:
            raise doctor.PackageNotFoundError(name)
        return SimpleNamespace(version=installed[name])

    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor, "distribution", found)
    assert doctor.extras() == {"cpu": ["numba"], "study": ["polars", "rich"]}
    whole = infoloss("doctor").out
    assert torch.__version__ in whole
    assert "pip install" not in whole
    del installed["polars"]
    lacking = infoloss("doctor").out
    assert "polars                   missing" in lacking
    assert "pip install 'infoloss[study]'" in lacking
    assert "infoloss[cpu]" not in lacking


# A process of its own


def python(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", env=environment
    )


def test_help_and_losses_import_nothing_heavy() -> None:
    script = (
        "import sys, json; from infoloss.cli import main; main(['--help']); main(['losses']);"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = set(json.loads(python(script).stdout.splitlines()[-1]))
    assert not loaded & {"sklearn", "scipy", "polars", "altair", "pandas", "safetensors", "numba"}
    assert {"torch", "cyclopts"} <= loaded


def test_without_the_extra_one_line_names_it() -> None:
    script = (
        "import sys; sys.modules['cyclopts'] = sys.modules['pydantic'] = None\n"
        "from infoloss.cli import main\n"
        "print('code', main(['losses']))\n"
        "import infoloss\n"
        "try: infoloss.compare\n"
        "except ModuleNotFoundError as error: print(error)\n"
        "from infoloss import *\n"
    )
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "code 1",
        "infoloss.compare needs pydantic: pip install 'infoloss[study]'",
    ]
    assert done.stderr == "infoloss: this needs cyclopts: pip install 'infoloss[study]'\n"


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C cannot be sent to one process alone")
def test_ctrl_c_during_a_run_leaves_a_study_that_can_go_on(tmp_path: Path) -> None:
    words = ["compare", "wine", "--losses", "focal", "--seeds", "900", "--jobs", "1", "--epochs", "3"]
    script = (
        # a suite that runs in the background inherits a signal that is switched off
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"from infoloss.cli import main; sys.exit(main({[*words, '--no-tune', '--out', 'study']!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while process.poll() is None and len(list((tmp_path / "study" / "runs").glob("[0-9a-f]*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    said = ""
    while process.poll() is None:  # Python loses an interrupt that comes while an object is finalised
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; study keeps what is done" in said
    assert "Traceback" not in said
    done = contents(tmp_path / "study")
    assert len(done) >= 2
    assert not analyse(tmp_path / "study").complete


def test_compare_from_python_is_the_studys() -> None:
    from infoloss.study.compare import compare

    assert il.compare is compare
    assert "compare" in dir(il)
    with pytest.raises(AttributeError, match="has no attribute 'entropi'"):
        _ = il.entropi
