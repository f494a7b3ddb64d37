"""What comes from elsewhere runs no code, leads to no file outside, and gives away no token: each of it tried."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from little_run import trainer
from safetensors.torch import load_file, save_file

import forked
from lmtrain.cli.main import main
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_folder, clear_scratch, read_json, write_json
from lmtrain.engine.checkpoints.manifest import describe_files, read_manifest, write_manifest
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import newest, problem
from lmtrain.engine.runs.found import look
from lmtrain.engine.runs.run_folder import RunFolder
from tiny import weights
from tiny_models import checkpoint as model_folder

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 60


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "cache"


class Harm:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


# ---- code ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer(folder, 3, saving=Saving(background="off")).train()
    return folder


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_no_file_of_a_checkpoint_runs_code(name: str, run: Path, tmp_path: Path) -> None:
    checkpoint, mark = tmp_path / "run" / "checkpoint-3", tmp_path / "it ran"
    shutil.copytree(run, tmp_path / "run")
    torch.save({"state": Harm(mark), "param_groups": []}, checkpoint / name)
    write_manifest(checkpoint, {**read_manifest(checkpoint), "files": describe_files(checkpoint)})
    with pytest.raises(UserError, match=f"{name} is refused: .* could run code"):
        trainer(tmp_path / "run", 4, saving=Saving(accept_changes=True)).train(resume_from_checkpoint=str(checkpoint))
    assert not mark.exists()


def test_no_weights_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a model, as an adapter, as a checkpoint of microsoft/LoRA: refused in a line, exit code 2."""
    model, mark = Path(model_folder("gpt2", tmp_path / "model")), tmp_path / "it ran"
    tensors = {name: Harm(mark) for name in load_file(model / "model.safetensors")}
    shutil.copytree(model, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pickled" / "pytorch_model.bin")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shape = {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True, "base_model_name_or_path": str(model)}
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA", "task_type": "CAUSAL_LM", **shape})
    torch.save(
        {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": Harm(mark)}, adapter / "adapter_model.bin"
    )
    torch.save({"model_state_dict": {"lora_A": Harm(mark)}}, tmp_path / "model.8.pt")
    for name in ("pickled", "adapter"):
        words = ["--model_name_or_path", str(tmp_path / name), "--tokenizer_name", str(model), "--use_cpu"]
        assert main(["generate", *words, "The"]) == 2
        assert "Traceback" not in capsys.readouterr().err
        train = [
            "--train_file",
            str(tmp_path / "text.txt"),
            "--block_size",
            "16",
            "--output_dir",
            str(tmp_path / "out"),
        ]
        assert main(["clm", *words, *train]) == 2
        assert "Traceback" not in capsys.readouterr().err
    export = ["export", str(tmp_path / "model.8.pt"), str(tmp_path / "exported"), "--to", "peft", "--base", str(model)]
    assert main([*export, "--lora_alpha", "8"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_model_runs_only_where_it_is_typed(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, mark = Path(model_folder("gpt2", tmp_path / "model")), tmp_path / "it ran"
    (model / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    settings = read_json(model / part)
    if part == "config.json":
        own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        settings |= {"model_type": "own", "auto_map": own}
    else:
        settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    write_json(model / part, settings)
    words = ["--model_name_or_path", str(model), "--use_cpu"]
    text = ["--train_file", str(tmp_path / "text.txt"), "--block_size", "16", "--max_steps", "1"]
    for command in (["clm", *words, *text, "--output_dir", str(tmp_path / "out")], ["generate", *words, "The"]):
        code = main(command)
        said = capsys.readouterr().err
        assert not mark.exists(), command
        assert code == 0 or (code == 2 and "--trust_remote_code" in said), said


# ---- names that lead elsewhere ---------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the run's, and has to be left as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("work of years")
    return folder


def untouched(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["precious"] and (
        folder / "precious"
    ).read_text() == "work of years"


@pytest.mark.parametrize("name", ["../../outside/precious", "/etc/hostname", "C:/x", "..\\outside", ""])
def test_a_manifest_names_files_of_its_checkpoint_only(name: str, run: Path, outside: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-3"
    manifest = read_manifest(checkpoint)
    files = {**manifest["files"], name: {"size": 13, "sha256": "0" * 64}}
    write_manifest(checkpoint, {**manifest, "files": files})
    wrong = problem(checkpoint)
    assert wrong is not None and wrong.endswith("which is no file of it") and repr(name) in wrong
    assert newest(tmp_path / "run").step == 2


def test_what_is_tidied_away_lies_in_the_run(outside: Path, tmp_path: Path) -> None:
    """Links under the names of checkpoints, in a run that keeps one and saves over another."""
    elsewhere = {}
    for step in (1, 2):  # a real checkpoint, moved away and linked; and something else
        trainer(tmp_path / "other", step, saving=Saving(background="off")).train()
        elsewhere[step] = tmp_path / "other" / f"checkpoint-{step}"
    before = {step: describe_files(folder) for step, folder in elsewhere.items()}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint-1").symlink_to(elsewhere[1])
    (folder / "checkpoint-2").symlink_to(elsewhere[2])
    (folder / "checkpoint-3").symlink_to(outside)
    (folder / "checkpoint-4").symlink_to(tmp_path / "nowhere")
    (folder / ".checkpoint-3.abc.tmp").symlink_to(outside)
    (folder / ".checkpoint-9.abc.old").symlink_to(outside)
    made = trainer(folder, 4, saving=Saving(background="off", keep_optimizer_states=1), save_total_limit=2)
    made.train()
    assert untouched(outside)
    assert {step: describe_files(place) for step, place in elsewhere.items()} == before
    assert not (tmp_path / "nowhere").exists() and not (folder / "checkpoint-9").exists()
    kept = [path.name for path in sorted(folder.glob("checkpoint-*"))]
    assert kept == ["checkpoint-3", "checkpoint-4"] and not any((folder / name).is_symlink() for name in kept)
    assert newest(folder).step == 4


def test_light_checkpoints_are_made_of_the_runs_own(tmp_path: Path) -> None:
    trainer(tmp_path / "other", 1, saving=Saving(background="off")).train()
    before = describe_files(tmp_path / "other" / "checkpoint-1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint-1").symlink_to(tmp_path / "other" / "checkpoint-1")
    saving = Saving(background="off", keep_optimizer_states=1, accept_changes=True)
    made = trainer(tmp_path / "run", 3, saving=saving)
    made.train(resume_from_checkpoint=True)
    assert describe_files(tmp_path / "other" / "checkpoint-1") == before


def test_starting_over_removes_links_and_not_what_they_lead_to(outside: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("checkpoint-7", "model.safetensors", "run.json", "eval_results.json"):
        (folder / name).symlink_to(outside if name.startswith("checkpoint") else outside / "precious")
    with RunFolder(folder, overwrite=True) as made:
        made.describe("clm", [], {})
    assert untouched(outside) and newest(folder).checkpoint is None
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.lock", "trainer_state.json"])
def test_nothing_is_written_through_a_link(name: str, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside / "precious")
    with pytest.raises(UserError, match=f"{name} is a link to .*precious"):
        look(tmp_path / "run", "clm", {}, overwrite=True)
    assert untouched(outside)


def test_a_whole_run_among_links(outside: Path, tmp_path: Path) -> None:
    """Every file that a run leaves, as a link to a precious one: it is replaced, not written through."""
    model = model_folder("gpt2", tmp_path / "model")
    words = (
        f"clm --model_name_or_path {model} --train_file {tmp_path / 'text.txt'} --block_size 16 --max_steps 2 "
        f"--use_cpu --save_steps 1 --output_dir {tmp_path / 'run'}"
    ).split()
    assert main(words) == 0
    names = [path.name for path in (tmp_path / "run").iterdir() if path.is_file()]
    left = [name for name in names if name not in ("metrics.jsonl", "run.lock", "trainer_state.json")]
    assert {"model.safetensors", "config.json", "tokenizer.json", "run.json", "all_results.json"} <= set(left)
    for name in names:
        (tmp_path / "run" / name).unlink()
    for name in left:
        (tmp_path / "run" / name).symlink_to(outside / "precious")
    assert main([*words, "--overwrite_output_dir"]) == 0
    assert untouched(outside)


def test_scratch_that_is_a_link_is_left_alone(outside: Path, tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-1.x.tmp").symlink_to(outside)
    (tmp_path / ".checkpoint-2.x.old").symlink_to(outside)
    assert clear_scratch(tmp_path, "checkpoint-*") == []
    (tmp_path / "made").symlink_to(outside)
    with atomic_folder(tmp_path / "made") as scratch:
        (scratch / "a").write_text("a")
    assert untouched(outside) and not (tmp_path / "made").is_symlink() and (tmp_path / "made" / "a").is_file()


@pytest.mark.parametrize("shard", ["../outside/model.safetensors", "/tmp/model.safetensors", "sub/../../x", 5])
def test_shards_lie_beside_their_index(
    shard: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(model_folder("gpt2", tmp_path / "model"))
    (tmp_path / "outside").mkdir()
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(tmp_path / "outside" / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
    write_json(model / "model.safetensors.index.json", index)
    assert main(["generate", "--model_name_or_path", str(model), "The", "--use_cpu"]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors.index.json names" in said and "Traceback" not in said
    shutil.copytree(run, tmp_path / "run")
    write_json(tmp_path / "run" / "checkpoint-3" / "model.safetensors.index.json", index)
    wrong = problem(tmp_path / "run" / "checkpoint-3")
    assert wrong is not None and ("index.json names" in wrong or "damaged" in wrong)


def test_real_shards_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(model_folder("gpt2", tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    parts = {"model-00001-of-00002.safetensors": 0, "model-00002-of-00002.safetensors": 1}
    for file, rest in parts.items():
        part = {name: value for number, (name, value) in enumerate(tensors.items()) if number % 2 == rest}
        save_file(part, model / file, metadata={"format": "pt"})
    (model / "model.safetensors").unlink()
    files = list(parts)
    where = {name: files[number % 2] for number, name in enumerate(tensors)}
    write_json(model / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    assert main(["generate", "--model_name_or_path", str(model), "The", "--use_cpu", "--max_new_tokens", "2"]) == 0


@pytest.mark.parametrize("told", ["../../outside/checkpoint-1", "checkpoint-1/../../outside"])
def test_the_best_model_is_one_of_the_run(told: str, outside: Path, tmp_path: Path) -> None:
    """A record that names a folder elsewhere as the best: it is neither loaded, nor spared, nor removed."""
    folder = tmp_path / "run"
    trainer(folder, 3, saving=Saving(background="off")).train()
    checkpoint = folder / "checkpoint-3"
    for name, changes in (
        ("trainer_state.json", {"best_model_checkpoint": str(tmp_path / told), "best_global_step": 77,
                                "best_metric": 0.0}),
        ("run_state.json", {"best_saved": [f"3/../../{outside.name}", 0.0]}),
    ):  # fmt: skip
        write_json(checkpoint / name, {**json.loads((checkpoint / name).read_text()), **changes})
    write_manifest(checkpoint, {**read_manifest(checkpoint), "files": describe_files(checkpoint)})
    shutil.copytree(checkpoint, outside / "checkpoint-1")
    made = trainer(folder, 5, saving=Saving(background="off", accept_changes=True), save_total_limit=1)
    made.args.load_best_model_at_end = True
    made.train(resume_from_checkpoint=str(checkpoint))
    assert made.state.best_model_checkpoint is None and made.exported["chosen"] == "last"
    last = load_file(folder / "checkpoint-5" / "model.safetensors")
    ours = weights(made.model)
    assert all(torch.equal(value, last[name]) for name, value in ours.items() if name in last)
    assert sorted(path.name for path in outside.iterdir()) == ["checkpoint-1", "precious"]


def test_a_path_that_is_typed_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    model = model_folder("gpt2", tmp_path / "model")
    words = (
        f"clm --model_name_or_path {model} --train_file {tmp_path / 'text.txt'} --block_size 16 --max_steps 1 --use_cpu"
    )
    assert main([*words.split(), "--output_dir", "runs/../../there"]) == 0
    assert (tmp_path / "there" / "config.json").is_file() and not list((tmp_path / "here" / "runs").iterdir())


# ---- tokens ----------------------------------------------------------------------------------------

SECRETS = {name: f"hf_{name}SECRETxyz" for name in ("typed", "hub", "file", "environment")}


def lmtrain(folder: Path, *words: str, code: int = 0) -> str:
    """Everything that a process says. The environment holds a token too."""
    environment = {**os.environ, "HF_TOKEN": SECRETS["environment"], "OMP_NUM_THREADS": "1"}
    done = forked.run(["-m", "lmtrain", *words], env=environment, cwd=folder)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def holding(secret: str, *folders: Path) -> list[Path]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["--token", SECRETS["typed"], "--hub_token", SECRETS["hub"]],
        [f"--token={SECRETS['typed']}", f"--hub-token={SECRETS['hub']}", "--report_to", "tensorboard", "--use_peft"],
        ["--use_auth_token", SECRETS["typed"], "--push_to_hub_token", SECRETS["hub"]],
        ["--config", "run.yaml"],
    ],
    ids=["words", "equals signs", "old names", "a file"],
)
def test_a_token_is_in_no_file_and_in_no_line(how: list[str], tmp_path: Path, own_cache: Path) -> None:
    model = model_folder("gpt2", tmp_path / "model")
    (tmp_path / "run.yaml").write_text(f"token: {SECRETS['file']}\nhub_token: {SECRETS['hub']}\n")
    words = (
        f"clm --model_name_or_path {model} --train_file text.txt --block_size 16 --max_steps 2 --save_steps 1 "
        f"--use_cpu --output_dir run"
    ).split()
    said = lmtrain(tmp_path, *words, *how)
    for secret in SECRETS.values():
        assert secret not in said
        assert holding(secret, tmp_path / "run", own_cache) == []
    argv = json.loads((tmp_path / "run" / "run.json").read_text())["argv"]
    assert "--output_dir" in argv and not any("SECRET" in word for word in argv)


@pytest.mark.slow
def test_nor_in_those_of_an_evaluation(tmp_path: Path, own_cache: Path) -> None:
    model = model_folder("gpt2", tmp_path / "model")
    evaluated = f"evaluate --model_name_or_path {model} --validation_file text.txt --token {SECRETS['typed']}"
    said = lmtrain(tmp_path, *evaluated.split(), "--block_size", "16", "--output_dir", "scores")
    assert list((tmp_path / "scores").iterdir())
    for secret in (SECRETS["typed"], SECRETS["environment"]):
        assert secret not in said and holding(secret, tmp_path / "scores", own_cache) == []


@pytest.mark.parametrize(
    "how",
    [
        ["--token", SECRETS["typed"], SECRETS["hub"]],
        ["--tokn", SECRETS["typed"], f"--hub_tokn={SECRETS['hub']}"],
        [f"token={SECRETS['typed']}", f"hub_token={SECRETS['hub']}"],
        ["--learning_rate", "1e-3", f"token={SECRETS['typed']}"],
        ["--token", SECRETS["typed"], "--no_token", SECRETS["hub"], "--learning_rate", "fast"],
        ["--config", "broken.yaml"],
        ["--config", "broken.json"],
        ["--config", "broken.toml"],
        ["--config", "list.yaml"],
        ["--model_name_or_path", "nobody/nothing", "--token", SECRETS["typed"]],
    ],
    ids=lambda how: " ".join(how).replace("SECRET", ""),
)
def test_a_mistake_does_not_give_it_away(
    how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text(f"seed: 1\ntoken: {SECRETS['file']}: x\n")
    (tmp_path / "broken.json").write_text(f'{{"token": "{SECRETS["file"]}",, }}')
    (tmp_path / "broken.toml").write_text(f'token = "{SECRETS["file"]}\n')
    (tmp_path / "list.yaml").write_text(f"token: [{SECRETS['file']}, {SECRETS['hub']}]\n")
    assert main(["clm", "--train_file", "text.txt", "--output_dir", "run", *how]) == 2
    captured = capsys.readouterr()
    assert "SECRET" not in captured.out + captured.err
    assert not (tmp_path / "run").exists()
