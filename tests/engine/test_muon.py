from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.engine import muon as muon_module
from lmtrain.engine.arguments import training_arguments
from lmtrain.engine.checkpoints.manifest import describe_files, read_manifest, write_manifest
from lmtrain.engine.muon import Muon, maker_of, muon_for, orthogonalize
from lmtrain.engine.speed.precision import Decision
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Masked
from tiny import VOCABULARY, MemoryLayout, arguments, bert, gpt2, rows, weights

TINY = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


def models() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_layer=2, n_head=2, n_embd=16, n_positions=32)),
        LlamaForCausalLM(LlamaConfig(**TINY, intermediate_size=24, max_position_embeddings=32)),
        BertForMaskedLM(BertConfig(**TINY, intermediate_size=24, max_position_embeddings=32)),
    ]


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_the_update_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, *shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 16), (8, 33), (40, 8)])
def test_oblong_matrices_come_out_as_from_the_plain_iteration(shape: tuple[int, int]) -> None:
    """Over the Gram matrix alone, with directions a thousand times weaker than others."""
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.logspace(0, -3, shape[1])
    plain = matrices.double()
    plain = plain / plain.norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = plain @ plain.mT
        plain = 3.4445 * plain + (-4.7750 * gram + 2.0315 * gram @ gram) @ plain
    torch.testing.assert_close(orthogonalize(matrices).double(), plain, rtol=0, atol=5e-4)


def test_bf16_iterates_with_the_whole_matrix() -> None:
    """The Gram matrix alone would not do: rounding grows by a factor of 500 where singular values are small."""
    torch.manual_seed(0)
    matrix = torch.randn(1, 8, 32) * torch.logspace(0, -2, 8)[:, None]
    values = torch.linalg.svdvals(orthogonalize(matrix, torch.bfloat16))
    assert values.min() > 0.3 and values.max() < 1.4


def test_the_update_is_near_the_nearest_orthogonal_matrix() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(12, 20)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    similarity = torch.nn.functional.cosine_similarity(orthogonalize(matrix[None]).flatten(), (u @ v).flatten(), dim=0)
    assert similarity > 0.97


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_every_parameter_is_in_one_group_and_embeddings_are_not_orthogonalized(model: torch.nn.Module) -> None:
    optimizer = muon_for(model)
    owners = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(owners) == len(set(owners))
    assert set(owners) == set(model.parameters())
    muon = {p for group in optimizer.param_groups if group["kind"] == "muon" for p in group["params"]}
    assert muon, "the layers have matrices"
    assert all(p.ndim == 2 for p in muon)
    outside = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    assert not muon & outside
    plain = [g for g in optimizer.param_groups if g["kind"] == "adamw" and g["weight_decay"] == 0]
    assert all(p.ndim < 2 for group in plain for p in group["params"] if group is plain[-1])


def test_the_rest_is_stepped_as_torch_steps_adamw() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4))]
    theirs = copy.deepcopy(ours)
    settings = {"betas": (0.9, 0.95), "eps": 1e-8}
    a = Muon([], ours[:1], ours[1:], lr=0.04, adam_ratio=0.25, weight_decay=0.1, **settings)
    b = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:], "weight_decay": 0.0}], lr=0.01, **settings
    )
    for _ in range(5):
        for left, right in zip(ours, theirs, strict=True):
            left.grad = torch.randn_like(left)
            right.grad = left.grad.clone()
        a.step()
        b.step()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_the_matrices_are_stepped_as_torch_steps_muon(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch's rounds, which would hide what differs
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = copy.deepcopy(ours)
    a = Muon([(ours, True)], [], [], lr=0.02, momentum=0.9, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_conv1d_is_stepped_as_the_linear_layer_it_is() -> None:
    """GPT-2 stores its matrices transposed; that must not change what is learned."""
    torch.manual_seed(0)
    linear = torch.nn.Parameter(torch.randn(24, 8))
    conv = torch.nn.Parameter(linear.detach().T.clone())
    a, b = Muon([(linear, True)], [], []), Muon([(conv, False)], [], [])
    for _ in range(3):
        linear.grad = torch.randn_like(linear)
        conv.grad = linear.grad.T.clone()
        a.step()
        b.step()
    torch.testing.assert_close(linear, conv.T, rtol=1e-5, atol=1e-6)


def test_many_matrices_together_are_stepped_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> list[torch.Tensor]:
        model = models()[0]
        optimizer = muon_for(model, weight_decay=0.1)
        for step in range(2):
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    together = stepped()
    monkeypatch.setattr(muon_module, "_TOGETHER", 1)
    for left, right in zip(together, stepped(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


def _made(folder: Path, **training: Any) -> tuple[Any, Any]:
    """The arguments and the optimizer's maker of a run with these options."""
    training = {"output_dir": str(folder), **training}
    resolved = Resolved(
        "clm", ModelOptions(), DataOptions(train_file=["t"]), MaskingOptions(), RunOptions(), training, frozenset()
    )
    precision = Decision("fp32", "")
    return training_arguments(resolved, precision), maker_of(resolved.training, precision.name)


def test_one_learning_rate_sets_both_and_has_a_default_of_its_own(tmp_path: Path) -> None:
    def rates(**training: Any) -> tuple[float, set[float], set[float]]:
        args, make = _made(tmp_path, optim="muon", **training)
        groups = make(gpt2()).param_groups
        return (
            args.learning_rate,
            {group["lr"] for group in groups if group["kind"] == "muon"},
            {group["lr"] for group in groups if group["kind"] == "adamw"},
        )

    assert rates() == (0.02, {0.02}, {0.005})
    assert rates(learning_rate=0.01) == (0.01, {0.01}, {0.0025})
    assert rates(learning_rate=0.01, optim_args="adam_ratio=0.5") == (0.01, {0.01}, {0.005})


def test_the_flags_of_adamw_are_those_of_its_half(tmp_path: Path) -> None:
    _, make = _made(tmp_path, optim="muon", adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6, weight_decay=0.3)
    optimizer = make(gpt2())
    adamw = [group for group in optimizer.param_groups if group["kind"] == "adamw"]
    assert {(group["betas"], group["eps"]) for group in adamw} == {((0.8, 0.9), 1e-6)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3, 0.0]
    assert maker_of({"optim": "adamw_torch"}, "fp32") is None


def test_bf16_runs_iterate_in_bf16_and_fp16_runs_do_not() -> None:
    found = {name: maker_of({"optim": "muon"}, name)(gpt2())._dtype for name in ("fp32", "bf16", "fp16")}
    assert found == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float32}


def _trainer(kind: str, folder: Path, **options: Any) -> LMTrainer:
    settings = {"max_steps": 6, "per_device_train_batch_size": 4, "weight_decay": 0.1, "learning_rate": 0.02}
    args = arguments(folder, **{**settings, "lr_scheduler_type": "cosine", "warmup_steps": 2, **options})
    causal = kind == "clm"
    return LMTrainer(
        gpt2(dropout=0.1) if causal else bert(),
        args,
        MemoryLayout(rows(24, shortest=6)),
        objective=Causal() if causal else Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3),
        make_optimizer=maker_of({"optim": "muon", "weight_decay": 0.1}, "bf16" if args.bf16 else "fp32"),
    )


@pytest.mark.parametrize("kind", ["clm", "mlm"])
def test_a_resumed_run_ends_in_the_same_weights_to_the_bit(kind: str, tmp_path: Path) -> None:
    whole = _trainer(kind, tmp_path, save_strategy="steps", save_steps=3)
    whole.train()
    resumed = _trainer(kind, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    ends = weights(resumed.model)
    for name, expected in weights(whole.model).items():
        assert torch.equal(ends[name], expected), name


def test_resuming_without_the_momentum_would_show(tmp_path: Path) -> None:
    """The test above can fail: an optimizer that begins anew ends in other weights."""
    whole = _trainer("clm", tmp_path, save_strategy="steps", save_steps=3)
    whole.train()
    forgetful = _trainer("clm", tmp_path / "resumed")
    state = torch.load(tmp_path / "checkpoint-3" / "optimizer.pt", weights_only=True)
    torch.save({**state, "state": {}}, tmp_path / "checkpoint-3" / "optimizer.pt")
    manifest = read_manifest(tmp_path / "checkpoint-3")
    write_manifest(tmp_path / "checkpoint-3", {**manifest, "files": describe_files(tmp_path / "checkpoint-3")})
    forgetful.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    ends = weights(forgetful.model)
    assert any(not torch.equal(ends[name], expected) for name, expected in weights(whole.model).items())


def test_the_schedule_moves_both_rates_and_the_loss_falls(tmp_path: Path) -> None:
    trainer = _trainer("clm", tmp_path, max_steps=30, lr_scheduler_type="linear", warmup_steps=0)
    seen: list[tuple[float, float]] = []
    step = trainer.create_optimizer().step

    def watched(*args: Any, **kwargs: Any) -> Any:
        assert trainer.optimizer is not None
        groups = {group["kind"]: group["lr"] for group in trainer.optimizer.param_groups}
        seen.append((groups["muon"], groups["adamw"]))
        return step(*args, **kwargs)

    trainer.optimizer.step = watched
    trainer.train()
    assert [muon for muon, _ in seen] == pytest.approx([0.02 * (1 - n / 30) for n in range(30)])
    assert [adamw for _, adamw in seen] == pytest.approx([0.005 * (1 - n / 30) for n in range(30)])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_a_bf16_run_learns_as_an_fp32_run_does(tmp_path: Path) -> None:
    last = {}
    for name in ("fp32", "bf16"):
        trainer = _trainer("clm", tmp_path, max_steps=8, bf16=name == "bf16")
        trainer.train()
        last[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]
    assert last["bf16"] == pytest.approx(last["fp32"], rel=0.02)
