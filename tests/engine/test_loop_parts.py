"""Parts of a loop of one's own; the loop itself is tests/examples/test_accelerate_loop.py."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config

from lmtrain.engine.batches.collate import Collate, EpochExamples
from lmtrain.engine.loop_parts import StepLoss, load_checkpoint, save_checkpoint
from lmtrain.objectives import Causal
from tiny import MemoryLayout, gpt2, llama, rows, weights


def batch(count: int = 4) -> dict[str, torch.Tensor]:
    return Collate(Causal())(EpochExamples(MemoryLayout(rows(8))).__getitems__(range(count)))


def test_dropout_follows_from_the_counters_alone() -> None:
    model = gpt2(dropout=0.3)
    loss = StepLoss(model, Causal(), batch(), seed=7)
    model.train()

    def of(**counters: int) -> float:
        return loss(model, batch(), **counters).loss.item()

    first = of(step=3, micro=1, rank=0)
    torch.rand(5)
    assert of(step=3, micro=1, rank=0) == first
    others = [of(step=4, micro=1), of(step=3, micro=0), of(step=3, micro=1, rank=1)]
    assert len({first, *others}) == 4
    model.eval()
    assert loss(model, batch()).loss.item() == pytest.approx(of(step=0), rel=1e-6)  # nothing is dropped
    assert loss(model, batch()).loss.dtype == torch.float64


def test_the_sums_are_those_of_the_model_itself() -> None:
    model = llama()
    sums = StepLoss(model, Causal(), batch())(model, batch(), step=0)
    expected = model(**batch()).loss
    assert (sums.loss / sums.count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(weight.grad is None for weight in model.parameters())  # trying it left nothing


def test_a_checkpoint_brings_back_weights_and_optimizer(tmp_path: Path) -> None:
    def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            model(**batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    model = gpt2()  # its head is tied to its embedding, and saved once
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    assert load_checkpoint(tmp_path, model, optimizer=optimizer) == 0
    trained(model, optimizer, 2)
    save_checkpoint(tmp_path, 2, model, optimizer=optimizer)
    trained(model, optimizer, 2)

    other = gpt2(seed=5)
    wider = type(other)(GPT2Config(vocab_size=other.config.vocab_size, n_embd=64, n_layer=2, n_head=4))
    again = torch.optim.AdamW(other.parameters(), lr=1e-2)
    assert load_checkpoint(tmp_path, other, optimizer=again) == 2
    trained(other, again, 2)
    assert all(torch.equal(weights(other)[name], value) for name, value in weights(model).items())
    with pytest.raises(ValueError, match=r"checkpoint-2 is another model's: "):
        load_checkpoint(tmp_path, llama())
    with pytest.raises(ValueError, match=r"checkpoint-2 is another model's: .* size mismatch"):
        load_checkpoint(tmp_path, wider)
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"cut off")
    assert load_checkpoint(tmp_path, other, optimizer=again) == 0  # it does not verify
