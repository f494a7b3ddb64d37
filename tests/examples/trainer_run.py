"""What examples/accelerate_loop.py is compared with: the same training by LMTrainer, its figures as JSON.

Words: the model's folder, the training text, the validation text, the folder to write.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

import lmtrain
from lmtrain.engine.distributed.processes import leave_together

# As options of the loop; the learning rate has its way up and down within them.
OPTIONS = {"block_size": 32, "batch_size": 4, "accumulation": 2, "max_steps": 12, "warmup_steps": 2, "eval_steps": 6,
           "save_steps": 5, "seed": 3, "learning_rate": 3e-3, "weight_decay": 0.1}  # fmt: skip


def run(model_folder: Path, train: Path, validation: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    corpus = lmtrain.prepare(tokenizer, train_file=train, validation_file=validation, block_size=OPTIONS["block_size"])
    args = TrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=OPTIONS["batch_size"],
        per_device_eval_batch_size=OPTIONS["batch_size"],
        gradient_accumulation_steps=OPTIONS["accumulation"],
        max_steps=OPTIONS["max_steps"],
        learning_rate=OPTIONS["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=OPTIONS["warmup_steps"],
        weight_decay=OPTIONS["weight_decay"],
        max_grad_norm=1.0,
        seed=OPTIONS["seed"],
        eval_strategy="steps",
        eval_steps=OPTIONS["eval_steps"],
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        use_cpu=True,
    )
    trainer = lmtrain.LMTrainer(model, args, corpus.splits["train"], corpus.splits["validation"])
    trainer.train()
    if args.process_index == 0:
        lmtrain.save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder / "model")
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))
    del trainer, model


if __name__ == "__main__":
    folder = Path(sys.argv[4])
    folder.mkdir(exist_ok=True)
    run(*map(Path, sys.argv[1:4]), folder)
    leave_together()
