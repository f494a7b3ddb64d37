"""Records that are pairs: two documents each, from every format, with every mistake named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.sources import hub_source, resolve_sources
from lmtrain.data.sources.chat import ChatTemplate
from lmtrain.data.sources.pairs import PairReading, PairSource

PAIRS = [("name : Aroma", "Aroma is a café."), ("", "Nothing was asked"), ('a "quoted", one', "two\nlines ")]


def jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def records(names: tuple[str, str] = ("context", "completion")) -> list[dict[str, Any]]:
    return [{"id": 7, names[0]: context, names[1]: completion} for context, completion in PAIRS]


def source_of(path: Path, **reading: Any) -> PairSource:
    (found,) = resolve_sources([str(path)], PairReading(**reading))
    assert isinstance(found, PairSource)
    return found


def documents(source: PairSource, tally: Tally | None = None) -> list[str]:
    """The documents that the pieces of a source make."""
    texts: list[str] = []
    for piece in source.pieces(tally or Tally()):
        assert piece.n_bytes == len(piece.text.encode()) and piece.utf8 in (None, piece.text.encode())
        if piece.first:
            texts.append("")
        texts[-1] += piece.text
    return texts


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["id", "context", "completion"])
        writer.writeheader()
        writer.writerows(records())


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.jsonl": lambda path: jsonl(path, records()),
    "a.json": lambda path: path.write_text(json.dumps({"data": records()}, indent=1), "utf-8"),
    "a.csv": write_csv,
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(records()), path, row_group_size=2),
    "a.arrow": lambda path: pyarrow.feather.write_feather(pa.Table.from_pylist(records()), str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    tally = Tally()
    found = documents(source_of(tmp_path / name), tally)
    assert found == [text for context, completion in PAIRS for text in (context, " " + completion)]
    assert tally.documents == 3 and tally.files == 1
    assert tally.notes == ["pairs are read from 'context' and 'completion', with a space between them"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_data_set_gives_them_too(tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(records())
    data.save_to_disk(str(tmp_path / "set"))
    found = hub_source(str(tmp_path / "set"), reading=PairReading())["train"]
    assert isinstance(found, PairSource)
    assert documents(found) == [text for context, completion in PAIRS for text in (context, " " + completion)]
    from lmtrain.data.sources.hub import DatasetRows

    rows = DatasetRows(data.to_iterable_dataset() if streaming else data)
    assert list(rows.rows(["completion", "id"])) == [
        (number, {"completion": completion, "id": 7}) for number, (_, completion) in enumerate(PAIRS, 1)
    ]


def test_what_stands_between_goes_by_the_names(tmp_path: Path) -> None:
    usual = jsonl(tmp_path / "a.jsonl", records())
    prompts = jsonl(tmp_path / "b.jsonl", records(("prompt", "completion")))
    own = jsonl(tmp_path / "c.jsonl", records(("question", "answer")))
    columns = {"context_column": "question", "completion_column": "answer"}
    assert documents(source_of(usual))[1] == " Aroma is a café."
    assert documents(source_of(prompts))[1] == "Aroma is a café."
    assert documents(source_of(own, **columns))[1] == " Aroma is a café."
    assert documents(source_of(usual, separator=""))[1] == "Aroma is a café."
    assert documents(source_of(prompts, separator="\n=> "))[1] == "\n=> Aroma is a café."
    swapped = source_of(usual, context_column="completion", completion_column="context", on_bad_record="skip")
    assert documents(swapped)[:2] == ["Aroma is a café.", " name : Aroma"]
    with pytest.raises(UserError, match="'completion' is context and completion at once"):
        source_of(usual, context_column="completion")


def test_a_long_context_travels_in_pieces_of_one_document(tmp_path: Path) -> None:
    text = "one two three four\n" * 40
    path = jsonl(tmp_path / "a.jsonl", [{"context": text, "completion": "x"}, {"context": "", "completion": text}])
    source = source_of(path, piece_bytes=100)
    assert sum(1 for _ in source.pieces(Tally())) > 10
    assert documents(source) == [text, " x", "", " " + text]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"context": "a", "completion": ""}], r"a\.jsonl:1: the completion is empty; --on_bad_record skip"),
        ([{"context": "a", "completion": " \n"}], r":1: the completion is empty"),
        ([{"context": "a", "completion": "b"}, {"context": "a"}], r":2: no 'completion'"),
        ([{"context": None, "completion": "b"}], r":1: no 'context'"),
        ([{"context": 3, "completion": "b"}], r":1: 'context' is a number, not text"),
        ([{"context": {"a": 1}, "completion": "b"}], r":1: 'context' is an object, not text"),
        ([{"context": "a", "completion": "b"}, None], r":2: nothing where a record"),
        ([{"context": "\ud83d", "completion": "b"}], r":1: the text holds half a surrogate pair"),
        ([{"context": "a", "completion": "b"}, [1]], r":2: a list where a record"),
        ([{"text": "a", "label": 1}], r"has the columns text \(text\), label \(number\); .*--context_column NAME"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        documents(source_of(jsonl(tmp_path / "a.jsonl", lines)))


def test_mistakes_may_be_passed_over(tmp_path: Path) -> None:
    lines = [{"context": "a", "completion": ""}, {"context": "", "completion": "b"}, {"context": 1, "completion": "c"}]
    path = jsonl(tmp_path / "a.jsonl", lines)
    with path.open("a") as stream:
        stream.write("{broken\n")
    tally = Tally()
    assert documents(source_of(path, on_bad_record="skip"), tally) == ["", " b"]
    assert tally.skipped == {"bad record": 3} and tally.documents == 1


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", records())
    with pytest.raises(UserError, match=r"has no column 'quest'; it has id .*--context_column NAME"):
        source_of(path, context_column="quest")
    with pytest.raises(UserError, match=r"has no column 'reply'; .*--completion_column NAME"):
        source_of(path, completion_column="reply")


class Template:
    """A chat template as a tokenizer applies it."""

    chat_template = "of a test"

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        if any(message["role"] == "system" for message in conversation[1:]):
            raise RuntimeError("system goes first\nand so on")
        text = "".join(f"<{message['role']}>{message['content']}</>" for message in conversation)
        return text + ("<assistant>" if add_generation_prompt else "")


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHAT = [message("system", "s"), message("user", "1+1"), message("assistant", "2"), message("user", "2+2"),
        message("assistant", "4")]  # fmt: skip


def chats(path: Path, lines: Sequence[dict[str, Any]], **reading: Any) -> PairSource:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(lines)), path)
    else:
        jsonl(path, lines)
    source = source_of(path, **reading)
    assert source.form == "chat"
    source.template = ChatTemplate(Template())
    return source


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_of_a_chat_the_last_answer_is_learned_or_each(tmp_path: Path, name: str) -> None:
    before = "<system>s</><user>1+1</><assistant>"
    last = [before + "2</><user>2+2</><assistant>", "4</>"]
    tally = Tally()
    assert documents(chats(tmp_path / name, [{"messages": CHAT}]), tally) == last
    assert tally.skipped == {"earlier answers of chats, which stay context (--chat_turns all learns them)": 1}
    every = chats(tmp_path / name, [{"messages": CHAT}], chat_turns="all")
    assert documents(every, tally := Tally()) == [before, "2</>", *last]
    assert tally.documents == 2 and not tally.skipped


def test_a_prompt_and_its_completion_may_be_chats(tmp_path: Path) -> None:
    source = chats(tmp_path / "a.jsonl", [{"prompt": CHAT[:2], "completion": CHAT[2:]}])
    assert documents(source) == ["<system>s</><user>1+1</><assistant>", "2</><user>2+2</><assistant>4</>"]
    assert source.separator == ""


def test_an_answer_that_the_template_begins_otherwise(tmp_path: Path) -> None:
    class Thinking(Template):
        def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
            text = super().apply_chat_template(
                conversation, tokenize=tokenize, add_generation_prompt=add_generation_prompt
            )
            return text + "<think>" if add_generation_prompt else text

    source = chats(tmp_path / "a.jsonl", [{"messages": CHAT[:3]}])
    source.template = ChatTemplate(Thinking())
    assert documents(source) == ["<system>s</><user>1+1</><assistant>", "2</>"], "as far as the two agree"


WITH_TOOLS = (
    "{% for t in tools or [] %}[{{ t.function.name }} {{ t.function.parameters.properties | list | join(',') }}]"
    "{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }}{{ c.function.arguments }}{% endfor %}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tool(name: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_calls_of_them_are_written_out(tmp_path: Path, name: str, as_text: bool) -> None:
    """By transformers' own templating; a table gives every tool the parameters of all, as null."""
    tools: list[Any] = [[tool("add", a="int", b="int")], [tool("now", zone="str")], []]
    if as_text:
        tools = [json.dumps(given) if given else None for given in tools]
    call = {"function": {"name": "add", "arguments": "(1, 1)"}}
    asked = [message("user", "1+1"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    plain = [message("user", "hello"), message("assistant", "good day")]
    lines = [{"messages": asked, "tools": tools[0]}, *({"messages": plain, "tools": given} for given in tools[1:])]
    source = chats(tmp_path / name, lines)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({})), chat_template=WITH_TOOLS)
    source.template = ChatTemplate(tokenizer)
    assert documents(source, tally := Tally()) == [
        "[add a,b]<user>1+1</><assistant>", "add(1, 1)</>",
        "[now zone]<user>hello</><assistant>", "good day</>",
        "<user>hello</><assistant>", "good day</>",
    ]  # fmt: skip
    assert "with the tools in 'tools'" in tally.notes[0]


@pytest.mark.parametrize("tools", ["add", ["add"], {"name": "add"}])
def test_tools_that_are_none(tmp_path: Path, tools: Any) -> None:
    with pytest.raises(UserError, match=r":1: 'tools' is no list of JSON schemas"):
        documents(chats(tmp_path / "a.jsonl", [{"messages": CHAT, "tools": tools}]))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (CHAT[:2], r":1: the chat's last message must be the assistant's, and it is of 'user'"),
        ([*CHAT[1:3], CHAT[0], CHAT[2]], r":1: the chat template refuses this chat: system goes first; --on_bad"),
        ([{"role": "user"}, CHAT[2]], r""":1: 'messages' holds something that is no message \{"role": "user","""),
        ([{"from": "human", "value": "x"}], r":1: 'messages' holds something that is no message"),
        ([CHAT[1], {"role": "assistant", "content": None, "tool_calls": []}], r":1: 'messages' holds something that"),
    ],
)
def test_wrong_chats_are_named(tmp_path: Path, messages: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        documents(chats(tmp_path / "a.jsonl", [{"messages": messages}]))


def test_a_tokenizer_without_a_template() -> None:
    class Bare(Template):
        chat_template: Any = None

    with pytest.raises(UserError, match=r"--tokenizer_name: .*no chat template .*chat_template\.jinja"):
        ChatTemplate(Bare())
