"""``lmtrain check --devices N``: measured figures of a real run, on other machines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from world import World

from lmtrain.cli.main import main


def test_a_run_on_more_devices(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = (
        f"check clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --num_train_epochs 3 "
        f"--per_device_train_batch_size 4 --output_dir {out} --json --skip_check"
    )
    wide = "--devices 16 --mtbf 0.5 --restart_minutes 0 --device_tflops 1e-6"
    assert main([*command.split(), *wide.split()]) == 0
    plan = json.loads(capsys.readouterr().out)
    found = plan["outlook"]
    assert (found["devices"], found["nodes"]) == (16, 2)
    assert found["steps"] == math.ceil(plan["steps"] / 16), "the same epochs"
    assert found["mtbf"] == 0.5 * 3600 / 16
    assert found["save"]["size"] == plan["checkpoint_bytes"] and found["save"]["pause"] > 0
    assert 1 <= found["save_steps"] <= found["steps"]
    assert found["ddp"]["step"] > 0.5 * plan["tokens"] / plan["steps"] / 1e6, "a device as slow as it was said to be"
    assert found["preparation"]["text"] > 1000 and 0 < found["lost_share"] < 1
    assert not out.exists()
    assert main([*command.split(), "--devices", "3", "--global_batch_size", "4", "--max_steps", "2"]) == 2
    assert "--devices" in capsys.readouterr().err
