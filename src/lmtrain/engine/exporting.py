"""The end of a training: the model is written, reloaded and compared, by the first process while the others wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say
from lmtrain.core.files import sha256_file
from lmtrain.engine.distributed.processes import by_the_first
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.exporting.verified_export import export_verified, sharded_logits
from lmtrain.models.sharding import gathered, is_sharded


def export_trained(trainer: LMTrainer, resolved: Resolved, tokenizer: Any, run: RunFolder, say: Say) -> None:
    """Leave what ``trainer`` has trained in the run's folder, and in ``export.json`` how it compared and its files.

    Every process has to call it. Raises :class:`OwnResultWrong`, on all of them, where what was written is not what is
    in memory; the folder's earlier model and the checkpoints are as they were then.
    """
    state, logits = None, None
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if is_sharded(model):
        state, logits = gathered(model), sharded_logits(model, tokenizer)
    elif trainer.is_sharded:
        state = trainer.accelerator.get_state_dict(trainer.deepspeed if trainer.is_deepspeed_enabled else trainer.model)

    def work() -> None:
        merge = resolved.lora.use_peft and resolved.lora.merge_lora
        found = export_verified(
            model, tokenizer, run.path, resolved.purpose, resolved.model, merge=merge, state=state, logits=logits
        )
        files = {str(path.relative_to(run.path)): _about(path) for path in found.files}
        run.exported({**trainer.exported, "compared": found.as_dict(), "files": files})
        say("export", found.line)

    by_the_first(work)


def _about(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
