"""What every process of a group does in tests/test_parallel.py."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import infoloss as il
from infoloss.models import Dropout
from infoloss.training import Classifier, DataParallel, predicted, seed_of_rank

RANKS, CLASSES = 3, 4
# shares of 3, 2, 2 rows; of one; and fewer rows than processes
ROWS = (7, 3, 2, 1)


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    target = torch.randint(CLASSES, (count,), generator=generator)
    return torch.randn(count, 5, dtype=torch.double, generator=generator), target


def ragged_weights(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A mean whose denominator differs from share to share."""
    weight = torch.arange(1, CLASSES + 1, dtype=logits.dtype)
    return il.cross_entropy()(logits, target, weight=weight, sample_weight=1.0 + target)


def of_the_whole_batch(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """No mean over rows at all."""
    return (logits.T @ logits).logdet() if len(target) > 6 else logits.std() + logits[0, target[-1]]


LOSSES: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ...] = (
    ragged_weights,
    of_the_whole_batch,
)


def gradients_are_those_of_one_process() -> None:
    for count in ROWS:
        for loss in LOSSES:
            alone, shared = network(), DataParallel(network())
            features, target = rows(count)
            expected = loss(alone(features), target)
            found = loss(shared(features), target)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
            expected.backward()
            found.backward()
            for ours, theirs in zip(shared.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)


def logits_outside_training_are_those_of_one_process() -> None:
    features, _ = rows(7)
    found = predicted(DataParallel(network()), features)
    assert not found.requires_grad
    torch.testing.assert_close(found, network()(features).detach(), rtol=1e-12, atol=0)


def the_first_process_gives_the_weights() -> None:
    mine = network()
    with torch.no_grad():
        mine[0].weight += dist.get_rank()
    assert torch.equal(DataParallel(mine).model.module[0].weight, network()[0].weight)


def chosen_weights_can_be_put_back() -> None:
    shared = DataParallel(network())
    before = deepcopy(shared.state_dict())
    with torch.no_grad():
        shared.model.module[0].weight.zero_()
    shared.load_state_dict(before)
    assert torch.equal(shared.model.module[0].weight, network()[0].weight)


def masks_differ_and_random_numbers_outside_do_not() -> None:
    for kind in (nn.Dropout, Dropout):
        # Dropout's own generator is seeded as the model of a run is
        torch.manual_seed(seed_of_rank(1, dist.get_rank()))
        model = nn.Sequential(nn.Linear(1, 1, bias=False), kind(0.5))
        nn.init.ones_(model[0].weight)
        shared = DataParallel(model)
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        out = shared(torch.ones(300, 1)).detach().view(RANKS, 100)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert set(out.unique().tolist()) == {0.0, 2.0}
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert 20 < (out[one] != out[other]).sum() < 80, "masks of two processes are independent"


def batch_normalisation_on_a_cpu_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), classes=4)
    with pytest.raises(ValueError, match="needs GPUs"):
        DataParallel(model)


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        gradients_are_those_of_one_process,
        logits_outside_training_are_those_of_one_process,
        the_first_process_gives_the_weights,
        chosen_weights_can_be_put_back,
        masks_differ_and_random_numbers_outside_do_not,
        batch_normalisation_on_a_cpu_is_refused,
    )
}


def run(rank: int, folder: str) -> None:
    """Every check in this process; what failed goes to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(minutes=20),
    )
    results = dict.fromkeys(CHECKS, "not run: a check before it failed")  # the processes may be out of step
    for name, check in CHECKS.items():
        try:
            check()
        except BaseException:  # pytest.fail is no Exception
            results[name] = traceback.format_exc()
            break
        results[name] = ""
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()
