"""Stages of tiny runs: everything is made as a command makes it, so that a test can spoil one part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import with_added_tokens
from lmtrain.cli.arguments import parse
from lmtrain.core.console import silent
from lmtrain.engine.making import make_trainer
from lmtrain.engine.parts import assemble
from lmtrain.engine.rehearsing import Stage
from lmtrain.engine.runs.found import Found
from tiny_models import checkpoint

TEXT = "".join(f"The {word} fox number {n} jumps over the dog.\n" for n in range(60) for word in ("quick", "slow"))


def stage_of(command: str, out: Path, *, spoil: Callable[[Any], None] | None = None, **changes: Any) -> Stage:
    """The stage of the run that ``command`` would be, in ``out``; ``spoil`` changes its model."""
    torch.set_num_threads(1)
    name, *words = command.split()
    resolved: Any = parse(name, [*words, "--output_dir", str(out)]).options
    parts = assemble(resolved, say=silent)
    if spoil is not None:
        spoil(parts.model)

    def make() -> Any:
        return make_trainer(resolved, parts)

    return Stage(resolved, parts, changes.get("folder", out), changes.get("found", Found("new")), make, silent)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Commands of tiny runs by name, without an output folder."""
    root = tmp_path_factory.mktemp("rehearsed")
    (root / "text").write_text(TEXT)
    pairs = [json.dumps({"context": f"fox {n}", "completion": "the dog " * (1 + n % 4)}) for n in range(30)]
    (root / "pairs.jsonl").write_text("\n".join(pairs))
    gpt2, llama, bert = (checkpoint(kind, root / kind) for kind in ("gpt2", "llama", "bert"))
    common = f"--use_cpu --max_steps 2 --data_cache_dir {root}/cache"
    text = f"--train_file {root}/text {common}"
    blocks, lines = f"{text} --block_size 16", f"{text} --max_seq_length 48 --line_by_line"
    commands = {
        "gpt2": f"clm --model_name_or_path {gpt2} {blocks}",
        "llama": f"clm --model_name_or_path {llama} {blocks} --gradient_checkpointing",
        "bert": f"mlm --model_name_or_path {bert} {lines}",
        "pairs": f"sft --model_name_or_path {gpt2} --train_file {root}/pairs.jsonl {common} --max_seq_length 40",
        "lora": f"clm --model_name_or_path {gpt2} {blocks} --use_peft",
        "query and value": f"clm --model_name_or_path {gpt2} {blocks} --use_peft --lora_query_value",
        "merged": f"clm --model_name_or_path {llama} {blocks} --use_peft --merge_lora",
        "muon": f"clm --model_name_or_path {gpt2} {blocks} --optim muon",
    }
    for kind, command, rest in (("gpt2", "clm", blocks), ("bert", "mlm", lines)):
        base, tokenizer = with_added_tokens(kind, root / f"grown {kind}".replace(" ", "-"))
        commands[f"grown {kind}"] = f"{command} --model_name_or_path {base} --tokenizer_name {tokenizer} {rest}"
        commands[f"grown {kind}, lora"] = commands[f"grown {kind}"] + " --use_peft"
    return commands
