"""The evaluation at the end of a run is that of training where it had the same weights, and is called what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import World

from lmtrain.cli.main import main
from lmtrain.core.runlog import read_events


def run(world: World, out: Path, *more: str, command: str = "clm") -> None:
    model = world.gpt2 if command == "clm" else world.bert
    length = "--block_size" if command == "clm" else "--max_seq_length"
    words = (
        f"{command} --model_name_or_path {model} --train_file {world.text} {length} 16 --use_cpu --save_strategy no "
        f"--logging_steps 1 --eval_strategy steps --output_dir {out}"
    ).split()
    assert main([*words, *more]) == 0


def evaluations(out: Path) -> list[dict[str, float]]:
    return [event for event in read_events(out / "metrics.jsonl") if event["event"] == "evaluation"]


def results(out: Path) -> dict[str, float]:
    return json.loads((out / "eval_results.json").read_text())


@pytest.mark.parametrize(("steps", "made_at"), [(4, [2, 4]), (5, [2, 4, 5])])
def test_one_at_the_last_step_is_not_made_again(
    steps: int, made_at: list[int], world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(world, tmp_path / "out", "--max_steps", str(steps), "--eval_steps", "2")
    made = evaluations(tmp_path / "out")
    assert [event["step"] for event in made] == made_at
    found = results(tmp_path / "out")
    assert found["eval_loss"] == round(made[-1]["eval_loss"], 10)
    assert {"perplexity", "bits_per_byte", "eval_tokens", "eval_samples", "eval_runtime", "epoch"} <= found.keys()
    assert f"perplexity {found['perplexity']:.2f}" in capsys.readouterr().err
    scored = f"evaluate --model_name_or_path {tmp_path / 'out'} --validation_file {world.text} --block_size 16"
    assert main([*scored.split(), "--output_dir", str(tmp_path / "alone")]) == 0
    assert results(tmp_path / "alone").keys() == found.keys() - {"epoch"}, "the same figures as by the command"


def test_that_of_other_weights_is_no_stand_in(world: World, tmp_path: Path) -> None:
    run(
        world, tmp_path / "out", "--max_steps", "3", "--eval_steps", "1", "--load_best_model_at_end", "--save_strategy",
        "steps", "--learning_rate", "1.0", "--lr_scheduler_type", "constant",
    )  # fmt: skip
    best = json.loads((tmp_path / "out" / "export.json").read_text())
    assert best["chosen"] == "best" and best["step"] < 3
    made = evaluations(tmp_path / "out")
    assert [event["step"] for event in made] == [1, 2, 3, 3]
    assert results(tmp_path / "out")["eval_loss"] == pytest.approx(made[best["step"] - 1]["eval_loss"])
    assert made[2]["eval_loss"] > made[3]["eval_loss"]


def test_hidden_tokens_have_no_perplexity_of_the_text(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(world, tmp_path / "out", "--max_steps", "2", "--eval_steps", "1", command="mlm")
    said = capsys.readouterr().err
    assert said.count("masked-token perplexity") == 3, "two lines of progress and the result"
    assert said.count("perplexity") == 3
