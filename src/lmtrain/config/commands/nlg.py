# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""Options of ``lmtrain nlg``: data to text, from a corpus' files to its scores.

Defaults are the published set-up of LoRA on GPT-2 (Hu et al. 2021, arXiv:2106.09685, and the commands of
github.com/microsoft/LoRA, examples/NLG); where they differ by task, the task's stands in ``recipes/data_to_text``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import SEEDS, option

_BY_TASK = "the task's"


@dataclass
class NlgTraining:
    """How a model is adapted to a task."""

    title: ClassVar[str] = "Training"

    model_name_or_path: str | None = option(
        None, "The model to adapt: a folder, or a name on the hub.", metavar="MODEL", aliases=("model",)
    )
    tokenizer_name: str | None = option(None, "The tokenizer.", metavar="TOKENIZER", shown_default="the model's own")
    output_dir: str | None = option(None, "Folder for everything.", metavar="FOLDER")
    overwrite_output_dir: bool = option(
        False,
        "Start anew where the folder holds an earlier run. What this very command has begun and not ended goes on all "
        "the same.",
    )
    use_peft: bool = option(True, "Train an adapter (LoRA); --no_use_peft trains all weights.", aliases=("use_lora",))
    lora_r: int = option(4, "Rank of the adapter's matrices.", at_least=1)
    lora_alpha: float = option(32, "Scale: what they add is multiplied by alpha / rank.", above=0)
    lora_dropout: float | None = option(
        None, "Dropout in front of them.", at_least=0, below=1, shown_default=f"{_BY_TASK}: 0.1, DART 0"
    )
    objective: Literal["clm", "jlm"] = option("clm", "What is learned: the text (clm), or its input too (jlm).")
    num_train_epochs: float = option(5.0, "Passes over the training data.", above=0)
    max_steps: int = option(-1, "Stop after so many steps.", unit="steps", shown_default="by the epochs")
    per_device_train_batch_size: int = option(8, "Examples of one forward pass.", unit="examples", at_least=1)
    gradient_accumulation_steps: int = option(1, "Forward passes to a step.", at_least=1)
    learning_rate: float = option(2e-4, "Highest learning rate; it falls linearly to 0.", above=0)
    warmup_steps: int = option(500, "Steps in which it rises from 0.", unit="steps", at_least=0)
    weight_decay: float | None = option(None, "Weight decay.", at_least=0, shown_default=f"{_BY_TASK}: 0.01, DART 0")
    label_smoothing_factor: float | None = option(
        None, "Part of each label that is spread over the vocabulary.", at_least=0, below=1,
        shown_default=f"{_BY_TASK}: 0.1, DART 0",
    )  # fmt: skip
    max_seq_length: int = option(512, "Longest example; longer ones are cut and counted.", unit="tokens", at_least=2)
    max_train_samples: int | None = option(None, "Train on the first so many.", unit="records", at_least=1)
    save_steps: int = option(1000, "A checkpoint every so often.", unit="steps", at_least=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "Number format of the products.")
    use_cpu: bool = option(False, "Leave the accelerator alone.")


@dataclass
class NlgTrainOptions(NlgTraining):
    """``lmtrain nlg train``: the training of a task by itself, on records or on token ids."""

    title: ClassVar[str] = "Data"

    task: Literal["e2e", "webnlg", "dart"] | None = option(
        None, "Whose published settings stand where none are given.", positional=True, shown_default="e2e"
    )
    train: str | None = option(
        None,
        "Training data: JSONL of nlg convert (texts, encoded with the end-of-text token behind context and completion) "
        "or of nlg encode (ids, as they are).",
        metavar="FILE",
        aliases=("train_data",),
    )
    valid: str | None = option(None, "Data to evaluate on, as --train.", metavar="FILE", aliases=("valid_data",))
    seed: int = option(110, "Seed of everything drawn at random.", **SEEDS, aliases=("random_seed",))


@dataclass
class NlgOptions(NlgTraining):
    """``lmtrain nlg e2e|webnlg|dart``: convert, encode, train, decode, score; what is done is not done again."""

    title: ClassVar[str] = "Task"

    task: Literal["e2e", "webnlg", "dart"] | None = option(None, "The corpus.", positional=True)
    train: str | None = option(
        None, "Training data: the corpus' own file, or JSONL of nlg convert.", metavar="FILE", aliases=("train_data",)
    )
    valid: str | None = option(
        None, "Data to evaluate on during training, likewise.", metavar="FILE", aliases=("valid_data",)
    )
    test: str | None = option(None, "Data to write texts for and to score them by.", metavar="FILE")
    seeds: list[str] = option(
        ["110"],
        "A training for each of these seeds; with several, the table has means and standard deviations.",
        metavar="N",
    )
    max_test_inputs: int | None = option(
        None, "Decode and score only the first so many inputs.", unit="inputs", at_least=1
    )
    num_beams: int = option(10, "Beams of the search.", at_least=1)
    length_penalty: float | None = option(
        None, "A text scores its log-probability divided by its length to this power.", shown_default=f"{_BY_TASK}: 0.8"
    )
    no_repeat_ngram_size: int = option(
        4, "No so many tokens in a row come twice in a text; 0 allows it.", unit="tokens", at_least=0
    )
    max_new_tokens: int = option(64, "Longest text.", unit="tokens", at_least=1)
    batch_size: int | None = option(
        None, "Inputs decoded at once; the results do not depend on it.", unit="inputs", at_least=1,
        shown_default="by the memory there is",
    )  # fmt: skip
    on_long: Literal["truncate", "skip", "error"] = option(
        "error",
        "On an input of --test that leaves no room for --max_new_tokens: keep its end, leave it out, or stop before "
        "anything is trained. Either is counted.",
    )
    bootstrap: int = option(1000, "Resamples of the test set for the confidence intervals; 0 for none.", at_least=0)
    json: bool = option(False, "Print the scores as one JSON object.")


@dataclass
class NlgDemoOptions:
    """``lmtrain nlg demo``: the chain on a miniature corpus that every machine has."""

    title: ClassVar[str] = "Demo"

    output_dir: str = option("runs/nlg-demo", "Folder for everything.", metavar="FOLDER")
    minutes: float = option(1.5, "Time to train.", unit="minutes", above=0)
    seed: int = option(110, "Seed of everything drawn at random.", **SEEDS)
    overwrite_output_dir: bool = option(False, "Start anew when the folder holds an earlier demo.")
