"""Every kernel against the formula written out in fp64: value and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmtrain.objectives import IGNORED
from lmtrain.objectives.linear_cross_entropy import DEFAULT, PLAIN, Kernel, LinearLoss, linear_cross_entropy
from lmtrain.objectives.linear_cross_entropy import kernel as sizes

CHUNKED = Kernel("chunked", 4)
VOCABULARY_FIRST = Kernel("chunked", 4, vocabulary_first=True)
TORCH = Kernel("torch", 4)
LIBRARY = [TORCH] if hasattr(torch.nn.functional, "linear_cross_entropy") else []
KERNELS = [PLAIN, DEFAULT, CHUNKED, VOCABULARY_FIRST, *LIBRARY]
ids = str


class Operands:
    """Random operands, and the same in fp64 for the formula."""

    def __init__(
        self, n: int, vocab: int, width: int, *, bias: bool = True, seed: int = 0, ignored: float = 0.0
    ) -> None:
        chance = torch.Generator().manual_seed(seed)
        self.hidden = torch.randn(n, width, generator=chance, dtype=torch.float64)
        self.weight = torch.randn(vocab, width, generator=chance, dtype=torch.float64)
        self.bias = torch.randn(vocab, generator=chance, dtype=torch.float64) if bias else None
        self.labels = torch.randint(vocab, (n,), generator=chance)
        self.labels[torch.rand(n, generator=chance) < ignored] = IGNORED
        self.weights = torch.rand(n, generator=chance, dtype=torch.float64) * 2

    def to(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        moved = [None if t is None else t.to(dtype).requires_grad_() for t in (self.hidden, self.weight, self.bias)]
        return moved[0], moved[1], moved[2], self.labels  # type: ignore[return-value]


def formula(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None = None, *,
    label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None, scale: float = 1.0,
) -> Tensor:  # fmt: skip
    """Position after position, as the definition says; nothing of the package."""
    total = (hidden.sum() + weight.sum()) * 0
    for i, label in enumerate(labels.tolist()):
        if label == IGNORED:
            continue
        logits = scale * (weight @ hidden[i] + (0 if bias is None else bias))
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        log_p = logits - torch.logsumexp(logits, 0)
        loss = -(1 - label_smoothing) * log_p[label] - label_smoothing * log_p.mean()
        loss = loss + z_loss * torch.logsumexp(logits, 0) ** 2
        total = total + loss * (1 if weights is None else weights[i])
    return total


def gradients(loss: Tensor, operands: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Of a third of the loss, so that a factor from outside that gets lost is seen."""
    return list(torch.autograd.grad(loss / 3, [t for t in operands if t is not None]))


def assert_near(found: Tensor, expected: Tensor, bound: float, floor: float = 1e-6) -> None:
    """Largest difference relative to the largest value, or to ``floor`` where that is more."""
    assert found.shape == expected.shape
    if expected.numel():
        difference, largest = (found.double() - expected.double()).abs().max(), float(expected.abs().max())
        assert difference <= bound * max(largest, floor), float(difference)


def assert_is_the_formula(
    operands: Operands, kernel: Kernel, dtype: torch.dtype, bound: float, weights=None, *, frozen: bool = False, **terms
):
    """In the loss and every gradient; of the hidden states alone where the head is ``frozen``; and in an evaluation."""
    h, w, b, labels = operands.to(dtype)
    if frozen:
        w, b = w.detach(), None if b is None else b.detach()
    found = linear_cross_entropy(h, w, b, labels, weights, kernel=kernel, dtype=torch.float64, **terms)
    h64, w64, b64, _ = operands.to(torch.float64)
    expected = formula(h64, w64, b64, labels, weights, **terms)
    assert_near(found.loss.detach(), expected.detach(), bound)
    with torch.no_grad():
        evaluated = linear_cross_entropy(h, w, b, labels, weights, kernel=kernel, dtype=torch.float64, **terms)
    assert_near(evaluated.loss, expected.detach(), bound)
    if b is not None and not labels.ne(IGNORED).any():
        expected = expected + b64.sum() * 0
    # A gradient may come out small by cancellation; it is rounded like what it is the sum of.
    floors = [0.1 * float(t.detach().abs().max()) if t.numel() else 0.0 for t in (w64, h64, torch.ones(1))]
    found_gradients = gradients(found.loss, (h,) if frozen else (h, w, b))
    expected_gradients = gradients(expected, (h64, w64, b64))[: len(found_gradients)]
    for mine, theirs, floor in zip(found_gradients, expected_gradients, floors, strict=False):
        assert mine.dtype == dtype
        assert_near(mine, theirs, bound, floor)
    return found


@st.composite
def problems(draw):
    n, vocab, width = draw(st.integers(0, 19)), draw(st.integers(2, 40)), draw(st.integers(1, 9))
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    operands = Operands(n, vocab, width, bias=draw(st.booleans()), seed=draw(st.integers(0, 99)), ignored=share)
    terms = {
        "label_smoothing": draw(st.sampled_from([0.0, 0.1])),
        "z_loss": draw(st.sampled_from([0.0, 1e-2])),
        "softcap": draw(st.sampled_from([None, 2.0])),
        "scale": draw(st.sampled_from([1.0, 0.25])),
    }
    weights = operands.weights if draw(st.booleans()) else None
    kernel = draw(
        st.sampled_from([PLAIN, DEFAULT])
        | st.builds(Kernel, st.just("chunked"), st.integers(1, 25), st.booleans())
        | st.sampled_from(LIBRARY or [PLAIN])
    )
    return operands, kernel, weights, terms


CACHES = (1, 50, 1 << 20)  # logits: a row at a time, some, all


@settings(deadline=None, max_examples=100)
@given(problems(), st.sampled_from(CACHES), st.booleans())
def test_value_and_gradients_are_those_of_the_formula(problem, cache: int, frozen: bool) -> None:
    operands, kernel, weights, terms = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "_CACHED", cache)
        assert_is_the_formula(operands, kernel, torch.float64, 1e-12, weights, frozen=frozen, **terms)
        assert_is_the_formula(operands, kernel, torch.float32, 2e-5, weights, frozen=frozen, **terms)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 99), st.sampled_from(CACHES), st.booleans())
def test_hits_are_those_of_arg_max_however_many_are_equal(
    n: int, vocab: int, seed: int, cache: int, capped: bool
) -> None:
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randint(3, (n, vocab), generator=chance).float()
    labels = torch.randint(vocab, (n,), generator=chance)
    expected = logits.argmax(-1).eq(labels).sum().item()
    terms = {"accuracy": True, "softcap": 0.1 if capped else None}  # which makes ties of what differs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "_CACHED", cache)
        for kernel in (PLAIN, CHUNKED, VOCABULARY_FIRST):
            for learns in (False, True):
                weight = logits.t().contiguous().requires_grad_(learns)
                found = linear_cross_entropy(torch.eye(n), weight, None, labels, kernel=kernel, **terms)
                assert found.correct.item() == expected


@pytest.mark.parametrize("kernel", KERNELS[:4], ids=ids)
@pytest.mark.parametrize("terms", [{}, {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 3.0}], ids=["bare", "all"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("cache", CACHES)
def test_bf16_is_within_its_rounding(kernel, terms, frozen, cache, monkeypatch) -> None:
    # Products and their results are bf16 (2⁻⁹ each way); the loss is summed in fp32 from bf16 logits.
    monkeypatch.setattr(sizes, "_CACHED", cache)
    assert_is_the_formula(Operands(13, 23, 8), kernel, torch.bfloat16, 2e-2, frozen=frozen, **terms)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kernel", [CHUNKED, VOCABULARY_FIRST], ids=ids)
def test_autocast_multiplies_in_its_format_and_keeps_fp32_gradients(kernel, cache: int, monkeypatch) -> None:
    monkeypatch.setattr(sizes, "_CACHED", cache)
    operands = Operands(13, 23, 8)
    h, w, b, labels = operands.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(h, w, b, labels, kernel=kernel)
        plain = linear_cross_entropy(h, w, b, labels, kernel=PLAIN)
        reference = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(h, w, b).float(), labels, reduction="sum"
        )
    assert found.loss.dtype == torch.float32
    assert plain.loss.item() == pytest.approx(reference.item(), rel=1e-6)
    assert found.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)  # the same bf16 logits, exact from there
    assert found.loss.item() != linear_cross_entropy(h, w, b, labels, kernel=kernel).loss.item()
    for mine, theirs in zip(gradients(found.loss, (h, w, b)), gradients(reference, (h, w, b)), strict=True):
        assert mine.dtype == torch.float32
        assert_near(mine, theirs, 2e-2)


@pytest.mark.parametrize("kernel", [CHUNKED, VOCABULARY_FIRST], ids=ids)
def test_narrow_logits_are_capped_in_fp32(kernel) -> None:
    h, w, b, labels = Operands(13, 23, 8).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = (
            linear_cross_entropy(h, w, b, labels, softcap=2.0, kernel=one).loss.item() for one in (kernel, PLAIN)
        )
    assert found == pytest.approx(plain, rel=2e-6)


def test_autocast_leaves_fp64_alone() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert_is_the_formula(Operands(5, 11, 3), CHUNKED, torch.float64, 1e-12)


def test_the_gradient_of_a_bf16_weight_is_added_up_in_fp32() -> None:
    # 300 positions of one kind push row 0 up by 1/3 each time: in bf16 the sum would stop growing near 128.
    hidden, weight = (
        torch.ones(600, 1, dtype=torch.bfloat16),
        torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True),
    )
    labels = torch.zeros(600, dtype=torch.long)
    linear_cross_entropy(hidden, weight, None, labels, kernel=Kernel("chunked", 1)).loss.backward()
    assert weight.grad is not None and weight.grad.flatten().tolist() == [-300.0, 300.0]


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_large_logits_neither_overflow_nor_lose_the_loss(kernel) -> None:
    hidden = torch.tensor([[1.0], [1.0], [-1.0]], requires_grad=True)
    weight = torch.tensor([[300.0], [0.0], [-300.0]], requires_grad=True)
    labels = torch.tensor([2, 0, 2])
    loss = linear_cross_entropy(hidden, weight, None, labels, kernel=kernel).loss
    assert loss.item() == pytest.approx(600.0)
    loss.backward()
    assert torch.isfinite(hidden.grad).all() and weight.grad.flatten().tolist() == [1.0, 0.0, -1.0]
    capped = linear_cross_entropy(hidden, weight, None, labels, softcap=5.0, kernel=kernel).loss  # far above the cap
    assert capped.item() == pytest.approx(10.0 + 3 * math.log(1 + math.exp(-5) + math.exp(-10)), rel=1e-6)


def test_words_that_are_ruled_out_are_so_wherever_they_stand(monkeypatch) -> None:
    """A bias of −∞, as for words that only fill a vocabulary up, may be that of a whole tile, and of the first."""
    monkeypatch.setattr(sizes, "_CACHED", 4)
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    for out in ([0, 1], [2, 3], [4, 5]):
        bias = torch.zeros(6).index_fill_(0, torch.tensor(out), float("-inf"))
        label = torch.tensor([min({0, 2, 4} - set(out))] * 2)
        found = linear_cross_entropy(hidden, weight, bias, label, kernel=CHUNKED, accuracy=True)
        expected = linear_cross_entropy(hidden, weight, bias, label, kernel=PLAIN)
        assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)


def test_a_sure_prediction_has_a_loss_that_is_not_rounded_away() -> None:
    # nll = log(1 + exp(-15)) ≈ 3e-7 beside logits of 1000: lse − x would give 0 or 6e-5.
    hidden, weight = torch.ones(1, 1), torch.tensor([[1000.0], [985.0]])
    loss = linear_cross_entropy(hidden, weight, None, torch.tensor([0])).loss
    assert loss.item() == pytest.approx(3.0590e-7, rel=0.2)  # of 1 + 3e-7, the next number of fp32


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
@pytest.mark.parametrize("n", [0, 5], ids=["no positions", "all ignored"])
def test_nothing_predicted_is_zero_with_zero_gradients(kernel, n) -> None:
    h, w, b, _ = Operands(n, 7, 3).to(torch.float32)
    found = linear_cross_entropy(h, w, b, torch.full((n,), IGNORED), kernel=kernel, accuracy=True)
    assert (found.loss.item(), found.weight.item(), found.count.item(), found.correct.item()) == (0, 0, 0, 0)
    found.loss.backward()
    for operand in (h, w, b):
        assert operand.grad is not None and operand.grad.shape == operand.shape and not operand.grad.any()


def test_an_ignored_position_may_hold_anything() -> None:
    h, w, b, labels = Operands(6, 7, 3).to(torch.float32)
    labels[2] = IGNORED
    broken = h.detach().clone()
    broken[2] = float("nan")
    broken.requires_grad_()
    found = linear_cross_entropy(broken, w, b, labels)
    found.loss.backward()
    assert found.loss.item() == linear_cross_entropy(h, w, b, labels).loss.item()
    assert torch.isfinite(w.grad).all() and not broken.grad[2].any()


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_counts_weights_and_hits(kernel) -> None:
    operands = Operands(29, 5, 4, ignored=0.3)
    h, w, b, labels = operands.to(torch.float32)
    keep = labels.ne(IGNORED)
    hits = (h @ w.t() + b).argmax(-1).eq(labels)[keep].sum().item()
    found = linear_cross_entropy(h, w, b, labels, operands.weights, kernel=kernel, accuracy=True, dtype=torch.float64)
    assert 0 < hits < keep.sum()
    assert (found.count.item(), found.count.dtype) == (keep.sum().item(), torch.int64)
    assert (found.correct.item(), found.correct.dtype) == (hits, torch.int64)
    assert found.weight.item() == pytest.approx(operands.weights[keep].sum().item(), rel=1e-6)
    assert (found.loss.dtype, found.weight.dtype) == (torch.float64, torch.float64)
    without = linear_cross_entropy(h, w, b, labels, kernel=kernel)
    assert without.correct is None and without.weight.item() == keep.sum().item()


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_leading_dimensions_and_strides_do_not_matter(kernel) -> None:
    operands = Operands(24, 11, 6, ignored=0.2)
    h, w, b, labels = operands.to(torch.float32)
    flat = linear_cross_entropy(h, w, b, labels, kernel=kernel).loss
    strided = h.detach().view(4, 6, 6).transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not strided.is_contiguous()
    loss = linear_cross_entropy(strided, w, b, labels.view(4, 6), kernel=kernel).loss
    assert loss.item() == flat.item()
    assert_near(torch.autograd.grad(loss, strided)[0].reshape(24, 6), torch.autograd.grad(flat, h)[0], 1e-6)


@pytest.mark.parametrize("kernel", [PLAIN, CHUNKED, VOCABULARY_FIRST, *LIBRARY], ids=ids)
@pytest.mark.parametrize("trained", ["hidden", "weight", "bias"])
def test_only_what_asks_for_a_gradient_gets_one(kernel, trained) -> None:
    h, w, b, labels = Operands(9, 7, 3).to(torch.float32)
    complete = dict(
        zip(("hidden", "weight", "bias"), gradients(linear_cross_entropy(h, w, b, labels).loss, (h, w, b)), strict=True)
    )
    operands = {"hidden": h, "weight": w, "bias": b}
    for name, operand in operands.items():
        operand.requires_grad_(name == trained)
    (linear_cross_entropy(h, w, b, labels, kernel=kernel).loss / 3).backward()
    for name, operand in operands.items():
        assert (operand.grad is not None) == (name == trained)
    assert_near(operands[trained].grad, complete[trained], 1e-6)


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_without_gradients_the_loss_is_the_same_and_not_in_a_graph(kernel) -> None:
    h, w, b, labels = Operands(9, 7, 3).to(torch.float32)
    terms = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 4.0}
    with torch.no_grad():
        found = linear_cross_entropy(h, w, b, labels, kernel=kernel, **terms)
    assert not found.loss.requires_grad
    learning = linear_cross_entropy(h, w, b, labels, kernel=kernel, **terms).loss.item()
    assert found.loss.item() == pytest.approx(learning, rel=1e-6)


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_the_weights_of_positions_are_given_not_learned(kernel) -> None:
    operands = Operands(9, 7, 3)
    h, w, b, labels = operands.to(torch.float32)
    weights = operands.weights.requires_grad_()
    found = linear_cross_entropy(h, w, b, labels, weights, kernel=kernel)
    found.loss.backward()
    assert weights.grad is None and not found.weight.requires_grad


@pytest.mark.parametrize("kernel", KERNELS, ids=ids)
def test_who_knows_that_all_are_predicted_may_say_so(kernel) -> None:
    operands = Operands(9, 7, 3)
    h, w, b, labels = operands.to(torch.float32)
    found, expected = (
        linear_cross_entropy(h, w, b, labels, operands.weights, kernel=kernel, accuracy=True, all_predicted=known)
        for known in (True, False)
    )
    assert (found.loss.item(), found.correct.item()) == (expected.loss.item(), expected.correct.item())
    assert (found.count.item(), found.weight.item()) == (9, expected.weight.item())


def test_operands_are_left_as_they_were() -> None:
    operands = Operands(9, 7, 3, ignored=0.3)
    h, w, b, labels = operands.to(torch.float32)
    before = [t.detach().clone() for t in (h, w, b, labels, operands.weights)]
    linear_cross_entropy(h, w, b, labels, operands.weights, scale=0.5, softcap=2.0, kernel=CHUNKED).loss.backward()
    assert all(torch.equal(t, old) for t, old in zip((h, w, b, labels, operands.weights), before, strict=True))


def test_a_tied_weight_adds_up_both_gradients() -> None:
    table = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([1, 4, 2])
    found, expected = (
        torch.autograd.grad(linear_cross_entropy(table[labels].tanh(), table, None, labels, kernel=k).loss, table)[0]
        for k in (CHUNKED, PLAIN)
    )
    assert_near(found, expected, 1e-6)


def test_two_losses_before_a_backward_keep_their_gradients_apart() -> None:
    h, w, b, labels = Operands(9, 7, 3).to(torch.float32)
    first = linear_cross_entropy(h[:4], w, b, labels[:4], kernel=CHUNKED).loss
    second = linear_cross_entropy(h[4:], w, b, labels[4:], kernel=CHUNKED).loss
    (first + second).backward()
    assert_near(w.grad / 3, gradients(linear_cross_entropy(h, w, b, labels, kernel=PLAIN).loss, (w,))[0], 1e-6)


def test_a_second_backward_or_derivative_says_that_there_is_none() -> None:
    h, w, b, labels = Operands(5, 7, 3).to(torch.float32)
    loss = linear_cross_entropy(h, w, b, labels, kernel=CHUNKED).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()
    loss = linear_cross_entropy(h, w, b, labels, kernel=CHUNKED).loss
    with pytest.raises(RuntimeError, match="differentiated again"):
        torch.autograd.grad(loss, h, create_graph=True)


def test_the_kernel_plain_can_be_differentiated_again() -> None:
    h, w, b, labels = Operands(3, 4, 2).to(torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda *t: linear_cross_entropy(*t, labels, kernel=PLAIN, dtype=torch.float64).loss, (h, w, b)
    )


@pytest.mark.parametrize("kernel", [CHUNKED, VOCABULARY_FIRST], ids=ids)
def test_gradients_are_those_of_finite_differences(kernel) -> None:
    h, w, b, labels = Operands(6, 5, 3, ignored=0.3).to(torch.float64)
    terms = {"label_smoothing": 0.2, "z_loss": 0.05, "softcap": 2.0, "scale": 0.7}

    def loss(*operands: Tensor) -> Tensor:
        return linear_cross_entropy(*operands, labels, kernel=kernel, dtype=torch.float64, **terms).loss

    for i, slope in enumerate(torch.autograd.grad(loss(h, w, b), (h, w, b))):
        for position in range(slope.numel()):
            step = torch.zeros_like(slope)
            step.view(-1)[position] = 1e-5
            up, down = ([t + sign * step if j == i else t for j, t in enumerate((h, w, b))] for sign in (1, -1))
            assert slope.view(-1)[position].item() == pytest.approx((loss(*up) - loss(*down)).item() / 2e-5, abs=1e-8)


def test_of_equal_logits_the_first_is_the_prediction() -> None:
    hidden, weight = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [1.0]])
    for kernel in (PLAIN, CHUNKED, VOCABULARY_FIRST):
        assert (
            linear_cross_entropy(hidden, weight, None, torch.tensor([2, 1, 0]), accuracy=True, kernel=kernel).correct
            == 1
        )


def test_fp16_gradients_wait_for_the_loss_scale() -> None:
    # A probability of 1e-5 under a weight of 1e-4 is 0 in fp16, unless the loss is scaled before it is made.
    weight = torch.tensor([[0.0], [-11.5]], dtype=torch.float16, requires_grad=True)
    hidden, labels = torch.ones(1, 1, dtype=torch.float16), torch.tensor([0])
    loss = linear_cross_entropy(hidden, weight, None, labels, torch.tensor([1e-4]), kernel=CHUNKED).loss
    (loss * 2**16).backward()
    assert weight.grad[1].item() == pytest.approx(1e-4 * 1.013e-5 * 2**16, rel=0.02)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden": torch.ones(2, 4)}, "4 values each, the weight takes 3"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"labels \(3,\)"),
        ({"weights": torch.ones(3)}, r"weights \(3,\)"),
        ({"bias": torch.ones(4)}, "for 5 words"),
        ({"labels": torch.zeros(2)}, "they are ids"),
        ({"weight": torch.ones(5, 3, dtype=torch.float64)}, "autocast"),
    ],
)
def test_what_does_not_fit_is_refused(change, text) -> None:
    given_ = {"hidden": torch.ones(2, 3), "weight": torch.ones(5, 3), "bias": None,
              "labels": torch.zeros(2, dtype=torch.long), "weights": None} | change  # fmt: skip
    with pytest.raises(ValueError, match=text):
        linear_cross_entropy(**given_)


@pytest.mark.parametrize("kernel", [PLAIN, CHUNKED, VOCABULARY_FIRST], ids=ids)
@pytest.mark.parametrize("label", [7, -1])
def test_a_label_outside_the_vocabulary_is_no_silent_loss(kernel, label) -> None:
    h, w, b, _ = Operands(3, 7, 3).to(torch.float32)
    with pytest.raises((IndexError, RuntimeError)):
        linear_cross_entropy(h, w, b, torch.tensor([0, label, 1]), kernel=kernel)


@pytest.mark.parametrize("kernel", [*KERNELS, Kernel("compiled", 512)], ids=ids)
def test_a_kernel_survives_json(kernel) -> None:
    import json

    assert Kernel.from_json(json.loads(json.dumps(kernel.as_json()))) == kernel


@pytest.mark.parametrize("settings_", [{"name": "fast"}, {"name": "chunked", "positions": 0}])
def test_an_unknown_kernel_is_refused(settings_) -> None:
    with pytest.raises(ValueError, match=r"no kernel|at least 1"):
        Kernel.from_json(settings_)


def test_the_result_is_one_value_with_names() -> None:
    h, w, b, labels = Operands(3, 7, 3).to(torch.float32)
    assert isinstance(linear_cross_entropy(h, w, b, labels), LinearLoss)
