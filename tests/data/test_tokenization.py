"""Engines and their proof; what is read from tokenizer files; cuts through long documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import CODE, ODD, byte_level_bpe, llama_like, wordpiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece
from lmtrain.data.fast_engine import Loading
from lmtrain.data.seams import SHORTEST, Seams
from lmtrain.data.tokenization import (
    DiffersError,
    Encoder,
    Proof,
    TokenizersEncoder,
    choose_encoder,
    odd_texts,
    reference_encoder,
)
from lmtrain.data.tokenizer_files import TokenizerFiles


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_bpe(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wordpiece(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_like(tmp_path_factory.mktemp("llama"))


def ids_of(encoder: Encoder, *texts: str) -> list[list[int]]:
    ids, offsets = encoder.encode(list(texts))
    assert ids.dtype == np.uint32 and len(offsets) == len(texts) + 1
    return [ids[a:b].tolist() for a, b in pairwise(offsets)]


def test_a_proven_engine_gives_the_tokenizers_own_ids(bpe: Path) -> None:
    encoder, proof, line = choose_encoder(TokenizerFiles.load(bpe), [CODE[:5000]])
    assert proof is not None and encoder.name == "fastokens", line
    assert "proven equal" in line
    plain = Tokenizer.from_file(str(bpe / "tokenizer.json"))
    texts = [CODE, ODD, "", "<|endoftext|>"]
    assert ids_of(encoder, *texts) == [plain.encode(text, add_special_tokens=False).ids for text in texts]


def test_an_engine_that_differs_on_one_text_is_not_used(bpe: Path) -> None:
    files = TokenizerFiles.load(bpe)

    class OffByOne:
        """fastokens, but it takes a rare letter for another."""

        def __init__(self) -> None:
            assert files.fast is not None
            self.engine = files.fast.result()

        def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
            return self.engine.encode_batch_flat([text.replace("ǅ", "Ǆ") for text in texts])

    sloppy = TokenizerFiles(**{**vars(files), "fast": Loading(OffByOne)})
    assert choose_encoder(sloppy, [CODE[:1000]])[1] is not None, "nothing to see in this sample"
    encoder, proof, line = choose_encoder(sloppy, [CODE[:1000], "the letter ǅ"])
    assert proof is None and encoder.name == "tokenizers"
    assert "the letter ǅ" in line


def test_the_proof_sees_a_token_moved_between_texts() -> None:
    class Fixed:
        name = "fixed"

        def __init__(self, *offsets: int) -> None:
            self.offsets = np.array(offsets)

        def encode(self, texts: object) -> tuple[np.ndarray, np.ndarray]:
            return np.array([1, 2, 3], np.uint32), self.offsets

    with pytest.raises(DiffersError, match="'a'"):
        Proof(Fixed(0, 2, 3), Fixed(0, 1, 3)).check(["a", "b"])


def test_an_engine_that_does_not_know_the_pipeline_steps_aside(pieces: Path) -> None:
    encoder, proof, line = choose_encoder(TokenizerFiles.load(pieces), ["some text"])
    assert proof is None and encoder.name == "tokenizers"
    assert "does not know this kind of tokenizer" in line and "\n" not in line


def test_a_missing_engine_steps_aside(bpe: Path) -> None:
    def missing() -> None:
        raise ImportError("No module named 'fastokens'")

    files = TokenizerFiles(**{**vars(TokenizerFiles.load(bpe)), "fast": Loading(missing)})
    encoder, proof, line = choose_encoder(files, ["some text"])
    assert proof is None and encoder.name == "tokenizers" and "not installed" in line


def test_an_engine_that_panics_steps_aside(bpe: Path) -> None:
    class Panic(BaseException):
        """As native code raises it."""

    def panics() -> None:
        raise Panic("index out of bounds")

    files = TokenizerFiles(**{**vars(TokenizerFiles.load(bpe)), "fast": Loading(panics)})
    encoder, proof, _ = choose_encoder(files, ["some text"])
    assert proof is None and encoder.name == "tokenizers"
    with pytest.raises(RuntimeError, match="index out of bounds"):
        Loading(panics).result()


def test_odd_texts_hold_every_special_token_and_its_fragments() -> None:
    texts = odd_texts(["<|x|>"])
    assert {"<|x|>", "<|x|><|x|>", "<|x|", "|x|>"} <= set(texts)
    for text in texts:
        text.encode("utf-8")  # no lone surrogates: no file holds them


def test_what_the_files_say(bpe: Path, pieces: Path, llama: Path) -> None:
    gpt = TokenizerFiles.load(bpe)
    assert (gpt.eos_id, gpt.bos_id, gpt.pad_id) == (0, 0, None)
    assert gpt.n_ids == 600 and gpt.special_ids == (0,)
    assert gpt.around_document("clm") == ((), (0,))
    assert gpt.around_document("clm", append_eos=False) == ((), ())
    bert = TokenizerFiles.load(pieces)
    assert (bert.pad_id, bert.unk_id, bert.cls_id, bert.sep_id, bert.mask_id) == (0, 1, 2, 3, 4)
    assert bert.around_document("mlm") == ((2,), (3,))
    with pytest.raises(UserError, match="end-of-text"):
        bert.around_document("clm")
    assert TokenizerFiles.load(llama).around_document("clm") == ((1,), (2,))


def test_end_of_text_is_found_where_no_file_names_it(bpe: Path, tmp_path: Path) -> None:
    bare = tmp_path / "tokenizer.json"
    bare.write_bytes((bpe / "tokenizer.json").read_bytes())
    assert TokenizerFiles.load(bare).eos_id == 0
    assert TokenizerFiles.load(tmp_path).eos_id == 0


def test_saved_truncation_and_padding_are_ignored(bpe: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bpe / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    files, plain = TokenizerFiles.load(tmp_path), TokenizerFiles.load(bpe)
    assert files.fingerprint == plain.fingerprint
    for encoder in (reference_encoder(files), choose_encoder(files, [])[0]):
        assert ids_of(encoder, CODE[:500], "x") == ids_of(reference_encoder(plain), CODE[:500], "x")


def test_the_fingerprint_follows_what_decides_ids(bpe: Path, tmp_path: Path) -> None:
    before = TokenizerFiles.load(bpe).fingerprint
    values = json.loads((bpe / "tokenizer.json").read_text())

    def changed(**parts: object) -> str:
        (tmp_path / "tokenizer.json").write_text(json.dumps({**values, **parts}, indent=3))
        return TokenizerFiles.load(tmp_path).fingerprint

    assert changed() == before, "white space in the file"
    assert changed(post_processor=None) == before, "special tokens are the layout's"
    assert changed(normalizer={"type": "Lowercase"}) != before
    token = {**values["added_tokens"][0], "id": 600, "content": "<|new|>"}
    assert changed(added_tokens=[*values["added_tokens"], token]) != before


def test_tokens_that_only_the_configuration_names_are_added(bpe: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((bpe / "tokenizer.json").read_bytes())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    files = TokenizerFiles.load(tmp_path)
    assert (files.pad_id, files.n_ids) == (600, 601)
    encoder, proof, _ = choose_encoder(files, ["a<|pad|>b"])
    assert proof is not None
    assert 600 in ids_of(encoder, "a<|pad|>b")[0]


def test_files_and_transformers_agree(bpe: Path, pieces: Path, llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    configured = tmp_path / "configured"
    configured.mkdir()
    (configured / "tokenizer.json").write_bytes((bpe / "tokenizer.json").read_bytes())
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    (configured / "tokenizer_config.json").write_text(json.dumps(config))
    compared = (
        "fingerprint",
        "n_ids",
        "special_ids",
        "prefix_ids",
        "suffix_ids",
        "eos_id",
        "pad_id",
        "mask_id",
    )
    plain = tmp_path / "plain"  # the special tokens stand among the tokens of words, or nowhere
    plain.mkdir()
    state = json.loads((bpe / "tokenizer.json").read_text())
    (plain / "tokenizer.json").write_text(json.dumps({**state, "added_tokens": []}))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    config |= {"extra_special_tokens": ["<a>"]}
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    for folder in (bpe, pieces, llama, configured, plain):
        ours = TokenizerFiles.load(folder)
        theirs = TokenizerFiles.from_transformers(AutoTokenizer.from_pretrained(folder))
        for name in compared:
            assert getattr(ours, name) == getattr(theirs, name), (folder, name)


def test_a_tokenizer_of_python_code_works() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    files = TokenizerFiles.from_transformers(tokenizer)
    encoder, proof, line = choose_encoder(files, ["text"])
    assert proof is None and "Python" in line
    assert ids_of(encoder, ODD, "") == [tokenizer(ODD, add_special_tokens=False)["input_ids"], []]
    assert files.suffix_ids == (tokenizer.eos_token_id,) and files.prefix_ids == ()
    again = TokenizerFiles.from_transformers(ByT5Tokenizer())
    assert files.fingerprint == again.fingerprint
    assert files.fingerprint != TokenizerFiles.from_transformers(ByT5Tokenizer(extra_ids=3)).fingerprint


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no tokenizer.json"), ("{", "cannot be read|not a tokenizer"), ("{}", "not a tokenizer")],
)
def test_unusable_tokenizer_files_are_named(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        TokenizerFiles.load(tmp_path)
    assert caught.value.problems[0].flag == "--tokenizer_name"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": ["<a>"]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"one": {"content": "<a>"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"text": "<a>"}}}),
        ("added_tokens.json", {"<a>": 1, "<b>": "2"}),
    ],
)
def test_files_written_by_hand_are_named(bpe: Path, tmp_path: Path, name: str, content: object) -> None:
    (tmp_path / "tokenizer.json").write_bytes((bpe / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--tokenizer_name: .*tokenizer_config\.json or added_tokens\.json beside it"):
        TokenizerFiles.load(tmp_path)


def test_reading_a_tokenizer_imports_neither_torch_nor_transformers(bpe: Path) -> None:
    program = (
        "import sys; from lmtrain.data.tokenizer_files import TokenizerFiles; import lmtrain.data.corpus\n"
        f"TokenizerFiles.load({str(bpe)!r})\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'rich', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"


def joined(pieces: list[Piece]) -> list[str]:
    """The documents of pieces."""
    documents: list[str] = []
    for piece in pieces:
        assert piece.n_bytes == len(piece.text.encode()) and piece.utf8 in (None, piece.text.encode())
        if piece.first:
            documents.append(piece.text)
        else:
            documents[-1] += piece.text
    return documents


def encoded(encoder: Encoder, pieces: list[Piece]) -> list[list[int]]:
    """The ids of pieces, by document."""
    documents: list[list[int]] = []
    for piece in pieces:
        if piece.first:
            documents.append([])
        documents[-1] += ids_of(encoder, piece.text)[0]
    return documents


COUNTED = """
import os, sys
from pathlib import Path
from lmtrain.data.fast_engine import limit_threads, load_fastokens
from lmtrain.data.tokenization import FastokensEncoder
limit_threads(int(sys.argv[2]))
encoder = FastokensEncoder(load_fastokens(Path(sys.argv[1], "tokenizer.json").read_text(encoding="utf-8")))
encoder.encode([f"line {number}" for number in range(10_000)])
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists the threads of a process")
def test_engines_keep_to_the_threads_they_are_allowed(bpe: Path, tmp_path: Path) -> None:
    """``fastokens`` does not read rayon's variable: a process with one thread had two."""
    (tmp_path / "counted.py").write_text(COUNTED)

    def threads(allowed: int) -> int:
        command = [sys.executable, str(tmp_path / "counted.py"), str(bpe), str(allowed)]
        alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # NumPy has threads too
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=alone).stdout)

    assert threads(1) == 1
    if len(os.sched_getaffinity(0)) > 1:
        assert threads(2) == 2


@pytest.fixture(scope="module")
def plain_encoders(bpe: Path, llama: Path) -> list[Encoder]:
    return [reference_encoder(TokenizerFiles.load(folder)) for folder in (bpe, llama)]


@given(cuts=st.lists(st.integers(1, 2999), max_size=12))
@example(cuts=[289, 291])
@settings(max_examples=60, deadline=None)
def test_pieces_cut_anywhere_give_the_whole_documents_ids(plain_encoders: list[Encoder], cuts: list[int]) -> None:
    text = CODE[:3000]
    at = sorted({0, *cuts, len(text)})
    parts = [Piece(text[a:b], b - a, a == 0) for a, b in pairwise(at)]
    parts += [Piece("next document", 13)]
    for plain in plain_encoders:
        seams = Seams(plain)
        found = list(seams.proven(parts))
        assert joined(found) == [text, "next document"]
        assert encoded(plain, found) == ids_of(plain, text, "next document")
        sizes = [b - a for a, b in pairwise(at)]
        tried = sum(min(pair) >= SHORTEST for pair in pairwise(sizes))
        assert sum(not piece.first for piece in found) + seams.joined == tried, "shorter pieces prove nothing"


def test_good_cuts_are_kept_and_bad_ones_joined(plain_encoders: list[Encoder]) -> None:
    bpe, llama = plain_encoders

    def joins(plain: Encoder, left: str, right: str) -> int:
        seams = Seams(plain)
        left, right = CODE[:300] + left, right + CODE[:300]
        list(seams.proven([Piece(left, len(left)), Piece(right, len(right), False)]))
        return seams.joined

    assert joins(bpe, "def wrap(text):\n", "return text") == 0
    assert joins(bpe, "def wr", "ap(text):\n") == 1
    assert joins(llama, "def wrap(text):\n", "return text") == 1, "every text gets a ▁ of its own"


@pytest.mark.parametrize("letter", [" ", "-", "\n"])
def test_a_cut_through_a_run_of_one_character_does_not_hold(letter: str) -> None:
    """Its tokens are 2, 4, 8, 16 of them: what stands around the cut looks the same with it and without it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=262, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([letter * 64] * 9, trainer)
    plain = TokenizersEncoder(tokenizer)
    text = letter * 3000
    assert len(ids_of(plain, text)[0]) < 300
    for cut in range(1000, 1017):
        parts = [Piece(text[:cut], cut, True), Piece(text[cut:], len(text) - cut, False)]
        found = list(Seams(plain).proven(parts))
        assert encoded(plain, found) == ids_of(plain, text), cut
