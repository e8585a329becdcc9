"""Terms as programs: the interpreter against PyTorch's own operations and derivatives."""

from __future__ import annotations

import pickle

import problems
import pytest
import torch

import infoloss as il
from infoloss.direct import plan
from infoloss.kernels.program import Tape
from infoloss.terms import FUNCTIONS

pytest.importorskip("numba")

CE = "(lse - target_logit)"
EXPRESSIONS = {
    "exp": f"exp(-{CE})",
    "log": f"log({CE} + 2)",
    "expm1": f"expm1(-{CE})",
    "log1p": f"log1p({CE})",
    "sqrt": f"sqrt({CE})",
    "abs": "abs(target_logit)",
    "minimum": "minimum(lse, target_logit + 2)",
    "maximum": "maximum(logit_sum, expected_logit)",
    "step": f"step({CE} - 1) * {CE}",
    "ties": f"minimum({CE}, {CE}) + maximum(lse, lse)",
    "abs at 0": "abs(lse - lse) + lse",
    "powers": f"{CE}**3 + {CE}**0.5 + {CE}**2 + 2**{CE} + {CE}**target_probability",
    "power 0": f"{CE}**0 + {CE}",
    "arithmetic": f"-(1 - {CE}) / (3 + logit_square_sum) - 2 / {CE} * lse",
    "numbers": f"(2 - 3)**2 / 4 * {CE} + log(2) - minimum(1, 2)",
}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_operation(name: str, smoothing: float) -> None:
    term = il.parse(EXPRESSIONS[name])
    if smoothing and term.soft == "none":
        pytest.skip("reads one label only")
    z = torch.tensor(problems.rows(1, 300, 6))  # more rows than an instruction works on at once
    y = torch.tensor(problems.labels(2, 300, 6))
    assert plan.make_plan(term, smoothing > 0) is not None
    found = []
    for kernel in ("cpu", "eager"):
        x = z.clone().requires_grad_()
        with il.kernels.use(kernel):
            values = term(x, y, reduction="none", label_smoothing=smoothing)
            (g,) = torch.autograd.grad((values * torch.linspace(0.5, 1.5, 300).double()).sum(), x)
        found.append((values.detach(), g))
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-12)


def test_every_function_has_an_instruction() -> None:
    assert set(FUNCTIONS) <= set(EXPRESSIONS)


def test_a_value_without_a_derivative_is_what_pytorch_has() -> None:
    """√0 has an infinite derivative, and 0·inf is nan: the same as autograd."""
    z, y = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0, 1, 0])
    found = []
    for kernel in ("cpu", "eager"):
        x = z.clone().requires_grad_()
        with il.kernels.use(kernel):
            il.parse("sqrt(logit_square_sum)")(x, y).backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], equal_nan=True)


def test_equal_instructions_are_one() -> None:
    tape = Tape()
    a = tape.moment(0)
    program = tape.program((a + 1) * (a + 1))
    assert program.instructions.shape[1] == 4  # a, 1, a + 1, their product


def test_a_result_that_is_an_earlier_value_is_the_last_one() -> None:
    tape = Tape()
    a = tape.moment(3)
    _ = a * 2
    program = tape.program(a)
    assert program.instructions[0, -1] != 0
    z, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    with il.kernels.use("cpu"):
        assert float(il.parse("target_logit + 0*lse")(z, y)) == 1


def test_what_no_instruction_does() -> None:
    with pytest.raises(TypeError, match="no instruction for sin"):
        torch.sin(Tape().moment(0))  # type: ignore[arg-type]


def test_a_named_coefficient_is_read_at_each_call() -> None:
    criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.5)
    z, y = torch.randn(8, 5), torch.randint(5, (8,))
    with il.kernels.use("cpu"):
        before = criterion(z, y)
        criterion.beta.fill_(0.0)
        torch.testing.assert_close(criterion(z, y), il.cross_entropy()(z, y))
    assert float(before) != float(criterion(z, y))


def test_what_a_coefficient_was_counts_in_the_backward_pass() -> None:
    criterion = il.Criterion("cross_entropy + beta*entropy", beta=0.5)
    z, y = torch.randn(8, 5, requires_grad=True), torch.randint(5, (8,))
    with il.kernels.use("cpu"):
        value = criterion(z, y)
        (expected,) = torch.autograd.grad(value, z, retain_graph=True)
        criterion.beta.fill_(0.0)
        (again,) = torch.autograd.grad(value, z)
    assert torch.equal(again, expected)


def test_one_plan_for_every_smoothing() -> None:
    term, z, y = il.min_ent(), torch.randn(8, 5), torch.randint(5, (8,))
    for epsilon in (0.1, 0.2, 1.0):
        with il.kernels.use("cpu"):
            found = term(z, y, label_smoothing=epsilon)
        with il.kernels.use("eager"):
            torch.testing.assert_close(found, term(z, y, label_smoothing=epsilon))
    assert list(term.__dict__[plan.PLANS]) == [True]


def test_a_tensor_as_coefficient_goes_the_general_way() -> None:
    """Its value may change, so that it is no constant of a program."""
    beta = torch.tensor(0.5)
    assert plan.make_plan(il.cross_entropy() + beta * il.entropy(), False) is None


def test_plans_are_not_pickled() -> None:
    term = il.cross_entropy() + 0.1 * il.entropy()
    with il.kernels.use("cpu"):
        term(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))
    assert plan.PLANS in term.__dict__
    again = pickle.loads(pickle.dumps(term))
    assert again == term
    assert plan.PLANS not in again.__dict__
