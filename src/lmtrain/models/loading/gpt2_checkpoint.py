"""GPT-2 checkpoints of the time before ``from_pretrained`` folders: one file of tensors, under old names.

What microsoft/LoRA's ``gpt2_ft.py --init_checkpoint`` takes. There a name that fits nothing leaves its layer as it was
drawn, and training goes on from random weights without a word (microsoft/LoRA#138); here every tensor must find its
place and every place its tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from lmtrain.core.console import counted
from lmtrain.core.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPT2Config, GPT2LMHeadModel

SIZES: dict[str, tuple[int, int, int]] = {  # layers, width, heads
    "gpt2.sm": (12, 768, 12),
    "gpt2.md": (24, 1024, 16),
    "gpt2.lg": (36, 1280, 20),
}
_ENDINGS = {".g": ".weight", ".w": ".weight", ".b": ".bias"}  # of OpenAI's own names
_BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")  # the causal mask, which is no weight
_HEADS = ("lm_head.weight", "lm_head.decoder.weight")
_SHOWN = 6


def gpt2_config(card: str) -> GPT2Config:
    """The shape that ``gpt2_ft.py`` calls ``card``. Like its model it has no dropout."""
    from transformers import GPT2Config

    if card not in SIZES:
        raise UserError(f"{card!r} is not one of {', '.join(SIZES)}", flag="--model_card")
    layers, width, heads = SIZES[card]
    return GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )  # fmt: skip


def read_tensors(path: Path, flag: str) -> dict[str, Tensor]:
    """The tensors of a file by name, without the entry some files wrap them in. Nothing in it is executed."""
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"no such file: {path}", flag=flag)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(
            path, map_location="cpu", weights_only=True
        )  # fmt: skip
    except UnpicklingError as error:  # torch advises an option that nobody can give here
        raise UserError(
            f"{path} is no file of weights that torch.save wrote, or holds more than tensors", flag=flag
        ) from error
    except Exception as error:  # safetensors and zip each raise their own
        raise UserError(f"{path} cannot be read as a file of weights: {first_line(error)}", flag=flag) from error
    content = content.get("model_state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path} holds something other than tensors by name", flag=flag)
    return dict(content)


def today(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of ``GPT2Model`` (``h.0.attn.c_attn.weight``) and ``lm_head.weight``."""
    named = {}
    for name, value in tensors.items():
        for prefix in ("module.", "transformer."):
            name = name.removeprefix(prefix)
        ending = name[-2:]
        name = name[:-2] + _ENDINGS[ending] if ending in _ENDINGS else name
        if not _BUFFERS.search(name):
            named["lm_head.weight" if name in _HEADS else name] = value
    return named


def fill(model: GPT2LMHeadModel, tensors: Mapping[str, Tensor], name: str, flag: str) -> None:
    """Put tensors under today's names into ``model``; all of them, and everywhere. The head is tied."""
    import torch

    given = dict(tensors)
    head = given.pop("lm_head.weight", None)
    own = dict(model.transformer.named_parameters())
    complaints = []
    wrong = [key for key in own.keys() & given.keys() if own[key].shape != given[key].shape]
    if wrong:
        first = sorted(wrong)[0]
        complaints.append(f"{_listed(wrong)} of another shape ({first} is {_shape(given[first])} there and "
                          f"{_shape(own[first])} in the model){_looks_like(given)}")  # fmt: skip
    if missing := own.keys() - given.keys():
        complaints.append(f"{_listed(missing)} missing")
    if left := given.keys() - own.keys():
        complaints.append(f"{_listed(left)} without a place in the model")
    if complaints:
        raise UserError(f"{name} does not fit, so it is not loaded at all: {'; '.join(complaints)}", flag=flag)
    if head is not None and not torch.equal(head, given["wte.weight"]):
        raise UserError(f"{name} has an output head of its own, and GPT-2's is its embedding", flag=flag)
    with torch.no_grad():
        for key, weight in own.items():
            weight.copy_(given[key])
    model.tie_weights()


def _listed(names: Any) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:_SHOWN]) + (", ..." if len(ordered) > _SHOWN else "")
    return f"{counted(len(ordered), 'tensor')} ({shown})"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _looks_like(tensors: Mapping[str, Tensor]) -> str:
    layers = len({key.split(".")[1] for key in tensors if re.match(r"h\.\d+\.", key)})
    width = tensors["wte.weight"].shape[1] if "wte.weight" in tensors and tensors["wte.weight"].ndim == 2 else 0
    card = next((name for name, size in SIZES.items() if size[:2] == (layers, width)), None)
    return f"; it looks like {card}" if card else ""
