"""A model in PEFT's hands: what has to be installed, the wrapping, and the name of what was wrapped."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Final

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from peft import PeftModel

_INSTALL: Final = "pip install 'lmtrain[lora]'"


def require_peft(flag: str = "--use_peft") -> None:
    """Raise :class:`UserError` with how to install PEFT where it is missing."""
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"needs the package peft: {_INSTALL}", flag=flag)


def wrap(model: Any, config: Any) -> PeftModel:
    """``model`` with the adapter of a ``peft.LoraConfig``; PEFT's reasons as :class:`UserError`."""
    from lmtrain.models.loading.peft_models import CausalAdapter, OtherAdapter

    kind = CausalAdapter if config.task_type == "CAUSAL_LM" else OtherAdapter
    try:
        with quiet_libraries():
            return kind(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"PEFT refuses: {' '.join(str(error).split())}", flag="--lora_target_modules") from error


def place_of(name: str | None) -> str | None:
    """Where a base model lies: an absolute path, so that its adapter finds it from any folder, or a hub name."""
    path = user_path(name or "")
    return str(path.resolve()) if name and path.exists() else name or None
