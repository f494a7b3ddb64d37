"""A training loop in the open: Accelerate runs it; tokens, order, loss and checkpoints are lmtrain's.

    python examples/accelerate_loop.py                          # in miniature, in seconds, without a download
    python examples/accelerate_loop.py --model_name_or_path ./gpt2 --train_file book.txt --output_dir runs/book
    accelerate launch --num_processes 2 examples/accelerate_loop.py --train_file ...

It makes the steps of ``LMTrainer``, to the bit, also on several processes, and also when it was stopped and started
again: order and dropout follow from the seed and the step. For BERT and its kin take ``AutoModelForMaskedLM`` and
``lmtrain.Masked.for_tokenizer(tokenizer)``.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

import lmtrain
import miniature


def main() -> None:
    options = arguments()
    accelerator = Accelerator(cpu=options.use_cpu)
    rank, world = accelerator.process_index, accelerator.num_processes
    output = Path(options.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        if options.model_name_or_path is None:
            options.model_name_or_path = miniature.gpt2(output / "miniature")
        if options.train_file is None:
            options.train_file, options.validation_file = miniature.text_files(output / "miniature")
        tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
        model = AutoModelForCausalLM.from_pretrained(options.model_name_or_path, dtype=torch.float32)
        data = lmtrain.prepare(tokenizer, train_file=options.train_file, validation_file=options.validation_file,
                               block_size=options.block_size, seed=options.seed).splits  # fmt: skip
    objective = lmtrain.Causal()
    model.to(accelerator.device)

    def loader(layout, order, epoch=None):
        examples = lmtrain.EpochExamples(layout, epoch=epoch)
        batches = DataLoader(examples, options.batch_size, sampler=order, collate_fn=lmtrain.Collate(objective))
        return accelerator.prepare(batches)

    # Several processes share out whole batches; what is missing is filled up with rows that predict nothing.
    multiple = options.batch_size * world if world > 1 else 1
    order = lmtrain.EpochOrder(len(data["train"]), options.seed, multiple=multiple)
    train = loader(data["train"], order)
    in_order = lmtrain.EpochOrder(len(data["validation"]), options.seed, shuffle=False, multiple=multiple)
    validation = loader(data["validation"], in_order, epoch=-1)  # no training has this epoch

    # The head only where there is a label, and what else is fast, once it is proven on a first batch.
    first = lmtrain.Collate(objective)(lmtrain.EpochExamples(data["train"]).__getitems__(range(options.batch_size)))
    first = {name: values.to(accelerator.device) for name, values in first.items()}
    loss_of = lmtrain.StepLoss(model, objective, first, seed=options.seed)

    # Weight decay for matrices; none for biases and norms, which are vectors.
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
    steps_an_epoch = math.ceil(len(train) / options.accumulation)
    last_step = options.max_steps if options.max_steps > 0 else options.epochs * steps_an_epoch
    scheduler = get_scheduler("cosine", optimizer, options.warmup_steps, last_step)
    step = lmtrain.load_checkpoint(output, model, optimizer=optimizer, scheduler=scheduler)  # 0 when there is none
    if accelerator.is_main_process and (output / "log.jsonl").exists():  # what is behind the checkpoint comes again
        lines = (output / "log.jsonl").read_text().splitlines(keepends=True)
        lines = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
        (output / "log.jsonl").write_text("".join(lines))
    whole = model  # as it is saved; `model` may become one of several copies
    model, optimizer = accelerator.prepare(model, optimizer)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        model.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        for batch in validation:
            sums = loss_of(model, batch)
            totals += torch.stack([sums.loss, sums.count])
        loss, tokens = accelerator.reduce(totals).tolist()  # sums of all batches and processes, divided once
        return {"eval_loss": loss / tokens, "eval_perplexity": math.exp(loss / tokens)}

    def save() -> None:
        if accelerator.is_main_process:
            lmtrain.save_checkpoint(output, step, whole, tokenizer, optimizer=optimizer, scheduler=scheduler)
        accelerator.wait_for_everyone()

    def log(**figures: float) -> None:
        if accelerator.is_main_process:
            print(f"step {step}/{last_step}  " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
            with (output / "log.jsonl").open("a") as lines:
                lines.write(json.dumps({"step": step, **figures}) + "\n")

    while step < last_step:
        epoch, done = divmod(step, steps_an_epoch)
        order.set_epoch(epoch)
        rest = accelerator.skip_first_batches(train, done * options.accumulation)
        rest.set_epoch(epoch)
        batches = iter(rest)
        while step < last_step and (window := list(islice(batches, options.accumulation))):
            model.train()
            # The predicted tokens of the whole step, over micro-batches and processes: its loss is divided by it once.
            count = accelerator.reduce(torch.stack([objective.count(batch["labels"]) for batch in window]).sum())
            total = torch.zeros((), device=accelerator.device)
            for micro, batch in enumerate(window):
                with nullcontext() if micro == len(window) - 1 else accelerator.no_sync(model):
                    sums = loss_of(model, batch, step=step, micro=micro, rank=rank)
                    loss = sums.loss / count * world  # the processes' gradients are averaged, so times their number
                    accelerator.backward(loss)
                total += loss.detach()
            norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            step += 1
            log(loss=accelerator.reduce(total, "mean").item(), learning_rate=rate, grad_norm=float(norm))
            if step % options.eval_steps == 0 or step == last_step:
                log(**evaluate())
            if step % options.save_steps == 0:
                save()  # last, so that the log up to a checkpoint is whole
    if accelerator.is_main_process:
        lmtrain.save_model(whole, tokenizer, output)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "model_name_or_path": None, "train_file": None, "validation_file": None, "output_dir": "runs/accelerate_loop",
        "block_size": 64, "batch_size": 8, "accumulation": 2, "epochs": 1, "max_steps": 12, "learning_rate": 1e-3,
        "warmup_steps": 2, "weight_decay": 0.1, "eval_steps": 6, "save_steps": 6, "seed": 42, "use_cpu": False,
    }  # fmt: skip
    for name, default in defaults.items():
        kind = {"action": "store_true"} if default is False else {"type": str if default is None else type(default)}
        parser.add_argument(f"--{name}", default=default, **kind)
    return parser.parse_args()


if __name__ == "__main__":
    main()
    lmtrain.leave_together()  # once nothing of main() is alive, or one of several processes would wait for ever
