"""Logits never exist as a whole: watched at every tensor that is made."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmtrain.objectives.linear_cross_entropy import PLAIN, Kernel, linear_cross_entropy
from lmtrain.objectives.linear_cross_entropy import kernel as sizes

N, D, V = 512, 8, 1000


class Allocations(TorchDispatchMode):
    """Bytes of the storages made inside, that are alive; and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._see(value.untyped_storage())
        self.peak = max(self.peak, sum(self.alive.values()))
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key, None)


def peak(kernel: Kernel, n: int = N, dtype: torch.dtype = torch.float32, **terms) -> int:
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, D, generator=chance).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=chance).to(dtype).requires_grad_()
    labels = torch.randint(V, (n,), generator=chance)
    with Allocations() as seen:
        linear_cross_entropy(hidden, weight, None, labels, kernel=kernel, **terms).loss.backward()
    return seen.peak


LOGITS = N * V * 4


def test_the_plain_way_holds_all_logits() -> None:
    assert peak(PLAIN) > 2 * LOGITS  # so the measure sees what it is to see
    assert peak(Kernel("chunked", N)) > LOGITS


@pytest.mark.parametrize("first", [False, True], ids=["positions first", "vocabulary first"])
def test_a_chunk_is_the_most_of_the_logits_that_is_ever_held(first) -> None:
    kernel = Kernel("chunked", 16, vocabulary_first=first)
    chunk, gradients = 16 * V * 4, 2 * V * D * 4
    assert peak(kernel) < 1.2 * (chunk + gradients) + 6 * N * D * 4


def test_with_more_positions_only_their_hidden_states_are_more() -> None:
    kernel = Kernel("chunked", 16)
    more = peak(kernel, 2 * N) - peak(kernel, N)
    assert more < 6 * N * D * 4 < LOGITS / 10


def test_a_softcap_takes_one_chunk_more() -> None:
    kernel = Kernel("chunked", 16)
    terms = {"label_smoothing": 0.1, "z_loss": 0.1}
    assert peak(kernel, softcap=3.0, **terms) - peak(kernel, **terms) <= 2.2 * 16 * V * 4


def test_without_gradients_none_are_made() -> None:
    hidden, weight = torch.randn(N, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    with Allocations() as seen, torch.no_grad():
        linear_cross_entropy(hidden, weight, None, torch.zeros(N, dtype=torch.long), kernel=Kernel("chunked", 16))
    operands = V * D * 4 + N * D * 4  # seen too; their gradients would be as much again
    assert seen.peak < 16 * V * 4 + 1.5 * operands


def test_what_is_made_of_logits_is_made_of_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a larger chunk only its bf16 logits are more: neither their fp32 nor their tanh."""
    monkeypatch.setattr(sizes, "_CACHED", V // torch.get_num_threads())
    small, large = (peak(Kernel("chunked", rows), dtype=torch.bfloat16, softcap=3.0) for rows in (16, 256))
    assert large - small < 1.1 * 240 * V * 2


def test_fp16_holds_all_logits_only_for_its_gradients() -> None:
    def seen(learns: bool) -> int:
        hidden, weight = torch.randn(N, D).half(), torch.randn(V, D).half().requires_grad_()
        with Allocations() as seen, torch.set_grad_enabled(learns):
            linear_cross_entropy(hidden, weight, None, torch.zeros(N, dtype=torch.long), kernel=Kernel("chunked", 16))
        return seen.peak

    assert seen(True) > N * V * 4
    assert seen(False) < N * V
