"""Terms as objects and as text: they print what they parse, compare by structure, and say what is wrong."""

from __future__ import annotations

import copy
import inspect
import math
import operator
import pickle
import warnings
from typing import Any

import numpy as np
import problems
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import CASES, FIRST, Case
from hypothesis import given, settings
from hypothesis import strategies as st

import infoloss as il
from infoloss.statistics import STATISTICS

N, C = 6, 5
Z = torch.tensor(problems.rows(0, N, C))
Y = torch.tensor(problems.labels(0, N, C))


def by_name(case: Case) -> str:
    return str(case)


# Random trees


def parameters(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values for some of an entry's parameters, valid for each of them."""
    signature = inspect.signature(getattr(il, name)).parameters
    vectors = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=4)
    values = {
        "counts": vectors,
        "prior": vectors.map(lambda values: [value / sum(values) for value in values]),
        "order": st.integers(1, 5),
        "k": st.none() | st.floats(0.5, 20),
        "M": st.none() | st.floats(0.5, 40),
    }
    proper_fraction = st.floats(1e-6, 1, exclude_max=True)
    return st.fixed_dictionaries({}, optional={key: values.get(key, proper_fraction) for key in signature})


entries = st.sampled_from(sorted({case.name for case in CASES})).flatmap(
    lambda name: parameters(name).map(lambda given: getattr(il, name)(**given))
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
statistics = st.sampled_from(sorted(set(STATISTICS) - {"expected_log_target"})).map(il.statistic) | st.floats(
    1e-9, 1
).map(lambda floor: il.statistic("expected_log_target", floor=floor))
coefficients = st.sampled_from(["alpha1", "my_weight", "βeta", "x"]).map(il.parse)
leaves = entries | statistics | coefficients


def quietly(join: Any, left: Any, right: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return join(left, right)


def larger(terms: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    joins = st.sampled_from([operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
    functions = st.sampled_from(["exp", "log", "expm1", "log1p", "sqrt", "abs"])
    pairs = st.sampled_from(["minimum", "maximum"])
    vectors = st.lists(st.floats(-5, 5), min_size=1, max_size=3)
    return st.one_of(
        st.builds(quietly, joins, terms, terms),
        st.builds(quietly, joins, terms, numbers),
        st.builds(quietly, joins, numbers, terms),
        st.builds(operator.neg, terms),
        st.builds(lambda name, term: parsed(f"{name}({term})"), functions, terms),
        st.builds(lambda name, a, b: parsed(f"{name}({a}, {b})"), pairs, terms, terms),
        st.builds(lambda term, vector: term.shifted(vector), terms, vectors),
        st.builds(lambda term, factor: term.scaled(factor), terms, st.floats(0.01, 100)),
        st.builds(lambda term, tau: term.normalized(tau), terms, st.floats(0.01, 10)),
        st.builds(lambda term, cap: term.soft_capped(cap), terms, st.floats(0.5, 100)),
    )


def parsed(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return il.parse(text)


terms = st.recursive(leaves, larger, max_leaves=8)


@settings(max_examples=300)
@given(terms)
def test_a_term_prints_what_it_parses(term: Any) -> None:
    text = str(term)
    assert parsed(text) == term
    assert str(parsed(text)) == text
    assert hash(parsed(text)) == hash(term)
    assert repr(term) == text


def test_every_nesting_of_two_operators_keeps_its_grouping() -> None:
    a, b, c = (il.statistic(name) for name in ("lse", "max_logit", "logit_sum"))
    joins = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
    joins.append(lambda left, _: -left)
    for outer in joins:
        for inner in joins:
            for nested in (outer(inner(a, b), c), outer(a, inner(b, c)), outer(-a, inner(-2.0 * b, -c))):
                assert il.parse(str(nested)) == nested


@settings(max_examples=100)
@given(terms, terms)
def test_equal_terms_print_alike_and_only_they(left: Any, right: Any) -> None:
    assert (left == right) == (str(left) == str(right))


@settings(max_examples=100)
@given(terms)
def test_copies_are_equal(term: Any) -> None:
    for other in (pickle.loads(pickle.dumps(term)), copy.deepcopy(term), copy.copy(term)):
        assert other == term
        assert hash(other) == hash(term)


@settings(max_examples=100)
@given(terms)
def test_a_printed_term_keeps_its_value(term: Any) -> None:
    """Grouping survives: the reparsed tree computes the same numbers, whatever they are."""
    values = dict.fromkeys(sorted(term.unbound), 0.7)
    values |= {name: [0.5, 0.2, 0.3] for name in ("counts", "prior") if name in values}
    bound = term.bind(**values)
    z, y = torch.tensor([[0.3, -1.2, 0.5]], dtype=torch.float64), torch.tensor([1])
    try:
        expected = bound(z, y, reduction="sum")
    except ValueError:  # vectors for another number of classes, or no finite coefficient
        return
    again = parsed(str(bound))(z, y, reduction="sum")
    torch.testing.assert_close(again, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_every_entry_prints_every_parameter(case: Case) -> None:
    term = case.term(C)
    signature = inspect.signature(getattr(il, case.name)).parameters
    for name in signature:
        assert f"{name}=" in str(term)
    assert il.parse(str(term)) == term
    assert pickle.loads(pickle.dumps(term)) == copy.deepcopy(term) == term
    assert pickle.loads(pickle.dumps(term))(Z, Y) == term(Z, Y)
    if not signature:
        assert str(term) == case.name


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_bare_name_is_the_entry_with_its_defaults(case: Case) -> None:
    if case.arguments or case.per_class:
        return
    assert il.parse(case.name) == il.parse(f"{case.name}()") == getattr(il, case.name)()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("cross_entropy", "cross_entropy(label_smoothing=0.0)"),
        ("cross_entropy + 0.1*entropy", "cross_entropy(label_smoothing=0.0) + 0.1 * entropy"),
        ("min_ent(w2=.5)", "min_ent(w1=1.1933, w2=0.5)"),
        ("  kl\t", "kl"),
        ("(((kl)))", "kl"),
        ("+kl", "kl"),
        ("-0.1 * entropy", "-0.1 * entropy"),
        ("balanced_softmax(counts=[3, 1])", "balanced_softmax(counts=[3.0, 1.0])"),
        ("taylor(order=3)", "taylor(order=3)"),
        ("(lse - target_logit) ** 2 ** 3", "(lse - target_logit) ** 2.0 ** 3.0"),
        ("lse - (target_logit - 1)", "lse - (target_logit - 1.0)"),
        ("lse / (2 * logit_sum)", "lse / (2.0 * logit_sum)"),
        ("(lse ** 2) ** 3", "(lse ** 2.0) ** 3.0"),
        ("-lse ** 2", "-lse ** 2.0"),
        ("(-lse) ** 2", "(-lse) ** 2.0"),
    ],
)
def test_canonical_text(text: str, printed: str) -> None:
    assert str(il.parse(text)) == printed


def test_python_and_text_build_the_same_term() -> None:
    lse = il.statistic("lse")
    for built, text in (
        (il.cross_entropy() + 0.1 * il.entropy(), "cross_entropy + 0.1*entropy"),
        (il.cross_entropy() + 0.01 * lse**2, "cross_entropy + 0.01*lse**2"),
        (1 - il.kl() / 2, "1 - kl / 2"),
        (abs(-lse), "abs(-lse)"),
        (il.cross_entropy().scaled(2), "scaled(cross_entropy, 2)"),
    ):
        assert built == il.parse(text)


def test_the_value_follows_the_arithmetic() -> None:
    ce, h = (il.parse(text)(Z, Y, reduction="none") for text in ("cross_entropy", "entropy"))
    s = il.row_statistics(Z, Y, needs=("lse", "collision", "logit_sum"))
    for text, expected in (
        ("cross_entropy - 0.1*entropy", ce - 0.1 * h),
        ("2 - cross_entropy / entropy", 2 - ce / h),
        ("-entropy ** 2", -(h**2)),
        ("2 ** entropy", 2**h),
        ("2 ** -entropy", 2**-h),
        ("entropy ** 2 ** 0.5", h ** (2**0.5)),
        ("exp(-cross_entropy)", torch.exp(-ce)),
        ("expm1(entropy) + log1p(entropy)", torch.expm1(h) + torch.log1p(h)),
        ("sqrt(abs(logit_sum)) * log(lse**2)", s["logit_sum"].abs().sqrt() * s["lse"].square().log()),
        ("maximum(cross_entropy, entropy)", torch.maximum(ce, h)),
        ("minimum(cross_entropy, 1)", ce.clamp(max=1)),
        ("cross_entropy + 0.5*(1 - collision)", ce + 0.5 * (1 - s["collision"])),
        ("3 + 0*entropy", torch.full((N,), 3.0, dtype=torch.float64)),
    ):
        torch.testing.assert_close(il.parse(text)(Z, Y, reduction="none"), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("constant", ["(-2)**0.5", "1/0", "10**400", "0**(-1)", "log(-1)"])
def test_a_constant_without_a_finite_value_is_no_accident(constant: str) -> None:
    """It is refused, or counts as inf or nan like the same arithmetic on statistics."""
    try:
        value = il.parse(f"kl*({constant})")(Z, Y)
    except ValueError:
        return
    assert not value.isfinite()


# Errors


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("cross_entropy + entropi", 16, ["entropi", "entropy"]),
        ("cros_entropy", 0, ["cros_entropy", "cross_entropy"]),
        ("kl + squentropi(alpha=1)", 5, ["squentropi", "squentropy"]),
        ("kl + focal(gama=2)", 11, ["gama", "gamma"]),
        ("kl + 1 +", 8, []),
        ("kl + (entropy", 5, []),
        ("kl entropy", 3, []),
        ("kl @ entropy", 0, []),
        ("kl + entropy[0]", 5, []),
        ("kl + entropy.real", 5, []),
        ("kl + 'entropy'", 5, ["entropy"]),
        ("kl + True", 5, ["True"]),
        ("kl + 1j", 5, ["1j"]),
        ("kl if 1 else entropy", 0, []),
        ("lambda: kl", 0, []),
        ("kl + __import__('os')", 5, ["__import__"]),
        ("kl + min_ent(w1='a')", 16, ["'a'"]),
        ("kl + min_ent(1, 2, 3)", 5, ["min_ent"]),
        ("kl + exp(entropy, entropy)", 5, ["exp"]),
        ("kl + focal(gamma=-1)", 5, ["gamma", "-1"]),
        ("kl + taylor(order=1.5)", 5, ["order", "1.5"]),
        ("kl + logit_norm(tau=0)", 5, ["tau", "0"]),
        ("kl + balanced_softmax(counts=[1, -1])", 5, ["counts", "-1"]),
        ("kl + balanced_softmax(counts=[[1]])", 30, ["[1]"]),
        ("kl + 1e999", 5, ["finite"]),
        ("", 0, ["empty"]),
        ("αβ + entropi", 5, ["entropi", "entropy"]),
    ],
)
def test_an_error_points_at_the_character(text: str, column: int, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\^") as info:
        il.parse(text)
    message, line, pointer = str(info.value).rsplit("\n", 2)
    assert line.strip() == text
    indent = len(line) - len(line.lstrip())
    assert pointer.index("^") - indent == column
    for word in words:
        assert word in message


def test_nothing_in_the_text_is_run() -> None:
    for text in ("__import__('os').system('true')", "exec('1')", "[x for x in (1,)]", "(yield)", "kl := 1"):
        with pytest.raises(ValueError, match=r"\^"):
            il.parse(text)


def test_an_unreasonably_deep_expression_is_an_error_too() -> None:
    with pytest.raises(ValueError, match="nested"):
        il.parse("(" * 5000 + "kl" + ")" * 5000)
    with pytest.raises(ValueError, match="nested"):
        il.parse("-" * 5000 + "kl")
    with pytest.raises(ValueError, match="nested"):
        il.parse("kl" + " + entropy" * 20_000)


def test_parse_takes_text_or_a_term() -> None:
    term = il.min_ent()
    assert il.parse(term) is term
    with pytest.raises(TypeError, match="int"):
        il.parse(3)


@pytest.mark.parametrize("case", FIRST, ids=by_name)
def test_calling_the_constructor_on_tensors_says_the_right_form(case: Case) -> None:
    with pytest.raises(TypeError, match=rf"il\.{case.name}\(\)\(logits, target\)"):
        getattr(il, case.name)(Z, Y)


def test_wrong_parameters_of_constructors_name_themselves() -> None:
    for build, message in (
        (lambda: il.min_ent(w3=1), "min_ent.*w3.*w1, w2"),
        (lambda: il.cross_entropy(label_smoothing=2), "label_smoothing.*2"),
        (lambda: il.jensen_shannon(weight=1.0), "weight.*1"),
        (lambda: il.reverse_kl(floor=0.0), "floor.*0"),
        (lambda: il.generalized_cross_entropy(q=0.0), "q.*0"),
        (lambda: il.balanced_softmax(counts=[0, 0]), "counts.*0"),
        (lambda: il.pc_softmax(prior=[0.5, float("nan")]), "prior.*nan"),
        (lambda: il.pc_softmax(prior=[30, 10]), "prior.*40"),
        (lambda: il.logit_adjusted(prior=[[0.5, 0.5]]), r"\(1, 2\)"),
        (lambda: il.rescaled_square(k=0.0), "k.*0"),
        (lambda: il.rescaled_square(M=torch.tensor(1.0)), "M.*number"),
        (lambda: il.min_ent(w1=math.inf), "finite.*inf"),
        (lambda: il.statistic("lze"), "lze"),
        (lambda: il.entropy() + math.nan, "nan"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            build()


def test_terms_join_with_numbers_tensors_and_terms_only() -> None:
    for wrong in ("kl", None, [1.0], {}):
        with pytest.raises(TypeError):
            il.kl() + wrong
        with pytest.raises(TypeError):
            wrong * il.kl()


# Binding


def test_unbound_terms_say_what_is_missing() -> None:
    for term, names in (
        (il.balanced_softmax(), {"counts"}),
        (il.pc_softmax(), {"prior"}),
        (il.logit_adjusted(tau=0.5), {"prior"}),
        (il.parse("cross_entropy + beta*entropy"), {"beta"}),
        (il.parse("balanced_softmax + b*entropy"), {"counts", "b"}),
        (il.parse("min_ent(w2=strength)"), {"strength"}),
        (il.parse("scaled(cross_entropy, inverse_temperature)"), {"inverse_temperature"}),
        (il.min_ent(), set()),
    ):
        assert term.unbound == frozenset(names)
        if names:
            with pytest.raises(ValueError, match=f"{min(names)}.*bind|bind.*{min(names)}"):
                term(Z, Y)
            with pytest.raises(ValueError, match=min(names)):
                term.probabilities(Z)


def test_binding_gives_the_bound_term_and_leaves_the_other_alone() -> None:
    counts, prior = problems.counts(C), problems.prior(C)
    for free, values, bound in (
        (il.balanced_softmax(), {"counts": counts}, il.balanced_softmax(counts=counts)),
        (il.pc_softmax(), {"prior": prior.tolist()}, il.pc_softmax(prior=prior)),
        (il.logit_adjusted(tau=0.5), {"prior": prior}, il.logit_adjusted(prior=prior, tau=0.5)),
        (
            il.parse("cross_entropy + beta*entropy"),
            {"beta": 0.1},
            il.parse("cross_entropy + 0.1*entropy"),
        ),
        (il.parse("min_ent(w2=strength)"), {"strength": 0.5}, il.min_ent(w2=0.5)),
        (
            il.parse("scaled(cross_entropy, s)"),
            {"s": 0.5},
            il.cross_entropy().scaled(0.5),
        ),
    ):
        text = str(free)
        assert free.bind(**values) == bound
        assert str(free) == text
        assert free.unbound
        assert not bound.unbound
        assert il.parse(text) == free
        torch.testing.assert_close(free.bind(**values)(Z, Y), bound(Z, Y), rtol=0, atol=0)
    once = il.parse("balanced_softmax + beta*entropy").bind(counts=counts)
    assert once.unbound == {"beta"}
    with pytest.raises(ValueError, match="gamma"):
        once.bind(gamma=1.0)
    with pytest.raises(ValueError, match="counts"):
        once.bind(counts=counts)


def test_counts_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 classes.*3|3.*5 classes"):
        il.balanced_softmax(counts=[1, 2, 3])(Z, Y)


def test_coefficients_may_be_tensors_and_parameters() -> None:
    beta = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    for term in (
        il.cross_entropy() + beta * il.entropy(),
        il.cross_entropy() + il.entropy() * beta,
        il.min_ent(w1=1.0, w2=beta),
        il.parse("cross_entropy + b*entropy").bind(b=beta),
    ):
        beta.grad = None
        loss = term(Z, Y)
        torch.testing.assert_close(loss.detach(), (il.cross_entropy() + 0.3 * il.entropy())(Z, Y))
        loss.backward()
        assert beta.grad is not None
        torch.testing.assert_close(beta.grad, il.entropy()(Z, Y))
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    scaled = il.cross_entropy().scaled(1 / temperature)
    (ours,) = torch.autograd.grad(scaled(Z, Y), temperature)
    (theirs,) = torch.autograd.grad(F.cross_entropy(Z / temperature, Y), temperature)
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="scalar"):
        il.entropy() * torch.ones(2, 2)


def test_a_temperature_per_row() -> None:
    s = torch.tensor(np.linspace(0.5, 2, N), dtype=torch.float64, requires_grad=True)
    ours = il.cross_entropy().scaled(s)(Z, Y)
    theirs = F.cross_entropy(Z * s[:, None], Y)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, s), torch.autograd.grad(theirs, s))


def test_a_temperature_beside_a_mask_has_a_finite_gradient() -> None:
    s = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    z = Z.clone()
    z[:, 4] = -torch.inf
    y = Y % 4
    (ours,) = torch.autograd.grad(il.min_ent().scaled(s)(z, y), s)
    (theirs,) = torch.autograd.grad(il.min_ent()(Z[:, :4] * s, y), s)
    torch.testing.assert_close(ours, theirs)


# Sums


def test_adding_two_losses_is_allowed_and_said_once() -> None:
    with pytest.warns(UserWarning, match="two losses") as caught:
        both = il.cross_entropy() + il.mae()
    assert len(caught) == 1
    torch.testing.assert_close(both(Z, Y), il.cross_entropy()(Z, Y) + il.mae()(Z, Y))
    with pytest.warns(UserWarning, match="two losses") as caught:
        il.parse("cross_entropy + 0.5*mae + brier")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both(Z, Y)
        both.bind()
        copy.deepcopy(both)
        pickle.loads(pickle.dumps(both))
        both + il.entropy()
        il.cross_entropy() + il.entropy() + il.z_loss() + il.statistic("lse")


def test_what_a_term_contains() -> None:
    term = il.parse("cross_entropy + 0.1*entropy + entropy**2 + lse")
    assert term.entries == ("cross_entropy", "entropy")
    assert term.has_loss
    assert not il.parse("entropy + lse**2").has_loss
    assert il.parse("lse - target_logit").has_loss
    assert il.parse("lse - target_logit").entries == ()


def test_a_regulariser_needs_no_target_and_a_loss_does() -> None:
    torch.testing.assert_close(il.entropy()(Z), il.entropy()(Z, Y))
    with pytest.raises(ValueError, match="target"):
        il.min_ent()(Z)


def test_soft_meaning_of_expressions() -> None:
    t = torch.tensor(problems.distributions(1, N, C))
    affine = il.parse("3*lse - 2*target_logit + lse*target_probability")
    expected = sum(t[:, c] * affine(Z, torch.full((N,), c), reduction="none") for c in range(C))
    torch.testing.assert_close(affine(Z, t, reduction="none"), expected)
    for text in (
        "(lse - target_logit)**2",
        "exp(target_logit)",
        "target_logit*target_logit",
        "1/target_logit",
    ):
        with pytest.raises(ValueError, match="probabilities"):
            il.parse(text)(Z, t)
        assert il.parse(text)(Z, Y).isfinite()


def test_parts_name_repeated_entries_apart() -> None:
    term = il.cross_entropy() + 0.1 * il.entropy() + il.entropy() ** 2
    parts = term.parts(Z, Y)
    assert parts._fields == ("loss", "cross_entropy", "entropy", "entropy_2", "accuracy")
    assert parts.entropy == parts.entropy_2


def test_parts_count_ignored_rows_nowhere() -> None:
    y = Y.clone()
    y[1] = -100
    parts = il.cross_entropy().parts(Z, y)
    kept = [0, 2, 3, 4, 5]
    torch.testing.assert_close(parts.loss, il.cross_entropy()(Z[kept], Y[kept]))
    torch.testing.assert_close(parts.accuracy.double(), (Z.argmax(1) == Y)[kept].double().mean())


def test_the_accuracy_of_parts_looks_at_the_target_as_given() -> None:
    """Class weights and smoothing change what a row costs, not which class is right."""
    z, y = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    t, w = torch.tensor([[0.6, 0.4], [0.3, 0.7]]), torch.tensor([0.01, 10.0])
    for target in (y, t):
        for options in ({}, {"weight": w}, {"label_smoothing": 0.1}, {"weight": w, "label_smoothing": 0.1}):
            assert il.cross_entropy().parts(z, target, **options).accuracy == 0.5
        s = torch.tensor([3.0, 1.0])
        assert il.cross_entropy().parts(z, target, weight=w, sample_weight=s).accuracy == 0.75


def test_row_statistics_take_dense_logits_and_keep_gradients() -> None:
    z = Z.reshape(2, 3, C).movedim(-1, 1).clone().requires_grad_()
    s = il.row_statistics(z, Y.reshape(2, 3), needs=("lse", "target_logit", "expected_logit"))
    assert {name: tuple(value.shape) for name, value in s.items()} == dict.fromkeys(s, (2, 3))
    flat = Z.clone().requires_grad_()
    q = flat.softmax(1)
    expected = flat.logsumexp(1) - 2 * (q * flat).sum(1) + flat[torch.arange(N), Y]
    ours = s["lse"] - 2 * s["expected_logit"] + s["target_logit"]
    torch.testing.assert_close(ours.reshape(N), expected)
    (slope,) = torch.autograd.grad(ours.sum(), z)
    torch.testing.assert_close(
        slope.movedim(1, -1).reshape(N, C), torch.autograd.grad(expected.sum(), flat)[0]
    )
    with pytest.raises(ValueError, match="lze"):
        il.row_statistics(Z, needs=("lze",))
    with pytest.raises(ValueError, match="target"):
        il.row_statistics(Z, needs=("target_logit",))
