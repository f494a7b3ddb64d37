"""What is compared is computed with all bits, whatever the run was told, and the run's own settings survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from architectures import tiny
from lmtrain.models.still import still

PRODUCTS = torch.backends.cuda.matmul


@pytest.fixture
def as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.fp32_precision = PRODUCTS.fp32_precision = "none"


def by_transformers() -> None:
    torch.backends.fp32_precision = "tf32"  # as its enable_tf32, which asks for a GPU first


def by_name() -> None:
    PRODUCTS.fp32_precision = "tf32"


def by_the_old_switch() -> None:
    PRODUCTS.allow_tf32 = True


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("told", [by_transformers, by_name, by_the_old_switch])
def test_tf32_is_off_meanwhile(told: Callable[[], None]) -> None:
    told()
    with pytest.raises(ZeroDivisionError), still(tiny("gpt2")):
        assert PRODUCTS.fp32_precision == "ieee"
        raise ZeroDivisionError
    assert PRODUCTS.fp32_precision == "tf32"
    if told is by_transformers:
        torch.backends.fp32_precision = "ieee"  # the next training in this process
        assert PRODUCTS.fp32_precision == "ieee"


def test_modes_dropout_and_autocast() -> None:
    model = tiny("gpt2", resid_pdrop=0.5).train()
    model.lm_head.eval()
    with torch.autocast("cpu", torch.bfloat16), still(model):
        assert not any(module.training for module in model.modules())
        assert model(input_ids=torch.tensor([[5, 9]])).logits.dtype == torch.float32
    assert model.training and model.transformer.h[0].training and not model.lm_head.training
