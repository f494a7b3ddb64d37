"""The sides of data_to_text.py: fine-tuning GPT-2 with LoRA on encoded pairs, each timed inside its own process.

python benchmarks/side_data_to_text.py OUT WARM STEPS SECONDS SIDE RECIPE.json

SIDE is ours (``lmtrain gpt2-ft``), original (the original's recipe: examples padded to 512, all logits, loralib; the
code is that of tests/parity) or stock (``transformers.Trainer`` with a PEFT adapter, padded to a batch's longest). All
see the same examples in the same order. RECIPE: see ``main`` in data_to_text.py.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lmtrain.cli.startup import heavy_imports

with heavy_imports() if sys.argv[5:6] == ["ours"] else nullcontext():  # as in a command
    import torch
    from clock import peak_bytes, watch, write


def pairs_of(file: str) -> list[tuple[list[int], list[int]]]:
    records = map(json.loads, Path(file).read_text().splitlines())
    return [(record["context"], record["completion"]) for record in records]


def ours(recipe: dict[str, Any], out: Path, warm: int, steps: int, seconds: float) -> None:
    from lmtrain.cli.main import main
    from lmtrain.core.runlog import read_events

    clock = watch(out, warm, steps, seconds)
    folder = Path(recipe["work_dir"])
    words = [
        *("--train_data", recipe["data"], "--valid_data", recipe["valid"], "--model_card", recipe["model"]),
        *("--train_batch_size", recipe["batch"], "--max_step", warm + steps, "--random_seed", recipe["seed"]),
        *("--lr", recipe["lr"], "--warmup_step", recipe["warmup"], "--correct_bias", "--adam_beta2", 0.999),
        *("--lora_dim", recipe["rank"], "--lora_alpha", recipe["alpha"], "--lora_dropout", recipe["dropout"]),
        *("--label_smooth", recipe["smoothing"], "--seq_len", recipe["length"], "--log_interval", recipe["log"]),
        *("--save_interval", 10**9, "--precision", recipe["precision"], "--work_dir", folder, "--overwrite_work_dir"),
    ]
    code = main(["gpt2-ft", *map(str, words)])
    if code:
        sys.exit(code)
    losses = [event["loss"] for event in read_events(folder / "metrics.jsonl") if event["event"] == "train"]
    write(out, {**clock.figures, "losses": losses})


def original(recipe: dict[str, Any], out: Path, warm: int, steps: int, seconds: float) -> None:
    """Its loop: the mean of a batch, Adam and a schedule of its own; fp32, as its README trains."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))
    from gpt2_ft_reference import Adam, Padded, Reference, Settings
    from torch.utils.data import DataLoader
    from torch.utils.data.distributed import DistributedSampler
    from transformers import GPT2LMHeadModel

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe["seed"])
    base = GPT2LMHeadModel.from_pretrained(recipe["model"])
    model = Reference(base.config, base.state_dict(), recipe["rank"], recipe["alpha"], recipe["dropout"]).to(device)
    del base
    data = Padded(pairs_of(recipe["data"]), recipe["batch"], recipe["length"])
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=recipe["seed"])
    loader = DataLoader(data, batch_size=recipe["batch"], sampler=sampler, drop_last=True)
    adam = Adam(model, Settings(decay=0.01, correct_bias=True, betas=(0.9, 0.999)))
    losses: list[float] = []
    ends: list[float] = []
    last, epoch = warm + steps, 0
    while len(ends) < last:
        epoch += 1
        sampler.set_epoch(epoch)
        for batch in loader:
            done = len(ends)
            rise = done / recipe["warmup"] if done < recipe["warmup"] else (last - done) / (last - recipe["warmup"])
            loss = model.loss({name: value.to(device) for name, value in batch.items()}, recipe["smoothing"])
            losses.append(loss.item())
            loss.backward()
            adam.step(recipe["lr"] * rise)
            model.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())
            late = len(ends) >= warm + 2 and ends[-1] - ends[warm - 1] > seconds
            if late or len(ends) >= last:
                figures = {"seconds": ends[-1] - ends[warm - 1], "steps": len(ends) - warm, "losses": losses}
                write(out, {**figures, "peak_bytes": peak_bytes()})
                return


def stock(recipe: dict[str, Any], out: Path, warm: int, steps: int, seconds: float) -> None:
    """PEFT as one writes it today: an adapter on ``c_attn``, of as many trained numbers in its A; fused AdamW, SDPA."""
    from peft import LoraConfig, get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import GPT2LMHeadModel, Trainer, TrainingArguments

    from lmtrain.recipes.gpt2_ft.order import RunOrder

    pairs = pairs_of(recipe["data"])
    order = RunOrder(len(pairs), recipe["batch"], warm + steps, recipe["seed"])
    rows = []
    for number in order:
        context, answer = pairs[number]
        labels = [-100] * len(context) + answer
        rows.append({"input_ids": (context + answer)[: recipe["length"]], "labels": labels[: recipe["length"]]})

    def collate(items: list[dict[str, list[int]]]) -> dict[str, Any]:
        def padded(name: str, filling: int) -> Any:
            return pad_sequence([torch.tensor(item[name]) for item in items], batch_first=True, padding_value=filling)

        mask = pad_sequence([torch.ones(len(item["input_ids"]), dtype=torch.int64) for item in items], batch_first=True)
        return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask}

    clock = watch(out, warm, steps, seconds)
    torch.manual_seed(recipe["seed"])
    model = GPT2LMHeadModel.from_pretrained(recipe["model"], attn_implementation="sdpa")
    adapter = LoraConfig(
        task_type="CAUSAL_LM", r=2 * recipe["rank"], lora_alpha=2 * recipe["alpha"], lora_dropout=recipe["dropout"],
        target_modules=["c_attn"], fan_in_fan_out=True,
    )  # fmt: skip
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True}
    arguments = TrainingArguments(
        output_dir=recipe["work_dir"], per_device_train_batch_size=recipe["batch"], max_steps=warm + steps,
        learning_rate=recipe["lr"], warmup_steps=recipe["warmup"], weight_decay=0.01, adam_beta2=0.999,
        adam_epsilon=1e-6, max_grad_norm=0.0, label_smoothing_factor=recipe["smoothing"],
        bf16=recipe["precision"] == "bf16",
        optim="adamw_torch_fused", train_sampling_strategy="sequential", logging_steps=recipe["log"],
        save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False, **cpu,
    )  # fmt: skip
    data: Any = rows
    Trainer(get_peft_model(model, adapter), arguments, train_dataset=data, data_collator=collate).train()
    write(out, clock.figures)


if __name__ == "__main__":
    out, warm, steps, seconds, side, recipe = sys.argv[1:]
    run = {"ours": ours, "original": original, "stock": stock}[side]
    run(json.loads(Path(recipe).read_text()), Path(out), int(warm), int(steps), float(seconds))
