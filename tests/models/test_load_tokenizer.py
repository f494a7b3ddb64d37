"""Tokenizers in all the forms that people have them."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models import load_tokenizer
from tiny_models import TEXT, bert_style, gpt2_style, save_tokenizer

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def load(path: object, purpose: str | None = None):
    return load_tokenizer(ModelOptions(tokenizer_name=str(path)), purpose)


def test_a_folder_keeps_roles_and_ids(tmp_path):
    folder = save_tokenizer(tmp_path / "t", "roberta")
    tokenizer = load(folder, "mlm")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id) == (1, 2, 4)
    assert load(folder, "clm").eos_token == "</s>"


@pytest.mark.parametrize("form", ["file", "folder with only it"])
def test_a_bare_tokenizer_json_gets_its_roles_from_the_names(tmp_path, form):
    whole = bert_style()
    whole.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path / "tokenizer.json" if form == "file" else tmp_path, "mlm")
    assert tokenizer(TEXT[0]).input_ids == whole(TEXT[0]).input_ids
    roles = (
        tokenizer.pad_token,
        tokenizer.unk_token,
        tokenizer.cls_token,
        tokenizer.sep_token,
        tokenizer.mask_token,
    )
    assert roles == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def test_vocab_and_merges_alone_are_gpt2s_byte_level_bpe(tmp_path):
    whole = gpt2_style()
    whole.backend_tokenizer.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "<|endoftext|>": 0}))
    tokenizer = load(tmp_path, "clm")
    text = TEXT[0] + "\n\n  indented é 𝛼 <|endoftext|>"
    assert tokenizer(text).input_ids == whole(text).input_ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token_id == 0


def test_an_ordinary_word_is_not_taken_for_the_end_of_text(tmp_path):
    backend = gpt2_style().backend_tokenizer
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="no end-of-text token"):
        load(tmp_path, "clm")


def test_causal_training_needs_an_end_of_text_and_masked_a_mask(tmp_path):
    bert, gpt2 = save_tokenizer(tmp_path / "b", "bert"), save_tokenizer(tmp_path / "g", "gpt2")
    with pytest.raises(UserError, match=r"--tokenizer_name: .* has no end-of-text token.*<\|endoftext\|>"):
        load(bert, "clm")
    with pytest.raises(UserError, match=r"--tokenizer_name: .* has no mask token.*lmtrain clm"):
        load(gpt2, "mlm")
    assert load(bert).eos_token is None  # nothing asked for, nothing missing


def test_long_text_gives_no_warning_and_the_length_is_kept(tmp_path, caplog, capfd):
    tokenizer = gpt2_style()
    tokenizer.model_max_length = 8
    tokenizer.save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    try:
        assert len(load(tmp_path, "clm")(TEXT[0] * 9).input_ids) > 100
    finally:
        logging.getLogger("transformers").propagate = False
    assert "longer than" not in caplog.text + "".join(capfd.readouterr())
    assert load(tmp_path).model_max_length == 8


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, r"holds no tokenizer \(no tokenizer.json; no vocab.json with merges.txt\)$"),
        ({"config.json": '{"model_type": "gpt2"}'}, "holds no tokenizer"),
        ({"tokenizer.json": "{"}, "is not a tokenizer"),
        ({"tokenizer.json": "{", "tokenizer_config.json": "{}"}, "cannot be loaded"),
        ({"vocab.json": "[]", "merges.txt": "x"}, "no readable byte-level BPE"),
    ],
)
def test_a_folder_without_a_readable_tokenizer_is_refused_in_one_line(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_model_is_asked_when_no_tokenizer_is_named_and_neither_is_an_error(tmp_path):
    folder = save_tokenizer(tmp_path / "t", "gpt2")
    assert load_tokenizer(ModelOptions(model_name_or_path=folder)).eos_token_id == 0
    with pytest.raises(UserError, match="lmtrain tokenizer"):
        load_tokenizer(ModelOptions(model_type="gpt2"))
    (tmp_path / "adapter").mkdir()
    with pytest.raises(UserError, match=r"holds no tokenizer .*; name one with --tokenizer_name"):
        load_tokenizer(ModelOptions(model_name_or_path=str(tmp_path / "adapter")))


@pytest.mark.skipif(not (SHARED / "gpt2").is_dir(), reason="needs ../shared/data/gpt2")
def test_gpt2s_own_files_in_every_combination(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(SHARED / "gpt2" / name, tmp_path)
    text = "Hello  world\n\n\tdef f(x):  # naïve 🙂<|endoftext|>It's"
    three = [load(place, "clm") for place in (SHARED / "gpt2", SHARED / "gpt2" / "tokenizer.json", tmp_path)]
    assert {tokenizer.eos_token_id for tokenizer in three} == {50256}
    assert len({tuple(tokenizer(text).input_ids) for tokenizer in three}) == 1
