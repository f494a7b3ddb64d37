"""``lmtrain nlg text``: token ids to texts, and references beside them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.core.console import say
from lmtrain.core.errors import ExitCode

if TYPE_CHECKING:
    from lmtrain.config.commands.nlg_data import NlgTextOptions


def run(options: NlgTextOptions) -> int:
    """Write the files, print where the texts are, and say how they are scored."""
    with heavy_imports():
        from lmtrain.recipes.data_to_text.texts import texts_of_files

    texts, references = texts_of_files(options, say)
    print(texts)
    files = ["--predictions", str(texts), "--references", str(references)]
    say("score", shlex.join(["lmtrain", "nlg", "score", str(options.task), *files]))
    return ExitCode.OK
