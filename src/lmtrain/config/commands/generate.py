# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of ``lmtrain generate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option
from lmtrain.config.checks.model import check_model_given
from lmtrain.config.groups import MAKES_A_MODEL, ModelOptions
from lmtrain.config.values import check_not_the_input
from lmtrain.core.errors import Problems

_OF_BEAMS = ("length_penalty", "early_stopping")


@dataclass
class GenerateOptions(ModelOptions):
    """``lmtrain generate``: completions of a causal model, ranked fillings of a masked one."""

    without: ClassVar[frozenset[str]] = MAKES_A_MODEL | {"resize_embeddings"}
    title: ClassVar[str] = "Generation"

    prompt: list[str] = option([], "Prompts; - reads one from standard input.", metavar="PROMPT", positional=True)
    prompts_file: str | None = option(
        None,
        "A file of prompts: one a line; a .jsonl file has one in the field `prompt` of each line. - reads lines from "
        "standard input.",
        metavar="FILE",
    )
    interactive: bool = option(
        False,
        "A session: a prompt a line, answered as it comes; the model stays loaded. Ctrl-C stops an answer, Ctrl-D or "
        "/quit ends the session.",
    )
    stream: bool = option(False, "Show the text while it is written, one completion after the other.")
    chat: bool = option(
        False, "Put each prompt as the message of a user, written out by the chat template of the tokenizer."
    )
    max_new_tokens: int = option(64, "Longest completion.", unit="tokens", at_least=1)
    do_sample: bool = option(True, "Draw tokens at random; --greedy always takes the likeliest.", off="greedy")
    temperature: float = option(1.0, "Below 1 sharpens, above 1 flattens the distribution drawn from.", above=0)
    top_k: int = option(50, "Draw from the so many likeliest tokens; 0 means all.", unit="tokens", at_least=0)
    top_p: float = option(1.0, "Draw from the likeliest tokens that make up this probability.", above=0, at_most=1)
    min_p: float = option(
        0.0,
        "Draw from tokens that are at least this times as likely as the likeliest; 0 means all.",
        at_least=0,
        at_most=1,
    )
    num_return_sequences: int = option(1, "Completions for each prompt.", at_least=1)
    num_beams: int = option(1, "Beams of a beam search; 1 means none.", at_least=1)
    length_penalty: float = option(
        1.0, "Beams are compared by log-probability / length to this power: above 0 favours long texts."
    )
    early_stopping: bool | Literal["never"] = option(
        False,
        "When a beam search ends: `true` as soon as --num_beams texts are finished, `never` when none can become "
        "better, `false` by a guess in between.",
    )
    repetition_penalty: float = option(1.0, "Above 1 makes tokens that occurred already less likely.", above=0)
    no_repeat_ngram_size: int = option(
        0, "No so many tokens in a row come twice, prompt included; 0 allows it.", unit="tokens", at_least=0
    )
    stop: list[str] = option(
        [],
        r"End a completion before one of these texts; \n and \t stand for a line break and a tab.",
        metavar="TEXT",
        shown_default="only at the end-of-text token",
    )
    seed: int = option(42, "Seed of what is drawn.", at_least=0)
    logprobs: int | None = option(
        None,
        "With --json or --output: the log-probability of each token, and of the so many likeliest beside it.",
        unit="tokens",
        at_least=0,
        shown_default="none",
    )
    top: int = option(5, "Fillings shown for each mask (masked models).", at_least=1)
    batch_size: int = option(8, "Prompts completed at once.", unit="prompts", at_least=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("fp32", "Number format of the products.")
    use_cpu: bool = option(False, "Leave the accelerator alone.")
    json: bool = option(False, "Print one JSON object a line.")
    output: str | None = option(
        None, "Write one JSON object a line to this file, whole or not at all.", metavar="FILE", shown_default="no file"
    )

    def check(self, problems: Problems) -> None:
        """Add what is missing, contradicts itself or has no meaning."""
        check_model_given(self, problems)
        if not self.do_sample and self.num_return_sequences > max(1, self.num_beams):
            problems.add(
                f"{self.num_return_sequences} completions would all be the same without sampling; "
                f"leave out --greedy, or use --num_beams {self.num_return_sequences}",
                flag="--num_return_sequences",
            )
        if self.num_beams > 1 and self.do_sample:
            problems.add("a beam search takes the likeliest and does not sample; add --greedy", flag="--num_beams")
        for name in _OF_BEAMS:
            if self.num_beams == 1 and getattr(self, name) != getattr(GenerateOptions, name):
                problems.add("is for a beam search; add --greedy --num_beams 4", flag=f"--{name}")
        if len(self.stop) > 1 and not (self.prompt or self.prompts_file or self.interactive):
            problems.add("takes all words behind it, and no prompt is left; put the prompts first", flag="--stop")
        if "" in self.stop:
            problems.add("an empty text would end a completion before it begins", flag="--stop")
        if self.logprobs is not None and not (self.json or self.output):
            problems.add("are written as JSON; add --json or --output FILE", flag="--logprobs")
        self._one_way_in(problems)
        self._one_way_out(problems)

    def _one_way_in(self, problems: Problems) -> None:
        stdin = self.prompt.count("-") + (self.prompts_file == "-")
        if stdin > 1:
            problems.add(
                "standard input is read once; give one - only", flag="--prompts_file" if stdin == 2 else "PROMPT"
            )
        if self.interactive and (self.prompt or self.prompts_file):
            given = "--prompts_file" if self.prompts_file else "the prompts"
            problems.add(f"asks for prompts itself; leave out {given}", flag="--interactive")

    def _one_way_out(self, problems: Problems) -> None:
        if self.interactive and self.output:
            problems.add("is for prompts that are known beforehand; leave out --interactive", flag="--output")
        if self.prompts_file and self.output:
            check_not_the_input(self.prompts_file, self.output, problems)
        if self.stream and self.json:
            problems.add("writes text, and --json objects; give one of them, or --output FILE", flag="--stream")
        if self.stream and self.num_beams > 1:
            problems.add(
                "of a beam search nothing is certain before its end; leave out --stream or --num_beams", flag="--stream"
            )
