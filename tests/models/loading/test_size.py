"""A size asked for is met within 5 %, by the published shapes where there are such."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lmtrain.config.model_size import parameters
from lmtrain.config.options import ModelOptions
from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.models import load_model
from lmtrain.models.loading.size import KINDS, fields_of, head_width

CAUSAL = ("gpt2", "llama", "mistral")


class Words:
    """As much of a tokenizer as a new model asks for: a vocabulary of ``size`` and its special ids."""

    bos_token_id = eos_token_id = 0
    pad_token_id = mask_token_id = cls_token_id = sep_token_id = unk_token_id = 1

    def __init__(self, size: int, model_max_length: int = int(1e30)) -> None:
        self.size, self.model_max_length = size, model_max_length

    def get_vocab(self) -> dict[str, int]:
        return {"first": 0, "last": self.size - 1}

    def __len__(self) -> int:
        return self.size


def made(kind: str, size: str, words: int | Words, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """The model itself, on the meta device: its shape without its memory."""
    words = words if isinstance(words, Words) else Words(words)
    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr("lmtrain.models.loading.build.fit_vocabulary", lambda *_: [])
        patch.setattr("lmtrain.models.loading.build.agree_on_special_ids", lambda *_: [])
        purpose = "clm" if kind in CAUSAL else "mlm"
        return load_model(ModelOptions(model_type=kind, model_size=size, **options), purpose, words)


def count(loaded: Any) -> int:
    return sum(weight.numel() for weight in loaded.model.parameters())


@pytest.mark.parametrize("text", ["124m", "124M", "0.124b", "124000000", "124_000_000", "1.24e8", "124,000k"])
def test_ways_to_write_a_size(text: str) -> None:
    assert parameters(text) == 124_000_000


@pytest.mark.parametrize("text", ["", "big", "12x", "-3m", "0", "m", "1..2m", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="no number of parameters"):
        parameters(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [8_192, 50_257])
@pytest.mark.parametrize("size", ["10m", "50m", "124m", "1.3b"])
def test_within_five_per_cent(kind: str, words: int, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = made(kind, size, words, monkeypatch)
    config = loaded.model.config
    assert count(loaded) == pytest.approx(parameters(size), rel=0.05)
    width, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    assert width % 32 == 0 and (width < 512 or width % 64 == 0) and layers >= 2
    assert width // heads == head_width(width) in (32, 64, 128)
    if words < 10_000:  # an embedding that takes most of the size leaves little choice
        ratio = KINDS[kind].ratio * max(1, width / 1024) ** 0.5
        assert 0.5 * ratio < width / layers < 2 * ratio
    assert config.vocab_size == words
    assert f"{layers} layers × {width}, {counted(heads, 'head')} of {width // heads}" in loaded.lines[1]


@pytest.mark.parametrize(
    ("kind", "size", "words", "layers", "width"),
    [
        ("gpt2", "124m", 50_257, 12, 768),
        ("bert", "110m", 30_522, 12, 768),
        ("roberta", "125m", 50_265, 12, 768),
        ("modernbert", "149m", 50_368, 22, 768),
        ("llama", "6.7b", 32_000, 32, 4096),
        ("mistral", "7.2b", 32_000, 32, 4096),
    ],
)
def test_published_shapes(
    kind: str, size: str, words: int, layers: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = made(kind, size, words, monkeypatch).model.config
    assert (config.num_hidden_layers, config.hidden_size) == (layers, width)
    if kind == "llama":
        assert (config.intermediate_size, config.num_attention_heads, config.num_key_value_heads) == (11_008, 32, 32)
    if kind == "mistral":
        assert (config.intermediate_size, config.num_attention_heads, config.num_key_value_heads) == (14_336, 32, 8)


def test_overrides_win_and_the_rest_is_solved_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shallow = made("gpt2", "20m", 8_192, monkeypatch, config_overrides="n_layer=4")
    assert shallow.model.config.n_layer == 4
    assert count(shallow) == pytest.approx(20e6, rel=0.1)
    narrow = made("gpt2", "20m", 8_192, monkeypatch, config_overrides="n_embd=256")
    assert narrow.model.config.n_embd == 256
    assert count(narrow) == pytest.approx(20e6, rel=0.05)
    heads = made("llama", "20m", 8_192, monkeypatch, config_overrides="num_attention_heads=7,tie_word_embeddings=true")
    assert heads.model.config.num_attention_heads == 7 and heads.model.config.hidden_size % 7 == 0
    both = made("gpt2", "20m", 8_192, monkeypatch, config_overrides="n_embd=128,n_layer=2")
    assert (both.model.config.n_embd, both.model.config.n_layer) == (128, 2)
    assert "the nearest there is" in both.lines[1]


def test_a_vocabulary_larger_than_the_size_names_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"3\.\d m|at least 3\.4m") as error:
        made("gpt2", "2m", 50_257, monkeypatch)
    assert error.value.problems[0].flag == "--model_size"
    smallest = made("gpt2", "3.4m", 50_257, monkeypatch)
    assert count(smallest) == pytest.approx(3.4e6, rel=0.05)


def test_a_type_without_a_rule_is_told_which_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="gpt2, llama, mistral, bert, roberta, modernbert"):
        made("bloom", "10m", 1_000, monkeypatch)


def test_the_tokenizers_context_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def positions(kind: str, words: Words, **options: Any) -> int:
        return int(made(kind, "10m", words, monkeypatch, **options).model.config.max_position_embeddings)

    assert positions("gpt2", Words(1_000)) == 1024, "a tokenizer that states none leaves the type's"
    assert positions("gpt2", Words(1_000, 128)) == 128
    assert positions("gpt2", Words(1_000, 2048)) == 2048
    assert positions("roberta", Words(1_000, 512)) == 514, "RoBERTa's positions begin after its pad id"
    assert positions("llama", Words(1_000, 4096)) == 4096
    assert positions("gpt2", Words(1_000, 128), config_overrides="n_positions=256") == 256


def test_a_narrow_width_and_shared_heads() -> None:
    assert fields_of(160, 6, KINDS["gpt2"]) == {
        "hidden_size": 160, "num_hidden_layers": 6, "num_attention_heads": 5,
    }  # fmt: skip
    assert fields_of(320, 6, KINDS["mistral"])["num_key_value_heads"] == 1  # 5 heads have no other divisors
    assert fields_of(768, 12, KINDS["mistral"])["num_key_value_heads"] == 3
    assert fields_of(768, 12, KINDS["llama"])["intermediate_size"] == 2048
    assert head_width(100) in (50, 100)
