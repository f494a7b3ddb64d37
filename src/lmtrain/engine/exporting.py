"""The end of a training: the model is written, reloaded and compared, by the first process while the others wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from transformers.integrations import deepspeed

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_file
from lmtrain.engine.distributed.processes import by_the_first
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.exporting.verified_export import export_verified, sharded_logits
from lmtrain.models.sharding import gathered, is_sharded

_GATHERS: Final = ("stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save")  # now, once


def require_gathering(trainer: LMTrainer) -> None:
    """Refuse to train what could not be put together at the end: of ZeRO-3's parts DeepSpeed makes a whole model only
    where its configuration says so."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    config = None if plugin is None else plugin.hf_ds_config
    if config is not None and config.is_zero3() and not any(config.is_true(f"zero_optimization.{n}") for n in _GATHERS):
        raise UserError(
            f"divides the weights (ZeRO-3) and does not gather them for the model that the run ends with; add "
            f'"{_GATHERS[0]}": true to its "zero_optimization"',
            flag="--deepspeed",
        )


def export_trained(trainer: LMTrainer, resolved: Resolved, tokenizer: Any, run: RunFolder, say: Say) -> None:
    """Leave what ``trainer`` has trained in the run's folder, and in ``export.json`` how it compared and its files.

    Every process has to call it. Raises :class:`OwnResultWrong`, on all of them, where what was written is not what is
    in memory; the folder's earlier model and the checkpoints are as they were then.
    """
    state, logits = None, None
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if is_sharded(model):
        state = gathered(model)
        with torch.compiler.set_stance("force_eager"):  # FSDP2's outermost unit is what --torch_compile compiled
            logits = sharded_logits(trainer.model, tokenizer)
    elif trainer.is_sharded:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)

    def work() -> None:
        merge = resolved.lora.use_peft and resolved.lora.merge_lora
        with _reading_whole_models():
            found = export_verified(
                model, tokenizer, run.path, resolved.purpose, resolved.model, merge=merge, state=state, logits=logits
            )
        files = {str(path.relative_to(run.path)): _about(path) for path in found.files}
        run.exported({**trainer.exported, "compared": found.as_dict(), "files": files})
        say("export", found.line)

    by_the_first(work)


@contextmanager
def _reading_whole_models() -> Iterator[None]:
    """While ZeRO-3 trains, ``from_pretrained`` cuts what it reads over all processes (``deepspeed.zero.Init``), and
    here one reads: it would wait for the others until the exchange is given up."""
    configuration = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = configuration


def _about(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
