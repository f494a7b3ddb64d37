"""Enough rows for every id, and one id for each special token."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models import agree_on_special_ids, fit_vocabulary, load_model, rows_needed, save_model
from tiny_models import PURPOSE, SMALL, gpt2_style, make

EXTRA = ["<|alpha|>", "<|beta|>", "<|gamma|>"]


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("kind", sorted(PURPOSE))
def test_new_ids_get_rows_that_start_at_the_mean_and_old_ones_stay(tmp_path, kind):
    model, tokenizer = make(kind, tmp_path)
    if (bias := model.get_output_embeddings().bias) is not None:
        torch.nn.init.normal_(bias)
    ids = torch.tensor([tokenizer("The fox and the dog").input_ids])
    before, embedding = logits(model, ids), model.get_input_embeddings().weight.detach().clone()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    tokenizer.add_special_tokens({"additional_special_tokens": EXTRA})

    lines = fit_vocabulary(model, tokenizer)

    rows = len(embedding) + len(EXTRA)
    assert lines == [
        f"embedding grown from {len(embedding)} to {rows} rows, to hold the tokenizer's ids; new rows start at the mean"
    ]
    after = logits(model, ids)
    torch.testing.assert_close(after[..., : len(embedding)], before)
    weight, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    assert (head.weight is weight) == tied == model.config.tie_word_embeddings
    # the library draws around the mean with a covariance of 1e-9 of the rows': within 6 deviations
    spread = 6 * (1e-9 * embedding.var(0)).sqrt() + 1e-6
    assert ((weight[-len(EXTRA) :] - embedding.mean(0)).abs() <= spread).all()
    if bias is not None:
        assert head.bias.shape == (rows,)
        torch.testing.assert_close(head.bias[-3:], bias[: len(embedding)].mean().expand(3))
    assert model.config.vocab_size == rows
    new = torch.tensor([tokenizer("".join(EXTRA)).input_ids])
    assert logits(model, new).shape[-1] == rows
    save_model(model, tokenizer, tmp_path / "saved")
    loaded = load_model(ModelOptions(model_name_or_path=str(tmp_path / "saved")), PURPOSE[kind], tokenizer)
    assert torch.equal(logits(loaded.model.eval(), new), logits(model, new))


def test_growing_is_a_function_of_the_seed(tmp_path):
    weights = []
    for seed in (7, 7, 8):
        model, tokenizer = make("llama", tmp_path)
        tokenizer.add_tokens(EXTRA)
        torch.manual_seed(seed)
        fit_vocabulary(model, tokenizer)
        weights.append(model.get_output_embeddings().weight.detach())
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[2], atol=1e-3, rtol=0)


def test_it_never_shrinks(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    rows = rows_needed(tokenizer)
    model.resize_token_embeddings(rows + 21)
    assert fit_vocabulary(model, tokenizer) == []
    assert model.get_input_embeddings().weight.shape[0] == rows + 21


def test_never_refuses_with_both_numbers(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    rows = rows_needed(tokenizer)
    tokenizer.add_tokens(EXTRA)
    with pytest.raises(UserError, match=f"--resize_embeddings: .*up to {rows + 2} and the model {rows} embedding"):
        fit_vocabulary(model, tokenizer, "never")
    assert model.get_input_embeddings().weight.shape[0] == rows


def test_gaps_between_the_ids_count():
    """An id may exceed the number of tokens: 3 words, the largest id 9."""
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 4, "[UNK]": 9}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert len(tokenizer) == 3 and rows_needed(tokenizer) == 10


def test_the_tokenizer_decides_and_what_changed_is_said(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    model.config.bos_token_id = model.config.eos_token_id = model.generation_config.eos_token_id = 17
    model.config.pad_token_id = 5
    lines = agree_on_special_ids(model, tokenizer)
    assert lines == ["special ids of the model follow the tokenizer: bos 17 → 0, eos 17 → 0, pad 5 → none"]
    for role, expected in (("bos", 0), ("eos", 0), ("pad", None)):
        name = f"{role}_token_id"
        ids = [getattr(owner, name) for owner in (tokenizer, model.config, model.generation_config)]
        assert ids == [expected] * 3
    assert agree_on_special_ids(model, tokenizer) == []


def test_the_roles_of_some_types_follow_too(tmp_path):
    """A ModernBERT's own ids of cls and sep lie far beyond a small vocabulary."""
    model, tokenizer = make("modernbert", tmp_path)
    assert agree_on_special_ids(model, tokenizer) == []
    model.config.cls_token_id, model.config.sep_token_id = 50281, 50282
    assert agree_on_special_ids(model, tokenizer) == [
        "special ids of the model follow the tokenizer: cls 50281 → 2, sep 50282 → 3"
    ]
    assert (model.config.cls_token_id, model.config.sep_token_id) == (2, 3)
    model.save_pretrained(tmp_path / "saved")
    bare = PreTrainedTokenizerFast(tokenizer_object=gpt2_style().backend_tokenizer, pad_token="!")
    model.config.sep_token_id = 50
    agree_on_special_ids(model, bare)
    assert (model.config.sep_token_id, bare.sep_token_id) == (None, None), "an ordinary word of another vocabulary"


def test_a_role_the_tokenizer_lost_comes_back_from_the_configuration(tmp_path):
    model, _ = make("gpt2", tmp_path)
    bare = PreTrainedTokenizerFast(tokenizer_object=gpt2_style().backend_tokenizer)
    assert bare.eos_token_id is None
    agree_on_special_ids(model, bare)
    assert bare.eos_token == "<|endoftext|>" and model.config.eos_token_id == bare.eos_token_id == 0


def test_several_ends_of_text_stay_when_the_tokenizers_is_one_of_them(tmp_path):
    model, tokenizer = make("llama", tmp_path)
    model.generation_config.eos_token_id = [9, 0]
    assert agree_on_special_ids(model, tokenizer) == []
    assert model.generation_config.eos_token_id == [9, 0]


def test_a_pad_token_that_is_the_end_of_text_still_learns(tmp_path):
    """Llama freezes the embedding of its pad id; with pad = eos the end of text would never be learned."""
    tokenizer = gpt2_style()
    tokenizer.pad_token, tokenizer.bos_token = tokenizer.eos_token, None
    new = load_model(ModelOptions(model_type="llama", config_overrides=SMALL["llama"]), "clm", tokenizer).model
    save_model(new, tokenizer, tmp_path / "saved")
    reloaded = load_model(ModelOptions(model_name_or_path=str(tmp_path / "saved")), "clm", tokenizer).model
    for model in (new, reloaded):
        assert model.config.pad_token_id == model.config.eos_token_id == 0
        assert model.get_input_embeddings().weight[0].abs().sum() > 0
        ids = torch.tensor([[0, 5, 6]])
        model(input_ids=ids, labels=ids).loss.backward()
        assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_roberta_refuses_another_pad_id_because_its_positions_hang_on_it(tmp_path):
    model, tokenizer = make("roberta", tmp_path)
    tokenizer.pad_token = "<unk>"
    with pytest.raises(UserError, match=r"pad id is 3 and the model's 1; .*positions"):
        agree_on_special_ids(model, tokenizer)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"temperature": 0.7}, "do_sample switched on"),
        ({"do_sample": False, "top_p": 0.9, "top_k": 40}, "do_sample switched on"),
        ({"max_new_tokens": 0}, "are the defaults now"),
    ],
)
def test_generation_settings_that_would_fail_at_the_save_are_mended_at_the_start(tmp_path, broken, words):
    model, tokenizer = make("gpt2", tmp_path)
    for name, value in broken.items():
        setattr(model.generation_config, name, value)
    with pytest.raises(ValueError):
        model.save_pretrained(tmp_path / "stock")
    [line] = agree_on_special_ids(model, tokenizer)
    assert words in line
    model.save_pretrained(tmp_path / "saved")
    assert model.generation_config.eos_token_id == 0
