"""Tokenizers trained in the test, and small models made for them by the package itself."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmtrain.config.options import ModelOptions
from lmtrain.models import load_model, load_tokenizer, save_model

torch.set_num_threads(1)  # on models this small, threads only wait for each other

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "She sells sea shells by the sea shore; the shells she sells are sea shells.",
    "A fox and a dog met by the shore. The fox ran, the dog slept.",
    "How much wood would a woodchuck chuck if a woodchuck could chuck wood?",
]

SMALL = {
    "gpt2": "n_embd=32,n_layer=2,n_head=4,n_positions=48",
    "llama": "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
    "num_key_value_heads=2,max_position_embeddings=48",
    "bert": "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,max_position_embeddings=48",
    "roberta": "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
    "max_position_embeddings=50",
    "distilbert": "dim=32,hidden_dim=48,n_layers=2,n_heads=4,max_position_embeddings=48",
}
PURPOSE = {"gpt2": "clm", "llama": "clm", "bert": "mlm", "roberta": "mlm", "distilbert": "mlm"}
STYLE = {"gpt2": "gpt2", "llama": "gpt2", "bert": "bert", "roberta": "roberta", "distilbert": "bert"}

# Two more, for what is particular to them: not every test of those above needs them.
SMALL["mistral"] = SMALL["llama"]
SMALL["modernbert"] = "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
SMALL["modernbert"] += "max_position_embeddings=48,local_attention=8"
SMALL["mobilebert"] = "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
SMALL["mobilebert"] += "max_position_embeddings=48,embedding_size=16,true_hidden_size=32,intra_bottleneck_size=32"
MORE = {"mistral": "clm", "modernbert": "mlm", "mobilebert": "mlm"}
STYLE |= {"mistral": "gpt2", "modernbert": "bert", "mobilebert": "bert"}


def byte_level(special_tokens: list[str], vocab_size: int = 300) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


def gpt2_style() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["<|endoftext|>"]), eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


def roberta_style() -> PreTrainedTokenizerFast:
    backend = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>",
        unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def bert_style() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


MAKE = {"gpt2": gpt2_style, "roberta": roberta_style, "bert": bert_style}


@cache  # at the first use: a forked program imports this file too, and its end removes nothing
def _made() -> tempfile.TemporaryDirectory[str]:
    """What is made once in a process, and copied for each test."""
    return tempfile.TemporaryDirectory(prefix="lmtrain-tests-")


def save_tokenizer(folder: Path, style: str) -> str:
    """A tokenizer folder as ``lmtrain tokenizer`` leaves it; its path."""
    shutil.copytree(_tokenizer(style), folder, dirs_exist_ok=True)
    return str(folder)


@cache
def _tokenizer(style: str) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_made().name))
    MAKE[style]().save_pretrained(folder)
    return folder


def make(kind: str, folder: Path, seed: int = 1, **options: Any) -> tuple[Any, Any]:
    """A new small model of ``kind`` and its tokenizer (written to ``folder``)."""
    name = save_tokenizer(folder, STYLE[kind])
    chosen = ModelOptions(**{"model_type": kind, "config_overrides": SMALL[kind], "tokenizer_name": name, **options})
    purpose: Any = (PURPOSE | MORE)[kind]
    tokenizer = load_tokenizer(chosen, purpose)
    torch.manual_seed(seed)
    model = load_model(chosen, purpose, tokenizer).model
    return sharpen(model), tokenizer


def sharpen(model: Any) -> Any:
    """Spread the weights, so that a mistake in them shows in the logits (the usual 0.02 hides it)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


def checkpoint(kind: str, folder: Path, seed: int = 1) -> str:
    """A saved small model of ``kind`` with its tokenizer; its path."""
    shutil.copytree(_checkpoint(kind, SMALL[kind], seed), folder, dirs_exist_ok=True)
    return str(folder)


@cache
def _checkpoint(kind: str, shape: str, seed: int) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_made().name))
    model, tokenizer = make(kind, folder / "tokenizer", seed)
    save_model(model, tokenizer, folder / "model")
    return folder / "model"
