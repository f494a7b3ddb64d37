"""``lmtrain demo``: from nothing but this machine to a model that was trained, measured and can be used.

A chain of the ordinary stages: corpus → tokenizer → training → scores → completions; each could be typed as a
command of its own, and the last lines say how.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.config.commands.demo import DemoOptions
from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.config.save import as_dict
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, amount, counted, for_reader, say
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_record, write_json
from lmtrain.core.stopping import Stop
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer
from lmtrain.engine.assembly import train
from lmtrain.engine.measuring import Outcome
from lmtrain.engine.runs.resume import where_to_begin
from lmtrain.engine.runs.run_folder import RUN
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.precision import choose_precision
from lmtrain.generate import Completion, Settings, complete
from lmtrain.models import load_model, load_tokenizer
from lmtrain.recipes.corpus import DemoCorpus, build_corpus, compressed_bits_per_byte, standard_library
from lmtrain.recipes.flags import as_a_part
from lmtrain.rehearsal.rehearse import rehearse

PROMPTS = (  # none ends in white space, which belongs to the token after it
    "def read_lines(path, encoding=",
    "class Stack:\n    def __init__(self",
    "import os\nimport sys\nimport",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model and schedule for a speed of machine; ``benchmarks/demo_search.py`` compares them."""

    config: str
    block_size: int
    batch: int
    optim: str
    learning_rate: float
    optim_args: str | None = None


# Two cores without fast bf16 see about a million tokens in three minutes. Then short blocks from many files teach more
# than long ones from few, a small model more than a large one that makes fewer steps, and Muon more than AdamW
# (in haste: docs/optimizers.md).
SLOW = Shape("n_embd=128,n_layer=4,n_head=2,n_positions=64", 64, 12, "muon", 0.03, "adam_ratio=0.5,momentum=0.9")
# Not compared on such a machine yet.
FAST = Shape("n_embd=256,n_layer=4,n_head=4,n_positions=128", 128, 16, "muon", 0.02, "adam_ratio=0.3")
_LEARNS = "demo.json"  # of which text, and how large a vocabulary, beside the run's own files
_NO_DROPOUT = "resid_pdrop=0.0,embd_pdrop=0.0,attn_pdrop=0.0"  # each block is seen once: nothing to overfit


def run_demo(
    options: DemoOptions,
    say: Say = say,
    *,
    shape: Shape | None = None,
    show: bool = True,
    stop: Stop | None = None,
) -> Outcome:
    """Run the demo into ``options.output_dir``; the same call again resumes it, or shows what came out."""
    folder = user_path(options.output_dir)
    shape = shape or _shape_for_this_machine()
    resolved = _resolved(options, folder, shape)
    found = where_to_begin(folder, resolved.command, as_dict(resolved), sys.argv[1:])
    tokenizer = folder / "tokenizer"
    learns = {"source": options.source and str(user_path(options.source).resolve()), "vocab_size": options.vocab_size}
    if not found.overwrites:
        _require_same_text(learns, folder)
    if options.source:
        corpus = build_corpus(user_path(options.source), folder / "corpus", suffixes=None, without=folder)
    else:
        corpus = build_corpus(standard_library(), folder / "corpus")
    whose = f"files of {options.source}" if options.source else "Python files of this machine's standard library"
    say(
        "corpus",
        f"{corpus.train_files:,} {whose}, {amount(corpus.train_bytes, 'B')} "
        f"(held out: {counted(corpus.held_out_files, 'file')}, {amount(corpus.held_out_bytes, 'B')})",
    )
    if found.overwrites or not (tokenizer / "tokenizer.json").is_file():
        (folder / RUN).unlink(missing_ok=True)  # of a demo of another text, where it is begun anew
        write_json(folder / _LEARNS, learns)
        trained = train_tokenizer(
            resolve_sources([str(corpus.train)], Reading()), TokenizerPlan("bpe", options.vocab_size)
        )
        trained.save(tokenizer)
        say("tokenizer", trained.line)
    outcome = train(resolved, sys.argv[1:], minutes=options.minutes, stop=stop, rehearse=rehearse, say=as_a_part(say))
    if show:
        prompts = beginnings(corpus.held_out) if options.source else PROMPTS
        _show(outcome, folder, corpus, prompts, options.seed)
    return outcome


def _require_same_text(learns: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with a demo of another text or vocabulary, whose tokenizer lies in the folder."""
    before = read_record(folder / _LEARNS) or learns
    differ = [f"--{name} was {before.get(name) or 'not given'}" for name in learns if before.get(name) != learns[name]]
    if differ:
        raise UserError(
            f"{folder} holds another demo ({', '.join(differ)}); name another folder, or begin anew with "
            "--overwrite_output_dir",
            flag="--output_dir",
        )


def beginnings(folder: Path, count: int = 3, words: int = 6) -> tuple[str, ...]:
    """The first words of some files, as prompts."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.read_text(encoding="utf-8").lstrip()
        ends = [match.end() for match, _ in zip(re.finditer(r"\S+", text), range(words), strict=False)]
        found.append(text[: ends[-1]])
        if len(found) == count:
            break
    return tuple(found)


def _shape_for_this_machine() -> Shape:
    device = best_device()
    fast = device.type != "cpu" or choose_precision("auto", device).name == "bf16"
    return FAST if fast else SLOW


def _resolved(options: DemoOptions, folder: Path, shape: Shape) -> Resolved:
    """What could have been typed as ``lmtrain clm …``."""
    training: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": shape.batch,
        "per_device_eval_batch_size": 16,
        "optim": shape.optim,
        "optim_args": shape.optim_args,
        "learning_rate": shape.learning_rate,
        "weight_decay": 0.1,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.03,
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "logging_steps": 25,
        "seed": options.seed,
    }
    return Resolved(
        "clm",
        ModelOptions(
            model_type="gpt2",
            config_overrides=f"{shape.config},{_NO_DROPOUT}",
            tokenizer_name=str(folder / "tokenizer"),
        ),
        DataOptions(
            train_file=[str(folder / "corpus" / "train")],
            validation_file=[str(folder / "corpus" / "held_out")],
            block_size=shape.block_size,
        ),
        MaskingOptions(),
        RunOptions(overwrite_output_dir=options.overwrite_output_dir),
        training,
        frozenset(training) | {"train_file", "validation_file", "model_type", "config_overrides", "block_size"},
    )


def _show(outcome: Outcome, folder: Path, corpus: DemoCorpus, prompts: tuple[str, ...], seed: int) -> None:
    """The result beside a compressor's, what the model writes, and what to type next: on standard output."""
    scores = outcome.metrics
    at_end = scores.get("train_loss_at_end", scores["train_loss"])
    tokens = scores["train_tokens_per_second"]  # 0 of a run that lacked only its export
    speed = f" · {tokens:,.0f} tokens/s" if tokens else ""
    rivals = ", ".join(f"{name}: {bits:.2f}" for name, bits in compressed_bits_per_byte(corpus.held_out).items())
    print(
        f"\n  training loss {at_end:.2f} · validation loss {scores['eval_loss']:.2f} · "
        f"perplexity {scores['perplexity']:.0f}{speed}\n"
        f"  {scores['bits_per_byte']:.2f} bits per byte on {amount(corpus.held_out_bytes, 'B')} of files it never saw "
        f"({rivals})\n"
    )
    for completion in _completions(folder, prompts, seed):
        print("  ┌" + "─" * 76)
        for line in for_reader(completion.prompt + completion.text, sys.stdout).splitlines():
            print(f"  │ {line}")
        print("  └" + "─" * 76)
    command = ".venv/bin/lmtrain" if Path(".venv/bin/lmtrain").exists() else "lmtrain"
    tokenizer, model, prompt = map(shlex.quote, (str(folder / "tokenizer"), str(folder), prompts[0]))
    print(
        f"\nYour turn:  {command} clm --model_type gpt2 --model_size 5m --block_size 256 --learning_rate 3e-3 "
        f"--tokenizer_name {tokenizer} --train_file YOUR.txt --output_dir runs/mine\n"
        f"            {command} generate --model_name_or_path {model} {prompt}"
    )


def _completions(folder: Path, prompts: tuple[str, ...], seed: int) -> list[Completion]:
    model_options = ModelOptions(model_name_or_path=str(folder))
    tokenizer = load_tokenizer(model_options, "clm")
    model = load_model(model_options, "clm", tokenizer).model.eval()
    settings = Settings(max_new_tokens=48, temperature=0.6, top_k=40, repetition_penalty=1.1, seed=seed)
    context = model.config.n_positions
    begins = [tokenizer.decode(tokenizer(prompt)["input_ids"][: context // 2]) for prompt in prompts]
    return complete(model, tokenizer, begins, settings, context=context)
