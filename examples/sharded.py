"""Train a model whose weights, gradients and optimizer state are cut over the processes (torch's ``fully_shard``).

    torchrun --nproc_per_node 2 examples/sharded.py          # in miniature, on the CPU, without a download
    torchrun --nproc_per_node 8 examples/sharded.py --model Qwen/Qwen2.5-7B --text book.txt --max_steps 1000

The same command goes on after whatever stopped it, also with another number of processes: each wrote its part of the
last checkpoint, and each reads what it needs. What is left at the end is one ordinary model folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import lmtrain
import miniature

GLOBAL_BATCH = 16  # examples a step, over all processes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a folder or a hub name; default: a miniature")
parser.add_argument("--text", help="a file; default: Python's language reference")
parser.add_argument("--output_dir", default="runs/sharded")
parser.add_argument("--max_steps", type=int, default=20)
options = parser.parse_args()
output = Path(options.output_dir)

arguments = TrainingArguments(
    output_dir=str(output), max_steps=options.max_steps, learning_rate=5e-4, logging_steps=5, save_steps=10,
    per_device_train_batch_size=GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", 1)), report_to="none",
    use_cpu=not torch.cuda.is_available(),
)  # fmt: skip
print(f"process {arguments.process_index} of {arguments.world_size}")  # asking makes them a group, before all else
if not torch.distributed.is_initialized():
    parser.error("these are several processes' parts; start them: torchrun --nproc_per_node 2 examples/sharded.py")
small = output / "miniature"
if arguments.process_index == 0:
    miniature.text_files(small)
    if options.model is None:
        miniature.gpt2(small)
torch.distributed.barrier()
name = options.model or small
tokenizer = AutoTokenizer.from_pretrained(name)
data = lmtrain.prepare(tokenizer, train_file=options.text or small / "train.txt", block_size=64).splits
model = lmtrain.shard(AutoModelForCausalLM.from_pretrained(name))
trainer = lmtrain.LMTrainer(model, arguments, data["train"], processing_class=tokenizer)
trainer.train(resume_from_checkpoint=any(output.glob("checkpoint-*")))
perplexity = trainer.evaluate(data["train"])["eval_perplexity"]
trainer.save_model(str(output))  # gathered by the first process
if arguments.process_index == 0:
    print(f"perplexity {perplexity:.1f}")
del trainer
lmtrain.leave_together()
