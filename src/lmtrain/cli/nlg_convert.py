"""``lmtrain nlg convert``: E2E, WebNLG or DART to records of a context and a completion."""

from __future__ import annotations

from lmtrain.config.commands.nlg_data import NlgConvertOptions
from lmtrain.config.values import check_not_the_input
from lmtrain.core.console import counted, say
from lmtrain.core.errors import ExitCode, Problems


def run(options: NlgConvertOptions) -> int:
    """Convert, say how many there are, print where they are."""
    problems = Problems()
    if not options.format:
        problems.add("say what the file is: e2e, webnlg or dart", flag="--format")
    if not options.input:
        problems.add("name the corpus' file: lmtrain nlg convert FORMAT IN OUT", flag="--input")
    if not options.output:
        problems.add("name the file to write: lmtrain nlg convert FORMAT IN OUT", flag="--output")
    elif options.input:
        check_not_the_input(options.input, options.output, problems)
    problems.raise_if_any()
    assert options.format and options.input and options.output
    from lmtrain.data.nlg.formats import convert

    records, contexts = convert(options.format, options.input, options.output)
    say("records", f"{counted(records, 'text')} for {counted(contexts, 'input')}")
    print(options.output)
    return ExitCode.OK
