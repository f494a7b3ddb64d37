"""Records that are pairs: what is given (the context) and what is to be written (the completion).

::

    {"context": "name : Aroma", "completion": "Aroma is a café."}          text   documents "name : Aroma" and
                                                                                  " Aroma is a café."
    {"prompt": "2+2=", "completion": "4"}                                  text   "2+2=" and "4"
    {"messages": [{"role": "user", …}, {"role": "assistant", …}]}          chat   by the tokenizer's chat template,
                                                                                  with the "tools" beside them if any
    {"context": [464, 9970], "completion": [318, 50256]}                   ids    encoded before

A pair is two consecutive documents, the context first, also when it is empty: so all that is done to documents
(hashing, tokenizing, storing) is done to pairs without a word about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from lmtrain.core.types import Piece, Tally
from lmtrain.data.sources.chat import ChatTemplate, Messages, messages_in, tools_in
from lmtrain.data.sources.columns import spoken_of
from lmtrain.data.sources.cutting import pieces_of, slices
from lmtrain.data.sources.origin import Origin
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import PROBED, Bad, Fields, Records, RecordSource

Form = Literal["text", "chat", "ids"]
_NAMES = (("context", "completion"), ("prompt", "completion"))
_MESSAGES, _TOOLS = "messages", "tools"


@dataclass(frozen=True, slots=True)
class PairReading(Reading):
    """How records that are pairs are to be read; see :class:`~lmtrain.config.pairs.PairOptions`."""

    context_column: str | None = None
    completion_column: str | None = None
    separator: str | None = None
    chat_turns: Literal["last", "all"] = "last"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold the pair, of what form; ``context`` is None where one column holds a whole chat, ``tools`` the
    column of what a chat's assistant may call, where there is one."""

    context: str | None
    completion: str
    form: Form
    tools: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.context, self.completion) if self.context else (self.completion,)


class PairSource(RecordSource):
    """Records of one origin; makes two documents of each.

    ``template`` has to be set before records that are chats are read; ``puts_space`` where the tokenizer puts a space
    before every text, so that none has to be put before a completion.
    """

    def __init__(self, origin: Origin, records: Records, reading: PairReading) -> None:
        super().__init__(origin, records, reading)
        self.template: ChatTemplate | None = None
        self.puts_space = False
        self._pairs = reading
        self._columns: Columns | None = None

    @property
    def form(self) -> Form:
        """What the pairs are."""
        return self.columns.form

    @property
    def columns(self) -> Columns:
        self.choose()
        if self._columns is None:
            raise self.origin.error(" holds no records; nothing to read")
        return self._columns

    @property
    def skips(self) -> bool:
        """Whether bad records are passed over."""
        return self.reading.on_bad_record == "skip"

    @property
    def separator(self) -> str:
        """What stands between context and completion, in front of the latter.

        A space, as in the encoding of LoRA's GPT-2 example (gpt2_encode.py), but nothing for a prompt and its
        completion, as TRL has it, and for chats.
        """
        if self._pairs.separator is not None:
            return self._pairs.separator
        columns = self.columns
        return "" if self.puts_space or columns.form == "chat" or columns.names == _NAMES[1] else " "

    def choose(self) -> tuple[str, str | None] | None:
        if self._chosen is None:
            with self._located():
                if kinds := self.records.columns():
                    self._columns = self._choose(kinds)
                    self._chosen = self._columns.completion, None
        return self._chosen

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        if self.choose() and (note := self.note()) not in tally.notes:
            tally.notes.append(note)
        yield from super().pieces(tally)

    def _choose(self, kinds: Mapping[str, str]) -> Columns:
        context, completion = self._pairs.context_column, self._pairs.completion_column
        if context or completion:
            found = next((pair for pair in _NAMES if pair[0] in kinds), _NAMES[0])
            names: tuple[str, ...] = (context or found[0], completion or found[1])
        else:
            names = next((pair for pair in _NAMES if all(name in kinds for name in pair)), ())
            if not names and _MESSAGES in kinds:
                return Columns(None, _MESSAGES, "chat", _TOOLS if _TOOLS in kinds else None)
        listed = ", ".join(f"{name} ({kind})" for name, kind in list(kinds.items())[:12])
        if not names:
            raise self.origin.error(
                f" has the columns {listed}; of pairs it would have context and completion, prompt and completion, "
                "or messages; name the two: --context_column NAME --completion_column NAME"
            )
        for name, flag in zip(names, ("--context_column", "--completion_column"), strict=True):
            if name not in kinds:
                raise self.origin.error(f" has no column {name!r}; it has {listed}; choose one: {flag} NAME")
        if names[0] == names[1]:
            raise self.origin.error(f": {names[0]!r} is context and completion at once; name another column for one")
        form = self._form_of(names)
        return Columns(names[0], names[1], form, _TOOLS if form == "chat" and _TOOLS in kinds else None)

    def _form_of(self, names: tuple[str, ...]) -> Form:
        """Told by the first completion that says it; lists that are all empty are of ids."""
        form: Form = "text"
        for _, record in islice(self.records.rows(names), PROBED):
            value = None if isinstance(record, Bad) else record[names[1]]
            if isinstance(value, str):
                return "text"
            if isinstance(value, list):
                if value:
                    return "chat" if isinstance(value[0], dict) else "ids"
                form = "ids"
        return form

    def note(self) -> str:
        """A line for the user: what is read, and how."""
        columns = self.columns
        shown = " and ".join(repr(name) for name in columns.names)
        if columns.form == "ids":
            return f"pairs are read from {shown}, encoded: nothing is put between or behind them"
        if columns.form == "chat":
            tools = f" with the tools in {columns.tools!r}" if columns.tools else ""
            return f"chats are read from {shown}{tools}, written out by the tokenizer's chat template"
        between = {"": "nothing", " ": "a space"}.get(self.separator, repr(self.separator))
        if self.puts_space and self._pairs.separator is None:
            between = "the space that the tokenizer puts before a text"
        return f"pairs are read from {shown}, with {between} between them"

    def _documents(self, column: str, tally: Tally) -> Iterator[Piece]:
        if self.form == "ids":
            raise self.origin.error(" holds encoded pairs, which are not text")
        limit = self.reading.piece_bytes
        unsized = self.origin.size is None
        columns = self.columns
        for row, record in self.records.rows((*columns.names, columns.tools) if columns.tools else columns.names):
            if isinstance(found := self._texts(record, tally), Bad):
                self._pass_over(row, found, tally)
                continue
            for texts in found:
                pieces = [self._piece(text) for text in texts]
                bad = next((piece for piece in pieces if isinstance(piece, Bad)), None)
                if bad is not None:
                    self._pass_over(row, bad, tally)
                    break
                tally.documents += 1
                for piece in pieces:
                    assert isinstance(piece, Piece)
                    if unsized:
                        tally.bytes_read += piece.n_bytes
                    if piece.n_bytes > limit:
                        yield from pieces_of(slices(piece.text, limit), limit)
                    else:
                        yield piece

    def _texts(self, record: Fields | Bad, tally: Tally) -> list[tuple[str, str]] | Bad:
        """The pairs of texts that a record makes: one, or one for each answer of a chat."""
        if isinstance(record, Bad):
            return record
        if self.form == "chat":
            return self._chat(record, tally)
        for name, value in record.items():
            if not isinstance(value, str):
                return Bad(f"no {name!r}" if value is None else f"{name!r} is {spoken_of(value)}, not text")
        context, completion = record.values()
        if not completion or completion.isspace():
            return Bad("the completion is empty")
        return [(context, self.separator + completion)]

    def _chat(self, record: Fields, tally: Tally) -> list[tuple[str, str]] | Bad:
        if self.template is None:
            raise ValueError("chats are read with a chat template")
        tools = tools_in(record.get(self.columns.tools)) if self.columns.tools else None
        if isinstance(tools, Bad):
            return tools
        turns: list[Messages] = []
        for name in self.columns.names:
            if isinstance(messages := messages_in(record.get(name), name), Bad):
                return messages
            turns.append(messages)
        answers = turns[-1]
        if not answers or answers[-1]["role"] != "assistant":
            said = answers[-1]["role"] if answers else "nothing"
            return Bad(f"the chat's last message must be the assistant's, and it is of {said!r}")
        if len(turns) == 2:
            pairs = [(turns[0], turns[1])]
        else:
            spoken = [at for at, message in enumerate(answers) if message["role"] == "assistant"]
            kept = spoken if self._pairs.chat_turns == "all" else spoken[-1:]
            if len(spoken) > len(kept):
                tally.skipped["earlier answers of chats, which stay context (--chat_turns all learns them)"] += len(
                    spoken
                ) - len(kept)
            pairs = [(answers[:at], answers[at : at + 1]) for at in kept]
        made: list[tuple[str, str]] = []
        for context, completion in pairs:
            if isinstance(texts := self.template.texts(context, completion, tools), Bad):
                return texts
            made.append((texts[0], self.separator + texts[1]))
        return made

    def encoded(self, tally: Tally, n_ids: int) -> Iterator[tuple[list[int], list[int]]]:
        """The ids of each pair, of form ``ids``, checked against a vocabulary of ``n_ids``."""
        tally.files += 1
        tally.bytes_read += self.origin.size or 0
        if (note := self.note()) not in tally.notes:
            tally.notes.append(note)
        with self._located():
            for row, record in self.records.rows(self.columns.names):
                if isinstance(ids := self._ids(row, record, n_ids), Bad):
                    self._pass_over(row, ids, tally)
                else:
                    tally.documents += 1
                    yield ids

    def _ids(self, row: int, record: Fields | Bad, n_ids: int) -> tuple[list[int], list[int]] | Bad:
        if isinstance(record, Bad):
            return record
        for name, value in record.items():
            if not isinstance(value, list) or not all(type(i) is int for i in value):
                return Bad(f"{name!r} is no list of token ids")
            wrong = next((i for i in value if not 0 <= i < n_ids), None)
            if wrong is not None:
                place = f":{row}" if self.records.counts_lines else f": row {row}"
                raise self.origin.error(
                    f"{place}: token id {wrong} in {name!r}, and the vocabulary has the ids 0 to {n_ids - 1}; encode "
                    "the text with this tokenizer (lmtrain nlg encode), or choose the one it was encoded with"
                )
        context, completion = record.values()
        return (context, completion) if completion else Bad("the completion is empty")


def record_source(origin: Origin, records: Records, reading: Reading) -> RecordSource:
    """The source that makes of records what ``reading`` asks for: documents, or pairs."""
    if isinstance(reading, PairReading):
        return PairSource(origin, records, reading)
    return RecordSource(origin, records, reading)
