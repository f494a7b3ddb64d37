"""Beam search for the E2E test set: against the way of microsoft/LoRA's script, and against ``generate`` one by one.

    python benchmarks/decode.py [--inputs 12] [--steps 200] [--repeats 3] [--json OUT]

GPT-2 type, 4 layers × 256, 50,257 tokens, taught for some minutes on E2E's validation pairs, so that it writes texts
that end; fp32. The settings are those of the published results: 10 beams, length penalty 0.8, no 4-gram twice, at
most 64 tokens. The test set repeats each input for each of its references, 7.4 times; so do ``--inputs`` of them here,
spread over the file. The original decodes every line; ``generate`` is given distinct inputs only. Fresh processes,
alternating; the time is that of decoding. Our predictions must be the original's, token for token.

Needs ../shared/data (e2e and GPT-2's tokenizer).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import HERE, SHARED, Row, alternate, finish, median, parser, tokenizer_folder

GOAL_ORIGINAL, GOAL_GENERATE = 6.0, 2.0
END, DOUBLE_NEWLINE = 50256, 628
SETTINGS = {
    "num_beams": 10, "length_penalty": 0.8, "no_repeat_ngram_size": 4, "max_new_tokens": 64,
    "stop_ids": [DOUBLE_NEWLINE], "eos_token_id": END,
}  # fmt: skip
SHAPE = {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 512}
BATCH, LEARNING_RATE = 16, 1e-3


def main() -> int:
    words = parser(__doc__)
    words.add_argument("--inputs", type=int, default=12, help="distinct inputs of the test set")
    words.add_argument("--steps", type=int, default=200, help="steps that the model is taught for")
    args = words.parse_args()
    if not (SHARED / "e2e").is_dir():
        raise SystemExit(f"{SHARED / 'e2e'} is not there; this benchmark decodes its test set")
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        tokenizer = tokenizer_folder(None, work, work / "tokenizer")
        teach(encoded("valid", tokenizer), args.steps, work / "model")
        pairs = encoded("test", tokenizer)
        distinct = list(dict.fromkeys(tuple(context) for context, _ in pairs))
        chosen = set(distinct[:: max(1, len(distinct) // args.inputs)][: args.inputs])
        contexts = [context for context, _ in pairs if tuple(context) in chosen]
        (work / "inputs.json").write_text(json.dumps({"contexts": contexts, "settings": SETTINGS}))
        script = HERE.parent / "side_decode.py"
        sides = {
            side: [sys.executable, script, "OUT", side, work / "model", work / "inputs.json"]
            for side in ("lmtrain", "original", "generate")
        }
        figures = alternate(sides, args.repeats, work)
    rows = rows_of(figures, len(contexts), len(chosen))
    for runs in figures.values():
        for run in runs:
            run["lengths"] = [len(prediction) for prediction in run.pop("predictions")]
    return finish("decode", rows, {"figures": figures}, args.json)


def encoded(split: str, tokenizer: Path) -> list[tuple[list[int], list[int]]]:
    """E2E's pairs as the original encodes them: an end of text behind the context, and behind the completion."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tokenizer)
    lines = (SHARED / "e2e" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("||", 1) for line in lines if "||" in line]
    return [([*ids(a)["input_ids"], END], [*ids(f" {b.strip()}")["input_ids"], END]) for a, b in pairs]


def teach(pairs: list[tuple[list[int], list[int]]], steps: int, folder: Path) -> None:
    """A model that knows what such texts look like, by a plain loop: what it is worth does not matter here."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SHAPE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    order = torch.randperm(len(pairs)).repeat(1 + steps * BATCH // len(pairs))
    for step in range(steps):
        batch = [pairs[i] for i in order[step * BATCH : (step + 1) * BATCH].tolist()]
        width = max(len(context) + len(completion) for context, completion in batch)
        ids, learned = torch.full((BATCH, width), END), torch.zeros(BATCH, width, dtype=torch.bool)
        for row, (context, completion) in enumerate(batch):
            whole = torch.tensor(context + completion)
            ids[row, : len(whole)] = whole
            learned[row, len(context) : len(whole)] = True
        hidden = model.transformer(input_ids=ids).last_hidden_state[:, :-1][learned[:, 1:]]
        torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][learned[:, 1:]]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def rows_of(figures: dict[str, list[dict[str, Any]]], lines: int, distinct: int) -> list[Row]:
    seconds = {side: median(runs, "seconds") for side, runs in figures.items()}
    megabytes = {side: median(runs, "peak_bytes") / 1e6 for side, runs in figures.items()}
    shown = {side: f"{seconds[side]:.1f} s, {megabytes[side]:,.0f} MB" for side in figures}
    mine, theirs = figures["lmtrain"][0]["predictions"], figures["original"][0]["predictions"]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    repeats = sum(run["predictions"] == mine for run in figures["lmtrain"])
    original, generate = (seconds[side] / seconds["lmtrain"] for side in ("original", "generate"))
    return [
        Row(f"beam search, {lines} lines of {distinct} inputs, against each line by itself as microsoft/LoRA decodes",
            shown["lmtrain"], shown["original"], f"{original:.1f}×", f"≥ {GOAL_ORIGINAL:.0f}×",
            original >= GOAL_ORIGINAL),
        Row(f"beam search, {distinct} inputs, against `generate` one by one",
            shown["lmtrain"], shown["generate"], f"{generate:.1f}×", f"≥ {GOAL_GENERATE:.0f}×",
            generate >= GOAL_GENERATE),
        Row("beam search: predictions that are the original's, token for token", f"{same}", f"{lines}",
            f"{same / lines:.0%}", "100%", same == lines and repeats == len(figures["lmtrain"])),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
