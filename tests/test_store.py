"""The store: a run appears whole or not at all, damage is seen, one process writes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import infoloss.study
from infoloss.study import store as store_module
from infoloss.study.canonical import canonical, sha256
from infoloss.study.store import Store, StoreError, comparable, predictions, read_design, records


def record(seed, **fields):
    config = {"seed": seed, "role": "final"}
    return {"id": sha256(config)[:32], "config": config, "status": "done", "seconds": 1.0, **fields}


LOGITS = {"test_logits": np.arange(6, dtype=np.float32).reshape(3, 2), "test_target": np.array([0, 1, 1])}


@pytest.fixture
def filled(tmp_path):
    """A folder with two runs; the first has predictions."""
    with Store.opened(tmp_path) as store:
        store.write(record(0), save(LOGITS))
        store.write(record(1), None)
    return tmp_path


def only(folder, seed):
    return folder / "runs" / record(seed)["id"]


def test_what_is_written_is_read(filled):
    found, damaged = records(filled)
    assert not damaged
    assert {r["config"]["seed"] for r in found.values()} == {0, 1}
    read = predictions(filled, record(0)["id"])
    assert all(np.array_equal(read[name], array) for name, array in LOGITS.items())


def test_canonical_json_does_not_depend_on_order_but_on_every_value():
    assert canonical({"a": 1, "b": [0.1, None]}) == canonical({"b": (0.1, None), "a": 1})
    assert sha256({"a": 1}) != sha256({"a": 1.5}) != sha256({"b": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("file", ["record.json", "predictions.safetensors"])
@pytest.mark.parametrize("wound", ["flip", "cut", "empty", "remove"])
def test_damage_is_seen(filled, file, wound):
    path = only(filled, 0) / file
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "cut": content[:middle],
            "empty": b"",
            "remove": b"",
        }[wound]
    )
    if wound == "remove":
        path.unlink()
    found, [damage] = records(filled)
    assert damage.id == record(0)["id"]
    assert {r["config"]["seed"] for r in found.values()} == {1}


def test_a_record_that_was_edited_is_damage(filled):
    path = only(filled, 0) / "record.json"
    text = path.read_text()
    assert '"status": "done"' in text
    path.write_text(text.replace('"status": "done"', '"status": "failed"'))
    [damage] = records(filled)[1]
    assert "checksum" in damage.reason


def test_a_run_under_another_name_is_damage(filled):
    os.rename(only(filled, 0), filled / "runs" / ("0" * 32))
    assert [damage.id for damage in records(filled)[1]] == ["0" * 32]


def test_a_run_set_aside_leaves_its_place_and_is_kept(filled):
    with Store.opened(filled) as store:
        for number in range(2):
            assert store.set_aside(record(1)["id"]).name == f"{record(1)['id']}-{number}"
            store.write(record(1), None)
    assert len(records(filled)[0]) == 2
    assert len(list((filled / "set-aside").iterdir())) == 2


@pytest.mark.parametrize("fails_in", ["_write", "_sync", "replace"])
def test_a_run_that_is_cut_off_while_written_never_appears(filled, monkeypatch, fails_in):
    def cut_off(*_):
        raise KeyboardInterrupt

    with Store.opened(filled) as store:
        target = (store_module.os, "replace") if fails_in == "replace" else (store_module, fails_in)
        with monkeypatch.context() as patch:
            patch.setattr(*target, cut_off)
            with pytest.raises(KeyboardInterrupt):
                store.write(record(2), save(LOGITS))
    assert len(records(filled)[0]) == 2
    assert not records(filled)[1]
    with Store.opened(filled) as store:
        assert len(list((filled / "runs").iterdir())) == 2, "the draft is swept away"
        store.write(record(2), save(LOGITS))
    assert len(records(filled)[0]) == 3


def test_the_design_is_replaced_whole(tmp_path):
    assert read_design(tmp_path) is None
    with Store.opened(tmp_path) as store:
        store.write_design({"seeds": [0]})
        store.write_design({"seeds": [0, 1]})
    assert read_design(tmp_path) == {"seeds": [0, 1]}
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        read_design(tmp_path)


HOLD = """
import sys
from pathlib import Path
from infoloss.study.store import Store
with Store.opened(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="another process"), Store.opened(tmp_path):
            pass
        assert records(tmp_path) == ({}, ()), "reading needs no lock"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Store.opened(tmp_path) as store:
        store.write(record(0), None)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"cannot write to .*file"),
        Store.opened(tmp_path / "file" / "study"),
    ):
        pass


def test_a_full_disk_is_said(filled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Store.opened(filled) as store:
        monkeypatch.setattr(store_module, "_write", full)
        with pytest.raises(StoreError, match=r"cannot write .*No space left"):
            store.write(record(2), None)
    assert len(records(filled)[0]) == 2


def test_comparable_records_differ_in_nothing_but_costs():
    assert comparable(record(0, seconds=2.0)) == comparable(record(0, seconds=3.0))
    assert comparable(record(0, status="failed")) != comparable(record(0))


def test_records_are_plain_json(filled):
    assert json.loads((only(filled, 0) / "record.json").read_text())["status"] == "done"


def test_nothing_is_unpickled():
    source = "".join(path.read_text() for path in Path(infoloss.study.__file__).parent.rglob("*.py"))
    assert not re.findall(r"import pickle|pickle\.load|torch\.load|np\.load|joblib|allow_pickle", source)
