"""Fine-tune a model of the GPT-2 type to write on.

    python examples/causal_lm.py                            # in miniature, in seconds, without a download
    python examples/causal_lm.py --model gpt2 --text book.txt --output_dir runs/gpt2 --max_steps -1

GPT-2 has no pad token, and needs none here: rows are filled with text, and padding, where there is some, is known by
its place and not by its token. So the end of a text, too, is learned.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import lmtrain
import miniature

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a folder or a hub name; default: a miniature")
parser.add_argument("--text", help="a file or folder; default: Python's language reference")
parser.add_argument("--output_dir", default="runs/causal_lm")
parser.add_argument("--max_steps", type=int, default=30, help="-1: three epochs")
options = parser.parse_args()
output = Path(options.output_dir)

name = options.model or miniature.gpt2(output / "miniature")
text = options.text or miniature.text_files(output / "miniature")[0]
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name)

data = lmtrain.prepare(tokenizer, train_file=text, block_size=64).splits
arguments = TrainingArguments(
    output_dir=str(output),
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=16,
    learning_rate=5e-4,
    logging_steps=10,
    save_strategy="no",
    report_to="none",
)
trainer = lmtrain.LMTrainer(model, arguments, data["train"], data["validation"])
trainer.train()
scores = trainer.evaluate()
print(f"perplexity {scores['eval_perplexity']:.1f}, {scores['eval_bits_per_byte']:.2f} bits per byte")
lmtrain.save_model(trainer.model, tokenizer, output)
print(lmtrain.complete(output, "The expression", max_new_tokens=20)[0].text)
