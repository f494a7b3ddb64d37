"""A recipe under a launcher."""

from __future__ import annotations

import json
import os
from pathlib import Path

from forked import run_ranks
from launching import MARKS
from tiny_models import checkpoint

pytestmark = MARKS


def test_all_train_and_the_first_decodes_and_scores(tmp_path: Path) -> None:
    """METEOR's program is one of ours here, which counts how often it is asked."""
    model = checkpoint("gpt2", tmp_path / "model")
    asked = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/java").write_text(f"#!/bin/sh\necho once >> {asked}\nexit 3\n")
    (tmp_path / "bin/java").chmod(0o755)
    rows = [{"context": f"{n} : is", "completion": f"It is {n}.", "cate": n > 3} for n in range(8) for _ in range(2)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        f"nlg webnlg --train {data} --test {data} --model {model} --output_dir {tmp_path}/out --use_cpu --seeds 1,2 "
        "--max_steps 2 --warmup_steps 1 --max_seq_length 40 --num_beams 2 --max_new_tokens 4 --precision fp32 "
        "--bootstrap 0"
    )
    environment = {
        **os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "LMTRAIN_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for times in (1, 2):  # the second time there is nothing to train, and the processes do not meet
        anew = ["--overwrite_output_dir"] if times == 1 else []
        first, other = run_ranks(["-m", "lmtrain", *words.split(), *anew], 2, env=environment, timeout=150)
        assert (first.returncode, other.returncode) == (0, 0), first.stderr + other.stderr
        assert asked.read_text() == "once\n" * 2 * times, "once for each seed"
        assert first.stdout == (tmp_path / "out/table.txt").read_text() and not other.stdout
    assert "16 examples a step" in first.stdout and "METEOR: not computed, METEOR ended with code 3" in first.stdout
