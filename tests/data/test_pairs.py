"""From files of pairs to examples, through the store that text goes through too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import byte_level_bpe, llama_like
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.config.options import DataOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.core.errors import UserError
from lmtrain.data.corpus import Corpus, prepare_corpus
from lmtrain.data.layouts import Pairs
from lmtrain.data.pairs import prepare_pairs
from lmtrain.data.tokenizer_files import TokenizerFiles

END = 0  # <|endoftext|> in the tokenizer of these tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_bpe(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TokenizerFiles:
    return TokenizerFiles.load(folder)


def written(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def made(path: Path, tokenizer: Any, *, length: int = 64, pairs: PairOptions | None = None, **data: Any) -> Corpus:
    options = DataOptions(**{"train_file": [str(path)], "data_cache_dir": str(path.parent / "cache"), **data})
    return prepare_pairs(options, pairs or PairOptions(), tokenizer, length=length)


def all_of(layout: Any) -> list[tuple[list[int], list[bool]]]:
    """Ids and answer marks of each example."""
    assert isinstance(layout, Pairs)
    batch = layout.__getitems__(range(len(layout)))
    assert batch.answer is not None
    rows = zip(batch.ids, batch.answer, batch.lengths, strict=True)
    return [(ids[:n].tolist(), answer[:n].tolist()) for ids, answer, n in rows]


texts_of = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(texts_of, texts_of.filter(lambda text: text.strip())), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_each_half_is_tokenized_by_itself(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: TokenizerFiles, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "a.jsonl"
    written(path, [{"context": context, "completion": completion} for context, completion in pairs])
    corpus = made(path, tokenizer, length=1000, validation_split_percentage=0.0)

    def ids(text: str) -> list[int]:
        return tokenizer.backend.encode(text, add_special_tokens=False).ids

    expected = []
    for context, completion in pairs:
        head, answer = ids(context), [*ids(" " + completion), END]
        expected.append(([*head, *answer], [False] * len(head) + [True] * len(answer)))
    assert all_of(corpus.splits["train"]) == expected
    assert corpus.ledger.documents == len(pairs)
    account = corpus.ledger.splits["train"]
    assert account.placed == sum(len(row) for row, _ in expected) and account.dropped == 0
    assert account.bytes == sum(len((a + " " + b).encode()) for a, b in pairs)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"context": "" if n % 7 == 0 else f"name : {n}", "completion": f"it is {n}"} for n in range(count)]


def test_whole_pairs_are_held_out(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, numbered(40))
    corpus = made(path, tokenizer, validation_split_percentage=10.0)
    texts = {
        split: [tokenizer.backend.decode(ids) for ids, _ in all_of(layout)] for split, layout in corpus.splits.items()
    }
    whole = [f"{r['context']} {r['completion']}" for r in numbered(40)]
    assert texts == {"validation": whole[:4], "train": whole[4:]}
    assert corpus.lines[-1] == "held out the first 4 of 40 documents (10 %)"


def test_by_hash_all_texts_for_one_input_stay_together(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [{"context": f"input {n % 30}", "completion": f"text {n}"} for n in range(120)])
    corpus = made(path, tokenizer, validation_split_mode="hash", validation_split_percentage=30.0)
    sides = {}
    for split, layout in corpus.splits.items():
        assert isinstance(layout, Pairs)
        contexts = ([i for i, is_answer in zip(*row, strict=True) if not is_answer] for row in all_of(layout))
        sides[split] = {tokenizer.backend.decode(ids) for ids in contexts}
    assert sides["train"] and sides["validation"] and not sides["train"] & sides["validation"]


def test_the_same_pairs_are_prepared_once(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [{"id": f"no {n}", **record} for n, record in enumerate(numbered(20))])
    first, again = made(path, tokenizer), made(path, tokenizer)
    assert not first.stores["train"].was_cached and again.stores["train"].was_cached
    assert again.ledger.as_json() == first.ledger.as_json() and again.manifest() == first.manifest()
    assert all_of(again.splits["train"]) == all_of(first.splits["train"])
    for other in (PairOptions(separator=""), PairOptions(context_column="completion", completion_column="id")):
        assert not made(path, tokenizer, pairs=other).stores["train"].was_cached
    assert made(path, tokenizer, pairs=PairOptions(add_bos=True)).stores["train"].was_cached, "a matter of layout"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "empty.jsonl").touch()
    path.rename(tmp_path / "folder" / "a.jsonl")
    named = made(tmp_path / "folder", tokenizer)
    assert named.stores["train"].was_cached and named.ledger.skipped == {"empty file": 1} and not first.ledger.skipped


def test_what_is_put_around(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [{"context": "ab", "completion": "c"}])
    context, completion = (tokenizer.backend.encode(text).ids for text in ("ab", " c"))
    kept = {"validation_split_percentage": 0.0}
    bare = made(path, tokenizer, append_eos=False, **kept).splits["train"]
    assert all_of(bare) == [(context + completion, [False] * len(context) + [True] * len(completion))]
    with_bos = made(path, tokenizer, pairs=PairOptions(add_bos=True, separator=r"\n"), **kept).splits["train"]
    broken = tokenizer.backend.encode("\nc").ids
    marks = [False] * (len(context) + 1) + [True] * (len(broken) + 1)
    assert all_of(with_bos) == [([*context, END, *broken, END], marks)], "the token between the two is no answer"


def test_a_tokenizer_that_puts_a_space_itself(tmp_path: Path) -> None:
    tokenizer = TokenizerFiles.load(llama_like(tmp_path / "llama"))
    path = tmp_path / "a.jsonl"
    written(path, [{"context": "a", "completion": "b"}])
    corpus = made(path, tokenizer, validation_split_percentage=0.0)
    ((ids, _),) = all_of(corpus.splits["train"])
    assert ids == [*tokenizer.backend.encode("a b").ids, tokenizer.eos_id], "one space, and the tokens of one text"
    assert "the space that the tokenizer puts before a text" in corpus.ledger.notes[0]


def test_long_pairs_are_counted_in_the_ledger(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"context": "x " * size, "completion": "y " * size} for size in (1, 4, 30)]
    written(path, records)
    corpus = made(path, tokenizer, length=16, validation_split_percentage=0.0)
    assert len(corpus.splits["train"]) == 2
    note = corpus.ledger.notes[-1]
    assert note.startswith("train: 1 pair of 3") and note.endswith("1 pair whose context takes all 16 left out")
    assert note in corpus.lines and note in corpus.ledger.lines()
    with pytest.raises(
        UserError, match=r"--max_seq_length: pair 2 of .*a\.jsonl has \d+ tokens, .* at most 16 \(2 pair"
    ):
        made(path, tokenizer, length=16, pairs=PairOptions(on_long="error"), validation_split_percentage=0.0)
    with pytest.raises(UserError, match=r"of the 3 pairs for train none fits \(3 pairs whose context takes all 1 left"):
        made(path, tokenizer, length=1, validation_split_percentage=0.0)


def test_fewer_and_shuffled(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, numbered(60))
    corpus = made(path, tokenizer, max_train_samples=8, max_eval_samples=2, shuffle_documents=True)
    train, validation = corpus.splits["train"], corpus.splits["validation"]
    assert isinstance(train, Pairs) and isinstance(validation, Pairs)
    assert len(train) == 8 and train.numbers.tolist() != sorted(train.numbers.tolist())
    assert validation.numbers.tolist() == [0, 1]


def encoded(count: int) -> list[dict[str, Any]]:
    return [{"context": [5] * (n % 4), "completion": [6, n, END]} for n in range(count)]


def test_encoded_pairs_are_read_as_they_are(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, encoded(500))
    corpus = made(path, tokenizer, validation_split_percentage=0.0)
    expected = [(r["context"] + r["completion"], [False] * len(r["context"]) + [True] * 3) for r in encoded(500)]
    assert all_of(corpus.splits["train"]) == expected
    assert corpus.ledger.notes == [
        "pairs are read from 'context' and 'completion', encoded: nothing is put between or behind them"
    ]
    again = made(path, tokenizer, validation_split_percentage=0.0)
    assert again.stores["train"].was_cached and all_of(again.splits["train"]) == expected
    assert again.manifest() == corpus.manifest()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"context": [5], "completion": [600]}, r"a\.jsonl:2: token id 600 in 'completion', .* the ids 0 to 599"),
        ({"context": [-1], "completion": [6]}, r":2: token id -1 in 'context'"),
        ({"context": [1.5], "completion": [6]}, r":2: 'context' is no list of token ids"),
        ({"context": [True], "completion": [6]}, r":2: 'context' is no list of token ids"),
        ({"context": [5], "completion": []}, r":2: the completion is empty"),
        ({"context": "a", "completion": [5]}, r":2: 'context' is no list of token ids"),
    ],
)
def test_wrong_ids_are_named(tmp_path: Path, tokenizer: TokenizerFiles, record: dict[str, Any], said: str) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [{"context": [], "completion": [6]}, record])
    with pytest.raises(UserError, match=said):
        made(path, tokenizer)
    assert not list((tmp_path / "cache").rglob("tokens.bin")), "nothing half made is left"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("of", ["ids", "texts"])
def test_a_file_without_a_pair_is_named_by_its_flag(
    tmp_path: Path, tokenizer: TokenizerFiles, split: str, of: str
) -> None:
    good, bad = (encoded(4), [{"context": [5], "completion": []}]) if of == "ids" else (
        numbered(4), [{"context": "a", "completion": ""}])  # fmt: skip
    files = {f"{split}_file": [written(tmp_path / "bad.jsonl", bad)]}
    if split != "train":
        files["train_file"] = [written(tmp_path / "good.jsonl", good)]
    options = DataOptions(**files, data_cache_dir=str(tmp_path / "cache"), on_bad_record="skip")  # type: ignore[arg-type]
    said = rf"--{split}_file: there is no (pair|document) in .*bad\.jsonl \(passed over: 1 × bad record"
    for _ in range(2):
        with pytest.raises(UserError, match=said):
            prepare_pairs(options, PairOptions(), tokenizer, length=64, wanted=("train", split))
    assert len(list((tmp_path / "cache").rglob("manifest.json"))) == (split != "train"), "no store of nothing is left"


def test_texts_and_ids_do_not_mix(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.jsonl"
    written(path, encoded(4))
    other = written(tmp_path / "b.jsonl", numbered(4))
    with pytest.raises(UserError, match=r"--validation_file: .*b\.jsonl holds texts and .*a\.jsonl holds token ids"):
        made(path, tokenizer, validation_file=[other])
    with pytest.raises(UserError, match="--add_bos: the encoding has settled"):
        made(path, tokenizer, pairs=PairOptions(add_bos=True))


def test_plain_text_is_no_pairs(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    path = tmp_path / "a.txt"
    path.write_text("name : x||x is here\n")
    with pytest.raises(UserError, match=r"--train_file: .*a\.txt is plain text, .*nlg convert"):
        made(path, tokenizer)


def test_a_token_store_is_no_pairs(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    (tmp_path / "a.txt").write_text("some text\n")
    options = DataOptions(train_file=[str(tmp_path / "a.txt")], data_cache_dir=str(tmp_path / "cache"))
    prepare_corpus(options, tokenizer, "clm", block_size=8, store_folder=tmp_path / "store")
    with pytest.raises(UserError, match=r"--train_file: .*store is a token store .* name the records of the pairs"):
        made(tmp_path / "store", tokenizer)


ENDED = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
OPEN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.mark.parametrize(
    ("template", "behind", "note"),
    [
        (ENDED, "<|endoftext|>\n", "answers end as the chat template ends them"),
        (OPEN, "\n<|endoftext|>", "the chat template ends no answer, so the end-of-text token does"),
    ],
)
def test_chats_through_a_real_template(tmp_path: Path, folder: Path, template: str, behind: str, note: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    path = tmp_path / "a.jsonl"
    chat = [("user", "hi"), ("assistant", "yo"), ("user", "ho"), ("assistant", "hm")]
    written(path, [{"messages": [{"role": role, "content": text} for role, text in chat]}])
    with pytest.raises(UserError, match=r"--tokenizer_name: .*no chat template"):
        made(path, tokenizer, validation_split_percentage=0.0)
    tokenizer.chat_template = template + ASKED
    corpus = made(path, tokenizer, validation_split_percentage=0.0)
    ((ids, answer),) = all_of(corpus.splits["train"])
    assert tokenizer.decode([i for i, a in zip(ids, answer, strict=True) if a]) == "hm" + behind
    asked = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in chat[:-1]], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode([i for i, a in zip(ids, answer, strict=True) if not a]) == asked
    assert ids.count(END) == {ENDED: 4, OPEN: 1}[template], "end-of-text tokens in a template are parsed as such"
    assert note in corpus.ledger.notes
    other = made(path, tokenizer, pairs=PairOptions(chat_turns="all"), validation_split_percentage=0.0)
    assert len(other.splits["train"]) == 2
    with pytest.raises(UserError, match="--separator: the chat template has settled"):
        made(path, tokenizer, pairs=PairOptions(separator="x"))


def test_the_objective_reads_the_answer(tmp_path: Path, tokenizer: TokenizerFiles) -> None:
    from lmtrain.objectives.completion import Completion

    path = tmp_path / "a.jsonl"
    written(path, encoded(4))
    layout = made(path, tokenizer, validation_split_percentage=0.0).splits["train"]
    labels = Completion().batch(layout.__getitems__([1, 3]))["labels"]
    assert labels.tolist() == [[-100, 6, 1, END, -100, -100], [-100, -100, -100, 6, 3, END]]
    assert np.count_nonzero(labels >= 0) == 6
