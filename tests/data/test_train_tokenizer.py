"""Tokenizers trained here: they lose nothing, AutoTokenizer loads them, and bad plans are refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from corpora import CODE, ODD, Texts
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtrain.cli.main import main
from lmtrain.core.errors import UserError
from lmtrain.data import tokenizer_text
from lmtrain.data import train_tokenizer as train_tokenizer_module
from lmtrain.data.tokenization import choose_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.data.tokenizer_text import TrainingText
from lmtrain.data.train_tokenizer import TokenizerPlan, Trained, train_tokenizer

LINES = [CODE[i : i + 900] for i in range(0, len(CODE), 900)]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest) -> Trained:
    return train_tokenizer([Texts(*LINES)], TokenizerPlan(kind=request.param, vocab_size=700))


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_every_text_comes_back(trained: Trained, text: str) -> None:
    ids = trained.backend.encode(text, add_special_tokens=False).ids
    assert trained.backend.decode(ids, skip_special_tokens=False) == text


def test_every_byte_has_a_token(trained: Trained) -> None:
    for start in range(0, 0x3000, 0x40):
        text = "".join(map(chr, range(start, start + 0x40)))
        assert trained.backend.decode(trained.backend.encode(text).ids, skip_special_tokens=False) == text
    assert trained.backend.get_vocab_size() <= 700
    assert trained.backend.token_to_id("<|endoftext|>") == 0


def test_the_folder_loads_everywhere(trained: Trained, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trained.save(tmp_path / "tok")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tok")
    ids = trained.backend.encode(ODD).ids
    assert theirs(ODD)["input_ids"] == ids and theirs.decode(ids) == ODD
    assert theirs.eos_token == "<|endoftext|>" and theirs.eos_token_id == 0
    ours = TokenizerFiles.load(tmp_path / "tok")
    assert ours.fingerprint == TokenizerFiles.from_transformers(theirs).fingerprint
    assert ours.around_document("clm") == ((), (0,))


def test_a_trained_bpe_takes_the_fast_engine(tmp_path: Path) -> None:
    train_tokenizer([Texts(*LINES)], TokenizerPlan(vocab_size=600)).save(tmp_path / "tok")
    _, proof, line = choose_encoder(TokenizerFiles.load(tmp_path / "tok"), [CODE[:9000]])
    assert proof is not None, line


def test_wordpiece_is_berts(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trained = train_tokenizer([Texts(*LINES)], TokenizerPlan(kind="wordpiece", vocab_size=500, model_max_length=64))
    trained.save(tmp_path / "tok")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert theirs.mask_token == "[MASK]" and theirs.model_max_length == 64
    ids = theirs("Return the text")["input_ids"]
    assert (ids[0], ids[-1]) == (theirs.cls_token_id, theirs.sep_token_id) == (2, 3)
    assert theirs.decode(ids[1:-1]) == "return the text"


def test_how_well_it_packs_is_measured_on_text_kept_back() -> None:
    source = Texts(*LINES)
    small = train_tokenizer([source], TokenizerPlan(vocab_size=300))
    large = train_tokenizer([source], TokenizerPlan(vocab_size=1500))
    assert large.held_out and 0 < large.held_out_bytes < 0.25 * len(CODE.encode())
    assert large.held_out_bytes + large.trained_bytes == len(CODE.encode())
    assert 1.0 < small.bytes_per_token < large.bytes_per_token
    assert f"{large.bytes_per_token:.2f} bytes per token on held-out text" in large.line
    short = train_tokenizer([Texts("a short text")], TokenizerPlan(vocab_size=300))
    assert not short.held_out and "training text itself" in short.line


def test_a_sample_ends_in_time_and_comes_from_everywhere() -> None:
    sources = [Texts(line * 3, name=f"file {n}") for n, line in enumerate(LINES)]
    trained = train_tokenizer(sources, TokenizerPlan(vocab_size=300, sample_bytes=20_000))
    assert 20_000 <= trained.trained_bytes < 24_000
    read = [n for n, source in enumerate(sources) if source.reads]
    assert len(read) < len(sources) / 2
    assert max(read) > len(sources) / 2, "not only the first files"


def test_a_sample_of_one_long_file_is_no_head_of_it() -> None:
    places = [f"place{n:04d} " + "word " * 40 + "\n" for n in range(2000)]
    text = TrainingText([Texts("".join(places))], 20_000)
    found = [int(word) for chunk in text for word in re.findall(r"place(\d+)", chunk)]
    assert 20_000 <= text.trained_bytes < 22_000
    assert len(found) > 50 and min(found) < 200 and max(found) > 1800
    quarters = [sum(1 for n in found if q * 500 <= n < (q + 1) * 500) for q in range(4)]
    assert min(quarters) > 0.5 * max(quarters)
    again = TrainingText([Texts("".join(places))], 20_000)
    assert list(again) == list(TrainingText([Texts("".join(places))], 20_000)), "the same text gives the same sample"


def test_another_kind_is_compared_with_gpt2s_of_its_size() -> None:
    byte_level = train_tokenizer([Texts(*LINES)], TokenizerPlan(vocab_size=700))
    assert byte_level.beside == () and "every byte comes back" in byte_level.line
    unigram = train_tokenizer([Texts(*LINES)], TokenizerPlan(kind="unigram", vocab_size=700))
    ((name, figure),) = unigram.beside
    assert name == "a BPE like GPT-2's of 700" and f"{name}: {figure:.2f}" in unigram.line
    assert figure == pytest.approx(byte_level.bytes_per_token, rel=1e-9), "learned from the same text"


def test_what_does_not_come_back_is_said() -> None:
    wordpiece = train_tokenizer([Texts(*LINES)], TokenizerPlan(kind="wordpiece", vocab_size=700))
    assert wordpiece.lost is not None and "not every text comes back: " in wordpiece.line


def test_wordpiece_with_more_characters_than_tokens() -> None:
    alphabet = "".join(chr(0x4E00 + n) + " " for n in range(300))
    with pytest.raises(UserError, match="too few: the characters of this text") as caught:
        train_tokenizer([Texts(alphabet)], TokenizerPlan(kind="wordpiece", vocab_size=100))
    assert caught.value.problems[0].flag == "--vocab_size"


@pytest.mark.parametrize(
    ("plan", "flag"),
    [({"vocab_size": 256}, "--vocab_size"), ({"kind": "unigram", "vocab_size": 100}, "--vocab_size"),
     ({"kind": "wordpiece", "vocab_size": 5}, "--vocab_size"),
     ({"vocab_size": 258, "special_tokens": ("<a>", "<b>")}, "--vocab_size")],
)  # fmt: skip
def test_a_vocabulary_smaller_than_its_alphabet_is_refused(plan: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match="too few") as caught:
        train_tokenizer([Texts(CODE)], TokenizerPlan(**plan))
    assert caught.value.problems[0].flag == flag
    least = re.search(r"use at least --vocab_size (\d+)", str(caught.value))
    assert least
    TokenizerPlan(**{**plan, "vocab_size": int(least[1])}).check()


def test_a_special_token_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(UserError, match="'<é>' would not come back from its token: é is how"):
        train_tokenizer([Texts(CODE)], TokenizerPlan(vocab_size=400, special_tokens=("<é>",)))
    trained = train_tokenizer([Texts(CODE, "<中> é")], TokenizerPlan(vocab_size=400, special_tokens=("<中>",)))
    assert trained.backend.decode(trained.backend.encode("<中> é").ids, skip_special_tokens=False) == "<中> é"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece", "like"])
def test_nothing_to_learn_from_is_refused(trained: Trained, kind: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    plan = TokenizerPlan(kind=kind)
    if kind == "like":
        plan = TokenizerPlan(like=PreTrainedTokenizerFast(tokenizer_object=trained.backend))
    for nothing in ([], [Texts()], [Texts("")]):
        with pytest.raises(UserError, match="no text to learn from") as caught:
            train_tokenizer(nothing, plan)
        assert caught.value.problems[0].flag == "--train_file"


@pytest.mark.parametrize("content", ["", '{"text": null}\n' * 3, '{"text": ""}\n'])
def test_the_command_of_nothing_leaves_nothing(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(content)
    assert main(["tokenizer", "--train_file", str(source), "--output_dir", str(tmp_path / "tok")]) == 2
    said = capsys.readouterr().err
    assert "1 thing to change" in said and "--train_file" in said and list(tmp_path.iterdir()) == [source]


def test_a_short_text_is_learned_whatever_its_hash() -> None:
    """A text is held out by its hash, one in twenty; of a single chunk nothing would be left to learn."""
    texts = [f"It was a dark night number {n}, and the fox slept.\n" * 20 for n in range(200)]
    unlucky = [text for text in texts if zlib.crc32(text.encode()) % 20 == 0]
    assert len(unlucky) > 3
    for text in unlucky[:3]:
        trained = train_tokenizer([Texts(text)], TokenizerPlan(vocab_size=300))
        assert trained.trained_bytes == len(text) and not trained.held_out


def test_a_frequency_means_nothing_to_a_unigram_model() -> None:
    for kind in ("bpe", "wordpiece"):
        TokenizerPlan(kind=kind, min_frequency=3).check()
    with pytest.raises(UserError, match=r"--min_frequency: .*; leave it out, or choose --type bpe or wordpiece"):
        TokenizerPlan(kind="unigram", min_frequency=3).check()


def test_a_baseline_that_learned_from_less_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tokenizer_module, "_BASELINE_BYTES", 4000)
    line = train_tokenizer([Texts(*LINES)], TokenizerPlan(kind="unigram", vocab_size=700)).line
    assert re.search(r"\(a BPE like GPT-2's of \d+ that learned from [45]\.\d kB: \d\.\d\d\)", line), line


def test_a_baseline_has_not_seen_what_it_is_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    learned, plain = list[str](), train_tokenizer_module.learn

    def learn(backend: Any, trainer: Any, chunks: Any) -> None:
        learned.extend(chunks)
        plain(backend, trainer, learned)

    monkeypatch.setattr(train_tokenizer_module, "learn", learn)
    text = TrainingText([Texts(*LINES)])
    trained_on = list(text)
    train_tokenizer([Texts(*LINES)], TokenizerPlan(kind="wordpiece", vocab_size=700))
    assert text.held_out and learned == trained_on


def test_of_a_large_corpus_a_sample_is_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_text, "_SAMPLE", 1000)
    source = tmp_path / "a.py"
    source.write_text(CODE)

    def said(to: str, *words: str) -> str:
        whole = ["--train_file", str(source), "--vocab_size", "300", "--output_dir", str(tmp_path / to), *words]
        assert main(["tokenizer", *whole]) == 0
        return capsys.readouterr().err

    assert "--sample_bytes" not in said("small")
    monkeypatch.setattr(tokenizer_text, "_LARGE", len(CODE))
    share = round(len(CODE.encode()) / 1000)
    advice = f"--sample_bytes 1000 takes 1.0 kB of text from all over them, in about 1/{share} of the time"
    assert advice in said("large")
    assert "all of the" not in said("sampled", "--sample_bytes", "1000")


def test_the_same_command_again_has_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "a.py", tmp_path / "tok"
    source.write_text(CODE)
    words = ["tokenizer", "--source", str(source), "--output_dir", str(out), "--vocab_size"]
    assert main([*words, "300"]) == 0
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*words, "300"]) == 0
    said = capsys.readouterr()
    assert "finished before" in said.err and said.out.splitlines() == [str(out)] * 2
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written
    assert main([*words, "301"]) == 2 and "made with other options; name another" in capsys.readouterr().err
    source.write_text(f"{CODE}more")
    assert main([*words, "300"]) == 2 and "made of other text" in capsys.readouterr().err
    source.write_text(CODE)
    (out / ".made_of.json").unlink()
    assert main([*words, "300"]) == 2 and "holds another tokenizer" in capsys.readouterr().err


def test_what_was_passed_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text" / "sub").mkdir(parents=True)
    (tmp_path / "text" / "a.jsonl").write_text('{"body": "a fox"}\n' * 50 + "{broken\n")
    (tmp_path / "text" / "b.jsonl").touch()
    words = ["--source", f"{tmp_path}/text/*", "--on_bad_record", "skip", "--vocab_size", "260"]
    assert main(["tokenizer", *words, "--output_dir", str(tmp_path / "tok")]) == 0
    said = capsys.readouterr().err
    assert "passed over: 1 bad record, 1 empty file\n" in said
    assert "1 folder and what is in them are left out" in said and "text is read from column 'body'" in said


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "lmtrain", *words], capture_output=True, text=True, env=environment)


def test_the_commands(tmp_path: Path) -> None:
    """``lmtrain tokenizer``, then ``lmtrain prepare`` with what it made."""
    import json

    text, tok, cache = tmp_path / "text", str(tmp_path / "tok"), str(tmp_path / "cache")
    text.mkdir()
    for number, line in enumerate(LINES):
        (text / f"{number:03d}.py").write_text(line)
    made = run("tokenizer", "--train_file", str(text), "--vocab_size", "600", "--output_dir", tok)
    assert made.returncode == 0, made.stderr
    assert "600 tokens" in made.stderr and made.stdout.strip() == tok
    again = run("tokenizer", "--train_file", str(text), "--output_dir", tok)
    assert again.returncode == 2 and "holds a tokenizer made with other options" in again.stderr

    prepare = ("prepare", "--train_file", str(text), "--tokenizer_name", tok, "--data_cache_dir", cache)
    first = run(*prepare, "--json")
    assert first.returncode == 0, first.stderr
    account = json.loads(first.stdout)
    assert account["documents"] == len(LINES) and not account["stores"]["train"]["cached"]
    splits = account["splits"].values()
    assert sum(s["tokens"] for s in splits) == account["tokens"]
    assert all(s["tokens"] + s["specials"] == s["placed"] + s["dropped"] for s in splits)
    assert "proven equal" in first.stderr
    assert json.loads(run(*prepare, "--json").stdout)["stores"]["train"]["cached"]
    assert "1 store," in run("prepare", "--list", "--data_cache_dir", cache).stdout
    own = run(*prepare, "--output_dir", str(tmp_path / "store"))
    assert own.returncode == 0 and (tmp_path / "store" / "tokens.idx").exists(), own.stderr
    assert "freed" in run("prepare", "--clean", "--data_cache_dir", cache).stdout
    assert "0 stores" in run("prepare", "--list", "--data_cache_dir", cache).stdout


def test_all_problems_of_a_command_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "tokenizer.json").write_text("{}")
    words = ("--train_file", str(tmp_path / "empty.txt"), "--tokenizer_name", str(tmp_path))
    done = run("prepare", *words, "--data_cache_dir", str(tmp_path / "cache"))
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "2 things to change" in done.stderr
    assert "empty.txt is empty" in done.stderr and "not a tokenizer.json" in done.stderr
    assert not (tmp_path / "cache").exists(), "nothing left half-made"
