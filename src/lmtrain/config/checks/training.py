"""Options of a training that contradict each other, or leave something out that it needs."""

from __future__ import annotations

from lmtrain.config.adapter import check_lora
from lmtrain.config.checks.data import check_apart, check_chunking, check_data
from lmtrain.config.checks.model import check_model, check_not_its_own_start
from lmtrain.config.checks.steps import check_batch, check_muon, check_precision, check_schedule
from lmtrain.config.key_tokens import check_key_tokens
from lmtrain.config.muon import is_muon
from lmtrain.config.options import Resolved
from lmtrain.config.samples import check_samples
from lmtrain.config.values import user_path
from lmtrain.core.errors import Problems


def check_training(options: Resolved, problems: Problems) -> None:
    """Add to ``problems`` whatever the options alone show to be wrong."""
    check_model(options, problems)
    check_data(options.data, problems)
    check_apart(options.data, options.output_dir, "--output_dir", problems)
    _check_splits(options, problems)
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


def _check_splits(options: Resolved, problems: Problems) -> None:
    """Is there data for what is asked?"""
    data, asked = options.data, options.training
    if not (options.can_train or options.can_evaluate):
        problems.add("no text; name a file or a folder: --train_file TEXT", flag="--train_file")
        return
    if asked.get("do_train") and not options.can_train:
        problems.add("nothing to train on; name a text: --train_file TEXT", flag="--do_train")
    evaluates = "--do_eval" if asked.get("do_eval") else "--eval_strategy"
    if options.do_eval and not options.can_evaluate:
        problems.add(
            "nothing to evaluate on: no --validation_file, and --validation_split_percentage is 0",
            flag=evaluates,
        )
    if data.validation_split_percentage == 100 and options.do_train and not data.validation_file:
        problems.add("100 leaves nothing to train on", flag="--validation_split_percentage")
