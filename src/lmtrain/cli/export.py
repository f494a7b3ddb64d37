"""``lmtrain export MODEL OUT --to hf|peft|loralib|merged``: the same model in another form."""

from __future__ import annotations

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.export import ExportOptions
from lmtrain.core.console import say
from lmtrain.core.errors import ExitCode, UserError


def run(options: ExportOptions) -> int:
    with heavy_imports():
        from lmtrain.models.exporting.conversion import TOLERANCE, export
        from lmtrain.recipes.flags import in_flags

    try:
        with in_flags({"--model_name_or_path": "--base" if options.base else "MODEL"}):
            made = export(options)
    except OSError as error:
        raise UserError(f"{options.out} cannot be written: {error.strerror or error}", flag="OUT") from error
    line = f"read back: logits equal to {made.difference:.1e} of the largest ({TOLERANCE:.0e} allowed)"
    if made.rounded and str(made.dtype) != "torch.float32":
        line += f"; written in {str(made.dtype).removeprefix('torch.')}, which moves them by {made.rounded:.1e}"
    say("export", line)
    if made.alpha is not None:
        say("next", f"the file does not say so: --lora_dim {made.r} --lora_alpha {made.alpha:g}")
    print(made.path)
    return ExitCode.OK
