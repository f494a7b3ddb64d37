"""Parts of a store, made by shards or by workers and put together: the store that one process makes, to the byte."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from corpora import CODE, llama_like

from lmtrain.core.errors import UserError
from lmtrain.data.cache import clean, locked
from lmtrain.data.preparing import Making, Prepared, Request, filling, merging, prepare, shards
from lmtrain.data.preparing import making as making_stores
from lmtrain.data.preparing.shards import lock_of, make_shard, place_of
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.tokenization import DiffersError
from lmtrain.data.tokenizer_files import TokenizerFiles

SMALL = Making(segment_bytes=2000)
FILES = ("tokens.bin", "tokens.idx", "documents.bin")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TokenizerFiles:
    return TokenizerFiles.load(llama_like(tmp_path_factory.mktemp("llama")))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    lines = CODE.splitlines(keepends=True)
    found = []
    for number in range(count):
        at = draw.randrange(len(lines) - 20)
        found.append(f"{number} – naïve 日本 ½\n" + "".join(lines[at : at + draw.randrange(1, 20)]))
    return found


def one_text(folder: Path) -> None:
    (folder / "book.txt").write_bytes(("\ufeff" + "".join(texts(80))).encode())


def many_texts(folder: Path) -> None:
    for number, text in enumerate(texts(40)):
        (folder / f"{number:02d}.txt").write_text(text * (1 if number % 7 else 9))
    (folder / ".hidden").write_text("passed over")
    (folder / "empty.txt").write_text("")


def lines(folder: Path) -> None:
    (folder / "lines.txt").write_bytes("".join(texts(60)).replace("\n\n", "\r\n\n   \n").encode() + b"a\rb\rlast")


def records(folder: Path) -> None:
    kept = [json.dumps({"text": text, "n": n}, ensure_ascii=False) for n, text in enumerate(texts(120))]
    kept[17], kept[60], kept[61] = '{"text": 5}', "{broken", '{"other": 1}'
    kept[80] = json.dumps({"text": "".join(texts(60))})  # longer than several segments
    kept[90:90] = ["", '{"text": ""}']
    (folder / "records.jsonl").write_text("\n".join(kept), encoding="utf-8")


def table(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = texts(200)
    column = pa.table({"id": range(len(found)), "text": [None if n % 50 == 3 else t for n, t in enumerate(found)]})
    pq.write_table(column, folder / "table.parquet", row_group_size=9)


def others(folder: Path) -> None:
    """What is read from front to back, beside what is not."""
    one_text(folder)
    records(folder)
    (folder / "packed.txt.gz").write_bytes(gzip.compress("".join(texts(30, 1)).encode()))
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "records.jsonl").read_bytes()))
    quoted = [text.replace('"', '""') for text in texts(30, 2)]
    (folder / "rows.csv").write_text("text,n\n" + "".join(f'"{text}",1\n' for text in quoted), encoding="utf-8")


READINGS: dict[str, dict[str, Any]] = {
    "lines": {"documents": "lines", "keep_linebreaks": True},
    "records": {"on_bad_record": "skip"},
    "others": {"on_bad_record": "skip"},
}
CORPORA: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (one_text, many_texts, lines, records, table, others)
}


def request_of(
    folder: Path, tokenizer: TokenizerFiles, *, cut: float = 0.0, making: Making = SMALL, **reading: Any
) -> Request:
    how = Reading(piece_bytes=700, **reading)
    settings = {name: value for name, value in asdict(how).items() if name != "piece_bytes"}
    return Request(resolve_sources([str(folder)], how), tokenizer, settings, cut, making)


def contents(made: Prepared) -> dict[str, Any]:
    """All of a store but the time and the versions."""
    manifest = json.loads((made.store.folder / "manifest.json").read_text())
    assert json.loads(json.dumps(made.ledger.as_json())) == manifest["ledger"]
    del manifest["created"], manifest["versions"]
    return {"manifest": json.dumps(manifest), **{name: (made.store.folder / name).read_bytes() for name in FILES}}


def sharded(request: Request, cache: Path, count: int) -> Prepared:
    for number in reversed(range(count)):
        make_shard(request, cache, number, count)
    return prepare(replace(request, making=replace(request.making, merge=count)), cache)


def two_shards(
    corpus: Path, tokenizer: TokenizerFiles, tmp_path: Path, own_folder: bool
) -> tuple[Request, Path, Path | None]:
    """Of one text, not yet merged: its request, the cache, and the folder that the store is to be in, if it has one."""
    one_text(corpus)
    request, cache, folder = request_of(corpus, tokenizer), tmp_path / "cache", tmp_path / "out" if own_folder else None
    for number in range(2):
        make_shard(request, cache, number, 2, folder=folder)
    return request, cache, folder


@pytest.mark.parametrize("name", CORPORA)
def test_any_number_of_shards_makes_the_store_of_one_process(
    name: str, bpe: TokenizerFiles, corpus: Path, tmp_path: Path
) -> None:
    CORPORA[name](corpus)
    reading = READINGS.get(name, {})
    whole = prepare(request_of(corpus, bpe, making=Making(), **reading), tmp_path / "whole")
    expected = contents(whole)
    assert len(whole.store.tokens) > 5000
    for number, count in enumerate((1, 3, 12)):
        cache = tmp_path / f"{number}"
        request = request_of(corpus, bpe, **reading)
        made = sharded(request, cache, count)
        assert contents(made) == expected, count
        assert not made.was_cached and made.store.folder.name == whole.store.folder.name
        assert not place_of(request, cache, None).exists(), "the shards are no longer needed"
        assert prepare(request_of(corpus, bpe, **reading), cache).was_cached
        again = replace(request, making=replace(SMALL, merge=count))
        assert prepare(again, cache).was_cached, "merged before"


@pytest.mark.parametrize("percentage", [5, 30, 60])
@pytest.mark.parametrize("name", ["one_text", "two_texts", "two_records"])
def test_a_text_cut_for_validation(
    percentage: float, name: str, bpe: TokenizerFiles, corpus: Path, tmp_path: Path
) -> None:
    if name == "two_records":
        found = [json.dumps({"text": "".join(texts(30, seed))}) for seed in range(2)]
        (corpus / "records.jsonl").write_text("\n".join(found))
    else:
        one_text(corpus)
    if name == "two_texts":
        (corpus / "a.txt").write_text("".join(texts(9, 3)))
    whole = prepare(request_of(corpus, bpe, cut=percentage, making=Making()), tmp_path / "whole")
    # one document is cut; of two, 30 and 60 % are one
    assert (whole.store.manifest["cut"] is not None) == (name == "one_text" or percentage == 5)
    for count in (1, 4):
        made = sharded(request_of(corpus, bpe, cut=percentage), tmp_path / f"{count}", count)
        assert contents(made) == contents(whole)


def test_a_document_that_no_cut_leaves_as_it_is(llama: TokenizerFiles, corpus: Path, tmp_path: Path) -> None:
    """A tokenizer that puts a space before every text: the document is one segment, and most shards are empty."""
    one_text(corpus)
    whole = prepare(request_of(corpus, llama, making=Making()), tmp_path / "whole")
    request = request_of(corpus, llama)
    sizes = [make_shard(request, tmp_path / "cache", number, 4)[0].record.tokens for number in range(4)]
    assert sorted(sizes)[:3] == [0, 0, 0]
    made = prepare(replace(request, making=replace(SMALL, merge=4)), tmp_path / "cache")
    assert contents(made) == contents(whole)
    assert any("in one go" in line for line in made.lines)


@pytest.mark.parametrize("data", ["日" * 4000, "a b " * 3000, "\n" * 9000 + "x", "x\n" * 5000, "no" + " " * 9000])
def test_texts_with_few_places_to_enter(data: str, bpe: TokenizerFiles, corpus: Path, tmp_path: Path) -> None:
    (corpus / "odd.txt").write_text(data)
    whole = prepare(request_of(corpus, bpe, making=Making()), tmp_path / "whole")
    assert contents(sharded(request_of(corpus, bpe), tmp_path / "cache", 3)) == contents(whole)


def test_an_error_names_the_line_of_the_file_and_not_of_the_part(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path
) -> None:
    records(corpus)
    text = (corpus / "records.jsonl").read_text().splitlines()
    text[17], text[60], text[110] = text[0], text[0], "{broken"
    (corpus / "records.jsonl").write_text("\n".join(text))
    request = request_of(corpus, bpe)
    said: list[str] = []
    for number in range(6):
        try:
            make_shard(request, tmp_path / "cache", number, 6)
        except UserError as error:
            said.append(str(error))
    assert any("records.jsonl:111: broken JSON" in line for line in said), said


def test_what_was_made_is_kept_and_what_is_wrong_is_named(bpe: TokenizerFiles, llama: TokenizerFiles,
                                                          corpus: Path, tmp_path: Path) -> None:  # fmt: skip
    many_texts(corpus)
    cache, request = tmp_path / "cache", request_of(corpus, bpe)
    merging = replace(request, making=replace(SMALL, merge=4))
    with pytest.raises(UserError, match=r"4 shards of 4 are missing in .*: 0, 1, 2, 3"):
        prepare(merging, cache)
    assert not make_shard(request, cache, 0, 4)[1] and not make_shard(request, cache, 2, 4)[1]
    assert make_shard(request, cache, 0, 4)[1], "it is there"
    with pytest.raises(UserError, match=r"2 shards of 4 are missing in .*: 1, 3; .* --shard 1/4 in place of --merge 4"):
        prepare(merging, cache)
    with pytest.raises(UserError, match=r"2 shards of 2 are missing in .* \(there are some of 4\)"):
        prepare(replace(request, making=replace(SMALL, merge=2)), cache)
    make_shard(request, cache, 1, 4)
    place = place_of(request, cache, None)
    shutil.copytree(place / "00001-of-00004", place / "00003-of-00004")  # a slip of who gathers them from machines
    with pytest.raises(UserError, match=r"1 shard of 4 is missing in .*: 3; "):
        prepare(merging, cache)
    assert not make_shard(request, cache, 3, 4)[1]

    whole = (corpus / "01.txt").read_text()
    (corpus / "01.txt").write_text(whole.swapcase())  # as long as before, and shard 0 alone reads it
    changed = request_of(corpus, bpe)
    assert not make_shard(changed, cache, 0, 4)[1], "the text has changed"
    (corpus / "01.txt").write_text(whole + "longer")
    longer = request_of(corpus, bpe, making=replace(SMALL, merge=4))
    with pytest.raises(UserError) as caught:
        prepare(longer, cache)
    assert caught.value.problems[0].text.startswith("shard 0 was made with another text; make it again")
    assert len(caught.value.problems) == 4

    record = json.loads((place / "00001-of-00004" / "part.json").read_text())
    (place / "00001-of-00004" / "tokens.bin").write_bytes(b"\0" * (2 * record["part"]["tokens"]))
    (corpus / "01.txt").write_text(whole)
    make_shard(request_of(corpus, bpe), cache, 0, 4)
    with pytest.raises(UserError, match="00001-of-00004 is damaged"):
        prepare(merging, cache)
    assert not [path for path in (cache / "stores").iterdir() if not path.name.startswith(".")]
    clean(cache)
    assert not place.exists()


def test_what_is_missing_is_told_while_others_are_made(bpe: TokenizerFiles, corpus: Path, tmp_path: Path) -> None:
    many_texts(corpus)
    cache, request = tmp_path / "cache", request_of(corpus, bpe)
    make_shard(request, cache, 0, 4)
    place = place_of(request, cache, None)
    (place / ".00001-of-00004.ab_1c2.tmp").mkdir()  # a shard under way, or what a killed one left
    with pytest.raises(UserError, match=r"3 shards of 4 are missing in [^(]*: 1, 2, 3; make each"):
        prepare(replace(request, making=replace(SMALL, merge=4)), cache)
    with pytest.raises(UserError, match=r"3 shards of 3 are missing in .* \(there are some of 4\)"):
        prepare(replace(request, making=replace(SMALL, merge=3)), cache)


@pytest.mark.parametrize("name", ["tokens.bin", "lengths.tmp", "documents.bin"])
@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-3])])
def test_a_shard_that_is_not_whole_is_none(
    name: str, change: Callable[[Path], None], bpe: TokenizerFiles, corpus: Path, tmp_path: Path
) -> None:
    many_texts(corpus)
    cache, request = tmp_path / "cache", request_of(corpus, bpe)
    merging = replace(request, making=replace(SMALL, merge=2))
    for number in range(2):
        make_shard(request, cache, number, 2)
    change(place_of(request, cache, None) / "00001-of-00002" / name)
    with pytest.raises(UserError, match=r"1 shard of 2 is missing in .*: 1; make each"):
        prepare(merging, cache)
    assert make_shard(request, cache, 0, 2)[1] and not make_shard(request, cache, 1, 2)[1]
    assert contents(prepare(merging, cache)) == contents(prepare(request_of(corpus, bpe), tmp_path / "whole"))


@pytest.mark.parametrize("own_folder", [False, True])
def test_a_store_that_the_disk_cannot_hold_is_not_begun(
    own_folder: bool, bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, cache, folder = two_shards(corpus, bpe, tmp_path, own_folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    for making in (replace(SMALL, merge=2), SMALL):
        with pytest.raises(UserError, match="the token store needs about") as caught:
            prepare(replace(request, making=making), cache, folder=folder)
        flag = "--output_dir" if own_folder else "--data_cache_dir"
        assert [problem.flag for problem in caught.value.problems] == [flag]
    with pytest.raises(UserError, match="the token store needs about"):
        make_shard(request, cache, 0, 1, folder=folder)


def test_shards_in_a_folder_of_ones_own(
    bpe: TokenizerFiles, llama: TokenizerFiles, corpus: Path, tmp_path: Path
) -> None:
    many_texts(corpus)
    cache, out = tmp_path / "cache", tmp_path / "out"
    request = request_of(corpus, bpe)
    for number in range(2):
        make_shard(request, cache, number, 2, folder=out)
    other = request_of(corpus, llama)
    with pytest.raises(UserError, match="was made with another tokenizer; name another folder"):
        make_shard(other, cache, 1, 2, folder=out)
    with pytest.raises(UserError, match="shard 0 was made with another tokenizer"):
        prepare(replace(other, making=replace(SMALL, merge=2)), cache, folder=out)
    lines_too = request_of(corpus, bpe, documents="lines", making=replace(SMALL, merge=2))
    with pytest.raises(UserError, match="shard 0 was made with other settings of how the text is read"):
        prepare(lines_too, cache, folder=out)
    made = prepare(replace(request, making=replace(SMALL, merge=2)), cache, folder=out)
    assert made.store.folder == out and prepare(request, cache).was_cached
    whole = prepare(request_of(corpus, bpe, making=Making()), tmp_path / "whole")
    assert contents(made) == contents(whole)


def test_two_shards_of_a_file_that_changed_between_them(bpe: TokenizerFiles, corpus: Path, tmp_path: Path) -> None:
    one_text(corpus)
    cache = tmp_path / "cache"
    make_shard(request_of(corpus, bpe), cache, 0, 2)
    text = (corpus / "book.txt").read_text()
    (corpus / "book.txt").write_text(text[:-9] + "\n changed"[: len(text[-9:])].ljust(9, "!"))
    make_shard(request_of(corpus, bpe), cache, 1, 2)
    with pytest.raises(UserError, match=r"shards 0 and 1 were made of different contents of .*book.txt"):
        prepare(request_of(corpus, bpe, making=replace(SMALL, merge=2)), cache)


@pytest.mark.parametrize("shard", [False, True])
def test_a_file_that_is_written_to_while_it_is_read(
    shard: bool, bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store would be found again for the text that was hashed."""
    many_texts(corpus)
    module, plain = (shards, shards.fill) if shard else (making_stores, making_stores.fill)
    request, cache = request_of(corpus, bpe), tmp_path / "cache"

    def fill(*given: Any) -> Any:
        with (corpus / "03.txt").open("a") as stream:
            stream.write("more\n")
        return plain(*given)

    with monkeypatch.context() as patched:
        patched.setattr(module, "fill", fill)
        with pytest.raises(UserError, match=r"03\.txt changed while it was read; type the same command again"):
            make_shard(request, cache, 0, 1) if shard else prepare(request, cache)
    assert not list((cache / "stores").glob("*/*.bin")) and not list((cache / "stores").glob(".*/0*/*.bin"))
    again = request_of(corpus, bpe)
    assert not (make_shard(again, cache, 0, 1)[1] if shard else prepare(again, cache).was_cached)


def test_shards_are_not_merged_while_one_is_made(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the place of what is read, and be removed with the others."""
    many_texts(corpus)
    cache, request = tmp_path / "cache", request_of(corpus, bpe)
    merged, place = replace(request, making=replace(SMALL, merge=2)), place_of(request, cache, None)
    for number in range(2):
        make_shard(request, cache, number, 2)
    with locked(cache, lock_of(place), part=1):
        with pytest.raises(UserError, match=r"--merge: 1 shard in .* is being made: 1; merge when that has ended"):
            prepare(merged, cache)
        assert [info.folder for info in clean(cache)[1]] == [place] and place.is_dir()
    again = threading.Thread(target=make_shard, args=(request, cache, 0, 2), kwargs={"overwrite": True})
    really = merging._merged

    def meanwhile(*args: Any) -> Prepared:
        again.start()
        again.join(0.5)
        assert again.is_alive(), "it waits"
        return really(*args)

    monkeypatch.setattr(merging, "_merged", meanwhile)
    made = prepare(merged, cache)
    again.join(60)
    assert contents(made) == contents(prepare(request_of(corpus, bpe, making=Making()), tmp_path / "whole"))
    assert [entry.name for entry in place.iterdir()] == ["00000-of-00002"], "made after the store was whole"


def test_an_engine_that_differs_is_used_by_no_shard(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one shard finds out holds for those before it, too."""
    from lmtrain.data import tokenization

    (corpus / "a.txt").write_text("x\n" * 4000)
    (corpus / "b.txt").write_text("x" * 9000 + "\n" + "zebra\n" * 2000)
    whole = prepare(request_of(corpus, bpe), tmp_path / "whole")
    real = tokenization.FastokensEncoder.encode
    monkeypatch.setattr(tokenization.FastokensEncoder, "encode",
                        lambda self, found: real(self, [text.replace("zebra", "horse") for text in found]))  # fmt: skip
    cache, request = tmp_path / "cache", request_of(corpus, bpe)
    engines = [make_shard(request, cache, number, 4)[0].record.engine for number in range(4)]
    assert engines[0] == "fastokens" and engines[3] == "tokenizers"
    merging = replace(request, making=replace(SMALL, merge=4))
    with pytest.raises(UserError, match="differs from the plain engine on this text, and others were made with it: 0"):
        prepare(merging, cache)
    for number in range(4):
        shard, was_there = make_shard(request, cache, number, 4)
        assert was_there == (engines[number] == "tokenizers") and shard.record.engine == "tokenizers"
    made = prepare(merging, cache)
    assert {name: contents(made)[name] for name in FILES} == {name: contents(whole)[name] for name in FILES}
    shutil.rmtree(cache)


@pytest.mark.parametrize("own_folder", [False, True])
def test_two_merges_at_once_give_one_store(
    own_folder: bool, bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, cache, folder = two_shards(corpus, bpe, tmp_path, own_folder)
    plain = merging.append_parts
    monkeypatch.setattr(merging, "append_parts", lambda *given: time.sleep(0.5) or plain(*given))
    merging_request = replace(request, making=replace(SMALL, merge=2))
    with ThreadPoolExecutor(2) as both:
        made = [both.submit(prepare, merging_request, cache, folder=folder) for _ in range(2)]
        stores = [one.result() for one in made]
    assert stores[0].store.folder == stores[1].store.folder and sum(one.was_cached for one in stores) == 1
    whole = prepare(request_of(corpus, bpe, making=Making()), tmp_path / "whole")
    assert contents(stores[0]) == contents(whole)


@pytest.mark.parametrize("own_folder", [False, True])
@pytest.mark.parametrize("removed", [0, 1])
def test_a_merge_that_is_killed_while_it_cleans_up(
    removed: int, own_folder: bool, bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first shard is removed, and after."""
    request, cache, folder = two_shards(corpus, bpe, tmp_path, own_folder)
    rmtree, rename, place = shutil.rmtree, Path.rename, place_of(request, cache, folder)

    def killed(path: Any, *_: Any, **__: Any) -> None:
        for shard in sorted(Path(path).iterdir())[:removed]:
            rmtree(shard)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        if not removed:
            patched.setattr(Path, "rename", lambda self, to: killed(self) if self == place else rename(self, to))
        with pytest.raises(KeyboardInterrupt):
            prepare(replace(request, making=replace(SMALL, merge=2)), cache, folder=folder)
    made = prepare(replace(request, making=replace(SMALL, merge=2)), cache, folder=folder)
    assert made.was_cached and not place.exists()


def test_shards_of_addresses_are_known_from_any_folder(
    bpe: TokenizerFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/shards/a.txt", b"hello\n")
    request = Request(resolve_sources(["memory://shards/a.txt"], Reading()), bpe)
    places = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        places.add(place_of(request, tmp_path / "cache", None))
    assert len(places) == 1


def test_an_error_in_a_shard_does_not_wait_for_hashes(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_texts(corpus)
    request, going_on = request_of(corpus, bpe), threading.Event()
    hashed, ended = list[str](), list[str]()

    def slow(self: Any) -> str:
        hashed.append(self.name)
        going_on.wait(60)
        ended.append(self.name)
        return "0" * 64

    def fails(*_: Any) -> None:
        raise UserError("this goes wrong")

    monkeypatch.setattr(type(request.sources[0]), "content_hash", slow)
    monkeypatch.setattr(shards, "_write", fails)
    try:
        with pytest.raises(UserError, match="this goes wrong"):
            make_shard(request, tmp_path / "cache", 0, 1)
        assert ended == []
    finally:
        going_on.set()
    assert len(hashed) <= 2, "those that had not begun are left out"


def test_an_attempt_after_the_engines_differed_has_folders_of_its_own(
    bpe: TokenizerFiles, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of the first attempt that wait in a queue still write to theirs."""
    one_text(corpus)
    plain, used = filling.run_parts, list[Path]()

    def differs_once(ranges: Any, task: Any, folder: Path, *others: Any) -> Any:
        used.append(folder)
        if len(used) == 1:
            (folder / "0000000").mkdir()
            raise DiffersError.saying("bytes 1 to 2")
        yield from plain(ranges, task, folder, *others)

    monkeypatch.setattr(filling, "run_parts", differs_once)
    request = request_of(corpus, bpe, making=replace(SMALL, workers=2))
    shard, _ = make_shard(request, tmp_path / "cache", 0, 1)
    assert len(set(used)) == 2 and shard.record.engine == "tokenizers"
    assert sorted(path.name for path in shard.folder.iterdir()) == [
        "documents.bin", "lengths.tmp", "part.json", "tokens.bin"
    ]  # fmt: skip
