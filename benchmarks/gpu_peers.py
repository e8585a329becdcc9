"""What benchmarks.gpu compares: our losses and their peers, from logits and from hidden states."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import infoloss as il
from benchmarks.kernels import usual_min_ent, usual_squentropy
from benchmarks.linear import chunked, per_token, per_token_blocks

Loss = Callable[..., Tensor]
Peers = dict[str, dict[str, Loss | None]]
"""Peers of each of ours, None where they are not installed."""
LOSSES = ("cross_entropy", "min_ent", "squentropy")
WITH_TERMS = "cross_entropy + 0.1*entropy + z_loss"
OVER = ", over the logits"
TOKENS = "log-probability, entropy"
LIGER = "Liger" + OVER  # in its forward pass
LIGER_HEAD = ("liger_kernel.transformers.functional", "liger_fused_linear_cross_entropy")


def optional(module: str, name: str, **options: Any) -> Any:
    """Something of a package that may be missing; None, and said, where it is."""
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # or has no device here
        print(f"left out: {module}.{name}: {error}", file=sys.stderr)
        return None
    return partial(found, **options)


def compiled(code: Loss) -> Loss:
    return torch.compile(code, backend="inductor" if torch.cuda.is_available() else "eager")


def usual_tokens(z: Tensor, y: Tensor) -> Tensor:
    log_q = torch.log_softmax(z, -1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    return (log_q.gather(-1, y[:, None]).squeeze(-1) + 0.1 * entropy).sum()


def our_tokens(z: Tensor, y: Tensor) -> Tensor:
    found = il.row_statistics(z, y, needs=("lse", "target_logit", "expected_logit"))
    entropy = found["lse"] - found["expected_logit"]
    return (found["target_logit"] - found["lse"] + 0.1 * entropy).sum()


def from_logits() -> tuple[dict[str, Loss], Peers]:
    """Functions of (logits, target)."""
    usual: dict[str, Loss] = {
        "cross_entropy": F.cross_entropy,
        "min_ent": usual_min_ent,
        "squentropy": usual_squentropy,
        TOKENS: usual_tokens,
    }
    ours: dict[str, Loss] = {name: il.parse(name) for name in LOSSES} | {TOKENS: our_tokens}
    peers: Peers = {
        name: {"the usual code": code, "torch.compile of it": compiled(code)} for name, code in usual.items()
    }
    peers["cross_entropy"] |= {
        LIGER: optional("liger_kernel.transformers.functional", "liger_cross_entropy"),
        "quack": optional("quack.cross_entropy", "cross_entropy"),
    }
    for name in LOSSES:
        ours[name + OVER] = partial(il.parse(name), overwrite_logits=True)
        peers[name + OVER] = {"ours, beside them": ours[name]}
    peers["cross_entropy" + OVER] |= {
        LIGER: peers["cross_entropy"][LIGER],
        "quack" + OVER: optional("quack.cross_entropy", "cross_entropy", inplace_backward=True),
    }
    return ours, peers


def from_hidden() -> tuple[dict[str, Loss], Peers]:
    """Functions of (hidden, weight, target)."""
    usual: dict[str, Loss | None] = {
        "F.linear, F.cross_entropy": unfused,
        "torch.compile of it": compiled(unfused),
        "F.linear_cross_entropy": chunked,
        "Liger": optional(*LIGER_HEAD),
        "Liger, sums in float32": optional(*LIGER_HEAD, accum_dtype=torch.float32),
        "cut-cross-entropy": optional("cut_cross_entropy", "linear_cross_entropy"),
        "cut-cross-entropy, exact": optional("cut_cross_entropy", "linear_cross_entropy", filter_eps=None),
        "quack": optional("quack.linear_cross_entropy", "chunked_linear_cross_entropy"),
    }
    alone = il.cross_entropy().linear
    ours: dict[str, Loss] = {
        "cross_entropy": alone,
        WITH_TERMS: il.parse(WITH_TERMS).linear,
        TOKENS: per_token_blocks,
    }
    peers: Peers = {
        "cross_entropy": usual,
        WITH_TERMS: {"our cross_entropy": alone, **usual},
        TOKENS: {"F.linear, log_softmax": per_token, "torch.compile of it": compiled(per_token)},
    }
    return ours, peers


def unfused(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h, w), y)
