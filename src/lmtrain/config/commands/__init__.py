"""The options of each command, a module for one or a few that belong together.

A command that needs the options of several groups inherits them, so its options *are* a ``ModelOptions`` or a
``DataOptions`` wherever a function asks for one; ``without`` names the inherited fields that the command does not offer
(they keep their defaults). A method ``check(problems)`` adds whatever the options alone show to be wrong, in
milliseconds; what needs the data, the tokenizer or the model is checked where those are opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

TRAINING_COMMANDS: Final = ("clm", "mlm", "sft")  # these share lmtrain.config.options.Resolved
ABOUT_A_RUN: Final = ("profile", "check", "verify-resume")  # a training command follows, with its options

# Named, not imported: making the classes of all commands takes a twentieth of a second at each start.
_CLASSES: Final = {
    "tokenizer": "tokenizer.TokenizerOptions",
    "filter": "filter.FilterOptions",
    "prepare": "prepare.PrepareOptions",
    "evaluate": "evaluate.EvaluateOptions",
    "generate": "generate.GenerateOptions",
    "nlg": "nlg.NlgOptions",
    "nlg demo": "nlg.NlgDemoOptions",
    "nlg train": "nlg.NlgTrainOptions",
    "nlg convert": "nlg_data.NlgConvertOptions",
    "nlg encode": "nlg_data.NlgEncodeOptions",
    "nlg decode": "nlg_decode.NlgDecodeOptions",
    "nlg text": "nlg_data.NlgTextOptions",
    "nlg score": "nlg_score.NlgScoreOptions",
    "demo": "demo.DemoOptions",
    "profile": "profile.ProfileOptions",
    "check": "check.CheckOptions",
    "verify-resume": "verify_resume.VerifyResumeOptions",
    "export": "export.ExportOptions",
    "report": "report.ReportOptions",
    "push": "push.PushOptions",
    "gpt2-ft": "gpt2_ft.Gpt2FtOptions",
}
OTHER_COMMANDS: Final = tuple(_CLASSES)


def options_of(command: str) -> type:
    """The class of the options of one of ``OTHER_COMMANDS``."""
    module, _, name = _CLASSES[command].partition(".")
    found: type = getattr(import_module(f"{__name__}.{module}"), name)
    return found
