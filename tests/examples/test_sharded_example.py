"""The example whose model is cut over the processes: two train it, and one plain folder is left."""

from __future__ import annotations

from pathlib import Path

from examples_run import EXAMPLES
from transformers import AutoModelForCausalLM, AutoTokenizer

from launching import MARKS, launch
from lmtrain.engine.checkpoints.read import has_shards, newest

pytestmark = MARKS


def test_two_processes_leave_one_model(tmp_path: Path) -> None:
    launch(EXAMPLES / "sharded.py", "--max_steps", 4, "--output_dir", tmp_path, processes=2)
    found = newest(tmp_path)
    assert found.step == 4 and found.checkpoint is not None and has_shards(found.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size
    assert len((EXAMPLES / "sharded.py").read_text().splitlines()) <= 60
