"""Training on several texts in given shares, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from world import World

from lmtrain.cli import prepare
from lmtrain.cli.main import main


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    (tmp_path / "code.py").write_text("".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(60)))
    (tmp_path / "prose.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 150)
    return [f"code={tmp_path / 'code.py'}", f"prose={tmp_path / 'prose.txt'}"]


def test_a_mixed_run_is_the_same_when_resumed(
    world: World, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        f"clm --model_name_or_path {world.gpt2} --block_size 16 --mix code=0.8 --mix prose=0.2 --max_steps 90 "
        f"--save_steps 40 --keep_optimizer_states 9 --no_do_eval --learning_rate 1e-2 --output_dir {tmp_path / 'out'}"
    ).split()
    command += ["--train_file", *texts]
    assert main(command) == 0
    assert "80.0% code" in capsys.readouterr().err
    data = json.loads((tmp_path / "out" / "data.json").read_text())
    assert data["mix"]["shares"] == {"code": 0.8, "prose": 0.2}
    weights = load_file(tmp_path / "out" / "model.safetensors")

    # as after a power cut behind the checkpoint of step 40, in the second pass over the smaller text
    shutil.rmtree(tmp_path / "out" / "checkpoint-80")
    shutil.rmtree(tmp_path / "out" / "checkpoint-90", ignore_errors=True)
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    status = {name: value for name, value in status.items() if name != "exported"} | {"state": "training", "step": 40}
    (tmp_path / "out" / "status.json").write_text(json.dumps(status))
    assert main(command) == 0
    assert "goes on from step 40" in capsys.readouterr().err
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert all((weights[name] == again[name]).all() for name in weights)

    other = [word.replace("code=0.8", "code=0.5") for word in command]
    assert main(other) == 2 and "--mix" in capsys.readouterr().err, "another mix is another run"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mix code=0.5 prose=x", "'prose=x' is no NAME=SHARE"),
        ("--mix code=0.5 poetry=0.5", "poetry has a share and no text"),
        ("--mix code=1", "two texts or more"),
    ],
)
def test_what_is_wrong_with_a_mix(
    words: str, said: str, world: World, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"clm --model_name_or_path {world.gpt2} --output_dir {tmp_path / 'out'} {words} --train_file".split()
    assert main([*command, *texts]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_prepare_tells_of_text_on_both_sides(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passage = " ".join(f"word{n}" for n in range(200))
    (tmp_path / "train.txt").write_text(f"Something else.\n{passage}\nAnd the end.\n")
    (tmp_path / "valid.txt").write_text(passage)
    command = f"prepare --tokenizer_name {world.gpt2} --train_file {tmp_path / 'train.txt'} --json"
    assert main([*command.split(), "--validation_file", str(tmp_path / "valid.txt")]) == 0
    out = capsys.readouterr()
    found = json.loads(out.out)["overlap"]
    assert found["shared_documents"] == 0 and found["shared_tokens"] > 0.9 * found["tokens"]
    assert "lie in stretches of 50 tokens that training has too" in out.err and "looking in" not in out.err

    monkeypatch.setattr(prepare, "_MANY_TOKENS", 100)  # of training: what takes long is said
    (tmp_path / "valid.txt").write_text("Nothing of that kind, and short.")
    assert main([*command.split(), "--validation_file", str(tmp_path / "valid.txt")]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["overlap"]["shared_tokens"] == 0
    assert " tokens of training for text of validation" in out.err
