"""``lmtrain nlg demo``: data to text on a corpus that every machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmtrain.cli.startup import heavy_imports
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import Stop

if TYPE_CHECKING:
    from lmtrain.config.commands.nlg import NlgDemoOptions


def run(options: NlgDemoOptions) -> int:
    with Stop().listening() as stop:
        with heavy_imports():
            from lmtrain.recipes.data_to_text.demo import run_nlg_demo
            from lmtrain.recipes.data_to_text.table import before_and_after

        shown = run_nlg_demo(options, stop=stop)
    for context, before, after, reference in shown.samples:
        print(f"\n  {context}\n    before     {before}\n    after      {after}\n    reference  {reference}")
    print(f"\n{before_and_after(shown.before, shown.after).as_text()}")
    print("\nYour turn:  lmtrain nlg e2e --train train.txt --valid valid.txt --test test.txt --model ./gpt2 \\")
    print("              --output_dir runs/e2e")
    return ExitCode.OK
