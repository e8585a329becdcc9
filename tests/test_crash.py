"""Killed at any step, a full disk, rot, several parents: nothing is lost, and nothing is run twice."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from study_cases import blobs, contents, small_plan

from infoloss.study.compare import StoreError, run
from infoloss.study.plan import PlanError
from infoloss.study.slices import Slice
from infoloss.study.store import Store, records

posix = pytest.mark.skipif(os.name != "posix", reason="kills with signals")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(small_plan(), blobs(), folder, workers=1)
    return folder


def script(text, *arguments):
    """A fresh interpreter at work on this text, to be killed or waited for."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    head = "import os, signal, sys\nfrom study_cases import blobs, small_plan\n"
    command = [sys.executable, "-c", head + text, *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, **pipes, text=True, env=environment)


def resumed(folder, undisturbed, monkeypatch, **options):
    """Resumes, and holds the records against those of an undisturbed study; how many runs that took."""
    written = []
    write = Store.write
    monkeypatch.setattr(Store, "write", lambda self, *given: written.append(given) or write(self, *given))
    run(small_plan(), blobs(), folder, workers=1, **options)
    assert contents(folder) == contents(undisturbed)
    assert not list(folder.rglob(".tmp-*"))
    return len(written)


KILLED_WHILE_WRITING = """
from infoloss.study import store
from infoloss.study.compare import run

def killing(name, step):
    calls, original = [], getattr(store.os if name == "replace" else store, name)
    def patched(*given):
        calls.append(given)
        if len(calls) < 9:
            return original(*given)
        if step == "half":
            given[0].write_bytes(given[1][: len(given[1]) // 2])
        if step == "after":
            original(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(store.os if name == "replace" else store, name, patched)

for folder in sys.argv[1:]:  # forked, so that importing is paid for once
    child = os.fork()
    if child == 0:
        killing(*os.path.basename(folder).split("-"))
        run(small_plan(), blobs(), folder, workers=1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
STEPS = ("_write-before", "_write-half", "replace-before", "replace-after", "_sync-before")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study's folder by the call and the step at which the study was killed."""
    folders = {step: tmp_path_factory.mktemp("killed") / step for step in STEPS}
    with script(KILLED_WHILE_WRITING, *folders.values()) as parent:
        said, errors = parent.communicate(timeout=600)
    assert [int(line) for line in said.splitlines()] == [-signal.SIGKILL] * len(STEPS), errors
    return folders


@posix
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_of_writing_a_run(killed, undisturbed, monkeypatch, step):
    kept, damaged = records(killed[step])
    assert not damaged, "a run appears whole or not at all"
    assert 0 < len(kept) < len(contents(undisturbed))
    assert resumed(killed[step], undisturbed, monkeypatch) == len(contents(undisturbed)) - len(kept)


FULL_DISK = """
import resource
from infoloss.study.compare import StoreError, run

def told(progress):
    if progress.done == 5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))

try:
    run(small_plan(), blobs(), sys.argv[1], told, workers=1)
except StoreError as error:
    print(error)
"""


@posix
def test_a_disk_that_takes_no_more_is_said_and_the_study_goes_on_when_it_does(
    tmp_path, undisturbed, monkeypatch
):
    """A limit on file sizes stands for the full disk: a file is cut off in its middle."""
    with script(FULL_DISK, tmp_path) as parent:
        said, errors = parent.communicate(timeout=600)
    assert (errors, parent.returncode) == ("", 0)
    assert said.startswith(f"cannot write to {tmp_path}: ")
    assert said.count("\n") == 1
    kept, damaged = records(tmp_path)
    assert (len(kept), damaged) == (5, ())
    assert resumed(tmp_path, undisturbed, monkeypatch) == len(contents(undisturbed)) - 5


@pytest.mark.parametrize("file", ["record.json", "predictions.safetensors"])
def test_what_rotted_on_the_disk_is_run_again_and_nothing_else(tmp_path, undisturbed, monkeypatch, file):
    run(small_plan(), blobs(), tmp_path, workers=1)
    [victim, *_] = sorted((tmp_path / "runs").glob(f"*/{file}"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert len(records(tmp_path)[1]) == 1
    assert resumed(tmp_path, undisturbed, monkeypatch) == 1


SLOW = """
from infoloss.cli import main
from infoloss.study.store import Store
write = Store.write
def slowly(self, record, arrays):
    write(self, record, arrays)
    print(record["id"], flush=True)
    sys.stdin.read()  # until its parent has seen enough
Store.write = slowly
sys.exit(main(sys.argv[1:]))
"""

STUDY = [
    "wine",
    "--losses",
    "focal",
    "--seeds",
    "2",
    "--epochs",
    "2",
    "--hidden",
    "4",
    "--no-tune",
    "--jobs=1",
]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Folders in which another process does a study, or a slice of one, and has done a run."""
    folders = {first: tmp_path_factory.mktemp("held") for first in ("", "--shard=1/2")}
    with contextlib.ExitStack() as stack:
        holders = [
            stack.enter_context(script(SLOW, "compare", *STUDY, f"--out={folder}", "--quiet", *first.split()))
            for first, folder in folders.items()
        ]
        try:
            assert all(holder.stdout.readline() for holder in holders)
            yield folders
        finally:
            for holder in holders:
                holder.kill()


@posix
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("", [], "another process is running a study in {}; wait for it, or choose another folder"),
        (
            "--shard=1/2",
            ["--shard=1/2"],
            "another process is running slice 1/2 of the study in {}; wait for it",
        ),
        ("--shard=1/2", ["--shard=2/3"], "slices of 3 and of 2 would overlap; split all runs alike"),
        ("--shard=1/2", [], "another process is running slice 1/2 of the study in {}"),
        ("", ["--shard=1/2"], "another process is running a study in {}"),
    ],
)
def test_two_parents_on_the_same_runs(held, capsys, first, second, said):
    from infoloss.cli import main

    assert main(["compare", *STUDY, f"--out={held[first]}", "--quiet", *second]) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert said.format(held[first]) in errors
    assert errors.count("\n") == 1
    assert len(records(held[first])[0]) == 1


SLICE = """
from infoloss.study.compare import run
from infoloss.study.store import Store
write = Store.write
def counted(self, record, arrays):
    write(self, record, arrays)
    print(record["id"], flush=True)
Store.write = counted
for _ in sys.stdin:
    run(small_plan(), blobs(), sys.argv[1], workers=1, shard=sys.argv[2])
    print("as far as it can be", flush=True)
"""


class TestSlices:
    def test_four_parents_do_a_study_together(self, tmp_path, undisturbed):
        """Twice: the final runs need the tuning of all slices."""
        with contextlib.ExitStack() as stack:
            parents = [stack.enter_context(script(SLICE, tmp_path, f"{index}/4")) for index in (1, 2, 3, 4)]
            ran = {index: [] for index in (1, 2, 3, 4)}
            for _ in range(2):
                for parent in parents:
                    print("go on", file=parent.stdin, flush=True)
                for index, parent in enumerate(parents, start=1):
                    while (line := parent.stdout.readline().strip()) != "as far as it can be":
                        assert line, parent.stderr.read()
                        ran[index].append(line)
            for parent in parents:
                out, errors = parent.communicate(timeout=600)
                assert (out, errors, parent.returncode) == ("", "", 0)
        assert all(Slice(index, 4).holds(id) for index in ran for id in ran[index])
        every = [id for ids in ran.values() for id in ids]
        assert len(every) == len(set(every)), "no run was done twice"
        assert set(every) == set(contents(undisturbed))
        assert contents(tmp_path) == contents(undisturbed)

    @posix
    def test_a_killed_slice_leaves_the_others_alone(self, tmp_path, undisturbed, monkeypatch):
        with script(
            SLICE.replace('["id"], flush=True)', '["id"], flush=True); sys.stdin.read()'), tmp_path, "1/2"
        ) as parent:
            print("go on", file=parent.stdin, flush=True)
            id = parent.stdout.readline().strip()
            parent.kill()
        theirs = tmp_path / "runs" / f".tmp-{next(i for i in contents(undisturbed) if Slice(2, 2).holds(i))}"
        theirs.mkdir()
        run(small_plan(), blobs(), tmp_path, workers=1, shard="1/2")
        assert theirs.exists(), "a draft of another slice may be in use"
        assert id in records(tmp_path)[0]
        resumed(tmp_path, undisturbed, monkeypatch)

    def test_a_slice_says_how_to_go_on(self, tmp_path, capsys):
        from infoloss.cli import main

        command = ["compare", *STUDY, f"--out={tmp_path}", "--quiet"]
        assert main([*command, "--shard=1/2"]) == 0
        assert "as far as it can be. When the other slices are too, go on:" in capsys.readouterr().out
        assert main([*command, "--shard=2/2"]) == 0
        assert f"infoloss report {tmp_path} writes the report" in capsys.readouterr().out
        assert not (tmp_path / "report.html").exists()
        assert main(["report", str(tmp_path)]) == 0

    def test_your_own_training_is_sliced_too(self, tmp_path):
        from test_study import outputs

        from infoloss.study.compare import compare

        def train(criterion, seed):
            return outputs(seed, 0.0)

        found = [compare(train, losses=["focal"], seeds=3, folder=tmp_path, shard=f"{i}/2") for i in (1, 2)]
        assert [each.analysis.complete for each in found] == [False, True]
        assert len(found[1].runs) == 6

    @pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b", "1/0"])
    def test_what_is_no_slice_is_said(self, tmp_path, shard):
        with pytest.raises(PlanError, match=f"shard: .*{shard}.*expected I/N"):
            run(small_plan(), blobs(), tmp_path, shard=shard)

    def test_every_run_is_in_one_slice(self, undisturbed):
        for count in (1, 2, 3, 7):
            for id in contents(undisturbed):
                assert sum(Slice(index, count).holds(id) for index in range(1, count + 1)) == 1


def test_a_hanging_gate_is_said(tmp_path, monkeypatch):
    from infoloss.study import store

    monkeypatch.setattr(store, "_SECONDS_AT_THE_GATE", 0.1)
    with (
        Store(tmp_path).gate(),
        pytest.raises(StoreError, match=r"\.gate for 0\.1 seconds"),
        Store.opened(tmp_path),
    ):
        pass
