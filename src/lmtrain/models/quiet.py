"""Keep libraries from talking over the run: what they know and the user needs, we say in our own lines."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# "httpx" and "urllib3" report every retry of a request that we answer for ourselves.
_LOUD = ("transformers", "huggingface_hub", "httpx", "urllib3")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence loggers, progress bars and Python warnings of transformers and the hub; errors still raise.

    Levels and the progress-bar switch are put back afterwards, so a caller's own settings survive.
    """
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def quiet_for_commands() -> None:
    """Only errors and no progress bars of transformers for the rest of the process: a command speaks for itself.

    ``--log_level`` still turns its messages on, as the Trainer sets that level.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
