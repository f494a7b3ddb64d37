"""Train on a data set of one's own: any ``torch.utils.data.Dataset`` whose items have ``input_ids``.

    python examples/own_dataset.py                          # in miniature, in seconds, without a download
    python examples/own_dataset.py --model gpt2 --text book.txt --output_dir runs/own --max_steps -1

Items may be lists or tensors of any length, with ``attention_mask`` and ``labels`` or without; those of shape (1, T),
as a tokenizer gives them with ``return_tensors="pt"``, are taken as (T,). Nothing has to be padded or collated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.utils.data import Dataset, random_split
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import lmtrain
import miniature


class Paragraphs(Dataset):
    """The paragraphs of a text, tokenized when they are asked for."""

    def __init__(self, text: str, tokenizer, max_length: int) -> None:
        self.paragraphs = [part for part in text.split("\n\n") if part.strip()]
        self.tokenizer, self.max_length = tokenizer, max_length

    def __len__(self) -> int:
        return len(self.paragraphs)

    def __getitem__(self, index: int):
        text = self.paragraphs[index] + self.tokenizer.eos_token
        return self.tokenizer(text, truncation=True, max_length=self.max_length)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a folder or a hub name; default: a miniature")
parser.add_argument("--text", help="a file; default: Python's language reference")
parser.add_argument("--output_dir", default="runs/own_dataset")
parser.add_argument("--max_steps", type=int, default=30, help="-1: three epochs")
options = parser.parse_args()
output = Path(options.output_dir)

name = options.model or miniature.gpt2(output / "miniature")
text = Path(options.text or miniature.text_files(output / "miniature")[0]).read_text(encoding="utf-8")
tokenizer = AutoTokenizer.from_pretrained(name)
always_alike = torch.Generator().manual_seed(0)
train, held_out = random_split(Paragraphs(text, tokenizer, max_length=64), [0.9, 0.1], always_alike)
arguments = TrainingArguments(
    output_dir=str(output), max_steps=options.max_steps, per_device_train_batch_size=16, learning_rate=5e-4,
    logging_steps=10, save_strategy="no", report_to="none",
)  # fmt: skip
model = AutoModelForCausalLM.from_pretrained(name)
trainer = lmtrain.LMTrainer(model, arguments, train, held_out, processing_class=tokenizer)
trainer.train()
print(f"perplexity {trainer.evaluate()['eval_perplexity']:.1f}")
lmtrain.save_model(trainer.model, tokenizer, output)
