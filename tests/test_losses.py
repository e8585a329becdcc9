"""Every loss of the catalogue against its oracle: values, derivatives of every kind, layouts, dtypes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import CASES, FIRST, LOSSES, SOFT, Case
from torch import Tensor

import infoloss as il

# PyTorch itself calls torch.jit.script when forward mode first differentiates log_softmax
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

N, C = 7, 5  # primes: nothing divides anything


def by_name(case: Case) -> str:
    return str(case)


def double(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def close(ours: Tensor, oracle: Any, rtol: float = 1e-11, atol: float = 1e-12) -> None:
    torch.testing.assert_close(ours.detach(), double(np.real(oracle)), rtol=rtol, atol=atol)


def gradient(term: Any, logits: Any, target: Any, **options: Any) -> Tensor:
    z = (logits.detach() if isinstance(logits, Tensor) else double(logits)).clone().requires_grad_()
    (result,) = torch.autograd.grad(term(z, target, **options), z)
    return result


# The catalogue


def test_every_entry_has_a_record_and_every_record_an_entry() -> None:
    assert {case.name for case in CASES} == set(il.catalogue)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_the_catalogue_declares_what_the_record_says(case: Case) -> None:
    entry = il.catalogue[case.name]
    assert entry.name == case.name
    assert entry.kind == case.kind
    assert case.term(C).has_loss == (case.kind == "loss")
    assert case.term(C).entries == (case.name,)
    assert tuple(entry.binds) == ((case.per_class,) if case.per_class else ())
    if case.kind == "loss":
        assert entry.soft == case.soft
        assert entry.bibtex.lstrip().startswith("@")
        assert entry.bibtex_key in entry.bibtex


@pytest.mark.parametrize("name", [case.name for case in FIRST])
def test_each_entry_is_documented(name: str) -> None:
    entry = il.catalogue[name]
    assert entry.summary
    assert entry.formula
    assert ">>>" in (getattr(il, name).__doc__ or "")


# Values


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("p", [0.05, 0.19, 0.21, 0.999])  # on both sides of the switch at .2
def test_values_in_closed_form(p: float, classes: int) -> None:
    problem = problems.TwoLevel(p, classes, label=1)
    z, y = double(problem.logits[None]), torch.tensor([1])
    for name, expected in problem.losses().items():
        term = getattr(il, name)()
        torch.testing.assert_close(
            term(z, y), double(expected), rtol=1e-12, atol=1e-13, msg=lambda m, name=name: f"{name}: {m}"
        )
        close(double(np.real(getattr(oracles, name)(problem.logits, 1))), expected)  # the oracles themselves


@pytest.mark.parametrize("problem", [problems.TwoLevel(0.7, 4, label=2), problems.Geometric(1.7, 6)])
def test_statistics_in_closed_form(problem: Any) -> None:
    expected = problem.statistics()
    ours = il.row_statistics(
        double(problem.logits[None]), torch.tensor([getattr(problem, "label", 0)]), needs=tuple(expected)
    )
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], double([value]), rtol=1e-13, atol=1e-14)
    for name in set(expected) - {"classes", "target_logit"}:
        close(double(getattr(oracles, name)(problem.logits)), expected[name])


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_value_of_labels(case: Case) -> None:
    z, y = problems.rows(0, N, C), problems.labels(0, N, C)
    ours = case.term(C)(double(z), torch.tensor(y), reduction="none")
    close(ours, [case.row(row, int(label)) for row, label in zip(z, y, strict=True)])


@pytest.mark.parametrize("case", [c for c in CASES if c.soft != "none"], ids=by_name)
def test_value_of_probabilities(case: Case) -> None:
    z, t = problems.rows(1, N, C), problems.distributions(1, N, C)
    t[0] = [0, 0.5, 0.5, 0, 0]  # 0·ln 0 = 0
    ours = case.term(C)(double(z), double(t), reduction="none")
    close(ours, [case.row(row, target) for row, target in zip(z, t, strict=True)])


@pytest.mark.parametrize(("classes", "k", "M"), [(42, 1, 1), (43, 1, 15), (999, 1, 15), (1000, 15, 30)])
def test_rescaled_square_chooses_by_class_count(classes: int, k: float, M: float) -> None:
    z, y = double(problems.rows(2, 2, classes)), torch.tensor([0, classes - 1])
    torch.testing.assert_close(il.rescaled_square()(z, y), il.rescaled_square(k=k, M=M)(z, y))
    close(il.rescaled_square()(z, y), oracles.reduction(oracles.rescaled_square, z.numpy(), y.numpy()))
    by_count, given = il.rescaled_square(), il.rescaled_square(k=k, M=M)
    torch.testing.assert_close(by_count.probabilities(5 * z), given.probabilities(5 * z))
    # a masked class more is no class more
    wider = F.pad(5 * z, (0, 1), value=-math.inf)
    torch.testing.assert_close(by_count(wider, y), given(5 * z, y))
    torch.testing.assert_close(by_count.probabilities(wider)[:, :-1], given.probabilities(5 * z))


# First derivatives


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_gradient_of_labels(case: Case) -> None:
    z, y = problems.rows(3, N, C), problems.labels(3, N, C)
    expected = oracles.gradient(lambda moved: case.reduction(moved, y), z)
    close(gradient(case.term(C), z, torch.tensor(y)), expected)


@pytest.mark.parametrize("case", SOFT, ids=by_name)
def test_gradient_of_probabilities(case: Case) -> None:
    z, t = problems.rows(4, 3, C), problems.distributions(4, 3, C)
    expected = oracles.gradient(lambda moved: case.reduction(moved, t), z)
    close(gradient(case.term(C), z, double(t)), expected)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_jvp(case: Case) -> None:
    z, y = problems.rows(5, N, C), problems.labels(5, N, C)
    direction = problems.rows(6, N, C)
    term, target = case.term(C), torch.tensor(y)
    value, tangent = torch.func.jvp(lambda moved: term(moved, target), (double(z),), (double(direction),))
    close(value, case.reduction(z, y))
    step = 1e-30
    close(tangent, np.imag(case.reduction(z + 1j * step * direction, y)) / step)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_vmap_of_grad_is_a_loop(case: Case) -> None:
    z, y, term = double(problems.rows(7, N, C)), torch.tensor(problems.labels(7, N, C)), case.term(C)
    batched = torch.func.vmap(torch.func.grad(lambda row, label: term(row, label)))(z, y)
    looped = torch.stack([gradient(term, row, label) for row, label in zip(z, y, strict=True)])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-13)


def test_vmap_over_batches_and_models() -> None:
    z, y = (
        double(problems.rows(8, 6, C)).reshape(3, 2, C),
        torch.tensor(problems.labels(8, 6, C)).reshape(3, 2),
    )
    for case in FIRST:
        term = case.term(C)
        batched = torch.func.vmap(lambda rows, labels, term=term: term(rows, labels))(z, y)
        torch.testing.assert_close(batched, torch.stack([term(*pair) for pair in zip(z, y, strict=True)]))


# Higher derivatives


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_gradcheck_and_gradgradcheck(case: Case) -> None:
    z, y, term = double(problems.rows(9, 2, 4)).requires_grad_(), torch.tensor([3, 1]), case.term(4)
    assert torch.autograd.gradcheck(lambda moved: term(moved, y), z, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda moved: term(moved, y), z)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_hessian_in_both_modes(case: Case) -> None:
    z, y, term = problems.rows(10, 1, 4), np.array([2]), case.term(4)

    def loss(moved: Tensor) -> Tensor:
        return term(moved, torch.tensor(y))

    step = 1e-5
    expected = np.zeros((4, 4))
    for j in range(4):
        moved = np.zeros((1, 4))
        moved[0, j] = step
        up, down = (
            oracles.gradient(lambda at: case.reduction(at, y), z + sign * moved)[0] for sign in (1, -1)
        )
        expected[j] = (up - down) / (2 * step)
    for hessian in (
        torch.func.hessian(loss)(double(z)),
        torch.func.jacfwd(torch.func.jacfwd(loss))(double(z)),
        torch.func.jacrev(torch.func.jacrev(loss))(double(z)),
    ):
        close(hessian.reshape(4, 4), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["cross_entropy", "min_ent", "squentropy", "brier"])
def test_third_derivatives_agree_in_both_modes(name: str) -> None:
    z, y, term = double(problems.rows(11, 1, 3)), torch.tensor([1]), getattr(il, name)()

    def loss(moved: Tensor) -> Tensor:
        return term(moved, y)

    forward = torch.func.jacfwd(torch.func.jacfwd(torch.func.jacfwd(loss)))(z)
    reverse = torch.func.jacrev(torch.func.jacrev(torch.func.jacrev(loss)))(z)
    torch.testing.assert_close(forward, reverse, rtol=1e-11, atol=1e-12)
    assert forward.abs().max() > 1e-3


# Masked classes


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_a_masked_class_is_a_dropped_class(case: Case) -> None:
    z, y = problems.rows(12, N, C), problems.labels(12, N, C)
    for i, label in enumerate(y):  # row i loses i % 4 classes, never its label
        z[i, [(label + 1 + j) % C for j in range(i % (C - 1))]] = -math.inf
    term, target = case.term(C), torch.tensor(y)
    close(term(double(z), target), case.reduction(z, y))
    ours = gradient(term, z, target)
    close(ours, oracles.gradient(lambda moved: case.reduction(moved, y), z))
    assert (ours[double(z) == -math.inf] == 0).all()


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_higher_derivatives_beside_a_mask(case: Case) -> None:
    z = problems.rows(13, 2, 4)
    y, term = torch.tensor([3, 1]), case.term(4)
    z[0, 0] = z[1, 2] = -math.inf
    free = double(z[np.isfinite(z)]).requires_grad_()
    place = torch.tensor(np.isfinite(z))

    def loss(values: Tensor) -> Tensor:
        logits = torch.full((2, 4), -math.inf, dtype=torch.float64).masked_scatter(place, values)
        return term(logits, y)

    assert torch.autograd.gradcheck(loss, free)
    assert torch.autograd.gradgradcheck(loss, free)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_one_class_left(case: Case) -> None:
    """All but the label masked: the row decides nothing."""
    z = np.full((1, C), -math.inf)
    z[0, 2] = 1.3
    y, term = torch.tensor([2]), case.term(C)
    if case.name in ("squentropy", "normalized_cross_entropy"):  # their formulas divide by C − 1 and by L − L
        return
    close(term(double(z), y), case.reduction(z, [2]))
    close(gradient(term, z, y), oracles.gradient(lambda moved: case.reduction(moved, [2]), z))


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_transforms_beside_a_mask(case: Case) -> None:
    """Where values cannot be looked at, masks are found all the same."""
    z, y, term = problems.rows(32, 3, C), torch.tensor([0, 1, 4]), case.term(C)
    z[0, 1] = z[0, 3] = z[2, 0] = -math.inf
    logits = double(z)
    batched = torch.func.vmap(torch.func.grad(lambda row, label: term(row, label)))(logits, y)
    torch.testing.assert_close(batched, 3 * gradient(term, logits, y), rtol=1e-12, atol=1e-13)
    direction = double(problems.rows(33, 3, C))
    _, tangent = torch.func.jvp(lambda moved: term(moved, y), (logits,), (direction,))
    torch.testing.assert_close(tangent, (gradient(term, logits, y) * direction).sum(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", LOSSES, ids=by_name)
def test_a_masked_class_has_probability_zero(case: Case) -> None:
    z, term = double(problems.rows(34, N, C)), case.term(C)
    z[:, 1] = -math.inf
    q = term.probabilities(z)
    assert (q[:, 1] == 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(N, dtype=torch.float64))
    assert (term.log_probabilities(z)[:, 1] == -math.inf).all()
    assert (term.decision(z) != 1).all()


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_nan_is_not_hidden(case: Case) -> None:
    """A diverged model must show: a row that counts and holds nan gives nan, not inf, 0 or a masked class."""
    z, y = problems.rows(35, N, C), torch.tensor(problems.labels(35, N, C))
    z[2, (int(y[2]) + 1) % C] = math.nan
    values = case.term(C)(double(z), y, reduction="none")
    assert values.isnan().tolist() == [i == 2 for i in range(N)]
    assert case.term(C)(double(z), y).isnan()


def test_a_tied_maximum_belongs_to_the_lowest_class() -> None:
    z = double([[1.0, 4.0, 4.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
    slope = gradient(il.max_suppression(alpha=1.0), z, torch.tensor([3, 3]), reduction="sum")
    torch.testing.assert_close(slope, double([[0, 1, 0, 0], [1, 0, 0, 0]]) - 0.25)
    assert il.cross_entropy().decision(z).tolist() == [1, 0]


# Extreme logits


@pytest.mark.parametrize("case", CASES, ids=by_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [200.0, 1e4])
def test_saturated_rows_stay_finite(case: Case, dtype: torch.dtype, gap: float) -> None:
    z = torch.tensor([[gap, -gap, 0.0, 0.0, -gap], [0.0] * 5, [-gap, gap, gap, 0.0, 0.0]], dtype=dtype)
    for y in (torch.tensor([0, 1, 0]), torch.tensor([1, 4, 3]), torch.tensor([3, 2, 1])):
        assert case.term(C)(z, y).isfinite()
        assert gradient(case.term(C), z, y).isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_certain_row_has_no_gradient_and_no_nan(gamma: float) -> None:
    z = double([[200.0, -200.0, 0.0]])
    assert il.focal(gamma=gamma)(z, torch.tensor([0])).abs() < 1e-80
    assert gradient(il.focal(gamma=gamma), z, torch.tensor([0])).abs().max() < 1e-80


OFFSETS = [0.0, 1e4, -1e4]


def budget(torch_s: Tensor, exact: Tensor, ours_exact: Tensor) -> Tensor:
    """3·|torch − fp64| of cross entropy on the same batch, and 4 ulp of the largest value."""
    ulp = torch.finfo(torch.float32).eps * ours_exact.abs().max().clamp(min=1e-30)
    return 3 * (torch_s.double() - exact).abs().max() + 4 * ulp


def confident_rows(seed: int, offset: float) -> tuple[Tensor, Tensor]:
    """float32 rows, some nearly uniform, some whose label leads by 15."""
    z, y = problems.rows(seed, 12, C), problems.labels(seed, 12, C)
    z[np.arange(6), y[:6]] += 15
    return torch.tensor(z + offset, dtype=torch.float32), torch.tensor(y)


@pytest.mark.parametrize("case", CASES, ids=by_name)
@pytest.mark.parametrize("offset", OFFSETS)
def test_float32_error_of_values(case: Case, offset: float) -> None:
    z, y = confident_rows(14, offset)
    ours = case.term(C)(z, y, reduction="none")
    assert ours.dtype == torch.float32
    exact = double(
        [np.real(case.row(row, int(label))) for row, label in zip(z.double().numpy(), y, strict=True)]
    )
    theirs = F.cross_entropy(z, y, reduction="none")
    allowed = budget(theirs, F.cross_entropy(z.double(), y, reduction="none"), exact)
    assert (ours.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("case", CASES, ids=by_name)
@pytest.mark.parametrize("offset", OFFSETS)
def test_float32_error_of_gradients(case: Case, offset: float) -> None:
    z, y = confident_rows(15, offset)
    ours = gradient(case.term(C), z, y, reduction="sum")
    assert ours.dtype == torch.float32
    exact = double(
        oracles.gradient(lambda at: case.reduction(at, y.numpy(), reduction="sum"), z.double().numpy())
    )
    theirs = gradient(lambda *a, **k: F.cross_entropy(*a, **k), z, y, reduction="sum")
    theirs_exact = gradient(lambda *a, **k: F.cross_entropy(*a, **k), z.double(), y, reduction="sum")
    assert (ours.double() - exact).abs().max() <= budget(theirs, theirs_exact, exact)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_float32_error_over_a_vocabulary(case: Case) -> None:
    """Sums over many classes keep their digits; float64, which the oracles have checked, is the reference."""
    classes = 30_011  # prime
    z, y = torch.tensor(problems.rows(37, 3, classes)).float(), torch.tensor([0, 12_345, classes - 1])
    z[0, 0] += 20
    term = case.term(classes)
    ours, exact = (term(logits, y, reduction="none") for logits in (z, z.double()))
    theirs, theirs_exact = (F.cross_entropy(logits, y, reduction="none") for logits in (z, z.double()))
    assert (ours.double() - exact).abs().max() <= budget(theirs, theirs_exact, exact)
    slope, exact = (gradient(term, logits, y, reduction="sum") for logits in (z, z.double()))
    theirs, theirs_exact = (
        gradient(F.cross_entropy, logits, y, reduction="sum") for logits in (z, z.double())
    )
    assert (slope.double() - exact).abs().max() <= budget(theirs, theirs_exact, exact)


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_confident_row_s_gradient_keeps_its_digits(offset: float) -> None:
    """Every entry within three times PyTorch's own relative error: uncentred logits lose a fifth."""
    z, y = confident_rows(16, offset)
    z, y = z[:6], y[:6]
    exact = gradient(F.cross_entropy, z.double(), y, reduction="sum")
    error, torch_error = (
        ((gradient(f, z, y, reduction="sum") - exact) / exact).abs().max()
        for f in (il.cross_entropy(), F.cross_entropy)
    )
    assert error <= 3 * torch_error + 4 * torch.finfo(torch.float32).eps


# Laws


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_shift_invariance(case: Case) -> None:
    z, y = double(problems.rows(17, N, C)), torch.tensor(problems.labels(17, N, C))
    here, there = (case.term(C)(moved, y, reduction="none") for moved in (z, z + 3))
    if case.shift_invariant:
        torch.testing.assert_close(here, there, rtol=1e-11, atol=1e-12)
        flat = gradient(case.term(C), z, y).sum(1)
        torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-13)
    else:
        assert ((here - there).abs() > 1e-6).all()


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_lower_bound(case: Case) -> None:
    z, y = double(problems.rows(18, 200, C, spread=5.0)), torch.tensor(problems.labels(18, 200, C))
    assert (case.term(C)(z, y, reduction="none") >= case.lower - 1e-15).all()


@pytest.mark.parametrize("case", [c for c in CASES if c.vanishes], ids=by_name)
def test_a_right_and_certain_row_costs_nothing(case: Case) -> None:
    z, y = torch.zeros(C, C, dtype=torch.float64), torch.arange(C)
    certain = z + 100 * torch.eye(C)
    assert case.term(C)(certain, y, reduction="none").abs().max() < 1e-12


@pytest.mark.parametrize("case", [c for c in CASES if c.per_class is None], ids=by_name)
def test_names_of_classes_do_not_matter(case: Case) -> None:
    z, y = double(problems.rows(19, N, C)), torch.tensor(problems.labels(19, N, C))
    order = torch.tensor([2, 0, 4, 1, 3])
    renamed = case.term(C)(z[:, order], order.argsort()[y])
    torch.testing.assert_close(renamed, case.term(C)(z, y), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("case", [c for c in CASES if c.minimiser], ids=by_name)
def test_the_minimiser_recovers_the_posterior(case: Case) -> None:
    assert case.minimiser is not None
    posterior = problems.distributions(20, 1, C)[0]
    best, term = double(case.minimiser(posterior))[None].requires_grad_(), case.term(C)
    expected_loss = sum(p * term(best, torch.tensor([c])) for c, p in enumerate(posterior))
    (flat,) = torch.autograd.grad(expected_loss, best)
    assert flat.abs().max() < 1e-12
    torch.testing.assert_close(term.probabilities(best)[0], double(posterior), rtol=1e-9, atol=1e-12)
    nearby = best + 1e-3 * double(problems.rows(21, 20, C, spread=1.0))
    losses = sum(p * term(nearby, torch.full((20,), c), reduction="none") for c, p in enumerate(posterior))
    assert (losses >= expected_loss - 1e-15).all()


@pytest.mark.parametrize("case", LOSSES, ids=by_name)
def test_probabilities_and_decision(case: Case) -> None:
    z, term = double(problems.rows(22, N, C)), case.term(C)
    q, log_q = term.probabilities(z), term.log_probabilities(z)
    assert q.dtype == log_q.dtype == torch.float64
    torch.testing.assert_close(q.sum(1), torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(q, log_q.exp())
    assert torch.equal(term.decision(z), z.argmax(1))
    if case.name in ("balanced_softmax", "pc_softmax", "logit_adjusted"):
        tau = case.arguments.get("tau", 1.0)
        logits = z + tau * double(problems.prior(C)).log()
    elif case.name == "logit_norm":
        logits = z / (case.arguments.get("tau", 0.04) * z.norm(dim=1, keepdim=True))
    elif case.name == "rescaled_square":
        k, M = case.arguments.get("k", 1.0), case.arguments.get("M", 1.0)
        odds = torch.where(z >= k * M / (k - 1), 1.0, z / (k * M - (k - 1) * z)) if k != 1 else z / M
        logits = odds.clamp(1e-6, 1).log()
    else:
        logits = z
    torch.testing.assert_close(q, logits.softmax(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", LOSSES, ids=by_name)
def test_probabilities_of_dense_and_unbatched_logits(case: Case) -> None:
    rows, term = double(problems.rows(23, 6, C)), case.term(C)
    flat = term.probabilities(rows)
    dense = rows.reshape(2, 3, C).movedim(-1, 1)
    torch.testing.assert_close(term.probabilities(dense).movedim(1, -1).reshape(6, C), flat)
    torch.testing.assert_close(term.probabilities(rows[0]), flat[0])
    assert torch.equal(term.decision(dense).reshape(6), rows.argmax(1))
    assert term.decision(rows[0]) == rows[0].argmax()


# Layouts and dtypes


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_dense_logits(case: Case) -> None:
    """(N, C, d1, d2) equals its rows, in value and gradient; the sizes differ, so a mixed-up axis shows."""
    rows, y = double(problems.rows(24, 2 * 3 * 4, C)), torch.tensor(problems.labels(24, 2 * 3 * 4, C))
    y[5] = -100
    dense = rows.reshape(2, 3, 4, C).movedim(-1, 1)
    term, target = case.term(C), y.reshape(2, 3, 4)
    values = term(dense, target, reduction="none")
    torch.testing.assert_close(values, term(rows, y, reduction="none").reshape(2, 3, 4), rtol=0, atol=0)
    ours = gradient(term, dense, target).movedim(1, -1).reshape(-1, C)
    torch.testing.assert_close(ours, gradient(term, rows, y), rtol=1e-13, atol=1e-15)
    if case.soft != "none":
        t = double(problems.distributions(24, 24, C))
        torch.testing.assert_close(
            term(dense, t.reshape(2, 3, 4, C).movedim(-1, 1)), term(rows, t), rtol=1e-13, atol=1e-14
        )


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_one_row_without_a_batch_axis(case: Case) -> None:
    z, term = problems.rows(25, 1, C)[0], case.term(C)
    for how in ("mean", "sum", "none"):
        ours = term(double(z), torch.tensor(3), reduction=how)
        assert ours.shape == ()
        close(ours, case.row(z, 3))
    if case.soft != "none":
        t = problems.distributions(25, 1, C)[0]
        close(term(double(z), double(t)), case.row(z, t))


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_an_empty_batch_costs_nothing(case: Case) -> None:
    term = case.term(C)
    for shape in ((0, C), (0, C, 3), (2, C, 0)):
        z = torch.zeros(shape, requires_grad=True)
        y = torch.zeros(shape[:1] + shape[2:], dtype=torch.long)
        value = term(z, y)
        value.backward()
        assert value == 0
        assert z.grad is not None
        assert z.grad.shape == z.shape
        assert term(z, y, reduction="none").shape == y.shape


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_strides_do_not_matter(case: Case) -> None:
    z, y, term = double(problems.rows(26, N, C)), torch.tensor(problems.labels(26, N, C)), case.term(C)
    expected = term(z, y), gradient(term, z, y)
    transposed = z.t().contiguous().t()
    strided = torch.stack([z, torch.full_like(z, torch.nan)], -1)[..., 0]
    every_other = torch.stack([y, y + 99], 1).flatten()[::2]
    for logits, target in ((transposed, y), (strided, every_other), (z.flip(0), y.flip(0))):
        torch.testing.assert_close(term(logits, target), expected[0], rtol=1e-13, atol=1e-14)
    assert not strided.is_contiguous()
    torch.testing.assert_close(gradient(term, transposed, y), expected[1], rtol=1e-13, atol=1e-14)
    one_row = double(problems.rows(26, 1, C)).expand(N, C)
    torch.testing.assert_close(term(one_row, y), term(one_row.clone(), y), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=by_name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    z, y = torch.tensor(problems.rows(27, N, C)).to(dtype), torch.tensor(problems.labels(27, N, C))
    ours, widened = case.term(C)(z, y), case.term(C)(z.float(), y)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, widened)
    slope = gradient(case.term(C), z, y)
    assert slope.dtype == dtype
    assert torch.equal(slope, gradient(case.term(C), z.float(), y).to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    z, y = double(problems.rows(28, N, C)), torch.tensor(problems.labels(28, N, C))
    assert il.min_ent()(z, y.to(dtype)) == il.min_ent()(z, y)


@pytest.mark.parametrize("case", SOFT, ids=by_name)
@pytest.mark.parametrize(
    ("logits", "target"),
    [(torch.float64, torch.float32), (torch.float32, torch.float64), (torch.bfloat16, torch.float32)],
)
def test_probabilities_of_another_dtype(case: Case, logits: torch.dtype, target: torch.dtype) -> None:
    z, t = double(problems.rows(36, N, C)).to(logits), double(problems.distributions(36, N, C)).to(target)
    ours = case.term(C)(z, t)
    assert ours.dtype == (torch.float64 if logits == torch.float64 else torch.float32)
    # a float32 target's rows sum to 1 up to its own rounding
    torch.testing.assert_close(ours.double(), case.term(C)(z.double(), t.double()), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_autocast_changes_nothing(case: Case) -> None:
    z, y = torch.tensor(problems.rows(29, N, C)).float(), torch.tensor(problems.labels(29, N, C))
    expected = case.term(C)(z, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = case.term(C)(z, y)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_inputs_are_left_alone(case: Case) -> None:
    z, y = problems.rows(30, N, C), problems.labels(30, N, C)
    z[0, (y[0] + 1) % C], y[2] = -math.inf, -100
    inputs = [double(z), torch.tensor(y), torch.ones(C), torch.ones(N)]
    if case.soft != "none":
        inputs[1] = double(problems.distributions(30, N, C))
        inputs[1][0] = F.one_hot(torch.tensor(y[0]), C)
    copies = [tensor.clone() for tensor in inputs]
    leaf = inputs[0].requires_grad_()
    options: dict[str, Any] = {"weight": inputs[2], "sample_weight": inputs[3]}
    if case.soft != "none":
        options["label_smoothing"] = 0.1
    case.term(C)(leaf, inputs[1], **options).backward()
    for tensor, copy in zip(inputs, copies, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == 0 or tensor is inputs[1]


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_parts_are_the_terms_of_the_sum(case: Case) -> None:
    """One pass gives the whole, each entry without its coefficient, and the accuracy."""
    z, y = double(problems.rows(31, N, C)), torch.tensor(problems.labels(31, N, C))
    w, s = double(1 + np.arange(C)), double(0.5 + np.arange(N))
    term = case.term(C) + 0.25 * il.parse("logit_sum") ** 2 if case.name == "entropy" else case.term(C)
    whole = term + 0.5 * il.entropy() if case.name != "entropy" else term
    parts = whole.parts(z, y, weight=w, sample_weight=s)
    torch.testing.assert_close(parts.loss, whole(z, y, weight=w, sample_weight=s))
    torch.testing.assert_close(getattr(parts, case.name), case.term(C)(z, y, weight=w, sample_weight=s))
    torch.testing.assert_close(parts.entropy, il.entropy()(z, y, weight=w, sample_weight=s))
    right = (z.argmax(1) == y).double()
    torch.testing.assert_close(parts.accuracy.double(), (right * s).sum() / s.sum())
