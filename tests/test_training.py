"""The loop: chooses on validation, gives losses the same batches, says when it diverges; the locked test."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from infoloss.models import build
from infoloss.training import (
    LockedTest,
    LockedTestError,
    Rows,
    Settings,
    fit,
    learning_rate_factor,
    predicted,
    validation_scores,
)
from infoloss.training.memory import _gnu_library, peak_memory, reset_peak_memory


class Softmax:
    """What cross entropy implies at test time."""

    def decision(self, logits):
        return logits.argmax(1)

    def log_probabilities(self, logits):
        return logits.log_softmax(1)


class CrossEntropy(nn.Module):
    """Stands in for infoloss.Criterion, and remembers the labels it was given."""

    def __init__(self, factor=1.0, poison_at=None):
        super().__init__()
        self.term, self.factor, self.poison_at, self.seen = Softmax(), factor, poison_at, []

    def forward(self, logits, target, *, sample_weight=None):
        self.seen.append(target.tolist())
        if len(self.seen) == self.poison_at:
            return logits.sum() * float("nan")
        row = cross_entropy(logits, target, reduction="none")
        weight = torch.ones_like(row) if sample_weight is None else sample_weight
        return self.factor * (weight * row).sum() / weight.sum()


def blobs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % 3
    centres = 2 * torch.eye(3)
    return Rows(centres[target] + torch.randn(n, 3, generator=generator), target)


SETTINGS = Settings(learning_rate=0.03, epochs=8, batch_size=16)


def trained(criterion=None, settings=SETTINGS, seed=3, metric="accuracy", train=None, told=None):
    model = build("mlp", input_shape=(3,), classes=3, seed=seed, hidden=(8,))
    criterion = CrossEntropy() if criterion is None else criterion
    train = blobs(70, 0) if train is None else train
    return fit(model, criterion, train, blobs(90, 1), settings=settings, seed=seed, metric=metric, told=told)


def test_a_rerun_is_identical_bit_for_bit():
    first, second = trained(), trained()
    assert torch.equal(first.validation_logits, second.validation_logits)
    assert first.curve == second.curve
    assert not torch.equal(first.validation_logits, trained(seed=4).validation_logits)


def test_every_epoch_is_told_and_telling_changes_nothing():
    heard = []
    told = trained(told=lambda *at: heard.append(at))
    assert heard == [(epoch, SETTINGS.epochs) for epoch in range(1, SETTINGS.epochs + 1)]
    assert told.curve == trained().curve
    heard.clear()
    trained(CrossEntropy(poison_at=3 * 5 + 1), told=lambda *at: heard.append(at))
    assert heard == [(epoch, SETTINGS.epochs) for epoch in (1, 2, 3)], "the fourth diverged"


def test_losses_of_a_seed_see_the_same_batches():
    one, other = CrossEntropy(), CrossEntropy(factor=5.0)
    trained(one), trained(other)
    assert one.seen == other.seen
    different = CrossEntropy()
    trained(different, seed=4)
    assert different.seen != one.seen


def test_an_epoch_holds_every_row_once():
    criterion = CrossEntropy()
    trained(criterion, replace(SETTINGS, epochs=1))
    assert [len(batch) for batch in criterion.seen] == [16, 16, 16, 16, 6]
    assert sorted(chain(*criterion.seen)) == sorted(blobs(70, 0).target.tolist())


def test_a_last_batch_of_one_row_joins_the_one_before():
    """Batch normalisation cannot do with one."""
    for rows, sizes in ((65, [16, 16, 16, 17]), (1, [1]), (64, [16] * 4), (66, [16, 16, 16, 16, 2])):
        criterion = CrossEntropy()
        trained(criterion, replace(SETTINGS, epochs=1), train=blobs(rows, 0))
        assert [len(batch) for batch in criterion.seen] == sizes


class Recorder(nn.Linear):
    """A model that keeps the batches it is trained on."""

    def __init__(self):
        super().__init__(3, 3)
        self.batches = []

    def forward(self, rows):
        if self.training:
            self.batches.append(rows.clone())
        return super().forward(rows)


def recorded(criterion, seed=3):
    model = Recorder()
    settings = replace(SETTINGS, augmentation=("mixup=1",), epochs=2)
    fit(model, criterion, blobs(70, 0), blobs(90, 1), settings=settings, seed=seed, metric="nll")
    return model.batches


class Restless(CrossEntropy):
    """A loss that draws random numbers of its own."""

    def forward(self, logits, target, *, sample_weight=None):
        torch.rand(7)
        return super().forward(logits, target, sample_weight=sample_weight)


def test_losses_of_a_seed_see_the_same_augmented_rows():
    one, other = recorded(CrossEntropy()), recorded(Restless(factor=5.0))
    different = recorded(CrossEntropy(), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, different, strict=True))


def test_mixup_mixes_the_losses_of_both_labels():
    """One step by hand: the gradient of soft labels."""
    rows, model = blobs(16, 0), nn.Linear(3, 3)
    settings = Settings(
        learning_rate=0.5, optimiser="sgd", momentum=0, weight_decay=0, epochs=1, batch_size=16, warmup=0,
        augmentation=("mixup=1",),
    )  # fmt: skip
    before = copy.deepcopy(model)
    fit(model, CrossEntropy(), rows, rows, settings=settings, seed=9, metric="nll")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(9))
    random = np.random.Generator(np.random.Philox(key=np.array([9, 0], np.uint64)))
    share, partner = random.beta(1, 1), random.permutation(16)
    x, y = rows.features[order], torch.eye(3)[rows.target[order]]
    mixed, soft = share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]
    cross_entropy(before(mixed), soft).backward()
    assert torch.allclose(model.weight, before.weight - 0.5 * before.weight.grad, atol=1e-6)


class Masks(nn.Module):
    """A model with PyTorch's dropout that keeps what it lets through."""

    def __init__(self):
        super().__init__()
        self.weight, self.dropout, self.kept = nn.Parameter(torch.eye(3)), nn.Dropout(0.5), []

    def forward(self, rows):
        mask = self.dropout(torch.ones_like(rows))
        if self.training:
            self.kept.append(mask)
        return mask * rows @ self.weight


def test_losses_of_a_seed_see_the_same_dropout_and_the_global_generator_rests():
    found = []
    for criterion in (CrossEntropy(), Restless()):
        torch.rand(len(found))
        before, model = torch.get_rng_state(), Masks()
        fit(model, criterion, blobs(70, 0), blobs(90, 1), settings=SETTINGS, seed=3, metric="nll")
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model.kept)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not torch.equal(found[0][0], found[0][1])


def test_predictions_come_in_blocks(monkeypatch):
    sizes = []

    class Model(nn.Module):
        def forward(self, rows):
            sizes.append(len(rows))
            return 2 * rows

    monkeypatch.setattr("infoloss.training.loop.NUMBERS_AT_ONCE", 12)
    rows = torch.randn(10, 3, requires_grad=True)
    found = predicted(Model(), rows)
    assert sizes == [4, 4, 2]
    assert torch.equal(found, 2 * rows)
    assert not found.requires_grad


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "nll"])
def test_the_best_validation_epoch_is_kept(metric):
    result = trained(metric=metric)
    sign = -1 if metric == "nll" else 1
    # validation classes are even, so both accuracies choose the same epoch
    column = "validation_nll" if metric == "nll" else "validation_accuracy"
    rank = [(sign * entry[column], -entry["validation_nll"]) for entry in result.curve]
    assert result.best_epoch == 1 + rank.index(max(rank))
    assert result.validation[metric] == pytest.approx(sign * max(rank)[0])


class Turns(CrossEntropy):
    """Learns for three epochs of five batches, then unlearns."""

    def forward(self, logits, target, *, sample_weight=None):
        self.factor = 1.0 if len(self.seen) < 15 else -1.0
        return super().forward(logits, target, sample_weight=sample_weight)


def test_weights_go_back_to_the_best_epoch():
    result = trained(Turns(), replace(SETTINGS, epochs=20))
    assert result.best_epoch < 10
    assert result.curve[-1]["validation_accuracy"] < result.validation["accuracy"] - 0.2
    assert torch.equal(result.model(blobs(90, 1).features), result.validation_logits)


def test_ties_in_accuracy_go_to_the_lower_nll():
    result = trained(settings=replace(SETTINGS, epochs=30))
    best = max(entry["validation_accuracy"] for entry in result.curve)
    tied = [entry for entry in result.curve if entry["validation_accuracy"] == best]
    assert len(tied) > 1, "the problem must tie for this test to say anything"
    assert result.best_epoch == min(tied, key=lambda entry: entry["validation_nll"])["epoch"]


def test_validation_scores_of_a_case_worked_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    target = torch.tensor([0, 0, 0, 2])
    scores = validation_scores(Softmax(), logits, target)
    assert scores["accuracy"] == 3 / 4
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["nll"] == pytest.approx(cross_entropy(logits, target).item())


def test_a_divergence_names_its_epoch_and_is_a_result():
    result = trained(CrossEntropy(poison_at=12))  # 5 batches an epoch
    assert result.status == "diverged"
    assert "epoch 3" in result.error
    assert len(result.curve) == 2
    assert result.best_epoch is None
    assert result.validation_logits is None


def test_infinite_weights_are_a_divergence():
    settings = Settings(learning_rate=1e30, optimiser="sgd", epochs=5, batch_size=16, warmup=0.0)
    result = trained(CrossEntropy(), settings)
    assert result.status == "diverged"
    assert "epoch" in result.error


def test_sample_weights_choose_what_is_learnt():
    rows = blobs(70, 0)
    weight = (rows.target != 2).float() + 1e-6
    result = trained(train=Rows(rows.features, rows.target, weight), settings=replace(SETTINGS, epochs=20))
    assert (result.validation_logits.argmax(1) == 2).sum() == 0
    assert (trained().validation_logits.argmax(1) == 2).sum() > 0


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_optimisers_learn(optimiser):
    result = trained(settings=Settings(learning_rate=0.05, optimiser=optimiser, epochs=15, batch_size=16))
    # Bayes accuracy of three unit Gaussians, centres 2·sqrt(2) apart: about .87
    assert result.validation["accuracy"] > 0.75


def test_the_schedule_rises_then_follows_the_cosine_to_zero():
    factors = [learning_rate_factor(t, steps=100, warmup=0.1) for t in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (t + 1) for t in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.001
    constant = [learning_rate_factor(t, steps=100, warmup=0.1, schedule="constant") for t in range(100)]
    assert constant == factors[:10] + [1.0] * 90


def test_the_schedule_reaches_the_optimiser():
    """With the constant rate, SGD without momentum moves the weights by the rate times the gradient."""

    class Steps(CrossEntropy):
        def forward(self, logits, target, *, sample_weight=None):
            return logits.sum() / len(logits) / 3

    model = nn.Linear(3, 3)
    before = model.bias.detach().clone()
    settings = Settings(
        learning_rate=0.5, optimiser="sgd", momentum=0, weight_decay=0, epochs=2, batch_size=16, warmup=0,
        schedule="constant",
    )  # fmt: skip
    fit(model, Steps(), blobs(64, 0), None, settings=settings, seed=0)
    assert torch.allclose(before - model.bias, torch.full((3,), 8 * 0.5 / 3), atol=1e-6)


class TestLockedTest:
    def locked(self):
        rows = blobs(30, 2)
        return LockedTest(rows.features, rows.target)

    def test_opens_once_after_the_choice(self):
        test, done = self.locked(), trained()
        logits, target = test.logits(done)
        assert torch.equal(logits, done.model(blobs(30, 2).features))
        assert torch.equal(target, blobs(30, 2).target)
        with pytest.raises(LockedTestError, match="already"):
            test.logits(done)

    def test_stays_locked_before_the_choice(self):
        test = self.locked()
        model = build("linear", input_shape=(3,), classes=3, seed=0)
        with pytest.raises(LockedTestError, match="until a fit is finished"):
            test.logits(model)

    def test_stays_locked_inside_the_training(self):
        """A criterion that tries to peek from within the loop gets nothing."""
        test = self.locked()

        class Peeks(CrossEntropy):
            def forward(self, logits, target, *, sample_weight=None):
                return test.logits(self)

        with pytest.raises(LockedTestError):
            trained(Peeks())

    def test_stays_locked_after_a_divergence(self):
        with pytest.raises(LockedTestError, match="epoch 3"):
            self.locked().logits(trained(CrossEntropy(poison_at=12)))

    def test_shows_nothing_and_cannot_be_copied(self):
        test = self.locked()
        assert not [name for name in ("features", "target", "rows") if hasattr(test, name)]
        for copier in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(LockedTestError):
                copier(test)


FAULTS = """
import resource, sys, torch
from infoloss.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(40, 2**18)  # 40 MiB: above what the library would keep by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(_gnu_library() is None, reason="needs the GNU C library")
def test_freed_memory_is_kept():
    kept, usual = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("keep", "leave")
    )
    assert kept < 100
    assert usual > 10 * kept


def test_peak_memory_sees_an_allocation():
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory(cpu)
    block = torch.ones(64 * 2**20 // 4)
    assert peak_memory(cpu) - before > 50
    del block
