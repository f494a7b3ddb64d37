"""Kernels prove themselves, the fastest is taken, and what was taken is replayed."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from lmtrain.objectives.linear_cross_entropy import (
    DEFAULT,
    PLAIN,
    Kernel,
    bounded,
    choose_kernel,
    linear_cross_entropy,
)
from lmtrain.objectives.linear_cross_entropy.choose import decide
from lmtrain.objectives.linear_cross_entropy.kernel import Terms
from lmtrain.objectives.linear_cross_entropy.proof import BOUNDS, Proof, Sample, bound_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def nothing_is_too_small_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtrain.objectives.linear_cross_entropy.choose._SMALL", 0)


SMALL, LARGE = Kernel("chunked", 128), Kernel("chunked", 512)
OTHER_WAY, COMPILED = Kernel("chunked", 128, vocabulary_first=True), Kernel("compiled", 128)


def draw(**given) -> Sample:
    options = {
        "bias": True,
        "weighted": True,
        "seed": 3,
        "compute": torch.float32,
        "terms": Terms(0.1, 0.01, 5.0),
    } | given
    compute, terms = options.pop("compute"), options.pop("terms")
    return Sample.draw(50, 6, 30, CPU, compute, terms, **options)


@pytest.mark.parametrize(
    ("measured", "taken"),
    [
        ({PLAIN: 1.0, SMALL: 0.97}, PLAIN),
        ({PLAIN: 1.0, SMALL: 0.9}, SMALL),
        ({LARGE: 1.0, SMALL: 1.04}, SMALL),
        ({LARGE: 1.0, SMALL: 1.06}, LARGE),
        ({OTHER_WAY: 1.0, LARGE: 1.04}, LARGE),
        ({OTHER_WAY: 1.0, LARGE: 1.06}, OTHER_WAY),
        ({COMPILED: 1.0, LARGE: 1.04, SMALL: 1.1}, LARGE),
        ({COMPILED: 1.0, LARGE: 1.5}, COMPILED),
        ({}, PLAIN),
    ],
)
def test_the_simplest_of_the_fastest_is_taken_in_any_order(measured, taken) -> None:
    assert decide(measured).kernel == taken
    assert decide(dict(reversed(measured.items()))).kernel == taken


def test_a_choice_says_what_was_measured_and_dropped() -> None:
    choice = decide({SMALL: 0.25, PLAIN: 0.5}, {"liger": "it needs a GPU"})
    assert choice.measured == {"chunked by 128 positions": 0.25, "plain": 0.5}
    assert choice.reason == "250 ms a step (plain 500 ms)"
    assert choice.dropped == {"liger": "it needs a GPU"}


@pytest.mark.parametrize("compute", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", [SMALL, OTHER_WAY], ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_right_kernel_proves_itself(kernel, compute, frozen) -> None:
    proof = Proof(draw(compute=compute, frozen=frozen))
    assert ("gradient of the weight" in proof.expected) != frozen
    assert proof.difference(kernel) is None


def test_a_gpu_that_drops_bits_is_allowed_what_that_explains() -> None:
    before = bound_of(torch.float32, GPU)
    torch.backends.fp32_precision = "tf32"  # as transformers sets it for --tf32
    try:
        coarse = [bound_of(torch.float32, GPU), bound_of(torch.float32, CPU), bound_of(torch.float64, GPU)]
    finally:
        torch.backends.fp32_precision = "none"
    assert before == BOUNDS[torch.float32] == coarse[1] < coarse[0] < BOUNDS[torch.bfloat16]
    assert coarse[2] == BOUNDS[torch.float64]


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "loss without gradients",
        "gradient of the hidden states",
        "gradient of the weight",
        "gradient of the bias",
    ],
)
@pytest.mark.parametrize(
    "change", [lambda t: t * 1.001, lambda t: t * float("nan"), torch.zeros_like], ids=["0.1 %", "NaN", "zero"]
)
def test_a_wrong_result_anywhere_is_seen(name, change) -> None:
    proof = Proof(draw())
    found = proof.results(SMALL)
    assert proof.compare(found) is None
    assert name in str(proof.compare(found | {name: change(found[name])}))


def test_one_wrong_row_of_a_gradient_is_seen() -> None:
    proof = Proof(draw())
    found = proof.results(SMALL)
    row = int(found["gradient of the weight"].abs().amax(-1).argmax())
    found["gradient of the weight"][row] *= 1.01
    assert "gradient of the weight" in str(proof.compare(found))


def test_the_proof_uses_all_terms() -> None:
    results = [
        draw(terms=terms).run(PLAIN).loss.item() for terms in (Terms(), Terms(0.1), Terms(0, 0.1), Terms(0, 0, 2.0))
    ]
    results.append(draw(terms=Terms(), weighted=False).run(PLAIN).loss.item())
    assert len(set(results)) == 5


def test_a_sample_is_a_function_of_its_seed_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    one, two, other = draw(), draw(), draw(seed=4)
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_choice_is_made_and_replayed() -> None:
    choice = choose_kernel(200, 8, 50, CPU, torch.float32, bias=True, budget_s=0.05)
    assert {"plain", "chunked by 512 positions"} <= set(choice.measured) | set(choice.dropped)
    assert "GPU" in choice.dropped["liger"]
    assert "could save" in choice.dropped["compiled"]
    assert all(seconds > 0 for seconds in choice.measured.values()) and str(choice.kernel) in choice.measured
    kernel = Kernel.from_json(json.loads(json.dumps(choice.kernel.as_json())))
    assert kernel == choice.kernel
    h, w = torch.randn(200, 8), torch.randn(50, 8)
    labels = torch.randint(50, (200,))
    found, again = (linear_cross_entropy(h, w, None, labels, kernel=k).loss.item() for k in (choice.kernel, kernel))
    assert found == again


def test_the_plain_way_is_no_candidate_where_its_logits_are_too_many() -> None:
    choice = choose_kernel(40_000, 2, 2_000, CPU, torch.float32, budget_s=0.01)
    assert "GiB" in choice.dropped["plain"] and choice.kernel.name != "plain"


def test_fp16_stays_plain() -> None:
    assert choose_kernel(200, 8, 50, CPU, torch.float16).kernel == PLAIN


def test_torchs_kernel_is_no_candidate_for_what_it_cannot_do() -> None:
    choice = choose_kernel(20, 4, 9, CPU, torch.float32, label_smoothing=0.1, budget_s=0.01)
    assert "smoothing" in choice.dropped["torch"] or "has none" in choice.dropped["torch"]


def test_a_librarys_kernel_that_is_hopelessly_slow_is_not_timed_at_length(monkeypatch) -> None:
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        pytest.skip("this torch has no such kernel")
    clock = {"plain": 1.0, "chunked": 5.0, "torch": 4.0}
    looks: list[str] = []

    def seconds(sample: Sample, kernel: Kernel) -> float:
        looks.append(kernel.name)
        return clock[kernel.name]

    monkeypatch.setattr(Sample, "seconds", seconds)
    choice = choose_kernel(200, 8, 50, CPU, torch.float32, budget_s=0.0)
    assert choice.kernel == PLAIN
    assert choice.dropped["torch by 512 positions"] == "it takes 4.0× the time of the fastest"
    assert looks.count("torch") == 2 and {"plain", "chunked by 512 positions"} <= set(choice.measured)


@pytest.mark.parametrize(("compute", "steps", "compiles"), [
    (torch.float32, 378, False), (torch.float32, 379, True), (torch.bfloat16, 50, False), (torch.bfloat16, 51, True)
])  # fmt: skip
def test_compiling_has_to_pay_within_the_planned_steps(monkeypatch, compute, steps, compiles) -> None:
    # At a second a step a third of 8 % is hoped for in fp32, of 60 % in bf16, and compiling takes ten seconds.
    monkeypatch.setattr(Sample, "seconds", lambda sample, kernel: 0.9 if kernel.name == "compiled" else 1.0)
    monkeypatch.setattr(Proof, "difference", lambda proof, kernel: None)  # or it would be compiled here
    choice = choose_kernel(100, 8, 50, CPU, compute, planned_steps=steps, budget_s=0.0)
    assert (choice.kernel.name == "compiled") == compiles
    assert ("compiled" in choice.dropped) != compiles


def test_small_logits_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtrain.objectives.linear_cross_entropy.choose._SMALL", 1 << 20)
    choice = choose_kernel(768, 128, 65, CPU, torch.float32, planned_steps=2000)
    assert (choice.kernel, choice.measured) == (PLAIN, {})


# ---- memory --------------------------------------------------------------------------------------


def test_chunks_fit_an_eighth_of_what_is_free() -> None:
    choice = choose_kernel(200, 8, 50, CPU, torch.float32, free=8 * 50 * 4 * 100, budget_s=0.01)
    names = {*choice.measured, *choice.dropped}
    assert "chunked by 64 positions" in names and not any("512" in name for name in names)
    narrow = choose_kernel(200, 8, 50, CPU, torch.bfloat16, free=8 * 50 * 4 * 100, budget_s=0.01)
    names = {*narrow.measured, *narrow.dropped}
    assert "chunked by 128 positions" in names, "half as wide, so twice as many"
    assert "chunked by 128 positions, vocabulary first" not in names, "which would be made fp32 as a whole"


def test_of_a_large_vocabulary_chunks_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sample, "seconds", lambda sample, kernel: 1.0)
    monkeypatch.setattr(Proof, "__init__", lambda proof, sample: None)  # nothing of that size is computed here
    monkeypatch.setattr(Proof, "difference", lambda proof, kernel: None)
    choice = choose_kernel(4096, 1, 262_144, CPU, torch.float32)
    assert set(choice.measured) >= {"chunked by 256 positions", "chunked by 256 positions, vocabulary first"}
    assert not any("512" in name for name in choice.measured)


def test_without_room_for_a_trial_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sample, "draw", None)
    choice = choose_kernel(200, 1000, 2**20, CPU, torch.float32, free=2**30)
    assert (choice.kernel, choice.reason) == (DEFAULT, "trying others takes 15.6 GiB, and 1.0 are free")


CPU_MESSAGE = "[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_MESSAGE)], ids=["GPU", "CPU"]
)
@pytest.mark.parametrize("positions", [20, 100], ids=["at the first look", "when it is timed"])
def test_what_runs_out_of_memory_is_no_candidate(monkeypatch: pytest.MonkeyPatch, error, positions: int) -> None:
    real = Sample.seconds

    def seconds(sample: Sample, kernel: Kernel) -> float:
        if kernel == PLAIN and sample.labels.numel() > positions:
            raise error
        return real(sample, kernel)

    monkeypatch.setattr(Sample, "seconds", seconds)
    choice = choose_kernel(200, 8, 50, CPU, torch.float32, budget_s=0.01)
    assert choice.kernel.name != "plain" and choice.dropped["plain"] == "there is not the memory to try it"


@pytest.mark.parametrize(
    "error", [subprocess.CalledProcessError(1, ["gcc"]), FileNotFoundError("ptxas")], ids=["no headers", "no assembler"]
)
def test_a_librarys_kernel_that_cannot_be_made_is_no_candidate(monkeypatch: pytest.MonkeyPatch, error) -> None:
    """Triton makes its kernels when they are first called, with a C compiler, whose errors it passes on."""
    real = Sample.results

    def results(sample: Sample, kernel: Kernel):
        if kernel.vocabulary_first:
            raise error
        return real(sample, kernel)

    monkeypatch.setattr(Sample, "results", results)
    choice = choose_kernel(200, 8, 50, CPU, torch.float32, budget_s=0.01)
    assert choice.dropped["chunked by 512 positions, vocabulary first"].startswith("it fails: ")


@pytest.mark.parametrize("where", ["draw", "results", "seconds"])
def test_where_nothing_can_be_tried_the_default_is_taken(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Sample, where, fail)
    choice = choose_kernel(200, 8, 50, CPU, torch.float32)
    assert (choice.kernel, choice.reason) == (DEFAULT, "there is not the memory to try it")


def test_another_error_is_no_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sample: Sample, kernel: Kernel) -> float:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(Sample, "seconds", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        choose_kernel(200, 8, 50, CPU, torch.float32)


@pytest.mark.parametrize(
    ("positions", "vocab", "learns", "stays"),
    [
        (1000, 1000, False, True),
        (8 * 1024, 50_257, False, False),  # an evaluation of what 1 × 1,024 was chosen for
        (1024, 50_257, True, True),
        (2048, 50_257, True, False),
    ],
)
def test_plain_is_kept_for_as_many_logits_as_may_lie_about(
    monkeypatch: pytest.MonkeyPatch, positions: int, vocab: int, learns: bool, stays: bool
) -> None:
    monkeypatch.setattr("lmtrain.objectives.linear_cross_entropy.choose._SMALL", 1 << 20)
    assert bounded(PLAIN, positions, vocab, gradients=learns) == (PLAIN if stays else DEFAULT)
    assert bounded(LARGE, positions, vocab, gradients=learns) == LARGE
    assert bounded(OTHER_WAY, positions, vocab, gradients=learns) == (OTHER_WAY if learns else SMALL)
