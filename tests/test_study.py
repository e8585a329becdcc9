"""Carrying out a study: paired runs, resumed and extended, the same records however they came about."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from study_cases import LOSSES, blobs, contents, small_plan

import infoloss as il
from infoloss.data import altered, from_arrays
from infoloss.study import compare as compare_module
from infoloss.study import process, runs
from infoloss.study.compare import DesignError, Progress, StoreError, compare, run
from infoloss.study.design import settled
from infoloss.study.engines import Serial, Workers
from infoloss.study.frames import write_frame
from infoloss.study.functions import FunctionMaterials
from infoloss.study.materials import Materials
from infoloss.study.plan import PlanError
from infoloss.study.report import render
from infoloss.study.session import Session
from infoloss.study.store import Store, comparable, predictions, records

ARMS, RATES, TUNING_SEEDS, SEEDS, REFERENCES = 3, 4, 1, 2, 3
TRAININGS = ARMS * (RATES * TUNING_SEEDS + SEEDS)
RUNS = TRAININGS + REFERENCES * SEEDS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A small study, done serially in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(small_plan(), blobs(), folder, workers=1)
    return folder


def trained(monkeypatch):
    """Counts the trainings from here on."""
    calls = []
    fit = runs.fit
    monkeypatch.setattr(runs, "fit", lambda *args, **options: calls.append(options) or fit(*args, **options))
    return calls


def materials(dataset=None, **options):
    dataset = blobs() if dataset is None else dataset
    return Materials(dataset, settled(small_plan(**options), dataset))


class TestPairing:
    def test_a_seed_means_the_same_arrays_for_every_loss_and_other_seeds_other_rows(self):
        made = materials()
        arrays = [made.arrays(made.training("final", arm, 0, 0.01)) for arm in made.design.arms]
        assert all(arrays[0][name] is other[name] for other in arrays for name in arrays[0])
        second = made.arrays(made.training("final", made.design.baseline, 1, 0.01))
        assert not np.array_equal(arrays[0]["test_rows"], second["test_rows"])

    def test_a_tuning_run_is_given_no_test_row(self):
        made = materials()
        job = made.training("tuning", made.design.baseline, made.design.tuning_seeds[0], 0.01)
        assert {name for name in made.arrays(job) if "test" in name} == set()

    def test_losses_of_a_seed_start_from_the_same_weights_and_see_the_same_batches(self):
        """Squentropy with alpha 0 is cross entropy: its run must be cross entropy's."""
        made = materials(losses=["squentropy(alpha=0)"])
        first, second = (
            runs.performed(job.config, made.arrays(job))
            for job in (made.training("final", arm, 0, 0.01) for arm in made.design.arms)
        )
        assert first.fields["curve"][-1]["validation_nll"] == pytest.approx(
            second.fields["curve"][-1]["validation_nll"], rel=1e-5
        )

    def test_counts_are_bound_from_the_training_rows_of_the_seed(self):
        dataset = blobs(counts=(3, 1))
        made = materials(dataset, losses=["balanced_softmax", "logit_adjusted"])
        _, balanced, adjusted = made.design.arms
        split = dataset.split(1)
        counts = np.bincount(dataset.target[split.train]).tolist()
        assert made.training("final", balanced, 1, 0.01).config["bindings"] == {"counts": counts}
        prior = made.training("final", adjusted, 1, 0.01).config["bindings"]["prior"]
        assert prior == pytest.approx([count / sum(counts) for count in counts])

    def test_weights_reach_the_training_and_the_prior(self):
        features, target = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
        weight = 1.0 + target
        made = materials(from_arrays(features, target, sample_weight=weight), losses=["balanced_softmax"])
        job = made.training("final", made.design.arms[1], 0, 0.01)
        rows = made.split(0).train
        assert made.arrays(job)["train_weight"].tolist() == weight[rows].tolist()
        assert job.config["bindings"]["counts"] == [sum(target[rows] == 0), 2 * sum(target[rows] == 1)]


def test_wrong_labels_reach_training_and_prior_alone_and_are_recorded():
    data = altered(blobs(), label_noise=0.5)
    made = materials(data, losses=["balanced_softmax"])
    arm = made.design.arms[1]
    job = made.training("final", arm, 0, 0.01)
    arrays, split = made.arrays(job), data.split(0)
    labels = data.labels(split)
    assert (arrays["train_target"] == labels[split.train]).all()
    assert (arrays["train_target"] != data.target[split.train]).sum() == len(split.train) // 2
    assert (arrays["test_target"] == data.target[split.test]).all()
    assert (arrays["validation_target"] == data.target[split.validation]).all()
    assert job.config["bindings"]["counts"] == np.bincount(arrays["train_target"]).tolist()
    assert job.config["alteration"] == {"label_noise": 0.5}
    assert "alteration" not in materials().training("final", arm, 0, 0.01).config


def test_a_report_says_what_was_done_to_training_rows_and_how_many_rows_test(tmp_path):
    data = altered(blobs(), imbalance=3, label_noise=0.25)
    plan = small_plan(seeds=1, tuning=False)
    analysis = run(plan, data, tmp_path / "altered", workers=1)
    said = "imbalance 3 (long tail), 0.25 of the labels replaced by other classes"
    assert analysis.data["training rows altered"] == said
    split = data.split(0)
    rows = f"{len(split.validation)} for validation, {len(split.test)} for the test"
    assert analysis.protocol["rows of a run"] == rows
    page = render(analysis, tmp_path / "report").read_text(encoding="utf-8")
    assert f"training rows altered: {said}" in page.split("<h2>Verdict", 1)[0]
    assert f"Training rows were altered on purpose: {said}." in page
    assert "training rows altered" not in run(plan, blobs(), tmp_path / "as it is", workers=1).data


def test_identity_changes_with_everything_that_changes_numbers_and_with_nothing_else():
    made = materials()
    base = made.training("final", made.design.arms[1], 0, 0.01)
    design = replace(made.design, notes=("n",), command="c", seeds=(0, 1, 2))
    assert Materials(made.dataset, design).training("final", made.design.arms[1], 0, 0.01).id == base.id
    relabelled = replace(made.design.arms[1], label="other")
    assert made.training("final", relabelled, 0, 0.01).id == base.id
    others = [
        made.training("tuning", made.design.arms[1], 0, 0.01),
        made.training("final", made.design.arms[2], 0, 0.01),
        made.training("final", made.design.arms[1], 1, 0.01),
        made.training("final", made.design.arms[1], 0, 0.02),
        *(
            other.training("final", other.design.arms[1], 0, 0.01)
            for other in (
                materials(training={"epochs": 4}),
                materials(training={"weight_decay": 0.5}),
                materials(model={"name": "mlp", "hidden": [9]}),
                materials(metric="nll"),
                materials(blobs(seed=1)),
            )
        ),
    ]
    assert len({base.id, *(job.id for job in others)}) == 1 + len(others)


class TestRun:
    def test_a_study_has_all_its_runs(self, undisturbed):
        found, _ = records(undisturbed)
        roles = [record["role"] for record in found.values()]
        assert {role: roles.count(role) for role in set(roles)} == {
            "tuning": ARMS * RATES * TUNING_SEEDS,
            "final": ARMS * SEEDS,
            "reference": REFERENCES * SEEDS,
        }
        for id, record in found.items():
            kept = predictions(undisturbed, id)
            assert ("test_logits" in kept) == (record["role"] != "tuning")
            assert record["status"] == "done"

    def test_a_record_can_be_scored_again(self, undisturbed):
        """Predictions and validation scores belong together."""
        for id, record in records(undisturbed)[0].items():
            if record["role"] == "reference":
                continue
            kept, term = predictions(undisturbed, id), il.parse(record["loss"])
            logits = torch.from_numpy(kept["validation_logits"])
            right = term.decision(logits).numpy() == kept["validation_target"]
            assert record["validation"]["accuracy"] == pytest.approx(right.mean())
            best = max(entry["validation_accuracy"] for entry in record["curve"])
            assert record["validation"]["accuracy"] == pytest.approx(best)

    def test_the_same_again_trains_nothing(self, undisturbed, monkeypatch):
        before, calls, told = contents(undisturbed), trained(monkeypatch), []
        analysis = run(small_plan(), blobs(), undisturbed, told.append, workers=1)
        assert calls == []
        assert contents(undisturbed) == before
        assert analysis.complete
        assert told[-1] == Progress(RUNS, RUNS, None, "training")
        assert {p.total for p in told} == {RUNS}, "what is done is not counted as ahead"

    def test_more_losses_and_seeds_train_what_is_new(self, tmp_path, monkeypatch):
        run(small_plan(losses=["min_ent"], seeds=1), blobs(), tmp_path, workers=1)
        before, calls = contents(tmp_path), trained(monkeypatch)
        analysis = run(small_plan(losses=["squentropy"], seeds=2), blobs(), tmp_path, workers=1)
        assert len(calls) == RATES * TUNING_SEEDS + SEEDS + 2, "squentropy, and a second seed of the others"
        after = contents(tmp_path)
        assert {id: after[id] for id in before} == before
        assert [loss.label for loss in analysis.losses] == ["cross_entropy", "squentropy", "min_ent"]
        assert all(loss.seeds == (0, 1) for loss in analysis.losses)

    def test_a_folder_of_another_study_is_refused(self, undisturbed):
        with pytest.raises(DesignError, match=r"training\.epochs is 3 there and 4 here"):
            run(small_plan(training={"epochs": 4}), blobs(), undisturbed, workers=1)

    def test_a_folder_in_use_is_refused(self, undisturbed):
        with Store.opened(undisturbed), pytest.raises(StoreError, match="another process"):
            run(small_plan(), blobs(), undisturbed, workers=1)

    def test_a_damaged_run_is_set_aside_and_run_again(self, undisturbed, monkeypatch):
        before = contents(undisturbed)
        victim = next(id for id, (record, _) in before.items() if record["role"] == "final")
        path = undisturbed / "runs" / victim / "record.json"
        path.write_text(path.read_text()[:-20])
        calls = trained(monkeypatch)
        run(small_plan(), blobs(), undisturbed, workers=1)
        assert len(calls) == 1
        assert contents(undisturbed) == before
        assert [p.name for p in (undisturbed / "set-aside").iterdir()] == [f"{victim}-0"]

    def test_out_of_time_is_incomplete_and_resumed(self, tmp_path, undisturbed):
        analysis = run(small_plan(), blobs(), tmp_path, workers=1, time_limit=0.0)
        assert not analysis.complete
        assert analysis.verdicts == ()
        assert run(small_plan(), blobs(), tmp_path, workers=1).complete
        assert contents(tmp_path) == contents(undisturbed)

    def test_progress_counts_to_the_end(self, tmp_path):
        told = []
        run(small_plan(losses=["focal"], seeds=1), blobs(), tmp_path, told.append, workers=1)
        assert [p.done for p in told] == sorted(p.done for p in told)
        assert told[0].done == 0
        assert told[0].seconds_left is None
        assert (told[-1].done, told[-1].seconds_left) == (told[-1].total, 0.0)
        assert {p.total for p in told} == {2 * (RATES + 1) + REFERENCES}


class TestEpochs:
    """How far a run is, told from within it."""

    def test_they_are_told_at_most_once_a_second_and_of_short_runs_not_at_all(self):
        times = iter([0.0, 0.4, 0.9, 1.1, 1.1, 1.5, 2.0, 2.2, 2.2])
        heard = []
        told = runs.paced(lambda *at: heard.append(at), clock=lambda: next(times))
        for epoch in range(1, 7):
            told(epoch, 6)
        assert heard == [(3, 6), (6, 6)]

    @pytest.mark.parametrize("engine", [Serial, lambda: Workers(1)])
    def test_they_come_from_every_engine_and_change_no_number(self, engine):
        made, heard, threads = materials(tuning=False, training={"epochs": 600}), [], set()
        job = made.training("final", made.design.baseline, 0, 0.01)

        def progress(*at):
            heard.append(at)
            threads.add(threading.current_thread())

        started = time.monotonic()
        with closing(engine()) as opened:
            [(_, outcome)] = opened.outcomes([job], made, progress)
        most = time.monotonic() - started
        [(_, silent)] = Serial().outcomes([job], made)
        assert outcome.fields["status"] == "done"
        assert outcome.predictions == silent.predictions
        assert outcome.fields["curve"] == silent.fields["curve"]
        assert (outcome.fields["seconds"] > 1.5) <= len(heard) <= most
        assert all(at[0] is job and at[2] == 600 for at in heard)
        assert [at[1] for at in heard] == sorted({at[1] for at in heard})
        assert threads <= {threading.current_thread()}

    @pytest.fixture
    def told_at_once(self, monkeypatch):
        monkeypatch.setattr("infoloss.study.engines.paced", lambda told: told)
        monkeypatch.setattr("infoloss.study.session.SECONDS_BETWEEN", 0.0)

    def test_a_study_tells_its_runs_under_way_and_the_time_left(self, told_at_once, tmp_path):
        told = []
        run(small_plan(losses=["focal"], seeds=1, tuning=False), blobs(), tmp_path, told.append, workers=1)
        within = [at for at in told if at.under_way]
        assert [(at.under_way[0].loss, at.under_way[0].epoch, at.under_way[0].epochs) for at in within] == [
            (loss, epoch, 3) for loss in ("cross_entropy", "focal") for epoch in (1, 2, 3)
        ]
        assert all(len(at.under_way) == 1 and at.run is None for at in within)
        assert [at.done for at in within] == [0, 0, 0, 1, 1, 1]
        assert told[0].seconds_left is None
        assert told[1].seconds_left is None, "the first epoch compiles"
        assert told[2].seconds_left > 0, "known before the first run has ended"
        assert [at.run.loss for at in told if at.run][:2] == ["cross_entropy", "focal"]
        assert told[-1].seconds_left == 0

    def test_an_error_of_who_is_told_is_not_the_runs(self, told_at_once, tmp_path):
        def progress(at):
            if at.under_way:
                raise LookupError("nobody listens")

        with pytest.raises(LookupError, match="nobody listens"):
            run(small_plan(losses=["focal"], seeds=1, tuning=False), blobs(), tmp_path, progress, workers=1)
        assert [record["status"] for record in records(tmp_path)[0].values()] == ["done"]


class TestFailure:
    def test_a_failed_run_is_recorded_and_not_repeated_unless_asked(self, tmp_path, monkeypatch):
        def breaks(*_, **__):
            raise MemoryError("no room")

        plan = small_plan(losses=["focal"], seeds=1, tuning=False)
        with monkeypatch.context() as patch:
            patch.setattr(runs, "fit", breaks)
            analysis = run(plan, blobs(), tmp_path, workers=1)
        failed = [r for r in records(tmp_path)[0].values() if r["status"] == "failed"]
        assert len(failed) == 2
        assert all("MemoryError: no room" in r["error"] for r in failed)
        assert analysis.complete
        assert analysis.verdicts == ()
        assert any("no run was finished" in sentence for sentence in analysis.headline)
        calls = trained(monkeypatch)
        run(plan, blobs(), tmp_path, workers=1)
        assert calls == []
        analysis = run(plan, blobs(), tmp_path, workers=1, retry_failed=True)
        assert len(calls) == 2
        assert not any(loss.failures for loss in analysis.losses)

    def test_a_diverged_learning_rate_is_not_chosen(self, tmp_path):
        training = {"optimiser": "sgd"}
        tuning = {"seeds": 1, "learning_rates": [0.01, 0.03, 0.1, 1e30]}
        analysis = run(small_plan(training=training, tuning=tuning), blobs(), tmp_path, workers=1)
        diverged = [r for r in records(tmp_path)[0].values() if r["status"] == "diverged"]
        assert {r["learning_rate"] for r in diverged} == {1e30}
        assert all("epoch 1" in r["error"] for r in diverged)
        for loss in analysis.losses:
            assert np.isnan(loss.tuning[1e30])
            assert loss.learning_rate < 1

    def test_divergence_everywhere_is_a_finding(self, tmp_path):
        training = {"optimiser": "sgd", "learning_rate": 1e30}
        plan = small_plan(losses=["focal"], training=training, tuning=False)
        analysis = run(plan, blobs(), tmp_path, workers=1)
        assert all(len(loss.failures) == 2 for loss in analysis.losses)
        assert "diverged: training loss" in analysis.losses[0].failures[0]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def gone(pids, seconds=120.0):
    """Whether the processes end in time."""
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


posix = pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc and sends signals")


class TestWorkers:
    @posix
    def test_killed_workers_and_an_interrupt_leave_the_records_of_an_undisturbed_run(
        self, tmp_path, undisturbed
    ):
        made, told, seen = materials(), [], set()

        def disturb(progress):
            told.append(progress)
            seen.update(engine.pids)
            if len(told) == 3:
                os.kill(engine.pids[0], signal.SIGKILL)
            if len(told) >= 8 and len(seen) >= 3:
                raise KeyboardInterrupt

        with Store.opened(tmp_path) as store, Workers(2) as engine:
            store.write_design(made.design.to_json())
            with pytest.raises(KeyboardInterrupt):
                Session(store, engine, made, disturb).carry_out()
            assert gone(seen)
            assert len(seen) >= 3, "a new worker took the killed one's place"
            assert 0 < len(records(tmp_path)[0]) < RUNS
            Session(store, Serial(), made).carry_out()
        assert contents(tmp_path) == contents(undisturbed)

    def test_a_run_whose_worker_dies_twice_has_failed(self, monkeypatch):
        monkeypatch.setattr(process, "_START", "import os; os._exit(3)")
        made = materials(tuning=False)
        job = made.training("final", made.design.baseline, 0, 0.01)
        with Workers(1) as engine:
            [(same, outcome)] = engine.outcomes([job], made)
        assert same is job
        assert outcome.fields["status"] == "failed"
        assert "died twice (exit code" in outcome.fields["error"]

    @posix
    def test_a_worker_ends_with_its_pipe_even_inside_a_run(self):
        made = materials(tuning=False, training={"epochs": 10_000_000})
        job = made.training("final", made.design.baseline, 0, 0.01)
        worker = process.WorkerProcess(os.environ)
        pipe = worker._process.stdin
        try:
            write_frame(pipe, json.dumps(job.config).encode())
            write_frame(pipe, save(dict(made.arrays(job))))
            pipe.close()
            assert worker._process.wait(timeout=600) == 0
        finally:
            worker.close()

    @posix
    def test_a_killed_parent_takes_its_workers_along_and_is_resumed(self, tmp_path, undisturbed):
        script = (
            "import sys; from study_cases import blobs, small_plan; from infoloss.study.compare import run\n"
            "run(small_plan(), blobs(), sys.argv[1], lambda p: print(p.done, flush=True), workers=1 + 1)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
            while int(parent.stdout.readline()) < 5:
                pass
            threads = Path(f"/proc/{parent.pid}/task").glob("*/children")
            pids = {int(pid) for children in threads for pid in children.read_text().split()}
            assert len(pids) == 2
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        assert gone(pids)
        assert 5 <= len(records(tmp_path)[0]) < RUNS
        run(small_plan(), blobs(), tmp_path, workers=1)
        assert contents(tmp_path) == contents(undisturbed)


class TestCompare:
    def test_arrays_give_verdicts_a_table_runs_and_a_report(self, tmp_path, undisturbed):
        dataset = blobs()
        found = compare(
            dataset, losses=list(LOSSES), seeds=2, folder=undisturbed, workers=1, tuning={"seeds": 1},
            model={"name": "mlp", "hidden": [8]}, training={"epochs": 3, "batch_size": 16},
        )  # fmt: skip
        text = str(found.verdict)
        assert "squentropy" in text
        assert "after temperature scaling (NLL, nats)" in text
        for verdict in found.analysis.verdicts:
            assert verdict.outcome in text
        assert "<table>" in found._repr_html_()
        assert len(found.runs) == RUNS
        page = found.report(tmp_path)
        assert page.name == "report.html"
        assert "squentropy" in page.read_text()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": 3}, r'compare: epochs: unknown option; give training=\{"epochs": …\} \(known: name,'),
            ({"collection": ["wine", "digits"]}, r"compare: collection: unknown option;"),
            ({"modle": "mlp"}, r'did you mean "model"\?'),
            ({"losses": ["focl"]}, r"compare: losses\[0\]: .*focal"),
            ({"workers": 0}, r"workers: 0: should be 1 or more"),
            ({"device": "tpu"}, r"compare: device: 'tpu' is none of"),
        ],
    )
    def test_a_wrong_option_is_named(self, tmp_path, options, message):
        with pytest.raises(PlanError, match=message):
            compare(np.eye(6), [0, 1] * 3, folder=tmp_path / "s", **options)

    def test_what_it_is_given_is_checked(self):
        with pytest.raises(PlanError, match="a Dataset has its labels"):
            compare(blobs(), [0, 1])
        with pytest.raises(PlanError, match="y: your own training brings its data itself"):
            compare(lambda criterion, seed: None, [0, 1])
        with pytest.raises(PlanError, match=r"model, training\.epochs: your own training decides"):
            compare(lambda criterion, seed: None, model="mlp", training={"epochs": 3})


def test_a_training_that_always_fails_is_told(tmp_path):
    def train(criterion, seed):
        raise LookupError("no such file")

    found = compare(train, losses=["focal"], seeds=2, folder=tmp_path / "s")
    assert (
        "focal: no run was finished, so there is no verdict (seed 1: failed: LookupError: no such f"
        in str(found.verdict)
    )
    assert "nothing to compare" not in str(found.verdict)


def example(calls=None, draws=None):
    """A user's training: three Gaussian classes, a linear model, ten full-batch steps."""

    def train(criterion, seed):
        if calls is not None:
            calls.append((str(criterion.term), seed))
        if draws is not None:
            draws.append((np.random.rand(), torch.rand(()).item()))
        generator = torch.Generator().manual_seed(seed)
        target = torch.arange(150) % 3
        x = 2 * torch.eye(3)[target] + torch.randn(150, 3, generator=generator)
        model = torch.nn.Linear(3, 3)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(10):
            optimiser.zero_grad()
            criterion(model(x[:50]), target[:50]).backward()
            optimiser.step()
        with torch.no_grad():
            logits = model(x)
        return logits[50:100], target[50:100], logits[100:], target[100:]

    return train


class TestOwnTraining:
    def test_it_is_called_for_each_loss_and_seed_once(self, tmp_path):
        calls, draws = [], []
        train = example(calls, draws)
        state = torch.random.get_rng_state()
        found = compare(train, losses=["focal"], seeds=3, folder=tmp_path)
        assert len(calls) == 6
        assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator rests"
        assert draws[0] == draws[1], "global generators are seeded: losses of a seed draw the same"
        assert len({of_numpy for of_numpy, _ in draws}) == len({of_torch for _, of_torch in draws}) == 3
        assert not found.analysis.tuned
        assert "untuned: no verdict on rank" in found.analysis.headline[0]
        assert {loss.label: loss.seeds for loss in found.analysis.losses} == {
            "cross_entropy": (0, 1, 2),
            "focal": (0, 1, 2),
        }
        right = [run for run in found.runs if run["label"] == "cross_entropy" and run["seed"] == 0]
        assert right[0]["validation"]["accuracy"] > 0.5
        assert right[0]["peak_memory_mib"] > 50

    def test_a_second_call_trains_nothing_and_a_changed_source_is_another_study(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        offset = 0.1

        def train(criterion, seed):
            calls.append(seed)
            return outputs(seed, offset)

        calls = _Untracked()
        first = compare(train, losses=["focal"], seeds=2)
        assert len(calls) == 4
        assert compare(train, losses=["focal"], seeds=2).folder == first.folder
        assert len(calls) == 4
        compare(train, losses=["focal", "min_ent"], seeds=3)
        assert len(calls) == 9
        offset = 0.2
        other = compare(train, losses=["focal"], seeds=2)
        assert other.folder != first.folder, "a value in the closure is part of the source"
        assert len(calls) == 13

    def test_it_is_tuned_where_it_takes_a_learning_rate(self, tmp_path):
        best = {"cross_entropy(label_smoothing=0.0)": 0.01, "focal(gamma=2.0)": 0.1}
        seen = []

        def train(criterion, seed, learning_rate):
            seen.append(learning_rate)
            wrong = 0 if learning_rate == best[str(criterion.term)] else 10
            return outputs(seed, 0.0, wrong=wrong)

        tuning = {"learning_rates": [0.001, 0.01, 0.1, 1.0], "seeds": 2}
        found = compare(train, losses=["focal"], seeds=2, tuning=tuning, folder=tmp_path)
        assert found.analysis.tuned
        assert [loss.learning_rate for loss in found.analysis.losses] == [0.01, 0.1]
        assert len(seen) == 2 * (4 * 2 + 2)
        kept = [predictions(tmp_path, run["id"]) for run in found.runs if run["role"] == "tuning"]
        assert not any("test_logits" in arrays for arrays in kept)

    def test_mistakes_are_failed_runs_that_say_what_was_expected(self, tmp_path):
        def train(criterion, seed):
            return {0: None, 1: (1, 2)}.get(
                seed, (np.zeros((4, 3)), np.zeros(4), np.zeros((4, 3)), np.full(4, 3))
            )

        found = compare(train, losses=["focal"], seeds=3, folder=tmp_path)
        errors = [run["error"] for run in found.runs if run["label"] == "focal"]
        assert sum("train must return (validation_logits" in error for error in errors) == 2
        assert sum("test_target must hold classes in 0 … 2" in error for error in errors) == 1

    def test_a_prior_loss_must_bring_its_counts(self, tmp_path):
        with pytest.raises(PlanError, match="'balanced_softmax' has no value for counts"):
            compare(example(), losses=["balanced_softmax"], folder=tmp_path)

    def test_seeds_whose_test_labels_differ_are_not_paired(self, tmp_path):
        def train(criterion, seed):
            odd = seed == 2 and "focal" in str(criterion.term)
            return outputs(seed, 0.0, shift=int(odd))

        found = compare(train, losses=["focal"], seeds=4, folder=tmp_path)
        assert {verdict.seeds for verdict in found.analysis.verdicts} == {3}
        assert any("in the seeds 2 the test labels differ" in note for note in found.analysis.notes)


class _Untracked(list):
    """A list that a fingerprint cannot look into."""

    __slots__ = ()

    def __iter__(self):
        return iter(())


def outputs(seed, offset, *, wrong=10, shift=0):
    """Logits that are right but for some rows, the same ones in every seed."""
    target = (np.arange(60) + shift) % 3
    logits = 3 * np.eye(3)[target] + offset + np.random.default_rng(seed).normal(size=(60, 3))
    logits[:wrong] = -logits[:wrong]
    return logits, target, logits, target


def test_serial_runs_on_one_thread_and_restores_the_number():
    threads = []
    made = materials(tuning=False)

    def performed(config, arrays, told):
        threads.append(torch.get_num_threads())
        return runs.failed("")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(Serial(performed).outcomes([made.training("final", made.design.baseline, 0, 0.01)], made))
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_the_seams_are_importable():
    assert compare_module.run is run
    assert FunctionMaterials.references.fget(None) == ()
    assert comparable({"seconds": 1}) == {}
