"""Streaming scores against the scores of all rows at once, scikit-learn and SciPy."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch import Tensor

import infoloss as il
from infoloss.evaluation import StreamingScores, reliability, scores

ALIKE = ("accuracy", "nll", "brier", "ece")


def problem(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than by chance, over the whole range of confidences."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (rows,), generator=draw)
    z = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    z[torch.arange(rows), y] += 1
    return z * torch.rand(rows, 1, generator=draw, dtype=torch.float64) * 5, y


def streamed(batches: Any, **options: Any) -> dict[str, float]:
    found = StreamingScores(**options)
    for z, y in batches:
        found.update(z, y)
    return found.compute()


def close(found: dict[str, float], expected: dict[str, float], tolerance: float = 1e-11) -> None:
    for name in ALIKE:
        assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("classes", [2, 7, 101])
def test_batches_give_the_scores_of_all_rows(classes: int) -> None:
    z, y = problem(501, classes)
    found = streamed(zip(z.split(97), y.split(97), strict=True))
    log_p = z.log_softmax(1)
    close(found, scores(log_p, y, z.argmax(1)))
    p = log_p.exp().numpy()
    every = list(range(classes))
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)), rel=1e-12)
    assert found["nll"] == pytest.approx(log_loss(y, p, labels=every), rel=1e-9)
    brier = brier_score_loss(y, p, labels=every, scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, rel=1e-9)
    assert found["entropy"] == pytest.approx(entropy(p, axis=1).mean(), rel=1e-11)
    assert found["rows"] == 501


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [7, 1009])
def test_other_dtypes_are_scored_as_in_float64(dtype: torch.dtype, classes: int) -> None:
    """Half types have ties in most rows; 1009 classes go to the compiled kernel where it is installed."""
    z, y = problem(300, classes)
    z = z.to(dtype)
    found = streamed(zip(z.split(64), y.split(64), strict=True))
    wide = z.double()
    expected = scores(wide.log_softmax(1), y, wide.argmax(1))
    assert found["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-12)
    assert found["nll"] == pytest.approx(expected["nll"], rel=1e-6)
    assert found["brier"] == pytest.approx(expected["brier"], rel=1e-6)
    # a confidence beside an edge of the bins may fall on the other side: one row in 300
    assert found["ece"] == pytest.approx(expected["ece"], abs=1 / 300)


def test_the_half_types_above_do_have_ties() -> None:
    z, _ = problem(300, 1009)
    top = z.bfloat16().topk(2, 1).values
    assert (top[:, 0] == top[:, 1]).float().mean() > 0.02


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.randoms())
def test_any_batches_merged_in_any_order_are_one(sizes: list[int], order: Any) -> None:
    z, y = problem(sum(sizes) + 1, 3)
    sizes = [*sizes, 1]
    pieces = []
    for logits, target in zip(z.split(sizes), y.split(sizes), strict=True):
        pieces.append(StreamingScores(bins=5))
        pieces[-1].update(logits, target)
    order.shuffle(pieces)
    whole = pieces[0]
    for piece in pieces[1:]:
        whole.merge(piece)
    log_p = z.log_softmax(1)
    expected = scores(log_p, y, z.argmax(1)) | {"ece": reliability(log_p, y, bins=5).error}
    close(whole.compute(), expected)
    count = reliability(log_p, y, bins=5).count
    assert (whole.reliability().count == count).all()


def test_dense_logits_and_ignored_rows() -> None:
    z, y = problem(2 * 5 * 3, 4)
    y[::4] = 255
    z[4] = math.nan  # what an ignored row holds counts for nothing
    dense, labels = z.reshape(2, 5, 3, 4).movedim(-1, 1), y.reshape(2, 5, 3)
    found = streamed([(dense[:1], labels[:1]), (dense[1:], labels[1:])], ignore_index=255)
    kept = y != 255
    close(found, scores(z[kept].log_softmax(1), y[kept], z[kept].argmax(1)))
    assert found["rows"] == kept.sum()


def test_a_constant_classifier_is_right_as_often_as_its_first_class() -> None:
    """Every class is tied: to count ties as right would make it perfect."""
    y = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = streamed([(torch.full((8, 3), 2.5, dtype=dtype), y)])
        assert found["accuracy"] == 3 / 8
        assert found["entropy"] == pytest.approx(math.log(3))
        assert found["ece"] == pytest.approx(3 / 8 - 1 / 3)
    dense = torch.zeros(2, 3, 2, 2)
    dense[:, 0] = -1  # the second of two tied classes
    assert streamed([(dense, y.reshape(2, 2, 2))])["accuracy"] == 2 / 8


@pytest.mark.parametrize("classes", [3, 20_000])  # eager, and the compiled kernel
def test_a_logit_just_below_the_largest_is_not_it(classes: int) -> None:
    """e^u rounds to 1: that alone would make both labels right."""
    for dtype in (torch.float64, torch.float32):
        z = torch.full((2, classes), -9.0, dtype=dtype)
        z[:, 1], z[:, 2] = 1 / 8, (1 + torch.finfo(dtype).eps) / 8
        assert streamed([(z, torch.tensor([1, 2]))])["accuracy"] == 1 / 2


def test_a_confidence_at_an_edge_is_in_the_bin_below() -> None:
    z = torch.tensor([[0.0, 0.0], [0.0, -math.inf], [0.0, 0.0]], dtype=torch.float64)  # ½, 1, ½
    found = StreamingScores(bins=4)
    found.update(z, torch.tensor([0, 0, 1]))
    assert found.reliability().count.tolist() == [0, 2, 0, 1]
    assert found.reliability().confidence.tolist() == [0, 0.5, 0, 1]
    assert found.reliability().accuracy.tolist() == [0, 0.5, 0, 1]


def test_masked_classes() -> None:
    z, y = problem(40, 5)
    z[y != 3, 3] = -math.inf
    z[:7, 0], y[:7] = -math.inf, 1
    close(streamed([(z, y)]), scores(z.log_softmax(1), y, z.argmax(1)))
    z[5, 1] = -math.inf
    found, expected = streamed([(z, y)]), scores(z.log_softmax(1), y, z.argmax(1))
    assert found["nll"] == math.inf == expected["nll"]
    for name in ("accuracy", "brier", "ece"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
    with pytest.raises(ValueError, match=r"row of logits\[2\] is masked"):
        streamed([(torch.full((3, 2), 0.0).index_fill(0, torch.tensor(2), -math.inf), y[:3] * 0)])


@pytest.mark.parametrize("loss", ["logit_adjusted(prior=[0.7, 0.2, 0.1])", "rescaled_square", "logit_norm"])
def test_what_any_loss_implies_can_be_scored(loss: str) -> None:
    term = il.parse(loss)
    z, y = problem(200, 3)
    log_p, decision = term.log_probabilities(z), term.decision(z)
    found = StreamingScores()
    for start in range(0, 200, 64):
        rows = slice(start, start + 64)
        found.update(log_p[rows], y[rows], decision=decision[rows])
    close(found.compute(), scores(log_p, y, decision))
    if loss.startswith("logit_adjusted"):
        assert (log_p.argmax(1) != decision).any()


def test_the_state_does_not_grow() -> None:
    found = StreamingScores(bins=10)

    def size() -> int:
        return sum(value.numel() for value in vars(found).values() if isinstance(value, Tensor))

    before = size()
    for seed in range(3):
        found.update(*problem(50, 30, seed))
    assert size() == before == 5 + 3 * 10


def test_no_gradient_is_kept() -> None:
    z, y = problem(10, 3)
    found = StreamingScores()
    found.update(z.requires_grad_(), y)
    assert not any(value.requires_grad for value in vars(found).values() if isinstance(value, Tensor))


def test_what_cannot_be_scored_says_so() -> None:
    z, y = problem(4, 3)
    found = StreamingScores()
    with pytest.raises(ValueError, match="no rows to score"):
        found.compute()
    found.update(z[:0], y[:0])
    with pytest.raises(ValueError, match="no rows to score"):
        found.compute()
    with pytest.raises(ValueError, match="class indices"):
        found.update(z, z.softmax(1))
    with pytest.raises(IndexError, match=r"target\[1\] is 3"):
        found.update(z, torch.tensor([0, 3, 0, 0]))
    with pytest.raises(ValueError, match=r"decision.*\(4,\).*\(3,\)"):
        found.update(z, y, decision=y[:3])
    with pytest.raises(ValueError, match="cannot merge 3 bins into 15"):
        found.merge(StreamingScores(bins=3))
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        StreamingScores(bins=0)
    found.update(z.index_fill(0, torch.tensor(1), math.nan), y)
    with pytest.raises(ValueError, match="nan"):
        found.compute()


RANK = """
import sys, torch
from infoloss.evaluation import StreamingScores

rank, place = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
z = torch.arange(606, dtype=torch.float64).sin().reshape(101, 6)
y = torch.arange(101) % 5
mine = slice(0, 37) if rank else slice(37, None)
found = StreamingScores()
found.update(z[mine], y[mine])
before = found.compute()
print(repr(found.gathered().compute()))
assert found.compute() == before
torch.distributed.destroy_process_group()
"""


def test_ranks_add_up(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("PyTorch was built without torch.distributed")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    answers = [process.communicate(timeout=600) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    z = torch.arange(606, dtype=torch.float64).sin().reshape(101, 6)
    y = torch.arange(101) % 5
    found = eval(answers[0][0])
    close(found, scores(z.log_softmax(1), y, z.argmax(1)))
    assert found["rows"] == 101
