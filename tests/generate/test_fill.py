"""Fillings of masks: ranked, with probabilities, each on its own, and independent of the batch."""

import pytest
import torch

from lmtrain.core.errors import UserError
from lmtrain.generate import fill_mask
from tiny_models import make


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def pair(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp("t"))


def texts(tokenizer):
    mask = tokenizer.mask_token
    return [f"The {mask} fox jumps", f"{mask} sells {mask} shells by the sea shore; the shells", f"a {mask}"]


def test_probabilities_are_those_of_the_model_alone_and_ranked(pair):
    model, tokenizer = pair
    results = fill_mask(model, tokenizer, texts(tokenizer), top=4)
    for text, result in zip(texts(tokenizer), results, strict=True):
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            probabilities = model(input_ids=ids).logits[0].softmax(-1)
        places = (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
        assert len(result.masks) == len(places) == text.count(tokenizer.mask_token)
        for place, candidates in zip(places, result.masks, strict=True):
            best = probabilities[place].topk(4)
            assert [c.id for c in candidates] == best.indices.tolist()
            torch.testing.assert_close(torch.tensor([c.probability for c in candidates]), best.values)
            assert candidates[0].token == tokenizer.decode([candidates[0].id]).strip()
        filled = ids[0].clone()
        filled[places] = torch.tensor([candidates[0].id for candidates in result.masks])
        assert result.filled == tokenizer.decode(filled, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_does_not_matter(pair, batch_size):
    model, tokenizer = pair
    whole = fill_mask(model, tokenizer, texts(tokenizer), top=3)
    parts = fill_mask(model, tokenizer, texts(tokenizer), top=3, batch_size=batch_size)
    for one, other in zip(whole, parts, strict=True):
        assert one.text == other.text and one.filled == other.filled
        for a, b in zip(one.masks, other.masks, strict=True):
            assert [c.id for c in a] == [c.id for c in b]
            assert [c.probability for c in a] == pytest.approx([c.probability for c in b], rel=1e-5)


def test_all_probabilities_add_up_and_top_may_exceed_the_vocabulary(pair):
    model, tokenizer = pair
    [result] = fill_mask(model, tokenizer, texts(tokenizer)[:1], top=10_000)
    assert len(result.masks[0]) == model.config.vocab_size
    assert sum(c.probability for c in result.masks[0]) == pytest.approx(1, abs=1e-5)


def test_nothing_of_nothing_is_refused(pair):
    for name in ("top", "batch_size"):
        with pytest.raises(UserError, match=f"--{name}: 0 is less than 1"):
            fill_mask(*pair, texts(pair[1]), **{name: 0})


def test_every_text_that_cannot_be_filled_is_named_at_once(pair):
    model, tokenizer = pair
    long = f"{tokenizer.mask_token} " + "fox and dog " * 30
    with pytest.raises(UserError) as caught:
        fill_mask(model, tokenizer, ["no mask here", long, texts(tokenizer)[0]], context=48)
    first, second = caught.value.problems
    assert f"nothing to fill in 'no mask here': write {tokenizer.mask_token}" in first.text
    assert "and the model 48 positions" in second.text
