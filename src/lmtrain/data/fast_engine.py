"""The ``fastokens`` engine, which takes half a second to load for 50,000 tokens: in a thread, beside other work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def limit_threads(count: int) -> None:
    """Let the engines of this process, and of those it starts, encode with ``count`` threads each.

    To be called before one encodes. ``tokenizers`` reads rayon's variable, ``fastokens``, which has threads of its own,
    only its own: unset, that of one core of two takes the other as well.
    """
    for name in ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS"):
        os.environ[name] = str(count)


class Loading(Generic[T]):
    """Something that is loaded in a thread, beside other work."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._loaded: Future[T] = Future()
        self._thread: threading.Thread | None = None

    def _run(self) -> None:
        try:
            self._loaded.set_result(self._load())
        except Exception as error:
            self._loaded.set_exception(error)
        except BaseException as error:  # a panic of native code
            self._loaded.set_exception(RuntimeError(str(error)))

    def start(self) -> None:
        """Begin, if that was not done before."""
        if self._thread is None:
            # No daemon: native code that is in the middle of something when Python ends aborts the process.
            self._thread = threading.Thread(target=self._run)
            self._thread.start()

    def result(self) -> T:
        """Wait for it; raises what loading raised."""
        self.start()
        assert self._thread is not None
        self._thread.join()
        return self._loaded.result()


def load_fastokens(json_text: str) -> Any:
    """The ``fastokens`` engine of a ``tokenizer.json``: ImportError when it is not installed, ValueError or
    another exception when it does not know a part of the pipeline."""
    # The native module alone: the package's __init__ prepares patches of transformers, not wanted here.
    from fastokens._native import Tokenizer

    engine = Tokenizer.from_json_str(json_text)
    engine.no_truncation()
    engine.no_padding()
    return engine
