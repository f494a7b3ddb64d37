"""One, two and four processes on gloo, with the same examples a step, make one and the same training.

The counts are uneven: 21 examples in steps of eight, 7 to evaluate, rows of 2 to 14 tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
from ranks import CASES, EVALUATIONS, FIGURES, GLOBAL_BATCH, RESUMED, SAVED_AT, WORLDS

from launching import MARKS, launch

pytest.importorskip("peft")
pytestmark = MARKS
SEVERAL = WORLDS[1:]
Seen = dict[tuple[int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """What each process saw, by (number of processes, rank): one launch for everything."""
    ranks.run(folder)
    for processes in SEVERAL:
        launch(Path(__file__).with_name("ranks.py"), folder, processes=processes, timeout=900)
    found = {path: tuple(map(int, path.stem.split("-"))) for path in folder.glob("*.json")}
    return {(world, rank): json.loads(path.read_text()) for path, (world, rank) in found.items()}


def bound(name: str) -> float:
    return 2e-2 if "bf16" in name else 1e-6


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", CASES)
def test_the_losses_are_those_of_one(name: str, world: int, seen: Seen) -> None:
    one = seen[1, 0][name]
    assert len(one["losses"]) == 2 * -(-CASES[name].examples // GLOBAL_BATCH), "two epochs, the last step a short one"
    for rank in range(world):
        several = seen[world, rank][name]
        assert several["losses"] == pytest.approx(one["losses"], rel=bound(name))
        assert several["norms"] == pytest.approx(one["norms"], rel=10 * bound(name))


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", CASES)
def test_the_weights_are_those_of_one_but_for_rounding(name: str, world: int, seen: Seen) -> None:
    one, first = (np.array(seen[n, 0][name]["weights"]) for n in (1, world))
    within = 2e-2 if "bf16" in name else 2e-6
    if "adamw" in name:  # it scales up a gradient that is nothing but rounding, such as that of a bias of the keys
        within = 5e-3
    assert np.abs(first - one).max() <= within * np.abs(one).max()
    for rank in range(1, world):
        assert seen[world, rank][name]["weights"] == seen[world, 0][name]["weights"], "all processes have one model"


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", CASES)
def test_the_evaluations_are_those_of_one(name: str, world: int, seen: Seen) -> None:
    one = seen[1, 0][name]
    for when in ("before", "after"):
        for rank in range(world):
            several = seen[world, rank][name][when]
            assert several["tokens"] == one[when]["tokens"], "each token once"
            assert several == pytest.approx(one[when], rel=bound(name))


def test_every_process_packs_what_it_can(seen: Seen) -> None:
    """Rows of uneven length and pairs, and not where it is switched off: what is compared above is both."""
    for (world, rank), each in seen.items():
        packed = {name for name in CASES if each[name]["packed"]}
        assert {"causal", "pairs", "pairs, joint", "lora"} <= packed, (world, rank)
        assert "padded" not in packed, (world, rank)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_every_example_counts_once_an_epoch(name: str, world: int, seen: Seen) -> None:
    """Fillers make the steps of all processes full; they are laid out and not predicted."""
    case, everyone = CASES[name], [seen[world, rank][name] for rank in range(world)]
    reads = [number for each in everyone for number in each["training_reads"]]
    count, at_once = case.examples, case.micro[WORLDS.index(world)] * world
    fillers = -count % at_once if world > 1 else 0
    assert len(reads) == 2 * (count + fillers) and set(reads) == set(range(count))
    assert len({len(each["training_reads"]) for each in everyone}) == 1 or world == 1, "none waits for another"
    assert sorted(n for each in everyone for n in each["evaluation_reads"]) == list(range(case.held_out))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_as_if_nothing_had_happened(name: str, world: int, seen: Seen) -> None:
    """To the bit, where it is resumed on as many processes as it was saved on."""
    for rank in range(world):
        whole, resumed = seen[world, rank][name], seen[world, rank][f"{name}, resumed from {world}"]
        assert resumed["losses"] == whole["losses"]
        assert resumed["weights"] == whole["weights"]
        assert resumed["training_reads"] == whole["training_reads"][-len(resumed["training_reads"]) :]


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_with_another_number_of_processes(name: str, seen: Seen, folder: Path) -> None:
    """Saved on one, resumed on two and on four; saved on four, resumed on one: the order and the result stay."""
    one = seen[1, 0][name]
    back = ranks.trained(name, folder / "out", 1, from_checkpoint=folder / f"{name}-4" / f"checkpoint-{SAVED_AT}")
    for resumed in (back, *(seen[world, 0][f"{name}, resumed from 1"] for world in SEVERAL)):
        assert resumed["losses"] == pytest.approx(one["losses"], rel=1e-6)
        assert resumed["after"] == pytest.approx(one["after"], rel=1e-6)
        difference = np.abs(np.array(resumed["weights"]) - np.array(one["weights"])).max()
        assert difference <= 2e-6 * np.abs(one["weights"]).max()


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_awkward_number_is_evaluated_once(name: str, world: int, seen: Seen) -> None:
    one, several = seen[1, 0][name], [seen[world, rank][name] for rank in range(world)]
    count = int(name.split()[1])
    assert sorted(one["reads"]) == list(range(count))
    assert sorted(n for each in several for n in each["reads"]) == list(range(count)), "none twice, none left out"
    for each in several:
        assert each["tokens"] == one["tokens"]
        for figure in FIGURES:
            assert each[figure] == several[0][figure] == pytest.approx(one[figure], rel=1e-6), figure


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", EVALUATIONS)
def test_own_metrics_change_no_figure(name: str, world: int, seen: Seen) -> None:
    """The stock loop fills its last batch up; those examples are in the sums no more than among the logits."""
    one = {figure: seen[1, 0][name][figure] for figure in FIGURES}
    for rank in range(world):
        assert seen[world, rank][name]["own"] == pytest.approx(one | {"rows": int(name.split()[1])}, rel=1e-6)


def test_the_size_of_a_batch_does_not_matter(seen: Seen) -> None:
    for name in EVALUATIONS:
        other = name.replace("1 at once", "3 at once")
        first, second = ({k: seen[2, 0][n][k] for k in FIGURES} for n in (name, other))
        assert second == pytest.approx(first, rel=1e-6)
        assert (second["tokens"], second["accuracy"]) == (first["tokens"], first["accuracy"])
