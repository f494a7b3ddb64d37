"""Seven, eight or nine examples over two processes: each is evaluated once, and the figures are those of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_ranks import BATCHES, EXAMPLES, evaluated

from launching import MARKS, launch

pytestmark = MARKS
CASES = [f"{kind} {count} {batch}" for kind in ("causal", "masked") for count in EXAMPLES for batch in BATCHES]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What one process saw, and what each of two did."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(Path(__file__).with_name("evaluation_ranks.py"), folder, processes=2)
    left, right = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return evaluated(folder), left, right


@pytest.mark.parametrize("case", CASES)
def test_every_example_counts_once(case: str, seen: tuple[dict[str, Any], ...]) -> None:
    one, left, right = (found[case] for found in seen)
    count = int(case.split()[1])
    assert sorted(one["reads"]) == list(range(count))
    assert sorted(left["reads"] + right["reads"]) == list(range(count)), "none twice, none left out"
    for name in ("loss", "perplexity", "accuracy"):
        assert left[name] == right[name] == pytest.approx(one[name], rel=1e-6), name
    assert left["tokens"] == right["tokens"] == one["tokens"]


@pytest.mark.parametrize("count", EXAMPLES)
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_size_of_a_batch_does_not_matter(kind: str, count: int, seen: tuple[dict[str, Any], ...]) -> None:
    _, left, _ = seen
    first, *others = (left[f"{kind} {count} {batch}"] for batch in BATCHES)
    for other in others:
        assert other["loss"] == pytest.approx(first["loss"], rel=1e-6)
        assert (other["tokens"], other["accuracy"]) == (first["tokens"], first["accuracy"])
