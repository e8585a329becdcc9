"""The loss as a module: coefficients that are scheduled, learnt, saved; and compilation of every loss."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import CASES, FIRST, Case
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import infoloss as il

# PyTorch's own compiler calls torch.jit when it is first imported
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

N, C = 6, 5
Z = torch.tensor(problems.rows(0, N, C))
Y = torch.tensor(problems.labels(0, N, C))
TEXT = "cross_entropy + beta*entropy"


def by_name(case: Case) -> str:
    return str(case)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def weighted(beta: float) -> Tensor:
    return il.parse(TEXT).bind(beta=beta)(Z, Y)  # type: ignore[no-any-return]


def test_a_criterion_computes_its_term() -> None:
    for made in (il.Criterion(TEXT, beta=0.1), il.Criterion(il.parse(TEXT), beta=torch.tensor(0.1))):
        torch.testing.assert_close(made(Z, Y), weighted(0.1), rtol=1e-7, atol=0)
        assert made.term == il.parse(TEXT)


def test_options_reach_the_term() -> None:
    made, y = il.Criterion("min_ent"), Y.clone()
    y[0] = 77
    for options in (
        {"ignore_index": 77},
        {"ignore_index": 77, "reduction": "none"},
        {"ignore_index": 77, "sample_weight": torch.arange(6.0), "denominator": 9.0},
        {"ignore_index": 77, "weight": torch.arange(1.0, 6), "label_smoothing": 0.2, "reduction": "sum"},
    ):
        torch.testing.assert_close(made(Z, y, **options), il.min_ent()(Z, y, **options), rtol=0, atol=0)


def test_a_coefficient_is_a_buffer_to_schedule() -> None:
    made = il.Criterion(TEXT, beta=0.1)
    assert dict(made.named_buffers()).keys() == {"beta"}
    assert list(made.parameters()) == []
    for beta in (0.0, 0.5):
        made.beta.fill_(beta)
        torch.testing.assert_close(made(Z, Y), weighted(beta), rtol=1e-7, atol=0)


def test_a_learnt_coefficient_is_a_parameter_with_a_gradient() -> None:
    made = il.Criterion("alpha*cross_entropy + beta*entropy", alpha=1.0, beta=0.1, learn=("beta",))
    assert dict(made.named_parameters()).keys() == {"beta"}
    assert dict(made.named_buffers()).keys() == {"alpha"}
    made(Z, Y).backward()
    torch.testing.assert_close(made.beta.grad, il.entropy()(Z, Y).float())
    torch.optim.SGD(made.parameters(), lr=0.5).step()
    torch.testing.assert_close(made.beta.detach(), 0.1 - 0.5 * il.entropy()(Z, Y).float())


def test_a_temperature_can_be_learnt() -> None:
    made = il.Criterion("scaled(cross_entropy, s)", s=1.0, learn=("s",))
    made(Z, Y).backward()
    s = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(s * Z, Y).backward()
    torch.testing.assert_close(made.s.grad.double(), s.grad, rtol=1e-6, atol=1e-7)
    made.s.data.fill_(0.5)
    torch.testing.assert_close(made.probabilities(Z), (0.5 * Z).softmax(1))


def test_state_dict_round_trip() -> None:
    made = il.Criterion(TEXT, beta=0.1, learn=("beta",))
    with torch.no_grad():
        made.beta.fill_(0.7)
    assert made.state_dict().keys() == {"beta"}
    other = il.Criterion(TEXT, beta=0.0, learn=("beta",))
    other.load_state_dict(made.state_dict())
    assert other(Z, Y) == made(Z, Y)
    with pytest.raises(RuntimeError, match="gamma"):
        other.load_state_dict({"gamma": torch.tensor(0.0)})


@pytest.mark.parametrize("learn", [(), ("beta",)])
def test_pickle_copy_and_torch_save(learn: tuple[str, ...]) -> None:
    made = il.Criterion("min_ent(w2=0.5) + beta*z_loss", beta=0.3, learn=learn)
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
        torch.load(file, weights_only=False),
    ):
        assert other(Z, Y) == made(Z, Y)
        assert other.term == made.term
        assert repr(other) == repr(made)
        assert other.beta is not made.beta
        assert isinstance(other.beta, nn.Parameter) == bool(learn)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_every_loss_as_a_module(case: Case) -> None:
    vector = {case.per_class: case.vector(C)} if case.per_class else {}
    text = case.name if not case.arguments else str(case.term(C))
    made = il.Criterion(text, **vector)
    assert made.term == case.term(C)
    assert made(Z, Y) == case.term(C)(Z, Y)
    assert torch.equal(made.decision(Z), Z.argmax(1))
    torch.testing.assert_close(made.probabilities(Z), case.term(C).probabilities(Z), rtol=0, atol=0)


def test_repr_shows_term_values_and_what_is_learnt() -> None:
    made = il.Criterion("cross_entropy + beta*entropy + gamma*z_loss", beta=0.25, gamma=2.0, learn=("gamma",))
    text = repr(made)
    assert str(made.term) in text
    assert "beta=0.25" in text
    assert "gamma=2" in text
    assert "learn=('gamma',)" in text
    made.beta.fill_(0.5)
    assert "beta=0.5" in repr(made)


def test_moving_and_casting_keeps_the_coefficients() -> None:
    made = nn.Sequential(il.Criterion(TEXT, beta=0.1)).to(torch.float64)
    assert made[0].beta.dtype == torch.float64
    torch.testing.assert_close(made[0](Z, Y), weighted(float(torch.tensor(0.1))), rtol=1e-12, atol=0)
    if torch.cuda.is_available():
        made = made.cuda()
        torch.testing.assert_close(made[0](Z.cuda(), Y.cuda()).cpu(), weighted(0.1))


def test_parts_of_a_criterion() -> None:
    parts = il.Criterion(TEXT, beta=0.1).parts(Z, Y)
    torch.testing.assert_close(parts.loss, parts.cross_entropy + 0.1 * parts.entropy, rtol=1e-7, atol=0)
    torch.testing.assert_close(parts.accuracy.double(), (Z.argmax(1) == Y).double().mean())


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TEXT, {}, "beta"),
        (TEXT, {"beta": 0.1, "gamma": 1.0}, "gamma.*beta"),
        (TEXT, {"bta": 0.1}, "bta.*beta"),
        (TEXT, {"learn": ("beta",)}, "beta"),
        (TEXT, {"beta": 0.1, "learn": ("alpha",)}, "alpha"),
        ("balanced_softmax", {}, "counts"),
        ("cross_entropy + forward*entropy", {"forward": 0.1}, "forward"),
    ],
)
def test_wrong_coefficients_name_themselves(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        il.Criterion(text, **options)


# Compilation


def both(function: Any, compiled: Any, z: Tensor, *arguments: Any) -> None:
    """Compiled and plain agree in value and gradient."""
    results = []
    for call in (function, compiled):
        leaf = z.clone().requires_grad_()
        value = call(leaf, *arguments)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
@pytest.mark.usefixtures("fresh_compiler")
def test_every_loss_compiles_in_one_graph(case: Case) -> None:
    term = case.term(C)
    z, y = Z.float(), Y.clone()
    z[0, (Y[0] + 1) % C], y[1] = -torch.inf, -100

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return term(logits, target)  # type: ignore[no-any-return]

    both(loss, torch.compile(loss, fullgraph=True, backend="aot_eager"), z, y)


@pytest.mark.usefixtures("fresh_compiler")
def test_every_option_compiles_in_one_graph() -> None:
    term = il.min_ent()
    w, s = torch.arange(1.0, 6), torch.arange(6.0)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return term(  # type: ignore[no-any-return]
            logits, target, weight=w, label_smoothing=0.1, sample_weight=s, denominator=3.0, ignore_index=2
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    both(loss, compiled, Z.float(), Y)
    both(loss, compiled, Z.float(), torch.tensor(problems.distributions(0, N, C)).float())


@pytest.mark.parametrize("name", ["cross_entropy", "min_ent", "squentropy"])
@pytest.mark.usefixtures("fresh_compiler")
def test_inductor(name: str) -> None:
    term = getattr(il, name)()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return term(logits, target)  # type: ignore[no-any-return]

    both(loss, torch.compile(loss, fullgraph=True), Z.float(), Y)


@pytest.mark.usefixtures("fresh_compiler")
def test_changing_a_coefficient_does_not_recompile() -> None:
    made = il.Criterion(TEXT, beta=0.1)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(made, fullgraph=True, backend=counter)
    for beta in (0.1, 0.0, 1.0, 2.5):
        made.beta.fill_(beta)
        torch.testing.assert_close(compiled(Z, Y), weighted(beta), rtol=1e-6, atol=1e-7)
    assert counter.frame_count == 1


@pytest.mark.usefixtures("fresh_compiler")
def test_a_learnt_coefficient_does_not_recompile() -> None:
    made = il.Criterion(TEXT, beta=0.1, learn=("beta",))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(made, fullgraph=True, backend=counter)
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
    values = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = compiled(Z, Y)
        loss.backward()
        values.append(float(loss.detach()))
        optimiser.step()
    assert counter.frame_count == 1
    assert values[0] > values[1] > values[2]


@pytest.mark.usefixtures("fresh_compiler")
def test_batches_of_any_size_compile_once() -> None:
    term = il.min_ent()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda z, y: term(z, y), fullgraph=True, dynamic=True, backend=counter)
    first = 0
    for n in (6, 5, 3, 4):
        z, y = Z[:n].clone(), Y[:n].clone()  # a slice would be compiled once more for its base
        torch.testing.assert_close(compiled(z, y), term(z, y), rtol=1e-9, atol=1e-12)
        first = first or counter.frame_count
    assert counter.frame_count == first


@pytest.mark.usefixtures("fresh_compiler")
def test_compiling_a_gradient_of_torch_func() -> None:
    term = il.min_ent()

    def slope(logits: Tensor, target: Tensor) -> Tensor:
        return torch.func.grad(lambda z: term(z, target))(logits)  # type: ignore[no-any-return]

    compiled = torch.compile(slope, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(Z, Y), slope(Z, Y), rtol=1e-9, atol=1e-12)


def test_nothing_synchronises_with_the_host() -> None:
    """On fake tensors, which have no values, any .item() or branch on a number raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        z, y = mode.from_tensor(Z), mode.from_tensor(Y)
        w = mode.from_tensor(torch.ones(C))
        for case in CASES:
            term = case.term(C) if case.per_class is None else None
            if term is None:
                continue
            assert term(z, y, weight=w).shape == ()
            assert term(z, y, reduction="none").shape == (N,)
