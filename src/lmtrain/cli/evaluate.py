"""``lmtrain evaluate``: loss, perplexity and bits per byte of a model on text."""

from __future__ import annotations

import json

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.evaluate import EvaluateOptions
from lmtrain.core.console import is_first_process, say
from lmtrain.core.errors import ExitCode


def run(options: EvaluateOptions) -> int:
    with heavy_imports():
        from lmtrain.engine.distributed.processes import to_the_end
        from lmtrain.engine.measuring import evaluate
        from lmtrain.models import purpose_of

    def tell(topic: str, text: str) -> None:
        """The result to standard output, where it is not printed as JSON."""
        if topic != "result" or options.json:
            say(topic, text)
        elif is_first_process():
            print(text, flush=True)

    resolved = options.as_run(purpose_of(options))
    scores = to_the_end(lambda: evaluate(resolved, say=tell))
    if is_first_process() and options.json:
        print(json.dumps(scores))
    return ExitCode.OK
