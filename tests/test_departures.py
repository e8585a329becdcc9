"""Both sides of every departure from torch.nn.functional.cross_entropy that docs/departures.md lists."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il

PAGE = Path(__file__).parent.parent / "docs" / "departures.md"
Z = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, -2.0, 0.3]], dtype=torch.float64)
Y = torch.tensor([0, 2, 2, 1])
ONE_HOT = F.one_hot(Y, 3).double()
W = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
CE = il.cross_entropy()


def masked(z: Tensor, row: Any, column: int) -> Tensor:
    z = z.clone()
    z[row, column] = -math.inf
    return z


def slope(loss: Any, z: Tensor, target: Tensor, **options: Any) -> Tensor:
    z = z.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(z, target, **options), z)
    return result


def test_the_page_and_this_file_name_the_same_tests() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    here = {name for name in globals() if name.startswith("test_")}
    # these two say where there is no departure
    agreements = {"test_index_targets_agree", "test_gradients_of_probability_targets_agree"}
    assert named == here - agreements - {"test_the_page_and_this_file_name_the_same_tests"}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, W])
def test_index_targets_agree(reduction: str, smoothing: float, weight: Tensor | None) -> None:
    y = Y.clone()
    y[1] = -100
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing, "weight": weight}
    torch.testing.assert_close(CE(Z, y, **options), F.cross_entropy(Z, y, **options))
    dense, labels = Z.t().reshape(1, 3, 2, 2), y.reshape(1, 2, 2)
    torch.testing.assert_close(CE(dense, labels, **options), F.cross_entropy(dense, labels, **options))


def test_gradients_of_probability_targets_agree() -> None:
    """A target that is computed (distillation) gets PyTorch's gradient."""
    teacher = Z.flip(0).clone().requires_grad_()
    ours, theirs = (
        torch.autograd.grad(loss(Z, teacher.softmax(1)), teacher)[0] for loss in (CE, F.cross_entropy)
    )
    torch.testing.assert_close(ours, theirs)
    assert theirs.abs().max() > 0.01


def test_weighted_mean_of_probabilities() -> None:
    by_index = F.cross_entropy(Z, Y, weight=W)
    total = F.cross_entropy(Z, Y, weight=W, reduction="sum")
    torch.testing.assert_close(F.cross_entropy(Z, ONE_HOT, weight=W), total / 4)
    torch.testing.assert_close(by_index, total / (1 + 4 + 4 + 2))
    torch.testing.assert_close(CE(Z, Y, weight=W), by_index)
    torch.testing.assert_close(CE(Z, ONE_HOT, weight=W), by_index)


def test_mean_of_unnormalised_targets() -> None:
    mass = torch.tensor([2.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    rows = F.cross_entropy(Z, Y, reduction="none")
    torch.testing.assert_close(F.cross_entropy(Z, mass[:, None] * ONE_HOT), (mass * rows).sum() / 4)
    torch.testing.assert_close(CE(Z, mass[:, None] * ONE_HOT), (mass * rows).sum() / 5)


def test_every_row_ignored() -> None:
    ignored = torch.full((4,), -100)
    for z, y, options in (
        (Z, ignored, {}),
        (Z[:0], Y[:0], {}),
        (Z, Y, {"weight": torch.zeros(3, dtype=torch.float64)}),
    ):
        assert F.cross_entropy(z, y, **options).isnan()
        assert CE(z, y, **options) == 0
        assert (slope(CE, z, y, **options) == 0).all()


def test_ignore_index_with_probabilities() -> None:
    with pytest.raises(RuntimeError, match="ignore_index is not supported"):
        F.cross_entropy(Z, ONE_HOT, ignore_index=2)
    torch.testing.assert_close(CE(Z, ONE_HOT, ignore_index=2), F.cross_entropy(Z, Y, ignore_index=2))


def test_nan_in_an_ignored_row() -> None:
    z, y = Z.clone(), Y.clone()
    z[1], y[1] = math.nan, -100
    assert F.cross_entropy(z, y) == CE(z, y)
    assert slope(F.cross_entropy, z, y)[1].isnan().all()
    assert slope(CE, z, y)[1].tolist() == [0, 0, 0]


def test_smoothing_beside_a_mask() -> None:
    z = masked(Z, 0, 1)
    assert F.cross_entropy(z, Y, label_smoothing=0.1) == math.inf
    rows = CE(z, Y, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(rows[0], F.cross_entropy(z[0, [0, 2]], Y[0], label_smoothing=0.1))
    torch.testing.assert_close(rows[1:], F.cross_entropy(Z[1:], Y[1:], label_smoothing=0.1, reduction="none"))


def test_one_hot_beside_a_mask() -> None:
    z = masked(Z, 0, 1)
    assert F.cross_entropy(z, ONE_HOT).isnan()
    torch.testing.assert_close(CE(z, ONE_HOT), F.cross_entropy(z, Y))
    torch.testing.assert_close(slope(CE, z, ONE_HOT), slope(F.cross_entropy, z, Y))
    label = masked(Z, 0, 0)
    assert F.cross_entropy(label, Y) == CE(label, Y) == CE(label, ONE_HOT) == math.inf


def test_weight_zero_beside_a_masked_label() -> None:
    z, w = masked(Z, 3, 1), torch.tensor([1.0, 0.0, 4.0], dtype=torch.float64)
    assert F.cross_entropy(z, Y, weight=w).isnan()
    torch.testing.assert_close(CE(z, Y, weight=w), F.cross_entropy(Z[:3], Y[:3], weight=w))


def test_a_fully_masked_row() -> None:
    z = masked(Z, 2, slice(None))  # type: ignore[arg-type]
    assert F.cross_entropy(z, Y).isnan()
    with pytest.raises(ValueError, match=r"row.*2.*masked"):
        CE(z, Y)
    compiled = torch.compile(lambda logits, target: CE(logits, target), fullgraph=True, backend="aot_eager")
    assert compiled(z, Y).isnan()
    assert torch.func.vmap(CE)(z, Y).isnan().tolist() == [False, False, True, False]
    torch._dynamo.reset()


def test_half_precision_returns_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        z = Z.to(dtype)
        assert F.cross_entropy(z, Y).dtype == dtype
        assert CE(z, Y).dtype == torch.float32
        assert slope(CE, z, Y).dtype == slope(F.cross_entropy, z, Y).dtype == dtype
        exact = F.cross_entropy(z.double(), Y)
        assert (CE(z, Y) - exact).abs() < 1e-6 < (F.cross_entropy(z, Y) - exact).abs()


def test_small_integer_labels() -> None:
    for dtype in (torch.int8, torch.int16, torch.int32):
        with pytest.raises(RuntimeError, match="Long"):
            F.cross_entropy(Z, Y.to(dtype))
        assert CE(Z, Y.to(dtype)) == CE(Z, Y)
    for loss, error in ((F.cross_entropy, RuntimeError), (CE, TypeError)):
        with pytest.raises(error):
            loss(Z[:, :2], torch.tensor([True, False, True, False]))


def test_a_label_out_of_range() -> None:
    y = torch.tensor([0, 1, 7, 0])
    with pytest.raises(IndexError) as theirs:
        F.cross_entropy(Z, y)
    with pytest.raises(IndexError) as ours:
        CE(Z, y)
    assert "7" in str(theirs.value)
    assert re.search(r"\[2\].*7.*< 3", str(ours.value))


def test_sample_weights_are_in_the_rows() -> None:
    s = torch.tensor([0.5, 1.0, 0.0, 3.0], dtype=torch.float64)
    with pytest.raises(TypeError, match="sample_weight"):
        F.cross_entropy(Z, Y, sample_weight=s)  # type: ignore[call-arg]
    rows = CE(Z, Y, weight=W, sample_weight=s, reduction="none")
    torch.testing.assert_close(rows, s * F.cross_entropy(Z, Y, weight=W, reduction="none"))
    torch.testing.assert_close(rows.sum(), CE(Z, Y, weight=W, sample_weight=s, reduction="sum"))
    torch.testing.assert_close(rows.sum() / (s * W[Y]).sum(), CE(Z, Y, weight=W, sample_weight=s))


def test_options_are_keywords() -> None:
    assert F.cross_entropy(Z, Y, W) == CE(Z, Y, weight=W)
    with pytest.raises(TypeError, match="positional"):
        CE(Z, Y, W)
    with pytest.raises(TypeError, match="size_average"):
        CE(Z, Y, size_average=False)
