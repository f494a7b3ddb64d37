"""Preparation: bytes in are tokens out, and the same work is never done twice."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpora import CODE, ODD, Texts, wordpiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lmtrain.config.commands.evaluate import EvaluateOptions
from lmtrain.config.options import DataOptions
from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Tally
from lmtrain.data import tokenization
from lmtrain.data.cache import cache_folder, clean, list_stores
from lmtrain.data.corpus import Corpus, prepare_corpus
from lmtrain.data.ledger import Ledger
from lmtrain.data.named_text import wanted_sources
from lmtrain.data.preparing import Prepared, Request, finding, prepare
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenizer_files import TokenizerFiles

TEXT = ODD.replace("\0", "")  # a file with zero bytes is taken for a binary one


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> TokenizerFiles:
    return TokenizerFiles.load(wordpiece(tmp_path_factory.mktemp("wordpiece")))


def decoded(made: Prepared, tokenizer: TokenizerFiles) -> list[bytes]:
    store = made.store
    texts = [tokenizer.backend.decode(store.document(i).tolist(), skip_special_tokens=False) for i in range(len(store))]
    return [text.encode() for text in texts]


@given(
    documents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6),
    width=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_store_decodes_to_the_text(
    bpe: TokenizerFiles, tmp_path_factory: pytest.TempPathFactory, documents: list[str], width: int
) -> None:
    pieces = [[text[i : i + width] for i in range(0, len(text), width)] for text in documents]
    made = prepare(Request([Texts(*pieces)], bpe), tmp_path_factory.mktemp("cache"))
    assert decoded(made, bpe) == [text.encode() for text in documents]
    assert made.store.n_bytes.tolist() == [len(text.encode()) for text in documents]


def test_files_come_back_byte_for_byte(bpe: TokenizerFiles, tmp_path: Path) -> None:
    files = {"a.txt": TEXT.encode(), "b.py": CODE.encode(), "c.md": b"\r\n\r\nx\n\n", "d.txt": b"no newline"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    options = DataOptions(train_file=[str(tmp_path)], data_cache_dir=str(tmp_path / "cache"))
    corpus = prepare_corpus(options, bpe, "clm", block_size=64, sources=None)
    made = corpus.stores["train"]
    text = b"".join(decoded(made, bpe))
    assert text == b"".join(files.values())
    assert made.ledger.bytes_read == sum(map(len, files.values()))


def run_twice(cache: Path, first: Request, second: Request) -> tuple[Prepared, Prepared]:
    return prepare(first, cache), prepare(second, cache)


def test_a_second_run_tokenizes_nothing(bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = run_twice(tmp_path, Request([Texts("a", "b", name="x")], bpe), Request([Texts("a", "b", name="y")], bpe))
    assert (one.was_cached, two.was_cached) == (False, True)
    assert two.store.folder == one.store.folder
    assert two.ledger == one.ledger

    def never(*_: object) -> None:
        raise AssertionError("something was tokenized")

    monkeypatch.setattr(tokenization.TokenizersEncoder, "encode", never)
    monkeypatch.setattr(tokenization.FastokensEncoder, "encode", never)
    source = Texts("a", "b", name="moved elsewhere")
    assert prepare(Request([source], bpe), tmp_path).was_cached
    assert source.reads == 0, "hashing is enough"


def test_moved_and_touched_files_are_found_and_changed_ones_are_not(bpe: TokenizerFiles, tmp_path: Path) -> None:
    def run(folder: Path) -> Corpus:
        options = DataOptions(train_file=[str(folder)], data_cache_dir=str(tmp_path / "cache"))
        return prepare_corpus(options, bpe, "clm", block_size=8)

    here = tmp_path / "here"
    here.mkdir()
    for name in "abcdefghijklmnopqrstuvwxyz":
        (here / f"{name}.txt").write_text(f"the text of {name}\n" * 20)
    assert not run(here).stores["train"].was_cached
    there = tmp_path / "there"
    shutil.copytree(here, there)
    os.utime(there / "a.txt", (1, 1))
    assert run(there).stores["train"].was_cached
    (there / "a.txt").write_text("the text of A\n" * 20)
    assert not run(there).stores["train"].was_cached


@pytest.mark.parametrize(
    "other",
    [
        {"reading": {"documents": "lines"}},
        {"sources": [Texts("a", "c")]},
        {"sources": [Texts("b", "a")]},
        {"sources": [Texts("a", "b", name="x.jsonl")]},
    ],
)
def test_what_decides_documents_is_in_the_key(bpe: TokenizerFiles, tmp_path: Path, other: dict[str, Any]) -> None:
    first = Request([Texts("a", "b", name="x.txt")], bpe)
    one, two = run_twice(tmp_path, first, Request(**{**vars(first), **other}))
    assert not two.was_cached and two.store.folder != one.store.folder


def test_another_tokenizer_is_another_store(bpe: TokenizerFiles, bert: TokenizerFiles, tmp_path: Path) -> None:
    _, two = run_twice(tmp_path, Request([Texts("a")], bpe), Request([Texts("a")], bert))
    assert not two.was_cached


def test_overwriting_makes_it_anew(bpe: TokenizerFiles, tmp_path: Path) -> None:
    prepare(Request([Texts("a")], bpe), tmp_path)
    assert not prepare(Request([Texts("a")], bpe), tmp_path, overwrite=True).was_cached


def test_of_the_processes_of_a_launcher_one_makes_it_anew(
    bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request([Texts("a")], bpe)
    before = prepare(request, tmp_path).store.folder / "manifest.json"
    monkeypatch.setattr(finding, "_BEGAN", before.stat().st_mtime + 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not prepare(request, tmp_path, overwrite=True).was_cached, "it was made before this process began"
    monkeypatch.setattr(finding, "_BEGAN", before.stat().st_mtime - 1)
    assert prepare(request, tmp_path, overwrite=True).was_cached, "another process of the run has made it meanwhile"
    # The same on the disk of a file server whose clock is slow.
    made = before.stat().st_mtime
    monkeypatch.setattr(finding, "_BEGAN", made - 1)
    monkeypatch.setattr(finding, "_now_by", lambda folder: time.time() - 100)
    os.utime(before, (made - 100, made - 100))
    assert prepare(request, tmp_path, overwrite=True).was_cached
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not prepare(request, tmp_path, overwrite=True).was_cached


def test_a_damaged_store_is_made_again(bpe: TokenizerFiles, tmp_path: Path) -> None:
    one = prepare(Request([Texts(CODE)], bpe), tmp_path)
    (one.store.folder / "tokens.bin").write_bytes(b"short")
    said: list[str] = []
    two = prepare(Request([Texts(CODE)], bpe), tmp_path, say=lambda topic, text: said.append(text))
    assert not two.was_cached and any("damaged" in line for line in said)
    TokenStore.open(two.store.folder)


def test_what_fails_leaves_nothing(bpe: TokenizerFiles, tmp_path: Path) -> None:
    class Breaks(Texts):
        def pieces(self, tally: Tally) -> Iterator[Piece]:
            yield from super().pieces(tally)
            if self.reads > 1:  # not while the engines are compared
                raise UserError("line 7: not UTF-8", flag="--train_file")

    with pytest.raises(UserError, match="line 7"):
        prepare(Request([Breaks(CODE)], bpe), tmp_path)
    assert list_stores(tmp_path) == []


def test_an_engine_that_differs_later_is_replaced(
    bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference lies where the first comparison does not look: only the check of each batch sees it."""
    plain_encode = tokenization.FastokensEncoder.encode

    def wrong(self: tokenization.FastokensEncoder, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return plain_encode(self, [text.replace("zebra", "horse") for text in texts])

    monkeypatch.setattr(tokenization.FastokensEncoder, "encode", wrong)
    source = Texts(["x" * 9000 + "\n", "zebra\n" * 2000])
    made = prepare(Request([source], bpe), tmp_path)
    assert decoded(made, bpe) == ["".join(source.documents[0]).encode()]
    assert made.store.manifest["engine"]["name"] == "tokenizers"
    assert "zebra" in made.lines[0]


@pytest.mark.parametrize("many", [False, True])
def test_two_processes_do_the_work_once(bpe: TokenizerFiles, tmp_path: Path, many: bool) -> None:
    """Of many documents the store is the same for every percentage; one text is cut, so there it is another."""
    (tmp_path / "text").mkdir()
    for number in range(40 if many else 1):
        (tmp_path / "text" / f"{number}.txt").write_text(f"{number}\n{CODE * (1 if many else 40)}")
    percentages = (5, 10) if many else (5, 5)
    program = (
        "import sys, json\n"
        "from lmtrain.data.tokenizer_files import TokenizerFiles\n"
        "from lmtrain.data.corpus import prepare_corpus\n"
        "from lmtrain.config.options import DataOptions\n"
        f"options = DataOptions(train_file=[{str(tmp_path / 'text')!r}])\n"
        "options.validation_split_percentage = float(sys.argv[1])\n"
        f"options.data_cache_dir = {str(tmp_path)!r}\n"
        f"files = TokenizerFiles.load({bpe.name!r})\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "made = prepare_corpus(options, files, 'clm', block_size=128).stores['train']\n"
        "print(json.dumps([made.was_cached, str(made.store.folder), made.ledger.tokens]))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for share in percentages
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    answers: list[Any] = [None, None]

    def go(number: int) -> None:
        answers[number] = json.loads(processes[number].communicate("go\n")[0])

    threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(cached for cached, _, _ in answers) == [False, True]
    assert answers[0][1:] == answers[1][1:]
    assert len(list_stores(tmp_path)) == 1


def test_a_dead_ones_lock_is_no_obstacle(bpe: TokenizerFiles, tmp_path: Path) -> None:
    made = prepare(Request([Texts("a")], bpe), tmp_path)
    shutil.rmtree(made.store.folder)
    locks = list((tmp_path / "locks").iterdir()) or [tmp_path / "locks" / f"{made.store.folder.name}.lock"]
    for lock in locks:
        lock.write_text("left behind")
    assert not prepare(Request([Texts("a")], bpe), tmp_path).was_cached


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LMTRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-here").expanduser())
    with pytest.raises(UserError, match=r"--data_cache_dir: .* no home folder"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert cache_folder() == Path("/there/lmtrain")


def test_what_a_killed_preparation_left_is_removed(bpe: TokenizerFiles, tmp_path: Path) -> None:
    kept = [".out.0123abcd.tmp", ".out.mine.tmp", ".other.0123abcd.tmp"]  # perhaps under way elsewhere; not of it
    for name in (*kept, ".out.89abcdef.tmp"):
        (tmp_path / name / "parts").mkdir(parents=True)
        (tmp_path / name / "parts" / "tokens.bin").write_bytes(b"0")
        for path in (tmp_path / name / "parts" / "tokens.bin", tmp_path / name / "parts", tmp_path / name):
            os.utime(path, (0, 0))
    (tmp_path / kept[0] / "parts" / "tokens.bin").write_bytes(b"01")
    prepare(Request([Texts("a")], bpe), tmp_path / "cache", folder=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.glob(".*.tmp")) == sorted(kept)


def test_a_folder_of_ones_own(bpe: TokenizerFiles, tmp_path: Path) -> None:
    folder, cache = tmp_path / "store", tmp_path / "cache"
    request = Request([Texts(CODE)], bpe)
    assert not prepare(request, cache, folder=folder).was_cached
    assert TokenStore.open(folder).manifest["tokens"] > 0
    assert prepare(request, cache, folder=folder).was_cached
    other = Request([Texts("another text")], bpe)
    with pytest.raises(UserError, match="another text or tokenizer"):
        prepare(other, cache, folder=folder)
    assert not prepare(other, cache, folder=folder, overwrite=True).was_cached
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="no token store"):
            prepare(request, cache, folder=mine, overwrite=overwrite)
        with pytest.raises(UserError, match="no token store"):
            prepare(request, cache, folder=mine / "thesis.tex", overwrite=overwrite)
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_a_disk_that_is_full_is_named_by_the_flag_of_its_folder(
    bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"--data_cache_dir: the disk of {tmp_path}"):
        patch.setattr("lmtrain.data.cache.write_text", full)  # of the note where the store lies
        prepare(Request([Texts(CODE)], bpe), tmp_path / "cache", folder=tmp_path / "made")
    monkeypatch.setattr(StoreWriter, "_write_tokens", full)
    for folder, flag in ((tmp_path / "out", "--output_dir"), (None, "--data_cache_dir")):
        with pytest.raises(UserError, match=f"{flag}: the disk of .* is full"):
            prepare(Request([Texts(CODE)], bpe), tmp_path / "cache", folder=folder)


def test_a_folder_that_cannot_be_made_is_said(bpe: TokenizerFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"--output_dir: .*file cannot be written"):
        prepare(Request([Texts("a")], bpe), tmp_path / "cache", folder=tmp_path / "file" / "store")


def test_records_need_no_more_room_than_their_text(
    bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much of a record is text is known when it is read, not before."""
    record = {"text": "a few words of text", "page": "x" * 9000}
    (tmp_path / "a.jsonl").write_text((json.dumps(record) + "\n") * 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    options = DataOptions(train_file=[str(tmp_path / "a.jsonl")], data_cache_dir=str(tmp_path / "cache"))
    assert prepare_corpus(options, bpe, "clm", block_size=8).ledger.documents == 30


def test_a_store_that_this_user_may_not_look_at_is_none(bpe: TokenizerFiles, tmp_path: Path) -> None:
    """Noted in a cache that several users share."""
    request, cache = Request([Texts("one text")], bpe), tmp_path / "cache"
    prepare(request, cache, folder=tmp_path / "mine")
    (note,) = (cache / "elsewhere").iterdir()
    note.write_text("/" + "x" * 5000)  # the system refuses to look there, whoever asks
    assert not prepare(request, cache).was_cached


def test_how_a_store_was_read_is_said_by_flags_that_there_are(bpe: TokenizerFiles, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("line of text\n" * 60)
    made = DataOptions(train_file=[str(tmp_path / "a.txt")], data_cache_dir=str(tmp_path / "cache"), compat="run_clm")
    prepare_corpus(made, bpe, "clm", block_size=8, store_folder=tmp_path / "store")
    asked = DataOptions(
        train_file=[str(tmp_path / "store")], data_cache_dir=str(tmp_path / "cache"), text_column="content",
    )  # fmt: skip
    (line,) = (line for line in prepare_corpus(asked, bpe, "clm", block_size=8).lines if "the store holds" in line)
    assert line == (
        "the store holds text read with --documents lines, without --text_column, whatever this command says of it"
    )


def test_a_store_in_a_folder_of_ones_own_is_read_by_later_runs(bpe: TokenizerFiles, tmp_path: Path) -> None:
    request, cache, folder = Request([Texts(["one text"])], bpe), tmp_path / "cache", tmp_path / "mine"
    prepare(request, cache, folder=folder)
    found = prepare(request, cache)
    assert found.was_cached
    assert found.store.folder == folder
    shutil.rmtree(folder)
    again = prepare(request, cache)
    assert not again.was_cached, "it is gone, so it is made anew"
    assert again.store.folder.is_relative_to(cache)


def test_stores_are_shown_and_freed(bpe: TokenizerFiles, tmp_path: Path) -> None:
    made = [prepare(Request([Texts(text)], bpe), tmp_path) for text in (CODE, "short")]
    unfinished = tmp_path / "stores" / ".abc.tmp"
    unfinished.mkdir()
    (unfinished / "tokens.bin").write_bytes(b"left by a killed process")
    (tmp_path / "stores" / "another").mkdir()
    (tmp_path / "stores" / "another" / "manifest.json").write_text('{"format": 1}')
    shown = list_stores(tmp_path)
    assert [info.folder for info in shown[:1]] == [made[0].store.folder] and len(shown) == 4
    assert "tokens" in shown[0].line() and sum("unfinished" in info.line() for info in shown) == 2
    freed, busy = clean(tmp_path)
    assert len(freed) == 4 and not busy and list_stores(tmp_path) == []


class Slow(Texts):
    """Texts that come when they may, once someone has begun to make a store of them in ``cache``."""

    def __init__(self, cache: Path, *documents: str) -> None:
        super().__init__(*documents)
        self.cache = cache
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        for piece in super().pieces(tally):
            if list((self.cache / "stores").glob(".*.tmp")):
                self.begun.set()
                assert self.may_go_on.wait(60)
            yield piece


@pytest.mark.parametrize("percentage", [0.0, 5.0])
def test_what_is_being_made_is_neither_deleted_nor_in_the_way(
    bpe: TokenizerFiles, tmp_path: Path, percentage: float
) -> None:
    source = Slow(tmp_path, *(f"document {n}\n" * 20 for n in range(40)))
    made: list[Prepared] = []
    request = Request([source], bpe, cut_percentage=percentage)
    maker = threading.Thread(target=lambda: made.append(prepare(request, tmp_path)))
    maker.start()
    try:
        assert source.begun.wait(60)
        freed, busy = clean(tmp_path)
    finally:
        source.may_go_on.set()
        maker.join()
    assert not freed and [info.manifest for info in busy] == [None]
    assert len(made[0].store) == 40
    TokenStore.open(made[0].store.folder)


def test_stores_are_listed_while_others_are_made_and_deleted(tmp_path: Path) -> None:
    stores, end = tmp_path / "stores", threading.Event()

    def come_and_go() -> None:
        while not end.is_set():
            for number in range(20):
                (stores / ".k.tmp" / str(number) / "deep").mkdir(parents=True)
                (stores / ".k.tmp" / str(number) / "deep" / "tokens.bin").write_bytes(b"x")
            shutil.rmtree(stores / ".k.tmp")

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        until, listings, seen = time.monotonic() + 60, 0, 0
        while (listings < 300 or not seen) and time.monotonic() < until:
            seen += sum(info.bytes for info in list_stores(tmp_path))
            listings += 1
    finally:
        end.set()
        busy.join()
    assert seen


def test_cleaning_forgets_what_is_known_of_the_stores(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "checked").mkdir()
    for name in ("there", "gone"):
        (tmp_path / "checked" / f"{name}.json").write_text(json.dumps({"folder": str(tmp_path / name)}))
    clean(tmp_path)
    assert [note.name for note in (tmp_path / "checked").iterdir()] == ["there.json"]


@pytest.mark.parametrize("workers", [None, 2])
def test_a_text_without_a_document_leaves_nothing(bpe: TokenizerFiles, tmp_path: Path, workers: int | None) -> None:
    file, cache = tmp_path / "a.jsonl", tmp_path / "cache"
    file.write_text('{"text": null}\n' * 3 + '{"text": ""}\n')
    options = DataOptions(train_file=[str(file)], data_cache_dir=str(cache), preprocessing_num_workers=workers)
    with pytest.raises(UserError) as told:
        prepare_corpus(options, bpe, "clm", block_size=8)
    said = str(told.value)
    assert said.startswith(f"--train_file: there is no document in {file}")
    assert "1 × empty record, 3 × record without text" in said
    assert list_stores(cache) == []


def test_what_a_folder_holds_besides_is_told_by_whoever_names_the_folder(bpe: TokenizerFiles, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(CODE)
    (tmp_path / "text" / "b.txt").write_text("")
    skipped = []
    for named in ("text/a.txt", "text", "text/a.txt"):
        options = DataOptions(train_file=[str(tmp_path / named)], data_cache_dir=str(tmp_path / "cache"))
        corpus = prepare_corpus(options, bpe, "clm", block_size=8)
        skipped.append(corpus.ledger.skipped)
    assert skipped == [{}, {"empty file": 1}, {}] and corpus.stores["train"].was_cached, "the store is the same"


def test_bytes_per_token_are_those_of_the_text(bpe: TokenizerFiles, tmp_path: Path) -> None:
    text = "def f(x):\n    return x\n" * 40
    packed = gzip.compress(text.encode()) + gzip.compress(text.encode())
    for name, data in {"a.txt.gz": packed, "b.jsonl": json.dumps({"n": 1, "text": text}).encode()}.items():
        (tmp_path / name).write_bytes(data)
        options = DataOptions(train_file=[str(tmp_path / name)], data_cache_dir=str(tmp_path / "cache"))
        options.validation_split_percentage = 0
        for _ in range(2):  # made, and found
            ledger = prepare_corpus(options, bpe, "clm", block_size=8).ledger
            times = 2 if name.endswith("gz") else 1
            assert (ledger.text_bytes, ledger.bytes_read) == (times * len(text), len(data))
            assert f"{ledger.text_bytes / ledger.tokens:.2f} bytes per token" in "\n".join(ledger.lines())
    old = {"text_bytes": 960, "ledger": {"files": 1, "bytes_read": 7, "documents": 1, "tokens": 240}}
    assert Ledger.of_store(old).text_bytes == 960, "of a store made before ledgers knew it"


def test_evaluating_a_data_set_that_has_the_split_train_alone_is_refused(tmp_path: Path) -> None:
    """The part that training keeps for validation is no choice of evaluate: it would score five per cent unasked."""
    source: Any = Texts("a")
    options = EvaluateOptions(dataset_name="somebody/texts")
    assert wanted_sources(options, {"train": [source], "test": [source]}, ("validation", "test"))[0].keys() == {"test"}
    with pytest.raises(UserError, match=r"--dataset_name: somebody/texts has the split train alone.*--validation_file"):
        wanted_sources(options, {"train": [source]}, ("validation", "test"))
    assert wanted_sources(DataOptions(dataset_name="d"), {"train": [source]}, ("validation", "test"))[1]
    with pytest.raises(UserError, match=r"--dataset_name: d has the split test alone, and none to train on;"):
        wanted_sources(DataOptions(dataset_name="d"), {"test": [source]}, ("train", "validation"))


def corpus_of(tmp_path: Path, tokenizer: TokenizerFiles, text: str, objective: Any = "clm", **options: Any) -> Corpus:
    (tmp_path / "corpus.txt").write_text(text)
    block_size = options.pop("block_size", 16)
    data = DataOptions(train_file=[str(tmp_path / "corpus.txt")], data_cache_dir=str(tmp_path / "cache"), **options)
    return prepare_corpus(data, tokenizer, objective, block_size=block_size)


def test_one_text_is_cut_for_validation_and_the_tokens_add_up(bpe: TokenizerFiles, tmp_path: Path) -> None:
    text = "".join(f"line {i} of the book\n" for i in range(400))
    corpus = corpus_of(tmp_path, bpe, text)
    store = corpus.stores["train"].store
    assert len(store) == 2 and corpus.ledger.documents == 1
    parts = decoded(corpus.stores["train"], bpe)
    assert b"".join(parts) == text.encode() and parts[0].endswith(b"\n")
    assert 0.045 < len(parts[0]) / len(text) < 0.055
    train, validation = corpus.ledger.splits["train"], corpus.ledger.splits["validation"]
    assert train.tokens + validation.tokens == corpus.ledger.tokens == len(store.tokens)
    assert (train.specials, validation.specials) == (1, 1)
    assert corpus.splits["validation"][0]["input_ids"].tolist() == store.document(0)[:16].tolist()
    again = corpus_of(tmp_path, bpe, text)
    assert again.stores["train"].was_cached
    other = corpus_of(tmp_path, bpe, text, validation_split_percentage=10)
    assert not other.stores["train"].was_cached, "the cut is another"


def test_another_percentage_of_many_documents_tokenizes_nothing(bpe: TokenizerFiles, tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(100))
    first = corpus_of(tmp_path, bpe, text, documents="lines")
    assert first.ledger.splits["validation"].documents == 5
    for options in (
        {"validation_split_percentage": 20},
        {"validation_split_mode": "hash"},
        {"append_eos": False},
    ):
        again = corpus_of(tmp_path, bpe, text, documents="lines", **options)
        assert again.stores["train"].was_cached


def test_max_samples_count_blocks_and_shuffling_changes_which(bpe: TokenizerFiles, tmp_path: Path) -> None:
    text = "".join(f"line {i} with some words\n" for i in range(300))
    options = {"documents": "lines", "max_train_samples": 3, "max_eval_samples": 2}
    corpus = corpus_of(tmp_path, bpe, text, **options)
    assert (len(corpus.splits["train"]), len(corpus.splits["validation"])) == (3, 2)
    ledger = corpus.ledger.splits["train"]
    assert ledger.examples == 3 and ledger.dropped > 0
    shuffled = corpus_of(tmp_path, bpe, text, shuffle_documents=True, **options)
    assert shuffled.splits["train"][0]["input_ids"].tolist() != corpus.splits["train"][0]["input_ids"].tolist()
    assert (
        shuffled.splits["validation"][0]["input_ids"].tolist() == corpus.splits["validation"][0]["input_ids"].tolist()
    )


def test_the_account_is_json_and_a_table(bpe: TokenizerFiles, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, bpe, "line\n\n" * 50, documents="lines")
    value = json.loads(json.dumps(corpus.ledger.as_json()))
    assert value["skipped"] == {"blank line": 50}
    assert value["splits"]["train"]["documents"] + value["splits"]["validation"]["documents"] == 50
    lines = corpus.ledger.lines()
    assert any("50 blank line" in line for line in lines)
    assert any(line.startswith("train") for line in lines)
    json.dumps(corpus.manifest())


def test_separate_validation_files_have_their_own_store(bpe: TokenizerFiles, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("held out text\n" * 30)
    corpus = corpus_of(tmp_path, bpe, CODE, validation_file=[str(tmp_path / "v.txt")])
    assert decoded(corpus.stores["train"], bpe) == [CODE.encode()], "not cut"
    assert decoded(corpus.stores["validation"], bpe) == [("held out text\n" * 30).encode()]
    assert corpus.ledger.files == 2 and set(corpus.ledger.splits) == {"train", "validation"}


def test_line_by_line_for_masked_models(bert: TokenizerFiles, tmp_path: Path) -> None:
    text = "a short line\n\n" + "a long line of many words " * 9 + "\nthe last"
    corpus = corpus_of(
        tmp_path, bert, text, "mlm", line_by_line=True, validation_split_percentage=0, pad_to_max_length=True
    )
    batch = corpus.splits["train"].__getitems__([0, 1, 2])
    assert batch.ids.shape == (3, 16)
    assert (batch.ids[:, 0] == bert.cls_id).all() and batch.ids[1, 15] == bert.sep_id
    assert (batch.ids[0, batch.lengths[0] :] == bert.pad_id).all()
    assert corpus.ledger.splits["train"].dropped > 0


def test_a_tokenizer_without_end_of_text_is_refused_for_causal_training(bert: TokenizerFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="end-of-text"):
        corpus_of(tmp_path, bert, CODE)
    assert len(corpus_of(tmp_path, bert, CODE, append_eos=False).splits["train"]) > 0


def test_blocks_decode_to_the_text(bpe: TokenizerFiles, tmp_path: Path) -> None:
    """The ids mean the same to a tokenizer loaded afresh from the files."""
    corpus = corpus_of(tmp_path, bpe, TEXT * 3, validation_split_percentage=0, drop_remainder=False)
    fresh = Tokenizer.from_file(str(Path(bpe.name) / "tokenizer.json"))
    blocks = corpus.splits["train"]
    ids = np.concatenate([blocks[i]["input_ids"] for i in range(len(blocks))])
    assert fresh.decode(ids.tolist(), skip_special_tokens=False) == TEXT * 3 + "<|endoftext|>"
