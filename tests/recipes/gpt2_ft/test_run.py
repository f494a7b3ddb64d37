"""The command around the training: its folder, its refusals, and what it goes on from."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from interrupting import logged_losses, signalled
from lmtrain.cli.arguments import parse
from lmtrain.cli.main import main
from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions
from lmtrain.core.console import silent
from lmtrain.core.errors import ExitCode
from lmtrain.core.runlog import read_events
from lmtrain.engine.checkpoints.read import newest
from lmtrain.models.adapters.loralib import LoralibFile, adapter_of, read_loralib
from lmtrain.models.adapters.merged_lora import adapted_attention
from lmtrain.recipes.gpt2_ft.model import new_model
from tiny import VOCABULARY, gpt2, llama

TIMED = re.compile(r"ms/batch +[\d.]+|time: +[\d.]+s")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return made_in(tmp_path)


def made_in(folder: Path) -> Path:
    """A model, pairs to train on and held-out ones."""
    gpt2(dropout=0.5).save_pretrained(folder / "gpt2")  # a dropout that this training does not have
    random = np.random.default_rng(0)
    for name, count in (("train", 13), ("valid", 7)):
        pairs = [
            {part: random.integers(1, VOCABULARY, random.integers(2, 9)).tolist() for part in ("context", "completion")}
            for _ in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def words(files: Path, *more: Any, work_dir: str = "run") -> list[str]:
    flags = {
        "train_data": files / "train.jsonl", "valid_data": files / "valid.jsonl", "model_card": files / "gpt2",
        "train_batch_size": 4, "grad_acc": 3, "lr": 0.01, "lora_dim": 2, "lora_alpha": 8, "lora_dropout": 0.1,
        "max_epoch": 4, "save_interval": 6, "eval_interval": 5, "log_interval": 4, "work_dir": files / work_dir,
    }  # fmt: skip
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)] + [str(word) for word in more]


WITHOUT_LORA = ("--lora_dim", 0, "--lora_alpha", 128, "--lora_dropout", 0)


def run(*given: str) -> int:
    return main(["gpt2-ft", *given])


# The parser's defaults in gpt2_ft.py, optimizer.py and gpu.py, but --work_dir, which is $PT_OUTPUT_DIR or gpt2_model.
ORIGINAL = {
    "train_data": None, "valid_data": None, "train_batch_size": 8, "valid_batch_size": 4, "grad_acc": 1, "clip": 0.0,
    "seq_len": 512, "model_card": "gpt2.md", "init_checkpoint": None, "fp16": False, "log_interval": 100,
    "eval_interval": 2000, "save_interval": 500, "work_dir": None, "lora_dim": 0, "lora_alpha": 128, "obj": "clm",
    "lora_dropout": 0.0, "label_smooth": 0.0, "roll_interval": -1, "roll_lr": 1e-5, "roll_step": 100, "eval_epoch": 1,
    "lr": 1e-5, "weight_decay": 0.01, "correct_bias": False, "adam_epislon": 1e-6, "no_decay_bias": False,
    "adam_beta1": 0.9, "adam_beta2": 0.98, "scheduler": "linear", "max_step": None, "max_epoch": None, "warmup_step": 0,
    "i_steps": "0", "i_lrs": "0.00025", "platform": "k8s", "local_rank": 0, "rank": 0, "device": 0, "world_size": 0,
    "random_seed": 10,
}  # fmt: skip


def test_the_readmes_command_line_is_understood() -> None:
    line = (
        "--train_data ./data/e2e/train.jsonl --valid_data ./data/e2e/valid.jsonl --train_batch_size 8 --grad_acc 1 "
        "--valid_batch_size 4 --seq_len 512 --model_card gpt2.md --init_checkpoint ./gpt2-medium-pytorch_model.bin "
        "--platform local --clip 0.0 --lr 0.0002 --weight_decay 0.01 --correct_bias --adam_beta2 0.999 "
        "--scheduler linear --warmup_step 500 --max_epoch 5 --save_interval 1000 --lora_dim 4 --lora_alpha 32 "
        "--lora_dropout 0.1 --label_smooth 0.1 --work_dir ./trained_models/GPT2_M/e2e --random_seed 110 --local_rank=0"
    )
    options = parse("gpt2-ft", line.split()).options
    assert vars(Gpt2FtOptions()) == ORIGINAL | {"precision": "fp32", "overwrite_work_dir": False}
    assert (options.lora_dim, options.correct_bias, options.adam_beta2, options.warmup_step) == (4, True, 0.999, 500)
    assert options.random_seed == 110


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(files: Path, capsys: Any) -> None:
    assert run(*words(files, work_dir="straight")) == ExitCode.OK
    straight = capsys.readouterr().out
    _stop_at_8(files)
    before = sorted(path.name for path in (files / "run").glob("checkpoint-*"))
    assert before == ["checkpoint-2"]
    capsys.readouterr()
    assert run(*words(files)) == ExitCode.OK
    told = capsys.readouterr()
    assert "goes on from update 2" in told.err
    ours, theirs = (torch.load(files / name / "model.16.pt")["model_state_dict"] for name in ("run", "straight"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    wanted = [line for line in _lines(straight) if int(re.findall(r"step +(\d+)", line)[0]) > 6]
    assert _lines(told.out) == wanted  # averages and the best perplexity of the epoch included
    assert len(wanted) == 5


def _stop_at_8(files: Path) -> None:
    """A folder lies where the checkpoint of micro-batch 8 would be written: the run fails there."""
    blocked = files / "run" / ".model.8.pt.unfinished"
    blocked.mkdir(parents=True)
    assert run(*words(files)) == ExitCode.OUR_FAULT
    blocked.rmdir()


def _lines(text: str) -> list[str]:
    return [TIMED.sub("", line) for line in text.splitlines() if line.startswith(("| epoch", "| Eval"))]


LONG = ("--max_epoch", 30, "--save_interval", 1000)  # so it stops at a checkpoint of its own


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, torch.Tensor]]:
    """What a long run that nobody stops says, and what its last checkpoint holds."""
    files, told = made_in(tmp_path_factory.mktemp("straight")), io.StringIO()
    with redirect_stdout(told):
        assert run(*words(files, *LONG)) == ExitCode.OK
    return _lines(told.getvalue()), torch.load(files / "run" / "model.120.pt")["model_state_dict"]


@pytest.mark.parametrize(("lines", "more"), [(1, []), (6, ["--overwrite_work_dir"]), (13, [])])
def test_a_signal_saves_it_and_the_same_command_goes_on(
    lines: int, more: list[str], straight: tuple[list[str], dict[str, torch.Tensor]], files: Path, capsys: Any
) -> None:
    given = [*LONG, *more]
    with signalled(logged_losses(files / "run", lines)):
        assert run(*words(files, *given)) == ExitCode.INTERRUPTED
    told = capsys.readouterr()
    assert "the same command goes on" in told.err and "End of training" not in told.out
    found = newest(files / "run")
    assert found.checkpoint is not None and 0 < found.step < 40 and f"saved at update {found.step}" in told.err
    about = json.loads((files / "run" / "status.json").read_text())
    assert (about["state"], about["step"]) == ("interrupted", 3 * found.step), "in micro-batches, as the log counts"
    assert run(*words(files, *given)) == ExitCode.OK
    again = capsys.readouterr()
    assert f"goes on from update {found.step}" in again.err
    assert ("--overwrite_work_dir: this command began the run that lies there" in again.err) == bool(more)
    assert "--overwrite_output_dir" not in again.err
    assert _lines(told.out) + _lines(again.out) == straight[0], "each line once, with the same figures"
    ours = torch.load(files / "run" / "model.120.pt")["model_state_dict"]
    assert all(torch.equal(ours[name], value) for name, value in straight[1].items())


def test_a_finished_run_is_left_as_it_is(files: Path, capsys: Any) -> None:
    assert run(*words(files)) == ExitCode.OK
    out = capsys.readouterr().out
    assert "End of training" in out and out.count("saving checkpoint") == 5  # 4, 6, 8, 12, 16
    results = json.loads((files / "run" / "eval_results.json").read_text())
    assert results["step"] == 15
    evaluations = [event for event in read_events(files / "run" / "metrics.jsonl") if event["event"] == "evaluation"]
    assert results["eval_loss"] == pytest.approx(evaluations[-1]["eval_loss"])
    times = {path: path.stat().st_mtime_ns for path in (files / "run").iterdir()}
    assert run(*words(files)) == ExitCode.OK
    told = capsys.readouterr()
    assert "ended at micro-batch 16" in told.err and "epoch" not in told.out
    assert {path: path.stat().st_mtime_ns for path in (files / "run").iterdir()} == times


def test_the_folder_holds_the_model_of_the_last_checkpoint(files: Path) -> None:
    assert run(*words(files)) == ExitCode.OK
    base = gpt2()
    whole = read_loralib(files / "run" / "model.16.pt", "--x")
    ids = torch.tensor([[7, 8, 9, 20]])
    adapter = adapter_of(LoralibFile(whole.pairs), base, 8, "--x")
    expected = adapter(ids).logits
    exported = GPT2LMHeadModel.from_pretrained(files / "run").eval()
    torch.testing.assert_close(exported(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert (expected - gpt2().eval()(ids).logits).abs().max() > 0.1


def test_all_layers_begin_with_the_same_draw(files: Path) -> None:
    options = parse("gpt2-ft", words(files)).options
    first, second = (layer.lora_A["default"].weight for layer in adapted_attention(new_model(options, silent).model))
    assert torch.equal(first, second) and first.std() > 0.01


def test_another_run_is_not_written_over(files: Path, capsys: Any) -> None:
    assert run(*words(files)) == ExitCode.OK
    capsys.readouterr()
    assert run(*words(files, "--lr", 0.5)) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert "--lr was 0.01 and is now 0.5" in said and "--overwrite_work_dir" in said and "output_dir" not in said
    assert (
        run(*words(files, "--log_interval", 1, "--save_interval", 3, "--platform", "local")) == ExitCode.OK
    )  # the same
    assert run(*words(files, "--lr", 0.5, "--max_epoch", 1, "--overwrite_work_dir")) == ExitCode.OK
    assert {path.name for path in (files / "run").glob("model.*.pt")} == {"model.4.pt"}


def test_checkpoints_of_the_original_are_not_written_over(files: Path, capsys: Any) -> None:
    (files / "run").mkdir()
    (files / "run" / "model.500.pt").write_bytes(b"precious")
    assert run(*words(files)) == ExitCode.WRONG_INPUT
    assert "model.500.pt" in capsys.readouterr().err
    assert (files / "run" / "model.500.pt").read_bytes() == b"precious"


def test_other_data_is_not_gone_on_with(files: Path, capsys: Any) -> None:
    _stop_at_8(files)
    with (files / "train.jsonl").open("a") as stream:
        stream.write(json.dumps({"context": [5], "completion": [6]}) + "\n")
    assert run(*words(files)) == ExitCode.WRONG_INPUT
    assert "train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "flag", "text"),
    [
        ('{"context": "name : Aroma", "completion": "Aroma is a café."}', "--train_data", "does not hold token ids"),
        ('{"context": [], "completion": [5]}', "--train_data", "pair 1 of"),
        (
            '{"context": [5], "completion": [6]}\n{"context": [5], "completion": []}',
            "train.jsonl:2: the completion is empty",
            "(--on_bad_record is an option of lmtrain sft, which trains on the same pairs)",
        ),
        ('{"context": [5], "completion": [4096]}', None, "4096"),
        (f'{{"context": {[5] * 40}, "completion": [5]}}', "--seq_len", "40 positions"),
    ],
)
def test_pairs_that_cannot_be_trained_on(files: Path, line: str, flag: str | None, text: str, capsys: Any) -> None:
    (files / "train.jsonl").write_text(line + "\n")
    assert run(*words(files)) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert text in said and (flag is None or flag in said)
    assert not (files / "run").exists()


def test_all_that_is_missing_is_said_at_once(capsys: Any) -> None:
    assert run("--fp16", "--precision", "bf16") == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert all(flag in said for flag in ("--train_data", "--valid_data", "--max_epoch", "--fp16"))
    base = ["--train_data", "a", "--valid_data", "b", "--scheduler", "cycle"]
    for corners, text in (
        (["--i_steps", "0,x"], "whole numbers"),
        (["--i_steps", "0,9"], "2 corners and --i_lrs 1"),
        (["--i_steps", "0,9,5", "--i_lrs", "1,1,1"], "does not rise"),
    ):
        assert run(*base, *corners) == ExitCode.WRONG_INPUT
        assert text in capsys.readouterr().err


def test_files_model_and_format_are_refused_together(files: Path, capsys: Any) -> None:
    """Before a model is made, which takes its time, and not one after the other."""
    wrong = ["--train_data", files / "none.jsonl", "--init_checkpoint", files / "none.pt"]
    (files / "valid.jsonl").write_text('{"context": "text", "completion": "text"}\n')
    assert run(*words(files, *wrong, "--fp16")) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    flags = ["--train_data", "--valid_data", "--init_checkpoint", *([] if torch.cuda.is_available() else ["--fp16"])]
    assert f"{len(flags)} things" in said and all(flag in said for flag in flags)


def test_options_of_lora_without_a_rank_are_refused(files: Path, capsys: Any) -> None:
    assert run(*words(files, "--lora_dim", 0)) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert "2 things" in said and "--lora_alpha" in said and "--lora_dropout" in said and "--lora_dim 4" in said
    assert not (files / "run").exists()


def test_nothing_is_dropped_but_in_lora(files: Path, capsys: Any) -> None:
    gpt2(dropout=0.0).save_pretrained(files / "without")
    lines = []
    for card in ("gpt2", "without"):
        assert (
            run(*words(files, "--model_card", files / card, "--log_interval", 1, work_dir=f"of-{card}")) == ExitCode.OK
        )
        lines.append(_lines(capsys.readouterr().out))
    assert len(lines[0]) > 16 and lines[0] == lines[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_is_refused_on_a_cpu(files: Path, capsys: Any) -> None:
    assert run(*words(files, "--fp16")) == ExitCode.WRONG_INPUT
    assert re.search(r"--fp16 +fp16 is not trained on a CPU.* --precision bf16", capsys.readouterr().err)


def test_corners_take_the_place_of_a_longest_run(files: Path, capsys: Any) -> None:
    given = ["--scheduler", "cycle", "--i_steps", "0,3", "--i_lrs", "0.1,0.2", "--max_step", 9]
    assert run(*words(files, *given)) == ExitCode.OK
    told = capsys.readouterr()
    assert "3 micro-batches" in told.err and "the last of --i_steps takes the place of --max_step" in told.err
    assert "model.3.pt" in told.out


def test_options_without_effect_are_accepted_with_a_line(files: Path, capsys: Any) -> None:
    given = ["--platform", "local", "--roll_interval", 5, "--eval_epoch", 3, "--scheduler", "dev_perf"]
    assert run(*words(files, *given, "--max_epoch", 1)) == ExitCode.OK
    said = capsys.readouterr().err
    assert "--platform: without effect" in said
    assert "--roll_interval, --eval_epoch: without effect, the original reads it and never uses it" in said
    assert "dev_perf" in said


# ---- what it begins with ---------------------------------------------------------------------------


def test_it_goes_on_from_its_own_checkpoints(files: Path, capsys: Any) -> None:
    assert run(*words(files, "--grad_acc", 1)) == ExitCode.OK
    whole, lora = (files / "run" / f"model.{number}.pt" for number in (16, 6))
    assert run(*words(files, "--init_checkpoint", whole, "--lr", 0, "--max_epoch", 1, work_dir="next")) == ExitCode.OK
    before, after = (torch.load(path)["model_state_dict"] for path in (whole, files / "next" / "model.4.pt"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    given = ["--init_checkpoint", lora, "--lr", 0, "--max_epoch", 1]  # on the folder's weights: they are the same
    assert run(*words(files, *given, work_dir="third")) == ExitCode.OK
    before, after = (torch.load(path)["model_state_dict"] for path in (lora, files / "third" / "model.4.pt"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    capsys.readouterr()
    for given, text in (
        (["--init_checkpoint", lora, "--model_card", "gpt2.sm"], "holds the LoRA tensors alone"),
        (["--init_checkpoint", whole, "--lora_dim", 3], "use --lora_dim 2"),
        (["--init_checkpoint", whole, *WITHOUT_LORA], "add --lora_dim 2"),
        (["--model_card", "gpt2.xl"], "neither one of gpt2.sm, gpt2.md, gpt2.lg nor the folder"),
    ):
        assert run(*words(files, *given, work_dir="other")) == ExitCode.WRONG_INPUT
        assert text in capsys.readouterr().err


def test_only_gpt2_has_these_parts(files: Path, capsys: Any) -> None:
    llama().save_pretrained(files / "llama")
    assert run(*words(files, "--model_card", files / "llama")) == ExitCode.WRONG_INPUT
    assert "is a llama" in capsys.readouterr().err
    (files / "llama" / "config.json").write_text('{"model_type": ')
    for name, text in (("llama", "cannot be read"), (".", "names no model_type")):
        assert run(*words(files, "--model_card", files / name)) == ExitCode.WRONG_INPUT
        assert "--model_card" in (said := capsys.readouterr().err) and text in said


def test_without_lora_every_checkpoint_holds_everything(files: Path) -> None:
    assert run(*words(files, *WITHOUT_LORA, "--max_epoch", 2)) == ExitCode.OK
    first, last = (torch.load(files / "run" / f"model.{n}.pt")["model_state_dict"] for n in (6, 8))
    assert first.keys() == last.keys() and not any("lora_" in name for name in first)
    assert not torch.equal(*(tensors["module.transformer.wte.weight"] for tensors in (first, gpt2_tensors(files))))


def gpt2_tensors(files: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    stored = load_file(files / "gpt2" / "model.safetensors")
    return {f"module.{name}": value for name, value in stored.items()}


def test_pairs_whose_context_fills_everything_are_told(files: Path, capsys: Any) -> None:
    assert run(*words(files, "--seq_len", 6, "--max_epoch", 1)) == ExitCode.OK
    assert "its order of the examples is another" in capsys.readouterr().err


def test_frozen_weights_are_saved_as_they_were_whatever_the_precision(files: Path) -> None:
    assert run(*words(files, "--precision", "bf16", "--max_epoch", 1)) == ExitCode.OK
    tensors = torch.load(files / "run" / "model.4.pt")["model_state_dict"]
    before = gpt2_tensors(files)
    assert all(torch.equal(tensors[name], value) for name, value in before.items())
    assert tensors["module.transformer.h.0.attn.c_attn.lora_B"].dtype == torch.float32
    assert tensors["module.transformer.h.0.attn.c_attn.lora_B"].any()
