"""Fine-tune a model of the BERT type to fill in hidden words.

python examples/masked_lm.py                            # in miniature, in seconds, without a download
python examples/masked_lm.py --model bert-base-uncased --text book.txt --output_dir runs/bert --max_steps -1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainingArguments

import lmtrain
import miniature

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a folder or a hub name; default: a miniature")
parser.add_argument("--text", help="a file or folder; default: Python's language reference")
parser.add_argument("--output_dir", default="runs/masked_lm")
parser.add_argument("--max_steps", type=int, default=30, help="-1: three epochs")
options = parser.parse_args()
output = Path(options.output_dir)

name = options.model or miniature.bert(output / "miniature")
text = options.text or miniature.text_files(output / "miniature")[0]
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForMaskedLM.from_pretrained(name)

# No padding: rows are filled with the text's next words, and a twentieth of the documents is kept for evaluation.
data = lmtrain.prepare(tokenizer, objective="mlm", train_file=text, max_seq_length=64).splits
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
trainer = lmtrain.LMTrainer(
    model,
    arguments,
    data["train"],
    data["validation"],
    objective=lmtrain.Masked.for_tokenizer(tokenizer, probability=0.15),  # new masks in every epoch
)
trainer.train()
print(f"masked-token perplexity {trainer.evaluate()['eval_perplexity']:.1f}")
lmtrain.save_model(trainer.model, tokenizer, output)

sentence = f"The {tokenizer.mask_token} is an expression."
for filling in lmtrain.fill_mask(output, sentence)[0].masks[0]:
    print(f"{filling.probability:7.2%}  {filling.token}")
