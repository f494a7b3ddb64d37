# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of ``lmtrain nlg decode``; the defaults of the search are those of microsoft/LoRA's E2E results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.groups import MAKES_A_MODEL, ModelOptions


@dataclass
class NlgDecodeOptions(ModelOptions):
    """``lmtrain nlg decode``: what a model writes for each input, by beam search."""

    without: ClassVar[frozenset[str]] = MAKES_A_MODEL | {"tokenizer_name", "use_fast_tokenizer", "resize_embeddings"}
    title: ClassVar[str] = "Decoding"

    model_name_or_path: str | None = option(
        None,
        "The model: the folder of a checkpoint, of a run or of an adapter, or a name on the hub.",
        metavar="MODEL",
        aliases=("model",),
    )
    input: str | None = option(
        None, 'Inputs as token ids: JSONL of {"context": [...]}; what else a line holds is left alone.', metavar="FILE"
    )
    output: str | None = option(
        None, 'File for the results: JSONL of {"id": line, "predict": [...]}, lines counted from 0.', metavar="FILE"
    )
    overwrite_output: bool = option(False, "Replace the file for the results where there is one.")
    num_beams: int = option(10, "Beams of the search.", at_least=1, aliases=("beam",))
    length_penalty: float = option(
        0.8, "A finished text scores its log-probability divided by its length to this power."
    )
    no_repeat_ngram_size: int = option(
        4, "No so many tokens in a row come twice in what is generated; 0 allows it.", unit="tokens", at_least=0
    )
    repetition_penalty: float = option(1.0, "Above 1 makes tokens that were generated already less likely.", above=0)
    max_new_tokens: int = option(64, "Longest result.", unit="tokens", at_least=1, aliases=("eval_len",))
    stop_token_ids: list[str] = option(
        [],
        "Tokens that end a result, besides --eos_token_id; none for no others.",
        metavar="ID",
        shown_default="628, the double line break, with GPT-2's vocabulary; else none",
    )
    eos_token_id: int | None = option(
        None, "The token that ends a text.", at_least=0, shown_default="the model's own; 50256 of GPT-2"
    )
    on_long: Literal["truncate", "skip", "error"] = option(
        "truncate",
        "On an input that leaves no room for --max_new_tokens: keep its end, leave it out, or stop. Either is counted.",
    )
    max_context_length: int | None = option(
        None,
        "Longest input.",
        unit="tokens",
        at_least=1,
        shown_default="the model's positions less --max_new_tokens",
    )
    batch_size: int | None = option(
        None,
        "Inputs decoded at once; the results do not depend on it.",
        unit="inputs",
        at_least=1,
        shown_default="by the memory there is",
    )
    pad_predictions: bool = option(
        False, "Fill each result up to --max_new_tokens with zeros, as the original does; its readers take either."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Number format of the products.")
    use_cpu: bool = option(False, "Leave the accelerator alone.")
    json: bool = option(False, "Print what was done as one JSON object.")
