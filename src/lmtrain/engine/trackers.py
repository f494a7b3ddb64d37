"""Trackers that ``--report_to`` names: the library's own callbacks, kept from harming the run that they watch.

By themselves (transformers 5.23) they let a tracker's error end the training, begin another run in the tracker
whenever ours goes on, and print on standard output, where a command's result belongs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from lmtrain.core.console import say, told_to
from lmtrain.core.errors import first_line

_EVENTS: Final = [name for name in vars(TrainerCallback) if name.startswith("on_")]
_DECIDED: Final = "tracked_as"


class Trackers:
    """The trackers among ``callbacks``. One that fails is told of in a line and asked no more.

    ``decision`` is what a run writes down for its later parts to be the same run in a tracker; see :meth:`name_run`.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback]) -> None:
        self.decision: dict[str, str] = {}
        self._goes_on = False
        self._failed: set[str] = set()
        self._begun: Any = None  # the module of Weights & Biases, once a run was begun there by name
        self._callbacks = {name: each for each in callbacks if (name := _name(each))}
        for name, callback in self._callbacks.items():
            for event in _EVENTS:
                setattr(callback, event, partial(self._tell, name, getattr(callback, event)))

    def name_run(self, args: TrainingArguments, folder: Path, decided: Mapping[str, Any] | None) -> None:
        """Give the run in ``folder`` the name that it has in every tracker, also when it is gone on with.

        Trackio takes runs of one name for the same run, so names end in a number of the run's own. TensorBoard shows
        each folder as a run.
        """
        if not self._callbacks:
            return
        earlier = (decided or {}).get(_DECIDED)
        self._goes_on = earlier is not None
        self.decision = {_DECIDED: earlier or uuid.uuid4().hex[:8]}
        name = f"{folder.resolve().name}-{self.decision[_DECIDED]}"
        args.run_name = args.run_name or name
        board: Any = self._callbacks.get("tensorboard")
        if board is not None and board.logging_dir is None:
            board.logging_dir = str(folder / "runs" / name)

    @contextmanager
    def to_the_end(self) -> Iterator[None]:
        """Inside the block a run is told of to its end, evaluations after training too."""
        wrong = 1  # unless it comes to its end
        try:
            yield
            wrong = 0
        finally:
            if self._begun is not None:
                self._attempt("wandb", partial(self._begun.finish, exit_code=wrong))
                self._begun = None
            trackio: Any = self._callbacks.get("trackio")
            if trackio is not None and trackio._initialized:  # begun anew by an evaluation after training
                self._attempt("trackio", trackio._trackio.finish)
                trackio._initialized = False

    def _tell(self, name: str, event: Callable[..., Any], args: Any, state: Any, control: Any, **given: Any) -> None:
        def tell() -> None:
            if name == "wandb" and state.is_world_process_zero:
                self._begin_wandb(args)
            event(args, state, control, **given)

        self._attempt(name, tell)

    def _begin_wandb(self, args: TrainingArguments) -> None:
        """Its callback does not say which run it is; what the user began or named in the environment is left."""
        import wandb

        if self._begun or not self.decision or wandb.run is not None or "WANDB_RUN_ID" in os.environ:
            return
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", args.project),
            name=args.run_name,
            id=self.decision[_DECIDED],
            resume="allow" if self._goes_on else None,
        )
        self._begun = wandb

    def _attempt(self, name: str, action: Callable[[], Any]) -> None:
        if name in self._failed:
            return
        try:
            with redirect_stdout(told_to()):
                action()
        except Exception as error:
            self._failed.add(name)
            why = first_line(error)
            say("attention", f"{name} failed, and is told no more of this run, which goes on; metrics.jsonl has its "
                             f"figures, lmtrain report shows them: {why}")  # fmt: skip


def _name(callback: TrainerCallback) -> str | None:
    return next((name for name, kind in INTEGRATION_TO_CALLBACK.items() if isinstance(callback, kind)), None)
