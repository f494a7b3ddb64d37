"""Which kernel is fastest here, for this shape: each proven equal to the plain formula first, then timed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from lmtrain.core.allocator import is_out_of_memory
from lmtrain.core.errors import first_line
from lmtrain.objectives.linear_cross_entropy.compiled import broken
from lmtrain.objectives.linear_cross_entropy.kernel import DEFAULT, PLAIN, Kernel, Terms
from lmtrain.objectives.linear_cross_entropy.libraries import liger_cannot, torch_cannot
from lmtrain.objectives.linear_cross_entropy.proof import Proof, Sample

_SIMPLEST_FIRST = ("plain", "chunked", "compiled", "torch", "liger")
_TIE = 1.05  # what is less than 5 % faster is not worth being less simple
_CHUNKS = {"cpu": (512,)}  # positions; 128 took 1.1 times as long with D = 256, 1.8 times with D = 128
_CHUNKS_ELSEWHERE = (1024, 4096)
_CHUNK_BYTES = {"cpu": 1 << 28}  # of a chunk's logits at most: 512 positions of a vocabulary of 131,072 in fp32
_CHUNK_BYTES_ELSEWHERE = 1 << 31
_OF_WHAT_IS_FREE = 8  # at most an eighth of it is a chunk's
_FEWEST = 16  # positions of a chunk, however little there is
_PLAIN_BYTES = 1 << 30  # of logits and what is made of them; above it, the plain way is no candidate
_COPIES = 4  # of the logits, that the plain way holds at its peak: in their format, in fp32, softmax, gradient
_SMALL = 1 << 20  # logits; they fit a cache, and the plain way is 14 % faster than a chunk (768 × 65)
_FEW = 64  # positions; fewer say little about a product
_HOPELESS = 3.0  # times the time of the fastest, on a few positions
_COMPILE_S = 10.0  # of the two kernels (with gradient, without), nothing in the compiler's cache
# Of the time, at most. In fp32 the passes are a tenth of it where products run at 110 GFLOP/s, and the compiled kernel
# was 1.1 times as slow (D = 256, V = 50,257); beside products in bf16 they weigh more.
_COMPILE_SAVES, _NARROW_SAVES = 0.08, 0.6
_HOPE = 0.33  # of the most that it could save
_TRIAL = 4  # weights' worth of fp32 that a trial holds: the weight, two gradients to compare, narrow copies of them
_NO_MEMORY = "there is not the memory to try it"


@dataclass(frozen=True, slots=True)
class Choice:
    """``kernel`` and why; ``measured`` what each candidate took, in seconds for all positions, forward and
    backward; ``dropped`` why the others are none."""

    kernel: Kernel
    reason: str
    measured: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def choose_kernel(
    positions: int,
    hidden_size: int,
    vocab_size: int,
    device: torch.device,
    compute_dtype: torch.dtype,
    *,
    bias: bool = False,
    frozen: bool = False,
    weighted: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    planned_steps: int = 0,
    free: int | None = None,
    budget_s: float = 1.0,
    seed: int = 0,
) -> Choice:
    """The fastest kernel for ``positions`` predicted positions a step, at most 5 % behind it the simplest.

    Random operands of the real D and V; ``compute_dtype`` is the format of the products, with fp32 weights, which want
    no gradient where the head is ``frozen``.
    Each candidate has to equal ``plain`` first, in the loss and in every gradient, on a few positions
    (:data:`lmtrain.objectives.linear_cross_entropy.proof.BOUNDS`), and is then timed on as many positions as
    ``budget_s`` seconds allow, at least on the largest chunk: with a large head the whole takes about as long
    as two steps. A kernel is compiled only if its saving over ``planned_steps`` can exceed the time of
    compiling. Chunks are such that their logits fit an eighth of the ``free`` bytes of the device's memory. Measuring
    holds the weight about four times; where that does not fit nothing is measured, and what fails for want of memory
    is no candidate.
    """
    terms = Terms(label_smoothing, z_loss, softcap)
    if positions * vocab_size <= _SMALL:
        return Choice(PLAIN, "the logits are small")
    if compute_dtype is torch.float16:
        return Choice(PLAIN, "gradients in fp16 need the loss scale before they are made")
    needed = _TRIAL * hidden_size * vocab_size * 4
    if free is not None and needed > free:
        return Choice(DEFAULT, f"trying others takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free")
    try:
        sample = Sample.draw(positions, hidden_size, vocab_size, device, compute_dtype, terms,
                             bias=bias, weighted=weighted, seed=seed, frozen=frozen)  # fmt: skip
        return _choose(sample, positions, planned_steps, free, budget_s)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return Choice(DEFAULT, _NO_MEMORY)


def _choose(sample: Sample, positions: int, planned_steps: int, free: int | None, budget_s: float) -> Choice:
    candidates, dropped = _candidates(sample, positions, free)
    candidates = _proven(candidates, sample, dropped)
    if any(kernel.name == "chunked" for kernel in candidates):
        rate, candidates = _first_look(candidates, sample, dropped)
    if not any(kernel.name == "chunked" for kernel in candidates):
        starved = _NO_MEMORY in dropped.values()  # else something is amiss with this machine
        return Choice(DEFAULT, _NO_MEMORY, dropped=dropped) if starved else decide({}, dropped)
    affordable = int(budget_s / len(candidates) / rate)
    rows = min(positions, max(affordable, *(kernel.positions or 0 for kernel in candidates)))
    timed = sample.first(rows)
    measured = _timed(candidates, timed, budget_s, dropped)
    if not measured:
        return Choice(DEFAULT, _NO_MEMORY, dropped=dropped)
    step_s = min(measured.values()) * positions / rows
    saves = _COMPILE_SAVES if sample.hidden.dtype == sample.compute else _NARROW_SAVES
    chunked = [kernel for kernel in measured if kernel.name == "chunked"]
    if chunked and _worth_compiling(step_s * saves * planned_steps, planned_steps, dropped):
        # Of the best chunk alone: every size is compiled for itself.
        best = min(chunked, key=lambda k: (measured[k], str(k)))
        compiled = _proven([Kernel("compiled", best.positions)], sample, dropped)
        measured |= _timed(compiled, timed, budget_s / 4, dropped)
    return decide({kernel: seconds * positions / rows for kernel, seconds in measured.items()}, dropped)


def bounded(kernel: Kernel, positions: int, vocab_size: int, *, gradients: bool) -> Kernel:
    """``kernel``; but ``plain`` only where so many logits may lie about: in an evaluation (without ``gradients``) those
    that fit a cache, so that its memory is that of a chunk whatever the batch. The layout was chosen for products that
    an evaluation does not make."""
    many = positions * vocab_size > (_PLAIN_BYTES // (4 * _COPIES) if gradients else _SMALL)
    if kernel.name == "plain":
        return DEFAULT if many else kernel
    return kernel if gradients else replace(kernel, vocabulary_first=False)


def decide(measured: Mapping[Kernel, float], dropped: Mapping[str, str] | None = None) -> Choice:
    """The simplest of those within 5 % of the fastest; of equally simple ones that with the smaller chunk."""
    if not measured:
        return Choice(PLAIN, "no other equals it", dropped=dict(dropped or {}))
    limit = min(measured.values()) * _TIE
    good = [kernel for kernel, seconds in measured.items() if seconds <= limit]
    # Among equals no clock decides: the same machine should come to the same answer.
    kernel = min(good, key=lambda k: (_SIMPLEST_FIRST.index(k.name), k.vocabulary_first, k.positions or 0))
    seconds = {str(k): round(s, 6) for k, s in measured.items()}
    others = ", ".join(f"{name} {s * 1e3:.3g} ms" for name, s in seconds.items() if name != str(kernel))
    reason = f"{measured[kernel] * 1e3:.3g} ms a step" + (f" ({others})" if others else ", the only one")
    return Choice(kernel, reason, seconds, dict(dropped or {}))


def _candidates(sample: Sample, positions: int, free: int | None) -> tuple[list[Kernel], dict[str, str]]:
    """What could be taken, and why the rest could not."""
    dropped: dict[str, str] = {}
    device, vocab = sample.weight.device, sample.weight.shape[0]
    found: list[Kernel] = []
    held = positions * vocab * 4 * _COPIES
    if held <= (_PLAIN_BYTES if free is None else min(_PLAIN_BYTES, free)):
        found.append(PLAIN)
    else:
        dropped["plain"] = f"its logits would take {held / 2**30:.1f} GiB"
    room = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE)
    room = room if free is None else min(room, free // _OF_WHAT_IS_FREE)
    sizes = _sizes(room // (vocab * sample.compute.itemsize), device)
    # A chunk larger than all positions is one chunk: the largest of them stands for those.
    sizes = tuple(size for i, size in enumerate(sizes) if i == 0 or sizes[i - 1] < positions)
    # Laid out as (V, positions) a chunk is passed over as a whole, and what is made of it is as large.
    passes = 4 * ((sample.compute.itemsize < 4) + (sample.terms.softcap is not None))
    for size in sizes:
        found.append(Kernel("chunked", size))
        fits = size * vocab * (sample.compute.itemsize + passes) <= room
        if device.type == "cpu" and vocab > sample.weight.shape[1] and fits:
            found.append(Kernel("chunked", size, vocabulary_first=True))
    problem = sample.problem()
    for name, cannot in (("torch", torch_cannot(problem)), ("liger", liger_cannot(problem))):
        if cannot is None:
            found.append(Kernel("torch", sizes[-1]) if name == "torch" else Kernel("liger"))
        else:
            dropped[name] = cannot
    return found, dropped


def _sizes(most: int, device: torch.device) -> tuple[int, ...]:
    """Positions of the chunks to try: of those that do best the ones that are at most ``most``, else the largest power
    of two that is."""
    fitting = tuple(size for size in _CHUNKS.get(device.type, _CHUNKS_ELSEWHERE) if size <= most)
    return fitting or (max(_FEWEST, 1 << (max(most, 1).bit_length() - 1)),)


def _proven(candidates: list[Kernel], sample: Sample, dropped: dict[str, str]) -> list[Kernel]:
    """Those that equal the plain formula; into ``dropped`` why the others do not."""
    proof = Proof(sample)
    proven = []
    for kernel in candidates:
        try:
            problem = proof.difference(kernel)
        except Exception as error:  # a library's own trouble: Triton's are of many kinds, and its C compiler's
            problem = _failure(error)
        if kernel.name == "compiled" and broken():
            problem = f"it cannot be compiled here: {broken()}"
        if problem is None:
            proven.append(kernel)
        else:
            dropped[str(kernel)] = problem
    return proven


def _failure(error: Exception) -> str:
    if is_out_of_memory(error):
        return _NO_MEMORY
    return f"it fails: {first_line(error)}"


def _first_look(candidates: list[Kernel], sample: Sample, dropped: dict[str, str]) -> tuple[float, list[Kernel]]:
    """Seconds of a position, roughly, and the candidates without those of others that are hopelessly slow here."""
    few = sample.first(_FEW)
    looks = {kernel: [_seconds(kernel, few, dropped) for _ in range(2)] for kernel in candidates}
    seconds = {kernel: min(taken) for kernel, taken in looks.items() if str(kernel) not in dropped}
    least = min(seconds.values(), default=0.0)
    hopeful = []
    for kernel, taken in seconds.items():
        if kernel.name in ("torch", "liger") and taken > _HOPELESS * least:
            dropped[str(kernel)] = f"it takes {taken / least:.1f}× the time of the fastest"
        else:
            hopeful.append(kernel)
    return least / few.labels.numel(), hopeful


def _worth_compiling(saving: float, planned_steps: int, dropped: dict[str, str]) -> bool:
    """Whether ``saving``, the most seconds it could save, are more than compiling takes."""
    if saving * _HOPE > _COMPILE_S:
        return True
    dropped["compiled"] = (
        f"compiling takes about {_COMPILE_S:.0f} s and could save {saving:.2g} s in {planned_steps} steps"
    )
    return False


def _timed(candidates: list[Kernel], sample: Sample, budget_s: float, dropped: dict[str, str]) -> dict[Kernel, float]:
    """Seconds of each, all of them in turns; the least, since what else the machine does only ever adds."""
    times: dict[Kernel, list[float]] = {kernel: [] for kernel in candidates}
    end = time.perf_counter() + budget_s
    while candidates:
        for kernel in candidates:
            times[kernel].append(_seconds(kernel, sample, dropped))
        candidates = [kernel for kernel in candidates if str(kernel) not in dropped]
        if time.perf_counter() >= end or all(len(times[kernel]) >= 50 for kernel in candidates):
            break
    return {kernel: min(times[kernel]) for kernel in candidates}


def _seconds(kernel: Kernel, sample: Sample, dropped: dict[str, str]) -> float:
    """Of one pass; what there is not the memory for goes into ``dropped``, and takes for ever."""
    try:
        return sample.seconds(kernel)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        dropped[str(kernel)] = _NO_MEMORY
        return math.inf
