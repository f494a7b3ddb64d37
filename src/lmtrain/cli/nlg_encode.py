"""``lmtrain nlg encode``: records to token ids."""

from __future__ import annotations

from lmtrain.config.commands.nlg_data import NlgEncodeOptions
from lmtrain.config.options import ModelOptions
from lmtrain.config.values import check_not_the_input
from lmtrain.core.console import counted, say
from lmtrain.core.errors import ExitCode, Problems


def run(options: NlgEncodeOptions) -> int:
    """Encode, say how much it is, print where it is."""
    problems = Problems()
    if not options.input:
        problems.add("name the file of records: lmtrain nlg encode IN OUT", flag="--input")
    if not options.output:
        problems.add("name the file to write: lmtrain nlg encode IN OUT", flag="--output")
    elif options.input:
        check_not_the_input(options.input, options.output, problems)
    if not options.tokenizer_name:
        problems.add("name a tokenizer: a folder, a tokenizer.json or a hub name", flag="--tokenizer_name")
    problems.raise_if_any()
    assert options.input and options.output and options.tokenizer_name
    from lmtrain.data.nlg.encoding import encode_file
    from lmtrain.data.tokenizer_files import TokenizerFiles

    named = ModelOptions(tokenizer_name=options.tokenizer_name)
    if path := TokenizerFiles.path_of(named):
        tokenizer = TokenizerFiles.load(path)
    else:
        from lmtrain.models.loading.tokenizer import load_tokenizer

        tokenizer = TokenizerFiles.from_transformers(load_tokenizer(named))
    records, tokens = encode_file(
        options.input, options.output, tokenizer, add_bos=options.add_bos, add_eos=options.add_eos
    )
    say("records", f"{counted(records, 'record')}, {counted(tokens, 'token')}")
    print(options.output)
    return ExitCode.OK
