"""Wrong input: one clear line each, exit code 2, nothing written over, nothing left half-made."""

from __future__ import annotations

import gzip
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from world import World

from forked import Forked
from interrupting import logged_losses
from lmtrain.cli.main import main
from lmtrain.core.console import counted


class Case(NamedTuple):
    name: str
    command: str  # with {gpt2}, {bert}, {text}, {tmp}
    says: tuple[str, ...]  # all of these stand in the answer
    setup: Callable[[Path], None] = lambda tmp: None
    things: int = 1  # to change


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda tmp: (tmp / name).write_bytes(data) and None


def only_a_vocabulary(tmp: Path) -> None:
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
                 "pre_tokenizer": {"type": "Whitespace"}}  # fmt: skip
    (tmp / "plain").mkdir()
    (tmp / "plain" / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp / "plain" / "tokenizer_config.json").write_text(json.dumps(config))


def big_tokenizer(tmp: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    from tiny_models import byte_level

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["<|endoftext|>"]), eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    tokenizer.add_tokens([f"<new{i}>" for i in range(100)])
    tokenizer.save_pretrained(tmp / "big")


def another_run(tmp: Path) -> None:
    (tmp / "out").mkdir()
    (tmp / "out" / "run.json").write_text(json.dumps({"command": "clm", "options": {"learning_rate": 0.5}}))


def somebodys_model(tmp: Path) -> None:
    (tmp / "out").mkdir()
    (tmp / "out" / "model.safetensors").write_text("precious")


CLM = "clm --model_name_or_path {gpt2} --output_dir {tmp}/out --max_steps 1 "
NEW = "clm --model_type gpt2 --tokenizer_name {gpt2} --train_file {text} --output_dir {tmp}/out --max_steps 1 "
MLM = "mlm --model_name_or_path {bert} --output_dir {tmp}/out --max_steps 1 "
CASES = [
    Case("no such file", CLM + "--train_file {tmp}/nothing.txt", ("--train_file", "no such file", "nothing.txt")),
    Case("empty file", CLM + "--train_file {tmp}/a.txt", ("--train_file", "a.txt", "empty"), write("a.txt", "")),
    Case("white space only", CLM + "--train_file {tmp}/a.txt", ("--train_file", "a.txt"), write("a.txt", " \n\n \t")),
    Case("folder without files", CLM + "--train_file {tmp}/d", ("--train_file", "without a readable file"), lambda t: (t / "d").mkdir()),
    Case("not UTF-8", CLM + "--train_file {tmp}/a.txt",
         ("a.txt:2", "0xe9 at offset 7", "--encoding", "--encoding_errors replace"), write("a.txt", b"good\nna\xe9f\n")),
    Case("unknown encoding", CLM + "--train_file {text} --encoding utf-9", ("--encoding", "utf-9")),
    Case("broken JSON line", CLM + "--train_file {tmp}/a.jsonl", ("a.jsonl:2", "--on_bad_record skip"),
         write("a.jsonl", '{"text": "a b c"}\n{"text": "a\n{"text": "d"}\n')),
    Case("JSON without the column", CLM + "--train_file {tmp}/a.jsonl --text_column body", ("body", "title", "words"),
         write("a.jsonl", '{"title": "x", "words": "y"}\n')),
    Case("documents that cannot be kept apart",
         "clm --model_type bloom --config_overrides hidden_size=32,n_layer=1,n_head=2 --tokenizer_name {gpt2} "
         "--train_file {text} --output_dir {tmp}/out --max_steps 1 --block_size 32 --isolate_documents",
         ("--isolate_documents", "keep documents apart")),
    Case("a column of plain text", CLM + "--train_file {text} --text_column body", ("--text_column", "plain text")),
    Case("several columns, none called text", CLM + "--train_file {tmp}/a.csv", ("--text_column", "repo_name", "content"),
         write("a.csv", "repo_name,content\nx,y\n")),
    Case("column of numbers", CLM + "--train_file {tmp}/a.jsonl", ("text", "number"), write("a.jsonl", '{"text": 3}\n')),
    Case("column of lists", CLM + "--train_file {tmp}/a.jsonl", ("text", "list"), write("a.jsonl", '{"text": ["a"]}\n')),
    Case("ragged CSV", CLM + "--train_file {tmp}/a.csv", ("a.csv:3",), write("a.csv", "text,n\na,1\nb,2,3\n")),
    Case("truncated gzip", CLM + "--train_file {tmp}/a.txt.gz", ("a.txt.gz", "incomplete or damaged"),
         write("a.txt.gz", gzip.compress(os.urandom(5000).hex().encode())[:2000])),
    Case("block over the positions", CLM + "--train_file {text} --block_size 4096",
         ("--block_size", "4096", "positions", "use at most")),
    Case("unknown configuration key", NEW + "--config_overrides n_embedd=8", ("--config_overrides", "n_embedd", "n_embd")),
    Case("heads that do not divide", NEW + "--config_overrides n_embd=10,n_head=4", ("--config_overrides", "10", "4")),
    Case("more ids than rows, growing refused",
         CLM + "--train_file {text} --tokenizer_name {tmp}/big --resize_embeddings never",
         ("--resize_embeddings", "rows"), big_tokenizer),
    Case("no mask token", "mlm --model_type bert --tokenizer_name {gpt2} --train_file {text} --output_dir {tmp}/out",
         ("--tokenizer_name", "mask token")),
    Case("no end-of-text token",
         "clm --model_type gpt2 --tokenizer_name {tmp}/plain --train_file {text} --output_dir {tmp}/out",
         ("--tokenizer_name", "end-of-text"), only_a_vocabulary),
    Case("encoder given to clm", "clm --model_name_or_path {bert} --train_file {text} --output_dir {tmp}/out", ("lmtrain mlm",)),
    Case("decoder given to mlm", "mlm --model_name_or_path {gpt2} --train_file {text} --output_dir {tmp}/out", ("lmtrain clm",)),
    Case("folder of another run", CLM + "--train_file {text}", ("--output_dir", "--learning_rate", "0.5"), another_run),
    Case("folder of somebody's model", CLM + "--train_file {text}", ("--output_dir", "write over"), somebodys_model),
    Case("output folder is a file", CLM.replace("{tmp}/out", "{tmp}/f") + "--train_file {text}",
         ("--output_dir", "is a file"), write("f", "x")),
    Case("output folder forbidden", CLM.replace("{tmp}/out", "/proc/x/out") + "--train_file {text}",
         ("--output_dir", "cannot be")),
    Case("unknown option", CLM + "--train_file {text} --lerning_rate 1", ("--lerning_rate", "--learning_rate")),
    Case("contradiction", CLM + "--train_file {text} --bf16 --precision fp32", ("--precision", "bf16")),
    Case("bad value", CLM + "--train_file {text} --learning_rate fast", ("--learning_rate", "fast")),
    Case("TensorFlow checkpoint", "clm --model_name_or_path {tmp}/m.ckpt --train_file {text} --output_dir {tmp}/out",
         ("TensorFlow", "--model_name_or_path")),
    Case("unknown model type", NEW.replace("gpt2 --tok", "gtp2 --tok"), ("--model_type", "gtp2", "gpt2")),
    Case("no model", "clm --train_file {text} --output_dir {tmp}/out", ("--model_name_or_path",)),
    Case("no data", CLM, ("--train_file",)),
    Case("no such model folder", "clm --model_name_or_path ./nowhere/at/all --train_file {text} --output_dir {tmp}/out",
         ("--model_name_or_path", "nowhere/at/all")),
    Case("vocabulary below the alphabet", "tokenizer --train_file {text} --vocab_size 100 --output_dir {tmp}/out",
         ("--vocab_size", "257")),
    Case("lines in clm", CLM + "--train_file {text} --line_by_line", ("--line_by_line",)),
    Case("nothing to evaluate", "evaluate --model_name_or_path {gpt2}", ("--validation_file",)),
    Case("masked prompt without a mask", "generate --model_name_or_path {bert} nothing", ("[MASK]",)),
    Case("no such checkpoint", CLM + "--train_file {text} --resume_from_checkpoint {tmp}/no",
         ("--resume_from_checkpoint", "no such folder")),
    Case("a model is no checkpoint", CLM + "--train_file {text} --resume_from_checkpoint {gpt2}",
         ("--resume_from_checkpoint", "--model_name_or_path")),
    Case("a tracker that is not there", CLM + "--train_file {text} --report_to trackr", ("--report_to", "trackr")),
    Case("an upload without the hub", CLM + "--train_file {text} --push_to_hub", ("--push_to_hub", "cannot be reached")),
    Case("a schedule without its setting", CLM + "--train_file {text} --lr_scheduler_type cosine_with_min_lr",
         ("--lr_scheduler_type", "min_lr")),
    Case("optimizer settings", CLM + "--train_file {text} --optim_args foo", ("--optim_args", "key=value")),
    Case("a compiler of no such name", CLM + "--train_file {text} --torch_compile_backend foo",
         ("--torch_compile_backend", "inductor")),
    Case("no such score", CLM + "--train_file {text} --eval_strategy epoch --metric_for_best_model f1",
         ("--metric_for_best_model", "perplexity")),
    Case("the best of no evaluation", CLM + "--train_file {text} --save_strategy best", ("--save_strategy", "--eval_strategy")),
    Case("FSDP without a GPU", CLM + "--train_file {text} --fsdp true", ("--fsdp", "GPUs", "leave out --fsdp")),
    Case("no full batch in an epoch", CLM + "--train_file {text} --dataloader_drop_last --per_device_train_batch_size 9999",
         ("--dataloader_drop_last", "--per_device_train_batch_size")),
    Case("the model's own folder", "clm --model_name_or_path {tmp} --train_file {text} --output_dir {tmp} --overwrite_output_dir",
         ("--output_dir", "--model_name_or_path")),
    Case("type of another model", CLM + "--train_file {text} --model_type llama", ("--model_type", "gpt2")),
    Case("scores into another model's run", "evaluate --model_name_or_path {gpt2} --validation_file {text} --output_dir {tmp}/out",
         ("--output_dir", "another model"), another_run),
    Case("unknown command", "trian --x", ("trian", "no command")),
]  # fmt: skip


def what_lies_in(folder: Path) -> dict[Path, bytes | None]:
    """Files with their content, and folders, also empty ones."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def half_made(cache: Path) -> list[Path]:
    """What is no whole store that a later run would read, nor the lock of one."""
    whole = {path.parent for path in cache.rglob("manifest.json")}
    files = (path for path in cache.rglob("*") if path.is_file())
    return [path for path in files if path.suffix != ".lock" and whole.isdisjoint(path.parents)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wrong_input_is_one_clear_answer(
    case: Case, world: World, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.setup(tmp_path)
    before = what_lies_in(tmp_path)
    code = main(case.command.format(**world._asdict(), tmp=tmp_path).split())
    answer = capsys.readouterr().err
    assert code == 2, answer
    assert "Traceback" not in answer
    said = [line for line in answer.splitlines() if " to change before this can " in line]
    assert len(said) == 1 and f": {counted(case.things, 'thing')} to change" in said[0], answer
    for words in case.says:
        assert words in answer, answer
    assert what_lies_in(tmp_path) == before, "nothing is written over and nothing left"
    for thread in threading.enumerate():
        if thread.name == "prepare ahead":
            thread.join()  # as the end of the process would
    assert not half_made(own_cache)


def test_all_problems_come_at_once(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.csv").write_text("title,body,score\na,b,1\n")
    code = main(
        f"clm --model_name_or_path {world.gpt2} --train_file {tmp_path}/data.csv --block_size 4096 "
        f"--lerning_rate 1e-4 --output_dir {tmp_path}/out".split()
    )
    answer = capsys.readouterr().err
    assert code == 2
    assert "3 things to change" in answer
    assert all(flag in answer for flag in ("--lerning_rate", "--text_column body", "--block_size"))
    main(f"clm --model_name_or_path {tmp_path}/none --tokenizer_name ./none/either --train_file {tmp_path}/data.csv "
         f"--lerning_rate 1e-4 --output_dir {tmp_path}/out".split())  # fmt: skip
    answer = capsys.readouterr().err
    assert "4 things to change" in answer
    assert f"no such folder: {tmp_path}/none" in answer and "no such folder: ./none/either" in answer


def test_bad_records_can_be_skipped_and_are_counted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ['{"text": "a good line of text"}', '{"text": broken', '{"text": "another good line"}'] * 50
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    code = main(
        f"prepare --train_file {tmp_path}/a.jsonl --tokenizer_name {world.gpt2} --on_bad_record skip --json".split()
    )
    ledger = json.loads(capsys.readouterr().out)
    assert code == 0
    assert ledger["skipped"] == {"bad record": 50}
    assert ledger["documents"] == 100


class HangsUp(socketserver.BaseRequestHandler):
    """A way to the network on which nothing comes back; every try is counted."""

    tries: ClassVar[list[float]] = []

    def handle(self) -> None:
        self.tries.append(time.monotonic())


def test_a_hub_name_without_network_is_tried_once(world: World, tmp_path: Path) -> None:
    """The library itself tries five times and more, with pauses that grow to 23 seconds."""
    HangsUp.tries.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangsUp) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        environment |= {"HTTPS_PROXY": address, "HTTP_PROXY": address, "HF_HOME": str(tmp_path / "hub")}
        done = subprocess.run(
            [sys.executable, "-m", "lmtrain", "clm", "--model_name_or_path", "no-such/model", "--train_file",
             world.text, "--output_dir", str(tmp_path / "out")],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        proxy.shutdown()
    assert done.returncode == 2, done.stderr
    assert "no-such/model" in done.stderr and "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(HangsUp.tries) == 1, "asked whether it answers, and nothing more"


def test_two_runs_in_one_folder_at_once(
    world: World, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second process is refused; the first one does not notice."""
    out = tmp_path / "out"
    words = f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --max_steps 100000 "
    words += "--block_size 16 --use_cpu --logging_steps 1 --save_strategy no --skip_check"
    first = Forked(["-m", "lmtrain", *words.split()], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until, steps = time.monotonic() + 120, logged_losses(out, 2)
        while not steps():
            assert first.poll() is None and time.monotonic() < until, first.communicate()[1]
            time.sleep(0.05)
        assert main(words.split()) == 2
        assert "another process" in capsys.readouterr().err
        at = (out / "metrics.jsonl").read_text().count('"loss"')
        more = logged_losses(out, at + 2)
        while not more():
            assert first.poll() is None and time.monotonic() < until, first.communicate()[1]
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
