"""The other side of a benchmark: the stock Trainer on prepared token ids, at the settings of a recipe.

python benchmarks/side_stock.py OUT WARM STEPS SECONDS RECIPE.json

RECIPE: ``model`` (folder), ``kind`` (clm, mlm), ``data`` (an .npz of ``ids`` and ``lengths``: rows, filled up with
zeros; with ``labels`` too where tokens are hidden in them already), ``arguments`` (of TrainingArguments), ``task``
(train, or evaluate on so many ``batches`` of the rows).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import peak_bytes, watch, write
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


def main() -> None:
    out, warm, steps, seconds, path = sys.argv[1:]
    recipe = json.loads(Path(path).read_text())
    clock = watch(Path(out), int(warm), int(steps), float(seconds))
    data = rows(recipe)
    cpu = {} if torch.cuda.is_available() else {"use_cpu": True}
    arguments = TrainingArguments(**{**cpu, "report_to": "none", "disable_tqdm": True, **recipe["arguments"]})
    factory = AutoModelForCausalLM if recipe["kind"] == "clm" else AutoModelForMaskedLM
    model = factory.from_pretrained(recipe["model"], attn_implementation="sdpa")
    collator: Any = default_data_collator
    if recipe["kind"] == "mlm":
        tokenizer = AutoTokenizer.from_pretrained(recipe["model"])
        is_masked = "labels" in data[0]
        collator = (
            DataCollatorForTokenClassification(tokenizer) if is_masked else DataCollatorForLanguageModeling(tokenizer)
        )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, data_collator=collator)
    if recipe["task"] == "train":
        trainer.train()
        write(Path(out), clock.figures)
    else:
        figures = trainer.evaluate()
        write(Path(out), {"seconds": figures["eval_runtime"], "loss": figures["eval_loss"], "peak_bytes": peak_bytes()})


def rows(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    stored = np.load(recipe["data"])
    ids = [row[:length].tolist() for row, length in zip(stored["ids"], stored["lengths"], strict=True)]
    if "labels" in stored:  # hidden already: it pads ids and labels
        labels = [row[:length].tolist() for row, length in zip(stored["labels"], stored["lengths"], strict=True)]
        return [
            {"input_ids": row, "labels": own, "attention_mask": [1] * len(row)}
            for row, own in zip(ids, labels, strict=True)
        ]
    if recipe["kind"] == "mlm":
        return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids]
    # The first label is never predicted. The stock Trainer counts it all the same when it divides GPT-2's loss, which
    # would be (T − 1)/T of the truth; hidden, it is right.
    return [{"input_ids": row, "labels": [-100, *row[1:]]} for row in ids]


if __name__ == "__main__":
    main()
