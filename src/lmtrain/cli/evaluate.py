"""``lmtrain evaluate``: loss, perplexity and bits per byte of a model on text."""

from __future__ import annotations

import json

from lmtrain.config.options import EvaluateOptions, Resolved, RunOptions
from lmtrain.core.console import is_first_process
from lmtrain.core.errors import ExitCode, UserError
from lmtrain.core.startup import heavy_imports


def run(options: EvaluateOptions) -> int:
    with heavy_imports():
        from lmtrain.engine.distributed.processes import to_the_end
        from lmtrain.engine.measuring import evaluate
        from lmtrain.models import purpose_of
        from lmtrain.models.quiet import quiet_for_commands

    quiet_for_commands()
    training = {
        "do_eval": True,
        "output_dir": options.output_dir,
        "per_device_eval_batch_size": options.per_device_eval_batch_size,
        "use_cpu": options.use_cpu,
        "seed": options.seed,
    }
    purpose = purpose_of(options)
    if options.words and purpose == "mlm":
        raise UserError(
            "tells blocks with certain words apart for causal models, and this one is masked; leave it out",
            flag="--key_tokens",
        )
    run = RunOptions(precision=options.precision)
    resolved = Resolved(purpose, options, options, options, run, training, keys=options)
    scores = to_the_end(lambda: evaluate(resolved))
    if is_first_process() and options.json:
        print(json.dumps(scores))
    return ExitCode.OK
