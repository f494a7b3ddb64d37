"""What a run is made of: tokenizer, model, data and objective, opened from the options and checked together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from lmtrain.config.options import Resolved
from lmtrain.config.sharding import sharding_of
from lmtrain.core.allocator import keep_freed_memory
from lmtrain.core.console import Say, say
from lmtrain.core.errors import Problems
from lmtrain.core.types import Source
from lmtrain.data.corpus import Corpus, StoresMade, prepare_corpus
from lmtrain.data.named_text import sources_of
from lmtrain.data.pairs import pair_sources_of, prepare_pairs
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.agreement import require_same_parts
from lmtrain.engine.requirements import check_requirements
from lmtrain.engine.speed.fast_paths import require_isolation
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.precision import Decision, choose_precision, require_format
from lmtrain.engine.speed.threads import threads_again
from lmtrain.models import check_kind, describe, load_model, load_tokenizer, max_positions, require_positions
from lmtrain.models.adapters.lora import adapted
from lmtrain.objectives import Causal, Completion, KeyIds, KeyTokens, Masked, Objective, find_key_ids

_DEFAULT_LENGTH = 1024


@dataclass
class Parts:
    """What a run is made of, before anything is written: each made and checked."""

    tokenizer: Any
    model: Any
    corpus: Corpus
    objective: Objective
    length: int
    device: torch.device
    precision: Decision


def assemble(
    resolved: Resolved,
    decided: dict[str, Any] | None = None,
    *,
    made_ahead: Callable[[], StoresMade] | None = None,
    say: Say = say,
) -> Parts:
    """Open everything that a run needs; all problems of tokenizer, model, data and lengths are raised together."""
    purpose = resolved.purpose
    seed = resolved.training.get("seed", 42)
    transformers.set_seed(seed)
    device = best_device(use_cpu=bool(resolved.training.get("use_cpu")))
    if device.type == "cpu":
        keep_freed_memory()
        number, line = threads_again(decided or {}, torch.get_num_threads())
        torch.set_num_threads(number)
        if line:
            say("attention", line)
    tokenizer = loaded = sources = precision = keys = None
    length = 0
    problems = Problems()
    with problems.collect():
        precision = _precision(resolved, device, decided or {})
    with problems.collect():
        sources = _sources(resolved)
    with problems.collect():
        check_kind(resolved.model, purpose)
        tokenizer = load_tokenizer(resolved.model, purpose)
        with problems.collect():
            keys = find_key_ids(tokenizer, resolved.keys.words) if resolved.keys.words else None
        loaded = load_model(resolved.model, purpose, tokenizer, _asked_length(resolved))
        length = example_length(resolved, loaded.model.config)
        if resolved.do_train and resolved.lora.use_peft:
            shards = sharding_of(resolved.training)  # which takes one format for all weights
            loaded = adapted(loaded, resolved.lora, precision.name if precision and not shards else "fp32")
    if loaded is not None and precision is not None:
        with problems.collect():
            require_format(loaded.model, precision)
        if resolved.do_train:
            with problems.collect():
                check_requirements(resolved, precision, loaded.model)
    problems.raise_if_any()
    assert tokenizer is not None and loaded is not None and precision is not None
    model_line = f"{describe(loaded.model)} · {precision.name} ({precision.reason})"
    say("model", "\n".join([model_line, *loaded.lines]))
    if keys is not None:
        say("keys", "\n".join(keys.lines(weigh=resolved.do_train)))
    asked: dict[str, Any] = {"sources": sources, "wanted": resolved.splits, "seed": seed, "say": say}
    if resolved.command == "sft":
        corpus = prepare_pairs(resolved.data, resolved.pairs, tokenizer, length=length, **asked)
    else:
        files = TokenizerFiles.from_transformers(tokenizer)
        corpus = prepare_corpus(resolved.data, files, purpose, block_size=length, made_ahead=made_ahead, **asked)
    say("data", "\n".join(corpus.ledger.lines()))
    # DDP and DeepSpeed send the first process's weights to all; FSDP cuts what each has, and evaluating sends nothing.
    sharding = sharding_of(resolved.training)
    weights = not resolved.do_train or (sharding is not None and sharding.kind == "fsdp")
    require_same_parts(corpus, tokenizer, loaded.model, say, precision=precision.name, weights=weights)
    objective = _objective(resolved, tokenizer, seed, keys)
    if resolved.data.isolate_documents:
        require_isolation(loaded.model, next(iter(corpus.splits.values())), objective)
    return Parts(tokenizer, loaded.model, corpus, objective, length, device, precision)


def _sources(resolved: Resolved) -> dict[str, list[Source]]:
    hub: dict[str, Any] = {"cache_dir": resolved.model.cache_dir, "token": resolved.model.token}
    if resolved.command == "sft":
        return pair_sources_of(resolved.data, resolved.pairs, **hub)
    return sources_of(resolved.data, **hub)


def _length_name(resolved: Resolved) -> str:
    return "block_size" if resolved.command == "clm" else "max_seq_length"


def _asked_length(resolved: Resolved) -> int | None:
    asked: int | None = getattr(resolved.data, _length_name(resolved))
    return asked


def example_length(resolved: Resolved, config: Any) -> int:
    """Tokens of an example: as asked, else the smaller of 1,024 and the model's positions."""
    name = _length_name(resolved)
    asked = _asked_length(resolved)
    if asked is None:
        return min(_DEFAULT_LENGTH, max_positions(config) or _DEFAULT_LENGTH)
    model = resolved.model.model_name_or_path or resolved.model.model_type or "the model"
    require_positions(asked, config, model, f"--{name}")
    return asked


def _precision(resolved: Resolved, device: torch.device, decided: dict[str, Any]) -> Decision:
    requested = resolved.run.precision
    by: tuple[str, ...] = ("--precision",)
    for name in ("bf16", "fp16"):
        if resolved.training.get(name):  # the stock flags; config/ has refused contradictions
            requested, by = name, (f"--{name}", "leave it out, or give --bf16")
    before = decided.get("precision", {}).get("choice")
    if requested == "auto" and before:
        return Decision(before, "as this run began")
    if requested == "auto" and resolved.training.get("bf16") is False:
        return Decision("fp32", "bf16 is switched off")
    return choose_precision(requested, device, *by)


def _objective(resolved: Resolved, tokenizer: Any, seed: int, keys: KeyIds | None) -> Objective:
    if resolved.command == "sft":
        return Completion() if resolved.pairs.objective == "clm" else Causal()
    if resolved.command == "clm":
        return Causal() if keys is None else KeyTokens(keys.ids, resolved.keys.key_token_alpha)
    masking = resolved.masking
    return Masked.for_tokenizer(
        tokenizer, seed=seed, probability=masking.mlm_probability, whole_words=masking.mask_whole_words
    )
