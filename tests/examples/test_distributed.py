"""The configurations in examples/distributed/ are what the programs that read them take, as far as no GPU is needed."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from lmtrain.cli.arguments import parse
from lmtrain.config.options import Resolved

FOLDER = Path(__file__).parents[2] / "examples" / "distributed"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "README.md")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name."""
    (tmp_path / "book.txt").write_text("Once upon a time")
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clm(*more: str) -> Resolved:
    words = ["--model_name_or_path", "gpt2", "--train_file", "book.txt", "--output_dir", "runs/book", *more]
    options = parse("clm", words).options
    assert isinstance(options, Resolved)
    return options


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_says_in_three_lines_what_it_is(path: Path) -> None:
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text(encoding="utf-8")
    if path.suffix == ".json":
        about = json.loads(path.read_text(encoding="utf-8"))["_about"]
    else:
        about = [line for line in path.read_text(encoding="utf-8").split("\n") if not line.startswith("#!")][:3]
        assert all(line.startswith("# ") for line in about)
    assert len(about) == 3 and path.name in about[2]


@pytest.mark.parametrize(
    ("name", "kind"), [("ddp.yaml", DistributedType.MULTI_GPU), ("fsdp2.yaml", DistributedType.FSDP)]
)
def test_accelerate_reads_it(name: str, kind: DistributedType) -> None:
    config: Any = load_config_from_file(str(FOLDER / name))  # unknown keys are refused there
    assert config.distributed_type == kind and config.num_processes == 8 and not config.use_cpu
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert config.fsdp_config.keys() <= known.keys()
    if kind == DistributedType.FSDP:
        assert config.fsdp_config["fsdp_version"] == 2
    assert yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["mixed_precision"] == "no"


def test_our_flags_take_the_fsdp_configuration(here: Path) -> None:
    """And the Trainer turns it into the settings of Accelerate's plugin."""
    options = clm("--fsdp", "--fsdp_config", str(FOLDER / "fsdp2.json"))
    assert options.training["fsdp"] and options.training["fsdp_config"].endswith("fsdp2.json")
    made = TrainingArguments(str(here / "out"), use_cpu=True, fsdp=True, fsdp_config=options.training["fsdp_config"])
    plugin: Any = getattr(made, "fsdp_plugin_args", None)
    if plugin is None:
        pytest.skip("this version of transformers tells Accelerate by its environment")
    assert plugin["fsdp_version"] == 2 and plugin["reshard_after_forward"] is True
    written = json.loads((FOLDER / "fsdp2.json").read_text(encoding="utf-8"))
    described = inspect.getdoc(TrainingArguments) or ""
    assert all(f"- {key} (" in described for key in written if key != "_about")


@pytest.mark.parametrize("stage", [2, 3])
def test_our_flags_take_the_deepspeed_configuration(stage: int, here: Path) -> None:
    path = FOLDER / f"zero{stage}.json"
    assert clm("--deepspeed", str(path)).training["deepspeed"] == str(path)
    config = HfDeepSpeedConfig(str(path))
    assert (config.is_zero2(), config.is_zero3()) == (stage == 2, stage == 3)
    assert not config.is_offload()


@pytest.mark.parametrize("stage", [2, 3])
def test_the_trainer_fills_in_what_is_auto(stage: int) -> None:
    filled = inspect.getsource(HfTrainerDeepSpeedConfig)
    text = (FOLDER / f"zero{stage}.json").read_text(encoding="utf-8")
    auto = re.findall(r'"(\w+)": (?:\{ "enabled": )?"auto"', text)
    assert len(auto) >= 7
    for key in auto:
        assert f'{key}"' in filled or f'{key}.enabled"' in filled, key


@pytest.mark.parametrize("name", ["two_machines.sh", "slurm.sbatch"])
def test_the_scripts_are_commands_that_we_understand(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FOLDER / name
    subprocess.run(["sh", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.split("\n") if " lmtrain clm " in line)
    words = shlex.split(line)
    monkeypatch.setenv("WORLD_SIZE", "16")
    options = parse("clm", words[words.index("clm") + 1 :]).options
    assert isinstance(options, Resolved) and options.run.global_batch_size == 128
    assert ("srun" in words) == (path.suffix == ".sbatch")


def test_srun_gets_what_it_does_not_take_from_sbatch() -> None:
    """The processors of a task since SLURM 22.05; and that no task is waited for that is gone."""
    text = (FOLDER / "slurm.sbatch").read_text(encoding="utf-8").replace("\\\n", " ")
    exported, (line,) = text.split("\nsrun ")[0], [line for line in text.split("\n") if line.startswith("srun ")]
    assert "#SBATCH --cpus-per-task=" in exported and 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"' in exported
    assert "--kill-on-bad-exit=1" in shlex.split(line)


def test_torchrun_takes_its_part_of_the_line() -> None:
    from torch.distributed.run import get_args_parser

    text = (FOLDER / "two_machines.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.split("\n") if line.startswith("torchrun "))
    known = get_args_parser().parse_args(shlex.split(line)[1:])
    assert (known.nnodes, known.nproc_per_node, known.max_restarts, known.module) == ("2", "8", 3, True)
    assert known.rdzv_backend == "c10d" and known.training_script == "lmtrain"
