"""``lmtrain nlg demo``: the chain from nothing but this machine, with the scores before the training and after it.

The corpus is Python's own documentation (``data/nlg/miniature``). A small model first learns to write such sentences
by itself; then it is trained to write the one that belongs to an input.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmtrain.config.commands.nlg import NlgDemoOptions, NlgTraining
from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.config.save import as_dict
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, counted, say
from lmtrain.core.files import write_json, write_text
from lmtrain.core.stopping import Stop
from lmtrain.data.nlg.miniature import write_miniature
from lmtrain.data.nlg.records import Record, read_records
from lmtrain.data.nlg.text import ended
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer
from lmtrain.engine.assembly import train
from lmtrain.models import load_tokenizer
from lmtrain.recipes.data_to_text.data import Prepared, first_of_each, prepare
from lmtrain.recipes.data_to_text.decoding import Search, texts_of_run
from lmtrain.recipes.data_to_text.inputs import fitting
from lmtrain.recipes.data_to_text.scoring import SCORES, PartScores, score_texts
from lmtrain.recipes.data_to_text.table import before_and_after
from lmtrain.recipes.data_to_text.tasks import TASKS
from lmtrain.recipes.data_to_text.token_files import read_contexts
from lmtrain.recipes.data_to_text.training import resolved_training
from lmtrain.recipes.flags import as_a_part
from lmtrain.recipes.several_trainings import look_at
from lmtrain.rehearsal.rehearse import rehearse

_TASK = TASKS["e2e"]  # whose scores are reported
_SEARCH = Search(num_beams=5, length_penalty=0.8, no_repeat_ngram_size=4, max_new_tokens=32)
_INPUTS = 100  # of the test part that are written for, before and after
_VOCABULARY = 4096
_POSITIONS = 128
_SHAPE = f"n_embd=128,n_layer=4,n_head=4,n_positions={_POSITIONS},resid_pdrop=0.0,embd_pdrop=0.0,attn_pdrop=0.0"
_SHARE = 0.4  # of the time that the model learns to write in
# Matrices from scratch, in haste (docs/optimizers.md): after 400 steps and 9,600 pairs BLEU was 9.6, with AdamW 4.1.
_MUON = {"optim": "muon", "optim_args": "adam_ratio=0.5,momentum=0.9"}
_BASE_RATE, _RATE, _PAIRS = 0.03, 0.02, 16


@dataclass(frozen=True)
class Shown:
    """Scores before and after, and of some inputs (input, text before, text after, first reference)."""

    before: PartScores
    after: PartScores
    samples: list[tuple[str, str, str, str]]


def run_nlg_demo(options: NlgDemoOptions, *, stop: Stop | None = None, say: Say = say, inputs: int = _INPUTS) -> Shown:
    """Run the demo into ``options.output_dir``; the same call again takes over what was done."""
    folder = user_path(options.output_dir)
    base, adapted = folder / "base", folder / "adapted"
    trainings = look_at(folder, "nlg demo", as_dict(options), sys.argv[1:], [base.name, adapted.name], say)
    anew = {run: trainings.begins_anew(run.name) for run in (base, adapted)}
    corpus = folder / "corpus"
    files = {part: corpus / f"{part}.jsonl" for part in ("train", "valid", "test")}
    if not all(path.is_file() for path in files.values()):
        write_miniature(corpus)
    train_records = read_records(files["train"])
    say("corpus", f"{counted(len(train_records), 'function')} of Python's standard library and what they do")
    _learn_tokens(train_records, folder)
    tokenizer: Any = load_tokenizer(ModelOptions(tokenizer_name=str(folder / "tokenizer")), "clm")
    data = prepare(
        _TASK.name,
        {k: str(v) for k, v in files.items()},
        TokenizerFiles.from_transformers(tokenizer),
        folder / "data",
        say,
    )
    ways: dict[str, Any] = {"stop": stop, "rehearse": rehearse, "say": as_a_part(say)}
    settings = NlgTraining(
        model_name_or_path=str(base), use_peft=False, learning_rate=_RATE, warmup_steps=20, max_seq_length=_POSITIONS,
        per_device_train_batch_size=_PAIRS, save_steps=1_000_000, overwrite_output_dir=anew[adapted],
    )  # fmt: skip
    resolved = resolved_training(settings, _TASK, data.ids["train"], data.ids["valid"], adapted, options.seed)
    resolved = replace(resolved, training=resolved.training | _MUON)
    with trainings.begun():
        train(_base(options, base, anew[base]), sys.argv[1:], minutes=options.minutes * _SHARE, **ways)
        train(resolved, sys.argv[1:], minutes=options.minutes * (1 - _SHARE), **ways)
        return _shown(folder, base, adapted, data, inputs, say)


def _shown(folder: Path, base: Path, adapted: Path, data: Prepared, inputs: int, say: Say) -> Shown:
    """What both models write, and its scores."""
    records = read_records(data.records["test"])
    numbers = first_of_each(records, inputs)
    contexts = read_contexts(data.ids["test"], "--output_dir")
    asked = fitting(
        {number: contexts[number] for number in numbers}, _POSITIONS, _SEARCH.max_new_tokens, on_long="truncate",
        say=say,
    )  # fmt: skip
    texts = {run: texts_of_run(run, asked, _SEARCH, say=say) for run in (base, adapted)}
    scores = {run: score_texts(_TASK, records, texts[run], run)["all"] for run in (base, adapted)}
    shown = before_and_after(scores[base], scores[adapted], [base.name, adapted.name])
    write_json(
        folder / SCORES, {**{run.name: found.as_json() for run, found in scores.items()}, "table": shown.as_json()}
    )
    samples = [
        (records[n].context, ended(texts[base][n]), ended(texts[adapted][n]), records[n].completion)
        for n in numbers[:3]
    ]
    return Shown(scores[base], scores[adapted], samples)


def _learn_tokens(records: list[Record], folder: Path) -> None:
    """A tokenizer for the texts, and the texts themselves, one a line."""
    lines = folder / "corpus" / "text.txt"
    if not lines.is_file():
        write_text(lines, "".join(f"{text}\n" for record in records for text in (record.context, record.completion)))
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        found = train_tokenizer(resolve_sources([str(lines)], Reading()), TokenizerPlan("bpe", _VOCABULARY))
        found.save(folder / "tokenizer")
        say("tokenizer", found.line)


def _base(options: NlgDemoOptions, run: Path, anew: bool) -> Resolved:
    """What could have been typed as ``lmtrain clm --model_type gpt2 …``: a model that only learns to write."""
    training: dict[str, Any] = {
        "output_dir": str(run),
        "seed": options.seed,
        "per_device_train_batch_size": 16,
        **_MUON,
        "learning_rate": _BASE_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.05,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
    }
    return Resolved(
        "clm",
        ModelOptions(model_type="gpt2", config_overrides=_SHAPE, tokenizer_name=str(run.parent / "tokenizer")),
        DataOptions(train_file=[str(run.parent / "corpus" / "text.txt")], documents="lines", block_size=64),
        MaskingOptions(),
        RunOptions(overwrite_output_dir=anew),
        training,
        frozenset(training) | {"train_file", "model_type", "config_overrides", "block_size", "documents"},
    )
