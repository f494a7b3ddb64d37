"""``lmtrain filter``: of a corpus, what passes the rules, each text once."""

from __future__ import annotations

import json

from lmtrain.cli.startup import light_imports
from lmtrain.config.commands.filter import FilterOptions
from lmtrain.core.console import say
from lmtrain.core.errors import ExitCode


def run(options: FilterOptions) -> int:
    """Filter, and print the report."""
    with light_imports():
        from lmtrain.data.filter.report import lines
        from lmtrain.data.filter.run import filter_corpus

    report = filter_corpus(options, say=say)
    print(json.dumps(report, ensure_ascii=False) if options.json else "\n".join(lines(report)))
    kept = options.output
    say("next", f"lmtrain tokenizer --source {kept} … or lmtrain clm --train_file {kept} …")
    return ExitCode.OK
