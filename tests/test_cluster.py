"""Studies on a Ray cluster of two machines (two node managers of this one): one is lost in the middle."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

import pytest
from study_cases import blobs, contents, small_plan

from infoloss.cli import main
from infoloss.study import cluster
from infoloss.study.cluster import STARTS, Cluster, ClusterError
from infoloss.study.compare import PlanError, compare, run
from infoloss.study.design import settled
from infoloss.study.engines import Serial
from infoloss.study.materials import Materials

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'infoloss[ray]'")

# Ray's own: what it leaves to the garbage collector, and notices of changes to come
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]

MACHINE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def machines():
    """A cluster of two machines with a core each."""
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        made = Machines(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})
        made.second = made.add_node(**MACHINE)
        yield made
        made.shutdown()


def materials(plan=None):
    plan = plan or small_plan(tuning=False)
    return Materials(blobs(), settled(plan, blobs()))


def started(monkeypatch):
    """The number of each attempt at a run, from here on."""
    numbers = []
    start = cluster._Started.start

    def seen(self, job, number=1):
        numbers.append(number)
        start(self, job, number)

    monkeypatch.setattr(cluster._Started, "start", seen)
    return numbers


def test_a_machine_lost_in_the_middle_changes_no_record(machines, tmp_path, monkeypatch):
    plan = small_plan(tuning=False, training={"epochs": 30})
    numbers = started(monkeypatch)
    for attempt in range(
        4
    ):  # until a run was under way there: on a busy machine, that one may not have begun
        told = []

        def disturb(progress, told=told):
            told.append(progress)
            if len(told) == 3:
                machines.remove_node(machines.second, allow_graceful=False)

        with Cluster(machines.address) as engine:
            assert engine._room(materials().reference("majority class", 0), idle=True) == 2
            run(plan, blobs(), tmp_path / f"cluster-{attempt}", disturb, workers=engine)
        machines.second = machines.add_node(**MACHINE)
        if max(numbers) >= 2:
            break
    assert max(numbers) >= 2, "a run was under way on the machine that was lost"
    run(plan, blobs(), tmp_path / "here", workers=1)
    found, expected = contents(tmp_path / f"cluster-{attempt}"), contents(tmp_path / "here")
    assert found.keys() == expected.keys()
    for id in expected:
        assert found[id] == expected[id]


def test_several_processes_of_a_run_want_a_machine_with_room_for_all(machines):
    made = materials(small_plan(tuning=False, training={"devices_per_run": 2}))
    job = made.training("final", made.design.baseline, 0, 0.01)
    with Cluster(machines.address) as engine:
        with pytest.raises(ClusterError, match="no machine of the Ray cluster has the 2 CPU that a run"):
            list(engine.outcomes([job], made))
        machine = machines.add_node(num_cpus=2, object_store_memory=80 * 2**20)
        [(same, outcome)] = engine.outcomes([job], made)
    machines.remove_node(machine)
    assert same is job
    [(_, expected)] = Serial().outcomes([job], made)
    assert outcome.fields["status"] == "done"
    assert outcome.predictions == expected.predictions


def test_gpus_are_asked_for_by_runs_that_train_on_them():
    made = materials()
    job = made.training("final", made.design.baseline, 0, 0.01)
    job.config["device"] = "cuda"
    assert cluster._wanted(job) == {"CPU": 1, "GPU": 1}
    job.config["training"] = {**job.config["training"], "devices_per_run": 2}
    assert cluster._wanted(job) == {"CPU": 2, "GPU": 2}
    assert cluster._wanted(made.reference("majority class", 0)) == {"CPU": 1}


def test_a_run_that_ends_its_worker_every_time_has_failed(machines, tmp_path, monkeypatch):
    """Its module lies where this process alone would look."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "deadly.py").write_text(
        "import os, sys\n"
        "def loss(logits, target):\n"
        "    if 'ray' in sys.modules and os.getpid() != PARENT:\n"
        "        os._exit(3)\n"
        "    return logits.square().mean()\n"
        f"PARENT = {os.getpid()}\n"
    )
    made = materials(small_plan(losses=["deadly:loss"], tuning=False))
    jobs = [made.training("final", arm, 0, 0.01) for arm in made.design.arms]
    numbers = started(monkeypatch)
    with Cluster(machines.address) as engine:
        found = {job.label: outcome.fields for job, outcome in engine.outcomes(jobs, made)}
    assert found["cross_entropy"]["status"] == "done"
    assert found["deadly:loss"]["status"] == "failed"
    assert f"lost {STARTS} times: WorkerCrashedError" in found["deadly:loss"]["error"]
    assert sorted(numbers) == [1, 1, 2, 3, 4]


def test_whoever_stops_listening_ends_the_runs(machines):
    made = materials(small_plan(tuning=False, training={"epochs": 10_000_000}))
    endless = made.training("final", made.design.baseline, 0, 0.01)
    with Cluster(machines.address) as engine:
        found = engine.outcomes([made.reference("majority class", 0), endless], made)
        next(found)
        found.close()
        deadline = time.monotonic() + 300
        while (
            ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        assert ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]


def test_an_interrupt_leaves_the_cluster_for_good(machines, tmp_path):
    def interrupt(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept, Cluster(machines.address) as engine:
        run(small_plan(tuning=False), blobs(), tmp_path, interrupt, workers=engine)
    del kept
    gc.collect()
    assert not ray.is_initialized(), "ending the runs late would have started a cluster"


def test_a_callers_own_connection_stays_open(machines):
    ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    try:
        Cluster("auto").close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_what_cannot_be_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:9: .*ray start --head"):
        Cluster("127.0.0.1:9")
    with pytest.raises(PlanError, match="your own training runs in this process: no engine"):
        compare(lambda criterion, seed: None, workers=Serial())
    words = ["compare", "wine", "--no-tune", "--quiet", "--out", str(tmp_path / "study")]
    assert main([*words, "--address", "127.0.0.1:9"]) == 2
    assert "--address: 127.0.0.1:9: is for --engine ray" in capsys.readouterr().err
    assert main([*words, "--engine", "ray", "--address", "127.0.0.1:9"]) == 1
    assert "infoloss: no Ray cluster at 127.0.0.1:9" in capsys.readouterr().err


def test_a_lack_of_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'infoloss\[ray\]'"):
        Cluster()


def test_the_command_line_reaches_the_cluster(machines, tmp_path, capsys):
    words = ["compare", "wine", "--losses", "focal", "--seeds", "1", "--epochs", "2", "--no-tune", "--quiet"]
    words += ["--engine", "ray", "--address", machines.address, "--out", str(tmp_path / "study")]
    assert main(words) == 0
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 5
    assert not ray.is_initialized()
