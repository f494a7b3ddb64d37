"""``lmtrain gpt2-ft`` against the original's formulas on loralib: fifty losses, rates and validations, in fp32."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gpt2_ft_reference import Padded, Pair, Reference, Settings, Trace, train
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions
from lmtrain.core.console import silent
from lmtrain.core.runlog import read_events
from lmtrain.data.layouts import Pairs
from lmtrain.engine.speed.precision import Decision
from lmtrain.models.adapters.loralib import adapter_of, read_loralib
from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora
from lmtrain.recipes.gpt2_ft.model import new_model
from lmtrain.recipes.gpt2_ft.run import make_trainer, run_gpt2_ft
from lmtrain.recipes.gpt2_ft.trainer import Gpt2FtTrainer
from tiny import VOCABULARY, gpt2

RANK, ALPHA, LENGTH = 4, 32, 24
FP32 = Decision("fp32", "the test's")


def pairs(count: int, seed: int) -> list[Pair]:
    """Of uneven length, some longer than LENGTH."""
    random = np.random.default_rng(seed)

    def ids(least: int, most: int) -> list[int]:
        return random.integers(1, VOCABULARY, random.integers(least, most)).tolist()

    return [(ids(1, 18), ids(1, 20)) for _ in range(count)]


TRAIN, VALID = pairs(13, 1), pairs(9, 2)  # in batches of 4 both have three places to fill


def layout(data: list[Pair]) -> Pairs:
    made = Pairs.from_ids([context for context, _ in data], [answer for _, answer in data], LENGTH)
    assert made.n_cut and not made.n_left_out
    return made


def linear(done: int) -> float:
    return 0.01 * (done / 5 if done < 5 else max(0.0, (60 - done) / 55))


def cosine(done: int) -> float:
    return 0.01 * done / 5 if done < 5 else 0.01 * 0.5 * (1 + math.cos(math.pi * done / 50))


def cycle(done: int) -> float:
    if done < 10:
        return 0.001 + 0.009 * done / (10 + 1e-6)
    return 0.01 - 0.008 * (done - 10) / (40 + 1e-6) if done < 50 else 0.002


CASES: dict[str, tuple[dict[str, Any], Settings]] = {
    "linear, bias corrected, smoothed": (
        {"scheduler": "linear", "warmup_step": 5, "max_step": 60, "max_epoch": 12, "correct_bias": True,
         "label_smooth": 0.1},
        Settings(schedule=linear, correct_bias=True, smoothing=0.1, micro_batches=48),
    ),
    "cosine, windows of 3, smoothed, strong decay": (
        {"scheduler": "cosine", "warmup_step": 5, "grad_acc": 3, "label_smooth": 0.2, "weight_decay": 1.0},
        Settings(schedule=cosine, accumulation=3, smoothing=0.2, decay=1.0),
    ),
    "cycle, windows of 3, joint, clipped": (
        {"scheduler": "cycle", "i_steps": "0,10,50", "i_lrs": "0.001,0.01,0.002", "grad_acc": 3, "obj": "jlm",
         "clip": 0.2, "max_step": None},
        Settings(schedule=cycle, accumulation=3, joint=True, clip=0.2),
    ),
    "constant, joint, no decay, other betas": (
        {"scheduler": "constant", "warmup_step": 4, "obj": "jlm", "weight_decay": 0.0, "adam_beta1": 0.8,
         "adam_beta2": 0.9, "adam_epislon": 1e-4, "label_smooth": 0.0001, "random_seed": 7},
        Settings(schedule=lambda done: 0.01 * min(1.0, done / 4), joint=True, decay=0.0, betas=(0.8, 0.9), eps=1e-4,
                 seed=7),
    ),
    "cosine from the first micro-batch on": (
        {"scheduler": "cosine"},
        Settings(schedule=lambda done: 0.005 * (1 + math.cos(math.pi * done / 50)) if done else 0.0, micro_batches=50),
    ),
    "a name without a schedule, one example at a time": (  # few labels: what is added to their number shows
        {"scheduler": "inv_sqrt", "warmup_step": 4, "grad_acc": 2, "correct_bias": True, "train_batch_size": 1},
        Settings(accumulation=2, correct_bias=True, batch=1),
    ),
    "all weights": (
        {"scheduler": "constant", "lora_dim": 0, "lr": 1e-3, "no_decay_bias": True, "weight_decay": 0.5, "clip": 1.0,
         "correct_bias": True},
        Settings(rank=0, rate=1e-3, schedule=lambda done: 1e-3, decay=0.5, no_decay_bias=True, clip=1.0,
                 correct_bias=True),
    ),
}  # fmt: skip


def twins(rank: int, seed: int = 3) -> tuple[Any, Reference]:
    """Ours and the reference, with the same weights; loralib's are those drawn for ours."""
    base = gpt2()
    torch.manual_seed(seed)
    reference = Reference(base.config, base.state_dict(), rank, ALPHA)
    if not rank:
        return base, reference
    ours = merged_lora(base, rank, ALPHA, 0.0)
    with torch.no_grad():
        for mine, theirs in zip(adapted_attention(ours), reference.transformer.h, strict=True):
            theirs.attn.c_attn.lora_A.copy_(mine.lora_A["default"].weight)
    return ours, reference


class Watcher:
    """An observer that writes down what the reference does."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.trainer: Gpt2FtTrainer | None = None
        self.used: list[float] = []

    def begin(self, micro_batch: int) -> None:
        assert micro_batch == 0

    def after(self, micro_batch: int, rate: float, loss: Tensor) -> None:
        assert self.trainer is not None
        self.trace.losses.append(loss.item())
        self.trace.rates.append(rate)
        assert {group["lr"] for group in self.trainer.optimizer.param_groups} == {rate}
        if micro_batch % 20 == 0:
            self.trace.validations.append(self.trainer.validation_loss(micro_batch // 20 - 1))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing was resumed")


def options(folder: Path, **changes: Any) -> Gpt2FtOptions:
    values = {
        "train_batch_size": 4, "seq_len": LENGTH, "lr": 0.01, "lora_dim": RANK, "lora_alpha": ALPHA, "max_step": 50,
        "save_interval": 10**6, "work_dir": str(folder),
    }  # fmt: skip
    return Gpt2FtOptions(**{**values, **changes})


@pytest.mark.parametrize("case", CASES)
def test_losses_rates_and_validations_are_the_originals(case: str, tmp_path: Path) -> None:
    flags, settings = CASES[case]
    ours, reference = twins(settings.rank)
    theirs = train(reference, TRAIN, VALID, settings)
    watcher = Watcher()
    trainer = make_trainer(options(tmp_path, **flags), ours, layout(TRAIN), layout(VALID), FP32, watcher)
    watcher.trainer = trainer
    trainer.train()
    assert trainer.fast_paths.packing is not None  # rows end to end, not 24 wide
    assert trainer.fast_paths.scoring.head is not None
    mine = watcher.trace
    assert len(theirs.losses) == settings.micro_batches
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-5)
    assert mine.rates == pytest.approx(theirs.rates, rel=1e-9, abs=1e-15)
    assert mine.validations == pytest.approx(theirs.validations, rel=1e-5)
    assert len(theirs.validations) == 2
    assert theirs.updates == settings.micro_batches // settings.accumulation
    assert abs(theirs.losses[-1] - theirs.losses[0]) > 0.05  # something was learned to compare
    if settings.rank:
        _compare_adapters(ours, reference)


def _compare_adapters(ours: Any, reference: Reference) -> None:
    for mine, theirs in zip(adapted_attention(ours.cpu()), reference.transformer.h, strict=True):
        second, width = mine.lora_B["default"].weight, 32
        lora = theirs.attn.c_attn
        torch.testing.assert_close(mine.lora_A["default"].weight, lora.lora_A, rtol=0, atol=1e-4)
        torch.testing.assert_close(second[:width, :RANK], lora.lora_B[:width], rtol=0, atol=1e-4)
        torch.testing.assert_close(second[2 * width :, RANK:], lora.lora_B[width:], rtol=0, atol=1e-4)
        assert not second[width : 2 * width].any()  # the keys'
        assert not second[:width, RANK:].any() and not second[2 * width :, :RANK].any()
        assert second[:width, :RANK].any() and second[2 * width :, RANK:].any()


# ---- through the command -------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A GPT-2 for ``--model_card`` and the encoded pairs."""
    gpt2().save_pretrained(tmp_path / "gpt2")
    for name, data in (("train", TRAIN), ("valid", VALID)):
        lines = [json.dumps({"context": context, "completion": answer}) for context, answer in data]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def command(files: Path, **changes: Any) -> Gpt2FtOptions:
    values = {
        "train_data": str(files / "train.jsonl"), "valid_data": str(files / "valid.jsonl"), "log_interval": 1,
        "model_card": str(files / "gpt2"), "save_interval": 6, "eval_interval": 20, "label_smooth": 0.1, "grad_acc": 3,
        "max_step": None, "max_epoch": 5, "correct_bias": True,
    }  # fmt: skip
    return options(files / "run", **{**values, **changes})


def test_the_command_leaves_checkpoints_that_the_reference_reads(files: Path, capsys: Any) -> None:
    run_gpt2_ft(command(files), say=silent)
    folder = files / "run"
    saved = {path.name for path in folder.glob("model.*.pt")}
    assert saved == {f"model.{number}.pt" for number in (4, 6, 8, 12, 16, 18, 20)}  # every 6, and every epoch's end
    lora, whole = (torch.load(folder / f"model.{number}.pt")["model_state_dict"] for number in (18, 20))
    assert set(lora) == {name for name in whole if "lora_" in name}  # the LoRA tensors alone

    base = gpt2()
    reference = Reference(base.config, base.state_dict(), RANK, ALPHA)
    before = [reference.transformer.h[0].attn.c_attn.lora_B.clone(), reference(ids := torch.tensor([TRAIN[0][0]]))]
    load(reference, whole, strict=True)
    told = [event for event in read_events(folder / "metrics.jsonl") if event["event"] in ("train", "evaluation")]
    with torch.no_grad():
        losses = [reference.loss(batch).item() for batch in validation()]
        logits = reference(ids)
    # No update follows that of micro-batch 18: both files hold the same adapter, and the validation at 20 is its.
    assert told[-1]["step"] == 20
    assert told[-1]["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert not torch.equal(before[0], reference.transformer.h[0].attn.c_attn.lora_B)
    fresh = Reference(base.config, base.state_dict(), RANK, ALPHA)
    load(fresh, lora, strict=False)
    torch.testing.assert_close(fresh(ids), logits, rtol=0, atol=0)
    assert (logits - before[1]).abs().max() > 0.1
    ours = adapter_of(read_loralib(folder / "model.18.pt", "--x"), gpt2(), ALPHA, "--x")
    torch.testing.assert_close(ours(ids).logits, logits, rtol=1e-5, atol=1e-5)

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| epoch")]
    assert len(lines) == 20
    assert lines[5].startswith("| epoch   2 step        6 |      2 batches | lr 0.007 | ms/batch ")


def load(reference: Reference, tensors: dict[str, Tensor], *, strict: bool) -> None:
    taken = {name.removeprefix("module."): value for name, value in tensors.items()}
    assert reference.load_state_dict(taken, strict=strict).unexpected_keys == []


def validation() -> Any:
    """The batches of the first evaluation."""
    data = Padded(VALID, 4, LENGTH)
    order = DistributedSampler(data, num_replicas=1, rank=0, seed=10)
    return DataLoader(data, batch_size=4, sampler=order)


def test_its_losses_are_the_references_too(files: Path) -> None:
    run_gpt2_ft(command(files, obj="jlm", clip=0.3), say=silent)
    torch.manual_seed(3)
    base = gpt2()
    reference = Reference(base.config, base.state_dict(), RANK, ALPHA)
    transformers.set_seed(10)
    with torch.no_grad():  # A as the command drew it: after the seed, and B is zero
        for mine, theirs in zip(
            adapted_attention(new_model(command(files), silent).model), reference.transformer.h, strict=True
        ):
            theirs.attn.c_attn.lora_A.copy_(mine.lora_A["default"].weight)
    settings = Settings(
        joint=True, smoothing=0.1, accumulation=3, clip=0.3, correct_bias=True, micro_batches=20,
        schedule=lambda done: 0.01 * (1 - done / 20),
    )  # fmt: skip
    expected = train(reference, TRAIN, VALID, settings)
    told = list(read_events(files / "run" / "metrics.jsonl"))
    losses = [event["loss"] for event in told if event["event"] == "train"]
    assert losses == pytest.approx(expected.losses, rel=1e-5)
    rates = [event["learning_rate"] for event in told if event["event"] == "train"]
    assert rates == pytest.approx(expected.rates)
