"""Models whose attention is flash-attention's: proven, packed and compared, through the library's own plumbing.

The kernels themselves need a GPU; here plain attention stands in for them, with what they demand: 16 bits, ends of
examples as int32, lengths as ints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import modeling_flash_attention_utils as library

from architectures import CAUSAL, tiny
from lmtrain.cli.main import main
from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.engine.speed.fast_paths import require_isolation
from lmtrain.engine.speed.precision import Decision, require_format
from lmtrain.engine.speed.proof import prove_scoring
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models.comparison import logits_of
from lmtrain.models.head import find_head
from lmtrain.models.isolation_proof import prove_isolation
from lmtrain.objectives import Causal, Labelled
from lmtrain.rehearsal import twin as twins
from tiny_models import checkpoint

LENGTHS = np.array([40, 7, 3, 20])
EXAMPLES = Examples(np.random.default_rng(0).integers(5, 67, (4, 40)), LENGTHS, np.zeros((4, 40), bool), np.arange(4))
IDS = torch.tensor([[5, 9, 33, 7, 21, 40, 12, 8], [6, 60, 11, 11, 54, 30, 29, 18]])


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """(B, T, H, D)."""
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    queries, keys, values = (tensor.transpose(1, 2) for tensor in (q, k, v))
    apart = torch.arange(q.shape[1])[:, None] - torch.arange(k.shape[1])
    left, right = window_size
    seen = ((apart <= left) | (left < 0)) & ((-apart <= (0 if causal else right)) | (right < 0 and not causal))
    attend = nn.functional.scaled_dot_product_attention
    return attend(queries, keys, values, seen, scale=softmax_scale, enable_gqa=True).transpose(1, 2)


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """(N, H, D), the examples end to end."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and type(max_seqlen_q) is type(max_seqlen_k) is int
    lengths = cu_seqlens_q.diff().tolist()
    assert torch.equal(cu_seqlens_q, cu_seqlens_k) and max_seqlen_q == max(lengths) and sum(lengths) == len(q)
    parts = (flash_attn_func(*(p[None] for p in part), 0.0, softmax_scale, causal, window_size)[0]
             for part in zip(*(tensor.split(lengths) for tensor in (q, k, v)), strict=True))  # fmt: skip
    return torch.cat(list(parts))


@pytest.fixture(autouse=True)
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    package.__dict__.update(
        flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func, flash_attn_with_kvcache=None,
        bert_padding=padding,
    )  # fmt: skip
    padding.__dict__.update(pad_input=library._pad_input, unpad_input=library._unpad_input)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(library, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(library, "_loaded_implementation", None)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)  # which looks for a GPU
    yield


def with_flash(kind: str) -> Any:
    model = tiny(kind)
    model.set_attn_implementation("flash_attention_2")
    assert model.config._attn_implementation == "flash_attention_2"
    return model


KINDS = ["gpt2", "llama", "bert"]


@pytest.mark.parametrize("kind", [*KINDS, "mistral", "modernbert"])
def test_packed_examples_are_kept_apart(kind: str) -> None:
    model = with_flash(kind).train()
    found = prove_isolation(model, EXAMPLES, causal=kind in CAUSAL)
    assert found.way == "varlen" and found.one_row, found.reason
    assert model.training and {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_computed_where_there_is_a_label(kind: str) -> None:
    model = with_flash(kind)
    objective = Causal() if kind in CAUSAL else Labelled(shifted=False)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None


@pytest.mark.parametrize("small", [True, False])
def test_the_rehearsal_s_twin_computes_in_fp32(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(twins, "SMALL", 0)
    model = with_flash("llama")
    assert twins.make_twin(model).model(input_ids=IDS).logits.dtype == torch.float32
    assert model.config._attn_implementation == "flash_attention_2"


def test_documents_are_found_to_be_apart_where_the_kernels_are() -> None:
    """The first look at a model is before it is moved to the GPU."""
    require_isolation(with_flash("gpt2"), None, Causal())


def test_products_in_fp32_are_refused() -> None:
    with pytest.raises(UserError, match=r"--attn_implementation: flash_attention_2 .* add --precision bf16"):
        require_format(with_flash("gpt2"), Decision("fp32", "as asked"))
    require_format(with_flash("gpt2"), Decision("bf16", "as asked"))
    require_format(tiny("gpt2"), Decision("fp32", "as asked"))


@pytest.mark.parametrize("command", ["generate", "nlg decode"])
def test_what_writes_text_refuses_fp32_too(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint("gpt2", tmp_path / "m")
    words = ["--model_name_or_path", str(model), "--attn_implementation", "flash_attention_2", "--use_cpu"]
    if command == "nlg decode":
        (tmp_path / "in.jsonl").write_text('{"context": [5, 6]}\n')
        files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        words += [*files, "--max_new_tokens", "4"]
    assert main([*command.split(), *([] if command == "nlg decode" else ["a"]), *words]) == 2
    said = capsys.readouterr().err
    assert "--attn_implementation" in said and "flash_attention_2 multiplies in bf16 or fp16" in said


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_is_computed_in_fp32_all_the_same(kind: str) -> None:
    model = with_flash(kind)
    found = logits_of(model, IDS)
    assert model.config._attn_implementation == "flash_attention_2"
    model.set_attn_implementation("sdpa")
    assert torch.equal(found, logits_of(model, IDS))
