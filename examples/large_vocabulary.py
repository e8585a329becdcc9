"""A language model with a large vocabulary in Hugging Face's Trainer, without its logits: losses and memory.

    python examples/large_vocabulary.py                      # beside the model's own loss
    python examples/large_vocabulary.py --loss 'cross_entropy + 0.1*entropy + z_loss'
    python examples/large_vocabulary.py --stock              # the model's own loss only
    python examples/large_vocabulary.py --write              # and the table into docs/large-vocabulary.md

Needs ``pip install 'infoloss[examples]'``. The model is small and random; nothing is downloaded. Each way
has a process of its own, since the peak of a process's memory only grows.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import infoloss as il

PAGE = Path(__file__).resolve().parent.parent / "docs" / "large-vocabulary.md"
BEGIN, END = "<!-- memory: begin -->", "<!-- memory: end -->"
ROWS, POSITIONS, ACCUMULATED, STEPS = 4, 512, 2, 2
"""Rows in a batch, tokens in a row, batches in a step, steps."""


def language_model(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )


def documents(vocabulary: int) -> list[dict[str, Tensor]]:
    """Random tokens; what stands behind a document's end is padding."""
    found = []
    for length in torch.linspace(POSITIONS // 2, POSITIONS, ROWS * ACCUMULATED * STEPS).long():
        tokens = torch.randint(vocabulary, (POSITIONS,))
        real = torch.arange(POSITIONS) < length
        found.append({"input_ids": tokens, "attention_mask": real.long(), "labels": tokens.where(real, -100)})
    return found


def hidden_batch(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch that asks the model for hidden states, and for the logits of no position."""
    nowhere = torch.empty(0, dtype=torch.long)
    return {**default_data_collator(rows), "logits_to_keep": nowhere, "output_hidden_states": True}


def without_logits(model: LlamaForCausalLM, term: str) -> dict[str, Any]:
    """What the Trainer gets to train ``model`` with a term instead of its own loss."""
    criterion = il.LinearCriterion(term, model.lm_head)

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        return criterion(outputs.hidden_states[-1], labels, shift=1, denominator=num_items_in_batch)

    return {"data_collator": hidden_batch, "compute_loss_func": loss}


def trained(vocabulary: int, term: str | None) -> tuple[list[float], str]:
    """The losses of the steps and the peak of the memory, with a term or, for None, the model's own loss."""
    model = language_model(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            gradient_accumulation_steps=ACCUMULATED,
            max_steps=STEPS,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        ours = {} if term is None else without_logits(model, term)
        trainer = Trainer(model, arguments, train_dataset=documents(vocabulary), **ours)
        trainer.remove_callback(PrinterCallback)
        before = memory()
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, added(before)


# Memory: of the device, or the resident set of the process


def memory() -> int:
    """Bytes in use now; the peak begins again here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def added(before: int) -> str:
    """How far the peak was above ``before``."""
    if torch.cuda.is_available():
        return f"{(torch.cuda.max_memory_allocated() - before) >> 20:,} MiB"
    return f"{(resident('VmHWM') - before) >> 20:,} MiB" if sys.platform == "linux" else "not measured"


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


# The table


def line(vocabulary: int, term: str | None) -> str:
    losses, peak = trained(vocabulary, term)
    way = "the model's own loss" if term is None else f"`{term}`, without logits"
    return f"| {way} | {', '.join(f'{loss:.4f}' for loss in losses)} | {peak} |"


def conditions(vocabulary: int) -> str:
    names = ("torch", "transformers", "accelerate")
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in names)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return (
        f"{vocabulary:,} tokens; {ROWS} × {POSITIONS} positions in a batch, whose logits are "
        f"{ROWS * POSITIONS * vocabulary * 4 >> 20:,} MiB; {ACCUMULATED} batches a step. Memory: above what "
        "was in use before training, gradients and AdamW's state included.\n"
        f"{device}, float32; {versions}, python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=128256, metavar="TOKENS")
    parser.add_argument("--loss", default="cross_entropy", metavar="EXPRESSION")
    parser.add_argument("--stock", action="store_true", help="the model's own loss only, in this process")
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    options = parser.parse_args()
    if options.stock:
        print(line(options.vocabulary, None))
        return
    stock = [sys.executable, __file__, "--stock", f"--vocabulary={options.vocabulary}"]
    lines = [
        "| trained with | loss of each step | peak memory |",
        "| --- | --- | --- |",
        line(options.vocabulary, options.loss),
        subprocess.check_output(stock, text=True).rstrip(),
    ]
    text = "\n".join([*lines, "", conditions(options.vocabulary)])
    print(text)
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
