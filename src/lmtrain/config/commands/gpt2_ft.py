"""The options of ``lmtrain gpt2-ft``: those of microsoft/LoRA's ``examples/NLG/src/gpt2_ft.py``, and a few of ours."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from lmtrain.config.about import SEEDS, option
from lmtrain.core.errors import Problems

_LAUNCHER = "Of the original's launchers; accepted without effect."
_DEAD = "Dead in the original: it is read and never used. Accepted without effect."


@dataclass
class Gpt2FtOptions:
    """``lmtrain gpt2-ft``. Steps are micro-batches throughout, as in the original."""

    title: ClassVar[str] = "gpt2-ft"
    WITHOUT_EFFECT: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("platform", "local_rank", "rank", "device", "world_size"), "the training is one process here"),
        **dict.fromkeys(
            ("roll_interval", "roll_lr", "roll_step", "eval_epoch"), "the original reads it and never uses it"
        ),
    }

    train_data: str | None = option(
        None, 'Pairs to learn from: JSONL of token ids, {"context": [...], "completion": [...]}.', metavar="FILE"
    )
    valid_data: str | None = option(None, "Pairs to evaluate on, in the same form.", metavar="FILE")
    train_batch_size: int = option(8, "Examples of a micro-batch.", unit="examples", at_least=1)
    valid_batch_size: int = option(
        4, "Examples of a batch of the evaluation, whose loss is a mean of batch means.", unit="examples", at_least=1
    )
    grad_acc: int = option(
        1, "An update comes after so many; they run on over the end of an epoch.", unit="micro-batches", at_least=1
    )
    clip: float = option(0.0, "Longest gradient, longer ones are scaled; 0 means any.", at_least=0)
    seq_len: int = option(512, "Longest example; what is beyond is cut off.", unit="tokens", at_least=2)
    model_card: str = option(
        "gpt2.md",
        "The model: gpt2.sm, gpt2.md or gpt2.lg (124, 355 or 774 M parameters); or, beyond the original, the folder of "
        "a GPT-2 for transformers.",
        metavar="NAME",
    )
    init_checkpoint: str | None = option(
        None,
        "Weights to begin with: a pytorch_model.bin of the original's downloads, or its model.N.pt.",
        metavar="FILE",
        shown_default="random weights, or those of the folder that --model_card names",
    )
    fp16: bool = option(False, "Multiply in fp16 with a loss scale. Needs a GPU.")
    precision: Literal["fp32", "auto", "bf16", "fp16"] = option(
        "fp32", "Beyond the original: number format of the products; auto takes bf16 where the hardware is fast at it."
    )
    log_interval: int = option(100, "A line in the log after so many.", unit="micro-batches", at_least=1)
    eval_interval: int = option(2000, "An evaluation after so many.", unit="micro-batches", at_least=1)
    save_interval: int = option(
        500,
        "The LoRA tensors as model.N.pt after so many; each epoch ends with a model.N.pt of all tensors.",
        unit="micro-batches",
        at_least=1,
    )
    work_dir: str | None = option(
        None, "Folder for the run.", metavar="FOLDER", shown_default="$PT_OUTPUT_DIR, else gpt2_model"
    )
    overwrite_work_dir: bool = option(
        False,
        "Beyond the original: start anew in a --work_dir that holds another run or other checkpoints. What this very "
        "command has begun and not ended goes on all the same.",
    )
    lora_dim: int = option(0, "Rank of LoRA in query and value; 0 trains all weights instead.", at_least=0)
    lora_alpha: int = option(128, "LoRA adds its product times alpha / rank.", at_least=1)
    obj: Literal["clm", "jlm"] = option("clm", "Predict the completion's tokens (clm), or the context's too (jlm).")
    lora_dropout: float = option(0.0, "Dropout in front of LoRA; there is none anywhere else.", at_least=0, below=1)
    label_smooth: float = option(
        0.0,
        "Part of the label that is spread over the vocabulary; up to 0.0001 is taken for none.",
        at_least=0,
        at_most=1,
    )
    roll_interval: int = option(-1, _DEAD)
    roll_lr: float = option(0.00001, _DEAD)
    roll_step: int = option(100, _DEAD)
    eval_epoch: int = option(1, _DEAD)
    lr: float = option(0.00001, "Highest learning rate.", at_least=0)
    weight_decay: float = option(0.01, "Decay, applied after each update.", at_least=0)
    correct_bias: bool = option(False, "Correct the bias of Adam's averages.")
    adam_epislon: float = option(1e-6, "Adam's epsilon.", at_least=0, aliases=("adam_epsilon",))
    no_decay_bias: bool = option(False, "No decay of biases.")
    adam_beta1: float = option(0.9, "Adam's first beta.", at_least=0, below=1)
    adam_beta2: float = option(0.98, "Adam's second beta.", at_least=0, below=1)
    scheduler: Literal["cosine", "inv_sqrt", "dev_perf", "constant", "linear", "cycle"] = option(
        "linear",
        "The learning rate's course. inv_sqrt and dev_perf are names without a schedule, in the original too: the rate "
        "stays --lr, without warm-up.",
    )
    max_step: int | None = option(
        None, "End after so many.", unit="micro-batches", at_least=1, shown_default="those of --max_epoch"
    )
    max_epoch: int | None = option(
        None, "End after so many passes over the data.", unit="epochs", at_least=1, shown_default="no limit"
    )
    warmup_step: int = option(0, "The rate rises from 0 for so many.", unit="micro-batches", at_least=0)
    i_steps: str = option(
        "0", "Corners of --scheduler cycle, rising; the last takes the place of --max_step.", metavar="N,N,..."
    )
    i_lrs: str = option("0.00025", "The learning rate at each corner.", metavar="X,X,...")
    platform: str = option("k8s", _LAUNCHER)
    local_rank: int = option(0, _LAUNCHER)
    rank: int = option(0, _LAUNCHER)
    device: int = option(0, _LAUNCHER)
    world_size: int = option(0, _LAUNCHER)
    random_seed: int = option(10, "Seed of the order, of new weights and of dropout.", **SEEDS)

    def check(self, problems: Problems) -> None:
        """Add what is missing or contradicts itself, in the original's flags."""
        for name in ("train_data", "valid_data"):
            if getattr(self, name) is None:
                problems.add(
                    'is needed: a file of lines {"context": [ids], "completion": [ids]}, as gpt2_encode.py writes it',
                    flag=f"--{name}",
                )
        if self.scheduler == "cycle":
            self._check_cycle(problems)
        elif self.max_step is None and self.max_epoch is None:
            problems.add("says when the training ends, and so does --max_step; give one of them", flag="--max_epoch")
        if self.lora_dim == 0:
            for item in fields(self):
                if item.name in ("lora_alpha", "lora_dropout") and getattr(self, item.name) != item.default:
                    problems.add(
                        "is about LoRA, and --lora_dim 0, the default, trains all weights; give its rank, such as "
                        "--lora_dim 4, or leave this out",
                        flag=f"--{item.name}",
                    )
        if self.fp16 and self.precision not in ("fp32", "fp16"):
            problems.add(f"says something else than --precision {self.precision}; give one of them", flag="--fp16")

    def _check_cycle(self, problems: Problems) -> None:
        try:
            steps, rates = corners(self)
        except ValueError as error:
            problems.add(
                f"takes whole numbers, and --i_lrs numbers, with commas between them: {error}", flag="--i_steps"
            )
            return
        if len(steps) != len(rates):
            problems.add(f"has {len(steps)} corners and --i_lrs {len(rates)}; each needs its rate", flag="--i_steps")
        if steps != sorted(steps):
            problems.add(f"{self.i_steps} does not rise", flag="--i_steps")


def corners(options: Gpt2FtOptions) -> tuple[list[int], list[float]]:
    """``--i_steps`` and ``--i_lrs`` as numbers. ValueError where one is none."""
    return [int(word) for word in options.i_steps.split(",")], [float(word) for word in options.i_lrs.split(",")]


def without_effect(options: Gpt2FtOptions) -> list[str]:
    """A line for each reason why options that were set change nothing."""
    reasons: dict[str, list[str]] = {}
    for item in fields(options):
        if item.name in options.WITHOUT_EFFECT and getattr(options, item.name) != item.default:
            reasons.setdefault(options.WITHOUT_EFFECT[item.name], []).append(f"--{item.name}")
    lines = [f"{', '.join(names)}: without effect, {reason}" for reason, names in reasons.items()]
    if options.scheduler in ("inv_sqrt", "dev_perf"):
        lines.append(
            f"--scheduler {options.scheduler}: the original has no such schedule and keeps --lr from the first "
            "micro-batch to the last, and so does this"
        )
    return lines
