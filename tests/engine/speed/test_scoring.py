"""The head at the predicted positions alone gives the model's own loss and gradients, or is not used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from architectures import CAUSAL, HEADS, MASKED, VOCABULARY, tiny
from lmtrain.engine.speed.fast_paths import choose_scoring
from lmtrain.engine.speed.proof import prove_scoring
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models.head import Head, find_head
from lmtrain.objectives import IGNORED, Causal, Labelled, Objective, model_loss_sums
from lmtrain.objectives.linear_cross_entropy import PLAIN, choose, kernel


def batch_of(kind: str, length: int = 12) -> tuple[dict[str, torch.Tensor], Objective]:
    """Three rows, one of them shorter; of a masked model every fifth position is predicted."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, VOCABULARY, (3, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length - 4 :] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    if kind not in MASKED:
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}, Causal()
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    chosen[:, ::5] = True
    labels = labels.masked_fill(~chosen, IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}, Labelled(shifted=False)


@pytest.mark.parametrize("kind", [*CAUSAL, *HEADS, *MASKED])
def test_every_architecture_proves_itself(kind: str) -> None:
    model = tiny(kind)
    batch, objective = batch_of(kind)
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_with_an_adapter(kind: str) -> None:
    peft: Any = pytest.importorskip("peft")
    targets = {"gpt2": ["c_attn"], "llama": ["q_proj"], "bert": ["query"]}[kind]
    model = peft.get_peft_model(tiny(kind), peft.LoraConfig(r=2, target_modules=targets))
    batch, objective = batch_of(kind)
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None


def test_an_adapted_output_layer_is_left_alone() -> None:
    peft: Any = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(LookupError, match="no plain linear layer"):
        find_head(model)


def test_an_output_layer_trained_whole_beside_an_adapter() -> None:
    peft: Any = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(tiny("llama"), config)
    batch, objective = batch_of("llama")
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None


@pytest.mark.parametrize("change", [{"scale": 1.01}, {"softcap": 30.0}])
def test_a_head_read_wrongly_is_found_out(change: dict[str, float]) -> None:
    model = tiny("llama")
    batch, objective = batch_of("llama")
    head = find_head(model)
    wrong = Scoring(Head(head.body, head.output, **change))
    assert "loss" in str(prove_scoring(wrong, model, batch, objective))


@pytest.mark.parametrize("softcap", [None, 29.0])
def test_a_cap_read_wrongly_is_found_out_of_a_new_model_too(softcap: float | None) -> None:
    """Whose logits are so small that a cap does not show in them."""
    model = tiny("gemma2", final_logit_softcapping=30.0)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.01)
    batch, objective = batch_of("gemma2")
    head = find_head(model)
    assert prove_scoring(Scoring(head), model, batch, objective) is None
    wrong = Scoring(replace(head, softcap=softcap))
    assert prove_scoring(wrong, model, batch, objective) == "other logits once they are large"


def test_a_router_s_loss_is_trained_and_not_evaluated() -> None:
    model = tiny("mixtral")
    batch, objective = batch_of("mixtral")
    whole = model(**batch).loss
    tokens = torch.nn.functional.cross_entropy(
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].flatten(0, 1),
        batch["labels"][:, 1:].flatten(),
    )
    assert whole > tokens + 0.5
    for scoring in (Scoring(find_head(model)), Scoring()):
        assert prove_scoring(scoring, model, batch, objective) is None
        for weighted, expected in ((True, whole), (False, tokens)):
            sums = scoring(model, batch, objective, weighted=weighted)
            assert (sums.loss / sums.count).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_loss_that_is_not_that_of_the_logits_is_said() -> None:
    model = tiny("llama")
    batch, objective = batch_of("llama")
    forward = model.forward

    def with_more(*args: Any, **inputs: Any) -> Any:
        outputs = forward(*args, **inputs)
        outputs.loss = None if outputs.loss is None else outputs.loss + 0.25
        return outputs

    model.forward = with_more
    scoring, _, (line,) = choose_scoring(model, batch, objective, dtype=torch.float32)
    assert scoring.head is None
    assert "and so do all logits: the model's own loss is another one, which is not trained" in line


def test_rows_in_which_nothing_is_predicted_prove_nothing() -> None:
    model = tiny("llama")
    batch, objective = batch_of("llama")
    batch["labels"][:2] = IGNORED
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None
    batch["labels"][2] = IGNORED
    scoring, _, (line,) = choose_scoring(model, batch, objective, dtype=torch.float32)
    assert scoring.head is None and "nothing is predicted in the first examples" in line


def test_a_head_that_mixes_positions_is_found_out() -> None:
    class Mixing(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.inner(hidden + hidden.roll(1, dims=1))

    model = tiny("bert")
    model.cls.predictions.transform = Mixing(model.cls.predictions.transform)
    batch, objective = batch_of("bert")
    assert "loss" in str(prove_scoring(Scoring(find_head(model)), model, batch, objective))


def test_a_gradient_that_gets_lost_is_found_out() -> None:
    class Cutting(Scoring):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            assert self.head is not None
            self.head.output.requires_grad_(False)
            try:
                return super().__call__(*args, **kwargs)
            finally:
                self.head.output.requires_grad_(True)

    model = tiny("llama")
    batch, objective = batch_of("llama")
    assert "gradient of lm_head.weight" in str(prove_scoring(Cutting(find_head(model)), model, batch, objective))


def test_a_kernel_of_attention_that_knows_no_fp32_is_no_matter_of_the_head() -> None:
    """As flash kernels: they see the bf16 of autocast, and the proof the weights' fp32."""

    def refuses(module: nn.Module, query: torch.Tensor, *_: Any, **__: Any) -> None:
        raise RuntimeError(f"only 16 bits are supported, and these are {query.dtype}")

    AttentionInterface.register("sixteen_bits", refuses)
    model = tiny("llama")
    model.set_attn_implementation("sixteen_bits")
    batch, objective = batch_of("llama")
    with pytest.raises(RuntimeError, match="only 16 bits"):
        model(input_ids=batch["input_ids"])
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None
    assert model.config._attn_implementation == "sixteen_bits"


def test_the_model_is_as_before_even_when_scoring_fails() -> None:
    model = tiny("bert").train()
    batch, objective = batch_of("bert")
    head = find_head(model)
    broken = {**batch, "input_ids": batch["input_ids"] + 10_000}
    with pytest.raises(IndexError):
        Scoring(head)(model, broken, objective)
    assert "forward" not in vars(head.output)
    assert not head.body._forward_hooks
    assert model(input_ids=batch["input_ids"]).logits.shape == (3, 12, VOCABULARY)
    assert prove_scoring(Scoring(head), model, batch, objective) is None
    assert all(module.training for module in model.modules())


def test_a_batch_without_labels_still_reaches_every_weight() -> None:
    model = tiny("gpt2")
    batch, objective = batch_of("gpt2")
    batch["labels"] = torch.full_like(batch["labels"], IGNORED)
    sums = Scoring(find_head(model))(model, batch, objective)
    assert sums.loss.item() == 0 and sums.count.item() == 0
    sums.loss.backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "bert", "gemma2"])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.01)])
def test_smoothing_z_loss_accuracy_and_the_sums_type(kind: str, smoothing: float, z_loss: float) -> None:
    model = tiny(kind).eval()
    batch, objective = batch_of(kind)
    asked: dict[str, Any] = {
        "label_smoothing": smoothing,
        "z_loss": z_loss,
        "accuracy": True,
        "dtype": torch.float64,
    }
    with torch.no_grad():
        sums = Scoring(find_head(model))(model, batch, objective, **asked)
        plain, _ = model_loss_sums(model, batch, objective, **asked)
    assert sums.loss.dtype == torch.float64
    assert sums.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    assert (sums.count.item(), sums.correct.item()) == (plain.count.item(), plain.correct.item())


class LargestTensor(TorchDispatchMode):
    """Remembers how many values the largest tensor of the vocabulary's width has."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim >= 2 and tensor.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return result


def test_a_masked_model_makes_no_logits_where_nothing_is_predicted() -> None:
    model = tiny("bert", vocab_size=1000)
    batch, objective = batch_of("bert", length=45)
    predicted = int(objective.count(batch["labels"]))
    with LargestTensor(1000) as seen:
        Scoring(find_head(model))(model, batch, objective).loss.backward()
    width = 32  # rows of the weight, which is as wide as the vocabulary too
    assert max(width, predicted) >= seen.rows > 0
    assert batch["labels"].numel() > 3 * max(width, predicted)


def test_the_memory_of_an_evaluation_is_that_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where training makes all logits of its micro-batch, which is another batch than the evaluation's."""
    monkeypatch.setattr(choose, "_SMALL", 16 * 1000)
    monkeypatch.setattr(kernel, "_LOGITS_OF_A_CHUNK", {"cpu": 48 * 1000})
    model = tiny("llama", vocab_size=1000).eval()
    batch, objective = batch_of("llama", length=48)
    assert objective.count(batch["labels"]) > 2 * 48
    with LargestTensor(1000) as seen, torch.no_grad():
        Scoring(find_head(model), PLAIN)(model, batch, objective, accuracy=True)
    assert seen.rows == 48


def test_a_weight_that_was_made_narrow_ahead_gives_the_same() -> None:
    model = tiny("llama").eval()
    batch, objective = batch_of("llama")
    scoring = Scoring(find_head(model))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = (one(model, batch, objective).loss for one in (scoring.ahead(torch.bfloat16), scoring))
    assert found.item() == expected.item()
    wide = scoring.ahead(torch.bfloat16).weight
    assert wide is not None and wide.dtype == torch.bfloat16
    assert Scoring().ahead(torch.bfloat16) == Scoring()


def test_a_head_that_cannot_be_taken_apart_is_said() -> None:
    model = tiny("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    batch, objective = batch_of("llama")
    scoring, decisions, lines = choose_scoring(model, batch, objective, dtype=torch.float32)
    assert scoring.head is None and decisions["head"]["choice"] == "all positions"
    assert lines == [
        "all logits of every batch are made, which costs time and memory: its output layer is a Sequential, no plain "
        "linear layer"
    ]
