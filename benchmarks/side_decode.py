"""The sides of the decoding benchmark, each a process of its own: all give seconds, peak memory and predictions.

python benchmarks/side_decode.py OUT lmtrain|original|generate MODEL INPUTS

INPUTS is the JSON of ``{"contexts": [[ids]], "settings": {...}}`` with a context for every line of the test set.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lmtrain.cli.startup import heavy_imports

with heavy_imports() if sys.argv[2:3] == ["lmtrain"] else nullcontext():  # ours as in a command
    import torch
    from clock import peak_bytes, write
    from transformers import AutoModelForCausalLM, DynamicCache


def lmtrain(model: Any, contexts: list[list[int]], settings: dict[str, Any]) -> list[list[int]]:
    from lmtrain.generate import beam_search

    return beam_search(model, contexts, **settings)


def original(model: Any, contexts: list[list[int]], settings: dict[str, Any]) -> list[list[int]]:
    """As ``gpt2_beam.py`` of microsoft/LoRA goes about it: every line by itself, its context once a beam, the softmax
    of all, the whole cache anew at each step, and always to the last step. Unlike there nothing is padded to 512."""
    return [_one(model, context, **settings) for context in contexts]


def _one(
    model: Any,
    context: list[int],
    num_beams: int,
    length_penalty: float,
    no_repeat_ngram_size: int,
    max_new_tokens: int,
    stop_ids: list[int],
    eos_token_id: int,
) -> list[int]:
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([context] * num_beams)
    scores = torch.zeros(num_beams)
    written = torch.zeros(num_beams, 0, dtype=torch.int64)
    best_score, best = -float("inf"), []
    for length in range(1, max_new_tokens + 1):
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
        for row, tokens in enumerate(written.tolist()):
            logits[row, _forbidden(tokens, no_repeat_ngram_size)] = -float("inf")
        totals = scores[:, None] + torch.log(torch.softmax(logits, dim=-1))
        if length == 1:  # all beams are the same one
            totals = totals[:1]
        scores, places = totals.flatten().topk(num_beams)
        parents, ids = places // logits.shape[1], (places % logits.shape[1])[:, None]
        cache.reorder_cache(parents)
        written = torch.cat([written[parents], ids], dim=1)
        for row, token in enumerate(ids[:, 0].tolist()):
            if token in (*stop_ids, eos_token_id) or length == max_new_tokens:
                score = float(scores[row] / length**length_penalty)
                if score > best_score:
                    best_score, best = score, written[row].tolist()
                scores[row] = -float("inf")
    return best


def _forbidden(tokens: list[int], n: int) -> list[int]:
    last = tokens[len(tokens) - n + 1 :]
    return [tokens[i + n - 1] for i in range(len(tokens) - n + 1) if tokens[i : i + n - 1] == last]


def generate(model: Any, contexts: list[list[int]], settings: dict[str, Any]) -> list[list[int]]:
    """The library's own beam search, one distinct input after the other. Its rules differ: see ``beam_search``."""
    stops, end = settings["stop_ids"], settings["eos_token_id"]
    same = {k: v for k, v in settings.items() if k not in ("stop_ids", "eos_token_id")}
    found: dict[tuple[int, ...], list[int]] = {}
    for context in dict.fromkeys(map(tuple, contexts)):
        ids = torch.tensor([context])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=[*stops, end], pad_token_id=end,
            **same,
        )  # fmt: skip
        found[context] = output[0, len(context) :].tolist()
    return [found[tuple(context)] for context in contexts]


SIDES = {"lmtrain": lmtrain, "original": original, "generate": generate}

if __name__ == "__main__":
    out, side, folder, inputs = sys.argv[1:]
    work = json.loads(Path(inputs).read_text())
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        begin = time.perf_counter()
        predictions = SIDES[side](loaded, work["contexts"], work["settings"])
        seconds = time.perf_counter() - begin
    write(Path(out), {"seconds": seconds, "peak_bytes": peak_bytes(), "predictions": predictions})
