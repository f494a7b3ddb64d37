"""``lmtrain export``: the same model in every form, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from adapters import options, stirred, with_added_tokens
from lmtrain.cli.main import main
from lmtrain.config.commands.export import ExportOptions
from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import OwnResultWrong, UserError
from lmtrain.models import load_model, load_tokenizer, save_model
from lmtrain.models.adapters.lora import adapted
from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora
from lmtrain.models.exporting import conversion
from lmtrain.models.exporting.conversion import TOLERANCE, export
from tiny_models import PURPOSE, checkpoint

peft = pytest.importorskip("peft")


def logits(path: Path | str, purpose: str = "clm", ids: torch.Tensor | None = None) -> torch.Tensor:
    model = load_model(ModelOptions(str(path)), purpose, None).model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 9, 33, 7, 21]]) if ids is None else ids).logits


def do(model: Path | str, out: Path, to: Any, **others: Any) -> Any:
    return export(ExportOptions(model=str(model), out=str(out), to=to, **others))


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())


def an_adapter(folder: Path, kind: str = "gpt2", added: bool = False, **changes: Any) -> Path:
    base, name = with_added_tokens(kind, folder) if added else (checkpoint(kind, folder / "base"), None)
    chosen = ModelOptions(model_name_or_path=base, tokenizer_name=name)
    tokenizer = load_tokenizer(chosen)
    model = adapted(load_model(chosen, PURPOSE[kind], tokenizer), options(**changes)).model
    save_model(stirred(model), tokenizer, folder / "run")
    return folder / "run"


def of_query_and_value(folder: Path) -> Path:
    """An adapter folder as the data-to-text recipe leaves it."""
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", folder / "base"))
    model = merged_lora(load_model(chosen, "clm", None).model, 4, 32)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapted_attention(model):
            b = layer.lora_B["default"]
            b.weight.copy_(torch.randn(b.weight.shape, generator=generator) * b.blocks * 0.1)
    save_model(model, load_tokenizer(chosen), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "roberta"])
@pytest.mark.parametrize("to", ["merged", "peft"])
def test_an_adapter_merged_or_written_anew(tmp_path: Path, kind: str, added: bool, to: str) -> None:
    run = an_adapter(tmp_path, kind, added)
    made = do(run, tmp_path / "out", to)
    assert made.difference <= TOLERANCE
    last = load_model(ModelOptions(str(run)), PURPOSE[kind], None).model.get_input_embeddings().weight.shape[0] - 1
    ids = torch.tensor([[5, 9, last, 7, last - 1]])
    assert alike(logits(tmp_path / "out", PURPOSE[kind], ids), logits(run, PURPOSE[kind], ids))
    base = logits(tmp_path / "base", PURPOSE[kind])
    assert not alike(logits(run, PURPOSE[kind])[..., : base.shape[-1]], base), "the adapter changes something"
    assert (tmp_path / "out" / "config.json").exists() == (to == "merged")
    assert len(load_tokenizer(ModelOptions(str(tmp_path / "out")))) == len(load_tokenizer(ModelOptions(str(run))))


@pytest.mark.parametrize("full", [False, True])
def test_there_and_back_through_loralib(tmp_path: Path, full: bool) -> None:
    run, base = of_query_and_value(tmp_path), str(tmp_path / "base")
    made = do(run, tmp_path / "model.pt", "loralib", full=full)
    assert (made.alpha, made.r) == (32, 4)
    size = (tmp_path / "model.pt").stat().st_size
    assert (size > 100_000) == full
    for to in ("peft", "merged", "hf"):
        do(tmp_path / "model.pt", tmp_path / to, to, base=base, lora_alpha=32)
        assert alike(logits(tmp_path / to), logits(run))
    do(tmp_path / "peft", tmp_path / "again.pt", "loralib", full=full)
    one, two = (torch.load(tmp_path / name, weights_only=True)["model_state_dict"] for name in ("model.pt", "again.pt"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_whole_file_of_another_model_than_the_base(tmp_path: Path) -> None:
    """All weights were trained (rank 0), or it began from another checkpoint: the file's weights count."""
    run = of_query_and_value(tmp_path)
    do(run, tmp_path / "model.pt", "loralib", full=True)
    other = checkpoint("gpt2", tmp_path / "other", seed=5)
    do(tmp_path / "model.pt", tmp_path / "merged", "merged", base=other, lora_alpha=32)
    assert alike(logits(tmp_path / "merged"), logits(run))
    with pytest.raises(UserError, match="differ from those of --base"):
        do(tmp_path / "model.pt", tmp_path / "peft", "peft", base=other, lora_alpha=32)
    with pytest.raises(UserError, match="add --full"):
        do(tmp_path / "model.pt", tmp_path / "part.pt", "loralib", base=other, lora_alpha=32)
    do(tmp_path / "model.pt", tmp_path / "whole.pt", "loralib", base=other, lora_alpha=32, full=True)
    assert sorted(path.name for path in tmp_path.glob("[pw]*")) == ["whole.pt"]


def test_a_whole_model_as_a_file_without_an_adapter(tmp_path: Path) -> None:
    base = checkpoint("gpt2", tmp_path / "base")
    with pytest.raises(UserError, match="add --full"):
        do(base, tmp_path / "model.pt", "loralib")
    do(base, tmp_path / "model.pt", "loralib", full=True)
    other = checkpoint("gpt2", tmp_path / "other", seed=5)
    do(tmp_path / "model.pt", tmp_path / "hf", "hf", base=other)
    assert alike(logits(tmp_path / "hf"), logits(base))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_models_are_exported_whole(tmp_path: Path, tied: bool) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", tmp_path / "first"))
    model: Any = load_model(chosen, "clm", None).model
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 1.5)
    save_model(model, load_tokenizer(chosen), tmp_path / "base")
    loaded = load_model(ModelOptions(str(tmp_path / "base")), "clm", None)
    save_model(stirred(adapted(loaded, options()).model), None, tmp_path / "run")
    do(tmp_path / "run", tmp_path / "out", "merged")
    assert alike(logits(tmp_path / "out"), logits(tmp_path / "run"))
    again: Any = load_model(ModelOptions(str(tmp_path / "out")), "clm", None).model
    assert (again.lm_head.weight is again.transformer.wte.weight) == tied
    if not tied:
        with pytest.raises(UserError, match="head is its embedding"):
            do(tmp_path / "base", tmp_path / "model.pt", "loralib", full=True)


def test_a_head_trained_whole_is_no_longer_tied(tmp_path: Path) -> None:
    run = an_adapter(tmp_path, "gpt2", modules_to_save=["lm_head"])
    do(run, tmp_path / "out", "merged")
    again: Any = load_model(ModelOptions(str(tmp_path / "out")), "clm", None).model
    assert alike(logits(tmp_path / "out"), logits(run)) and again.lm_head.weight is not again.transformer.wte.weight


def test_a_model_in_bf16_stays_in_bf16(tmp_path: Path) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", tmp_path / "first"))
    save_model(load_model(chosen, "clm", None).model.to(torch.bfloat16), None, tmp_path / "base")
    loaded = load_model(ModelOptions(str(tmp_path / "base")), "clm", None)
    save_model(stirred(adapted(loaded, options()).model), None, tmp_path / "run")
    made = do(tmp_path / "run", tmp_path / "out", "merged")
    assert made.dtype == torch.bfloat16 and made.difference <= TOLERANCE < made.rounded < 0.1
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 120_000


def test_another_base_can_be_named(tmp_path: Path) -> None:
    run = an_adapter(tmp_path)
    right = logits(run)
    (tmp_path / "base").rename(tmp_path / "moved")
    do(run, tmp_path / "out", "merged", base=str(tmp_path / "moved"))
    assert alike(logits(tmp_path / "out"), right)
    do(run, tmp_path / "peft", "peft", base=str(tmp_path / "moved"))
    assert alike(logits(tmp_path / "peft"), right), "the new place is recorded"


@pytest.mark.parametrize("to", ["merged", "peft", "loralib"])
def test_what_computes_otherwise_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    run = of_query_and_value(tmp_path)
    write, write_weights = conversion.write_loralib, safetensors.torch.save_file

    def spoil_weights(tensors: dict[str, torch.Tensor], *rest: Any, **more: Any) -> None:
        touched = [name for name in tensors if "lora_B" in name or name.endswith("h.0.attn.c_attn.weight")]
        assert touched
        write_weights(
            {name: value * 1.01 if name in touched else value for name, value in tensors.items()}, *rest, **more
        )

    def spoil_file(path: Path, file: Any) -> None:
        write(path, replace(file, pairs={n: (a, b * 1.01) for n, (a, b) in file.pairs.items()}))

    for module in (transformers.modeling_utils, peft.peft_model):
        monkeypatch.setattr(module, "safe_save_file", spoil_weights)
    monkeypatch.setattr(conversion, "write_loralib", spoil_file)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OwnResultWrong, match=r"computes other logits|has other values"):
        do(run, tmp_path / ("out.pt" if to == "loralib" else "out"), to)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"to": "loralib", "out": "new.pt"}, "changes the keys"),
        ({"out": "base"}, "is there already"),
        ({"lora_alpha": 4.0}, "leave it out"),
        ({"model": "base", "to": "peft"}, "holds no adapter"),
        ({"model": "base", "base": "run"}, "belongs to an adapter"),
        ({"model": "model.pt"}, "does not name its model"),
        ({"model": "model.pt", "base": "base"}, "does not hold the adapter's alpha"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_refused(tmp_path: Path, others: dict[str, Any], words: str) -> None:
    of_query_and_value(tmp_path)
    do(tmp_path / "run", tmp_path / "model.pt", "loralib")
    (tmp_path / "run").rename(tmp_path / "query_and_value")
    an_adapter(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    given = {"model": "run", "out": "new", "to": "merged", **others}
    for name in ("model", "out", "base"):
        if name in given:
            given[name] = str(tmp_path / given[name])
    with pytest.raises(UserError, match=words):
        export(ExportOptions(**given))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_as_a_user_types_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = of_query_and_value(tmp_path)
    assert main(["export", str(run), str(tmp_path / "m.pt"), "--to", "loralib"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "m.pt") and "--lora_dim 4 --lora_alpha 32" in printed.err
    base = str(tmp_path / "base")
    words = ["export", str(tmp_path / "m.pt"), str(tmp_path / "whole"), "--to", "merged", "--base", base]
    assert main(words) == 2 and "--lora_alpha" in capsys.readouterr().err
    assert main([*words, "--lora_alpha", "32"]) == 0
    assert "read back" in capsys.readouterr().err
    assert alike(logits(tmp_path / "whole"), logits(run))
    assert main(["export", str(run), "--full"]) == 2
    said = capsys.readouterr().err
    assert "OUT" in said and "--to" in said
    assert main(["export", str(run), str(tmp_path / "m.txt"), "--to", "loralib"]) == 2
    assert ".pt" in capsys.readouterr().err


def test_every_linear_layer_and_another_scale(tmp_path: Path) -> None:
    run = an_adapter(tmp_path, "llama", use_rslora=True, lora_target_modules=["all-linear"])
    do(run, tmp_path / "out", "merged")
    assert alike(logits(tmp_path / "out"), logits(run))
