"""Runs over several processes: the results of one, whoever starts them, and an end whatever happens."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from study_cases import blobs, small_plan

from infoloss.data import from_arrays
from infoloss.study import process, runs
from infoloss.study.compare import run
from infoloss.study.description import protocol
from infoloss.study.design import settled
from infoloss.study.engines import Serial, Workers
from infoloss.study.materials import Materials
from infoloss.study.plan import Plan, PlanError
from infoloss.study.store import records

TWO = {"devices_per_run": 2}


def materials(dataset=None, **training):
    dataset = dataset or blobs()
    plan = small_plan(losses=["squentropy", "min_ent"], training=training, tuning=False)
    return Materials(dataset, settled(plan, dataset))


def weighted():
    generator = np.random.default_rng(0)
    target = np.arange(90) % 3
    features = 1.5 * np.eye(3)[target] + generator.normal(size=(90, 3))
    return from_arrays(features, target, sample_weight=generator.uniform(0.1, 3, 90), name="weighted")


def done(made, arm=1, role="final"):
    job = made.training(role, made.design.arms[arm], 0, 0.02)
    return runs.performed(job.config, made.arrays(job))


@pytest.mark.parametrize(
    ("dataset", "training"),
    [
        (weighted, {"epochs": 10, "batch_size": 7}),  # shares of 4 and 3 rows
        (blobs, {"epochs": 4, "augmentation": ["mixup"], "optimiser": "sgd"}),
    ],
)
def test_two_processes_give_the_result_of_one(dataset, training):
    one, two = (done(materials(dataset(), **training, **devices)) for devices in ({}, TWO))
    assert (two.fields["status"], two.fields["error"]) == ("done", None)
    assert two.fields["best_epoch"] == one.fields["best_epoch"]
    for ours, theirs in zip(two.fields["curve"], one.fields["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    found, expected = load(two.predictions), load(one.predictions)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_every_engine_gives_a_run_its_processes():
    made = materials(**TWO)
    jobs = [made.training("final", arm, 0, 0.02) for arm in made.design.arms[:2]]
    with Workers(1, devices_per_run=2) as workers:
        found = {job.id: outcome for job, outcome in workers.outcomes(jobs, made)}
    for job, expected in Serial().outcomes(jobs, made):
        assert expected.fields["status"] == "done"
        assert found[job.id].predictions == expected.predictions
        assert found[job.id].fields["curve"] == expected.fields["curve"]


def test_workers_are_fewer_and_each_has_gpus_of_its_own(monkeypatch):
    monkeypatch.setattr("infoloss.study.engines.cores", lambda: 5)
    assert Workers(devices_per_run=2).count == 2
    assert Workers(devices_per_run=8).count == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7,8")
    workers = Workers(device="cuda", devices_per_run=2)
    assert workers.count == 2
    assert [workers._gpus_of(slot) for slot in range(3)] == [["2", "3"], ["5", "7"], ["8", "2"]]
    assert process.environment(["5", "7"])["CUDA_VISIBLE_DEVICES"] == "5,7"
    assert process.environment()["CUDA_VISIBLE_DEVICES"] == "2,3,5,7,8"


def test_a_failure_in_one_process_is_that_of_the_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "odd_losses.py").write_text(
        "import torch.distributed as dist\n"
        "def odd(logits, target):\n"
        "    if dist.is_initialized() and dist.get_rank() == 1:\n"
        "        raise ArithmeticError('an odd process')\n"
        "    return logits.square().mean()\n"
    )
    dataset = blobs()
    plan = small_plan(losses=["odd_losses:odd"], training=TWO, tuning=False)
    made = Materials(dataset, settled(plan, dataset))
    started = time.monotonic()
    outcome = done(made)
    assert outcome.fields["status"] == "failed"
    assert "ArithmeticError: an odd process" in outcome.fields["error"]
    waits = 1800  # seconds that a process gives the other one
    assert time.monotonic() - started < waits / 2, "the other process was not waited for"


def children(pid):
    found = {
        int(each)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for each in task.read_text().split()
    }
    return found.union(*map(children, found))


posix = pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc and sends signals")


def wait_for(condition, seconds=600.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@posix
def test_a_process_that_is_killed_fails_the_run_and_leaves_none_behind():
    made, before, outcomes = materials(epochs=10_000_000, **TWO), children(os.getpid()), []
    training = threading.Event()
    job = made.training("final", made.design.arms[1], 0, 0.02)

    def work():
        outcomes.append(runs.performed(job.config, made.arrays(job), lambda *_: training.set()))

    thread = threading.Thread(target=work)
    thread.start()

    def ours():
        return children(os.getpid()) - before

    assert training.wait(600)
    assert len(ours()) == 2
    os.kill(max(ours()), signal.SIGKILL)
    thread.join(600)
    assert outcomes[0].fields["status"] == "failed"
    assert "one of its 2 processes died" in outcomes[0].fields["error"]
    assert not ours()


@posix
def test_closing_the_engine_ends_all_processes_of_its_runs():
    made, before = materials(epochs=10_000_000, **TWO), children(os.getpid())
    job = made.training("final", made.design.baseline, 0, 0.02)
    workers = Workers(1, devices_per_run=2)
    thread = threading.Thread(target=lambda: list(workers.outcomes([job], made)))
    thread.start()
    assert wait_for(lambda: len(children(os.getpid()) - before) == 3)
    started = children(os.getpid()) - before
    workers.close()
    thread.join(600)
    assert wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in started))


class TestAsked:
    def test_the_identity_of_runs_on_one_device_is_as_it_was(self):
        alone, shared = materials(), materials(**TWO)
        assert "devices_per_run" not in alone.design.training
        jobs = [made.training("final", made.design.baseline, 0, 0.02) for made in (alone, shared)]
        assert jobs[0].id != jobs[1].id
        assert jobs[1].config["training"]["devices_per_run"] == 2
        assert protocol(shared.design)["precision"] == "float32 on cpu, each batch shared by 2 processes"
        assert protocol(alone.design)["precision"] == "float32 on cpu"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"training": {"devices_per_run": 0}}, r"devices_per_run"),
            ({"training": {"devices_per_run": 9, "batch_size": 8}}, r"9, and a batch has 8 rows to share"),
            ({"training": TWO, "device": "mps"}, r"one device of type mps"),
        ],
    )
    def test_a_wrong_number_is_named(self, options, message):
        with pytest.raises(PlanError, match=message):
            Plan.of(**options)

    def test_batch_normalisation_on_a_cpu_is_refused_before_anything_is_run(self):
        plan = small_plan(model={"name": "mlp", "hidden": [8], "batch_norm": True}, training=TWO)
        with pytest.raises(PlanError, match=r"devices_per_run: the batch normalisation of mlp needs GPUs"):
            settled(plan, blobs())

    def test_a_study_says_so_in_its_records(self, tmp_path):
        plan = small_plan(losses=["focal"], seeds=1, tuning=False, training=TWO)
        run(plan, blobs(), tmp_path, workers=1)
        trained = [record for record in records(tmp_path)[0].values() if record["role"] == "final"]
        assert {record["status"] for record in trained} == {"done"}
        assert {record["config"]["training"]["devices_per_run"] for record in trained} == {2}


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_the_result_of_one_batch_normalisation_included():
    model = {"name": "mlp", "hidden": [8], "batch_norm": True}
    dataset, outcomes = blobs(), []
    for devices in (1, 2):
        plan = small_plan(model=model, tuning=False, device="cuda", training={"devices_per_run": devices})
        outcomes.append(done(Materials(dataset, settled(plan, dataset))))
    one, two = (load(outcome.predictions)["test_logits"] for outcome in outcomes)
    np.testing.assert_allclose(two, one, atol=1e-3)
