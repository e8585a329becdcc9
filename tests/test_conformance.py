"""The check finds what PyTorch departs in, nothing in our own losses, and each mistake made on purpose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases import FIRST, Case
from torch import Tensor, nn

import infoloss as il
from infoloss.cli import main
from infoloss.conformance import CHECKS, check

pytest_plugins = ["infoloss.conformance.fixture"]

SLOW = ["compile"]  # once is enough, where it is not the question


def failures(loss: Any, **options: Any) -> dict[str, str]:
    return {found.check: found.cause for found in check(loss, **options) if found.outcome == "failed"}


def unsupported(loss: Any) -> dict[str, str]:
    return {f.check: f.cause for f in check(loss, without=SLOW) if f.outcome == "not supported"}


# PyTorch's own, whose departures docs/departures.md lists

PYTORCH = {
    "nan in an ignored row": "gradient.*nan instead of 0",
    "every row ignored": "nan instead of 0",
    "every weight 0": "nan instead of 0",
    "empty batch": "nan instead of 0",
    "one-hot beside a masked class": "nan",
    "smoothing beside a masked class": "inf",
    "weight 0 beside a masked label": "nan",
    "one-hot targets with weights": "divides by the number of rows, that of index targets by the sum",
    "ignored class of one-hot targets": "raises.*ignore_index is not supported",
    "half precision's result": "rounded to float16",
}


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss], ids=["function", "module"])
def test_pytorch_s_departures_are_found_and_no_others(loss: Any) -> None:
    found = failures(loss)
    assert set(found) == set(PYTORCH)
    for name, cause in PYTORCH.items():
        assert_says(found[name], cause)


def assert_says(cause: str, pattern: str) -> None:
    assert "\n" not in cause
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(cause)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_no_loss_of_ours_fails(case: Case) -> None:
    assert failures(case.term(5), without=SLOW) == {}


def test_many_losses_can_be_compiled_one_after_the_other() -> None:
    """More than the compiler's limit of recompilations."""
    others = set(CHECKS) - {"compile"}
    for k in range(10):
        assert failures(lambda z, y, k=k: (1 + k) * F.cross_entropy(z, y), without=others) == {}


def test_a_loss_of_labels_only_is_not_blamed_for_it() -> None:
    causes = unsupported(il.focal())
    assert {name for name in causes if "one-hot" in name or "smoothing" in name} == set(causes)
    assert all("focal is defined for class indices only" in cause for cause in causes.values())
    assert unsupported(il.squentropy()) == {"offset": "it depends on a common offset of the logits"}


def test_an_option_that_the_loss_lacks_is_not_supported() -> None:
    def plain(logits: Tensor, target: Tensor) -> Tensor:
        return il.cross_entropy()(logits, target)

    causes = unsupported(plain)
    assert causes["class weights"] == "it has no option weight"
    assert causes["ignored rows"] == "it has no option ignore_index"
    assert causes["reduction"] == "it has no option reduction"
    assert failures(plain, without=SLOW) == {}


# A loss that is right in every way, and wrong in the one way that it is asked for


def rows_of(target: Tensor, classes: int) -> Tensor:
    """One-hot rows, under vmap too."""
    return target[:, None] == torch.arange(classes)


def values_hidden() -> bool:
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def logarithms(z: Tensor, mistake: str) -> Tensor:
    if mistake.startswith("log of the softmax"):
        return z.softmax(1).log()
    if mistake == "the maximum is not taken out":
        return z - z.exp().sum(1, keepdim=True).log()
    if mistake == "a difference of large numbers":
        return z - z.logsumexp(1, keepdim=True)
    return z.log_softmax(1)


def smoothed(t: Tensor, masked: Tensor, epsilon: float, mistake: str) -> Tensor:
    spread = (~masked).to(t.dtype)
    if mistake == "smoothing over masked classes":
        spread = torch.ones_like(spread)
    if mistake == "smoothing over the other classes":
        spread = spread * (1 - t)
    return (1 - epsilon) * t + epsilon * spread / spread.sum(1, keepdim=True)


def labels(target: Tensor, ignore_index: int, classes: int, mistake: str) -> tuple[Tensor, Tensor]:
    y = target.reshape(-1)
    kept = y != ignore_index
    if mistake == "labels from the end":
        return torch.where(kept, y % classes, 0), kept
    if not values_hidden() and (kept & ((y < 0) | (y >= classes))).any():
        raise IndexError("a label out of range")
    return torch.where(kept, y, 0), kept


def written(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    mistake: str,
) -> Tensor:
    """Cross entropy with infoloss's semantics, in plain PyTorch."""
    C, soft = logits.shape[1], target.is_floating_point()
    shape = target[:, 0].shape if soft else target.shape
    another_order = mistake == "rows of a dense batch are read in another order"
    z = (logits if another_order else logits.movedim(1, -1)).reshape(-1, C)
    if "half precision" not in mistake and z.dtype.itemsize < 4:
        z = z.float()
    if soft:
        t = target.movedim(1, -1).reshape(-1, C).to(z.dtype)
        if mistake != "ignore_index does not reach probabilities":
            t = torch.where(torch.arange(C) == ignore_index, 0, t)
        kept = t.sum(1) != 0
    else:
        y, kept = labels(target, ignore_index, C, mistake)
        t = rows_of(y, C).to(z.dtype)
    if mistake != "the gradient at an ignored row":
        z = torch.where(kept[:, None], z, 0)
    w = torch.ones(C, dtype=z.dtype) if weight is None else weight.to(z.dtype)
    masked, plain = z == -torch.inf, t
    if label_smoothing:
        t = smoothed(t, masked, label_smoothing, mistake)
    wanted = t * w
    if mistake == "weights of rows, not of smoothed targets" and not soft:
        wanted = t * w[y][:, None]
    log_q = logarithms(z, mistake)
    rows = -(wanted * (log_q if mistake == "0 times infinity" else log_q.masked_fill(masked, 0))).sum(1)
    if mistake != "0 times infinity":
        rows = torch.where((masked & (wanted > 0)).any(1), torch.inf, rows)
    if mistake == "a stopped gradient":
        rows = rows * (1 + z[:, 1] - z[:, 1].detach())
    if mistake != "ignored rows count":
        rows = torch.where(kept, rows, 0)
    if reduction == "none":
        return rows.reshape(shape)
    if reduction == "sum":
        return rows.sum() / C if mistake == "the sum divides by C" else rows.sum()
    return rows.sum() / divisor(plain * w, kept, soft, max(1, len(logits)), mistake)


def divisor(weighted: Tensor, kept: Tensor, soft: bool, batch: int, mistake: str) -> Tensor:
    omega = weighted.sum(1)
    if mistake == "soft targets divide by the number of rows" and soft:
        omega = torch.ones_like(omega)
    if mistake == "the weighted mean divides by the number of rows" and not soft:
        omega = torch.ones_like(omega)
    total = (omega if mistake == "ignored rows divide the mean" else torch.where(kept, omega, 0)).sum()
    if mistake == "a dense mean divides by N" and len(kept) > batch:
        total = total * batch / len(kept)
    if mistake == "the mean is a sum":
        total = torch.ones_like(total)
    return total if mistake == "nothing over nothing" else torch.where(total == 0, 1, total)


def with_mistake(mistake: str) -> Callable[..., Tensor]:
    def loss(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        return written(logits, target, weight, ignore_index, label_smoothing, reduction, mistake)

    return loss


def test_a_loss_written_in_plain_pytorch_passes() -> None:
    assert failures(with_mistake("")) == {}
    assert {found.outcome for found in check(with_mistake(""))} == {"passed"}


NAN = "nan instead of 0"
MISTAKES = {
    "the mean is a sum": {
        "mean over rows": "it is their sum",
        "reduction": "it is the sum",
        "class weights": "it is the sum",
        "ignored rows": "4.46304 instead of 1.11576",
        "ignored class of one-hot targets": "instead of",
        "label smoothing": "label_smoothing=0:",
        "smoothing beside a masked class": "instead of",
    },
    "the sum divides by C": {
        "reduction": 'reduction="sum": .* instead of',
        "class weights": "the sum with class weights",
    },
    "the weighted mean divides by the number of rows": {
        "class weights": "divides by the number of rows",
        "ignored rows": "with class weights and rows ignored",
        "weight 0 beside a masked label": "instead of",
        "one-hot targets with weights": "instead of",
    },
    "soft targets divide by the number of rows": {
        "one-hot targets with weights": "that of index targets by the sum of their weights"
    },
    "weights of rows, not of smoothed targets": {
        "label smoothing with weights": "the sum with class weights"
    },
    "ignored rows divide the mean": {"ignored rows": "ignored rows still divide the mean"},
    "ignored rows count": {"ignored rows": "the mean with rows ignored", "every row ignored": "instead of 0"},
    "the gradient at an ignored row": {"nan in an ignored row": "gradient.*nan instead of 0"},
    "nothing over nothing": {"every row ignored": NAN, "every weight 0": NAN, "empty batch": NAN},
    "ignore_index does not reach probabilities": {"ignored class of one-hot targets": "not ignored"},
    "smoothing over masked classes": {"smoothing beside a masked class": "instead of|makes the loss inf"},
    "smoothing over the other classes": {
        "label smoothing": "ε is spread over the other C − 1 classes",
        "label smoothing with weights": "instead of",
    },
    "0 times infinity": {
        "masked class": "makes the loss nan",
        "one-hot beside a masked class": "makes the loss nan",
        "smoothing beside a masked class": "makes the loss nan",
        "weight 0 beside a masked label": "makes the loss nan",
    },
    "rows of a dense batch are read in another order": {"dense logits": r"the mean over \(N, C, d1, d2\)"},
    "a dense mean divides by N": {"dense logits": "divides by N, not by the number of rows"},
    "labels from the end": {"labels out of range": "the label -1 of 5 classes is used"},
    "computed in half precision": {"half precision's result": "rounded to float16"},
    "log of the softmax in half precision": {
        "masked class": "makes the gradient nan",
        "one-hot beside a masked class": "makes the gradient nan",
        "smoothing beside a masked class": "makes the gradient nan",
        "weight 0 beside a masked label": "makes the gradient nan",
        "half precision": "float16 logits give nan; the same in float64 3.8",
        "half precision's result": "rounded to float16",
        "large logits": "make the loss nan",
    },
    "a difference of large numbers": {"offset": "offset of 10000"},
    "the maximum is not taken out": {
        "offset": "offset of 10000",
        "large logits": "±200 in float32 make the loss nan",
    },
    "a stopped gradient": {
        "gradient": "not that of finite differences",
        "second gradient": "not that of finite differences",
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_caught_with_its_line(mistake: str) -> None:
    found = failures(with_mistake(mistake), without=SLOW)
    assert set(found) == set(MISTAKES[mistake])
    for name, cause in MISTAKES[mistake].items():
        assert_says(found[name], cause)


def plain(logits: Tensor, target: Tensor) -> Tensor:
    return il.cross_entropy()(logits, target)


class SecondBackward(torch.autograd.Function):
    """Right once; its backward takes the saved softmax for a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        q = z.softmax(1)
        return (z.logsumexp(1) - (t * z).sum(1)).mean(), q

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output[1].detach(), inputs[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Any) -> Any:
        q, t = ctx.saved_tensors
        return slope * (q - t) / max(1, len(t)), None

    @staticmethod
    def jvp(ctx: Any, *directions: Any) -> Any:
        return torch.zeros((), dtype=torch.float64), None


def wrong_second_gradient(logits: Tensor, target: Tensor) -> Tensor:
    z = logits.float() if logits.dtype.itemsize < 4 else logits
    if len(z) == 0 or (z == -torch.inf).any():
        return plain(logits, target)
    return SecondBackward.apply(z, F.one_hot(target, 5).to(z.dtype))[0]  # type: ignore[no-any-return]


def overwriting(logits: Tensor, target: Tensor) -> Tensor:
    value = plain(logits, target)
    if not values_hidden():
        logits.detach().sub_(logits.detach().amax(1, keepdim=True))
    return value


def infinite_slope(logits: Tensor, target: Tensor) -> Tensor:
    """A power of 1 − p below 1, as copies of the focal loss have it."""
    log_p = -il.cross_entropy()(logits, target, reduction="none")
    rows = -((1 - log_p.exp()) ** 0.5) * log_p
    return rows.sum() / max(1, rows.numel())


def looks_at_values(logits: Tensor, target: Tensor) -> Tensor:
    return plain(logits, target) * (1 if logits.detach().sum() < 1e30 else 2)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            wrong_second_gradient,
            {
                "second gradient": "gradient of the gradient is not that of finite differences",
                "forward mode": "it is silently 0",
                "vmap": "data-dependent control flow",
                "compile": "Data-dependent branching",
            },
        ),
        (
            overwriting,
            {
                "inputs": "it writes into the caller's logits",
                "gradient": "finite differences",
                "second gradient": "finite differences",
            },
        ),
        (infinite_slope, {"large logits": "logits of ±20 in float32 make the gradient nan"}),
        (
            looks_at_values,
            {"vmap": "data-dependent control flow", "compile": r"fullgraph=True\) raises Unsupported"},
        ),
        (
            lambda z, y: plain(z.float(), y).double(),
            {
                "mean over rows": r"1\.361836\d+ instead of 1\.361836\d+",
                "gradient": "finite differences",
                "second gradient": "finite differences",
                "forward mode": "instead of",
            },
        ),
        (
            lambda z, y: plain(z, y) + 0.1 * z.mean(0).abs().sum(),
            {
                "mean over rows": "the loss of a batch is not the mean over its rows",
                "empty batch": "nan instead of 0",
                "masked class": "makes the loss inf",
                "one-hot beside a masked class": "makes the loss inf",
                "dense logits": "instead of",
                "half precision": "in float64",
            },
        ),
        (lambda z, y: plain(z, y) + 0 * torch.rand(()), {}),
        (lambda z, y: plain(z, y) + 1e-6 * torch.rand(()), {"call": "two calls .* differ"}),
        (lambda z, y: plain(z, y).float(), {"call": "float64 logits give a float32 result"}),
        (lambda z, y: F.cross_entropy(z, y, reduction="none"), {"call": r"shape \(6,\)"}),
        (lambda z, y: plain(z, y).detach(), {"call": "has no gradient: it is detached"}),
        (lambda z, y: float(plain(z, y)), {"call": "returns float, not a tensor"}),
        (il.cross_entropy, {"call": "raises TypeError: .*cross_entropy"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_derivatives_and_habits_are_caught(loss: Any, expected: dict[str, str]) -> None:
    found = failures(loss, without=[] if {"vmap", "compile"} & set(expected) else ["vmap", "compile"])
    assert set(found) == set(expected)
    for name, cause in expected.items():
        assert_says(found[name], cause)


# Doors


def test_the_fixture_fails_with_a_line_for_each_failure(conforms: Any) -> None:
    conforms(il.min_ent(), without=SLOW)
    with pytest.raises(pytest.fail.Exception) as failure:
        conforms(F.cross_entropy, without=[*SLOW, "empty batch"])
    lines = str(failure.value).splitlines()
    assert {line.split(": failed: ")[0] for line in lines} == set(PYTORCH) - {"empty batch"}
    conforms(F.cross_entropy, without=PYTORCH)


def test_wrong_arguments_say_so() -> None:
    with pytest.raises(ValueError, match="no check 'empty bach'; did you mean 'empty batch'"):
        check(F.cross_entropy, without=["empty bach"])
    with pytest.raises(TypeError, match="loss must be callable, got str"):
        check("cross_entropy")  # type: ignore[arg-type]


def test_the_command_finds_a_loss_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "losses_of_mine.py").write_text(
        "import torch\ndef summed(z, y): return torch.nn.functional.cross_entropy(z, y, reduction='sum')\n"
        "class Group:\n    number = 1\n"
    )
    (tmp_path / "broken_module.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def told(*words: str) -> tuple[int, str, str]:
        return (main(("check", *words)), *capsys.readouterr())

    code, out, _ = told("losses_of_mine:summed", "--without", *SLOW)
    assert code == 1
    assert "it is their sum" in out
    assert "it has no option weight" in out
    assert told("cross_entropy - 0.1*entropy", "--without", *SLOW)[0] == 0
    code, out, _ = told("infoloss:min_ent", "--without", *SLOW)
    assert (code, out.splitlines()[-1]) == (0, "29 passed, 0 failed, 0 not supported")
    for words, message in {
        ("losses_of_mine:sumed",): "did you mean 'summed'?",
        ("losses_of_mime:summed",): "no module 'losses_of_mime'; did you mean 'losses_of_mine'?",
        ("torch.nn.functionl:cross_entropy",): "did you mean 'torch.nn.functional'?",
        ("losses_of_mine:Group.number",): "is int, and cannot be called",
        (
            "broken_module:loss",
        ): "broken_module cannot be imported: No module named 'a_package_that_is_not_there'",
        ("losses_of_mine:",): "expected module:function",
        ("crossentropy",): "cross_entropy",
        ("balanced_softmax",): "needs a value for counts; the check has 5 classes",
        ("cross_entropy", "--without", "vmapp"): "did you mean 'vmap'?",
    }.items():
        code, out, err = told(*words)
        assert (code, out) == (2, "")
        assert message in err


# The page


def test_the_page_is_what_its_command_writes(tmp_path: Path) -> None:
    """No sample is unexplained, and with the page's version of PyTorch its tables come out again."""
    root = Path(__file__).parent.parent
    committed = root / "docs" / "conformance.md"
    page = shutil.copy(committed, tmp_path)
    command = [sys.executable, "-m", "benchmarks.conformance", "--write", "--page", str(page)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    written, kept = (Path(path).read_text(encoding="utf-8").splitlines() for path in (page, committed))
    assert any(line.startswith("| OpInfo cross_entropy | indices") for line in written)
    if f"torch {torch.__version__.partition('+')[0]}, numpy" in "".join(kept):
        samples, pages = (
            [line for line in lines if line.startswith(("| OpInfo", "| ModuleInfo"))]
            for lines in (written, kept)
        )
        assert samples == pages
