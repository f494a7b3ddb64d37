"""What a checkpoint has to have in common with the training that goes on from it."""

from __future__ import annotations

import json
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import has_length

from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints.text import text_of

# Arguments that decide what is computed; others only how it is shown, saved or divided.
_ARGUMENTS = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "label_smoothing_factor", "neftune_noise_alpha", "seed", "data_seed", "bf16", "fp16",
    "train_sampling_strategy", "lr_scheduler_kwargs", "optim_args",
)  # fmt: skip
_WORDS = {
    "examples": "training examples",
    "tokens": "tokens of training text",
    "examples_a_step": "examples a step",
    "steps": "steps in all",
    "optimizer": "the optimizer",
    "parameters": "trained parameters",
    "text_store": "the training text",
    "text_sample": "a sample of the training text",
}


def plan_of(
    args: TrainingArguments, dataset: Any, *, batch_size: int, steps: int, optimizer: str, parameters: int
) -> dict[str, Any]:
    """What a training is, as plain values: its data's size and text, its step, its schedule.

    ``batch_size`` is that of one process, ``steps`` are all from the first on, ``parameters`` the numbers trained.
    """
    plan: dict[str, Any] = {
        "examples": len(dataset) if has_length(dataset) else None,
        "tokens": getattr(dataset, "n_tokens", None),
        "examples_a_step": batch_size * args.gradient_accumulation_steps * args.world_size,
        "steps": steps,
        "optimizer": optimizer,
        "parameters": parameters,
        **text_of(dataset),
    }
    return plan | {name: _plain(getattr(args, name, None)) for name in _ARGUMENTS}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str) if value else None  # none given: {} or None
    return value if isinstance(value, int | float | None) else str(getattr(value, "value", value))


def plan_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each thing that would make the rest another training than the one that was begun."""
    lines = []
    for key, was in before.items():
        if key in now and was != now[key]:
            lines.append(f"{_WORDS.get(key, key)}: {_shown(was)}, now {_shown(now[key])}")
    return lines


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def require_same_plan(checkpoint: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise :class:`UserError` with all differences."""
    changed = plan_differences(before, now)
    if changed:
        listed = "\n".join(f"    {line}" for line in changed)
        raise UserError(
            f"what would go on from {checkpoint} is not the training that was begun:\n{listed}\nSet these back; or, to "
            "go on all the same, say so: --accept_changes (in Python LMTrainer(saving=Saving(accept_changes=True)))",
            flag="--resume_from_checkpoint",
        )


def elsewhere(about: dict[str, Any], versions: dict[str, str], machine: dict[str, Any]) -> str | None:
    """A line when a checkpoint was made where bits may come out differently; None when it was here.

    ``about`` is its manifest; ``versions`` and ``machine`` are :mod:`lmtrain.engine.runs.versions`' of now.
    """
    changed = []
    for before, now in ((about.get("versions") or {}, versions), (about.get("machine") or {}, machine)):
        for key in ("python", "torch", "transformers", "numpy", "accelerate", "peft", "cpu", "cpu_capability",
                    "matrix_kernels", "torch_threads", "gpus"):  # fmt: skip
            if key in before and key in now and before[key] != now[key]:
                changed.append(f"{key.replace('_', ' ')} {before[key]} → {now[key]}")
    if not changed:
        return None
    return f"goes on elsewhere than it was saved ({', '.join(changed)}), so the last bits of the results may differ"
