"""What dropout of attention weights costs a run's steps, where that is worth a line."""

from __future__ import annotations

from lmtrain.engine.parts import Parts
from lmtrain.engine.speed.precision import compute_dtype
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.attention_dropout import cost_of_attention_dropout

_MATTERS = 1.5  # times as slow: less is not worth a line


def what_attention_dropout_costs(trainer: LMTrainer, parts: Parts) -> list[str]:
    """A line on what a step of ``trainer`` would gain without it; none where that is little."""
    dtype = compute_dtype(trainer.args, parts.model)
    length = round(float(parts.corpus.splits["train"].lengths.mean()))
    with trainer.dropping():
        cost = cost_of_attention_dropout(
            parts.model, trainer.args.train_batch_size, length, parts.device, dtype, causal=parts.objective.shifted
        )
    if cost is None or cost[0] < _MATTERS * cost[1]:
        return []
    slow, fast = (1000 * seconds * trainer.args.gradient_accumulation_steps for seconds in cost)
    digits = 0 if fast >= 10 else 1
    return [
        f"dropout of attention weights keeps the fast attention kernel from being used: {slow:,.{digits}f} ms of a "
        f"step instead of {fast:,.{digits}f}, which --attention_dropout 0 would gain"
    ]
