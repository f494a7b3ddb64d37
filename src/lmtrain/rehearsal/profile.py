"""The anatomy of a run's steps, and advice: what ``lmtrain profile`` shows."""

from __future__ import annotations

import copy

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say, say
from lmtrain.core.errors import UserError
from lmtrain.engine.parts import assemble
from lmtrain.engine.sizing import settle_micro_batch
from lmtrain.models.attention_dropout import attention_dropout, set_attention_dropout
from lmtrain.rehearsal.advice import advice
from lmtrain.rehearsal.anatomy import WARM_UP, Anatomy, dissect
from lmtrain.rehearsal.trial import short_run


def profile(resolved: Resolved, steps: int, *, say: Say = say) -> tuple[Anatomy, list[str]]:
    """Measure ``steps`` steps of the run that ``resolved`` describes, on its own text; (anatomy, advice).

    Nothing is written but the token store that the run will read. Where the model drops attention weights, as many
    steps are measured without that, which tells what it costs. Raises :class:`UserError` as the run itself would.
    """
    if not resolved.do_train:
        raise UserError("nothing to train on; name a text: --train_file TEXT", flag="--train_file")
    parts = assemble(resolved, say=say)
    chosen = settle_micro_batch(resolved, parts, {}, say)
    sizes = chosen.arguments if chosen else {}
    twin = copy.deepcopy(parts.model) if attention_dropout(parts.model) else None
    with short_run(resolved, parts, WARM_UP + steps, **sizes) as trainer:
        anatomy = dissect(trainer, steps)
        without = None
        if twin is not None:
            set_attention_dropout(twin, 0.0)
            with short_run(resolved, parts, WARM_UP + steps, model=twin, **sizes) as other:
                without = dissect(other, steps)
        return anatomy, advice(anatomy, trainer, without)
