"""A folder with an adapter: read it, find its base model, merge the two.

What PEFT and a run leave: ``adapter_config.json`` names the base model, ``adapter_model.safetensors`` holds what was
trained. Merging is done in fp32, into the base as it lies on disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import UserError
from lmtrain.models.loading.peft_wrapping import require_peft, wrap
from lmtrain.models.loading.vocabulary import grow_embedding, rows_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
_OF_AN_ADAPTER = ("lora_", "trainable_tokens_delta", "modules_to_save.")
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class AdapterFolder:
    """``config`` is the content of ``adapter_config.json``; ``base`` names the model it was trained on."""

    path: Path
    config: dict[str, Any]
    base: str

    def base_options(self, options: Any) -> Any:
        """``options`` (a ``config.options.ModelOptions``) with the base model in the place of the adapter."""
        revision = self.config.get("revision") or options.model_revision
        return replace(options, model_name_or_path=self.base, model_revision=revision)


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return path.is_dir() and (path / CONFIG).is_file() and not (path / "config.json").is_file()


def read_adapter(path: Path, flag: str, base: str | None = None) -> AdapterFolder:
    """Read the folder's configuration. ``base`` takes the place of the base model that is recorded there.

    Raises :class:`UserError` for a folder without weights, another kind of adapter than LoRA, a base that is gone.
    """
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path / CONFIG} is not that of a LoRA adapter: {error}", flag=flag) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{path} holds an adapter of the kind {kind}; LoRA is supported", flag=flag)
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise UserError(f"{path} has an {CONFIG} but no weights ({_WEIGHTS[0]})", flag=flag)
    name = base or config.get("base_model_name_or_path")
    if not name:
        raise UserError(
            f"{path} is an adapter and does not say of which model; write its folder or hub name into "
            f"{path / CONFIG} as base_model_name_or_path",
            flag=flag,
        )
    if base is None and Path(name).is_absolute() and not Path(name).exists():
        raise UserError(
            f"{path} is an adapter for {name}, which is not there; bring that model back, or write where it lies "
            f"now into {path / CONFIG} as base_model_name_or_path",
            flag=flag,
        )
    return AdapterFolder(path, config, name)


def merge(base: PreTrainedModel, adapter: AdapterFolder, flag: str) -> PreTrainedModel:
    """Add what ``adapter`` learned to ``base``, an fp32 model of the same shape, which is used up.

    The embedding first grows to the rows the adapter was trained with. Raises :class:`UserError` where the two do not
    fit.
    """
    return merged(attach(base, adapter, flag))


def merged(model: Any) -> PreTrainedModel:
    """The base of a ``PeftModel`` with the adapter in its weights; where the adapter made a tied output and input
    differ, PEFT unties them."""
    from lmtrain.models.quiet import quiet_libraries

    with quiet_libraries():
        whole: PreTrainedModel = model.merge_and_unload()
    return whole


def attach(base: Any, adapter: AdapterFolder, flag: str) -> Any:
    """``base`` with the adapter beside it: a ``PeftModel`` in evaluation mode."""
    require_peft(flag)
    from peft import LoraConfig
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    from lmtrain.models.quiet import quiet_libraries

    try:
        weights = load_peft_weights(str(adapter.path), device="cpu")
    except Exception as error:  # safetensors and pickle each raise their own
        raise UserError(f"the weights of {adapter.path} cannot be read: {error}", flag=flag) from error
    rows = _rows_needed(base, adapter, weights)
    if rows > rows_of(base):
        grow_embedding(base, rows)
    with quiet_libraries():
        config = LoraConfig.from_pretrained(str(adapter.path))
        config.inference_mode = True
        try:
            model = wrap(base, config)
            result: Any = set_peft_model_state_dict(model, weights)
        except (UserError, RuntimeError) as error:
            raise UserError(_misfit(adapter, str(error)), flag=flag) from error
    own = dict(model.named_parameters())  # a tied one counts once, under its first name
    missing = [key for key in result.missing_keys if key in own and any(part in key for part in _OF_AN_ADAPTER)]
    if missing:
        raise UserError(_misfit(adapter, f"{len(missing)} of its tensors are missing ({missing[0]})"), flag=flag)
    if left := list(result.unexpected_keys):
        raise UserError(_misfit(adapter, f"{len(left)} of its tensors have no place ({left[0]})"), flag=flag)
    return model.eval()


def _misfit(adapter: AdapterFolder, why: str) -> str:
    return f"the adapter {adapter.path} does not fit {adapter.base}: {' '.join(why.split())}"


def _rows_needed(base: Any, adapter: AdapterFolder, weights: dict[str, Any]) -> int:
    """Rows of the embedding that the adapter speaks of; 0 where it leaves the vocabulary as it is."""
    indices = adapter.config.get("trainable_token_indices") or []
    lists = indices.values() if isinstance(indices, dict) else [indices]
    largest = max((max(ids, default=-1) for ids in lists), default=-1)
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    ends = tuple(f".{path}.weight" for path, module in base.named_modules() if module in layers)
    tables = [weight.shape[0] for key, weight in weights.items() if key.endswith(ends)]
    return max([largest + 1, *tables])
