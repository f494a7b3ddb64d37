"""What an emulated GPU has to refuse and to keep apart, for a test of it to be worth anything."""

from __future__ import annotations

from collections.abc import Callable

import torch

GPU = torch.device("cuda", 0)


def refused(kind: type[Exception], work: Callable[[], object], words: str) -> None:
    try:
        work()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nothing was refused with {words!r}")


there, here = torch.randn(3, 4, device=GPU), torch.randn(3, 4)
assert there.device == GPU and (there @ there.T).device == GPU and there.cpu().device.type == "cpu"

refused(RuntimeError, lambda: there + here, "same device")
refused(RuntimeError, lambda: there @ here.T, "same device")
refused(RuntimeError, lambda: torch.nn.functional.cross_entropy(there, torch.tensor([0, 1, 2])), "same device")
refused(RuntimeError, lambda: torch.stack([there, here]), "same device")
refused(TypeError, there.numpy, "can't convert cuda")
refused(torch.OutOfMemoryError, lambda: torch.empty(1 << 34, dtype=torch.uint8, device=GPU), "out of memory")

torch.manual_seed(1)
of_both = torch.rand(5), torch.rand(5, device=GPU)
torch.cuda.manual_seed(2)
assert torch.equal(torch.rand(5), torch.rand(10, generator=torch.Generator().manual_seed(1))[5:])  # it drew for itself
kept = torch.cuda.get_rng_state()
first = torch.rand(5, device=GPU)
torch.cuda.set_rng_state(kept)
assert torch.equal(first, torch.rand(5, device=GPU)) and not torch.equal(first, of_both[1])

before = torch.cuda.memory_allocated()
held = torch.empty(1 << 20, dtype=torch.uint8, device=GPU)
assert torch.cuda.memory_allocated() == before + (1 << 20) and held[5:].untyped_storage().size() == 1 << 20
del held
assert torch.cuda.memory_allocated() == before and torch.cuda.max_memory_allocated() >= before + (1 << 20)

layer = torch.nn.Linear(4, 2).to(GPU)
twin = torch.nn.Linear(4, 2)
twin.load_state_dict(layer.state_dict())
for module, inputs in ((layer, there), (twin, there.cpu())):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        module(inputs).square().sum().backward()
        optimizer.step()
torch.testing.assert_close(layer.weight.cpu(), twin.weight, rtol=1e-6, atol=1e-7)
assert layer.weight.grad is not None and layer.weight.grad.device == GPU
view = there[1:]
view.mul_(0)
assert not there[1:].any() and there[0].any()  # a view shares its memory
assert there.pin_memory is not None and here.pin_memory().is_pinned() and not here.is_pinned()
