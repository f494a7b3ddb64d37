"""The compiled elementwise part: the same numbers, one compilation for every length, none where it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from lmtrain.objectives.linear_cross_entropy import PLAIN, Kernel, choose_kernel, linear_cross_entropy
from lmtrain.objectives.linear_cross_entropy.compiled import broken

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
COMPILED = Kernel("compiled", 8)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()  # or the tests would share one process's limit of compilations
    yield
    torch._dynamo.reset()


def results(
    kernel: Kernel, n: int, dtype: torch.dtype = torch.float64, weighted: bool = True, **terms
) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(n)
    operands = [torch.randn(*shape, generator=chance).to(dtype).requires_grad_() for shape in ((n, 5), (23, 5), (23,))]
    labels = torch.randint(23, (n,), generator=chance)
    weights = torch.rand(n, generator=chance) if weighted else None
    found = linear_cross_entropy(*operands, labels, weights, kernel=kernel, accuracy=True, dtype=torch.float64, **terms)
    return [found.loss.detach(), found.correct, *torch.autograd.grad(found.loss / 3, operands)]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor], bound: float) -> None:
    for mine, plain in zip(found, expected, strict=True):
        assert mine.dtype == plain.dtype
        assert (mine - plain).abs().max() <= bound * plain.abs().max()


@needs_compiler
@pytest.mark.parametrize(
    "terms", [{}, {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 3.0, "scale": 0.5}], ids=["bare", "all"]
)
def test_any_number_of_positions_is_one_compilation(terms) -> None:
    with torch._dynamo.config.patch(recompile_limit=1):  # a second one, for another length, would fail
        for n in (21, 8, 3, 1):
            assert_same(results(COMPILED, n, **terms), results(PLAIN, n, **terms), 1e-12)
    assert broken() is None


@needs_compiler
def test_bf16_and_no_weights(caplog) -> None:
    for dtype, bound in ((torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        assert_same(results(COMPILED, 13, dtype, weighted=False), results(PLAIN, 13, dtype, weighted=False), bound)
    assert broken() is None
    assert not [record for record in caplog.records if record.name.startswith("lmtrain")]


@needs_compiler
def test_without_gradients() -> None:
    chance = torch.Generator().manual_seed(0)
    h, w, labels = torch.randn(11, 5, generator=chance), torch.randn(23, 5, generator=chance), torch.arange(11)
    found, plain = (linear_cross_entropy(h, w, None, labels, kernel=k).loss for k in (COMPILED, PLAIN))
    assert found.item() == pytest.approx(plain.item(), rel=1e-6) and not found.requires_grad


NO_COMPILER = """
import logging, torch
logging.basicConfig(format="%(message)s")
from lmtrain.objectives.linear_cross_entropy import PLAIN, Kernel, choose_kernel, linear_cross_entropy
from lmtrain.objectives.linear_cross_entropy import choose
choose._SMALL = 0
h, w = torch.randn(21, 5, requires_grad=True), torch.randn(23, 5, requires_grad=True)
def gradients(kernel, **terms):
    loss = linear_cross_entropy(h, w, None, torch.arange(21), kernel=kernel, **terms).loss
    return torch.stack([g.norm() for g in torch.autograd.grad(loss, (h, w))])
for terms in ({}, {"softcap": 3.0}):
    for _ in range(2):
        torch.testing.assert_close(gradients(Kernel("compiled", 8), **terms), gradients(PLAIN, **terms))
choice = choose_kernel(30, 5, 23, torch.device("cpu"), torch.float32, planned_steps=10**9, budget_s=0.01)
assert "cannot be compiled" in choice.dropped["compiled by 512 positions"], choice
assert choice.kernel.name != "compiled"
print("went on")
"""


@pytest.mark.slow
def test_without_a_compiler_it_goes_on_with_one_line(tmp_path) -> None:
    nothing = {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", NO_COMPILER], capture_output=True, text=True, env=os.environ | nothing)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "went on\n"
    assert done.stderr.count("cannot be made here") == 1


@needs_compiler
@pytest.mark.slow
def test_it_is_a_candidate_when_there_are_steps_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtrain.objectives.linear_cross_entropy.choose._SMALL", 0)
    choice = choose_kernel(30, 5, 23, torch.device("cpu"), torch.float32, planned_steps=10**9, budget_s=0.01)
    assert choice.measured["compiled by 512 positions"] > 0
