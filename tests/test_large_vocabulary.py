"""A language model in Hugging Face's Trainer, trained from hidden states: docs/large-vocabulary.md."""

from __future__ import annotations

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import infoloss as il

transformers = pytest.importorskip("transformers", reason="needs transformers: infoloss[examples]")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate: infoloss[examples]")

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "large_vocabulary.py"
EXAMPLE = runpy.run_path(str(SCRIPT), run_name="example")
VOCABULARY, POSITIONS = 101, 12
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def llama(**config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, **config))


def gpt2() -> Any:
    torch.manual_seed(0)
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    tokens = {"bos_token_id": 1, "eos_token_id": 1}
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, **still, **tokens)
    return transformers.GPT2LMHeadModel(config)


def rows() -> list[dict[str, Tensor]]:
    """Four rows whose batches of two have 7 and 17 tokens to predict."""
    tokens = torch.randint(VOCABULARY, (4, POSITIONS), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    for label, length in zip(labels, (3, 6, 8, 11), strict=True):
        label[length:] = -100
    return [{"input_ids": one, "labels": label} for one, label in zip(tokens, labels, strict=True)]


def losses(model: Any, folder: Path, data: Any = None, steps: int = 1, **options: Any) -> list[float]:
    """The losses of steps of two batches each, in which ``model`` is trained by gradient descent."""
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=steps,
        logging_steps=1,
        optim="sgd",
        learning_rate=1.0,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        bf16=options.pop("bf16", False),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=data or rows(), **options)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def without_logits(model: Any, term: str = "cross_entropy") -> dict[str, Any]:
    return EXAMPLE["without_logits"](model, term)


def mean_gradients(model: Any, data: list[dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy of the logits of all rows at once: the mean over the tokens to predict, its gradient."""
    tokens, labels = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    logits = model(tokens).logits[:, :-1]
    loss = F.cross_entropy(logits.reshape(-1, VOCABULARY), labels[:, 1:].reshape(-1))
    names, parameters = zip(*model.named_parameters(), strict=True)
    return loss.detach(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def check_step(model: Any, data: list[dict[str, Tensor]], folder: Path) -> None:
    """One step with learning rate 1 takes the gradient of all rows' mean away from the parameters."""
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    expected, gradients = mean_gradients(model, data)
    (found,) = losses(model, folder, data, **without_logits(model))
    assert found == pytest.approx(float(expected), rel=1e-6)  # the Trainer's own sum is float32
    for name, one in model.named_parameters():
        torch.testing.assert_close(
            before[name] - one.detach(), gradients[name], rtol=1e-9, atol=1e-14, msg=name
        )


@pytest.mark.parametrize("tied", [False, True])
def test_accumulated_batches_have_the_gradient_of_one(tied: bool, tmp_path: Path) -> None:
    check_step(llama(tie_word_embeddings=tied).double(), rows(), tmp_path)


def test_a_first_label_that_is_ignored_gives_every_model_the_right_mean(tmp_path: Path) -> None:
    """The Trainer counts it for models whose class is not called …ForCausalLM."""
    data = rows()
    with pytest.raises(AssertionError):
        check_step(gpt2().double(), data, tmp_path)
    for row in data:
        row["labels"][0] = -100
    check_step(gpt2().double(), data, tmp_path)


def test_training_is_that_of_the_models_own_loss(tmp_path: Path) -> None:
    ours, stock = llama(), llama()
    found = losses(ours, tmp_path, steps=3, **without_logits(ours))
    assert found == pytest.approx(losses(stock, tmp_path, steps=3), rel=1e-6)
    for one, other in zip(ours.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.detach().abs().max()))


def test_the_head_computes_no_logit(tmp_path: Path) -> None:
    model, shapes = llama(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    losses(model, tmp_path, **without_logits(model))
    assert shapes == [(2, 0, VOCABULARY)] * 2


def test_bfloat16_wants_autocast(tmp_path: Path) -> None:
    """The Trainer makes the hidden states of bfloat16 weights float32."""
    ours, stock = llama().bfloat16(), llama().bfloat16()
    options = without_logits(ours)
    with pytest.raises(TypeError, match="one floating-point dtype"):
        losses(ours, tmp_path, bf16=True, **options)
    plain = options.pop("compute_loss_func")

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        with torch.autocast(labels.device.type, torch.bfloat16):
            return plain(outputs, labels, num_items_in_batch)

    found = losses(ours, tmp_path, bf16=True, compute_loss_func=loss, **options)
    assert found == pytest.approx(losses(stock, tmp_path, bf16=True), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "term"),
    [
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 0.05}, "soft_capped(cross_entropy, 0.05)"),
        ("Granite", {"logits_scaling": 0.125}, "scaled(cross_entropy, 8.0)"),
    ],
)
def test_what_a_model_does_to_its_logits_is_said_of_the_term(
    name: str, options: dict[str, Any], term: str
) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SMALL, **options)
    model: nn.Module = getattr(transformers, f"{name}ForCausalLM")(config)
    batch = EXAMPLE["hidden_batch"](rows())
    labels = batch.pop("labels")
    with torch.no_grad():
        hidden = model(**batch).hidden_states[-1]
        stock = model(batch["input_ids"], labels=labels).loss
        for said, agrees in ((term, True), ("cross_entropy", False)):
            found = il.LinearCriterion(said, model.lm_head)(hidden, labels, shift=1)
            assert (float(found) == pytest.approx(float(stock), rel=1e-6)) is agrees


# The script and the page


def test_the_script() -> None:
    command = [sys.executable, str(SCRIPT), "--vocabulary=500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    _, _, ours, stock, *_ = [re.split(r" *\| *", line.strip("| ")) for line in done.stdout.splitlines()]
    assert (ours[0], stock[0]) == ("`cross_entropy`, without logits", "the model's own loss")
    assert ours[1] == stock[1]
    assert all(0 < float(loss) < 7 for loss in ours[1].split(", "))  # ln 500 = 6.2


@pytest.mark.filterwarnings("ignore:.*pin_memory")  # the Trainer's default, on a machine without a GPU
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "large-vocabulary.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    L = math.log(1000)  # of a model that knows nothing: its cross entropy, entropy and lse
    assert names["trained"].training_loss == pytest.approx(L + 0.1 * L + 1e-4 * L**2, rel=0.01)
