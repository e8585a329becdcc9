"""Losses of the user's own in a study: known by their source, paired like the others."""

from __future__ import annotations

import importlib
import linecache
import sys

import numpy as np
import pytest
import torch
from study_cases import blobs, small_plan
from torch import nn

import infoloss as il
from infoloss.data import from_arrays
from infoloss.named import named
from infoloss.study.compare import run
from infoloss.study.design import settled
from infoloss.study.own_losses import OwnLoss, is_own, term_of
from infoloss.study.plan import Plan, PlanError
from infoloss.study.store import predictions, records

SOURCE = """
import torch
from torch import nn
import infoloss as il

FACTOR = 1.0

def plain(logits, target):
    return FACTOR * nn.functional.cross_entropy(logits, target)

def weighted(logits, target, sample_weight):
    row = nn.functional.cross_entropy(logits, target, reduction="none")
    return (sample_weight * row).sum() / sample_weight.sum()

def rows(logits, target):
    return nn.functional.cross_entropy(logits, target, reduction="none")

def detached(logits, target):
    return plain(logits.detach(), target)

def fails(logits, target):
    raise KeyError("nothing here")

class Learns(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits + self.bias, target)

term = il.cross_entropy() + 0.1 * il.entropy()
number = 7
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the user's module, and makes the next import read it."""

    def write(source=SOURCE):
        (tmp_path / "my_losses.py").write_text(source)
        sys.modules.pop("my_losses", None)
        importlib.invalidate_caches()
        linecache.clearcache()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write()
    yield write
    sys.modules.pop("my_losses", None)


@pytest.mark.usefixtures("mine")
def test_a_function_trains_as_the_same_loss_of_the_catalogue_does(tmp_path):
    """Cross entropy written by hand, in worker processes: the test logits of the baseline."""
    folder = tmp_path / "study"
    plan = small_plan(losses=["my_losses:plain", "my_losses:Learns"])
    analysis = run(plan, blobs(), folder, workers=2)
    assert [loss.label for loss in analysis.losses][1:] == ["my_losses:plain", "my_losses:Learns"]
    found = [record for record in records(folder)[0].values() if record["role"] == "final"]
    assert {record["status"] for record in found} == {"done"}
    logits = {
        (record["loss"].partition("#")[0], record["seed"], record["learning_rate"]): predictions(
            folder, record["id"]
        )["test_logits"]
        for record in found
    }
    baseline = "cross_entropy(label_smoothing=0.0)"
    own = {key: value for key, value in logits.items() if key[0] == "my_losses:plain"}
    assert len(own) == 2
    for (_, seed, rate), value in own.items():
        np.testing.assert_allclose(value, logits[baseline, seed, rate], atol=1e-5)


def test_a_changed_function_is_another_loss(mine):
    plan = small_plan(losses=["my_losses:plain"])
    first = settled(plan, blobs())
    assert is_own(first.arms[1].expression)
    mine(SOURCE.replace("FACTOR = 1.0", "FACTOR = 2.0"))
    changed = settled(plan, blobs())
    assert changed.arms[1].expression != first.arms[1].expression
    with pytest.raises(PlanError, match="'my_losses:plain' names both"):
        changed.extended(first)


@pytest.mark.usefixtures("mine")
def test_a_term_is_stored_as_its_expression():
    arm = settled(small_plan(losses=["my_losses:term"]), blobs()).arms[1]
    assert il.parse(arm.expression) == il.cross_entropy() + 0.1 * il.entropy()
    assert arm.label == "my_losses:term"


@pytest.mark.usefixtures("mine")
def test_functions_are_given_from_python_too():
    assert Plan.of(losses=[named("my_losses:plain")]).losses[0].expression == "my_losses:plain"
    with pytest.raises(PlanError, match="write the loss in a module"):
        Plan.of(losses=[lambda logits, target: logits.sum()])


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows", r"returned Tensor of shape \(3,\); expected a scalar tensor"),
        ("detached", "has no gradient"),
        ("fails", "KeyError: 'nothing here'"),
        ("number", "is int; expected a function"),
        ("plane", "no 'plane'; did you mean 'plain'"),
    ],
)
def test_functions_that_cannot_be_trained_are_refused_before_anything_runs(name, message):
    with pytest.raises(PlanError, match=message):
        settled(small_plan(losses=[f"my_losses:{name}"]), blobs())


@pytest.mark.usefixtures("mine")
def test_weighted_rows_want_a_function_that_takes_weights():
    features, target = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    weighted = from_arrays(features, target, sample_weight=np.ones(60), name="weighted")
    with pytest.raises(PlanError, match="plain has no parameter sample_weight"):
        settled(small_plan(losses=["my_losses:plain"]), weighted)
    assert len(settled(small_plan(losses=["my_losses:weighted"]), weighted).arms) == 2


def test_a_module_starts_anew_in_every_training():
    module = nn.Linear(2, 2)
    first = OwnLoss("mine:module", module)
    with torch.no_grad():
        next(first.parameters()).add_(1)
    assert not torch.equal(next(first.parameters()), module.weight)


def test_the_module_is_not_needed_to_read_the_records():
    assert term_of("not_there:loss#0123456789ab") == il.cross_entropy()
