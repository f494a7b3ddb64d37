"""A training with all that belongs to it: rehearsed before, sampled meanwhile, uploaded afterwards where that is asked.

``lmtrain clm``, ``mlm`` and ``sft`` are this, and so are the Python functions of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say, is_first_process, say
from lmtrain.core.errors import ExitCode
from lmtrain.core.stopping import Stop
from lmtrain.data.corpus import StoresMade
from lmtrain.engine.assembly import train
from lmtrain.engine.distributed.processes import to_the_end
from lmtrain.engine.measuring import Outcome
from lmtrain.engine.runs.uploading import destination_of, upload_run
from lmtrain.recipes.samples import sampling
from lmtrain.rehearsal.rehearse import rehearse


def whole_training(
    resolved: Resolved,
    argv: Sequence[str] = (),
    *,
    made_ahead: Callable[[], StoresMade] | None = None,
    stop: Stop | None = None,
    say: Say = say,
) -> Outcome:
    """:func:`lmtrain.engine.assembly.train` as the options say it all. Several processes leave their group with it.

    An upload that fails is told and no error, for the run is finished: :attr:`Outcome.uploaded` is False.
    """
    look = sampling(resolved)
    run = partial(train, resolved, argv, made_ahead=made_ahead, stop=stop, rehearse=rehearse, look=look, say=say)
    outcome = to_the_end(run)
    if not (is_first_process() and resolved.do_train and outcome.folder is not None and destination_of(resolved)):
        return outcome
    return replace(outcome, uploaded=upload_run(outcome.folder, resolved, say) is ExitCode.OK)
