"""Models and data small enough for a test, made from nothing: no download, no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    TrainingArguments,
)

from lmtrain.core.types import Examples

torch.set_num_threads(1)  # more of them cost time on models of this size, and results would depend on their number

VOCABULARY = 67
POSITIONS = 40


def llama(seed: int = 1) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            initializer_range=0.2,  # large enough that a mistake shows in the loss
        )
    )


def gpt2(seed: int = 1, dropout: float = 0.0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=POSITIONS,
            n_embd=32,
            n_layer=2,
            n_head=4,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def bert(seed: int = 1, dropout: float = 0.0) -> BertForMaskedLM:
    torch.manual_seed(seed)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=0.2,
        )
    )


def roberta(seed: int = 1) -> RobertaForMaskedLM:
    torch.manual_seed(seed)
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS + 2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.2,
            pad_token_id=1,
        )
    )


def distilbert(seed: int = 1) -> DistilBertForMaskedLM:
    torch.manual_seed(seed)
    return DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=32,
            hidden_dim=64,
            n_layers=2,
            n_heads=4,
            max_position_embeddings=POSITIONS,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.2,
        )
    )


def rows(count: int, *, shortest: int = 2, longest: int = 12, first_id: int = 5, seed: int = 0) -> list[list[int]]:
    """Rows of uneven length; ids below ``first_id`` are left to special tokens."""
    random = np.random.default_rng(seed)
    lengths = random.integers(shortest, longest + 1, count)
    return [random.integers(first_id, VOCABULARY, length).tolist() for length in lengths]


class MemoryLayout:
    """A layout over rows in memory, with the duck type of the real ones.

    ``reads`` lists the indices asked for; ``width`` pads every row to it, else to the longest of the batch.
    """

    def __init__(
        self, data: Sequence[Sequence[int]], *, width: int | None = None, pad_id: int = 0, n_bytes: int = 0
    ) -> None:
        self.data = data
        self.width = width
        self.pad_id = pad_id
        self.lengths = np.array([len(row) for row in data], np.int64)
        self.n_tokens = sum(map(len, data))
        self.n_bytes = n_bytes
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": list(self.data[index])}

    def __getitems__(self, indices: Sequence[int]) -> Examples:
        self.reads.extend(indices)
        lengths = np.array([len(self.data[i]) for i in indices])
        width = self.width or int(lengths.max())
        ids = np.full((len(indices), width), self.pad_id, dtype=np.int64)
        for row, i in enumerate(indices):
            ids[row, : lengths[row]] = self.data[i]
        return Examples(ids, lengths, np.arange(width) >= lengths[:, None], np.asarray(indices))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    """Arguments for a run on the CPU that saves nothing; the learning rate is constant."""
    defaults = {
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "max_grad_norm": 1.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "disable_tqdm": True,
    }
    return TrainingArguments(output_dir=str(folder), **{**defaults, **options})


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def logged(trainer: Any, name: str) -> list[float]:
    """What the trainer logged under ``name``, in order of the steps."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def try_fast_paths(trainer: Any) -> Any:
    """Have the trainer try its fast paths, which reads the first examples, and forget that they were read."""
    assert trainer.fast_paths
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        if hasattr(dataset, "reads"):
            dataset.reads.clear()
    return trainer
