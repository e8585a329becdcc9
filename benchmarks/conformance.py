"""infoloss beside PyTorch's own test samples and other libraries' losses.

    python -m benchmarks.conformance                  # prints the tables
    python -m benchmarks.conformance --write          # and writes them into docs/conformance.md

A sample agrees, or departs for a reason of docs/departures.md that explains the whole difference; anything
else is unexplained, and the exit code is 1. Peers that are not installed are said to be so.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import types
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il
from benchmarks.conformance_peers import Comparison, compared

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
UNEXPLAINED = "UNEXPLAINED"
MEAN_OF_WEIGHTED = "The mean of probability targets is weighted"
MEAN_OF_UNNORMALISED = "The mean of targets that do not sum to one"
MANY_HEADS = "not supported, it raises: the linear weight is (C, D)"
NOTHING_COUNTS = "Every row ignored: 0, not nan"

Loss = Callable[..., Tensor]


@dataclass
class Sample:
    """A call of PyTorch's and of ours: the tensors to differentiate, then the target and options."""

    source: str
    tensors: list[Tensor]  # logits, or hidden and linear weight
    target: Tensor
    options: dict[str, Any]
    theirs: Loss
    ours: Loss

    @property
    def soft(self) -> bool:
        return self.target.is_floating_point()

    @property
    def mean(self) -> bool:
        return bool(self.options.get("reduction", "mean") == "mean")

    @property
    def many_heads(self) -> bool:
        return self.theirs is F.linear_cross_entropy and self.tensors[1].ndim > 2

    def kind(self) -> tuple[str, str, str, str]:
        """What the sample is of: source, target, options, reduction."""
        if self.many_heads:
            return self.source, "all", "all, with a linear weight (C, d1, …, D)", "all"
        given = sorted(name for name in self.options if name != "reduction")
        target = "probabilities" if self.soft else "indices"
        return self.source, target, ", ".join(given) or "none", "mean" if self.mean else "sum, none"

    def in_dtype(self, dtype: torch.dtype) -> Sample:
        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        options = {name: cast(value) for name, value in self.options.items()}
        tensors = [cast(tensor) for tensor in self.tensors]
        return Sample(self.source, tensors, cast(self.target), options, self.theirs, self.ours)

    def results(self, loss: Loss) -> list[Tensor]:
        """The value, and the gradients of a weighted sum of it."""
        leaves = [tensor.detach().clone().requires_grad_() for tensor in self.tensors]
        value = loss(*leaves, self.target, **self.options)
        slope = torch.linspace(1, 2, max(1, value.numel()), dtype=value.dtype).reshape(value.shape)
        return [value.detach(), *torch.autograd.grad(value, leaves, slope)]


# PyTorch's samples


def pytorch_samples() -> Iterator[Sample]:
    """Of ``cross_entropy``, ``CrossEntropyLoss`` and ``linear_cross_entropy``."""
    if find_spec("expecttest") is None:  # only PyTorch's test cases need it, which are not run here
        stand_in: Any = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase
        sys.modules["expecttest"] = stand_in
    operations = importlib.import_module("torch.testing._internal.common_methods_invocations").op_db
    modules = importlib.import_module("torch.testing._internal.common_modules").module_db
    torch.manual_seed(0)
    ce = il.cross_entropy()
    for operation in operations:
        if operation.name == "nn.functional.cross_entropy":
            for found in operation.sample_inputs("cpu", torch.float64):
                yield Sample(
                    "OpInfo cross_entropy", [found.input], found.args[0], found.kwargs, F.cross_entropy, ce
                )
        if operation.name == "nn.functional.linear_cross_entropy" and not operation.variant_test_name:
            for found in operation.sample_inputs("cpu", torch.float64):
                yield linear_sample(found)
    for module in modules:
        if module.module_cls is torch.nn.CrossEntropyLoss:
            for found in module.module_inputs_func(module, "cpu", torch.float64, False, True):
                z, target = found.forward_input.args
                options = dict(found.constructor_input.kwargs)
                yield Sample("ModuleInfo CrossEntropyLoss", [z], target, options, F.cross_entropy, ce)


def linear_sample(found: Any) -> Sample:
    linear_weight, target = found.args
    options = {name: value for name, value in found.kwargs.items() if value is not None}
    ours = il.cross_entropy().linear
    return Sample(
        "OpInfo linear_cross_entropy",
        [found.input, linear_weight],
        target,
        options,
        F.linear_cross_entropy,
        ours,
    )


def documented(sample: Sample) -> tuple[str, Loss] | None:
    """The departure that a sample meets, and PyTorch's value as it would be with ours in that one place."""
    kept = sample.options.get("ignore_index", -100) != sample.target
    if not sample.mean:
        return None
    if not sample.soft:
        return (NOTHING_COUNTS, lambda *tensors, **_: 0 * tensors[0].sum()) if not kept.any() else None
    weight = sample.options.get("weight")
    t = sample.target if sample.target.ndim == 1 else sample.target.movedim(1, -1)
    mass = t.sum() if weight is None else (t * weight).sum()

    def remedied(*arguments: Tensor, **options: Any) -> Tensor:
        return sample.theirs(*arguments, **(options | {"reduction": "sum"})) / mass

    return (MEAN_OF_UNNORMALISED if weight is None else MEAN_OF_WEIGHTED), remedied


def outcome(sample: Sample, dtype: torch.dtype) -> str:
    """ "" where ours is PyTorch's, the heading of a departure, or ``UNEXPLAINED`` with the difference."""
    if sample.many_heads:
        return many_heads(sample)
    rounded = sample.in_dtype(dtype)
    wide = rounded.in_dtype(torch.float64)
    ours, theirs = rounded.results(rounded.ours), rounded.results(rounded.theirs)
    exact = wide.results(wide.theirs)
    if within(ours, theirs, exact):
        return ""
    departure = documented(wide)
    if departure is not None:
        heading, remedied = departure
        exact = wide.results(remedied)
        if within(ours, exact, exact):
            return heading
    away = max(float((a.double() - b).abs().max()) for a, b in zip(ours, exact, strict=True))
    return f"{UNEXPLAINED}: {away:.3g} away"


def many_heads(sample: Sample) -> str:
    try:
        sample.results(sample.ours)
    except ValueError:
        return MANY_HEADS
    return f"{UNEXPLAINED}: no error"


def within(ours: list[Tensor], theirs: list[Tensor], exact: list[Tensor]) -> bool:
    """|ours − exact| ≤ 3·|theirs − exact| + 8 units of rounding, for the value and each gradient."""
    for a, b, c in zip(ours, theirs, exact, strict=True):
        unit = torch.finfo(a.dtype).eps * max(1.0, float(c.abs().max()) if c.numel() else 0.0)
        if a.shape != c.shape or not ((a.double() - c).abs() <= 3 * (b.double() - c).abs() + 8 * unit).all():
            return False
    return True


# Tables


def sample_table() -> list[list[str]]:
    """A line for each kind of sample; each sample is run in four dtypes, or two."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for sample in pytorch_samples():
        for dtype in DTYPES:
            if "linear" in sample.source and dtype.itemsize < 4:
                continue  # rounding the matrix product is another question
            counts.setdefault(sample.kind(), Counter())[outcome(sample, dtype)] += 1
    lines = [["samples of", "target", "options", "reduction", "agree", "depart", "reason"]]
    for kind, found in sorted(counts.items()):
        agree = found.pop("", 0)
        reasons = "; ".join(
            reason if reason.startswith((UNEXPLAINED, MANY_HEADS)) else link(reason) for reason in found
        )
        lines.append([*kind, str(agree), str(sum(found.values())), reasons])
    return lines


def link(heading: str) -> str:
    if heading.startswith((UNEXPLAINED, MANY_HEADS)):
        return heading
    anchor = "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return f"[{heading}](departures.md#{anchor})"


def peer_table() -> list[list[str]]:
    lines = [["peer", "its call", "ours", "outcome"]]
    for peer, found in compared():
        if isinstance(found, str):
            lines.append([peer, "", "", found])
            continue
        lines += [[peer, f"`{each.call}`", each.ours, judged(each)] for each in found]
    return lines


def judged(each: Comparison) -> str:
    """A peer's result beside ours, to 1e-9, or to 1e-6 where it comes in float32."""
    found, ours = np.asarray(each.found), np.asarray(each.value)
    if found.shape != ours.shape:
        return f"{UNEXPLAINED}: another shape"
    tolerance = 1e-6 if found.dtype == np.float32 else 1e-9
    if np.allclose(found, ours, tolerance, tolerance / 10):
        return "agrees"
    if each.departed is not None and np.allclose(found, np.asarray(each.departed), tolerance, tolerance / 10):
        return f"departs: {each.reason}"
    return f"{UNEXPLAINED}: {np.abs(found - ours).max():.3g} away"


def table(lines: list[list[str]]) -> str:
    head, *body = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def report() -> str:
    packages = ("torch", "numpy")
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages)
    return (
        f"### PyTorch's samples\n\n{table(sample_table())}\n\n"
        f"### Losses shared with other libraries\n\n{table(peer_table())}\n\n"
        f"Written by `python -m benchmarks.conformance --write`; {versions}, "
        f"python {platform.python_version()}, {platform.system()} {platform.machine()}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="write the tables between the markers of the page"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = report()
    print(text)
    if options.write:
        page = options.page.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        options.page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 1 if UNEXPLAINED in text else 0


if __name__ == "__main__":
    sys.exit(main())
