"""Options that name or shape a model, where they contradict each other or leave something out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmtrain.config.groups import ModelOptions
from lmtrain.config.model_size import parameters
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems

if TYPE_CHECKING:
    from lmtrain.config.options import Resolved

_TENSORFLOW = (".ckpt", ".h5", ".pb", ".ckpt.index", ".ckpt.meta")


def check_model(options: Resolved, problems: Problems) -> None:
    model = options.model
    if not (model.model_name_or_path or model.model_type or model.config_name):
        example = "gpt2" if options.command == "clm" else "bert"
        problems.add(
            "no model: name a checkpoint to go on from, or make a new model with "
            f"--model_type {example} --model_size 10m --tokenizer_name runs/tok, which lmtrain tokenizer makes",
            flag="--model_name_or_path",
        )
    elif not (model.model_name_or_path or model.tokenizer_name):
        problems.add(
            "a new model needs a tokenizer: a folder or a hub name; lmtrain tokenizer makes one",
            flag="--tokenizer_name",
        )
    if model.config_overrides and model.model_name_or_path:
        problems.add(
            f"changes the shape of a new model, and {model.model_name_or_path} has its shape already; "
            "leave out one of the two",
            flag="--config_overrides",
        )
    if model.model_size:
        with problems.collect():
            parameters(model.model_size)
        if model.model_name_or_path or model.config_name or not model.model_type:
            problems.add(
                "gives a new model its shape, so it goes with --model_type (gpt2, llama, mistral, bert, roberta, "
                "modernbert), and not with a model that has one",
                flag="--model_size",
            )
    _no_tensorflow(model, problems)


def check_model_given(model: ModelOptions, problems: Problems) -> None:
    if not model.model_name_or_path:
        problems.add(
            "name a model: a folder, such as --model_name_or_path runs/book, or a hub name", flag="--model_name_or_path"
        )
    _no_tensorflow(model, problems)


def _no_tensorflow(model: ModelOptions, problems: Problems) -> None:
    name = model.model_name_or_path or ""
    if name.lower().endswith(_TENSORFLOW):
        problems.add(
            f"{name} is a TensorFlow checkpoint, which today's libraries no longer read; convert it with "
            "transformers 4 (from_pretrained(..., from_tf=True), then save_pretrained) and give that folder",
            flag="--model_name_or_path",
        )


def check_not_its_own_start(model: ModelOptions, output: Path, problems: Problems) -> None:
    """A run that writes over the model it began with cannot be begun again when it is interrupted."""
    for flag, name in (("--model_name_or_path", model.model_name_or_path), ("--tokenizer_name", model.tokenizer_name)):
        if name and output.is_dir() and user_path(name).resolve() == output.resolve():
            problems.add(f"is the folder of {flag} too, which would be written over; name another", flag="--output_dir")
