"""nanoGPT's character model for a CPU, from the command to the last evaluation: seconds, and what loss they buy.

    python benchmarks/characters.py [--repeats 1] [--json OUT]

The peer is a plain PyTorch loop of that shape at nanoGPT's settings (side_loop.py, where they stand). Ours is ``lmtrain
clm`` with AdamW at six times its rate and half the steps, and twice with Muon: steps enough for the peer's loss, and as
many as fit into its time. Beside them, without a goal, the loop at our AdamW's rate and number of steps. All are whole
processes, alternating, imports and evaluations included, on tiny Shakespeare from ``../shared/data`` (which must be
there), its last 10 % held out; the loss is the mean over all held-out blocks of 64 characters, measured after the time
has stopped. Nobody's first process counts: it compiles its modules to byte code.
Our vocabulary has one more entry than the 65 characters: a causal run wants an end-of-text token.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import side_loop as loop_of
from prepare import environment
from side_by_side import HERE, SHARED, Row, finish, median, parser
from side_loop import BATCH, BLOCK

TEXT = SHARED / "tinyshakespeare" / "input.txt"
ADAM_STEPS, ADAM_RATE = 1000, 6e-3  # the README's 1e-3 is not the best rate for this model: found by trying
SHORT_STEPS, LONG_STEPS = 400, 1400  # of Muon: enough to come as far as the peer, and what its time allows
MUON_RATE, MUON_WARMUP, MUON_ARGUMENTS = 0.03, 10, "adam_ratio=0.5,momentum=0.9"  # runs as short as these want haste
ADAM = f"AdamW at {ADAM_RATE:g}, {ADAM_STEPS:,} steps"
FEWER, LONGER = f"Muon, {SHORT_STEPS:,} steps", f"Muon, {LONG_STEPS:,} steps"
LOOP, TUNED = "a plain PyTorch loop", f"the loop at {ADAM_RATE:g}, {ADAM_STEPS:,} steps"
LOOPS: dict[str, tuple[float, int] | tuple[()]] = {LOOP: (), TUNED: (ADAM_RATE, ADAM_STEPS)}


@dataclass(frozen=True)
class Goal:
    """At most this share of the peer's time, and a loss no higher than the peer's, or than ``loss``."""

    time: float
    loss: float | None = None


GOALS = {ADAM: Goal(0.6), FEWER: Goal(0.35), LONGER: Goal(1.0, 1.63)}


def main() -> int:
    options = parser(__doc__)
    options.set_defaults(repeats=1)
    args = options.parse_args()
    if not TEXT.is_file():
        raise SystemExit(f"{TEXT} is not there")
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        write_inputs(work)
        for words in (["-c", "import torch"], ["-m", "lmtrain", "clm", *training(ADAM, work), "--max_steps", "1"]):
            timed(words, work)
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in (*LOOPS, *GOALS)}
        for _ in range(args.repeats):
            for name, runs in figures.items():
                runs.append(loop(name, work) if name in LOOPS else ours(name, work))
                print(f"{name:<28}", runs[-1], file=sys.stderr)
    return finish("characters", rows_of(figures), {"figures": figures}, args.json)


def write_inputs(work: Path) -> None:
    """The two parts of the text, and a tokenizer of single characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    text = TEXT.read_text(encoding="utf-8")
    held_out = int(0.9 * len(text))
    (work / "train.txt").write_text(text[:held_out], encoding="utf-8")
    (work / "held_out.txt").write_text(text[held_out:], encoding="utf-8")
    vocabulary = [*sorted(set(text)), "<|endoftext|>"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    folder = work / "tokenizer"
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def loop(name: str, work: Path) -> dict[str, float]:
    out = work / "loop.json"
    command = [sys.executable, str(HERE.parent / "side_loop.py"), str(out), str(TEXT), *map(str, LOOPS[name])]
    whole = timed(command, work)
    figures = json.loads(out.read_text())
    return {"seconds": whole - figures["scoring_seconds"], **figures}


def ours(name: str, work: Path) -> dict[str, float]:
    shutil.rmtree(work / "cache", ignore_errors=True)  # the text is tokenized anew, as the loop does
    seconds = timed(["-m", "lmtrain", "clm", *training(name, work)], work)
    scores = subprocess.run(
        [sys.executable, "-m", "lmtrain", "evaluate", "--model_name_or_path", str(work / "run"), "--validation_file",
         str(work / "held_out.txt"), "--block_size", str(BLOCK), "--no_append_eos", "--json"],
        env=environment(work), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return {"seconds": seconds, "loss": json.loads(scores)["validation"]["eval_loss"]}


def training(name: str, work: Path) -> list[str]:
    steps = {ADAM: ADAM_STEPS, FEWER: SHORT_STEPS, LONGER: LONG_STEPS}[name]
    if name == ADAM:
        optimizer = ["--learning_rate", ADAM_RATE, "--adam_beta2", loop_of.BETAS[1], "--warmup_steps", loop_of.WARMUP]
    else:
        optimizer = ["--optim", "muon", "--optim_args", MUON_ARGUMENTS,
                     "--learning_rate", MUON_RATE, "--warmup_steps", MUON_WARMUP]  # fmt: skip
    words: list[Any] = [
        *("--model_type", "gpt2", "--tokenizer_name", work / "tokenizer"),
        *("--config_overrides", f"n_layer={loop_of.LAYERS},n_head={loop_of.HEADS},n_embd={loop_of.WIDTH},"
                                f"n_positions={BLOCK},resid_pdrop=0.0,embd_pdrop=0.0,attn_pdrop=0.0"),
        *("--train_file", work / "train.txt", "--validation_file", work / "held_out.txt", "--no_append_eos"),
        *("--block_size", BLOCK, "--per_device_train_batch_size", BATCH, "--per_device_eval_batch_size", BATCH),
        *("--max_steps", steps),
        *("--lr_scheduler_type", "cosine_with_min_lr"),
        *("--lr_scheduler_kwargs", json.dumps({"min_lr_rate": loop_of.LOWEST / loop_of.HIGHEST}), *optimizer),
        *("--weight_decay", loop_of.DECAY, "--max_grad_norm", loop_of.CLIP, "--precision", "fp32"),
        *("--save_strategy", "no"),
        # The loop evaluates 20 batches of each part; here both twenties are held-out text.
        *("--eval_strategy", "steps", "--eval_steps", loop_of.EVALUATE_EVERY),
        *("--max_eval_samples", 2 * loop_of.EVALUATION_BATCHES * BATCH),
        *("--output_dir", work / "run", "--overwrite_output_dir", "--data_cache_dir", work / "cache"),
    ]  # fmt: skip
    return [str(word) for word in words]


def timed(command: list[str], work: Path) -> float:
    words = command if command[0] == sys.executable else [sys.executable, *command]
    began = time.perf_counter()
    done = subprocess.run(words, env=environment(work), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-4000:]}")
    return time.perf_counter() - began


def rows_of(figures: dict[str, list[dict[str, float]]]) -> list[Row]:
    seconds, loss = ({name: median(runs, key) for name, runs in figures.items()} for key in ("seconds", "loss"))
    shown = {name: f"{seconds[name]:.0f} s, loss {loss[name]:.3f}" for name in figures}
    rows = []
    for name, goal in GOALS.items():
        share = seconds[name] / seconds[LOOP]
        most = loss[LOOP] if goal.loss is None else goal.loss
        rows.append(
            Row(f"character model, {name}, against {LOOP}", shown[name], shown[LOOP], f"{share:.2f}",
                f"≤ {goal.time}, loss ≤ {most:.3f}", share <= goal.time and loss[name] <= most)
        )  # fmt: skip
    claim, share = f"character model, {FEWER}, beside {TUNED}", seconds[FEWER] / seconds[TUNED]
    return [*rows, Row(claim, shown[FEWER], shown[TUNED], f"{share:.2f}", "", True)]


if __name__ == "__main__":
    sys.exit(main())
