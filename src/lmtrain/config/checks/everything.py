"""Options that contradict each other, or leave something out that a command needs.

Only what the options alone tell is checked here, in milliseconds; what needs the data, the tokenizer or the
model is checked where those are opened.
"""

from __future__ import annotations

from typing import Any

from lmtrain.config.adapter import check_lora
from lmtrain.config.checks.data import (
    check_apart,
    check_chunking,
    check_data,
    check_has_text,
    check_prepare,
    check_splits,
)
from lmtrain.config.checks.model import check_model, check_model_given, check_not_its_own_start
from lmtrain.config.checks.steps import check_batch, check_muon, check_precision, check_schedule
from lmtrain.config.commands.export import ExportOptions, check_export
from lmtrain.config.commands.filter import FilterOptions, check_filter
from lmtrain.config.commands.generate import GenerateOptions, check_generate
from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions, check_gpt2_ft
from lmtrain.config.commands.push import PushOptions, check_push
from lmtrain.config.commands.report import ReportOptions, check_report
from lmtrain.config.key_tokens import check_key_tokens
from lmtrain.config.muon import is_muon
from lmtrain.config.options import (
    EvaluateOptions,
    PrepareOptions,
    Resolved,
    TokenizerOptions,
)
from lmtrain.config.samples import check_samples
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems


def check(options: Any, problems: Problems) -> None:
    """Add to ``problems`` whatever is wrong with the options of a command."""
    if isinstance(options, Resolved):
        _training(options, problems)
    elif isinstance(options, TokenizerOptions):
        check_data(options, problems)
        check_has_text(options, problems)
        if options.like and options.type:
            problems.add("has its kind already; give one of --like and --type", flag="--like")
        if not options.output_dir:
            problems.add("say where the tokenizer goes, such as --output_dir my-tokenizer", flag="--output_dir")
        check_apart(options, options.output_dir, "--output_dir", problems)
    elif isinstance(options, FilterOptions):
        check_data(options, problems)
        check_has_text(options, problems)
        check_apart(options, options.output, "--output", problems)
        check_filter(options, problems)
    elif isinstance(options, PrepareOptions):
        check_prepare(options, problems)
    elif isinstance(options, EvaluateOptions):
        check_model_given(options, problems)
        check_data(options, problems)
        if not (options.validation_file or options.test_file or options.dataset_name):
            problems.add("nothing to evaluate on; name a text: --validation_file TEXT", flag="--validation_file")
        check_key_tokens(options, frozenset(), problems)
    elif isinstance(options, ExportOptions):
        check_export(options, problems)
    elif isinstance(options, PushOptions):
        check_push(options, problems)
    elif isinstance(options, ReportOptions):
        check_report(options, problems)
    elif isinstance(options, Gpt2FtOptions):
        with problems.collect():
            check_gpt2_ft(options)
    elif isinstance(options, GenerateOptions):
        check_model_given(options, problems)
        check_generate(options, problems)


def _training(options: Resolved, problems: Problems) -> None:
    check_model(options, problems)
    check_data(options.data, problems)
    check_apart(options.data, options.output_dir, "--output_dir", problems)
    check_splits(options, problems)
    check_precision(options, problems)
    check_batch(options, problems)
    if is_muon(options.training):
        check_muon(options.training, problems)
    check_schedule(options, problems)
    check_lora(options.lora, options.given, options.model, problems)
    check_key_tokens(options.keys, options.given, problems)
    check_samples(options.samples, options.training, options.do_train, options.do_eval, problems)
    data = options.data
    if data.compat and data.compat != f"run_{options.command}":
        problems.add(f"{data.compat} is the other script; here it is --compat run_{options.command}", flag="--compat")
    if data.compat and options.command == "clm" and "append_eos" in options.given and data.append_eos:
        problems.add(
            "run_clm puts no end-of-text token between documents; give only one of --compat and --append_eos",
            flag="--compat",
        )
    check_chunking(data, problems)
    if data.chunking == "documents" and "append_eos" in options.given and data.append_eos:
        problems.add(
            "windows of single documents have no end-of-text tokens; give only one of --chunking documents and "
            "--append_eos",
            flag="--chunking",
        )
    if data.pad_to_max_length and not data.line_by_line:
        problems.add("only lines can be padded; blocks are full. Add --line_by_line", flag="--pad_to_max_length")
    if options.do_train and not options.output_dir:
        problems.add("say where the run goes, such as --output_dir runs/mine", flag="--output_dir")
    elif options.do_train and options.output_dir:
        check_not_its_own_start(options.model, user_path(options.output_dir), problems)
